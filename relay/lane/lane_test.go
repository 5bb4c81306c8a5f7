package lane

import (
	"context"
	"fmt"
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

func TestAttemptsAreMadeAtTheTimesOfTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		seen := journal{begin: time.Now()}
		l := &Lane{Name: "alerts", Queue: mem, Retry: schedule(t, 0, 0, 2*time.Second, time.Minute, 3*time.Hour, 24*time.Hour)}
		l.Sender = sendFunc(func(ctx context.Context, d store.Delivery) store.Attempt {
			seen.add()
			sleep(ctx, time.Second) // delays count from the end of an attempt
			return outcome(store.ClassTimeout)
		})
		start(t, l)
		synctest.Wait()
		d := accept(t, mem, "alerts", l.Retry.First())
		l.Wake(d.Cursor())
		time.Sleep(48 * time.Hour)

		want := []time.Duration{
			2 * time.Second,
			2*time.Second + time.Second + time.Minute,
			3*time.Second + time.Minute + time.Second + 3*time.Hour,
			4*time.Second + time.Minute + 3*time.Hour + time.Second + 24*time.Hour,
		}
		if got := seen.all(); !slices.Equal(got, want) {
			t.Errorf("got attempts at %v, want %v", got, want)
		}
		got := checkState(t, mem, d.ID, store.Failed)
		if want := "no success in 4 of 4 attempts; last: timeout"; got.Reason != want {
			t.Errorf("got reason %q, want %q", got.Reason, want)
		}
		attempts, err := mem.Attempts(context.Background(), d.ID, 10)
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range attempts {
			if a.Number != i+1 || a.Round != 1 || a.Delivery != d.ID {
				t.Errorf("attempt %d: got number %d of round %d of %s", i+1, a.Number, a.Round, a.Delivery)
			}
		}
		if len(attempts) != 4 {
			t.Errorf("got %d attempts on record, want 4", len(attempts))
		}
	})
}

func TestConcurrency(t *testing.T) {
	for _, limit := range []int{1, 3, 0} {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			want := int64(limit)
			if limit == 0 {
				want = defaultConcurrency
			}
			var now, most atomic.Int64
			l := &Lane{Name: "alerts", Queue: mem, Concurrency: limit}
			l.Sender = sendFunc(func(ctx context.Context, d store.Delivery) store.Attempt {
				for n := now.Add(1); ; {
					if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
						break
					}
				}
				sleep(ctx, time.Second)
				now.Add(-1)
				return outcome(store.ClassOK)
			})
			const total = 100
			for range total {
				accept(t, mem, "alerts", 0)
			}
			start(t, l)
			took := (total + time.Duration(want) - 1) / time.Duration(want) * time.Second
			time.Sleep(took - time.Millisecond)
			if got := mem.Pending(); got == 0 {
				t.Errorf("limit %d: got nothing pending before %s, want something", limit, took)
			}
			time.Sleep(2 * time.Millisecond)
			if got := mem.Pending(); got != 0 {
				t.Errorf("limit %d: got %d pending after %s, want 0", limit, got, took)
			}
			if got := most.Load(); got != want {
				t.Errorf("limit %d: got %d attempts in flight at most, want %d", limit, got, want)
			}
		})
	}
}

func TestOneSickDestinationDoesNotSlowAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		sick := &Lane{Name: "sick", Queue: mem, Concurrency: 2, Drain: time.Second}
		sick.Sender = sendFunc(func(ctx context.Context, d store.Delivery) store.Attempt {
			<-ctx.Done()
			return outcome(store.ClassInterrupted)
		})
		well := &Lane{Name: "well", Queue: mem}
		well.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt { return outcome(store.ClassOK) })
		start(t, sick)
		start(t, well)
		for range 200 {
			sick.Wake(accept(t, mem, "sick", 0).Cursor())
			d := accept(t, mem, "well", 0)
			well.Wake(d.Cursor())
			synctest.Wait() // without any time going by
			checkState(t, mem, d.ID, store.Delivered)
		}
		s := sick.Stats()
		if s.InFlight != 2 || s.Waiting != minWindow || !s.More {
			t.Errorf("got %+v, want 2 in flight, a full window and more", s)
		}
	})
}

func TestOneHangingAttemptHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		first := accept(t, mem, "alerts", 0)
		l := &Lane{Name: "alerts", Queue: mem, Concurrency: 2}
		l.Sender = sendFunc(func(ctx context.Context, d store.Delivery) store.Attempt {
			if d.ID == first.ID {
				<-ctx.Done()
				return outcome(store.ClassInterrupted)
			}
			sleep(ctx, time.Second)
			return outcome(store.ClassOK)
		})
		stop := start(t, l)
		for range 500 {
			l.Wake(accept(t, mem, "alerts", 0).Cursor())
		}
		time.Sleep(501 * time.Second)
		if got := mem.Pending(); got != 1 {
			t.Errorf("got %d pending, want the one that hangs", got)
		}
		if err := stop(); err != nil {
			t.Errorf("got error %v from Run, want none", err)
		}
		checkState(t, mem, first.ID, store.Pending)
	})
}

func TestRestartGoesOnAtTheDueTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		seen := journal{begin: time.Now()}
		lane := func() *Lane {
			return &Lane{
				Name: "alerts", Queue: mem, Retry: schedule(t, 0, 0, 0, time.Hour, time.Hour),
				Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt {
					seen.add()
					return outcome(store.ClassConnect)
				}),
			}
		}
		accept(t, mem, "alerts", 0)
		stop := start(t, lane())
		time.Sleep(10 * time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		stop = start(t, lane())
		time.Sleep(time.Hour)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Hour) // overdue at the next start
		start(t, lane())
		synctest.Wait()
		want := []time.Duration{0, time.Hour, 6*time.Hour + 20*time.Minute}
		if got := seen.all(); !slices.Equal(got, want) {
			t.Errorf("got attempts at %v, want %v", got, want)
		}
	})
}

func TestStop(t *testing.T) {
	// slow and stuck are in flight when the lane is told to stop, late is behind them in the queue.
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		slow, stuck, late := accept(t, mem, "alerts", 0), accept(t, mem, "alerts", 0), accept(t, mem, "alerts", 0)
		l := &Lane{Name: "alerts", Queue: mem, Concurrency: 2, Drain: 7 * time.Second, Retry: schedule(t, 0, 0, 0, time.Hour)}
		l.Sender = sendFunc(func(ctx context.Context, d store.Delivery) store.Attempt {
			switch {
			case d.ID == late.ID:
				t.Error("an attempt began after the stop")
			case !sleep(ctx, map[bool]time.Duration{true: 6 * time.Second, false: time.Hour}[d.ID == slow.ID]):
				return outcome(store.ClassInterrupted)
			}
			return outcome(store.ClassOK)
		})
		stop := start(t, l)
		synctest.Wait()
		begin := time.Now()
		if err := stop(); err != nil {
			t.Errorf("got error %v from Run, want none", err)
		}
		if got, want := time.Since(begin), 7*time.Second; got != want {
			t.Errorf("got a stop of %s, want %s", got, want)
		}
		checkState(t, mem, slow.ID, store.Delivered)
		d := checkState(t, mem, stuck.ID, store.Pending)
		if d.Attempts != 0 || d.Made != 1 || !d.DueAt.Equal(time.Now()) {
			t.Errorf("got %d attempts used of %d made, due at %s; want 0 of 1, due now", d.Attempts, d.Made, d.DueAt)
		}
		if got := checkState(t, mem, late.ID, store.Pending).Made; got != 0 {
			t.Errorf("got %d attempts of a delivery that was waiting, want 0", got)
		}
		s := l.Stats()
		if s.Attempts[store.ClassInterrupted] != 1 || s.Attempts[store.ClassOK] != 1 || s.InFlight != 0 {
			t.Errorf("got %+v, want one interrupted, one ok and none in flight", s)
		}
	})
}

func TestAnIdleLaneStopsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Lane{Name: "alerts", Queue: storetest.NewMemory(storetest.MemoryOptions{}), Sender: sendFunc(nil)}
		stop := start(t, l)
		time.Sleep(time.Hour)
		begin := time.Now()
		if err := stop(); err != nil {
			t.Errorf("got error %v from Run, want none", err)
		}
		if got := time.Since(begin); got != 0 {
			t.Errorf("got a stop of %s, want 0s", got)
		}
	})
}

func TestMissingFieldsAreAnError(t *testing.T) {
	mem := storetest.NewMemory(storetest.MemoryOptions{})
	for name, l := range map[string]*Lane{
		"Name":   {Queue: mem, Sender: sendFunc(nil)},
		"Queue":  {Name: "alerts", Sender: sendFunc(nil)},
		"Sender": {Name: "alerts", Queue: mem},
	} {
		if err := l.Run(context.Background()); err == nil {
			t.Errorf("got no error without %s, want one", name)
		}
	}
}

func TestBacklogStaysInTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		const total = 100_000
		for range total {
			accept(t, mem, "alerts", 0)
		}
		var reads, read int
		q := &queue{Memory: mem}
		q.due = func(ctx context.Context, after store.Cursor, limit int) ([]store.Delivery, error) {
			ds, err := mem.Due(ctx, "alerts", after, limit)
			reads, read = reads+1, read+len(ds)
			return ds, err
		}
		var most atomic.Int64
		l := &Lane{Name: "alerts", Queue: q, Concurrency: 8}
		l.Sender = sendFunc(func(ctx context.Context, d store.Delivery) store.Attempt {
			if n := int64(l.Stats().Waiting); n > most.Load() {
				most.Store(n)
			}
			return outcome(store.ClassOK)
		})
		stop := start(t, l)
		synctest.Wait()
		if got := l.Stats(); got.Delivered != total || got.More {
			t.Errorf("got %+v, want %d delivered and no more", got, total)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := most.Load(); got > mostWaiting {
			t.Errorf("got %d waiting, want at most %d", got, mostWaiting)
		}
		if read > total+reads*8 || reads > 2*total/mostWaiting+8 {
			t.Errorf("got %d deliveries read by %d reads, want each about once", read, reads)
		}
	})
}

func TestAFastLaneReadsAheadAndAHeldOneGivesItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		const total = 5000
		for range total {
			accept(t, mem, "alerts", 0)
		}
		l := &Lane{Name: "alerts", Queue: mem, Concurrency: 8}
		l.Sender = sendFunc(func(ctx context.Context, _ store.Delivery) store.Attempt {
			sleep(ctx, time.Millisecond)
			return outcome(store.ClassOK)
		})
		start(t, l)
		time.Sleep(100 * time.Millisecond)
		l.Pause(store.Pause{At: time.Now(), Reason: "maintenance"})
		time.Sleep(time.Second)
		if got := l.Stats().Waiting; got < mostWaiting/2 || got > mostWaiting {
			t.Errorf("got %d waiting after 8 a millisecond, want %d to %d", got, mostWaiting/2, mostWaiting)
		}
		time.Sleep(2 * maxSleep)
		if got := l.Stats().Waiting; got != minWindow {
			t.Errorf("got %d waiting after two minutes of a pause, want %d", got, minWindow)
		}
		l.Resume()
		time.Sleep(time.Minute)
		if got := l.Stats(); got.Delivered != total || got.More {
			t.Errorf("got %+v, want all %d delivered", got, total)
		}
	})
}

func TestAPanicEndsOneDeliveryOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		poison, fine := accept(t, mem, "alerts", 0), accept(t, mem, "alerts", 0)
		core, logs := observer.New(zap.InfoLevel)
		l := &Lane{Name: "alerts", Queue: mem, Concurrency: 1, Log: zap.New(core), Retry: schedule(t, 0, 0, 0, time.Second)}
		l.Sender = sendFunc(func(_ context.Context, d store.Delivery) store.Attempt {
			if d.ID == poison.ID {
				panic("poison")
			}
			return outcome(store.ClassOK)
		})
		start(t, l)
		synctest.Wait()
		if got, want := checkState(t, mem, poison.ID, store.Failed).Reason, "request could not be built: internal error"; got != want {
			t.Errorf("got reason %q, want %q", got, want)
		}
		checkState(t, mem, fine.ID, store.Delivered)
		if got := logs.FilterMessage("attempt panicked").All(); len(got) != 1 {
			t.Errorf("got %d lines about the panic, want 1", len(got))
		} else if fields := got[0].ContextMap(); strings.Contains(fmt.Sprint(fields), "poison") || !strings.Contains(fmt.Sprint(fields["stack"]), "TestAPanic") {
			t.Errorf("got %v, want the place of the panic, and not its value", fields)
		}
		if got := logs.FilterMessage("delivery ended").Len(); got != 2 {
			t.Errorf("got %d lines about ended deliveries, want 2", got)
		}
		var got map[string]any // of the poison: the order of the lines is that of the workers
		for _, line := range logs.FilterMessage("delivery ended").All() {
			if fields := line.ContextMap(); fields["delivery_id"] == poison.ID.String() {
				got = fields
			}
		}
		for key, want := range map[string]any{
			"destination": "alerts", "delivery_id": poison.ID.String(), "message_id": poison.ID.Message().String(),
			"event": "alert.fired", "state": "failed", "round": 1, "attempt": 1, "class": "render",
			"reason": "request could not be built: internal error", "error": "internal error",
		} {
			if got[key] != want {
				t.Errorf("got %s=%v in the log, want %v", key, got[key], want)
			}
		}
	})
}

func TestWhatIsCanceledWhileItWaitsIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := storetest.NewMemory(storetest.MemoryOptions{})
		sent := make(chan store.DeliveryID, 10)
		l := &Lane{Name: "alerts", Queue: memory, Sender: sendFunc(func(_ context.Context, d store.Delivery) store.Attempt {
			sent <- d.ID
			return outcome(store.ClassOK)
		})}
		canceled, other := accept(t, memory, "alerts", time.Minute), accept(t, memory, "alerts", time.Minute)
		start(t, l)
		synctest.Wait()
		if _, _, err := memory.Cancel(t.Context(), canceled.ID, time.Now(), "by hand"); err != nil {
			t.Fatal(err)
		}
		l.Wake(canceled.Cursor())
		time.Sleep(time.Hour)
		if got := <-sent; got != other.ID {
			t.Errorf("got %s sent, want %s, which nobody has canceled", got, other.ID)
		}
		if n := len(sent); n != 0 {
			t.Errorf("got %d more sent, want none", n)
		}
	})
}

func TestObserveSeesWhatIsOnRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		d := accept(t, mem, "alerts", 0)
		classes := []store.Class{store.ClassTLS, store.ClassOK}
		var calls int
		l := &Lane{Name: "alerts", Queue: mem, Retry: schedule(t, 0, 0, 0, time.Second)}
		l.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt { return outcome(classes[calls]) })
		l.Observe = func(before, after store.Delivery, a store.Attempt) {
			if got := current(t, mem, d.ID); got != after || before.Made != calls || a.Class != classes[calls] {
				t.Errorf("call %d: got %+v then %+v by %s, stored %+v", calls, before, after, a.Class, got)
			}
			calls++
		}
		stop := start(t, l)
		time.Sleep(time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if calls != 2 {
			t.Errorf("got %d calls, want 2", calls)
		}
	})
}
