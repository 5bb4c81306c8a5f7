package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

const (
	lastPage   = 1000
	pageSize   = 50 // as the API hands out
	pageTrials = 30
	mostDisk   = 64 // MiB
)

// measureHistory delivers many messages, and looks at what has been written for them, how soon the history tells of
// them, and what is left on disk when their retention has passed.
func measureHistory(ctx context.Context, b *bench) ([]figure, error) {
	s, err := b.newSite("history", siteParams{destinations: []destination{{name: "bench", host: hostH2}}})
	if err != nil {
		return nil, err
	}
	n := b.pending
	accepted := float64(n) * float64(newBodies(b.bodySize, 0).length())
	var figures []figure
	err = s.with(ctx, func(p *started) error {
		r, err := b.acceptAndDeliver(ctx, p.process, n)
		if err != nil {
			return err
		}
		written, err := p.written()
		if err != nil {
			return err
		}
		used, err := onDisk(s.stores)
		if err != nil {
			return err
		}
		first, last, err := pages(ctx, p.process, min(lastPage, n/pageSize/2))
		if err != nil {
			return err
		}
		figures = []figure{
			{Name: fmt.Sprintf("accepted and delivered, %s in a row", grouped(int64(n))), Unit: "/s", Postern: rate(n, r.took)},
			{Name: "written to disk per byte accepted, " + grouped(int64(n)) + " accepted and delivered", Postern: float64(written) / accepted, Unit: "×"},
			{Name: fmt.Sprintf("history of %s, page 1 of %d", grouped(int64(n)), pageSize), Unit: "ms", Postern: milliseconds(first)},
			{
				Name: "history, page " + grouped(int64(min(lastPage, n/pageSize/2))), Unit: "ms",
				Postern: milliseconds(last), Bound: milliseconds(first), BoundName: "page 1", Goal: ratioAtMost(2),
			},
			{Name: "disk, " + grouped(int64(n)) + " in the history", Unit: "MiB", Postern: inMebibytes(used)},
		}
		left, swept, err := b.sweep(ctx, s, p)
		if err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
		if written, err = p.written(); err != nil {
			return err
		}
		figures = append(figures,
			figure{
				Name: "disk, retention passed", Unit: "MiB", Postern: inMebibytes(left), Goal: atMost(mostDisk),
				Note: fmt.Sprintf("%.0f s after it had", swept.Seconds()),
			},
			figure{Name: "written to disk per byte accepted, the sweep included", Postern: float64(written) / accepted, Unit: "×"},
		)
		return nil
	})
	if err != nil {
		return figures, err
	}
	// The ideal relay keeps nothing, so what it writes is what a queue on this engine costs at least.
	err = b.withRelay(ctx, "ideal", func(p *process) error {
		if _, err := b.acceptAndDeliver(ctx, p, n); err != nil {
			return err
		}
		written, err := p.written()
		figures[1].Bound, figures[1].BoundName = float64(written)/accepted, "(d) the ideal relay, which keeps no history"
		return err
	})
	return figures, err
}

// pages returns the median times of page 1 of the history and of a later one, which is reached by the cursors of
// those before it.
func pages(ctx context.Context, p *process, last int) (firstTime, lastTime time.Duration, err error) {
	cursor, reached := "", 1
	for ; reached < last; reached++ {
		if cursor, err = page(ctx, p, cursor); err != nil {
			return 0, 0, err
		}
		if cursor == "" {
			return 0, 0, fmt.Errorf("the history ends at page %d", reached)
		}
	}
	var first, later []float64
	for range pageTrials {
		for _, at := range []struct {
			cursor string
			times  *[]float64
		}{{"", &first}, {cursor, &later}} {
			begun := time.Now()
			if _, err := page(ctx, p, at.cursor); err != nil {
				return 0, 0, err
			}
			*at.times = append(*at.times, float64(time.Since(begun)))
		}
	}
	return time.Duration(median(first)), time.Duration(median(later)), nil
}

// page gets one page and returns the cursor of the next.
func page(ctx context.Context, p *process, cursor string) (next string, err error) {
	query := url.Values{"limit": {fmt.Sprint(pageSize)}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	var answer struct {
		Deliveries []struct {
			ID string `json:"id"`
		} `json:"deliveries"`
		NextCursor *string `json:"next_cursor"`
	}
	if err := ask(ctx, http.MethodGet, "http://"+p.admin+"/api/v1/deliveries?"+query.Encode(), &answer); err != nil {
		return "", err
	}
	if len(answer.Deliveries) < pageSize && answer.NextCursor != nil {
		return "", fmt.Errorf("a page of %d deliveries", len(answer.Deliveries))
	}
	if answer.NextCursor == nil {
		return "", nil
	}
	return *answer.NextCursor, nil
}

// sweep sets the retention to a second, and waits until the history is empty and the disk is given back, or gets no
// emptier for two minutes. It returns the bytes that are left and how long that took.
func (b *bench) sweep(ctx context.Context, s *site, p *started) (int64, time.Duration, error) {
	s.params.retention = "1s"
	if err := s.write(p.address, p.admin); err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return 0, 0, err
	}
	if err := waitFor(ctx, runTimeout, time.Second, func() bool {
		next, err := page(ctx, p.process, "")
		return err == nil && next == ""
	}); err != nil {
		return 0, 0, errors.Join(errors.New("the history is not empty"), err)
	}
	least, since := int64(-1), time.Now()
	for time.Since(since) < 2*time.Minute {
		used, err := onDisk(s.stores)
		if err != nil {
			return 0, 0, err
		}
		if least < 0 || used < least {
			least, since = used, time.Now()
		}
		if used <= mostDisk*mebibyte {
			break
		}
		if err := pause(ctx, time.Second); err != nil {
			return 0, 0, err
		}
	}
	return least, since.Sub(begun), nil
}
