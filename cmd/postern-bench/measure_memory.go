package main

import (
	"context"
	"time"
)

// restFor is how long a process rests before its idle memory is read.
func (b *bench) restFor() time.Duration {
	if b.quick {
		return 3 * time.Second
	}
	return 30 * time.Second
}

// measureMemory reads the memory of a process that has nothing to do, and the most of it under load.
func measureMemory(ctx context.Context, b *bench) ([]figure, error) {
	var idle, busy memory
	s, err := b.newSite("memory", siteParams{destinations: []destination{{name: "bench", host: hostH2}}})
	if err != nil {
		return nil, err
	}
	err = s.with(ctx, func(p *started) error {
		if err := pause(ctx, b.restFor()); err != nil {
			return err
		}
		if idle, err = p.memory(); err != nil {
			return err
		}
		stop := p.mostMemory(ctx)
		_, err := b.acceptAndDeliver(ctx, p.process, 3*b.backlog)
		busy = stop()
		return err
	})
	if err != nil {
		return nil, err
	}
	return []figure{
		memoryFigure("resident memory, idle", idle, 30),
		memoryFigure("resident memory, most under 64 connections of load", busy, 128),
	}, nil
}

// memoryFigure is a row of resident memory, with at most so many MiB for a goal; 0 means none.
func memoryFigure(name string, m memory, most float64) figure {
	return figure{Name: name, Unit: "MiB", Postern: inMebibytes(m.resident), Note: m.note(), Goal: atMost(most)}
}
