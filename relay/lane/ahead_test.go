package lane

import (
	"context"
	"strings"
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

func TestRefitted(t *testing.T) {
	const s, h = time.Second, time.Hour
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		accepted, last, due time.Duration // from now; 0 for no attempt
		want                time.Duration // from now; -1 if it is left as it is
	}{
		"due":                                     {-h, 0, -h, -1},
		"to wait":                                 {-h, -60 * s, h, -1},
		"delayed by an app":                       {0, 0, 700 * h, -1},
		"accepted by a clock that is adjusted":    {59 * s, 0, 59 * s, -1},
		"accepted in the future":                  {60 * s, 0, 60 * s, 0},
		"to be delivered later":                   {300 * h, 0, 350 * h, 50 * h},
		"to be delivered much later than that":    {300 * h, 0, 700 * h, -1},
		"attempted in the future":                 {-h, 10 * h, 12 * h, 2 * h},
		"attempted far in the future":             {-h, 90_000 * h, 90_000*h + 5*s, 5 * s},
		"attempted, and to wait for longer":       {-h, 10 * h, 20 * h, -1},
		"made due by a person since then":         {90_000 * h, 0, 0, -1},
		"replayed in the future":                  {-9 * h, -8 * h, 90_000 * h, 0},
		"fitted before":                           {300 * h, 310 * h, 50 * h, -1},
		"the oldest times there are, and a clock": {-400_000 * h, -400_000 * h, -400_000 * h, -1},
	} {
		t.Run(name, func(t *testing.T) {
			d := store.Delivery{AcceptedAt: now.Add(c.accepted), DueAt: now.Add(c.due)}
			if c.last != 0 {
				d.Last.At = now.Add(c.last)
			}
			if d.Round, d.Made = 1, 1; strings.HasPrefix(name, "replayed") {
				d.Round, d.Made = 2, 0
			}
			due, ok := refitted(d, now)
			if ok != (c.want >= 0) || ok && !due.Equal(now.Add(c.want)) {
				t.Fatalf("got %s from now and %t, want %s", due.Sub(now), ok, c.want)
			}
			if d.DueAt = due; ok {
				if _, again := refitted(d, now); again {
					t.Error("fitted, and it still shows")
				}
			}
		})
	}
}

// TestClockSetBack sets a clock back that was ten years ahead, while far more deliveries than a window holds wait: some in
// retry, some not attempted yet, some delayed by their app, and lines. Each has what is left of its wait to wait, once.
func TestClockSetBack(t *testing.T) {
	for name, stops := range map[string]bool{"while the lane runs": false, "between two starts": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const ahead, failing = 10 * 365 * 24 * time.Hour, 3 * time.Minute
				clock := &setClock{}
				clock.set(ahead)
				mem := storetest.NewMemory(storetest.MemoryOptions{Now: clock.Now})
				var records atomic.Int64 // of another due time
				q := &queue{Memory: mem}
				q.record = func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
					if a.Number == 0 {
						records.Add(1)
						if a, b := after, before; a.State != b.State || a.Attempts != b.Attempts || a.Made != b.Made {
							t.Errorf("got %+v after %+v, want only another due time", after, before)
						}
					}
					return mem.Record(ctx, before, after, a)
				}
				begin := time.Now()
				var mu sync.Mutex
				arrived := map[store.DeliveryID]time.Duration{}
				sender := sendFunc(func(_ context.Context, d store.Delivery) store.Attempt {
					a := answer(500)
					a.StartedAt = clock.Now()
					mu.Lock()
					defer mu.Unlock()
					if since := time.Since(begin); since > failing {
						a.Class, a.Status = store.ClassOK, 200
						arrived[d.ID] = since
					}
					return a
				})
				core, logs := observer.New(zap.WarnLevel)
				lane := func() *Lane {
					return &Lane{
						Name: "alerts", Log: zap.New(core), Queue: q, Sender: sender, Concurrency: 8, Rate: 100, Now: clock.Now,
						Retry: schedule(t, 0, 0, 0, time.Hour, time.Hour), Rand: func() float64 { return 0 },
					}
				}
				l := lane()
				stop := start(t, l)
				wait := map[store.DeliveryID]time.Duration{}
				post := func(n int, longest time.Duration, to store.Recipient) {
					to.Destination = "alerts"
					for range n {
						d := acceptFor(t, mem, clock.Now(), to)
						l.Wake(d.Cursor())
						wait[d.ID] = longest
					}
				}
				post(1000, time.Hour, store.Recipient{}) // all of which fail once
				time.Sleep(time.Minute)
				l.Pause(store.Pause{At: clock.Now(), Reason: "maintenance"})
				synctest.Wait()
				post(400, 0, store.Recipient{})
				post(200, 2*time.Hour, store.Recipient{Delay: 2 * time.Hour})
				post(20, 0, store.Recipient{Order: "=line"})
				time.Sleep(failing)
				if stops {
					if err := stop(); err != nil {
						t.Fatal(err)
					}
				}
				clock.set(0)
				if stops {
					l = lane()
					start(t, l)
				}
				time.Sleep(aheadGrace + maxSleep)
				l.Resume()
				back := time.Since(begin)
				time.Sleep(3 * time.Hour)
				synctest.Wait()

				const queued = 30 * time.Second // 1,620 at 100 a second
				for id, w := range wait {
					d := current(t, mem, id)
					at := arrived[id] - back
					if d.State != store.Delivered || at < w-2*maxSleep || at > w+2*maxSleep+queued {
						t.Fatalf("a delivery that waits %s is %s after %d attempts, %s after the clock was set back, due at %s", w, d.State, d.Made, at, d.DueAt)
					}
				}
				if got, want := records.Load(), int64(len(wait)); got != want {
					t.Errorf("got %d records of another due time, want one for each of %d deliveries", got, want)
				}
				if got := logs.FilterMessageSnippet("clock was set back").Len(); got != 1 {
					t.Errorf("the log says %d times that the clock was set back, want once", got)
				}
			})
		})
	}
}

// TestClockUnsetAtStart starts a lane on a machine whose clock shows 1970 for a while, as one without a battery does, and
// later once more. What waits is left as it is, and comes at its time.
func TestClockUnsetAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &setClock{}
		mem := storetest.NewMemory(storetest.MemoryOptions{Now: clock.Now})
		begin := time.Now()
		d := acceptFor(t, mem, begin, store.Recipient{Destination: "alerts", Delay: time.Hour})
		unset := time.Unix(10, 0).Sub(begin)
		clock.set(unset)
		j := &journal{begin: begin}
		start(t, &Lane{Name: "alerts", Queue: mem, Now: clock.Now, Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt {
			j.add()
			return outcome(store.ClassOK)
		})})
		for range 2 {
			clock.set(unset)
			time.Sleep(aheadGrace - maxSleep)
			if got := current(t, mem, d.ID); got != d {
				t.Errorf("got %+v, want it as it was: %+v", got, d)
			}
			clock.set(0)
			time.Sleep(2 * maxSleep)
		}
		time.Sleep(time.Hour)
		j.check(t, time.Hour)
		checkState(t, mem, d.ID, store.Delivered)
	})
}
