package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// poster posts over one kept-alive connection. It is as thin as a client can be, so that the load takes little of
// the cores that both sides of a comparison share with it.
type poster struct {
	conn   net.Conn
	reader *bufio.Reader
	heads  [][]byte // of requests, one for each path
	bodies *bodies
	buf    []byte
}

func newPoster(address string, paths []string, size int, seed uint64) (*poster, error) {
	conn, err := dialIngest(address)
	if err != nil {
		return nil, err
	}
	p := &poster{conn: conn, reader: bufio.NewReader(conn), bodies: newBodies(size, seed)}
	for _, path := range paths {
		p.heads = append(p.heads, fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
			path, address, p.bodies.length()))
	}
	return p, nil
}

// post posts a new body to the n-th path, counted around, and reads the answer, which must be a 202.
func (p *poster) post(n int) error {
	if err := p.conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return err
	}
	p.buf = append(p.buf[:0], p.heads[n%len(p.heads)]...)
	p.buf = p.bodies.append(p.buf)
	if _, err := p.conn.Write(p.buf); err != nil {
		return err
	}
	return readAccepted(p.reader)
}

// readAccepted reads an answer, which must be a 202 with a length.
func readAccepted(r *bufio.Reader) error {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 202 ")) {
		rest := make([]byte, r.Buffered())
		_, _ = io.ReadFull(r, rest)
		return fmt.Errorf("not accepted: %s%s", status, rest)
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if name, v, _ := bytes.Cut(line, []byte(": ")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(v)); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("an answer without a length")
	}
	_, err = r.Discard(length)
	return err
}

// load is posts over some connections, each of which posts again as soon as it has its answer.
type load struct {
	address  string
	paths    []string // one after the other
	conns    int
	bodySize int
	duration time.Duration // at most; 0 means without a bound
	most     int           // posts, at most; 0 means without a bound
}

// loaded is what a load came to.
type loaded struct {
	posts int
	begun time.Time
	took  time.Duration
	times []time.Duration // until each answer, sorted
}

// run posts until a bound is reached or a post is not accepted, which is an error.
func (l load) run(ctx context.Context) (loaded, error) {
	if l.duration > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, l.duration)
		defer cancel()
	}
	var (
		made atomic.Int64
		mu   sync.Mutex // guards what follows
		out  loaded
		errs []error
		wg   sync.WaitGroup
	)
	posters := make([]*poster, l.conns)
	for i := range posters {
		p, err := newPoster(l.address, l.paths, l.bodySize, uint64(i))
		if err != nil {
			return loaded{}, err
		}
		defer p.conn.Close()
		posters[i] = p
	}
	out.begun = time.Now()
	for _, p := range posters {
		wg.Go(func() {
			mine := make([]time.Duration, 0, 1<<12)
			var err error
			for ctx.Err() == nil && err == nil {
				n := int(made.Add(1))
				if l.most > 0 && n > l.most {
					break
				}
				begun := time.Now()
				if err = p.post(n); err == nil {
					mine = append(mine, time.Since(begun))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			out.times = append(out.times, mine...)
			errs = append(errs, err)
		})
	}
	wg.Wait()
	out.took = time.Since(out.begun)
	out.posts = len(out.times)
	slices.Sort(out.times)
	return out, errors.Join(errs...)
}

// pacedConns are the connections of a paced load: enough for a post to go out while others wait.
const pacedConns = 16

// paced posts n messages, one every so often whatever becomes of those before, as apps do on an ordinary day.
func paced(ctx context.Context, address string, paths []string, size, n int, every time.Duration) (loaded, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		turns = make(chan int, n)
		mu    sync.Mutex // guards out
		out   = loaded{begun: time.Now()}
		wg    sync.WaitGroup
	)
	for i := range pacedConns {
		p, err := newPoster(address, paths, size, uint64(i))
		if err != nil {
			return loaded{}, err
		}
		defer p.conn.Close()
		wg.Go(func() {
			for turn := range turns {
				begun := time.Now()
				if err := p.post(turn); err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				out.times = append(out.times, time.Since(begun))
				mu.Unlock()
			}
		})
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for i := 0; i < n && ctx.Err() == nil; i++ {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			turns <- i
		}
	}
	close(turns)
	wg.Wait()
	out.took, out.posts = time.Since(out.begun), len(out.times)
	slices.Sort(out.times)
	return out, context.Cause(ctx)
}
