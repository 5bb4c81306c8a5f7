package lane

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func TestWhatEndsByTheSettingsItWasBegunWith(t *testing.T) {
	t.Run("410 of an earlier attempt fails the delivery and does not pause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			old := &hanging{lasts: time.Minute, ends: store.Attempt{Class: store.ClassStatus, Status: 410}}
			first := accept(t, mem, "alerts", 0)
			l := &Lane{Name: "alerts", Queue: mem, Sender: old, Pauses: mem}
			start(t, l)
			synctest.Wait()
			_, sender := noting()
			l.Change(&Lane{Sender: sender}, SameReceiver)
			time.Sleep(2 * time.Minute)
			checkState(t, mem, first.ID, store.Failed)
			paused, err := mem.Paused(context.Background())
			if err != nil || len(paused) != 0 || l.Stats().Paused != nil {
				t.Errorf("got pauses %v (%v) and %v of the lane, want none", paused, err, l.Stats().Paused)
			}
		})
	})
	t.Run("a failed head blocks as its settings say", func(t *testing.T) {
		for _, block := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				mem := storetest.NewMemory(storetest.MemoryOptions{})
				old := &hanging{lasts: time.Minute, ends: store.Attempt{Class: store.ClassTimeout}}
				head := acceptInLine(t, mem, "k")
				l := &Lane{Name: "alerts", Queue: mem, Sender: old, BlockOnFailure: block}
				start(t, l)
				synctest.Wait()
				_, sender := noting()
				l.Change(&Lane{Sender: sender, BlockOnFailure: !block}, SameReceiver)
				time.Sleep(2 * time.Minute)
				if got := checkState(t, mem, head.ID, store.Failed).Blocking; got != block {
					t.Errorf("got blocking %t, want %t", got, block)
				}
			})
		}
	})
}

func TestRetire(t *testing.T) {
	t.Run("what is in flight ends in its own time, and nothing else begins", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			old := &hanging{lasts: 10 * time.Minute, ends: store.Attempt{Class: store.ClassTimeout}}
			first := accept(t, mem, "alerts", 0)
			l := &Lane{Name: "alerts", Queue: mem, Sender: old, Concurrency: 4, Drain: time.Second, Retry: schedule(t, 0, 0, 0, time.Second)}
			begin := time.Now()
			ended := make(chan time.Duration, 1)
			go func() {
				if err := l.Run(context.Background()); err != nil {
					t.Errorf("got error %v from Run, want none", err)
				}
				ended <- time.Since(begin)
			}()
			synctest.Wait()
			l.Retire()
			l.Wake(accept(t, mem, "alerts", 0).Cursor())
			if got := <-ended; got != 10*time.Minute {
				t.Errorf("Run ended after %s, want the end of the attempt in flight, 10m0s", got)
			}
			if got := checkState(t, mem, first.ID, store.Pending); got.Made != 1 || got.Attempts != 1 {
				t.Errorf("got %d attempts, %d used up; want one, used up", got.Made, got.Attempts)
			}
			if old.begun.Load() != 1 || old.cut.Load() != 0 {
				t.Errorf("got %d attempts, %d of them cut off; want one, not cut off", old.begun.Load(), old.cut.Load())
			}
			if l.Change(&Lane{Sender: old}, SameReceiver) {
				t.Error("a lane that is over took a change")
			}
		})
	})
	t.Run("an idle lane is over at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := &Lane{Name: "alerts", Queue: storetest.NewMemory(storetest.MemoryOptions{}), Sender: &hanging{}}
			l.Retire()
			begin := time.Now()
			if err := l.Run(context.Background()); err != nil || time.Since(begin) != 0 {
				t.Errorf("got %v after %s, want nil at once", err, time.Since(begin))
			}
		})
	})
	t.Run("a change brings it back, and it knows what is in flight", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			old := &hanging{lasts: 10 * time.Minute, ends: store.Attempt{Class: store.ClassTimeout}}
			first := accept(t, mem, "alerts", 0)
			l := &Lane{Name: "alerts", Queue: mem, Sender: old, Retry: schedule(t, 0, 0, 0, time.Second)}
			start(t, l)
			synctest.Wait()
			l.Retire()
			second := accept(t, mem, "alerts", 0)
			l.Wake(second.Cursor())
			time.Sleep(time.Minute)
			checkState(t, mem, second.ID, store.Pending)
			seen, sender := noting()
			if !l.Change(&Lane{Sender: sender}, SameReceiver) {
				t.Fatal("a lane with an attempt in flight refused a change")
			}
			time.Sleep(time.Hour)
			seen.check(t, 0, 9*time.Minute+time.Second)
			checkState(t, mem, first.ID, store.Delivered)
			checkState(t, mem, second.ID, store.Delivered)
		})
	})
	t.Run("a stop bounds it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := storetest.NewMemory(storetest.MemoryOptions{})
			old := &hanging{lasts: 10 * time.Minute}
			accept(t, mem, "alerts", 0)
			l := &Lane{Name: "alerts", Queue: mem, Sender: old, Drain: 3 * time.Second}
			stop := start(t, l)
			synctest.Wait()
			l.Retire()
			synctest.Wait()
			begin := time.Now()
			if err := stop(); err != nil || time.Since(begin) != 3*time.Second || old.cut.Load() != 1 {
				t.Errorf("got %v after %s and %d attempts cut off, want nil after 3s and one", err, time.Since(begin), old.cut.Load())
			}
		})
	})
}
