package lane

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// sendFunc is a Sender without a network.
type sendFunc func(ctx context.Context, d store.Delivery) store.Attempt

func (f sendFunc) Send(ctx context.Context, d store.Delivery) store.Attempt { return f(ctx, d) }

// outcome returns an attempt that began at the current time.
func outcome(c store.Class) store.Attempt {
	return store.Attempt{Class: c, StartedAt: time.Now().UTC().Truncate(time.Millisecond)}
}

// sleep waits for d, or reports false when ctx has ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// queue is a store whose Due, Record and RecordAndAccept can be made to misbehave.
type queue struct {
	*storetest.Memory
	due    func(ctx context.Context, after store.Cursor, limit int) ([]store.Delivery, error)
	record func(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error)
	follow func(ctx context.Context, before, after store.Delivery, a store.Attempt, p store.Post) (store.Recorded, error)
}

func (q *queue) Due(ctx context.Context, destination string, after store.Cursor, limit int) ([]store.Delivery, error) {
	if q.due != nil {
		return q.due(ctx, after, limit)
	}
	return q.Memory.Due(ctx, destination, after, limit)
}

func (q *queue) Record(ctx context.Context, before, after store.Delivery, a store.Attempt) (store.Delivery, error) {
	if q.record != nil {
		return q.record(ctx, before, after, a)
	}
	return q.Memory.Record(ctx, before, after, a)
}

func (q *queue) RecordAndAccept(ctx context.Context, before, after store.Delivery, a store.Attempt, p store.Post) (store.Recorded, error) {
	if q.follow != nil {
		return q.follow(ctx, before, after, a, p)
	}
	return q.Memory.RecordAndAccept(ctx, before, after, a, p)
}

// accept stores a message for a destination, accepted now, and returns its delivery. It wakes nobody.
func accept(t testing.TB, s store.Acceptor, destination string, delay time.Duration) store.Delivery {
	t.Helper()
	return acceptAt(t, s, destination, time.Now(), delay)
}

func acceptAt(t testing.TB, s store.Acceptor, destination string, at time.Time, delay time.Duration) store.Delivery {
	t.Helper()
	return acceptFor(t, s, at, store.Recipient{Destination: destination, Delay: delay})
}

// acceptFor stores a message for one recipient.
func acceptFor(t testing.TB, s store.Acceptor, at time.Time, to store.Recipient) store.Delivery {
	t.Helper()
	id, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := s.Accept(context.Background(), store.Message{
		ID: id, Event: "alert.fired", AcceptedAt: at.UTC().Truncate(time.Millisecond), Size: 2,
		Recipients: []store.Recipient{to},
	}, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	return m.Delivery(0)
}

// answer returns an attempt that was answered with a status that is no success.
func answer(status int) store.Attempt {
	a := outcome(store.ClassStatus)
	a.Status = status
	return a
}

// start runs a lane until stop is called, or the test ends. stop returns what Run returned.
func start(t testing.TB, l *Lane) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	var done sync.WaitGroup
	done.Go(func() { err = l.Run(ctx) })
	stop = func() error {
		cancel()
		done.Wait()
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// current returns the delivery as it is stored.
func current(t testing.TB, s store.History, id store.DeliveryID) store.Delivery {
	t.Helper()
	d, err := s.Delivery(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func checkState(t testing.TB, s store.History, id store.DeliveryID, want store.State) store.Delivery {
	t.Helper()
	d := current(t, s, id)
	if d.State != want {
		t.Errorf("got %s (%q), want %s", d.State, d.Reason, want)
	}
	return d
}

// journal notes when attempts were made.
type journal struct {
	mu    sync.Mutex
	times []time.Duration // since the journal began
	begin time.Time
}

func (j *journal) add() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.times = append(j.times, time.Since(j.begin))
}

func (j *journal) all() []time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]time.Duration(nil), j.times...)
}

func (j *journal) check(t testing.TB, want ...time.Duration) {
	t.Helper()
	if got := j.all(); !slices.Equal(got, want) {
		t.Errorf("got attempts at %v, want %v", got, want)
	}
}
