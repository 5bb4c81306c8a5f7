package lane

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// pausesFunc is a Pauses that can misbehave.
type pausesFunc func(ctx context.Context, destination string, p store.Pause) error

func (f pausesFunc) Pause(ctx context.Context, destination string, p store.Pause) error {
	return f(ctx, destination, p)
}

func TestPause(t *testing.T) {
	t.Run("a paused lane begins nothing, and what is in flight ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			seen := journal{begin: time.Now()}
			l := &Lane{Name: "alerts", Queue: mem, Concurrency: 1}
			l.Sender = sendFunc(func(ctx context.Context, d store.Delivery) store.Attempt {
				seen.add()
				sleep(ctx, 10*time.Second)
				return outcome(store.ClassOK)
			})
			first := accept(t, mem, "alerts", 0)
			accept(t, mem, "alerts", 0)
			start(t, l)
			time.Sleep(time.Second)
			l.Pause(store.Pause{At: time.Now(), Reason: "maintenance"})
			l.Pause(store.Pause{At: time.Now(), Reason: "again"})
			time.Sleep(time.Hour)
			l.Wake(accept(t, mem, "alerts", 0).Cursor())
			time.Sleep(time.Hour)
			checkState(t, mem, first.ID, store.Delivered)
			s := l.Stats()
			if s.Paused == nil || s.Paused.Reason != "maintenance" || s.Waiting != 2 || s.Due != 2 || s.InFlight != 0 {
				t.Errorf("got %+v, want two due and held by maintenance", s)
			}
			s.Paused.Reason = "mine"
			if got := l.Stats().Paused.Reason; got != "maintenance" {
				t.Errorf("got reason %q after the caller changed its own, want maintenance", got)
			}
			l.Resume()
			l.Resume()
			time.Sleep(time.Minute)
			seen.check(t, 0, 2*time.Hour+time.Second, 2*time.Hour+11*time.Second)
			if got := l.Stats().Paused; got != nil {
				t.Errorf("got paused %+v, want not", got)
			}
		})
	})
	t.Run("a lane can begin paused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			var calls atomic.Int64
			l := &Lane{Name: "alerts", Queue: mem, Sender: always(store.ClassOK, &calls), Paused: &store.Pause{Reason: "yesterday"}}
			if got := l.Stats().Paused; got == nil || got.Reason != "yesterday" {
				t.Errorf("got paused %+v before Run, want yesterday", got)
			}
			d := accept(t, mem, "alerts", 0)
			start(t, l)
			time.Sleep(time.Hour)
			checkState(t, mem, d.ID, store.Pending)
			l.Resume()
			synctest.Wait()
			checkState(t, mem, d.ID, store.Delivered)
		})
	})
	t.Run("a lane can be resumed before it runs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			var calls atomic.Int64
			l := &Lane{Name: "alerts", Queue: mem, Sender: always(store.ClassOK, &calls), Paused: &store.Pause{Reason: "yesterday"}}
			l.Resume()
			accept(t, mem, "alerts", 0)
			start(t, l)
			synctest.Wait()
			if got := calls.Load(); got != 1 {
				t.Errorf("got %d attempts, want 1", got)
			}
		})
	})
	t.Run("a paused lane makes no probe", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			var calls atomic.Int64
			l := &Lane{
				Name: "alerts", Queue: mem, Sender: always(store.ClassConnect, &calls), Concurrency: 1,
				Breaker: Breaker{Failures: 1, ProbeEvery: time.Minute}, Retry: schedule(t, 0, 0, 0, time.Second),
			}
			accept(t, mem, "alerts", 0)
			start(t, l)
			synctest.Wait()
			l.Pause(store.Pause{Reason: "maintenance"})
			time.Sleep(time.Hour)
			if got := calls.Load(); got != 1 {
				t.Errorf("got %d attempts, want 1", got)
			}
		})
	})
}

func TestGone(t *testing.T) {
	t.Run("410 pauses the destination before the delivery is on record as failed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			core, logs := observer.New(zap.WarnLevel)
			q := &queue{Memory: mem}
			q.record = func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
				if paused, err := mem.Paused(ctx); err != nil || paused["alerts"].Reason != "the receiver answered 410 Gone" || !paused["alerts"].At.Equal(time.Now()) {
					t.Errorf("got pauses %v (%v) at the record, want one by the receiver, now", paused, err)
				}
				return mem.Record(ctx, before, after, a)
			}
			var calls atomic.Int64
			l := &Lane{Name: "alerts", Queue: q, Pauses: mem, Concurrency: 1, Log: zap.New(core), Retry: schedule(t, 0, 0, 0, time.Second)}
			l.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt {
				calls.Add(1)
				return answer(410)
			})
			d, held := accept(t, mem, "alerts", 0), accept(t, mem, "alerts", 0)
			start(t, l)
			time.Sleep(time.Hour)
			checkState(t, mem, d.ID, store.Failed)
			checkState(t, mem, held.ID, store.Pending)
			if got := l.Stats().Paused; got == nil || got.Reason != "the receiver answered 410 Gone" {
				t.Errorf("got paused %+v, want by the receiver", got)
			}
			if got := calls.Load(); got != 1 {
				t.Errorf("got %d attempts, want 1", got)
			}
			if got := logs.FilterMessage("destination paused").Len(); got != 1 {
				t.Errorf("got %d lines about the pause, want 1", got)
			}
		})
	})
	t.Run("a pause that cannot be kept is tried again, and holds meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			var tries, calls atomic.Int64
			l := &Lane{Name: "alerts", Queue: mem, Concurrency: 1}
			l.Pauses = pausesFunc(func(ctx context.Context, destination string, p store.Pause) error {
				if tries.Add(1) <= 10 {
					return store.ErrNoSpace
				}
				return mem.Pause(ctx, destination, p)
			})
			l.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt {
				calls.Add(1)
				return answer(410)
			})
			d := accept(t, mem, "alerts", 0)
			accept(t, mem, "alerts", 0)
			start(t, l)
			time.Sleep(time.Second)
			checkState(t, mem, d.ID, store.Pending)
			time.Sleep(10 * longestPause)
			checkState(t, mem, d.ID, store.Failed)
			if got := calls.Load(); got != 1 {
				t.Errorf("got %d attempts, want 1", got)
			}
			if got := tries.Load(); got != 11 {
				t.Errorf("got %d tries, want 11", got)
			}
		})
	})
	t.Run("a pause that somebody has ended is not kept any more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			var tries, calls atomic.Int64
			l := &Lane{Name: "alerts", Queue: mem, Concurrency: 1}
			l.Pauses = pausesFunc(func(ctx context.Context, destination string, p store.Pause) error {
				if tries.Add(1) == 1 {
					l.Resume() // as a person does, who has seen why it is paused
					return errDisk
				}
				return mem.Pause(ctx, destination, p)
			})
			l.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt {
				if calls.Add(1) == 1 {
					return answer(410)
				}
				return outcome(store.ClassOK)
			})
			d, other := accept(t, mem, "alerts", 0), accept(t, mem, "alerts", 0)
			start(t, l)
			time.Sleep(time.Hour)
			checkState(t, mem, d.ID, store.Failed)
			checkState(t, mem, other.ID, store.Delivered)
			if paused, err := mem.Paused(context.Background()); err != nil || len(paused) != 0 || tries.Load() != 1 {
				t.Errorf("got pauses %v (%v) after %d tries, want none after 1", paused, err, tries.Load())
			}
		})
	})
	t.Run("a pause that was not kept before the end leaves the delivery pending", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			l := &Lane{Name: "alerts", Queue: mem, Drain: time.Second}
			l.Pauses = pausesFunc(func(context.Context, string, store.Pause) error { return errDisk })
			l.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt { return answer(410) })
			d := accept(t, mem, "alerts", 0)
			stop := start(t, l)
			synctest.Wait()
			if err := stop(); !errors.Is(err, errGiveUp) {
				t.Errorf("got error %v from Run, want %v", err, errGiveUp)
			}
			if got := checkState(t, mem, d.ID, store.Pending).Made; got != 0 {
				t.Errorf("got %d attempts on record, want 0", got)
			}
		})
	})
	t.Run("a store that has failed ends the lane", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			l := &Lane{Name: "alerts", Queue: mem}
			l.Pauses = pausesFunc(func(context.Context, string, store.Pause) error { return store.ErrBroken })
			l.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt { return answer(410) })
			accept(t, mem, "alerts", 0)
			if err := l.Run(context.Background()); !errors.Is(err, store.ErrBroken) {
				t.Errorf("got error %v from Run, want %v", err, store.ErrBroken)
			}
		})
	})
	t.Run("without a keeper the lane is held all the same", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			l := &Lane{Name: "alerts", Queue: mem, Concurrency: 1}
			l.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt { return answer(410) })
			accept(t, mem, "alerts", 0)
			accept(t, mem, "alerts", 0)
			start(t, l)
			time.Sleep(time.Hour)
			if got := mem.Pending(); got != 1 {
				t.Errorf("got %d pending, want 1", got)
			}
		})
	})
	t.Run("a success with status 410 pauses nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			l := &Lane{Name: "alerts", Queue: mem, Pauses: mem}
			l.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt {
				a := outcome(store.ClassOK)
				a.Status = 410
				return a
			})
			accept(t, mem, "alerts", 0)
			start(t, l)
			synctest.Wait()
			if got := l.Stats(); got.Paused != nil || got.Delivered != 1 {
				t.Errorf("got %+v, want one delivered and no pause", got)
			}
		})
	})
}
