package lane

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func TestWhatAChangeKeepsOfThePace(t *testing.T) {
	for _, tc := range []struct {
		name     string
		receiver Receiver
		fails    bool // still, after the change
		attempts int  // at once, of the five that wait
		breaker  BreakerState
	}{
		{"an open breaker stays open, and the first probe closes it", SameReceiver, false, 5, BreakerClosed},
		{"an open breaker stays open when the first probe fails", SameReceiver, true, 1, BreakerOpen},
		{"with another receiver the breaker begins closed", AnotherReceiver, false, 5, BreakerClosed},
		{"with another receiver an outage has to show itself", AnotherReceiver, true, 2, BreakerOpen},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := storetest.NewMemory(storetest.MemoryOptions{})
				down := sendFunc(func(context.Context, store.Delivery) store.Attempt { return outcome(store.ClassConnect) })
				breaker := Breaker{Failures: 2, ProbeEvery: time.Hour}
				retry := schedule(t, 0, 0, 0, time.Second, time.Second, 24*time.Hour)
				l := &Lane{Name: "alerts", Queue: mem, Sender: down, Concurrency: 1, Retry: retry, Breaker: breaker, Outages: mem}
				start(t, l)
				for range 5 {
					l.Wake(accept(t, mem, "alerts", 0).Cursor())
				}
				time.Sleep(time.Minute)
				if got := l.Stats(); got.Breaker != BreakerOpen || got.Attempts[store.ClassConnect] != 2 {
					t.Fatalf("got a breaker that is %s after %d attempts, want it open after 2", got.Breaker, got.Attempts[store.ClassConnect])
				}
				since := l.Stats().OpenSince
				seen, sender := noting()
				if tc.fails {
					sender = sendFunc(func(context.Context, store.Delivery) store.Attempt {
						seen.add()
						return outcome(store.ClassConnect)
					})
				}
				l.Change(&Lane{Sender: sender, Concurrency: 1, Retry: retry, Breaker: breaker}, tc.receiver)
				time.Sleep(time.Minute)
				if got := len(seen.all()); got != tc.attempts {
					t.Errorf("got %d attempts at once, want %d", got, tc.attempts)
				}
				got := l.Stats()
				if got.Breaker != tc.breaker {
					t.Errorf("got a breaker that is %s, want %s", got.Breaker, tc.breaker)
				}
				if same := got.OpenSince.Equal(since); tc.breaker == BreakerOpen && same != (tc.receiver == SameReceiver) {
					t.Errorf("got it open since %s, and before the change since %s", got.OpenSince, since)
				}
				notes, err := mem.Outages(context.Background())
				if err != nil || (notes["alerts"].Since.IsZero()) != (tc.breaker == BreakerClosed) {
					t.Errorf("got the note %+v (%v) with a breaker that is %s", notes["alerts"], err, tc.breaker)
				}
			})
		})
	}
	t.Run("without a breaker nothing is held", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			down := sendFunc(func(context.Context, store.Delivery) store.Attempt { return outcome(store.ClassConnect) })
			l := &Lane{Name: "alerts", Queue: mem, Sender: down, Retry: schedule(t, 0, 0, 0, time.Second), Breaker: Breaker{Failures: 1, ProbeEvery: time.Hour}}
			start(t, l)
			l.Wake(accept(t, mem, "alerts", 0).Cursor())
			time.Sleep(time.Minute)
			seen, sender := noting()
			l.Change(&Lane{Sender: sender}, SameReceiver)
			synctest.Wait()
			seen.check(t, 0)
		})
	})
	t.Run("what the receiver has asked for holds, and another one has asked for nothing", func(t *testing.T) {
		for _, receiver := range []Receiver{SameReceiver, AnotherReceiver} {
			synctest.Test(t, func(t *testing.T) {
				mem := storetest.NewMemory(storetest.MemoryOptions{})
				busy := sendFunc(func(context.Context, store.Delivery) store.Attempt {
					a := answer(503)
					a.RetryHint = 20 * time.Minute
					return a
				})
				l := &Lane{Name: "alerts", Queue: mem, Sender: busy, Retry: schedule(t, 0, 0, 0, time.Second)}
				start(t, l)
				l.Wake(accept(t, mem, "alerts", 0).Cursor())
				time.Sleep(5 * time.Minute)
				seen, sender := noting()
				l.Change(&Lane{Sender: sender}, receiver)
				l.Wake(accept(t, mem, "alerts", 0).Cursor())
				time.Sleep(time.Hour)
				if receiver == SameReceiver {
					seen.check(t, 15*time.Minute, 15*time.Minute)
				} else {
					seen.check(t, 0, 15*time.Minute) // the first delivery's own retry was put off
				}
			})
		}
	})
	t.Run("of two changes at once either may bring another receiver", func(t *testing.T) {
		l := &Lane{}
		l.Change(&Lane{}, AnotherReceiver)
		l.Change(&Lane{}, SameReceiver)
		if l.anew != AnotherReceiver {
			t.Error("got the same receiver, want another")
		}
	})
	t.Run("recovery goes on", func(t *testing.T) {
		before, after := newPace(&Lane{Breaker: Breaker{Failures: 2}}, 16), newPace(&Lane{Breaker: Breaker{Failures: 2}}, 8)
		before.limit, before.breaker.recovering = 4, true
		after.follow(before, time.Minute)
		after.remember(before, time.Minute)
		if after.limit != 4 || !after.breaker.recovering {
			t.Errorf("got a limit of %d, recovering %t; want 4, true", after.limit, after.breaker.recovering)
		}
		before.limit = 8
		after.remember(before, time.Minute)
		if after.limit != 8 || after.breaker.recovering {
			t.Errorf("got a limit of %d, recovering %t; want 8, false: it is as much as there can be", after.limit, after.breaker.recovering)
		}
	})
	t.Run("outages of earlier attempts do not count", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			old := &hanging{lasts: time.Minute, ends: store.Attempt{Class: store.ClassTimeout}}
			for range 8 {
				accept(t, mem, "alerts", 0)
			}
			l := &Lane{Name: "alerts", Queue: mem, Sender: old, Retry: schedule(t, 0, 0, 0, time.Hour), Breaker: Breaker{Failures: 2, ProbeEvery: time.Hour}}
			start(t, l)
			synctest.Wait()
			_, sender := noting()
			l.Change(&Lane{Sender: sender, Breaker: Breaker{Failures: 2, ProbeEvery: time.Hour}}, SameReceiver)
			time.Sleep(2 * time.Minute)
			if got := l.Stats(); got.Breaker != BreakerClosed || got.InFlight != 0 || old.begun.Load() != 8 {
				t.Errorf("got a breaker that is %s, %d in flight, %d begun; want closed, 0, 8", got.Breaker, got.InFlight, old.begun.Load())
			}
		})
	})
	t.Run("a rate that stays the same is not exceeded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			for range 3 {
				accept(t, mem, "alerts", 0)
			}
			seen, sender := noting()
			l := &Lane{Name: "alerts", Queue: mem, Sender: sender, Rate: 1.0 / 60}
			start(t, l)
			for range 10 {
				time.Sleep(time.Second)
				l.Change(&Lane{Sender: sender, Rate: 1.0 / 60}, SameReceiver)
			}
			time.Sleep(time.Hour)
			seen.check(t, 0, time.Minute, 2*time.Minute)
		})
	})
	t.Run("a rate that is raised holds from now on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			for range 3 {
				accept(t, mem, "alerts", 0)
			}
			seen, sender := noting()
			l := &Lane{Name: "alerts", Queue: mem, Sender: sender, Rate: 1.0 / 3600}
			start(t, l)
			time.Sleep(time.Minute)
			l.Change(&Lane{Sender: sender, Rate: 1}, SameReceiver)
			time.Sleep(time.Minute)
			seen.check(t, 0, time.Minute, time.Minute+time.Second)
		})
	})
	t.Run("a batch that stays the same keeps its ticks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			for range 5 {
				accept(t, mem, "alerts", 0)
			}
			seen, sender := noting()
			l := &Lane{Name: "alerts", Queue: mem, Sender: sender, Batch: Batch{Every: time.Minute, Max: 2}}
			start(t, l)
			for range 10 {
				time.Sleep(time.Second)
				l.Change(&Lane{Sender: sender, Batch: Batch{Every: time.Minute, Max: 2}}, SameReceiver)
			}
			time.Sleep(time.Hour)
			seen.check(t, 0, 0, time.Minute, time.Minute, 2*time.Minute)
		})
	})
	t.Run("a batch that is new waits for its first tick", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			seen, sender := noting()
			l := &Lane{Name: "alerts", Queue: mem, Sender: sender}
			start(t, l)
			time.Sleep(90 * time.Second)
			l.Change(&Lane{Sender: sender, Batch: Batch{Every: time.Minute}}, SameReceiver)
			l.Wake(accept(t, mem, "alerts", 0).Cursor())
			time.Sleep(time.Hour)
			seen.check(t, 2*time.Minute)
		})
	})
	t.Run("a smaller window forgets nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			for range 3000 {
				accept(t, mem, "alerts", time.Minute)
			}
			_, sender := noting()
			l := &Lane{Name: "alerts", Queue: mem, Sender: sender, Concurrency: 500}
			start(t, l)
			synctest.Wait()
			l.Change(&Lane{Sender: sender, Concurrency: 1}, SameReceiver)
			synctest.Wait()
			time.Sleep(maxSleep + time.Second)
			if got := mem.Pending(); got != 0 {
				t.Errorf("got %d pending, want 0", got)
			}
		})
	})
	t.Run("a pause stays", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			seen, sender := noting()
			l := &Lane{Name: "alerts", Queue: mem, Sender: sender, Paused: &store.Pause{Reason: "by hand"}}
			start(t, l)
			l.Change(&Lane{Sender: sender}, SameReceiver)
			l.Wake(accept(t, mem, "alerts", 0).Cursor())
			time.Sleep(time.Hour)
			seen.check(t)
			l.Resume()
			synctest.Wait()
			seen.check(t, time.Hour)
		})
	})
}
