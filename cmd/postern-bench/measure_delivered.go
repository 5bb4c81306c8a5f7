package main

import (
	"context"
	"time"
)

// runTimeout bounds each run that is bounded by a number of messages.
const runTimeout = 20 * time.Minute

// measureDelivered compares accepting and delivering at once with the ideal relay: so many messages over 64
// connections, from the first post to the last receipt.
func measureDelivered(ctx context.Context, b *bench) ([]figure, error) {
	const postern, ideal = "postern", "ideal"
	sides := []string{postern, ideal}
	got := samples{}
	err := b.inTurns(sides, func(side string) error {
		return b.withRelay(ctx, side, func(p *process) error {
			r, err := b.acceptAndDeliver(ctx, p, b.backlog)
			if err != nil {
				return err
			}
			got.add(side+" rate", rate(b.backlog, r.took))
			got.add(side+" accepted", rate(b.backlog, r.accepting))
			got.add(side+" cpu", r.cpu.Seconds()*10_000/float64(b.backlog))
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return []figure{
		{
			Name: "accepted and delivered at once, 64 connections, signed", Unit: "/s",
			Postern: got.median(postern + " rate"), Bound: got.median(ideal + " rate"), BoundName: "(d) the ideal relay", Goal: ratioAtLeast(0.8),
		},
		{
			Name: "accepted meanwhile", Unit: "/s",
			Postern: got.median(postern + " accepted"), Bound: got.median(ideal + " accepted"), BoundName: "(d) the ideal relay",
		},
		{
			Name: "processor time per 10,000 delivered", Unit: "s",
			Postern: got.median(postern + " cpu"), Bound: got.median(ideal + " cpu"), BoundName: "(d) the ideal relay", Goal: ratioAtMost(1.3),
		},
	}, nil
}

// run is what accepting and delivering some messages took.
type deliveredRun struct {
	accepting time.Duration // until the last answer
	took      time.Duration // until the last receipt
	cpu       time.Duration // of the relay alone
}

func (b *bench) acceptAndDeliver(ctx context.Context, p *process, n int) (r deliveredRun, err error) {
	if err := b.sink.expect(ctx, n); err != nil {
		return r, err
	}
	before, err := p.cpu()
	if err != nil {
		return r, err
	}
	l, err := load{address: p.address, paths: []string{p.path}, conns: 64, bodySize: b.bodySize, most: n}.run(ctx)
	if err != nil {
		return r, err
	}
	a, err := b.sink.wait(ctx, p, runTimeout)
	if err != nil {
		return r, err
	}
	after, err := p.cpu()
	return deliveredRun{accepting: l.took, took: a.Reached.Sub(l.begun), cpu: after - before}, err
}

// withRelay runs one side of a comparison of deliveries on a fresh folder, over HTTP/2, while use uses it.
func (b *bench) withRelay(ctx context.Context, side string, use func(*process) error) error {
	if side == "postern" {
		s, err := b.newSite(side, siteParams{destinations: []destination{{name: "bench", host: hostH2}}})
		if err != nil {
			return err
		}
		return s.with(ctx, func(p *started) error { return use(p.process) })
	}
	folder := b.folder(side)
	p, err := b.startChild(ctx, "bound-relay", folder, b.sink.caFile, hostH2)
	if err != nil {
		return err
	}
	defer removeAll(folder)
	defer p.kill()
	return use(p)
}
