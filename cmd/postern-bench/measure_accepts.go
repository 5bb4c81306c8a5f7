package main

import (
	"context"
	"fmt"
)

// acceptConns are the numbers of connections at which accepts are measured.
var acceptConns = [...]int{1, 16, 64, 256}

// measureAccepts compares durable accepts with both bounds. The destination is not enabled, so that nothing but
// ingest is measured.
func measureAccepts(ctx context.Context, b *bench) ([]figure, error) {
	const postern, file, badger = "postern", "file", "badger"
	sides := []string{postern, file, badger}
	key := func(side string, conns int) string { return fmt.Sprintf("%s %d", side, conns) }
	got := samples{}
	err := b.inTurns(sides, func(side string) error {
		return b.withAcceptor(ctx, side, func(p *process) error {
			for _, conns := range acceptConns {
				l, err := load{address: p.address, paths: []string{p.path}, conns: conns, bodySize: b.bodySize, duration: b.duration}.run(ctx)
				if err != nil {
					return err
				}
				got.add(key(side, conns), rate(l.posts, l.took))
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, conns := range acceptConns {
		f := figure{Name: fmt.Sprintf("durable accepts, %d connections", conns), Unit: "/s", Postern: got.median(key(postern, conns))}
		if conns == 1 {
			f.Name = "durable accepts, 1 connection"
		}
		f.Bound, f.BoundName, f.Goal = got.median(key(badger, conns)), "(b) HTTP and bare Badger", ratioAtLeast(0.8)
		figures = append(figures, f)
		f.Bound, f.BoundName, f.Goal = got.median(key(file, conns)), "(a) HTTP and a plain file", ratioAtLeast(0.65)
		figures = append(figures, f)
	}
	return figures, nil
}

// withAcceptor runs one side of a comparison of accepts on a fresh folder, while use uses it.
func (b *bench) withAcceptor(ctx context.Context, side string, use func(*process) error) error {
	if side == "postern" {
		s, err := b.newSite(side, siteParams{destinations: []destination{{name: "bench", host: hostH2, held: true}}})
		if err != nil {
			return err
		}
		return s.with(ctx, func(p *started) error { return use(p.process) })
	}
	folder := b.folder(side)
	p, err := b.startChild(ctx, "bound-"+side, folder)
	if err != nil {
		return err
	}
	defer removeAll(folder)
	defer p.kill()
	return use(p)
}
