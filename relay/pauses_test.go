package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// slowPauser is a store.Pauser that asks before it changes something.
type slowPauser struct {
	store.Pauser
	ask func(what string) error // nil lets everything pass
}

func (s *slowPauser) Pause(ctx context.Context, destination string, p store.Pause) error {
	if s.ask != nil {
		if err := s.ask("pause"); err != nil {
			return err
		}
	}
	return s.Pauser.Pause(ctx, destination, p)
}

func (s *slowPauser) Resume(ctx context.Context, destination string) error {
	if s.ask != nil {
		if err := s.ask("resume"); err != nil {
			return err
		}
	}
	return s.Pauser.Resume(ctx, destination)
}

// goneSender answers as a receiver that is gone.
type goneSender struct{}

func (goneSender) Send(context.Context, store.Delivery) store.Attempt {
	return store.Attempt{Class: store.ClassStatus, Status: 410, StartedAt: time.Now()}
}

// slowGone is a goneSender that takes a second.
type slowGone struct{ goneSender }

func (s slowGone) Send(ctx context.Context, d store.Delivery) store.Attempt {
	time.Sleep(time.Second)
	return s.goneSender.Send(ctx, d)
}

// pauseTest is a lane of the destination alerts, whose receiver is gone, and its pauses.
type pauseTest struct {
	*testing.T
	mem    *storetest.Memory
	pauser *slowPauser
	lane   *lane.Lane
	pauses *pauses
	now    atomic.Pointer[lane.Lane] // that runs for alerts
}

func newPauseTest(t *testing.T) *pauseTest {
	mem := storetest.NewMemory(storetest.MemoryOptions{})
	pt := &pauseTest{T: t, mem: mem, pauser: &slowPauser{Pauser: mem}}
	pt.lane = &lane.Lane{Name: "alerts", Queue: mem, Sender: goneSender{}, Concurrency: 1}
	pt.pauses = &pauses{Store: pt.pauser, Lane: func(destination string) *lane.Lane {
		if destination == "alerts" {
			return pt.now.Load()
		}
		return nil
	}}
	pt.now.Store(pt.lane)
	pt.lane.Pauses = pt.pauses.keeper(pt.lane)
	return pt
}

// run runs the lane until the test ends.
func (pt *pauseTest) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := pt.lane.Run(ctx); err != nil {
			pt.Errorf("Run: %v", err)
		}
	})
	pt.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// post accepts a message for the lane, which will be answered with 410.
func (pt *pauseTest) post() {
	pt.Helper()
	id, err := store.NewMessageID()
	if err != nil {
		pt.Fatal(err)
	}
	m, _, err := pt.mem.Accept(context.Background(), store.Message{ID: id, Recipients: []store.Recipient{{Destination: "alerts"}}}, nil)
	if err != nil {
		pt.Fatal(err)
	}
	pt.lane.Wake(m.Delivery(0).Cursor())
}

// check wants store and lane to say the same, and returns what they say.
func (pt *pauseTest) check(l *lane.Lane) *store.Pause {
	pt.Helper()
	all, err := pt.mem.Paused(context.Background())
	if err != nil {
		pt.Fatal(err)
	}
	var kept *store.Pause
	if p, ok := all["alerts"]; ok {
		kept = &p
	}
	if got := l.Stats().Paused; !reflect.DeepEqual(got, kept) {
		pt.Errorf("got a lane paused by %+v, want what the store has, %+v", got, kept)
	}
	return kept
}

func (pt *pauseTest) checkReason(l *lane.Lane, want string) {
	pt.Helper()
	got := pt.check(l)
	switch {
	case want == "" && got != nil:
		pt.Errorf("got paused: %s, want not paused", got.Reason)
	case want != "" && (got == nil || got.Reason != want):
		pt.Errorf("got pause %+v, want one: %s", got, want)
	}
}

const goneReason = "the receiver answered 410 Gone"

func note(reason string) store.Pause {
	return store.Pause{At: time.Now().UTC().Truncate(time.Millisecond), Reason: reason}
}

func TestPauses(t *testing.T) {
	ctx := context.Background()
	run := func(name string, test func(pt *pauseTest)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(newPauseTest(t)) })
		})
	}
	// during does something while the store is asked to do what, which takes a second. The returned func waits for it.
	during := func(pt *pauseTest, what string, do func()) (wait func()) {
		pt.Helper()
		var once atomic.Bool
		asked, goOn := make(chan struct{}), make(chan struct{})
		pt.pauser.ask = func(w string) error {
			if w == what && once.CompareAndSwap(false, true) {
				close(asked)
				<-goOn
			}
			return nil
		}
		var doing sync.WaitGroup
		doing.Go(func() {
			<-asked
			do()
		})
		doing.Go(func() {
			<-asked
			time.Sleep(time.Second)
			close(goOn)
		})
		return doing.Wait
	}

	run("what a person asks for is in the store and in the lane", func(pt *pauseTest) {
		pt.run()
		if err := pt.pauses.Pause(ctx, "alerts", note("maintenance")); err != nil {
			pt.Fatal(err)
		}
		pt.checkReason(pt.lane, "maintenance")
		if err := pt.pauses.Pause(ctx, "alerts", note("again")); err != nil {
			pt.Fatal(err)
		}
		pt.checkReason(pt.lane, "maintenance")
		if err := pt.pauses.Resume(ctx, "alerts"); err != nil {
			pt.Fatal(err)
		}
		pt.checkReason(pt.lane, "")
	})
	run("a 410 is in the store and in the lane", func(pt *pauseTest) {
		pt.run()
		pt.post()
		synctest.Wait()
		pt.checkReason(pt.lane, goneReason)
	})
	run("a resume while the pause of a 410 is being written comes after it", func(pt *pauseTest) {
		wait := during(pt, "pause", func() {
			if err := pt.pauses.Resume(ctx, "alerts"); err != nil {
				pt.Errorf("Resume: %v", err)
			}
		})
		pt.run()
		pt.post()
		wait()
		pt.checkReason(pt.lane, "")
	})
	run("a 410 that comes during a resume is ended by it", func(pt *pauseTest) {
		wait := during(pt, "resume", pt.post)
		pt.run()
		if err := pt.pauses.Resume(ctx, "alerts"); err != nil {
			pt.Fatal(err)
		}
		wait()
		synctest.Wait()
		pt.checkReason(pt.lane, "")
		if got := pt.lane.Stats().Failed; got != 1 {
			pt.Errorf("got %d failed, want the one that was answered 410", got)
		}
	})
	run("a pause asked for while that of a 410 is not kept yet keeps the reason of the 410", func(pt *pauseTest) {
		failing := true
		pt.pauser.ask = func(string) error {
			if failing {
				return store.ErrNoSpace
			}
			return nil
		}
		pt.run()
		pt.post()
		synctest.Wait()
		failing = false
		if err := pt.pauses.Pause(ctx, "alerts", note("maintenance")); err != nil {
			pt.Fatal(err)
		}
		pt.checkReason(pt.lane, goneReason)
		time.Sleep(time.Minute)
		pt.checkReason(pt.lane, goneReason)
	})
	run("a 410 that comes while a pause is being written has the reason of that", func(pt *pauseTest) {
		var once atomic.Bool
		pt.lane.Sender = slowGone{}
		pt.pauser.ask = func(string) error {
			if once.CompareAndSwap(false, true) {
				time.Sleep(2 * time.Second)
			}
			return nil
		}
		pt.run()
		pt.post() // its answer comes in a second
		synctest.Wait()
		if err := pt.pauses.Pause(ctx, "alerts", note("maintenance")); err != nil {
			pt.Fatal(err)
		}
		synctest.Wait()
		pt.checkReason(pt.lane, "maintenance")
		if got := pt.lane.Stats().Failed; got != 1 {
			pt.Errorf("got %d failed, want the one that was answered 410", got)
		}
	})
	run("a store that fails leaves the lane as it is", func(pt *pauseTest) {
		pt.pauser.ask = func(string) error { return store.ErrBroken }
		if err := pt.pauses.Pause(ctx, "alerts", note("maintenance")); !errors.Is(err, store.ErrBroken) {
			pt.Errorf("Pause: got error %v, want ErrBroken", err)
		}
		pt.checkReason(pt.lane, "")
		pt.pauser.ask = nil
		if err := pt.pauses.Pause(ctx, "alerts", note("maintenance")); err != nil {
			pt.Fatal(err)
		}
		pt.pauser.ask = func(string) error { return store.ErrBroken }
		if err := pt.pauses.Resume(ctx, "alerts"); !errors.Is(err, store.ErrBroken) {
			pt.Errorf("Resume: got error %v, want ErrBroken", err)
		}
		pt.checkReason(pt.lane, "maintenance")
	})
	run("a lane that is replaced while its 410 is on its way has its successor paused", func(pt *pauseTest) {
		successor := &lane.Lane{Name: "alerts"}
		wait := during(pt, "pause", func() { pt.now.Store(successor) })
		pt.run()
		pt.post()
		wait()
		synctest.Wait()
		pt.checkReason(pt.lane, goneReason)
		pt.checkReason(successor, goneReason)
	})
	run("a destination without a lane is paused in the store", func(pt *pauseTest) {
		if err := pt.pauses.Pause(ctx, "audit", note("maintenance")); err != nil {
			pt.Fatal(err)
		}
		if all, err := pt.mem.Paused(ctx); err != nil || all["audit"].Reason != "maintenance" {
			pt.Errorf("got pauses %v (%v), want that of audit", all, err)
		}
		if err := pt.pauses.Resume(ctx, "audit"); err != nil {
			pt.Fatal(err)
		}
		if all, err := pt.mem.Paused(ctx); err != nil || len(all) != 0 {
			pt.Errorf("got pauses %v (%v), want none", all, err)
		}
	})
	run("a change waits for another no longer than it may, and not for that of another destination", func(pt *pauseTest) {
		var results [3]error
		var took [3]time.Duration
		wait := during(pt, "pause", func() {
			begin := time.Now()
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			results[0] = pt.pauses.Pause(short, "alerts", note("in vain"))
			results[1] = pt.pauses.Resume(short, "alerts")
			results[2] = pt.pauses.Resume(ctx, "audit")
			took[2] = time.Since(begin)
		})
		if err := pt.pauses.Pause(ctx, "alerts", note("maintenance")); err != nil {
			pt.Fatal(err)
		}
		wait()
		for _, err := range results[:2] {
			if !errors.Is(err, context.DeadlineExceeded) {
				pt.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
			}
		}
		if results[2] != nil || took[2] != time.Millisecond {
			pt.Errorf("got error %v after %s, want none after 1ms", results[2], took[2])
		}
		pt.checkReason(pt.lane, "maintenance")
	})
}

func TestPausesAgreeAfterManyChangesAtOnce(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			pt := newPauseTest(t)
			rng := rand.New(rand.NewPCG(seed, 0))
			var mu sync.Mutex
			random := func(n int) time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(rng.IntN(n)) * time.Millisecond
			}
			pt.pauser.ask = func(string) error {
				time.Sleep(random(20))
				return nil
			}
			pt.run()
			var all sync.WaitGroup
			for n := range 12 {
				all.Go(func() {
					for i := range 20 {
						time.Sleep(random(40))
						var err error
						switch n % 3 {
						case 0:
							err = pt.pauses.Pause(context.Background(), "alerts", note(fmt.Sprint(n, i)))
						case 1:
							err = pt.pauses.Resume(context.Background(), "alerts")
						default:
							pt.post()
						}
						if err != nil {
							t.Errorf("got error %v, want none", err)
						}
					}
				})
			}
			all.Wait()
			time.Sleep(time.Minute)
			pt.check(pt.lane)
			for range 240 { // each of those left is answered 410, and pauses
				if err := pt.pauses.Resume(context.Background(), "alerts"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				pt.check(pt.lane)
			}
			if got := pt.mem.Pending(); got != 0 {
				t.Errorf("got %d pending, want 0", got)
			}
		})
	}
}

func TestRetryNoneKeepsItsMaximumAge(t *testing.T) {
	c := &compiler{}
	s := c.schedule("retry", config.Retry{None: true, MaxAge: config.Duration(time.Hour)})
	if s.Attempts() != 1 || s.First() != 0 || s.MaxAge() != time.Hour {
		t.Errorf("got %d attempts, the first after %s, at most %s after it; want 1, at once, 1h", s.Attempts(), s.First(), s.MaxAge())
	}
}
