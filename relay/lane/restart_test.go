package lane

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// outagesFunc is an Outages that can misbehave.
type outagesFunc func(ctx context.Context, destination string, o store.Outage) error

func (f outagesFunc) NoteOutage(ctx context.Context, destination string, o store.Outage) error {
	return f(ctx, destination, o)
}

// noted returns what is noted of the outage of alerts.
func noted(t testing.TB, s store.OutageKeeper) store.Outage {
	t.Helper()
	all, err := s.Outages(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return all["alerts"]
}

func checkNoted(t testing.TB, s store.OutageKeeper, since, held time.Time) {
	t.Helper()
	if got := noted(t, s); !got.Since.Equal(since) || !got.HeldUntil.Equal(held) {
		t.Errorf("got an outage since %v, held until %v; want %v and %v", got.Since, got.HeldUntil, since, held)
	}
}

func TestAnOutageIsNoted(t *testing.T) {
	const s = time.Second
	t.Run("from the opening of the breaker to the first success", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			begin := time.Now()
			o := &outage{journal: journal{begin: begin}, to: 50 * s, down: answer(503)}
			l := &Lane{
				Name: "alerts", Queue: mem, Outages: mem, Sender: o, Concurrency: 1, Retry: schedule(t, 0, 0, 0, s),
				Breaker: Breaker{Failures: 2, ProbeEvery: 20 * s},
			}
			accept(t, mem, "alerts", 0)
			start(t, l)
			synctest.Wait()
			checkNoted(t, mem, time.Time{}, time.Time{})
			l.Wake(accept(t, mem, "alerts", 5*s).Cursor())
			l.Wake(accept(t, mem, "alerts", 5*s).Cursor())
			time.Sleep(2 * s)
			checkNoted(t, mem, begin.Add(s), time.Time{}) // the retry of the first has opened it
			time.Sleep(40 * s)
			checkNoted(t, mem, begin.Add(s), time.Time{})
			time.Sleep(20 * s)
			checkNoted(t, mem, time.Time{}, time.Time{})
		})
	})
	t.Run("while the receiver asks for no attempt, unless that is soon over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			begin := time.Now()
			hints := []time.Duration{notedHold, 100 * s, 103 * s, 0}
			var calls, notes atomic.Int64
			l := &Lane{Name: "alerts", Queue: mem, Concurrency: 4, Retry: schedule(t, 0, 0, 0, s, s)}
			l.Outages = outagesFunc(func(ctx context.Context, destination string, o store.Outage) error {
				notes.Add(1)
				return mem.NoteOutage(ctx, destination, o)
			})
			l.Sender = sendFunc(func(ctx context.Context, _ store.Delivery) store.Attempt {
				n := calls.Add(1)
				sleep(ctx, time.Duration(n-1)*10*time.Millisecond)
				if int(n) > len(hints) {
					return outcome(store.ClassOK)
				}
				a := answer(429)
				a.RetryHint = hints[n-1]
				return a
			})
			for range hints {
				accept(t, mem, "alerts", 0)
			}
			start(t, l)
			time.Sleep(time.Millisecond)
			checkNoted(t, mem, time.Time{}, time.Time{})
			time.Sleep(s)
			checkNoted(t, mem, time.Time{}, begin.Add(10*time.Millisecond+100*s)) // three seconds more are not worth a note
			time.Sleep(200 * s)
			checkNoted(t, mem, time.Time{}, time.Time{})
			if got := notes.Load(); got != 2 {
				t.Errorf("got %d notes, want 2", got)
			}
		})
	})
	t.Run("when it shows itself after the stop", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			o := &outage{journal: journal{begin: time.Now()}, to: time.Hour, down: answer(503), took: 2 * s}
			accept(t, mem, "alerts", 0)
			stop := start(t, &Lane{
				Name: "alerts", Queue: mem, Outages: mem, Sender: o, Retry: schedule(t, 0, 0, 0, s), Breaker: Breaker{Failures: 1},
			})
			synctest.Wait()
			begin := time.Now()
			if err := stop(); err != nil {
				t.Errorf("got error %v from Run, want none", err)
			}
			checkNoted(t, mem, begin.Add(2*s), time.Time{})
		})
	})
}

func TestALaneBeginsInAnOutage(t *testing.T) {
	const s = time.Second
	past := func() time.Time { return time.Now().Add(-time.Hour).UTC() }
	breaker := Breaker{Failures: 5, ProbeEvery: 30 * s}
	for _, tt := range []struct {
		name    string
		since   time.Duration // of the outage, before now; 0 for none
		held    time.Duration // from now; 0 for not
		breaker Breaker
		want    []time.Duration // attempts, the receiver being out for 70 s
		spent   int             // of the first delivery
	}{
		{"with a probe at once, which uses up no attempt", time.Hour, 0, breaker, []time.Duration{0, 30 * s, 60 * s, 90 * s, 90 * s, 90 * s}, 1},
		{"with a probe when the receiver allows", time.Hour, 45 * s, breaker, []time.Duration{45 * s, 75 * s, 75 * s, 75 * s}, 1},
		{"with a probe at once when the receiver has allowed it meanwhile", time.Hour, -s, breaker, []time.Duration{0, 30 * s, 60 * s, 90 * s, 90 * s, 90 * s}, 1},
		{"with a closed breaker when the receiver allows", 0, 80 * s, breaker, []time.Duration{80 * s, 80 * s, 80 * s}, 1},
		{"an hour later at most", 0, 1000 * time.Hour, breaker, []time.Duration{time.Hour, time.Hour, time.Hour}, 1},
		{"as ever if it has no breaker any more", time.Hour, 0, Breaker{}, []time.Duration{0, 0, 0, 100 * s, 100 * s, 100 * s}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := storetest.NewMemory(storetest.MemoryOptions{})
				o := &outage{journal: journal{begin: time.Now()}, to: 70 * s, down: answer(503)}
				l := &Lane{
					Name: "alerts", Queue: mem, Outages: mem, Sender: o, Retry: schedule(t, 0, 0, 0, 100*s), Breaker: tt.breaker,
				}
				if tt.since > 0 {
					l.Outage.Since = past()
				}
				if tt.held != 0 {
					l.Outage.HeldUntil = time.Now().Add(tt.held)
				}
				if err := mem.NoteOutage(t.Context(), "alerts", l.Outage); err != nil {
					t.Fatal(err)
				}
				first := accept(t, mem, "alerts", 0)
				accept(t, mem, "alerts", 0)
				accept(t, mem, "alerts", 0)
				start(t, l)
				synctest.Wait()
				if got := l.Stats(); tt.since > 0 && tt.breaker.Failures > 0 && (got.Breaker != BreakerOpen || !got.OpenSince.Equal(past())) {
					t.Errorf("got breaker %s since %v, want open since %v", got.Breaker, got.OpenSince, past())
				}
				if tt.since > 0 && tt.breaker.Failures == 0 {
					checkNoted(t, mem, time.Time{}, time.Time{})
				}
				time.Sleep(2 * time.Hour)
				o.check(t, tt.want...)
				if got := checkState(t, mem, first.ID, store.Delivered); got.Attempts != tt.spent {
					t.Errorf("got %d attempts used up, want %d", got.Attempts, tt.spent)
				}
				checkNoted(t, mem, time.Time{}, time.Time{})
			})
		})
	}
	t.Run("and says so in the log", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			core, logs := observer.New(zap.InfoLevel)
			var calls atomic.Int64
			start(t, &Lane{
				Name: "alerts", Queue: storetest.NewMemory(storetest.MemoryOptions{}), Sender: always(store.ClassOK, &calls), Breaker: breaker,
				Outage: store.Outage{Since: past(), HeldUntil: time.Now().Add(time.Minute)}, Log: zap.New(core),
			})
			synctest.Wait()
			open, held := logs.FilterMessage("breaker still open").All(), logs.FilterMessage("destination still held").All()
			if len(open) != 1 || len(held) != 1 || open[0].Level != zap.WarnLevel || !open[0].ContextMap()["since"].(time.Time).Equal(past()) {
				t.Errorf("got lines %v and %v, want one of each", open, held)
			}
		})
	})
	t.Run("whatever its times are", func(t *testing.T) {
		now := time.Now()
		for _, since := range []time.Time{time.Unix(-1<<60, 0), time.Unix(0, 0), now.Add(1000 * time.Hour), forever} {
			p := newPace(&Lane{Breaker: breaker}, 1)
			p.restore(store.Outage{Since: since, HeldUntil: since}, now)
			var got Stats
			p.describe(&got, now, time.Hour)
			if p.breaker.state != BreakerOpen || p.hold < 0 || p.hold > maxHint || got.OpenSince.After(now) {
				t.Errorf("since %v: got %s since %v, held for %s", since, p.breaker.state, got.OpenSince, p.hold)
			}
		}
	})
}

func TestANoteOfAnOutageThatCannotBeKept(t *testing.T) {
	const s = time.Second
	lane := func(t *testing.T, mem *storetest.Memory, down time.Duration, outages Outages) *Lane {
		return &Lane{
			Name: "alerts", Queue: mem, Outages: outages, Concurrency: 1, Retry: schedule(t, 0, 0, 0, s, s),
			Sender:  &outage{journal: journal{begin: time.Now()}, to: down, down: answer(503)},
			Breaker: Breaker{Failures: 1, ProbeEvery: 10 * s},
		}
	}
	t.Run("is tried again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			begin := time.Now()
			var tries atomic.Int64
			accept(t, mem, "alerts", 0)
			start(t, lane(t, mem, time.Hour, outagesFunc(func(ctx context.Context, destination string, o store.Outage) error {
				if tries.Add(1) <= 5 {
					return store.ErrNoSpace
				}
				return mem.NoteOutage(ctx, destination, o)
			})))
			time.Sleep(s)
			if got := tries.Load(); got != 5 { // at 0, 50, 150, 350 and 750 ms
				t.Errorf("got %d tries in the first second, want 5", got)
			}
			time.Sleep(time.Minute)
			checkNoted(t, mem, begin, time.Time{})
			if got := tries.Load(); got != 6 {
				t.Errorf("got %d tries, want 6", got)
			}
		})
	})
	t.Run("gives way to a newer one, and holds up no attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			d := accept(t, mem, "alerts", 0)
			var notes []store.Outage
			start(t, lane(t, mem, s, outagesFunc(func(ctx context.Context, _ string, o store.Outage) error {
				notes = append(notes, o)
				if len(notes) == 1 {
					sleep(ctx, time.Minute)
					return errDisk
				}
				return nil
			})))
			time.Sleep(30 * s)
			checkState(t, mem, d.ID, store.Delivered)
			time.Sleep(time.Hour)
			synctest.Wait()
			if len(notes) != 2 || notes[0] == (store.Outage{}) || notes[1] != (store.Outage{}) {
				t.Errorf("got notes %v, want one of the outage and one that removes it", notes)
			}
		})
	})
	t.Run("holds up a stop for no longer than other records do", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			accept(t, mem, "alerts", 0)
			stop := start(t, lane(t, mem, time.Hour, outagesFunc(func(ctx context.Context, _ string, _ store.Outage) error {
				<-ctx.Done() // as on a disk that hangs
				return context.Cause(ctx)
			})))
			synctest.Wait()
			begin := time.Now()
			if err := stop(); err != nil {
				t.Errorf("got error %v from Run, want none: nothing is lost but the note", err)
			}
			if got := time.Since(begin); got != recordGrace {
				t.Errorf("got a stop that took %s, want %s", got, recordGrace)
			}
		})
	})
	t.Run("is given up at a stop when the store has trouble", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			accept(t, mem, "alerts", 0)
			stop := start(t, lane(t, mem, time.Hour, outagesFunc(func(context.Context, string, store.Outage) error { return errDisk })))
			time.Sleep(time.Minute)
			begin := time.Now()
			if err := stop(); err != nil || time.Since(begin) != 0 {
				t.Errorf("got error %v from Run after %s, want none at once", err, time.Since(begin))
			}
		})
	})
}

// A receiver goes down, and while it is down the lane is stopped and started again at random, with attempts in flight
// too. Whatever the sizes are, the outage uses up no more attempts than were in flight when the breaker opened, and
// everything is delivered when it is over.
func TestRestartsDuringAnOutageUseUpNoAttempts(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testRestartsDuringAnOutage(t, seed) })
		})
	}
}

func testRestartsDuringAnOutage(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	random := func(n int) time.Duration { return time.Duration(rng.IntN(n)) * time.Second }
	mem := storetest.NewMemory(storetest.MemoryOptions{})
	total, concurrency, failures := 5+rng.IntN(60), 1+rng.IntN(16), 1+rng.IntN(4)
	end := time.Hour + random(3600)
	down := []store.Attempt{answer(503), {Class: store.ClassConnect}, {Class: store.ClassTimeout}}[rng.IntN(3)]
	if down.Status == 503 && rng.IntN(2) == 0 {
		down.RetryHint = time.Minute
	}
	o := &outage{journal: journal{begin: time.Now()}, to: end, down: down, took: random(3)}
	var opened, spent, late atomic.Int64
	retry := schedule(t, 0.2, 0, 0, time.Second, 30*time.Second, time.Minute)
	start := func() (stop func() error) {
		return start(t, &Lane{
			Name: "alerts", Queue: mem, Outages: mem, Outage: noted(t, mem), Sender: o, Retry: retry, Concurrency: concurrency,
			Breaker: Breaker{Failures: failures, ProbeEvery: 5*time.Second + random(60)}, Drain: time.Second + random(2),
			Observe: func(before, after store.Delivery, a store.Attempt) {
				if after.Attempts == before.Attempts || time.Since(o.begin) >= end {
					return
				}
				spent.Add(1)
				if opened.Load() > 0 {
					late.Add(1)
				}
			},
		})
	}
	var ids []store.DeliveryID
	for range total {
		ids = append(ids, accept(t, mem, "alerts", 0).ID)
	}
	stop := start()
	time.Sleep(30 * time.Second) // by now it has opened, and what was in flight then has ended
	if noted(t, mem).Since.IsZero() {
		t.Fatal("got no note of the outage")
	}
	opened.Store(1)
	restarts := 3 + rng.IntN(30)
	for range restarts {
		if err := stop(); err != nil {
			t.Errorf("got error %v from Run, want none", err)
		}
		time.Sleep(random(10))
		stop = start()
		time.Sleep(random(100))
	}
	time.Sleep(time.Until(o.begin.Add(end + 2*time.Hour)))
	if err := stop(); err != nil {
		t.Errorf("got error %v from Run, want none", err)
	}
	if got := late.Load(); got != 0 {
		t.Errorf("got %d attempts used up by %d restarts, want none", got, restarts)
	}
	if got, most := spent.Load(), int64(failures-1+concurrency); got > most {
		t.Errorf("got %d attempts used up, want at most %d", got, most)
	}
	for _, id := range ids {
		checkState(t, mem, id, store.Delivered)
	}
	checkNoted(t, mem, time.Time{}, time.Time{})
}
