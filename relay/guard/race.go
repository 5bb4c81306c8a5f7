package guard

import (
	"context"
	"net"
	"net/netip"
	"time"
)

const (
	fallbackDelay = 300 * time.Millisecond // before the second address family is tried, as in package net
	leastShare    = 2 * time.Second        // that one address gets before the next is tried, if there is as much
)

// dialFunc connects to one address.
type dialFunc func(ctx context.Context, addr netip.Addr) (net.Conn, error)

// race dials the addresses of the first one's family, and after a delay, or as soon as those have failed, the
// others at the same time. The first connection wins. It returns when both are over: a losing connection never
// outlives the call. addrs is not empty.
func race(ctx context.Context, addrs []netip.Addr, dial dialFunc) (net.Conn, error) {
	var first, second []netip.Addr
	for _, addr := range addrs {
		if addr.Is4() == addrs[0].Is4() {
			first = append(first, addr)
		} else {
			second = append(second, addr)
		}
	}
	if len(second) == 0 {
		return dialEach(ctx, first, dial)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	var (
		results  = make(chan result, 2)
		fallback = time.NewTimer(fallbackDelay)
		begin    = func(addrs []netip.Addr) {
			go func() {
				conn, err := dialEach(ctx, addrs, dial)
				results <- result{conn, err}
			}()
		}
		running = 1
		won     net.Conn
		failed  error
	)
	defer fallback.Stop()
	begin(first)
	for running > 0 {
		select {
		case <-fallback.C:
			if second != nil && won == nil {
				begin(second)
				second, running = nil, running+1
			}
		case r := <-results:
			running--
			switch {
			case r.err != nil && failed == nil:
				failed = r.err
			case r.err == nil && won == nil:
				won = r.conn
				cancel()
			case r.err == nil:
				r.conn.Close()
			}
			if r.err != nil && won == nil && second != nil {
				begin(second)
				second, running = nil, running+1
			}
		}
	}
	if won != nil {
		return won, nil
	}
	return nil, failed
}

// dialEach tries addresses one after the other, each with a fair share of the time left, and returns the first
// connection or the first error.
func dialEach(ctx context.Context, addrs []netip.Addr, dial dialFunc) (net.Conn, error) {
	var failed error
	for i, addr := range addrs {
		conn, err := dialShare(ctx, addr, len(addrs)-i, dial)
		if err == nil {
			return conn, nil
		}
		if failed == nil {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// dialShare dials one address of left that are still to be tried.
func dialShare(ctx context.Context, addr netip.Addr, left int, dial dialFunc) (net.Conn, error) {
	deadline, ok := ctx.Deadline()
	if !ok || left == 1 {
		return dial(ctx, addr)
	}
	total := time.Until(deadline)
	share := min(total, max(total/time.Duration(left), leastShare))
	ctx, cancel := context.WithTimeoutCause(ctx, share, errDialTimeout)
	defer cancel()
	return dial(ctx, addr)
}
