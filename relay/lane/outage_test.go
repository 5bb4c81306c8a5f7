package lane

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func TestOneAttemptMeansOneRequest(t *testing.T) {
	none, err := NewSchedule(nil, 0, 96*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, retry := range []Schedule{{}, none, schedule(t, 0, 0, time.Minute)} {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			o := &outage{journal: journal{begin: time.Now()}, to: 365 * 24 * time.Hour, down: store.Attempt{Class: store.ClassConnect}}
			first, second := accept(t, mem, "alerts", 0), accept(t, mem, "alerts", time.Second)
			start(t, &Lane{Name: "alerts", Queue: mem, Sender: o, Retry: retry, Breaker: Breaker{Failures: 1}})
			time.Sleep(time.Hour)
			o.check(t, 0, 30*time.Second)
			for _, d := range []store.Delivery{first, second} {
				if got := checkState(t, mem, d.ID, store.Failed); got.Attempts != 1 || got.Made != 1 {
					t.Errorf("got %d attempts used up of %d made, want 1 of 1", got.Attempts, got.Made)
				}
			}
		})
	}
}

func TestWhatAMessageWaitedForBeforeItsFirstAttemptCostsNoRetries(t *testing.T) {
	const day = 24 * time.Hour
	aged := schedule(t, 0, 4*day, 0, 5*time.Second, 5*time.Minute)
	t.Run("a delay beyond the maximum age", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			d := accept(t, mem, "alerts", 5*day)
			o := &outage{journal: journal{begin: time.Now()}, to: 5*day + time.Second, down: answer(503)}
			start(t, &Lane{Name: "alerts", Queue: mem, Sender: o, Retry: aged})
			time.Sleep(6 * day)
			o.check(t, 5*day, 5*day+5*time.Second)
			checkState(t, mem, d.ID, store.Delivered)
		})
	})
	t.Run("a pause beyond the maximum age", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			d := accept(t, mem, "alerts", 0)
			o := &outage{journal: journal{begin: time.Now()}, to: 5*day + time.Second, down: answer(503)}
			l := &Lane{Name: "alerts", Queue: mem, Sender: o, Retry: aged}
			l.Pause(store.Pause{Reason: "maintenance"})
			start(t, l)
			time.Sleep(5 * day)
			l.Resume()
			time.Sleep(day)
			o.check(t, 5*day, 5*day+5*time.Second)
			checkState(t, mem, d.ID, store.Delivered)
		})
	})
	t.Run("a line whose head is probed beyond the maximum age", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			head := acceptInLine(t, mem, "k")
			var behind []store.Delivery
			for range 3 {
				behind = append(behind, acceptInLine(t, mem, "k"))
			}
			o := &outage{journal: journal{begin: time.Now()}, to: 4*day + time.Hour, down: store.Attempt{Class: store.ClassConnect}}
			l := &Lane{Name: "alerts", Queue: mem, Sender: o, Retry: aged, Breaker: Breaker{Failures: 2}}
			start(t, l)
			time.Sleep(4*day + 2*time.Hour)
			checkState(t, mem, head.ID, store.Failed)
			for _, d := range behind {
				checkState(t, mem, d.ID, store.Delivered)
			}
		})
	})
}

func TestAFewPoisonMessagesDoNotOpenTheBreaker(t *testing.T) {
	delays := []time.Duration{0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour}
	for _, failures := range []int{0, 4, 20} {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			core, logs := observer.New(zap.WarnLevel)
			for range 3 {
				accept(t, mem, "alerts", 0)
			}
			var calls atomic.Int64
			start(t, &Lane{
				Name: "alerts", Queue: mem, Retry: schedule(t, 0.2, 96*time.Hour, delays...), Concurrency: 1,
				Breaker: Breaker{Failures: failures}, Log: zap.New(core),
				Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt {
					calls.Add(1)
					return answer(500)
				}),
			})
			time.Sleep(120 * time.Hour)
			if got, want := calls.Load(), int64(3*len(delays)); got != want {
				t.Errorf("breaker of %d: got %d requests, want %d", failures, got, want)
			}
			if got := logs.FilterMessage("breaker opened").Len(); got != 0 {
				t.Errorf("breaker of %d: got it opened %d times, want never", failures, got)
			}
		})
	}
}

func TestProbes(t *testing.T) {
	const s = time.Second
	t.Run("one delivery is probed ever less often, and another in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			o := &outage{journal: journal{begin: time.Now()}, to: time.Hour, down: answer(502)}
			l := &Lane{
				Name: "alerts", Queue: mem, Sender: o, Retry: schedule(t, 0, 96*time.Hour, 0, s),
				Breaker: Breaker{Failures: 1, ProbeEvery: 100 * s},
			}
			accept(t, mem, "alerts", 0)
			start(t, l)
			time.Sleep(2000 * s)
			l.Wake(accept(t, mem, "alerts", 0).Cursor())
			time.Sleep(250 * s)
			// 100, 200, 400 and then 600 s after one another; the newcomer at once, since the last probe is long over.
			o.check(t, 0, 100*s, 200*s, 400*s, 800*s, 1400*s, 2000*s, 2100*s, 2200*s)
		})
	})
	t.Run("a failed probe keeps no body of request and answer, and an attempt does", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			d := accept(t, mem, "alerts", 0)
			l := &Lane{
				Name: "alerts", Queue: mem, Retry: schedule(t, 0, 0, 0, s, s), Breaker: Breaker{Failures: 1, ProbeEvery: 10 * s},
				Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt {
					a := answer(502)
					a.Header, a.Body = map[string][]string{"Server": {"x"}}, []byte("bad gateway")
					a.Request = store.Sent{Method: "POST", URL: "https://h/", Body: []byte("made"), Rendered: true}
					return a
				}),
			}
			start(t, l)
			time.Sleep(15 * s)
			all, err := mem.Attempts(context.Background(), d.ID, 10)
			if err != nil || len(all) != 2 {
				t.Fatalf("got %d attempts (%v), want 2", len(all), err)
			}
			if a := all[0]; a.Probe || string(a.Body) != "bad gateway" || a.Truncated || string(a.Request.Body) != "made" || a.Request.Truncated {
				t.Errorf("got %+v, want an attempt with its whole bodies", a)
			}
			if a := all[1]; !a.Probe || a.Body != nil || !a.Truncated || a.Status != 502 || a.Header.Get("Server") != "x" ||
				a.Request.Body != nil || !a.Request.Truncated || !a.Request.Rendered || a.Request.URL == "" {
				t.Errorf("got %+v, want a probe without the bodies, marked as truncated", a)
			}
		})
	})
}

// full is a store whose records can be refused for good. It counts what was tried.
func full(mem *storetest.Memory, tries *atomic.Int64, fits func(after store.Delivery, a store.Attempt) error) *queue {
	q := &queue{Memory: mem}
	q.record = func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
		tries.Add(1)
		if err := fits(after, a); err != nil {
			return store.Delivery{}, err
		}
		return mem.Record(ctx, before, after, a)
	}
	return q
}

func TestWhatTheStoreHasNoRoomForIsLeftOut(t *testing.T) {
	long := strings.Repeat("é", 500)
	send := func(calls *atomic.Int64) Sender {
		return sendFunc(func(context.Context, store.Delivery) store.Attempt {
			calls.Add(1)
			a := outcome(store.ClassTimeout)
			a.Body, a.Error = []byte("body"), long
			return a
		})
	}
	t.Run("first what was sent, then the answer, then what texts have beyond a bound", func(t *testing.T) {
		whole := store.Sent{Method: "POST", URL: "https://h/" + long, Header: []store.Field{{Name: "Host", Value: "h"}}, Body: []byte("made"), Rendered: true}
		bare := store.Sent{Method: "POST", URL: whole.URL, Rendered: true, Truncated: true}
		clipped := bare
		clipped.URL = whole.URL[:maxText]
		for fit, want := range []store.Attempt{ // on record, by how much of it does not fit
			{Request: whole, Body: []byte("body"), Error: long},
			{Request: bare, Body: []byte("body"), Error: long},
			{Request: bare, Error: long, Truncated: true},
			{Request: clipped, Error: long[:maxText], Truncated: true},
		} {
			synctest.Test(t, func(t *testing.T) {
				mem := storetest.NewMemory(storetest.MemoryOptions{})
				var tries, calls atomic.Int64
				q := full(mem, &tries, func(after store.Delivery, a store.Attempt) error {
					if fit > 0 && len(a.Request.Body)+len(a.Request.Header) > 0 || fit > 1 && len(a.Body) > 0 ||
						fit > 2 && max(len(a.Error), len(after.Reason), len(a.Request.URL)) > maxText {
						return store.ErrTooLarge
					}
					return nil
				})
				d := accept(t, mem, "alerts", 0)
				start(t, &Lane{Name: "alerts", Queue: q, Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt {
					calls.Add(1)
					a := outcome(store.ClassTimeout)
					a.Request, a.Body, a.Error = whole, []byte("body"), long
					return a
				})})
				synctest.Wait()
				got := checkState(t, mem, d.ID, store.Failed)
				if got.Made != 1 || (len(got.Reason) <= maxText) != (fit > 2) || !strings.HasPrefix(got.Reason, "no success") {
					t.Errorf("%d: got %+v, want the reason cut short at the end only", fit, got)
				}
				all, err := mem.Attempts(context.Background(), d.ID, 10)
				if err != nil || len(all) != 1 {
					t.Fatalf("%d: got %d attempts (%v), want 1", fit, len(all), err)
				}
				a := store.Attempt{Request: all[0].Request, Body: all[0].Body, Error: all[0].Error, Truncated: all[0].Truncated}
				if !reflect.DeepEqual(a, want) {
					t.Errorf("%d: got\n%+v on record, want\n%+v", fit, a, want)
				}
				if tries.Load() != int64(fit+1) || calls.Load() != 1 {
					t.Errorf("%d: got %d tries to record %d requests, want %d and 1", fit, tries.Load(), calls.Load(), fit+1)
				}
			})
		}
	})
	t.Run("then the attempt, and the delivery goes on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			var tries, calls atomic.Int64
			q := full(mem, &tries, func(_ store.Delivery, a store.Attempt) error {
				if a.Number == 1 && calls.Load() == 1 {
					return store.ErrInvalid
				}
				return nil
			})
			d := accept(t, mem, "alerts", 0)
			start(t, &Lane{Name: "alerts", Queue: q, Sender: send(&calls), Retry: schedule(t, 0, 0, 0, time.Minute)})
			time.Sleep(time.Hour)
			if got := checkState(t, mem, d.ID, store.Failed); got.Attempts != 2 || got.Made != 1 {
				t.Errorf("got %d attempts used up and %d on record, want 2 and 1", got.Attempts, got.Made)
			}
			if calls.Load() != 2 {
				t.Errorf("got %d requests, want 2", calls.Load())
			}
		})
	})
	t.Run("a delivery that can never be recorded is set aside, and the others go on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			core, logs := observer.New(zap.ErrorLevel)
			var tries, calls atomic.Int64
			var bad store.DeliveryID
			q := full(mem, &tries, func(after store.Delivery, _ store.Attempt) error {
				if after.ID == bad && after.Round == 1 {
					return store.ErrTooLarge
				}
				return nil
			})
			d, other := accept(t, mem, "alerts", 0), accept(t, mem, "alerts", 0)
			bad = d.ID
			l := &Lane{Name: "alerts", Queue: q, Sender: send(&calls), Concurrency: 1, Log: zap.New(core)}
			stop := start(t, l)
			time.Sleep(10 * time.Minute)
			l.Wake(d.Cursor())
			time.Sleep(10 * time.Minute)
			if got := checkState(t, mem, d.ID, store.Pending); got.Made != 0 {
				t.Errorf("got %d attempts on record, want 0", got.Made)
			}
			checkState(t, mem, other.ID, store.Failed)
			if calls.Load() != 2 || tries.Load() != 4+1 {
				t.Errorf("got %d requests and %d tries to record them, want 2 and 5", calls.Load(), tries.Load())
			}
			if got := logs.FilterMessage("delivery set aside").Len(); got != 1 {
				t.Errorf("got %d lines about it, want 1", got)
			}
			again := d
			again.Round, again.DueAt = 2, d.DueAt.Add(time.Hour)
			if _, err := mem.Record(context.Background(), d, again, store.Attempt{}); err != nil {
				t.Fatal(err)
			}
			l.Wake(again.Cursor())
			time.Sleep(time.Hour)
			checkState(t, mem, d.ID, store.Failed)
			if err := stop(); err != nil {
				t.Errorf("got error %v from Run, want none", err)
			}
		})
	})
}

// The bound of the store is never met by a lane, and if it were, by a store that was written otherwise, the outcome
// would not be lost.
func TestTheLastNumberOfTheStoreIsNoTrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.NewMemory(storetest.MemoryOptions{})
		d := accept(t, s, "alerts", 0)
		after, a := d, outcome(store.ClassConnect)
		after.Made, after.DueAt = store.MaxAttempts, time.Now().UTC().Truncate(time.Millisecond)
		a.Delivery, a.Round, a.Number = d.ID, 1, store.MaxAttempts
		if _, err := s.Record(context.Background(), d, after, a); err != nil {
			t.Fatal(err)
		}
		var calls atomic.Int64
		stop := start(t, &Lane{
			Name: "alerts", Queue: s, Sender: always(store.ClassOK, &calls), Retry: schedule(t, 0, 0, 0, time.Second),
			Breaker: Breaker{Failures: 1, ProbeEvery: 100 * time.Millisecond},
		})
		time.Sleep(3 * time.Second)
		if got := checkState(t, s, d.ID, store.Delivered); got.Made != store.MaxAttempts {
			t.Errorf("got %d attempts on record, want %d", got.Made, store.MaxAttempts)
		}
		if got := calls.Load(); got != 1 {
			t.Errorf("got %d requests, want 1", got)
		}
		if err := stop(); err != nil {
			t.Errorf("got error %v from Run, want none", err)
		}
	})
}

func TestAHundredDeliveriesAreProbedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		probes := map[store.DeliveryID]int{}
		l := &Lane{
			Name: "alerts", Queue: mem, Concurrency: 1, Retry: schedule(t, 0, 0, 0, time.Second, time.Second),
			Breaker: Breaker{Failures: 1, ProbeEvery: 10 * time.Second},
			Sender:  sendFunc(func(context.Context, store.Delivery) store.Attempt { return outcome(store.ClassConnect) }),
			Observe: func(_, after store.Delivery, a store.Attempt) {
				if a.Probe {
					probes[after.ID]++
				}
			},
		}
		for range 100 {
			accept(t, mem, "alerts", 0)
		}
		stop := start(t, l)
		time.Sleep(2*time.Hour + time.Second)
		if err := stop(); err != nil {
			t.Errorf("got error %v from Run, want none", err)
		}
		var all []int
		total := 0
		for _, n := range probes {
			all, total = append(all, n), total+n
		}
		if total != 720 || len(all) != 100 || slices.Max(all) > 15 {
			t.Errorf("got %d probes of %d deliveries, at most %d of one; want 720 of 100, at most 15", total, len(all), slices.Max(all))
		}
	})
}
