package main

import (
	"context"
	"fmt"
	"time"
)

// measureDestinations makes the same figures with more and more destinations, nine of ten of which refuse each
// connection.
func measureDestinations(ctx context.Context, b *bench) ([]figure, error) {
	g := &growing{axis: axisDestinations}
	for _, n := range []int{1, 10, 100, 1000} {
		if err := b.spreadOver(ctx, g, n); err != nil {
			return g.figures, fmt.Errorf("%d destinations: %w", n, err)
		}
	}
	return g.figures, nil
}

// fleet is destinations of which each tenth is alive, the first among them.
type fleet struct {
	destinations []destination
	all          []string // paths of posts
	alive        []string
	mixed        []string // alive and dead in turn
}

func newFleet(n int) fleet {
	var f fleet
	var dead []string
	for i := range n {
		d := destination{name: fmt.Sprintf("d%04d", i), host: hostH2}
		path := "/to/" + d.name
		if i%10 == 0 {
			f.alive = append(f.alive, path)
		} else {
			d.host = hostDead
			dead = append(dead, path)
		}
		f.destinations = append(f.destinations, d)
		f.all = append(f.all, path)
	}
	for i, path := range dead {
		f.mixed = append(f.mixed, f.alive[i%len(f.alive)], path)
	}
	return f
}

func (b *bench) spreadOver(ctx context.Context, g *growing, n int) error {
	fleet := newFleet(n)
	s, err := b.newSite("destinations", siteParams{destinations: fleet.destinations})
	if err != nil {
		return err
	}
	defer s.remove()
	err = s.crash(ctx, func(p *started) error {
		// All get the same, so that the dead have failed and are held by their breakers in what follows. Whole turns
		// over all destinations make it known how many will arrive.
		turns := max(1, b.backlog/2/n)
		if err := b.sink.expect(ctx, turns*len(fleet.alive)); err != nil {
			return err
		}
		l, err := load{address: p.address, paths: fleet.all, conns: 64, bodySize: b.bodySize, most: turns * n}.run(ctx)
		if err != nil {
			return err
		}
		g.add(seriesAccepts, n, "/s", rate(l.posts, l.took), "")
		if _, err := b.sink.wait(ctx, p.process, runTimeout); err != nil {
			return err
		}
		if err := b.spreadToAlive(ctx, g, p, fleet); err != nil {
			return err
		}
		if err := pause(ctx, b.restFor()/3); err != nil {
			return err
		}
		m, err := p.memory()
		g.add(seriesMemory, n, "MiB", inMebibytes(m.resident), m.note())
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
	return nil
}

// spreadToAlive measures what the healthy destinations get while the others are dead.
func (b *bench) spreadToAlive(ctx context.Context, g *growing, p *started, f fleet) error {
	x, part := len(f.destinations), b.backlog/4
	if err := b.sink.expect(ctx, part); err != nil {
		return err
	}
	l, err := load{address: p.address, paths: f.alive, conns: 64, bodySize: b.bodySize, most: part}.run(ctx)
	if err != nil {
		return err
	}
	a, err := b.sink.wait(ctx, p.process, runTimeout)
	if err != nil {
		return err
	}
	g.add(seriesDeliver, x, "/s", rate(part, a.Reached.Sub(l.begun)), "")

	// 100 posts a second to the healthy ones, and as many to the dead.
	posts, paths, every := int(2*b.duration/receiptEvery), f.alive, receiptEvery
	if err := b.sink.expectTimes(ctx, posts); err != nil {
		return err
	}
	if len(f.mixed) > 0 {
		posts, paths, every = 2*posts, f.mixed, receiptEvery/2
	}
	if _, err := paced(ctx, p.address, paths, b.bodySize, posts, every); err != nil {
		return err
	}
	if a, err = b.sink.wait(ctx, p.process, time.Minute); err != nil {
		return err
	}
	g.add(seriesReceipt, x, "ms", milliseconds(a.P50), "")
	g.add(seriesTail, x, "ms", milliseconds(a.P99), "")
	return nil
}
