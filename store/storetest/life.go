package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// sweepAll sweeps until there is no more, with the given limit, and returns how many messages went.
func sweepAll(tb testing.TB, s store.Store, before time.Time, limit int) (deleted int) {
	tb.Helper()
	for range 10_000 {
		n, more, err := s.Sweep(tb.Context(), before, limit)
		if err != nil {
			tb.Fatalf("Sweep: %v", err)
		}
		if n > limit {
			tb.Fatalf("Sweep deleted %d, limit %d", n, limit)
		}
		deleted += n
		if !more {
			return deleted
		}
	}
	tb.Fatal("Sweep does not end")
	return 0
}

func testSweep(t *testing.T, open Open) {
	t.Run("a message goes when its last delivery has ended before", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "a", "b", "c")
		accept(t, s, m, "x")
		for n, at := range []time.Duration{time.Minute, 3 * time.Minute, 2 * time.Minute} {
			equal(t, "deleted while one is pending", sweepAll(t, s, start.Add(time.Hour), 10), 0)
			after, a := end(m.Delivery(n), store.Delivered, start.Add(at))
			record(t, s, m.Delivery(n), after, a)
		}
		equal(t, "deleted at the last end", sweepAll(t, s, start.Add(3*time.Minute), 1), 0)
		if _, _, err := s.Load(t.Context(), m.ID); err != nil {
			t.Fatalf("Load: %v", err)
		}
		equal(t, "deleted after", sweepAll(t, s, start.Add(3*time.Minute+time.Millisecond), 1), 1)
		if _, _, err := s.Load(t.Context(), m.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Load: got error %v, want ErrNotFound", err)
		}
		for n := range 3 {
			if _, err := s.Delivery(t.Context(), m.ID.Delivery(n)); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("Delivery: got error %v, want ErrNotFound", err)
			}
			if _, err := s.Attempts(t.Context(), m.ID.Delivery(n), 1); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("Attempts: got error %v, want ErrNotFound", err)
			}
		}
		equal(t, "deleted again", sweepAll(t, s, start.Add(time.Hour), 1), 0)
	})
	t.Run("a message for nobody goes after its acceptance", func(t *testing.T) {
		s := open(t, Options{})
		accept(t, s, message(t), "x")
		equal(t, "deleted at acceptance", sweepAll(t, s, start, 10), 0)
		equal(t, "deleted after", sweepAll(t, s, start.Add(time.Millisecond), 10), 1)
	})
	t.Run("pending deliveries never expire", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts")
		accept(t, s, m, "x")
		equal(t, "deleted", sweepAll(t, s, start.AddDate(50, 0, 0), 10), 0)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{m.Delivery(0)})
	})
	t.Run("small steps come to the end", func(t *testing.T) {
		s := open(t, Options{})
		for n := range 25 {
			m := message(t, "a", "b")
			accept(t, s, m, "x")
			for i := range 2 {
				after, a := end(m.Delivery(i), store.Failed, start.Add(time.Duration(n+i*5)*time.Second))
				record(t, s, m.Delivery(i), after, a)
			}
		}
		equal(t, "deleted", sweepAll(t, s, start.Add(15*time.Second), 3), 10)
		equal(t, "deleted then", sweepAll(t, s, start.Add(time.Hour), 3), 15)
	})
	t.Run("what ends before what was swept is swept too", func(t *testing.T) {
		s := open(t, Options{})
		for range 2 {
			m := message(t, "alerts")
			accept(t, s, m, "x")
			after, a := end(m.Delivery(0), store.Delivered, start) // the clock has gone back
			record(t, s, m.Delivery(0), after, a)
			equal(t, "deleted", sweepAll(t, s, start.Add(time.Second), 10), 1)
		}
	})
}

func testLife(t *testing.T, open Open) {
	t.Run("a closed engine says so", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts")
		accept(t, s, m, "")
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		_, _, acceptErr := s.Accept(t.Context(), message(t, "alerts"), nil)
		_, dueErr := s.Due(t.Context(), "alerts", store.Cursor{}, 1)
		after, a := end(m.Delivery(0), store.Delivered, start)
		_, recordErr := s.Record(t.Context(), m.Delivery(0), after, a)
		_, _, loadErr := s.Load(t.Context(), m.ID)
		_, deliveryErr := s.Delivery(t.Context(), m.ID.Delivery(0))
		_, attemptsErr := s.Attempts(t.Context(), m.ID.Delivery(0), 1)
		_, namesErr := s.PendingDestinations(t.Context())
		_, _, sweepErr := s.Sweep(t.Context(), start, 1)
		_, allErr := s.AcceptAll(t.Context(), sequence(nil, nil))
		_, releaseErr := s.Release(t.Context(), "alerts", 1)
		pauseErr, resumeErr := s.Pause(t.Context(), "alerts", store.Pause{}), s.Resume(t.Context(), "alerts")
		_, pausedErr := s.Paused(t.Context())
		outageErr := s.NoteOutage(t.Context(), "alerts", store.Outage{})
		_, outagesErr := s.Outages(t.Context())
		_, _, listErr := s.Deliveries(t.Context(), store.Filter{}, store.Place{}, 1)
		_, backlogErr := s.Backlog(t.Context())
		_, replayErr := s.Replay(t.Context(), m.ID.Delivery(0), start)
		_, _, cancelErr := s.Cancel(t.Context(), m.ID.Delivery(0), start, "")
		_, expediteErr := s.Expedite(t.Context(), m.ID.Delivery(0), start)
		reduceErr := s.Reduce(t.Context(), m.ID, nil)
		for i, err := range []error{listErr, backlogErr, replayErr, cancelErr, expediteErr, reduceErr, acceptErr, dueErr, recordErr, loadErr, deliveryErr, attemptsErr, namesErr, sweepErr,
			allErr, releaseErr, pauseErr, resumeErr, pausedErr, outageErr, outagesErr} {
			if !errors.Is(err, store.ErrClosed) {
				t.Errorf("call %d: got error %v, want ErrClosed", i, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		select {
		case <-s.Broken():
			t.Error("a closed engine is not broken")
		default:
		}
		if err := s.Err(); err != nil {
			t.Errorf("Err: got %v, want nil", err)
		}
	})
	t.Run("a context that has ended stops each call", func(t *testing.T) {
		s := open(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := s.Accept(ctx, message(t, "alerts"), nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Accept: got error %v, want context.Canceled", err)
		}
		if _, err := s.Due(ctx, "alerts", store.Cursor{}, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("Due: got error %v, want context.Canceled", err)
		}
		if _, _, err := s.Sweep(ctx, start, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("Sweep: got error %v, want context.Canceled", err)
		}
		equal(t, "pending", s.Pending(), int64(0))
	})
	t.Run("closing under load answers everybody", func(t *testing.T) {
		s := open(t, Options{})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 10_000 {
					if _, _, err := s.Accept(context.Background(), message(t), nil); err != nil {
						if !errors.Is(err, store.ErrClosed) {
							t.Errorf("Accept: got error %v, want ErrClosed", err)
						}
						return
					}
				}
			})
		}
		accept(t, s, message(t), "")
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		all.Wait()
	})
}
