package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// jsonBody returns a JSON document of about size bytes.
func jsonBody(size int) []byte {
	const frame = `{"event":"bench","text":""}`
	return fmt.Appendf(nil, `{"event":"bench","text":%q}`, strings.Repeat("x", max(0, size-len(frame))))
}

// poster posts one fixed request over one kept-alive connection. It is as thin as a client can be, so that the
// load costs both sides of a comparison the same little.
type poster struct {
	conn    net.Conn
	reader  *bufio.Reader
	request []byte
}

func newPoster(address, path string, body []byte) (*poster, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, address, len(body), body)
	return &poster{conn: conn, reader: bufio.NewReader(conn), request: request}, nil
}

// post sends the request and reads the answer, which must be a 202.
func (p *poster) post() error {
	if err := p.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := p.conn.Write(p.request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(p.reader, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusAccepted {
		return fmt.Errorf("status %d: %s", answer.StatusCode, text)
	}
	return nil
}

// load posts over conns connections for the given time, or until most posts are made if most is positive. It
// returns the number of posts and their times, sorted.
func load(ctx context.Context, address, path string, body []byte, conns int, d time.Duration, most int64) (int64, []time.Duration, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var (
		made  atomic.Int64
		mu    sync.Mutex
		times []time.Duration
		errs  []error
		wg    sync.WaitGroup
	)
	start := time.Now()
	for range conns {
		wg.Go(func() {
			mine := make([]time.Duration, 0, 1<<14)
			p, err := newPoster(address, path, body)
			if err == nil {
				defer p.conn.Close()
				for ctx.Err() == nil {
					if n := made.Add(1); most > 0 && n > most {
						made.Add(-1)
						break
					}
					begun := time.Now()
					if err = p.post(); err != nil {
						break
					}
					mine = append(mine, time.Since(begun))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, mine...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	slices.Sort(times)
	return int64(len(times)), times, took, errors.Join(errs...)
}

// percentile returns the q-th part (0 to 1) of sorted times.
func percentile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
