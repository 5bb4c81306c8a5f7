package lane

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// hanging is a sender whose attempts last, whatever the lane does, and then end as told.
type hanging struct {
	lasts time.Duration
	ends  store.Attempt // but for its start
	begun atomic.Int64
	cut   atomic.Int64 // attempts that ended by their context
}

func (h *hanging) Send(ctx context.Context, _ store.Delivery) store.Attempt {
	a := h.ends
	a.StartedAt = time.Now().UTC().Truncate(time.Millisecond)
	h.begun.Add(1)
	if !sleep(ctx, h.lasts) {
		h.cut.Add(1)
		a.Class = store.ClassInterrupted
	}
	return a
}

// noting is a sender that succeeds at once and notes when.
func noting() (*journal, Sender) {
	j := &journal{begin: time.Now()}
	return j, sendFunc(func(context.Context, store.Delivery) store.Attempt {
		j.add()
		return outcome(store.ClassOK)
	})
}

func TestAChangedLaneGoesOnBesideWhatIsInFlight(t *testing.T) {
	t.Run("what hangs ends by its own settings, and the rest goes by the new ones at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			old := &hanging{lasts: 10 * time.Minute, ends: store.Attempt{Class: store.ClassTimeout}}
			first := accept(t, mem, "alerts", 0)
			l := &Lane{Name: "alerts", Queue: mem, Sender: old, Concurrency: 1, Drain: time.Second, Retry: schedule(t, 0, 0, 0, 2*time.Hour)}
			start(t, l)
			synctest.Wait()
			second := accept(t, mem, "alerts", 0)
			l.Wake(second.Cursor())
			time.Sleep(time.Minute)
			seen, sender := noting()
			if !l.Change(&Lane{Sender: sender, Concurrency: 1, Retry: schedule(t, 0, 0, 0)}, SameReceiver) {
				t.Fatal("a running lane refused a change")
			}
			synctest.Wait()
			checkState(t, mem, second.ID, store.Delivered)
			if got := checkState(t, mem, first.ID, store.Pending); got.Made != 0 {
				t.Errorf("got %d attempts on record of the delivery in flight, want none yet", got.Made)
			}
			time.Sleep(9*time.Minute + time.Second)
			want := first.AcceptedAt.Add(10*time.Minute + 2*time.Hour)
			if got := checkState(t, mem, first.ID, store.Pending); got.Made != 1 || !got.DueAt.Equal(want) {
				t.Errorf("got %d attempts, due at %s; want one, due at %s by the former schedule", got.Made, got.DueAt, want)
			}
			time.Sleep(3 * time.Hour)
			seen.check(t, 0, 9*time.Minute+2*time.Hour)
			checkState(t, mem, first.ID, store.Delivered)
			if old.cut.Load() != 0 {
				t.Error("the attempt in flight was cut off")
			}
		})
	})
	t.Run("a line waits for its head in flight", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			old := &hanging{lasts: 10 * time.Minute, ends: store.Attempt{Class: store.ClassOK}}
			head, behind := acceptInLine(t, mem, "k"), acceptInLine(t, mem, "k")
			l := &Lane{Name: "alerts", Queue: mem, Sender: old}
			start(t, l)
			synctest.Wait()
			seen, sender := noting()
			l.Change(&Lane{Sender: sender}, SameReceiver)
			l.WakeAll()
			time.Sleep(9 * time.Minute)
			seen.check(t)
			time.Sleep(2 * time.Minute)
			seen.check(t, 10*time.Minute)
			checkState(t, mem, head.ID, store.Delivered)
			checkState(t, mem, behind.ID, store.Delivered)
		})
	})
	t.Run("more than the bound in flight hold the next", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			old := &hanging{lasts: 10 * time.Minute, ends: store.Attempt{Class: store.ClassOK}}
			for range maxEarlier + 1 {
				accept(t, mem, "alerts", 0)
			}
			l := &Lane{Name: "alerts", Queue: mem, Sender: old, Concurrency: maxEarlier + 1}
			start(t, l)
			synctest.Wait()
			late := accept(t, mem, "alerts", 0)
			l.Wake(late.Cursor())
			seen, sender := noting()
			l.Change(&Lane{Sender: sender, Concurrency: 1}, SameReceiver)
			time.Sleep(9 * time.Minute)
			seen.check(t)
			time.Sleep(2 * time.Minute)
			checkState(t, mem, late.ID, store.Delivered)
			if got := mem.Pending(); got != 0 || old.begun.Load() != maxEarlier+1 {
				t.Errorf("got %d pending and %d attempts by the former settings, want 0 and %d", got, old.begun.Load(), maxEarlier+1)
			}
		})
	})
	t.Run("a stop cuts both off together", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			senders := make([]*hanging, 5)
			for n := range senders {
				senders[n] = &hanging{lasts: time.Hour, ends: store.Attempt{Class: store.ClassOK}}
			}
			l := &Lane{Name: "alerts", Queue: mem, Sender: senders[0], Concurrency: 1, Drain: 10 * time.Second}
			stop := start(t, l)
			for n, s := range senders {
				if n > 0 {
					l.Change(&Lane{Sender: s, Concurrency: 1}, SameReceiver)
				}
				l.Wake(accept(t, mem, "alerts", 0).Cursor())
				synctest.Wait()
			}
			begin := time.Now()
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took != 10*time.Second {
				t.Errorf("the stop took %s, want the time of Drain, 10s", took)
			}
			for n, s := range senders {
				if s.begun.Load() != 1 || s.cut.Load() != 1 {
					t.Errorf("sender %d: got %d attempts, %d of them cut off; want one, cut off", n, s.begun.Load(), s.cut.Load())
				}
			}
			if l.Change(&Lane{Sender: senders[0]}, SameReceiver) {
				t.Error("a lane that has stopped took a change")
			}
		})
	})
}
