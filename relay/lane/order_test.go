package lane

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func acceptInLine(t testing.TB, s store.Acceptor, order string) store.Delivery {
	t.Helper()
	return acceptFor(t, s, time.Now(), store.Recipient{Destination: "alerts", Order: order})
}

func TestALineGoesOnAfterItsHeadHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		first, second, third := acceptInLine(t, mem, "k"), acceptInLine(t, mem, "k"), acceptInLine(t, mem, "k")
		free := accept(t, mem, "alerts", 0)
		var order []store.DeliveryID
		seen := journal{begin: time.Now()}
		l := &Lane{Name: "alerts", Queue: mem, Retry: schedule(t, 0, 0, 0, 20*time.Second)}
		l.Sender = sendFunc(func(_ context.Context, d store.Delivery) store.Attempt {
			if d.ID == free.ID {
				return outcome(store.ClassOK)
			}
			seen.add()
			order = append(order, d.ID)
			if d.ID == first.ID {
				return outcome(store.ClassTimeout)
			}
			return outcome(store.ClassOK)
		})
		stop := start(t, l)
		synctest.Wait()
		checkState(t, mem, free.ID, store.Delivered)
		time.Sleep(maxSleep / 2) // less than a recheck takes: what is released must be known without
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		seen.check(t, 0, 20*time.Second, 20*time.Second, 20*time.Second)
		if want := []store.DeliveryID{first.ID, first.ID, second.ID, third.ID}; !slices.Equal(order, want) {
			t.Errorf("got %v, want %v", order, want)
		}
		if got := checkState(t, mem, first.ID, store.Failed); got.Blocking {
			t.Error("got a failed head that blocks, want one that does not")
		}
	})
}

func TestAFailedHeadCanBlockItsLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		first, second := acceptInLine(t, mem, "k"), acceptInLine(t, mem, "k")
		other, free := acceptInLine(t, mem, "other"), accept(t, mem, "alerts", 0)
		var blocking []store.DeliveryID
		l := &Lane{Name: "alerts", Queue: mem, BlockOnFailure: true, Concurrency: 1}
		l.Observe = func(_, after store.Delivery, _ store.Attempt) {
			if after.Blocking {
				blocking = append(blocking, after.ID)
			}
		}
		l.Sender = sendFunc(func(_ context.Context, d store.Delivery) store.Attempt {
			if d.ID == first.ID || d.ID == free.ID {
				return outcome(store.ClassTimeout)
			}
			return outcome(store.ClassOK)
		})
		start(t, l)
		time.Sleep(time.Hour)
		checkState(t, mem, second.ID, store.Pending)
		checkState(t, mem, other.ID, store.Delivered)
		if got := checkState(t, mem, first.ID, store.Failed); !got.Blocking {
			t.Error("got a failed head that does not block, want one that does")
		}
		checkState(t, mem, free.ID, store.Failed)
		if want := []store.DeliveryID{first.ID}; !slices.Equal(blocking, want) {
			t.Errorf("got %v recorded as blocking, want %v: no success, and nothing outside of a line", blocking, want)
		}
		if n, err := mem.Release(context.Background(), "alerts", 10); n != 1 || err != nil {
			t.Fatalf("got %d lines released (%v), want 1", n, err)
		}
		l.Wake(second.Cursor())
		synctest.Wait()
		checkState(t, mem, second.ID, store.Delivered)
	})
}

func TestALineGoesOnAfterARecordInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		q := &queue{Memory: mem}
		var tries, calls atomic.Int64
		q.record = func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
			released, err := mem.Record(ctx, before, after, a)
			if tries.Add(1) == 1 {
				return store.Delivery{}, errDisk // and what was released is lost
			}
			return released, err
		}
		acceptInLine(t, mem, "k")
		second := acceptInLine(t, mem, "k")
		start(t, &Lane{Name: "alerts", Queue: q, Sender: always(store.ClassOK, &calls)})
		time.Sleep(maxSleep / 2)
		checkState(t, mem, second.ID, store.Delivered)
		if got := calls.Load(); got != 2 {
			t.Errorf("got %d requests, want 2", got)
		}
	})
}

// lineWitness is a sender that fails at random, for a while for everybody, and notes each line that is out of order.
type lineWitness struct {
	t *testing.T

	mu     sync.Mutex // guards the fields below
	rng    *rand.Rand
	place  map[store.DeliveryID]int    // in its line
	flying map[string]store.DeliveryID // of each line
	next   map[string]int              // place from which on nothing of the line was attempted
	ended  map[string]int              // place before which all of the line has ended
	out    bool                        // the receiver is out
}

func (w *lineWitness) random(n int) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.rng.IntN(n)) * time.Millisecond
}

func (w *lineWitness) Send(ctx context.Context, d store.Delivery) store.Attempt {
	w.mu.Lock()
	place, known := w.place[d.ID]
	switch other, busy := w.flying[d.Order]; {
	case !known:
		w.t.Errorf("%s is attempted before its accept has returned: the test does not know its place", d.ID)
	case busy:
		w.t.Errorf("line %s: %s is in flight with %s", d.Order, d.ID, other)
	case place < w.next[d.Order]-1 || place > w.next[d.Order]:
		w.t.Errorf("line %s: place %d is attempted after %d", d.Order, place, w.next[d.Order]-1)
	case place != w.ended[d.Order]:
		w.t.Errorf("line %s: place %d is attempted, and %d has not ended", d.Order, place, w.ended[d.Order])
	}
	w.flying[d.Order] = d.ID
	w.next[d.Order] = place + 1
	a := outcome(store.ClassOK)
	switch n := w.rng.IntN(12); {
	case w.out:
		a = outcome(store.ClassConnect)
	case n == 0:
		a = answer(500)
	case n == 1:
		a = answer(404)
	case n == 2:
		a = answer(503)
		a.RetryHint = 20 * time.Millisecond
	case n == 3:
		a = outcome(store.ClassRender)
	}
	w.mu.Unlock()
	finished := sleep(ctx, w.random(20))
	w.mu.Lock()
	delete(w.flying, d.Order)
	w.mu.Unlock()
	if !finished {
		return outcome(store.ClassInterrupted)
	}
	return a
}

// recordedLocked notes what is on record.
func (w *lineWitness) recordedLocked(after store.Delivery) {
	if after.State.Ended() {
		w.ended[after.Order]++
	}
}

// Several apps post into a few lines; attempts fail at random, by themselves and all together, and take random times,
// as do reads and records, some of which fail; the lane is stopped and started again. In each line every delivery must
// be attempted until it has ended, and only then the next, in the order of acceptance.
func TestLinesKeepTheirOrder(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testRandomLines(t, seed) })
		})
	}
}

func testRandomLines(t *testing.T, seed uint64) {
	const apps, each, lines = 4, 60, 5
	mem := storetest.NewMemory(storetest.MemoryOptions{})
	w := &lineWitness{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), place: map[store.DeliveryID]int{}, flying: map[string]store.DeliveryID{},
		next: map[string]int{}, ended: map[string]int{},
	}
	q := &queue{Memory: mem}
	q.due = func(ctx context.Context, after store.Cursor, limit int) ([]store.Delivery, error) {
		sleep(ctx, w.random(3))
		ds, err := mem.Due(ctx, "alerts", after, limit)
		sleep(ctx, w.random(3)) // what was read grows old
		return ds, err
	}
	q.record = func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
		sleep(ctx, w.random(5))
		if w.random(20) == 0 {
			return store.Delivery{}, errDisk // not made
		}
		// Under the lock of the witness: what is released must not be attempted before its head counts as ended.
		w.mu.Lock()
		released, err := mem.Record(ctx, before, after, a)
		if err == nil {
			w.recordedLocked(after)
		}
		w.mu.Unlock()
		if err == nil && w.random(20) == 0 {
			err = errDisk // made, and in doubt
		}
		sleep(ctx, w.random(5)) // the record is visible before the lane knows
		return released, err
	}
	retry := schedule(t, 0.2, 0, 0, 5*time.Millisecond, 100*time.Millisecond, 300*time.Millisecond)
	newLane := func() *Lane {
		l := &Lane{Name: "alerts", Queue: q, Sender: w, Retry: retry, Concurrency: 1 + int(seed)%5, Drain: w.random(20)}
		if seed%2 == 0 {
			l.Breaker = Breaker{Failures: 3, ProbeEvery: 50 * time.Millisecond}
		}
		if seed%3 == 0 {
			l.Rate = 400
		}
		return l
	}

	lock := make(chan struct{}, 1) // guards l, and is held during a stop: a Mutex would hold up the bubble's time
	l := newLane()
	stop := start(t, l)
	var posts sync.WaitGroup
	lengths := map[string]int{} // guarded by w.mu, as is the order of accepts
	for range apps {
		posts.Go(func() {
			for range each {
				time.Sleep(w.random(60))
				delay := time.Duration(0)
				if w.random(6) == 0 {
					delay = w.random(200) // the one behind it may be due before
				}
				w.mu.Lock()
				line := fmt.Sprint("k", w.rng.IntN(lines))
				d := acceptFor(t, mem, time.Now(), store.Recipient{Destination: "alerts", Order: line, Delay: delay})
				w.place[d.ID] = lengths[line]
				lengths[line]++
				w.mu.Unlock()
				time.Sleep(w.random(10))
				lock <- struct{}{}
				l.Wake(d.Cursor())
				<-lock
			}
		})
	}
	for range 4 {
		time.Sleep(w.random(600))
		w.mu.Lock()
		w.out = !w.out
		w.mu.Unlock()
		time.Sleep(w.random(300))
		lock <- struct{}{}
		if err := stop(); err != nil {
			t.Errorf("got error %v from Run, want none", err)
		}
		l = newLane()
		stop = start(t, l)
		<-lock
	}
	posts.Wait()
	time.Sleep(maxSleep / 2) // less than a recheck takes: what is released must be known without
	if err := stop(); err != nil {
		t.Errorf("got error %v from Run, want none", err)
	}
	if got := mem.Pending(); got != 0 {
		t.Errorf("got %d deliveries forgotten, want 0", got)
	}
	var total int
	for line, n := range lengths {
		total += n
		if w.ended[line] != n {
			t.Errorf("line %s: got %d deliveries ended, want %d", line, w.ended[line], n)
		}
	}
	if total != apps*each {
		t.Errorf("got %d deliveries, want %d", total, apps*each)
	}
}
