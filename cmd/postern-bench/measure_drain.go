package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
)

// measureDrain compares the drain of a backlog with a client that only posts, and with the ideal relay, which has to read
// and delete as well. The backlog is made while the destination is not enabled.
func measureDrain(ctx context.Context, b *bench) ([]figure, error) {
	got := samples{}
	for round := range b.rounds {
		for _, host := range []string{hostH1, hostH2} {
			sides := []func() error{
				func() error {
					ours, err := b.drain(ctx, host, b.backlog)
					got.add("postern "+host, ours)
					return err
				},
				func() error {
					bare, err := b.bare(ctx, "bound-client", host, b.backlog)
					got.add("bare "+host, bare)
					return err
				},
				func() error {
					folder := b.folder("drain")
					defer removeAll(folder)
					ideal, err := b.bare(ctx, "bound-drain", host, b.backlog, folder)
					got.add("ideal "+host, ideal)
					return err
				},
			}
			for i := range sides {
				if err := sides[(i+round)%len(sides)](); err != nil {
					return nil, err
				}
			}
		}
	}
	var figures []figure
	for _, p := range []struct{ host, name string }{{hostH1, "HTTP/1.1"}, {hostH2, "HTTP/2"}} {
		f := figure{Name: fmt.Sprintf("drain of %s pending, %s", grouped(int64(b.backlog)), p.name), Unit: "/s", Postern: got.median("postern " + p.host)}
		f.Bound, f.BoundName, f.Goal = got.median("bare "+p.host), "(c) bare client", ratioAtLeast(0.8)
		figures = append(figures, f)
		f.Bound, f.BoundName, f.Goal = got.median("ideal "+p.host), "(d) the ideal relay", goal{}
		figures = append(figures, f)
	}
	return figures, nil
}

// drain fills a fresh store with n messages, and returns how many a second arrive after a start.
func (b *bench) drain(ctx context.Context, host string, n int) (float64, error) {
	s, err := b.newSite("drain", siteParams{destinations: []destination{{name: "bench", host: host, held: true}}})
	if err != nil {
		return 0, err
	}
	defer s.remove()
	if err := s.run(ctx, func(p *started) error { return b.fill(ctx, p.process, "bench", n) }); err != nil {
		return 0, err
	}
	s.params.destinations[0].held = false
	var arrived arrivals
	if err := b.sink.expect(ctx, n); err != nil {
		return 0, err
	}
	err = s.run(ctx, func(p *started) error {
		arrived, err = b.sink.wait(ctx, p.process, runTimeout)
		return err
	})
	return rate(n, arrived.Reached.Sub(arrived.First)), err
}

// bare returns how many a second arrive from a bound that posts n bodies. before are its arguments ahead of those that all
// have.
func (b *bench) bare(ctx context.Context, bound, host string, n int, before ...string) (float64, error) {
	if err := b.sink.expect(ctx, n); err != nil {
		return 0, err
	}
	args := append(append([]string{bound}, before...), b.sink.caFile, host, strconv.Itoa(n), strconv.Itoa(b.bodySize))
	p, err := spawn(ctx, exec.CommandContext(ctx, b.self, args...))
	if err != nil {
		return 0, err
	}
	defer p.kill()
	arrived, err := b.sink.waitLong(ctx, runTimeout)
	return rate(n, arrived.Reached.Sub(arrived.First)), err
}
