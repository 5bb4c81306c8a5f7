package relay

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// sweeps counts calls, and has something more to do for the first of them.
type sweeps struct {
	more    int
	nothing bool // deletes nothing
	err     error

	mu      sync.Mutex // guards befores
	befores []time.Time
}

func (s *sweeps) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.befores)
}

func (s *sweeps) Sweep(_ context.Context, before time.Time, _ int) (int, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.befores = append(s.befores, before)
	s.more--
	if s.nothing {
		return 0, s.more >= 0, s.err
	}
	return 1, s.more >= 0, s.err
}

func TestSweeper(t *testing.T) {
	run := func(t *testing.T, s *sweeps, offset *atomic.Int64, forTime time.Duration, then func()) *observer.ObservedLogs {
		t.Helper()
		core, logs := observer.New(zap.InfoLevel)
		w := &sweeper{
			Store: s, Retention: func() time.Duration { return time.Hour }, Log: zap.New(core),
			// As on a real machine the time has a monotonic reading, which a step of the clock does not change.
			Now: func() time.Time { return time.Now().Add(time.Duration(offset.Load())) },
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(forTime)
		if then != nil {
			then()
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		return logs
	}

	t.Run("it sweeps every minute what is older than the retention", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, start := &sweeps{}, time.Now()
			run(t, s, new(atomic.Int64), 150*time.Second, nil)
			if len(s.times()) != 3 || !s.times()[2].Equal(start.Add(2*time.Minute-time.Hour)) {
				t.Errorf("got sweeps at %v, want 3, the last of them of what ended before %s", s.times(), start.Add(2*time.Minute-time.Hour))
			}
		})
	})
	t.Run("it goes on while there is more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &sweeps{more: 4}
			run(t, s, new(atomic.Int64), time.Second, nil)
			if len(s.times()) != 5 {
				t.Errorf("got %d sweeps, want 5", len(s.times()))
			}
		})
	})
	t.Run("it goes on though nothing of what it has looked at can be deleted yet", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &sweeps{more: 4, nothing: true}
			logs := run(t, s, new(atomic.Int64), time.Second, nil)
			if len(s.times()) != 5 || logs.Len() != 0 {
				t.Errorf("got %d sweeps and the log %v, want 5 and no line", len(s.times()), logs.All())
			}
		})
	})
	t.Run("what is old goes in one run, though more than a batch is held by a paused destination", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const held, old = 2 * sweepBatch, 2*sweepBatch + 1
			m := storetest.NewMemory(storetest.MemoryOptions{})
			ids := make([]store.MessageID, 0, held+old)
			for n := range held + old {
				id, err := store.NewMessageID()
				if err != nil {
					t.Fatal(err)
				}
				msg := store.Message{ID: id, Recipients: []store.Recipient{{Destination: "alerts"}}}
				if n < held {
					msg.Recipients = append(msg.Recipients, store.Recipient{Destination: "paused"})
				}
				if msg, _, err = m.Accept(t.Context(), msg, nil); err != nil {
					t.Fatal(err)
				}
				after := msg.Delivery(0)
				after.State, after.EndedAt = store.Delivered, time.Now()
				if _, err := m.Record(t.Context(), msg.Delivery(0), after, store.Attempt{}); err != nil {
					t.Fatal(err)
				}
				ids = append(ids, id)
			}
			time.Sleep(2 * time.Hour)
			w := &sweeper{Store: m, Retention: func() time.Duration { return time.Hour }, Now: time.Now, Log: zap.NewNop()}
			w.sweep(t.Context(), time.Now().Add(-time.Hour))
			for n, id := range ids {
				if _, _, err := m.Load(t.Context(), id); (err == nil) != (n < held) {
					t.Fatalf("message %d of %d: error %v; want the held ones there and the others gone", n, len(ids), err)
				}
			}
		})
	})
	t.Run("a clock that is set forward makes nothing older, and is told", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, offset, start := &sweeps{}, new(atomic.Int64), time.Now()
			logs := run(t, s, offset, 30*time.Second, func() {
				offset.Store(int64(100 * time.Hour))
				time.Sleep(2 * time.Hour)
			})
			for n, got := range s.times() {
				// From an hour after the step on, what is older than the retention ended behind it.
				want := start.Add(time.Duration(n)*time.Minute - time.Hour)
				if n > 60 {
					want = want.Add(100 * time.Hour)
				}
				if !got.Equal(want) {
					t.Errorf("sweep %d: got before %s, want %s", n, got.Sub(start), want.Sub(start))
				}
			}
			if len(s.times()) != 121 || logs.FilterMessage("clock set").Len() != 1 {
				t.Errorf("got %d sweeps and %d lines of the clock, want 121 and one", len(s.times()), logs.FilterMessage("clock set").Len())
			}
		})
	})
	t.Run("a failed sweep is tried again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &sweeps{err: errors.New("disk")}
			logs := run(t, s, new(atomic.Int64), 90*time.Second, nil)
			if len(s.times()) != 2 || logs.FilterMessage("sweep ended early").Len() != 2 {
				t.Errorf("got %d sweeps and the log %v, want 2 of each", len(s.times()), logs.All())
			}
		})
	})
}
