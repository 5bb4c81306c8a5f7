package main

import (
	"context"
	"slices"
	"time"
)

const (
	lonePosts = 300
	lonePause = 10 * time.Millisecond
)

// measureLone compares the time of one post alone, with a pause after each, as an app makes it on an ordinary day.
func measureLone(ctx context.Context, b *bench) ([]figure, error) {
	const postern, badger = "postern", "badger"
	sides := []string{postern, badger}
	got := samples{}
	err := b.inTurns(sides, func(side string) error {
		return b.withAcceptor(ctx, side, func(p *process) error {
			times, err := b.postAlone(ctx, p, lonePosts)
			got.add(side+" p50", milliseconds(percentile(times, 0.5)))
			got.add(side+" p99", milliseconds(percentile(times, 0.99)))
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, part := range []string{"p50", "p99"} {
		figures = append(figures, figure{
			Name: "one lone post until its answer, " + part, Unit: "ms",
			Postern: got.median(postern + " " + part), Bound: got.median(badger + " " + part), BoundName: "(b) HTTP and bare Badger", Goal: ratioAtMost(1.3),
		})
	}
	return figures, nil
}

func (b *bench) postAlone(ctx context.Context, to *process, n int) ([]time.Duration, error) {
	p, err := newPoster(to.address, []string{to.path}, b.bodySize, 0)
	if err != nil {
		return nil, err
	}
	defer p.conn.Close()
	var times []time.Duration
	for i := range n {
		if err := pause(ctx, lonePause); err != nil {
			return nil, err
		}
		begun := time.Now()
		if err := p.post(i); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begun))
	}
	slices.Sort(times)
	return times, nil
}

// receiptEvery makes 100 posts a second.
const receiptEvery = 10 * time.Millisecond

// measureReceipt compares the time from post to receipt at 100 posts a second.
func measureReceipt(ctx context.Context, b *bench) ([]figure, error) {
	const postern, ideal = "postern", "ideal"
	sides := []string{postern, ideal}
	got := samples{}
	err := b.inTurns(sides, func(side string) error {
		return b.withRelay(ctx, side, func(p *process) error {
			// The first posts meet cold code and a connection that is yet to be made, on both sides.
			if _, err := b.receipts(ctx, p, 100); err != nil {
				return err
			}
			a, err := b.receipts(ctx, p, int(3*b.duration/receiptEvery))
			got.add(side+" p50", milliseconds(a.P50))
			got.add(side+" p99", milliseconds(a.P99))
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, part := range []struct {
		name string
		most float64
	}{{"p50", 1.3}, {"p99", 2}} {
		figures = append(figures, figure{
			Name: "post to receipt at 100/s, " + part.name, Unit: "ms", Goal: ratioAtMost(part.most),
			Postern: got.median(postern + " " + part.name), Bound: got.median(ideal + " " + part.name), BoundName: "(d) the ideal relay",
		})
	}
	return figures, nil
}

// receipts posts n messages, 100 a second, and returns when and how soon they have arrived.
func (b *bench) receipts(ctx context.Context, p *process, n int) (arrivals, error) {
	if err := b.sink.expectTimes(ctx, n); err != nil {
		return arrivals{}, err
	}
	if _, err := paced(ctx, p.address, []string{p.path}, b.bodySize, n, receiptEvery); err != nil {
		return arrivals{}, err
	}
	return b.sink.wait(ctx, p, time.Minute)
}
