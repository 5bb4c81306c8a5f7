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

// A lane is changed and retired again and again at random while messages in lines and without come in: each delivery
// must end, none be attempted twice at the same time or early, and each line keep its order.
func TestChangesLoseNothing(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testRandomChanges(t, seed) })
		})
	}
}

func testRandomChanges(t *testing.T, seed uint64) {
	const apps, each = 6, 100
	mem := storetest.NewMemory(storetest.MemoryOptions{})
	w := &witness{t: t, rng: rand.New(rand.NewPCG(seed, 1)), flying: map[store.DeliveryID]bool{}, begun: map[string]bool{}}
	lines := &lineOrder{t: t, ended: map[string]store.DeliveryID{}}
	retry := schedule(t, 0.2, 0, 0, 5*time.Millisecond, 100*time.Millisecond, time.Second)
	settings := func() *Lane {
		s := &Lane{Name: "alerts", Queue: mem, Sender: w, Retry: retry, Concurrency: int(1 + w.random(9)/time.Millisecond), Observe: lines.observe}
		switch w.random(5) / time.Millisecond {
		case 0:
			s.Rate = 500
		case 2:
			s.Breaker = Breaker{Failures: 2, ProbeEvery: 20 * time.Millisecond}
		case 1:
			s.Batch = Batch{Every: 10 * time.Millisecond, Max: 5}
		}
		return s
	}
	// lock guards l and ids; see testRandomTraffic.
	lock := make(chan struct{}, 1)
	var ids []store.DeliveryID
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	run := func(l *Lane) *Lane {
		running.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Errorf("got error %v from Run, want none", err)
			}
		})
		return l
	}
	l := run(settings())
	var posts sync.WaitGroup
	for range apps {
		posts.Go(func() {
			for n := range each {
				time.Sleep(w.random(40))
				lock <- struct{}{} // the line's order is that of acceptance
				order := ""
				if n%2 == 0 {
					order = fmt.Sprint("=", w.random(5))
				}
				d := acceptInLine(t, mem, order)
				ids = append(ids, d.ID)
				l.Wake(d.Cursor())
				<-lock
			}
		})
	}
	revived, replaced := 0, 0
	for range 150 {
		time.Sleep(w.random(30))
		lock <- struct{}{}
		if w.random(4) == 0 {
			l.Retire()
			<-lock
			time.Sleep(w.random(15))
			lock <- struct{}{}
		}
		next := settings()
		if l.Change(next, Receiver(w.random(2)/time.Millisecond)) {
			revived++
		} else {
			replaced++
			l = run(next)
		}
		<-lock
	}
	posts.Wait()
	time.Sleep(maxSleep / 2) // less than a recheck takes: the wakes alone must do
	cancel()
	running.Wait()

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
	if revived == 0 || replaced == 0 {
		t.Errorf("%d changes and %d new lanes: this tests nothing", revived, replaced)
	}
}

// lineOrder notes ends that come before those of an earlier delivery of the same line.
type lineOrder struct {
	t  *testing.T
	mu sync.Mutex // guards the field below

	ended map[string]store.DeliveryID // the latest of each line
}

func (o *lineOrder) observe(before, after store.Delivery, _ store.Attempt) {
	if before.Order == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if last, ok := o.ended[before.Order]; ok && string(before.ID[:]) < string(last[:]) {
		o.t.Errorf("%s of line %q is attempted after %s, which was accepted later, has ended", before.ID, before.Order, last)
	}
	if after.State.Ended() {
		o.ended[before.Order] = before.ID
	}
}
