package lane

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

var errDisk = errors.New("disk is busy")

// always returns a sender of one outcome that counts its calls.
func always(c store.Class, calls *atomic.Int64) Sender {
	return sendFunc(func(context.Context, store.Delivery) store.Attempt {
		calls.Add(1)
		return outcome(c)
	})
}

func TestARecordThatFailsIsTriedAgainAndTheRequestIsNot(t *testing.T) {
	for _, trouble := range []error{errDisk, store.ErrNoSpace} {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			q := &queue{Memory: mem}
			var tries, calls atomic.Int64
			q.record = func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
				if tries.Add(1) <= 10 {
					return store.Delivery{}, trouble
				}
				return mem.Record(ctx, before, after, a)
			}
			d := accept(t, mem, "alerts", 0)
			start(t, &Lane{Name: "alerts", Queue: q, Sender: always(store.ClassOK, &calls)})
			time.Sleep(time.Second)
			if got := tries.Load(); got != 5 { // at 0, 50, 150, 350 and 750 ms
				t.Errorf("%v: got %d tries to record in the first second, want 5", trouble, got)
			}
			time.Sleep(10 * longestPause)
			checkState(t, mem, d.ID, store.Delivered)
			if got := calls.Load(); got != 1 {
				t.Errorf("%v: got %d requests, want 1", trouble, got)
			}
			if got := tries.Load(); got != 11 {
				t.Errorf("%v: got %d tries to record, want 11", trouble, got)
			}
		})
	}
}

func TestARecordThatWasMadeInSpiteOfItsErrorGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		q := &queue{Memory: mem}
		var tries, calls atomic.Int64
		q.record = func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
			released, err := mem.Record(ctx, before, after, a)
			if tries.Add(1) == 1 {
				return store.Delivery{}, errDisk
			}
			return released, err
		}
		d := accept(t, mem, "alerts", 0)
		l := &Lane{Name: "alerts", Queue: q, Sender: always(store.ClassTimeout, &calls), Retry: schedule(t, 0, 0, 0, maxSleep/2)}
		start(t, l)
		time.Sleep(maxSleep/2 - time.Millisecond)
		if got := calls.Load(); got != 1 {
			t.Errorf("got %d requests before the second is due, want 1", got)
		}
		time.Sleep(2 * time.Millisecond)
		if got := calls.Load(); got != 2 {
			t.Errorf("got %d requests after the second is due, want 2", got)
		}
		checkState(t, mem, d.ID, store.Failed)
	})
}

func TestAnAnswerTooLargeToKeepIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		q := &queue{Memory: mem}
		q.record = func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
			if len(a.Body)+len(a.Header) > 0 {
				return store.Delivery{}, store.ErrTooLarge
			}
			return mem.Record(ctx, before, after, a)
		}
		d := accept(t, mem, "alerts", 0)
		l := &Lane{Name: "alerts", Queue: q, Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt {
			a := outcome(store.ClassOK)
			a.Header, a.Body = http.Header{"Server": {"x"}}, []byte("body")
			return a
		})}
		start(t, l)
		time.Sleep(time.Second)
		checkState(t, mem, d.ID, store.Delivered)
		attempts, err := mem.Attempts(context.Background(), d.ID, 10)
		if err != nil || len(attempts) != 1 || !attempts[0].Truncated {
			t.Errorf("got %+v (%v), want one attempt marked as truncated", attempts, err)
		}
	})
}

func TestReadsThatFailAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		q := &queue{Memory: mem}
		var reads, calls atomic.Int64
		q.due = func(ctx context.Context, after store.Cursor, limit int) ([]store.Delivery, error) {
			if n := reads.Add(1); n%3 != 0 {
				return nil, errDisk
			}
			return mem.Due(ctx, "alerts", after, limit)
		}
		l := &Lane{Name: "alerts", Queue: q, Sender: always(store.ClassOK, &calls)}
		start(t, l)
		for range 300 {
			l.Wake(accept(t, mem, "alerts", 0).Cursor())
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		if got := calls.Load(); got != 300 {
			t.Errorf("got %d requests, want 300", got)
		}
	})
}

func TestAStoreThatHasFailedEndsTheLane(t *testing.T) {
	for _, want := range []error{store.ErrClosed, store.ErrBroken} {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			q := &queue{Memory: mem}
			q.record = func(context.Context, store.Delivery, store.Delivery, store.Attempt) (store.Delivery, error) {
				return store.Delivery{}, want
			}
			first := accept(t, mem, "alerts", 0)
			accept(t, mem, "alerts", 0)
			l := &Lane{Name: "alerts", Queue: q, Sender: sendFunc(func(ctx context.Context, d store.Delivery) store.Attempt {
				if d.ID != first.ID {
					<-ctx.Done() // must be cut off, not waited for
				}
				return outcome(store.ClassInterrupted)
			})}
			begin := time.Now()
			if err := l.Run(context.Background()); !errors.Is(err, want) {
				t.Errorf("record: got error %v, want %v", err, want)
			}
			if got := time.Since(begin); got != 0 {
				t.Errorf("record: got an end after %s, want at once", got)
			}

			q.due = func(context.Context, store.Cursor, int) ([]store.Delivery, error) { return nil, want }
			if err := l.Run(context.Background()); !errors.Is(err, want) {
				t.Errorf("read: got error %v, want %v", err, want)
			}
		})
	}
}

func TestAStopIsBoundedWhenRecordsHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		q := &queue{Memory: mem}
		q.record = func(ctx context.Context, _, _ store.Delivery, _ store.Attempt) (store.Delivery, error) {
			<-ctx.Done()
			return store.Delivery{}, ctx.Err()
		}
		accept(t, mem, "alerts", 0)
		var calls atomic.Int64
		stop := start(t, &Lane{Name: "alerts", Queue: q, Drain: time.Second, Sender: always(store.ClassOK, &calls)})
		synctest.Wait()
		begin := time.Now()
		if err := stop(); !errors.Is(err, errGiveUp) {
			t.Errorf("got error %v from Run, want %v", err, errGiveUp)
		}
		if got, want := time.Since(begin), time.Second+recordGrace; got != want {
			t.Errorf("got a stop of %s, want %s", got, want)
		}
	})
}

func TestADeliveryThatIsReplacedInFlightIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		d := accept(t, mem, "alerts", 0)
		var rounds []int
		l := &Lane{Name: "alerts", Queue: mem}
		l.Sender = sendFunc(func(ctx context.Context, d store.Delivery) store.Attempt {
			rounds = append(rounds, d.Round)
			sleep(ctx, 10*time.Second)
			return outcome(store.ClassTimeout)
		})
		stop := start(t, l)
		time.Sleep(time.Second)
		replay := d
		replay.Round, replay.DueAt = 2, d.DueAt.Add(time.Hour)
		if _, err := mem.Record(context.Background(), d, replay, store.Attempt{}); err != nil {
			t.Fatal(err)
		}
		l.Wake(replay.Cursor())
		time.Sleep(2 * time.Hour)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if len(rounds) != 2 || rounds[1] != 2 {
			t.Errorf("got attempts in rounds %v, want 1 and 2", rounds)
		}
		if got := checkState(t, mem, d.ID, store.Failed).Round; got != 2 {
			t.Errorf("got an end in round %d, want 2", got)
		}
	})
}

func TestAWakeForAnEarlierDeliveryGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		begin := time.Now()
		for i := range 3 * minWindow {
			accept(t, mem, "alerts", time.Hour+time.Duration(i)*time.Second)
		}
		var order []store.DeliveryID
		l := &Lane{Name: "alerts", Queue: mem, Concurrency: 1}
		l.Sender = sendFunc(func(_ context.Context, d store.Delivery) store.Attempt {
			order = append(order, d.ID)
			return outcome(store.ClassOK)
		})
		stop := start(t, l)
		synctest.Wait()
		early := acceptAt(t, mem, "alerts", begin, time.Hour-time.Millisecond)
		l.Wake(early.Cursor())
		time.Sleep(time.Hour + 3*minWindow*time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if len(order) != 3*minWindow+1 || order[0] != early.ID {
			t.Errorf("got %d attempts with the early one first: %t; want %d and true", len(order), order[0] == early.ID, 3*minWindow+1)
		}
	})
}

func TestWhatWasAcceptedWithoutAWakeIsFoundLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		var calls atomic.Int64
		start(t, &Lane{Name: "alerts", Queue: mem, Sender: always(store.ClassOK, &calls)})
		time.Sleep(10*time.Minute + time.Second)
		d := accept(t, mem, "alerts", 0)
		time.Sleep(maxSleep)
		checkState(t, mem, d.ID, store.Delivered)
	})
}

func TestClockJumps(t *testing.T) {
	// lane returns a lane whose wall clock differs from the real one, and what to add to it.
	lane := func(t *testing.T, mem *storetest.Memory, calls *atomic.Int64) (*Lane, *atomic.Int64) {
		var jump atomic.Int64
		l := &Lane{Name: "alerts", Queue: mem, Retry: schedule(t, 0, 96*time.Hour, 0, 24*time.Hour, 24*time.Hour)}
		l.Now = func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }
		l.Sender = sendFunc(func(context.Context, store.Delivery) store.Attempt {
			calls.Add(1)
			return store.Attempt{Class: store.ClassTimeout, StartedAt: l.Now()}
		})
		return l, &jump
	}
	t.Run("a clock set forward is followed within a minute", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			var calls atomic.Int64
			l, jump := lane(t, mem, &calls)
			accept(t, mem, "alerts", 0)
			start(t, l)
			time.Sleep(90 * time.Second)
			jump.Store(int64(24 * time.Hour))
			time.Sleep(maxSleep)
			if got := calls.Load(); got != 2 {
				t.Errorf("got %d requests, want 2", got)
			}
		})
	})
	t.Run("a clock set forward by a year ends nothing that waits for its first attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			var calls atomic.Int64
			l, jump := lane(t, mem, &calls)
			jump.Store(int64(365 * 24 * time.Hour))
			d := accept(t, mem, "alerts", 0)
			start(t, l)
			synctest.Wait()
			if got := calls.Load(); got != 1 {
				t.Errorf("got %d requests, want 1", got)
			}
			checkState(t, mem, d.ID, store.Pending)
			time.Sleep(24*time.Hour + time.Second)
			if got := calls.Load(); got != 2 {
				t.Errorf("got %d requests a day later, want 2", got)
			}
		})
	})
	t.Run("a clock set back by two days forgets nothing, and delays nothing by as much", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			var calls atomic.Int64
			l, jump := lane(t, mem, &calls)
			d := accept(t, mem, "alerts", 0)
			start(t, l)
			synctest.Wait()
			jump.Store(-int64(48 * time.Hour))
			time.Sleep(24 * time.Hour)
			if got := calls.Load(); got != 1 {
				t.Errorf("got %d requests before the second is due, want 1", got)
			}
			checkState(t, mem, d.ID, store.Pending)
			time.Sleep(aheadGrace + 3*time.Minute)
			if got := calls.Load(); got != 2 {
				t.Errorf("got %d requests after, want 2", got)
			}
		})
	})
}
