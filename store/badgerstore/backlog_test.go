package badgerstore

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/postern-relay/postern/store"
)

func TestBacklogBehindAStart(t *testing.T) {
	t.Run("the names of what is pending are found without a count", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		for _, name := range []string{"a", "a\x01b", "ab", "b"} {
			for range 3 {
				m := newMessage(t, name, "line of "+name)
				m.Recipients[1].Order = "k"
				_, _, err := s.Accept(t.Context(), m, nil)
				mustDo(t, err)
			}
		}
		counts, _, err := countPending(s.db)
		mustDo(t, err)
		var got []string
		mustDo(t, s.db.View(func(txn *view) (err error) {
			got, err = pendingNames(t.Context(), txn)
			return err
		}))
		if want := slices.Sorted(maps.Keys(counts)); len(want) != 8 || !slices.Equal(got, want) {
			t.Errorf("got %q, want the 8 of %q", got, want)
		}
	})
	t.Run("what is written while it is counted counts once", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path})
		fill(t, s, 200, 10)
		for range 20 {
			mustDo(t, s.Close())
			s = mustOpen(t, Options{Path: path})
			var posts sync.WaitGroup
			for range 5 {
				m := newMessage(t, "alerts")
				posts.Go(func() {
					if _, _, err := s.Accept(context.Background(), m, nil); err != nil {
						t.Errorf("Accept: %v", err)
					}
				})
			}
			posts.Wait()
			checkBacklog(t, s, -1)
		}
		checkBacklog(t, s, 300)
	})
	t.Run("a note that is wrong is put right by the count", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path})
		fill(t, s, 7, 10)
		seq := s.seq
		mustDo(t, s.Close())
		db, err := openBadger(filepath.Join(path, "badger"), s.keys, s.log)
		mustDo(t, err)
		txn := db.begin()
		key := commitKey(seq)
		mustDo(t, txn.put(key, seal(key, encodeCommit(commitRecord{seq: seq, pending: 12}))))
		mustDo(t, txn.Commit())
		mustDo(t, db.Close())
		s = mustOpen(t, Options{Path: path})
		backlog, err := s.Backlog(t.Context())
		if err != nil || backlog["alerts"].Pending != 7 {
			t.Errorf("got %v, error %v; want 7 pending", backlog, err)
		}
		if got := s.Pending(); got != 7 {
			t.Errorf("Pending: got %d, want 7", got)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if _, err := s.Backlog(t.Context()); err != store.ErrClosed {
			t.Errorf("after Close: got error %v, want ErrClosed", err)
		}
	})
}
