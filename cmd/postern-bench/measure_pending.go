package main

import (
	"context"
	"fmt"
	"time"
)

// heldSite makes a site with a destination for a backlog, which is held, and one that takes what comes meanwhile.
func (b *bench) heldSite(name string) (*site, error) {
	return b.newSite(name, siteParams{destinations: []destination{{name: "bench", host: hostH2, held: true}, {name: "live", host: hostH2}}})
}

// hold says whether the backlog's destination is held from the next start on.
func (s *site) hold(held bool) { s.params.destinations[0].held = held }

// measurePending compares a store with a large backlog to an empty one, and looks at starts and memory with it.
func measurePending(ctx context.Context, b *bench) ([]figure, error) {
	part := b.backlog / 2 // of one drain; each round drains two
	full, err := b.heldSite("full")
	if err != nil {
		return nil, err
	}
	defer full.remove()
	if err := full.run(ctx, func(p *started) error { return b.fill(ctx, p.process, "bench", b.pending+2*b.rounds*part) }); err != nil {
		return nil, fmt.Errorf("fill: %w", err)
	}
	got := samples{}
	var rest, most memory
	for range b.rounds {
		if err := b.roundOfEmpty(ctx, part, got); err != nil {
			return nil, fmt.Errorf("empty store: %w", err)
		}
		r, m, err := b.roundOfFull(ctx, full, part, got)
		if err != nil {
			return nil, fmt.Errorf("full store: %w", err)
		}
		if r.resident > rest.resident {
			rest = r
		}
		if m.resident > most.resident {
			most = m
		}
	}
	with := grouped(int64(b.pending)) + " pending"
	const empty = "the same, empty store"
	return []figure{
		memoryFigure("resident memory with "+with+", at rest", rest, 128),
		memoryFigure("resident memory with "+with+", most under load and drain", most, 128),
		{
			Name: "durable accepts, 64 connections, " + with, Unit: "/s",
			Postern: got.median("accepts"), Bound: got.median("accepts empty"), BoundName: empty, Goal: ratioAtLeast(0.9),
		},
		{
			Name: "drain, " + with, Unit: "/s",
			Postern: got.median("drain"), Bound: got.median("drain empty"), BoundName: "the same, backlog of " + grouped(int64(part)), Goal: ratioAtLeast(0.9),
		},
		{Name: "start to ready, " + with + ", after SIGTERM", Unit: "s", Postern: got.median("ready term"), Goal: atMost(1)},
		{Name: "start to ready, " + with + ", after kill -9", Unit: "s", Postern: got.median("ready kill"), Goal: atMost(1)},
		{Name: "first delivery after ready, after SIGTERM", Unit: "s", Postern: got.median("first term"), Goal: atMost(0.2)},
		{Name: "first delivery after ready, after kill -9", Unit: "s", Postern: got.median("first kill"), Goal: atMost(0.2)},
	}, nil
}

// roundOfEmpty measures what a store without a backlog does.
func (b *bench) roundOfEmpty(ctx context.Context, part int, got samples) error {
	s, err := b.heldSite("empty")
	if err != nil {
		return err
	}
	defer s.remove()
	err = s.run(ctx, func(p *started) error {
		l, err := b.accept64(ctx, p)
		got.add("accepts empty", rate(l.posts, l.took))
		return err
	})
	if err != nil {
		return err
	}
	drained, err := b.drain(ctx, hostH2, part)
	got.add("drain empty", drained)
	return err
}

// roundOfFull measures the same of a store with a backlog, and starts after both kinds of ends.
func (b *bench) roundOfFull(ctx context.Context, s *site, part int, got samples) (rest, most memory, err error) {
	s.hold(true)
	err = s.crash(ctx, func(p *started) error {
		if err := pause(ctx, b.restFor()/3); err != nil {
			return err
		}
		if rest, err = p.memory(); err != nil {
			return err
		}
		stop := p.mostMemory(ctx)
		l, err := b.accept64(ctx, p)
		most = stop()
		got.add("accepts", rate(l.posts, l.took))
		return err
	})
	if err != nil {
		return rest, most, err
	}
	s.hold(false)
	for _, after := range []string{"kill", "term"} {
		d, err := b.drainPart(ctx, s, part)
		if err != nil {
			return rest, most, err
		}
		got.add("ready "+after, d.ready.Seconds())
		got.add("first "+after, d.first.Seconds())
		got.add("drain", d.rate)
		if d.memory.resident > most.resident {
			most = d.memory
		}
	}
	return rest, most, nil
}

func (b *bench) accept64(ctx context.Context, p *started) (loaded, error) {
	return load{address: p.address, paths: []string{p.path}, conns: 64, bodySize: b.bodySize, duration: b.duration}.run(ctx)
}

// drained is what a start with a backlog that is not held came to.
type drained struct {
	ready  time.Duration
	first  time.Duration // from ready to the first receipt; 0 if it came before
	rate   float64
	memory memory // the most
}

// drainPart starts a site and stops it in good order when n deliveries have arrived.
func (b *bench) drainPart(ctx context.Context, s *site, n int) (d drained, err error) {
	if err := b.sink.expect(ctx, n); err != nil {
		return d, err
	}
	err = s.run(ctx, func(p *started) error {
		stop := p.mostMemory(ctx)
		a, err := b.sink.wait(ctx, p.process, runTimeout)
		d = drained{
			ready: p.ready, first: max(0, a.First.Sub(p.begun.Add(p.ready))),
			rate: rate(n, a.Reached.Sub(a.First)), memory: stop(),
		}
		return err
	})
	return d, err
}
