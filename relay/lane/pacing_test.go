package lane

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func TestRateHoldsFromTheFirstSecond(t *testing.T) {
	for _, rate := range []float64{1, 50, 200, 1000} {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			const seconds = 5
			for range seconds*int(rate) + 100 {
				accept(t, mem, "alerts", 0)
			}
			seen := journal{begin: time.Now()}
			var looks atomic.Int64
			l := &Lane{Name: "alerts", Queue: mem, Rate: rate, Concurrency: 200}
			l.Now = func() time.Time {
				looks.Add(1)
				return time.Now()
			}
			l.Sender = sendFunc(func(ctx context.Context, _ store.Delivery) store.Attempt {
				seen.add()
				sleep(ctx, 100*time.Millisecond)
				return outcome(store.ClassOK)
			})
			start(t, l)
			time.Sleep(seconds*time.Second - 1)
			synctest.Wait()
			var got [seconds]int
			for _, at := range seen.all() {
				got[at/time.Second]++
			}
			for second, n := range got {
				if n != int(rate) {
					t.Errorf("rate %v: got %d attempts in second %d, want %v", rate, n, second, rate)
				}
			}
			// Each attempt wakes the lane when it may begin, when it is over and when it is on record.
			if got, most := looks.Load(), int64(seconds*(20*rate+20)); got > most {
				t.Errorf("rate %v: got %d looks at the clock, want at most %d", rate, got, most)
			}
		})
	}
}

func TestBatchesAreReleasedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		seen := journal{begin: time.Now()}
		l := &Lane{
			Name: "alerts", Queue: mem, Concurrency: 2, Batch: Batch{Every: 5 * time.Second, Max: 3},
			Retry: schedule(t, 0, 0, 0, time.Second),
		}
		var first atomic.Bool
		l.Sender = sendFunc(func(ctx context.Context, _ store.Delivery) store.Attempt {
			seen.add()
			sleep(ctx, time.Second)
			if first.CompareAndSwap(false, true) {
				return outcome(store.ClassTimeout) // due again at 7 s
			}
			return outcome(store.ClassOK)
		})
		start(t, l)
		time.Sleep(time.Second)
		for range 6 {
			l.Wake(accept(t, mem, "alerts", 0).Cursor())
		}
		time.Sleep(5 * time.Second) // 6 s: behind the tick
		l.Wake(accept(t, mem, "alerts", 0).Cursor())
		time.Sleep(time.Minute)
		const s = time.Second
		seen.check(t, 5*s, 5*s, 6*s, 10*s, 10*s, 11*s, 15*s, 15*s)
		if got := mem.Pending(); got != 0 {
			t.Errorf("got %d pending, want 0", got)
		}
	})
}

func TestABatchMissedByAPauseIsNotMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		seen := journal{begin: time.Now()}
		l := &Lane{Name: "alerts", Queue: mem, Batch: Batch{Every: 5 * time.Second}}
		l.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt {
			seen.add()
			return outcome(store.ClassOK)
		})
		l.Pause(store.Pause{Reason: "maintenance"})
		accept(t, mem, "alerts", 0)
		start(t, l)
		time.Sleep(6 * time.Second)
		l.Resume()
		time.Sleep(time.Minute)
		seen.check(t, 10*time.Second)
	})
}

// outage is a receiver that is down for some time. It notes what comes.
type outage struct {
	journal
	from, to time.Duration
	down     store.Attempt // the outcome meanwhile
	took     time.Duration // of each attempt
}

func (o *outage) Send(ctx context.Context, d store.Delivery) store.Attempt {
	o.add()
	at := time.Since(o.begin)
	sleep(ctx, o.took)
	if at >= o.from && at < o.to {
		a := o.down
		a.StartedAt = time.Now().UTC().Truncate(time.Millisecond)
		return a
	}
	return outcome(store.ClassOK)
}

func TestAnOutageUsesUpNoAttemptsBeyondThoseThatOpenedTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		const total, concurrency = 100, 4
		begin := time.Now()
		o := &outage{journal: journal{begin: begin}, to: 10 * time.Hour, down: store.Attempt{Class: store.ClassConnect}, took: time.Second}
		core, logs := observer.New(zap.InfoLevel)
		var spent, probes atomic.Int64
		l := &Lane{
			Name: "alerts", Queue: mem, Sender: o, Concurrency: concurrency, Log: zap.New(core),
			Retry:   schedule(t, 0, 24*time.Hour, 0, time.Second, time.Second),
			Breaker: Breaker{Failures: 5, ProbeEvery: 29 * time.Second},
			Observe: func(before, after store.Delivery, a store.Attempt) {
				switch {
				case a.Probe:
					probes.Add(1)
					if a.Class != store.ClassConnect || after.Attempts != before.Attempts || after.Made != before.Made+1 {
						t.Errorf("got a probe %s from %+v to %+v, want a failure that uses up nothing", a.Class, before, after)
					}
				case a.Class != store.ClassOK:
					spent.Add(1)
				}
			},
		}
		for range total {
			accept(t, mem, "alerts", 0)
		}
		start(t, l)
		time.Sleep(10 * time.Second)
		opened := begin.Add(2 * time.Second) // the fifth failure: of the second four
		s := l.Stats()
		if s.Breaker != BreakerOpen || !s.OpenSince.Equal(opened) || !s.NextProbe.Equal(opened.Add(29*time.Second)) || s.Limit != 1 {
			t.Errorf("got %+v, want a breaker open since %s that lets a probe pass 29 s later", s, opened)
		}
		time.Sleep(21*time.Second + 500*time.Millisecond)
		if got := l.Stats(); got.Breaker != BreakerProbing || !got.NextProbe.IsZero() || got.InFlight != 1 {
			t.Errorf("got %+v, want one probe in flight", got)
		}
		time.Sleep(9*time.Hour + 59*time.Minute)
		if got := spent.Load(); got != 2*concurrency {
			t.Errorf("got %d attempts used up, want the %d that had begun when the breaker opened", got, 2*concurrency)
		}
		// One takes a second and comes 29 s after the one before; the last of them is in flight.
		if got, want := probes.Load(), int64(1198); got != want {
			t.Errorf("got %d probes, want %d", got, want)
		}
		before := len(o.all())
		time.Sleep(2 * maxProbeDelay) // what was a probe many times waits that long
		if got := mem.Pending(); got != 0 {
			t.Errorf("got %d pending, want 0", got)
		}
		if got := l.Stats(); got.Delivered != total || got.Failed != 0 || got.Breaker != BreakerClosed || got.Limit != concurrency || !got.OpenSince.IsZero() {
			t.Errorf("got %+v, want all delivered and the breaker closed", got)
		}
		// The probe, then one, two, and four at a time.
		var gaps []time.Duration
		after := o.all()[before:]
		for i := 1; i < 12; i++ {
			gaps = append(gaps, (after[i] - after[i-1]).Round(time.Second))
		}
		if want := []time.Duration{1e9, 1e9, 0, 1e9, 0, 0, 0, 1e9, 0, 0, 0}; !slices.Equal(gaps, want) {
			t.Errorf("got recovery at steps of %v, want %v", gaps, want)
		}
		if got, want := logs.FilterMessage("breaker opened").Len(), 1; got != want {
			t.Errorf("got %d lines about the opening, want %d", got, want)
		}
		if got, want := logs.FilterMessage("breaker closed").Len(), 1; got != want {
			t.Errorf("got %d lines about the closing, want %d", got, want)
		}
	})
}

func TestAPoisonMessageCannotKeepTheBreakerOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		poison := accept(t, mem, "alerts", 0)
		fine := accept(t, mem, "alerts", 5*time.Second)
		seen := journal{begin: time.Now()}
		l := &Lane{
			Name: "alerts", Queue: mem, Concurrency: 1, Breaker: Breaker{Failures: 1, ProbeEvery: 10 * time.Second},
			Retry: schedule(t, 0, 0, 0, time.Second, time.Second),
			Sender: sendFunc(func(_ context.Context, d store.Delivery) store.Attempt {
				seen.add()
				if d.ID == poison.ID {
					return answer(500)
				}
				return outcome(store.ClassOK)
			}),
		}
		start(t, l)
		time.Sleep(time.Minute)
		const s = time.Second
		// The poison opens it, is the first probe and due again 10 s later; the other one closes it.
		seen.check(t, 0, 10*s, 20*s, 20*s, 21*s)
		checkState(t, mem, fine.ID, store.Delivered)
		if got := checkState(t, mem, poison.ID, store.Failed); got.Attempts != 3 || got.Made != 4 {
			t.Errorf("got %d attempts used up of %d made, want 3 of 4", got.Attempts, got.Made)
		}
	})
}

func TestMaxAgeEndsWhatIsProbedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		first := acceptFor(t, mem, time.Now(), store.Recipient{Destination: "alerts", Order: "all"})
		second := acceptFor(t, mem, time.Now(), store.Recipient{Destination: "alerts", Order: "all", Delay: 2 * time.Hour})
		o := &outage{journal: journal{begin: time.Now()}, to: time.Hour, down: answer(502)}
		l := &Lane{
			Name: "alerts", Queue: mem, Sender: o, Breaker: Breaker{Failures: 2, ProbeEvery: 10 * time.Minute},
			Retry: schedule(t, 0, 30*time.Minute, 0, time.Minute, time.Minute),
		}
		start(t, l)
		time.Sleep(40 * time.Minute)
		const m = time.Minute
		o.check(t, 0, 1*m, 11*m, 21*m) // a fifth would come at 31 min
		got := checkState(t, mem, first.ID, store.Failed)
		if want := "the next attempt would come more than 30m0s after the first; last: status 502"; got.Reason != want || got.Attempts != 2 || got.Made != 4 {
			t.Errorf("got %d attempts used up of %d made, reason %q; want 2 of 4, %q", got.Attempts, got.Made, got.Reason, want)
		}
		time.Sleep(2 * time.Hour)
		checkState(t, mem, second.ID, store.Delivered)
	})
}

func TestRetryAfterHoldsTheLane(t *testing.T) {
	for _, status := range []int{429, 503} {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			begin := time.Now()
			o := &outage{journal: journal{begin: begin}, to: time.Second, down: answer(status)}
			o.down.RetryHint = 30 * time.Minute
			var looks atomic.Int64
			l := &Lane{Name: "alerts", Queue: mem, Sender: o, Retry: schedule(t, 0, 0, 0, time.Second)}
			l.Now = func() time.Time {
				looks.Add(1)
				return time.Now()
			}
			accept(t, mem, "alerts", 0)
			start(t, l)
			time.Sleep(10 * time.Minute)
			l.Wake(accept(t, mem, "alerts", 0).Cursor())
			time.Sleep(10 * time.Minute)
			if got, want := l.Stats(), begin.Add(30*time.Minute); !got.HeldUntil.Equal(want) || got.Limit != 1 || got.Due != 1 {
				t.Errorf("status %d: got %+v, want one due and held until %s", status, got, want)
			}
			if got := looks.Load(); got > 20*5 { // the lane looks once a minute, and at what happens
				t.Errorf("status %d: got %d looks at the clock in 20 minutes, want about one a minute", status, got)
			}
			time.Sleep(time.Hour)
			o.check(t, 0, 30*time.Minute, 30*time.Minute)
			if got := l.Stats(); !got.HeldUntil.IsZero() {
				t.Errorf("status %d: got held until %s, want no more", status, got.HeldUntil)
			}
		})
	}
}

func TestARestartedReceiverMeetsNoHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		o := &outage{journal: journal{begin: time.Now()}, to: time.Minute, down: answer(503), took: 10 * time.Millisecond}
		l := &Lane{
			Name: "alerts", Queue: mem, Sender: o, Concurrency: 64, Rate: 100, Retry: schedule(t, 0, 0, 0, time.Second, time.Second),
			Breaker: Breaker{Failures: 5, ProbeEvery: 30 * time.Second},
		}
		for range 1000 {
			accept(t, mem, "alerts", 0)
		}
		start(t, l)
		time.Sleep(2 * time.Minute)
		times := o.all()
		up := slices.IndexFunc(times, func(at time.Duration) bool { return at >= o.to })
		if up < 0 || up > 12 {
			t.Fatalf("got %d attempts during the outage, want a few", up)
		}
		for i := up; i+102 < len(times); i++ {
			if got := times[i+102] - times[i]; got < time.Second {
				t.Fatalf("got 103 attempts within %s, want at most 100 per second and what 20 ms hold", got)
			}
		}
		if got := mem.Pending(); got != 0 {
			t.Errorf("got %d pending, want 0", got)
		}
	})
}

func TestADeliveryInAMonthIsMadeThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		seen := journal{begin: time.Now()}
		l := &Lane{
			Name: "alerts", Queue: mem, Rate: 10, Breaker: Breaker{Failures: 1},
			Retry: schedule(t, 0, time.Hour, 0, time.Second), // max_age ends nothing by waiting
			Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt {
				seen.add()
				return outcome(store.ClassOK)
			}),
		}
		start(t, l)
		synctest.Wait()
		d := accept(t, mem, "alerts", MaxDelay)
		l.Wake(d.Cursor())
		time.Sleep(MaxDelay + time.Second)
		seen.check(t, MaxDelay)
		checkState(t, mem, d.ID, store.Delivered)
	})
}
