package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
)

// acceptLine accepts n messages of one line.
func acceptLine(tb testing.TB, s *Store, order string, n int) (all []store.Delivery) {
	tb.Helper()
	for range n {
		m := newMessage(tb, "alerts")
		m.Recipients[0].Order = order
		m, _, err := s.Accept(tb.Context(), m, nil)
		mustDo(tb, err)
		all = append(all, m.Delivery(0))
	}
	return all
}

// endDelivery ends a delivery, and returns what that has released.
func endDelivery(tb testing.TB, s *Store, d store.Delivery) store.Delivery {
	tb.Helper()
	after := d
	after.State, after.EndedAt = store.Delivered, time.Now()
	return mustRecord(tb, s, d, after, store.Attempt{})
}

// removeKey deletes a record, as the loss of a part of the log would.
func removeKey(tb testing.TB, s *Store, key []byte) {
	tb.Helper()
	mustDo(tb, s.db.Update(func(txn *badger.Txn) error { return txn.Delete(key) }))
}

func TestDamagedHead(t *testing.T) {
	t.Run("a head that cannot be read is passed over, logged once, and its line goes on", func(t *testing.T) {
		core, logs := observer.New(zap.ErrorLevel)
		s := mustOpen(t, Options{Path: t.TempDir(), Log: zap.New(core)})
		all := acceptLine(t, s, "a", 3)
		other := acceptLine(t, s, "b", 2)
		spoil(t, s, queueKey("alerts", all[0].Cursor()))
		spoil(t, s, messageKey(all[0].ID.Message()))
		for range 3 {
			due := mustDueAll(t, s)
			if len(due) != 2 || due[0] != all[1] || due[1] != other[0] {
				t.Fatalf("Due: got %+v, want the second of the line, and the other line", due)
			}
		}
		if got := logs.Len(); got != 2 {
			t.Errorf("got %d log lines, want one of the record and one of the line: %v", got, logs.All())
		}
		if got := endDelivery(t, s, all[1]); got != all[2] {
			t.Errorf("released: got %+v, want the third", got)
		}
		if got := s.Pending(); got != 4 {
			t.Errorf("pending: got %d, want 4 with the damaged one", got)
		}
	})
	t.Run("one without anybody behind lets the next begin the line", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		d := acceptLine(t, s, "a", 1)[0]
		spoil(t, s, queueKey("alerts", d.Cursor()))
		spoil(t, s, messageKey(d.ID.Message()))
		if got := mustDueAll(t, s); len(got) != 0 {
			t.Fatalf("Due: got %+v, want none", got)
		}
		next := acceptLine(t, s, "a", 1)[0]
		if got := mustDue(t, s); got != next {
			t.Errorf("Due: got %+v, want %+v", got, next)
		}
	})
	t.Run("below half of the reserve it waits, and is not forgotten", func(t *testing.T) {
		free := int64(1 << 40)
		s := mustOpen(t, Options{Path: t.TempDir(), free: func(string) (int64, error) { return free, nil }})
		all := acceptLine(t, s, "a", 2)
		spoil(t, s, queueKey("alerts", all[0].Cursor()))
		spoil(t, s, messageKey(all[0].ID.Message()))
		free = s.reserve/2 - 1
		if got := mustDueAll(t, s); len(got) != 0 {
			t.Errorf("Due: got %+v, want none", got)
		}
		free = 1 << 40
		if got := mustDueAll(t, s); len(got) != 1 || got[0] != all[1] {
			t.Errorf("Due: got %+v, want the next of the line", got)
		}
	})
	t.Run("more of them than a group takes are all passed over", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		want := make(map[store.DeliveryID]bool)
		for n := range 3 * mendGroup {
			all := acceptLine(t, s, fmt.Sprint(n), 2)
			want[all[1].ID] = true
			spoil(t, s, queueKey("alerts", all[0].Cursor()))
			spoil(t, s, messageKey(all[0].ID.Message()))
		}
		for _, d := range mustDueAll(t, s) {
			delete(want, d.ID)
		}
		if len(want) != 0 {
			t.Errorf("%d are not due, want all", len(want))
		}
	})
}

func TestMendLines(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(tb testing.TB, s *Store, all []store.Delivery, line []byte)
		want []int // who comes, in this order
	}{
		"nothing is lost": {func(testing.TB, *Store, []store.Delivery, []byte) {}, []int{0, 1, 2}},
		"the head's queue entry is lost": {func(tb testing.TB, s *Store, all []store.Delivery, _ []byte) {
			removeKey(tb, s, queueKey("alerts", all[0].Cursor()))
		}, []int{0, 1, 2}},
		"the head is lost": {func(tb testing.TB, s *Store, all []store.Delivery, _ []byte) {
			removeKey(tb, s, queueKey("alerts", all[0].Cursor()))
			removeKey(tb, s, messageKey(all[0].ID.Message()))
		}, []int{1, 2}},
		"the head's message is lost": {func(tb testing.TB, s *Store, all []store.Delivery, _ []byte) {
			removeKey(tb, s, messageKey(all[0].ID.Message()))
		}, []int{0, 1, 2}},
		"the line's record is lost": {func(tb testing.TB, s *Store, _ []store.Delivery, line []byte) {
			removeKey(tb, s, line)
		}, []int{0, 1, 2}},
		"the line's record is damaged": {func(tb testing.TB, s *Store, _ []store.Delivery, line []byte) {
			spoil(tb, s, line)
		}, []int{0, 1, 2}},
		"the head and the line's record are lost": {func(tb testing.TB, s *Store, all []store.Delivery, line []byte) {
			removeKey(tb, s, queueKey("alerts", all[0].Cursor()))
			removeKey(tb, s, line)
		}, []int{1, 2}},
		"a place is lost with the head": {func(tb testing.TB, s *Store, all []store.Delivery, line []byte) {
			removeKey(tb, s, queueKey("alerts", all[0].Cursor()))
			removeKey(tb, s, messageKey(all[0].ID.Message()))
			removeKey(tb, s, waitingKey(line, 2))
		}, []int{2}},
	} {
		t.Run(name+": the next start makes the line go on", func(t *testing.T) {
			path := t.TempDir()
			s := mustOpen(t, Options{Path: path})
			all := acceptLine(t, s, "a", 3)
			acceptLine(t, s, "b", 2)
			c.lose(t, s, all, lineKey(kindLine, "alerts", "a"))
			mustDo(t, s.Close())
			s = mustOpen(t, Options{Path: path})
			for n, i := range c.want {
				due := mustDueAll(t, s)
				if len(due) != 2 || due[0] != all[i] {
					t.Fatalf("Due: got %+v, want delivery %d and the other line", due, i)
				}
				var next store.Delivery
				if n+1 < len(c.want) {
					next = all[c.want[n+1]]
				}
				if got := endDelivery(t, s, due[0]); got != next {
					t.Errorf("released: got %+v, want %+v", got, next)
				}
			}
			if next := acceptLine(t, s, "a", 1)[0]; endDelivery(t, s, next) != (store.Delivery{}) {
				t.Error("somebody is still in the line")
			}
		})
	}
	t.Run("a line that is blocked stays so, whatever else is lost of it", func(t *testing.T) {
		for _, lost := range []string{"nothing", "line", "note"} {
			path := t.TempDir()
			s := mustOpen(t, Options{Path: path})
			all := acceptLine(t, s, "a", 2)
			after := all[0]
			after.State, after.EndedAt, after.Blocking = store.Failed, time.Now(), true
			mustRecord(t, s, all[0], after, store.Attempt{})
			switch lost {
			case "line":
				removeKey(t, s, lineKey(kindLine, "alerts", "a"))
			case "note":
				removeKey(t, s, lineKey(kindBlocked, "alerts", "a"))
			}
			mustDo(t, s.Close())
			s = mustOpen(t, Options{Path: path})
			if got := mustDueAll(t, s); len(got) != 0 {
				t.Errorf("without %s: Due: got %+v, want none", lost, got)
			}
			if n, err := s.Release(t.Context(), "alerts", 10); n != 1 || err != nil {
				t.Errorf("without %s: Release: %d, error %v; want 1", lost, n, err)
			}
			if got := mustDueAll(t, s); len(got) != 1 || got[0] != all[1] {
				t.Errorf("without %s: Due: got %+v, want the next", lost, got)
			}
		}
	})
	t.Run("a start that accepts a loss counts what it puts back", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path})
		all := acceptLine(t, s, "a", 3)
		removeKey(t, s, queueKey("alerts", all[0].Cursor()))
		removeKey(t, s, commitKey(s.seq))
		mustDo(t, s.Close())
		openDamaged(t, path)
		s = mustOpen(t, Options{Path: path, AcceptLoss: true})
		if got := s.Pending(); got != 3 {
			t.Errorf("pending: got %d, want 3", got)
		}
		if got := mustDue(t, s); got != all[0] {
			t.Errorf("Due: got %+v, want the head", got)
		}
	})
}

func TestPassedPlaces(t *testing.T) {
	for name, damaged := range map[string]uint64{"last": 3, "middle": 2} {
		t.Run("nobody gets the place of a damaged delivery, the "+name+" of its line", func(t *testing.T) {
			s := mustOpen(t, Options{Path: t.TempDir()})
			all := acceptLine(t, s, "a", 3)
			key := lineKey(kindLine, "alerts", "a")
			spoil(t, s, waitingKey(key, damaged))
			for next := all[0]; next != (store.Delivery{}); {
				next = endDelivery(t, s, next)
			}
			more := acceptLine(t, s, "a", 4)
			for i, d := range more {
				want := store.Delivery{}
				if i+1 < len(more) {
					want = more[i+1]
				}
				if got := endDelivery(t, s, d); got != want {
					t.Errorf("behind %d: got %+v, want %+v", i, got, want)
				}
			}
			_, counted, err := countPending(s.db)
			if err != nil || counted != 1 || s.Pending() != 1 {
				t.Errorf("pending: got %d, counted %d, error %v; want the damaged one", s.Pending(), counted, err)
			}
		})
	}
}

func TestReleaseLarge(t *testing.T) {
	t.Run("lines whose deliveries are as large as can be are released in several groups", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		reason := string(make([]byte, maxDelivery-1000))
		const lines = 40
		for n := range lines {
			d := acceptLine(t, s, fmt.Sprint(n), 1)[0]
			next := newMessage(t, "alerts")
			next.Event, next.Recipients[0].Order = reason, d.Order
			_, _, err := s.Accept(t.Context(), next, nil)
			mustDo(t, err)
			after := d
			after.State, after.EndedAt, after.Blocking, after.Reason = store.Failed, time.Now(), true, reason
			mustRecord(t, s, d, after, store.Attempt{})
		}
		seq := s.seq
		if n, err := s.Release(t.Context(), "alerts", 1000); n != lines || err != nil {
			t.Errorf("Release: %d, error %v; want %d", n, err, lines)
		}
		if s.seq < seq+2 {
			t.Errorf("got %d commits, want several", s.seq-seq)
		}
	})
}

func TestSweepOfTheLargest(t *testing.T) {
	t.Run("a message with as many deliveries and chunks as can be is swept behind others", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		few := newMessage(t, longNames(sweepKeys/4-100)...)
		ended := time.Now()
		endAll(t, s, few, 0, ended)
		endAll(t, s, largestMessage(t), maxChunks*chunkSize, ended)
		n, _, err := s.Sweep(t.Context(), ended.Add(time.Hour), 10_000)
		if n != 2 || err != nil {
			t.Errorf("Sweep: %d, error %v; want both", n, err)
		}
		if got := keysIn(t, s); len(got) != 0 {
			t.Errorf("keys: %v, want none", got)
		}
	})
	t.Run("a kill in the middle of it leaves a message that can be replayed and is swept", func(t *testing.T) {
		var commits atomic.Int64
		first, err := Open(Options{Path: t.TempDir(), commit: func(txn *badger.Txn) error {
			if commits.Add(-1) == 0 {
				return errors.New("no more")
			}
			return txn.Commit()
		}})
		mustDo(t, err)
		m, ended := largestMessage(t), time.Now()
		endAll(t, first, m, 0, ended)
		commits.Store(3)
		if _, _, err := first.Sweep(t.Context(), ended.Add(time.Hour), 10_000); !errors.Is(err, store.ErrBroken) {
			t.Fatalf("Sweep: got error %v, want ErrBroken at the third group", err)
		}
		dead := snapshot(t, first.path)
		mustDo(t, first.Close())
		t.Cleanup(func() { mustDo(t, first.db.Close()) })
		s := mustOpen(t, Options{Path: dead})
		keys := keysIn(t, s)
		if n := len(m.Recipients); keys["x"] >= 2*n || keys["m"] != 1 || keys["d"] != n || keys["e"] != n {
			t.Fatalf("keys: %v, want some of the indexes gone, and all the rest", keys)
		}
		d, err := s.Replay(t.Context(), m.ID.Delivery(len(m.Recipients)/2), ended)
		mustDo(t, err)
		found, _, err := s.Deliveries(t.Context(), store.Filter{Destination: d.Destination}, store.Place{}, 10)
		if err != nil || len(found) != 1 || found[0] != d {
			t.Errorf("found %+v, error %v; want what is replayed", found, err)
		}
		if n, _, err := s.Sweep(t.Context(), ended.Add(time.Hour), 10_000); n != 0 || err != nil {
			t.Errorf("Sweep while one is pending: %d, error %v; want none", n, err)
		}
		mustRecord(t, s, d, deliver(d, ended), store.Attempt{})
		if n, _, err := s.Sweep(t.Context(), ended.Add(time.Hour), 10_000); n != 1 || err != nil {
			t.Errorf("Sweep: %d, error %v; want it", n, err)
		}
		if got := keysIn(t, s); len(got) != 0 {
			t.Errorf("keys: %v, want none", got)
		}
	})
	t.Run("a replay does not come between its groups", func(t *testing.T) {
		var replays chan *request
		var s *Store
		s = mustOpen(t, Options{Path: t.TempDir(), commit: func(txn *badger.Txn) error {
			err := txn.Commit()
			if r := replays; r != nil { // behind the first group
				replays = nil
				s.requests <- <-r
			}
			return err
		}})
		m, ended := largestMessage(t), time.Now()
		endAll(t, s, m, 0, ended)
		asked := &request{size: 1, entries: 1, done: make(chan error, 1), stage: func(g *group) error {
			_, err := readDelivery(g.txn, m.ID.Delivery(0))
			return err
		}}
		replays = make(chan *request, 1)
		replays <- asked
		if n, _, err := s.Sweep(t.Context(), ended.Add(time.Hour), 10_000); n != 1 || err != nil {
			t.Fatalf("Sweep: %d, error %v; want it", n, err)
		}
		if err := <-asked.done; !errors.Is(err, store.ErrNotFound) {
			t.Errorf("asked for between: got error %v, want ErrNotFound", err)
		}
	})
}

// longNames returns n names of destinations that are as long as can be.
func longNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("d%099d", i)
	}
	return names
}

// largestMessage has as many recipients as a message can have, and all that it can stand under.
func largestMessage(tb testing.TB) store.Message {
	tb.Helper()
	m := newMessage(tb, longNames(store.MaxDeliveries)...)
	m.Idempotency = &store.Idempotency{}
	return m
}

// endAll accepts a message with a body of some size, and ends its deliveries without an attempt, so that each stands in an
// index by state too.
func endAll(tb testing.TB, s *Store, m store.Message, size int, ended time.Time) {
	tb.Helper()
	m, _, err := s.Accept(tb.Context(), m, make([]byte, size))
	mustDo(tb, err)
	errs := make(chan error, 1)
	for n := range m.Recipients {
		go func() {
			_, err := s.Record(context.Background(), m.Delivery(n), deliver(m.Delivery(n), ended), store.Attempt{})
			errs <- err
		}()
	}
	for range m.Recipients {
		mustDo(tb, <-errs)
	}
}

func TestSweepGetsFurther(t *testing.T) {
	t.Run("a call that deletes nothing gets further all the same", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		ended := time.Now().Add(-time.Hour)
		const stuck, limit = 25, 10
		for n := range stuck + 1 {
			m := newMessage(t, "alerts", "paused")
			if n == stuck {
				m.Recipients = m.Recipients[:1]
			}
			m, _, err := s.Accept(t.Context(), m, nil)
			mustDo(t, err)
			after := m.Delivery(0)
			after.State, after.EndedAt = store.Delivered, ended.Add(time.Duration(n)*time.Millisecond)
			mustRecord(t, s, m.Delivery(0), after, store.Attempt{})
		}
		deleted, calls := 0, 0
		for more := true; more; calls++ {
			var n int
			var err error
			n, more, err = s.Sweep(t.Context(), time.Now(), limit)
			if err != nil || calls > stuck {
				t.Fatalf("after %d calls: error %v", calls, err)
			}
			deleted += n
		}
		if deleted != 1 || calls != 3 {
			t.Errorf("deleted %d in %d calls, want the last message in 3", deleted, calls)
		}
	})
}
