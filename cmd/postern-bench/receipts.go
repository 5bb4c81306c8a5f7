package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"
)

// sink is the receiver, seen from this process.
type sink struct {
	*process
	caFile string
}

func (b *bench) startSink(ctx context.Context) (*sink, error) {
	caFile := filepath.Join(b.work, "ca.pem")
	p, err := b.startChild(ctx, "receiver", caFile)
	if err != nil {
		return nil, err
	}
	return &sink{process: p, caFile: caFile}, nil
}

// expect begins to count anew, until n requests have arrived.
func (s *sink) expect(ctx context.Context, n int) error { return s.begin(ctx, n, false) }

// expectTimes is expect, with the times from post to receipt.
func (s *sink) expectTimes(ctx context.Context, n int) error { return s.begin(ctx, n, true) }

func (s *sink) begin(ctx context.Context, n int, times bool) error {
	query := url.Values{"n": {strconv.Itoa(n)}, "times": {strconv.FormatBool(times)}}
	return ask(ctx, http.MethodPost, "http://"+s.address+"/expect?"+query.Encode(), nil)
}

// arrivals returns what has been counted.
func (s *sink) arrivals(ctx context.Context) (a arrivals, err error) {
	return a, ask(ctx, http.MethodGet, "http://"+s.address+"/arrivals", &a)
}

// wait waits until as many have arrived as are expected, from a process that is there to stay.
func (s *sink) wait(ctx context.Context, from *process, most time.Duration) (arrivals, error) {
	alive, stop := from.whileAlive(ctx)
	defer stop()
	return s.waitLong(alive, most)
}

// waitLong is wait, whoever has posted.
func (s *sink) waitLong(ctx context.Context, most time.Duration) (a arrivals, err error) {
	waiting, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if err := ask(waiting, http.MethodGet, "http://"+s.address+"/reached", &a); err != nil {
		so, _ := s.arrivals(context.WithoutCancel(ctx))
		return a, fmt.Errorf("%d arrived, which are too few: %w", so.Count, errors.Join(err, context.Cause(waiting)))
	}
	return a, nil
}
