package lane

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// slowly is a sender whose receiver answers 200 after a second.
func slowly(calls *int) Sender {
	var mu sync.Mutex
	return sendFunc(func(ctx context.Context, _ store.Delivery) store.Attempt {
		mu.Lock()
		*calls++
		mu.Unlock()
		a := outcome(store.ClassOK)
		if !sleep(ctx, time.Second) {
			a.Class = store.ClassInterrupted
		}
		return a
	})
}

// A person steers a delivery while an attempt of it is being made. The attempt is on record, whatever came of it, and is
// not made a second time.
func TestSteeringDuringAnAttempt(t *testing.T) {
	type observed struct {
		state store.State
		class store.Class
	}
	for name, tc := range map[string]struct {
		steer         func(t *testing.T, mem *storetest.Memory, id store.DeliveryID)
		state         store.State
		calls, rounds int
		seen          []observed
	}{
		"made due again and again, it is one attempt": {
			func(t *testing.T, mem *storetest.Memory, id store.DeliveryID) {
				for range 5 {
					if _, err := mem.Expedite(context.Background(), id, time.Now()); err != nil {
						t.Error(err)
					}
					time.Sleep(100 * time.Millisecond)
				}
			}, store.Delivered, 1, 1, []observed{{store.Delivered, store.ClassOK}},
		},
		"canceled, it stays canceled": {
			func(t *testing.T, mem *storetest.Memory, id store.DeliveryID) {
				if _, _, err := mem.Cancel(context.Background(), id, time.Now(), "enough"); err != nil {
					t.Error(err)
				}
			}, store.Canceled, 1, 1, []observed{{store.Canceled, store.ClassOK}},
		},
		"replayed, its next round follows": {
			func(t *testing.T, mem *storetest.Memory, id store.DeliveryID) {
				if _, err := mem.Replay(context.Background(), id, time.Now()); err != nil {
					t.Error(err)
				}
			}, store.Delivered, 2, 2, []observed{{store.Pending, store.ClassOK}, {store.Delivered, store.ClassOK}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := storetest.NewMemory(storetest.MemoryOptions{})
				d := accept(t, mem, "alerts", 0)
				var seen []observed
				calls := 0
				l := &Lane{Name: "alerts", Queue: mem, Sender: slowly(&calls), Concurrency: 4}
				l.Observe = func(_, after store.Delivery, a store.Attempt) { seen = append(seen, observed{after.State, a.Class}) }
				stop := start(t, l)
				time.Sleep(300 * time.Millisecond)
				before := current(t, mem, d.ID)
				tc.steer(t, mem, d.ID)
				l.Wake(before.Cursor())
				if after := current(t, mem, d.ID); !after.State.Ended() {
					l.Wake(after.Cursor())
				}
				time.Sleep(maxSleep / 2)
				if err := stop(); err != nil {
					t.Error(err)
				}
				got := checkState(t, mem, d.ID, tc.state)
				if got.Round != tc.rounds || calls != tc.calls || len(seen) != len(tc.seen) {
					t.Fatalf("got round %d, %d requests and %v observed; want %d, %d and %v", got.Round, calls, seen, tc.rounds, tc.calls, tc.seen)
				}
				for i, want := range tc.seen {
					if seen[i] != want {
						t.Errorf("got %v observed, want %v", seen, tc.seen)
					}
				}
				attempts, err := mem.Attempts(context.Background(), d.ID, 10)
				if err != nil || len(attempts) != tc.calls {
					t.Errorf("got %d attempts on record, error %v; want %d", len(attempts), err, tc.calls)
				}
			})
		})
	}
}
