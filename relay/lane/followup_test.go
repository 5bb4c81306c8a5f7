package lane

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// followed is a lane whose failed deliveries are followed by a message to audit.
type followed struct {
	*Lane
	mem *storetest.Memory

	mu   sync.Mutex // guards the fields below
	asks int
	done []store.Recorded
}

func newFollowed(t *testing.T, q store.Queue, mem *storetest.Memory) *followed {
	f := &followed{mem: mem}
	f.Lane = &Lane{
		Name: "alerts", Queue: q,
		Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt { return answer(500) }),
		FollowUp: func(before, after store.Delivery, a store.Attempt) *FollowUp {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.asks++
			if before.State != store.Pending || a.Number != before.Made+1 || a.Delivery != after.ID {
				t.Errorf("asked about %+v, %+v and %+v", before, after, a)
			}
			if after.State != store.Failed {
				return nil
			}
			id, err := store.NewMessageID()
			if err != nil {
				t.Error(err)
			}
			m := store.Message{ID: id, Recipients: []store.Recipient{{Destination: "audit"}}}
			return &FollowUp{Post: store.Post{Message: m, Body: []byte(after.ID.String())}, Done: func(r store.Recorded) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.done = append(f.done, r)
			}}
		},
	}
	return f
}

// audit returns the bodies of what waits for audit.
func (f *followed) audit(t *testing.T) (bodies []string) {
	t.Helper()
	due, err := f.mem.Due(context.Background(), "audit", store.Cursor{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range due {
		_, body, err := f.mem.Load(context.Background(), d.ID.Message())
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, string(body))
	}
	return bodies
}

func TestFollowUps(t *testing.T) {
	run := func(name string, o storetest.MemoryOptions, test func(t *testing.T, q *queue, f *followed)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := storetest.NewMemory(o)
				q := &queue{Memory: mem}
				test(t, q, newFollowed(t, q, mem))
			})
		})
	}
	run("a message follows the record that asks for it, once", storetest.MemoryOptions{}, func(t *testing.T, _ *queue, f *followed) {
		f.Retry = schedule(t, 0, 0, 0, time.Second, time.Second)
		d := accept(t, f.mem, "alerts", 0)
		stop := start(t, f.Lane)
		time.Sleep(time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		checkState(t, f.mem, d.ID, store.Failed)
		if got := f.audit(t); !slices.Equal(got, []string{d.ID.String()}) {
			t.Errorf("got %q, want one message about the delivery", got)
		}
		if f.asks != 3 || len(f.done) != 1 || f.done[0].Refused != nil || f.done[0].Accepted.Message.Recipients[0].Destination != "audit" {
			t.Errorf("got asked %d times and told %+v, want 3 times, and of what was accepted", f.asks, f.done)
		}
	})
	run("a refusal is told, and leaves the record alone", storetest.MemoryOptions{MaxPending: 1}, func(t *testing.T, q *queue, f *followed) {
		d := accept(t, f.mem, "alerts", 0)
		own := f.FollowUp
		f.FollowUp = func(before, after store.Delivery, a store.Attempt) *FollowUp {
			follow := own(before, after, a)
			follow.Post.Message.Recipients = append(follow.Post.Message.Recipients, store.Recipient{Destination: "other"})
			return follow
		}
		stop := start(t, f.Lane)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		checkState(t, f.mem, d.ID, store.Failed)
		if len(f.done) != 1 || !errors.Is(f.done[0].Refused, store.ErrBacklog) || len(f.audit(t)) != 0 {
			t.Errorf("got %+v and %q, want it refused for the backlog", f.done, f.audit(t))
		}
	})
	run("it is there once after a record that is tried again", storetest.MemoryOptions{}, func(t *testing.T, q *queue, f *followed) {
		d := accept(t, f.mem, "alerts", 0)
		tries := 0
		q.follow = func(ctx context.Context, before, after store.Delivery, a store.Attempt, p store.Post) (store.Recorded, error) {
			tries++
			switch tries {
			case 1:
				return store.Recorded{}, errors.New("no")
			case 2: // written, and nobody knows
				_, err := q.Memory.RecordAndAccept(ctx, before, after, a, p)
				return store.Recorded{}, errors.Join(errors.New("no answer"), err)
			}
			return q.Memory.RecordAndAccept(ctx, before, after, a, p)
		}
		stop := start(t, f.Lane)
		time.Sleep(time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		checkState(t, f.mem, d.ID, store.Failed)
		if got := f.audit(t); len(got) != 1 || tries != 3 || f.asks != 1 {
			t.Errorf("got %q after %d tries, asked %d times; want one message after 3, asked once", got, tries, f.asks)
		}
	})
	run("nothing follows what has changed meanwhile", storetest.MemoryOptions{}, func(t *testing.T, _ *queue, f *followed) {
		d := accept(t, f.mem, "alerts", 0)
		f.Sender = sendFunc(func(ctx context.Context, _ store.Delivery) store.Attempt {
			sleep(ctx, time.Second)
			return answer(500)
		})
		stop := start(t, f.Lane)
		synctest.Wait()
		if _, _, err := f.mem.Cancel(context.Background(), d.ID, time.Now(), "by a test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		checkState(t, f.mem, d.ID, store.Canceled)
		if len(f.audit(t)) != 0 || len(f.done) != 0 || f.asks != 1 {
			t.Errorf("got %q, told %+v; want nothing", f.audit(t), f.done)
		}
	})
}

func TestOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMemory(storetest.MemoryOptions{})
		var all []string
		l := &Lane{
			Name: "alerts", Queue: mem, Retry: schedule(t, 0, 0, 0, time.Hour), Breaker: Breaker{Failures: 2}, Concurrency: 1,
			Sender: sendFunc(func(context.Context, store.Delivery) store.Attempt { return outcome(store.ClassConnect) }),
			Opened: func(event string) { all = append(all, event) },
			Outages: noteFunc(func(o store.Outage) {
				if len(all) != 1 {
					t.Errorf("the outage is noted before it is told whose attempt has shown it")
				}
			}),
		}
		for range 5 {
			accept(t, mem, "alerts", 0)
		}
		stop := start(t, l)
		time.Sleep(10 * time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if want := []string{"alert.fired"}; !slices.Equal(all, want) {
			t.Errorf("got %q, want %q: failed probes open nothing", all, want)
		}
	})
}

// noteFunc is an Outages that never fails.
type noteFunc func(store.Outage)

func (f noteFunc) NoteOutage(_ context.Context, _ string, o store.Outage) error {
	f(o)
	return nil
}
