package main

import (
	"context"
	"fmt"
)

// The series of the growth: what is drawn, one line each.
const (
	seriesAccepts = "durable accepts, 64 connections"
	seriesDeliver = "delivered"
	seriesReceipt = "post to receipt at 100/s, p50"
	seriesTail    = "post to receipt at 100/s, p99"
	seriesMemory  = "resident memory, at rest"
	seriesStart   = "start to ready after kill -9"
)

// The axes of the growth.
const (
	axisPending      = "pending messages"
	axisDestinations = "destinations"
)

// axisPlace says in words where on an axis a figure stands.
func axisPlace(axis string, x int) string {
	switch {
	case axis == axisPending:
		return grouped(int64(x)) + " pending"
	case x == 1:
		return "1 destination"
	}
	return grouped(int64(x)) + " destinations, 90 % dead"
}

// growing gathers the figures of one axis. The first value of each series stands beside the later ones.
type growing struct {
	axis    string
	figures []figure
}

func (g *growing) add(series string, x int, unit string, y float64, note string) {
	f := figure{Name: series + ", " + axisPlace(g.axis, x), Unit: unit, Postern: y, Note: note, Axis: g.axis, Series: series, X: float64(x)}
	for _, first := range g.figures {
		if first.Series == series {
			f.Bound, f.BoundName = first.Postern, fmt.Sprintf("at %s", grouped(int64(first.X)))
			break
		}
	}
	g.figures = append(g.figures, f)
}

// measureGrowth makes the same figures with more and more pending. The largest backlog is for ingest and starts alone.
func measureGrowth(ctx context.Context, b *bench) ([]figure, error) {
	g := &growing{axis: axisPending}
	for _, n := range []int{0, b.pending / 10, b.pending, b.most} {
		if n == 0 && len(g.figures) > 0 {
			continue // -most 0
		}
		if err := b.growTo(ctx, g, n); err != nil {
			return g.figures, fmt.Errorf("%d pending: %w", n, err)
		}
	}
	return g.figures, nil
}

func (b *bench) growTo(ctx context.Context, g *growing, n int) error {
	s, err := b.heldSite("growth")
	if err != nil {
		return err
	}
	defer s.remove()
	if err := s.run(ctx, func(p *started) error { return b.fill(ctx, p.process, "bench", n) }); err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	pending := n
	err = s.crash(ctx, func(p *started) error {
		if err := pause(ctx, b.restFor()/3); err != nil {
			return err
		}
		m, err := p.memory()
		if err != nil {
			return err
		}
		g.add(seriesMemory, n, "MiB", inMebibytes(m.resident), m.note())
		if n <= b.pending {
			live := *p.process
			live.path = "/to/live"
			if _, err := b.receipts(ctx, &live, 100); err != nil {
				return err
			}
			a, err := b.receipts(ctx, &live, int(2*b.duration/receiptEvery))
			if err != nil {
				return err
			}
			g.add(seriesReceipt, n, "ms", milliseconds(a.P50), "")
			g.add(seriesTail, n, "ms", milliseconds(a.P99), "")
		}
		l, err := b.accept64(ctx, p)
		g.add(seriesAccepts, n, "/s", rate(l.posts, l.took), "")
		pending += l.posts
		return err
	})
	if err != nil {
		return err
	}
	ready, err := s.timeToReady(ctx)
	if err != nil {
		return err
	}
	g.add(seriesStart, n, "s", ready.Seconds(), "")
	if n > b.pending {
		return nil
	}
	// Without a backlog, what the accepts have left is drained.
	s.hold(false)
	part := min(b.backlog/5, pending)
	d, err := b.drainPart(ctx, s, part)
	g.add(seriesDeliver, n, "/s", d.rate, "")
	return err
}
