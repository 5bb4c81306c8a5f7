package badgerstore

import (
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
)

// lockedWith counts the values of a store by the key that has encrypted them.
func lockedWith(tb testing.TB, s *Store) map[string]int {
	tb.Helper()
	counts := make(map[string]int)
	mustDo(tb, s.db.View(func(txn *view) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			mustDo(tb, it.Item().Value(func(value []byte) error {
				if !isOpen(it.Item().Key(), value) {
					counts[lockedBy(value).String()]++
				}
				return nil
			}))
		}
		return nil
	}))
	return counts
}

// waitRotated waits for the end of a rotation.
func waitRotated(tb testing.TB, s *Store) {
	tb.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.rotation.Wait()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		tb.Fatal("the rotation does not end")
	}
}

// stalled opens a store whose rotation has written some groups, and then waits for room on the disk, which there is for
// everything else.
func stalled(tb testing.TB, path string, groups int64, keys ...store.Key) *Store {
	tb.Helper()
	var written atomic.Int64
	var roomy atomic.Bool
	core, logs := observer.New(zap.WarnLevel)
	s := mustOpen(tb, Options{Path: path, Keys: keys, Log: zap.New(core), free: func(string) (int64, error) {
		if roomy.Load() || written.Load() < groups {
			return 1 << 40, nil
		}
		return floor - 1, nil
	}, commit: func(txn *badger.Txn) error {
		written.Add(1)
		return txn.Commit()
	}})
	for begun := time.Now(); logs.FilterMessage("rotation of encryption keys waits for free disk space").Len() == 0; runtime.Gosched() {
		if time.Since(begun) > time.Minute {
			tb.Fatal("the rotation does not wait")
		}
	}
	roomy.Store(true)
	s.look()
	return s
}

func TestRotation(t *testing.T) {
	first, second, third := store.NewKey(), store.NewKey(), store.NewKey()
	t.Run("old data is encrypted anew, and then the old key is not needed any more", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path, Keys: []store.Key{first}})
		ids := fill(t, s, 300, 3000)
		ids = append(ids, fill(t, s, 2, 1_500_000)...)
		fillCanaries(t, s)
		mustDo(t, s.Close())
		core, logs := observer.New(zap.InfoLevel)
		s = mustOpen(t, Options{Path: path, Keys: []store.Key{second, first}, Log: zap.New(core)})
		waitRotated(t, s)
		if got := s.Keys(); !slices.Equal(got, []string{second.Fingerprint()}) {
			t.Errorf("keys: got %q, want the second alone", got)
		}
		if got := lockedWith(t, s); len(got) != 1 || got[second.Fingerprint()] < 600 {
			t.Errorf("values by key: %v, want all of %s", got, second.Fingerprint())
		}
		done := logs.FilterMessage("encryption keys rotated, the earlier ones are not needed any more").All()
		if len(done) != 1 || done[0].ContextMap()["earlier"] != first.Fingerprint() || done[0].ContextMap()["damaged"] != int64(0) {
			t.Errorf("got the lines %v, want one that names the earlier key", done)
		}
		pending := s.Pending()
		mustDo(t, s.Close())
		s = mustOpen(t, Options{Path: path, Keys: []store.Key{second}})
		for _, id := range ids {
			if m, body, err := s.Load(t.Context(), id); err != nil || len(body) != m.Size {
				t.Fatalf("Load: %d bytes, error %v", len(body), err)
			}
		}
		if s.Pending() != pending {
			t.Errorf("pending: got %d, want %d", s.Pending(), pending)
		}
	})
	t.Run("a kill in between loses nothing, and the next start ends it", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path, Keys: []store.Key{first}})
		ids := fill(t, s, 1500, 1000)
		mustDo(t, s.Close())
		s = stalled(t, path, 2, second, first)
		if got := lockedWith(t, s); got[first.Fingerprint()] == 0 || got[second.Fingerprint()] == 0 {
			t.Fatalf("values by key: %v, want some of both", got)
		}
		killed := snapshot(t, path)
		mustDo(t, s.Close())
		needed, _, ok, err := readKeys(filepath.Join(killed, "keys"))
		if err != nil || !ok || len(needed) != 2 || needed[0].String() != second.Fingerprint() {
			t.Fatalf("keys needed after a kill: %v, ok %t, error %v", needed, ok, err)
		}
		var wrong *KeyError
		_, err = Open(Options{Path: killed, Keys: []store.Key{second}})
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), first.Fingerprint()) {
			t.Errorf("without the earlier key: got error %v, want a KeyError that names it", err)
		}
		s = mustOpen(t, Options{Path: killed, Keys: []store.Key{third, second, first}})
		waitRotated(t, s)
		if got := lockedWith(t, s); len(got) != 1 || got[third.Fingerprint()] == 0 {
			t.Errorf("values by key: %v, want all of the third", got)
		}
		for _, id := range ids {
			if _, body, err := s.Load(t.Context(), id); err != nil || len(body) != 1000 {
				t.Fatalf("Load: %d bytes, error %v", len(body), err)
			}
		}
	})
	t.Run("what is written meanwhile stays", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path, Keys: []store.Key{first}})
		ids := fill(t, s, 1000, 100)
		mustDo(t, s.Close())
		s = mustOpen(t, Options{Path: path, Keys: []store.Key{second, first}})
		for _, id := range ids {
			d, err := s.Delivery(t.Context(), id.Delivery(0))
			mustDo(t, err)
			after := d
			after.State, after.EndedAt, after.Made, after.Attempts = store.Delivered, time.Now(), 1, 1
			_, err = s.Record(t.Context(), d, after, store.Attempt{Delivery: d.ID, Round: 1, Number: 1, StartedAt: time.Now(), Class: store.ClassOK})
			mustDo(t, err)
		}
		waitRotated(t, s)
		if got := s.Pending(); got != 0 {
			t.Errorf("pending: got %d, want 0", got)
		}
		if got := lockedWith(t, s); len(got) != 1 {
			t.Errorf("values by key: %v, want one", got)
		}
	})
	t.Run("keys may change places again", func(t *testing.T) {
		path := t.TempDir()
		for _, keys := range [][]store.Key{{first}, {second, first}, {first, second}, {first}} {
			s := mustOpen(t, Options{Path: path, Keys: keys})
			fill(t, s, 20, 10)
			waitRotated(t, s)
			if got := lockedWith(t, s); len(got) != 1 || got[keys[0].Fingerprint()] == 0 {
				t.Errorf("values by key: %v, want all of the first", got)
			}
			mustDo(t, s.Close())
		}
	})
	t.Run("a value that was left out keeps the earlier key needed", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path, Keys: []store.Key{first}})
		fill(t, s, 3, 10)
		mustDo(t, s.Close())
		s = stalled(t, path, 0, second, first)
		if err := s.noteRotated(s.keys.ids[0]); err == nil || !strings.Contains(err.Error(), "left out") {
			t.Errorf("got error %v, want one that says what was left out", err)
		}
		needed, _, _, err := readKeys(filepath.Join(path, "keys"))
		if err != nil || len(needed) != 2 || len(s.Keys()) != 2 {
			t.Errorf("needed are %v and %q, error %v; want both", needed, s.Keys(), err)
		}
	})
	t.Run("one that does not open does not hold it up, and is counted", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path, Keys: []store.Key{first}, Log: zap.NewNop()})
		ids := fill(t, s, 3, 10)
		mustDo(t, s.db.Update(func(txn *badger.Txn) error {
			item, err := txn.Get(messageKey(ids[1]))
			mustDo(t, err)
			value, err := item.ValueCopy(nil)
			mustDo(t, err)
			value[len(value)-1] ^= 1
			return txn.Set(messageKey(ids[1]), value)
		}))
		mustDo(t, s.Close())
		core, logs := observer.New(zap.InfoLevel)
		s = mustOpen(t, Options{Path: path, Keys: []store.Key{second, first}, Log: zap.New(core)})
		waitRotated(t, s)
		done := logs.FilterMessage("encryption keys rotated, the earlier ones are not needed any more").All()
		if len(done) != 1 || done[0].ContextMap()["damaged"] != int64(1) || len(s.Keys()) != 1 {
			t.Errorf("got the lines %v and the keys %q, want the end with 1 damaged", done, s.Keys())
		}
	})
	t.Run("a short disk makes it wait, and Close does not", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path, Keys: []store.Key{first}})
		fill(t, s, 10, 10)
		mustDo(t, s.Close())
		s = stalled(t, path, 0, second, first)
		begun := time.Now()
		mustDo(t, s.Close())
		if took := time.Since(begun); took > rotateWait/2 {
			t.Errorf("Close took %v", took)
		}
		if got := s.Keys(); len(got) != 2 {
			t.Errorf("keys: got %q, want both", got)
		}
	})
}
