package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
)

func TestBroken(t *testing.T) {
	t.Run("after a failed commit nobody gets success, and what was acknowledged stays", func(t *testing.T) {
		cause := errors.New("input/output error")
		var failing atomic.Bool
		path := t.TempDir()
		s, err := Open(Options{Path: path, commit: func(txn *badger.Txn) error {
			if failing.Load() {
				return cause
			}
			return txn.Commit()
		}})
		mustDo(t, err)
		fill(t, s, 10, 100)
		failing.Store(true)
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				_, _, err := s.Accept(context.Background(), newMessage(t, "alerts"), nil)
				if !errors.Is(err, store.ErrBroken) || !errors.Is(err, cause) {
					t.Errorf("Accept: got error %v, want ErrBroken with its cause", err)
				}
			})
		}
		all.Wait()
		failing.Store(false)
		select {
		case <-s.Broken():
		default:
			t.Error("Broken is open, want it closed")
		}
		if err := s.Err(); !errors.Is(err, cause) {
			t.Errorf("Err: got %v, want the cause", err)
		}
		if _, _, err := s.Accept(t.Context(), newMessage(t, "alerts"), nil); !errors.Is(err, store.ErrBroken) {
			t.Errorf("Accept when the disk is well again: got error %v, want ErrBroken", err)
		}
		if _, err := s.Due(t.Context(), "alerts", store.Cursor{}, 1); !errors.Is(err, store.ErrBroken) {
			t.Errorf("Due: got error %v, want ErrBroken", err)
		}
		after := snapshot(t, path)
		mustDo(t, s.Close())
		t.Cleanup(func() { mustDo(t, errors.Join(s.Close(), s.db.Close())) }) // Close leaves that to the end of the process
		if got := pendingOf(t, mustOpen(t, Options{Path: after})); got != 10 {
			t.Errorf("pending after: got %d, want 10", got)
		}
	})
}

func TestReserve(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 40)
	o := Options{Path: t.TempDir(), MinFree: 1 << 30, free: func(string) (int64, error) { return free.Load(), nil }}
	s := mustOpen(t, o)
	m := newMessage(t, "alerts")
	_, _, err := s.Accept(t.Context(), m, nil)
	mustDo(t, err)
	t.Run("one byte below it messages are refused", func(t *testing.T) {
		free.Store(1<<30 - 1)
		for _, size := range []int{0, 3 << 20} {
			if _, _, err := s.Accept(t.Context(), newMessage(t, "alerts"), make([]byte, size)); !errors.Is(err, store.ErrNoSpace) {
				t.Errorf("%d bytes: got error %v, want ErrNoSpace", size, err)
			}
		}
	})
	t.Run("a post that is made again gets its first answer below it", func(t *testing.T) {
		free.Store(1 << 40)
		first := newMessage(t)
		first.Idempotency = &store.Idempotency{Key: [32]byte{1}, Content: [32]byte{2}}
		_, _, err := s.Accept(t.Context(), first, nil)
		mustDo(t, err)
		free.Store(1<<30 - 1)
		keys := keysIn(t, s)
		seq := s.seq
		for _, size := range []int{0, 5 << 20} {
			again := newMessage(t)
			again.Idempotency = first.Idempotency
			got, existing, err := s.Accept(t.Context(), again, make([]byte, size))
			if err != nil || !existing || got.ID != first.ID {
				t.Errorf("%d bytes: got %s, existing %t, error %v; want the first message", size, got.ID, existing, err)
			}
			again.Idempotency = &store.Idempotency{Key: [32]byte{1}, Content: [32]byte{3}}
			if _, _, err := s.Accept(t.Context(), again, make([]byte, size)); !errors.Is(err, store.ErrKeyConflict) {
				t.Errorf("%d bytes of another content: got error %v, want ErrKeyConflict", size, err)
			}
		}
		if got := keysIn(t, s); !maps.Equal(got, keys) || s.seq != seq {
			t.Errorf("keys %v at commit %d, want still %v at %d: nothing is written below the reserve", got, s.seq, keys, seq)
		}
	})
	t.Run("a long body is given up when the disk fills meanwhile", func(t *testing.T) {
		asked := 0
		filling := mustOpen(t, Options{Path: t.TempDir(), free: func(string) (int64, error) {
			if asked++; asked > 3 { // the start, and two groups of chunks
				return 0, nil
			}
			return 1 << 40, nil
		}})
		if _, _, err := filling.Accept(t.Context(), newMessage(t, "alerts"), make([]byte, 16<<20)); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("got error %v, want ErrNoSpace", err)
		}
		if got := keysIn(t, filling); len(got) != 0 {
			t.Errorf("keys: %v, want none", got)
		}
	})
	t.Run("deliveries go on below it", func(t *testing.T) {
		due, err := s.Due(t.Context(), "alerts", store.Cursor{}, 1)
		if err != nil || len(due) != 1 {
			t.Fatalf("Due: %d, error %v; want one", len(due), err)
		}
		after := due[0]
		after.State, after.EndedAt = store.Delivered, time.Now()
		mustRecord(t, s, due[0], after, store.Attempt{})
	})
	t.Run("at it messages are taken", func(t *testing.T) {
		free.Store(1 << 30)
		fill(t, s, 1, 1)
	})
	mustDo(t, s.Close())
	t.Run("a store opens below it while that is safe", func(t *testing.T) {
		free.Store(floor / 2)
		s := mustOpen(t, o)
		if _, _, err := s.Accept(t.Context(), newMessage(t, "alerts"), nil); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("got error %v, want ErrNoSpace", err)
		}
		mustDo(t, s.Close())
		free.Store(floor/2 - 1)
		if _, err := Open(o); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("one byte less: got error %v, want ErrNoSpace", err)
		}
	})
	t.Run("free space that cannot be asked for counts as none", func(t *testing.T) {
		asked := 0
		s := mustOpen(t, Options{Path: t.TempDir(), free: func(string) (int64, error) {
			if asked++; asked > 1 {
				return 0, errors.New("stale file handle")
			}
			return 1 << 40, nil
		}})
		if _, _, err := s.Accept(t.Context(), newMessage(t, "alerts"), nil); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("got error %v, want ErrNoSpace", err)
		}
	})
}

// keysIn counts the keys of each kind, without those that are always there.
func keysIn(tb testing.TB, s *Store) map[string]int {
	tb.Helper()
	found := make(map[string]int)
	err := s.db.View(func(txn *view) error {
		scanKeys(txn, nil, nil, func(key []byte) bool {
			if key[0] != kindCommit && key[0] != kindFormat && key[0] != kindSkew {
				found[string(key[:1])]++
			}
			return true
		})
		return nil
	})
	mustDo(tb, err)
	return found
}

func mustRecord(tb testing.TB, s *Store, before, after store.Delivery, a store.Attempt) store.Delivery {
	tb.Helper()
	released, err := s.Record(tb.Context(), before, after, a)
	if err != nil {
		tb.Fatalf("Record: %v", err)
	}
	return released
}

func TestLeftovers(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 5<<20)
	t.Run("a body whose message never came is deleted at the next start", func(t *testing.T) {
		path := t.TempDir()
		commits := 0
		s, err := Open(Options{Path: path, commit: func(txn *badger.Txn) error {
			if commits++; commits == 3 {
				return errors.New("no more")
			}
			return txn.Commit()
		}})
		mustDo(t, err)
		if _, _, err := s.Accept(t.Context(), newMessage(t, "alerts"), long); !errors.Is(err, store.ErrBroken) {
			t.Fatalf("Accept: got error %v, want ErrBroken", err)
		}
		dead := snapshot(t, path)
		if got := keysIn(t, s); got["o"] != 2 || got["b"] == 0 {
			t.Fatalf("keys before: %v, want the head and a part of a batch, and chunks", got)
		}
		mustDo(t, s.Close())
		t.Cleanup(func() { mustDo(t, errors.Join(s.Close(), s.db.Close())) })
		if got := keysIn(t, mustOpen(t, Options{Path: dead})); len(got) != 0 {
			t.Errorf("keys after: %v, want none", got)
		}
	})
	t.Run("a long body that is refused at the last moment leaves nothing", func(t *testing.T) {
		var s *Store
		var once sync.Once
		rival := newMessage(t, "alerts")
		rival.Idempotency = &store.Idempotency{Key: [32]byte{1}, Content: [32]byte{1}}
		s = mustOpen(t, Options{Path: t.TempDir(), commit: func(txn *badger.Txn) error {
			err := txn.Commit()
			once.Do(func() { // after the first chunks: the rival joins a later group, before the message itself
				s.requests <- rivalRequest(t, rival)
			})
			return err
		}})
		m := newMessage(t, "alerts")
		m.Idempotency = &store.Idempotency{Key: [32]byte{1}, Content: [32]byte{2}}
		if _, _, err := s.Accept(t.Context(), m, long); !errors.Is(err, store.ErrKeyConflict) {
			t.Fatalf("Accept: got error %v, want ErrKeyConflict", err)
		}
		if got := keysIn(t, s); got["o"]+got["b"] != 0 || got["m"] != 1 {
			t.Errorf("keys: %v, want those of the rival alone", got)
		}
	})
	t.Run("a sweep leaves nothing of a message", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		m := newMessage(t, "alerts", "audit")
		m.Idempotency = &store.Idempotency{}
		_, _, err := s.Accept(t.Context(), m, long)
		mustDo(t, err)
		_, _, err = s.Accept(t.Context(), newMessage(t), []byte("for nobody"))
		mustDo(t, err)
		for _, name := range []string{"alerts", "audit"} {
			due, err := s.Due(t.Context(), name, store.Cursor{}, 1)
			mustDo(t, err)
			for number := range 3 {
				after := due[0]
				after.Made++
				if number == 2 {
					after.State, after.EndedAt = store.Failed, time.Now()
				}
				a := store.Attempt{Delivery: after.ID, Round: 1, Number: after.Made}
				mustRecord(t, s, due[0], after, a)
				due[0] = after
			}
		}
		if n, more, err := s.Sweep(t.Context(), time.Now().Add(time.Hour), 10); n != 2 || more || err != nil {
			t.Errorf("Sweep: %d, more %t, error %v; want both messages", n, more, err)
		}
		if got := keysIn(t, s); len(got) != 0 {
			t.Errorf("keys: %v, want none", got)
		}
	})
}

// rivalRequest is what Accept would send for m, which has one recipient.
func rivalRequest(tb testing.TB, m store.Message) *request {
	tb.Helper()
	raws, err := encodeDeliveries(m)
	mustDo(tb, err)
	var entries []entry
	mustDo(tb, encodeAccept(storedMessage{Message: m}, nil, func(e entry) error {
		entries = append(entries, e)
		return nil
	}))
	return &request{size: 1000, entries: 10, done: make(chan error, 1), stage: func(g *group) error {
		for _, e := range entries {
			g.put(e.key, e.value)
		}
		g.identify(m)
		g.enqueue(m.Delivery(0), raws[0])
		return nil
	}}
}

// spoil changes a bit of the value under a key.
func spoil(tb testing.TB, s *Store, key []byte) {
	tb.Helper()
	s.recent = newRecent() // which nobody tells of it
	mustDo(tb, s.db.Update(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		value, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		value[len(value)/2] ^= 1
		return txn.Set(key, value)
	}))
}

func TestDamagedRecord(t *testing.T) {
	t.Run("a changed value is an error that names it, never an answer", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		id := fill(t, s, 1, 100)[0]
		spoil(t, s, messageKey(id))
		_, _, err := s.Load(t.Context(), id)
		if err == nil || !strings.Contains(err.Error(), id.String()) || !errors.Is(err, errChecksum) {
			t.Errorf("Load: got error %v, want one of the checksum with the id", err)
		}
	})
	t.Run("a damaged entry of a queue is made anew, and its delivery can end", func(t *testing.T) {
		for _, attempted := range []bool{false, true} {
			s := mustOpen(t, Options{Path: t.TempDir()})
			fill(t, s, 2, 100)
			d := mustDue(t, s)
			if attempted {
				after := d
				after.Made++
				mustRecord(t, s, d, after, store.Attempt{Delivery: d.ID, Round: 1, Number: 1})
				d = after
			}
			spoil(t, s, queueKey("alerts", d.Cursor()))
			if got := mustDue(t, s); got != d {
				t.Errorf("attempted %t: Due: got %+v, want %+v", attempted, got, d)
			}
			after := d
			after.State, after.EndedAt = store.Delivered, time.Now()
			mustRecord(t, s, d, after, store.Attempt{})
			if got := pendingOf(t, s); got != 1 {
				t.Errorf("attempted %t: pending: got %d, want the other", attempted, got)
			}
		}
	})
	t.Run("one that cannot be made anew is left out, logged once, and holds up no other", func(t *testing.T) {
		core, logs := observer.New(zap.ErrorLevel)
		s := mustOpen(t, Options{Path: t.TempDir(), Log: zap.New(core)})
		ids := fill(t, s, 2, 100)
		spoil(t, s, queueKey("alerts", mustDue(t, s).Cursor()))
		spoil(t, s, messageKey(ids[0]))
		for range 3 {
			if got := mustDue(t, s); got.ID != ids[1].Delivery(0) {
				t.Errorf("Due: got %s, want the second delivery", got.ID)
			}
		}
		if got := logs.FilterMessage("record of a queue is damaged").Len(); got != 1 {
			t.Errorf("got %d log lines, want 1", got)
		}
		if _, n, err := countPending(s.db); n != 2 || err != nil {
			t.Errorf("countPending: got %d, error %v; want it to count both", n, err)
		}
	})
	t.Run("a message that cannot be read stays, and the sweep goes on", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		ids := fill(t, s, 3, 100)
		now := time.Now()
		for _, d := range mustDueAll(t, s) {
			after := d
			after.State, after.EndedAt = store.Delivered, now
			mustRecord(t, s, d, after, store.Attempt{})
		}
		spoil(t, s, messageKey(ids[0]))
		spoil(t, s, endedKey(now, ids[1].Delivery(0)))
		before := now.Add(time.Hour)
		deleted := 0
		for range 10 {
			n, more, err := s.Sweep(t.Context(), before, 1)
			mustDo(t, err)
			deleted += n
			if !more {
				break
			}
		}
		if deleted != 2 {
			t.Errorf("deleted: got %d, want the 2 that can be read", deleted)
		}
		if got := keysIn(t, s); got["e"] != 1 || got["m"] != 1 {
			t.Errorf("keys: %v, want those of the damaged one", got)
		}
		if keys, more, err := s.endedBefore(before, 10); len(keys) != 0 || more || err != nil {
			t.Errorf("to look at now: %d, more %t, error %v; want none", len(keys), more, err)
		}
		if keys, _, err := s.endedBefore(before.Add(lookAgain+time.Millisecond), 10); len(keys) != 1 || err != nil {
			t.Errorf("to look at a day later: %d, error %v; want the damaged one", len(keys), err)
		}
	})
}

func mustDueAll(tb testing.TB, s *Store) []store.Delivery {
	tb.Helper()
	due, err := s.Due(tb.Context(), "alerts", store.Cursor{}, 100_000)
	mustDo(tb, err)
	return due
}

func mustDue(tb testing.TB, s *Store) store.Delivery {
	tb.Helper()
	due, err := s.Due(tb.Context(), "alerts", store.Cursor{}, 1)
	if err != nil || len(due) == 0 {
		tb.Fatalf("Due: %d, error %v; want one", len(due), err)
	}
	return due[0]
}

func TestGroups(t *testing.T) {
	t.Run("posts that wait together share a commit", func(t *testing.T) {
		var commits atomic.Int64
		gate := make(chan struct{})
		s := mustOpen(t, Options{Path: t.TempDir(), commit: func(txn *badger.Txn) error {
			if commits.Add(1) == 1 {
				<-gate // until all the others wait
			}
			return txn.Commit()
		}})
		first := make(chan error, 1)
		go func() {
			_, _, err := s.Accept(context.Background(), newMessage(t, "alerts"), []byte("x"))
			first <- err
		}()
		const posts = 200
		waiting := make([]*request, posts)
		for i := range waiting {
			waiting[i] = rivalRequest(t, newMessage(t, "alerts"))
			s.requests <- waiting[i]
		}
		close(gate)
		mustDo(t, <-first)
		for _, r := range waiting {
			mustDo(t, <-r.done)
		}
		// One for what came while nothing was under way, one for all that came meanwhile, one if the committer took
		// the first before the others were there.
		if got := commits.Load(); got > 3 {
			t.Errorf("got %d commits for %d posts, want 3 at most", got, posts+1)
		}
	})
	t.Run("a request that was estimated too low does not spoil the others", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		big := &request{size: 1, entries: 1, done: make(chan error, 1), stage: func(g *group) error {
			for n := range 6 {
				key := chunkKey(store.MessageID{1}, n)
				g.put(key, seal(key, make([]byte, chunkSize)))
			}
			return nil
		}}
		small := rivalRequest(t, newMessage(t, "alerts"))
		small.done = make(chan error, 1)
		s.use.RLock()
		s.requests <- big
		s.requests <- small
		bigErr, smallErr := <-big.done, <-small.done
		s.use.RUnlock()
		if !errors.Is(bigErr, store.ErrTooLarge) || smallErr != nil {
			t.Errorf("got errors %v and %v, want ErrTooLarge and nil", bigErr, smallErr)
		}
		if got := keysIn(t, s); got["b"] != 0 || got["q"] != 1 {
			t.Errorf("keys: %v, want those of the small one alone", got)
		}
	})
	t.Run("a body beyond the bound is refused", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		if _, _, err := s.Accept(t.Context(), newMessage(t), make([]byte, maxChunks*chunkSize+1)); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("got error %v, want ErrTooLarge", err)
		}
	})
	t.Run("nothing goes to Badger's value log", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		fill(t, s, 1, 3<<20)
		logs, err := filepath.Glob(filepath.Join(s.path, "badger", "*.vlog"))
		mustDo(t, err)
		for _, name := range logs {
			raw, err := os.ReadFile(name)
			mustDo(t, err)
			if bytes.Contains(raw, []byte("xxxx")) {
				t.Errorf("%s holds a body", filepath.Base(name))
			}
		}
	})
}

func BenchmarkAccept(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchmarkAccept(b, nil) })
	b.Run("encrypted", func(b *testing.B) { benchmarkAccept(b, manyKeys(1)) })
}

func benchmarkAccept(b *testing.B, keys []store.Key) {
	for _, goroutines := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			s, err := Open(Options{Path: b.TempDir(), MaxPending: 1 << 40, Keys: keys})
			mustDo(b, err)
			body := bytes.Repeat([]byte("x"), 1024)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var all sync.WaitGroup
			for range goroutines {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						if _, _, err := s.Accept(context.Background(), newMessage(b, "alerts"), body); err != nil {
							b.Errorf("Accept: %v", err)
							return
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "accepts/s")
			mustDo(b, s.Close())
		})
	}
}
