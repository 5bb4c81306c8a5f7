package lane

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// witness is a sender that fails at random and notes each rule that the lane breaks.
type witness struct {
	t *testing.T

	mu     sync.Mutex // guards the fields below
	rng    *rand.Rand
	flying map[store.DeliveryID]bool
	begun  map[string]bool // each version of a delivery that was attempted
	total  int
}

func (w *witness) random(n int) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.rng.IntN(n)) * time.Millisecond
}

func (w *witness) Send(ctx context.Context, d store.Delivery) store.Attempt {
	w.mu.Lock()
	version := fmt.Sprint(d.ID, d.Round, d.Made)
	if w.flying[d.ID] {
		w.t.Errorf("%s is attempted twice at the same time", d.ID)
	}
	if w.begun[version] {
		w.t.Errorf("attempt %d of %s is made twice", d.Made+1, d.ID)
	}
	if early := time.Until(d.DueAt); early > 0 {
		w.t.Errorf("%s is attempted %s early", d.ID, early)
	}
	w.flying[d.ID], w.begun[version] = true, true
	w.total++
	class := store.ClassOK
	if w.rng.IntN(3) == 0 {
		class = store.ClassTimeout
	}
	w.mu.Unlock()
	finished := sleep(ctx, w.random(20))
	w.mu.Lock()
	delete(w.flying, d.ID)
	w.mu.Unlock()
	if !finished {
		return outcome(store.ClassInterrupted)
	}
	return outcome(class)
}

// Messages are accepted by several at once, whose commits and wakes come in any order; the store answers with a
// delay, before and after it has looked; the lane is stopped and started again. Each delivery must end, each of its
// attempts be made once, none early, and no two at the same time.
func TestEveryDeliveryIsAttemptedOncePerDue(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testRandomTraffic(t, seed) })
		})
	}
}

func testRandomTraffic(t *testing.T, seed uint64) {
	const apps, each = 8, 120
	mem := storetest.NewMemory(storetest.MemoryOptions{})
	w := &witness{t: t, rng: rand.New(rand.NewPCG(seed, 0)), flying: map[store.DeliveryID]bool{}, begun: map[string]bool{}}
	q := &queue{Memory: mem}
	q.due = func(ctx context.Context, after store.Cursor, limit int) ([]store.Delivery, error) {
		sleep(ctx, w.random(3))
		ds, err := mem.Due(ctx, "alerts", after, limit)
		sleep(ctx, w.random(3)) // what was read grows old
		return ds, err
	}
	q.record = func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
		sleep(ctx, w.random(5))
		released, err := mem.Record(ctx, before, after, a)
		sleep(ctx, w.random(5)) // the record is visible before the lane knows
		if err != nil {
			t.Errorf("got error %v from Record, want none: the lane sent a delivery it no longer owned", err)
		}
		return released, err
	}
	retry := schedule(t, 0.2, 0, 0, 5*time.Millisecond, 300*time.Millisecond, time.Second)
	newLane := func() *Lane {
		return &Lane{Name: "alerts", Queue: q, Sender: w, Retry: retry, Concurrency: 1 + int(seed)%9, Drain: w.random(20)}
	}

	// lock guards l and ids. It is held during a stop: a bubble's time stands still while somebody waits for a Mutex.
	lock := make(chan struct{}, 1)
	l := newLane()
	var ids []store.DeliveryID
	stop := start(t, l)

	var posts sync.WaitGroup
	for range apps {
		posts.Go(func() {
			for range each {
				time.Sleep(w.random(40))
				at := time.Now()
				time.Sleep(w.random(10)) // a later post may be stored first
				var delay time.Duration
				if w.random(4) == 0 {
					delay = w.random(2000)
				}
				d := acceptAt(t, mem, "alerts", at, delay)
				time.Sleep(w.random(10)) // and be woken first
				lock <- struct{}{}
				ids = append(ids, d.ID)
				l.Wake(d.Cursor())
				<-lock
			}
		})
	}
	for range 3 {
		time.Sleep(w.random(1500))
		lock <- struct{}{}
		// The whole of the stop under the lock: a wake between the two lanes goes to the second.
		if err := stop(); err != nil {
			t.Errorf("got error %v from Run, want none", err)
		}
		l = newLane()
		stop = start(t, l)
		<-lock
	}
	posts.Wait()
	time.Sleep(maxSleep / 2) // less than a recheck takes: the wakes alone must do
	if err := stop(); err != nil {
		t.Errorf("got error %v from Run, want none", err)
	}

	var made int
	for _, id := range ids {
		d := current(t, mem, id)
		if !d.State.Ended() {
			t.Errorf("%s is forgotten: still %s, due at %s", id, d.State, d.DueAt)
		}
		made += d.Made
	}
	if made != w.total || len(ids) != apps*each {
		t.Errorf("got %d attempts on record of %d deliveries, want %d of %d", made, len(ids), w.total, apps*each)
	}
}
