package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func TestBackups(t *testing.T) {
	key, other := manyKeys(1), manyKeys(1)
	for name, c := range map[string]struct{ from, to, read []store.Key }{
		"plain":                                {},
		"encrypted, and then with another key": {key, other, slices.Concat(key, other)}, // a model is restored again and again
	} {
		t.Run(name, func(t *testing.T) {
			storetest.RunBackups(t,
				func(tb testing.TB, o storetest.Options) store.Store {
					return mustOpen(tb, Options{Path: tb.TempDir(), Now: o.Now, MaxPending: o.MaxPending, Keys: c.from})
				},
				func(tb testing.TB, from io.Reader) (store.Store, error) {
					path := filepath.Join(tb.TempDir(), "new")
					if err := restoreTo(path, from, c.to, c.read); err != nil {
						left(tb, path)
						return nil, err
					}
					return mustOpen(tb, Options{Path: path, MaxPending: storetest.MaxModelPending, Keys: c.to}), nil
				})
		})
	}
}

func restoreTo(path string, from io.Reader, keys, read []store.Key) error {
	_, err := Restore(context.Background(), RestoreOptions{From: from, Path: path, Keys: keys, ReadKeys: read})
	return err
}

// left wants nothing in a folder after a restore that was refused.
func left(tb testing.TB, path string) {
	tb.Helper()
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != "lock" {
			tb.Errorf("a refused restore has left %q", entry.Name())
		}
	}
}

// backedUp returns a backup of a store with a few messages.
func backedUp(tb testing.TB, keys ...store.Key) (raw []byte, ids []store.MessageID) {
	tb.Helper()
	s := mustOpen(tb, Options{Path: tb.TempDir(), Keys: keys})
	ids = fill(tb, s, 20, 2000)
	return backupOf(tb, s, store.BackupOptions{}), ids
}

func backupOf(tb testing.TB, s *Store, o store.BackupOptions) []byte {
	tb.Helper()
	b, err := s.Backup(tb.Context(), o)
	mustDo(tb, err)
	raw, err := io.ReadAll(b)
	mustDo(tb, errors.Join(err, b.Close()))
	return raw
}

func TestBackup(t *testing.T) {
	t.Run("of an encrypted store shows nothing", func(t *testing.T) {
		for _, keys := range [][]store.Key{nil, {store.NewKey()}} {
			s := mustOpen(t, Options{Path: t.TempDir(), Keys: keys})
			places := fillCanaries(t, s)
			raw := backupOf(t, s, store.BackupOptions{IncludeKeys: true})
			shown := 0
			for _, text := range places {
				if bytes.Contains(raw, []byte(text)) {
					shown++
				}
			}
			if keys != nil && shown > 0 || keys == nil && shown < len(places)-1 {
				t.Errorf("encrypted %t: %d of %d texts are readable", keys != nil, shown, len(places))
			}
		}
	})
	t.Run("leaves no file, also while it is read", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		fill(t, s, 10, 100)
		b, err := s.Backup(t.Context(), store.BackupOptions{})
		mustDo(t, err)
		if found, err := filepath.Glob(filepath.Join(s.path, "backup-*")); err != nil || len(found) > 0 {
			t.Errorf("got the files %q, error %v", found, err)
		}
		mustDo(t, b.Close())
	})
	t.Run("a full disk ends it, the store goes on, and the next one may begin", func(t *testing.T) {
		var mu sync.Mutex
		free, looks := int64(floor+backupMargin+1), 0
		s := mustOpen(t, Options{Path: t.TempDir(), MinFree: floor, Log: zap.NewNop(), free: func(string) (int64, error) {
			mu.Lock()
			defer mu.Unlock()
			if looks--; looks == 0 {
				free = floor + backupMargin - 1
			}
			return free, nil
		}})
		for range 4 {
			fill(t, s, 1, 3<<20)
		}
		for name, when := range map[string]int{"at once": 1, "halfway": 3} {
			mu.Lock()
			free, looks = floor+backupMargin+1, when
			mu.Unlock()
			if _, err := s.Backup(t.Context(), store.BackupOptions{}); !errors.Is(err, store.ErrNoSpace) {
				t.Errorf("%s: got error %v, want ErrNoSpace", name, err)
			}
			if err := s.Full(); err != nil {
				t.Errorf("%s: Full: got %v, want what is left to the store untouched", name, err)
			}
			fill(t, s, 1, 10)
		}
		mu.Lock()
		free, looks = 1<<40, 0
		mu.Unlock()
		backupOf(t, s, store.BackupOptions{})
	})
	t.Run("leaves out what is secret by itself, unless it is asked for", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		fill(t, s, 3, 10)
		keys := []string{"certificates/a/a.key", "acme/users/a.key"}
		for _, name := range keys {
			mustDo(t, s.Keep(t.Context(), name, []byte(canary("private key"))))
		}
		without, with := backupOf(t, s, store.BackupOptions{}), backupOf(t, s, store.BackupOptions{IncludeKeys: true})
		if bytes.Contains(without, []byte(canary("private key"))) {
			t.Error("a backup without keys holds one")
		}
		for n, raw := range [][]byte{without, with} {
			path := filepath.Join(t.TempDir(), "new")
			got, err := Restore(t.Context(), RestoreOptions{From: bytes.NewReader(raw), Path: path})
			item, keptErr := mustOpen(t, Options{Path: path}).Kept(t.Context(), keys[1])
			if (keptErr == nil) != (n == 1) || n == 1 && string(item.Value) != canary("private key") {
				t.Errorf("kept: got %q, error %v", item.Value, keptErr)
			}
			if err != nil || got.Counts.Keys != int64(n*len(keys)) || got.WithKeys != (n == 1) {
				t.Errorf("restored: got %+v, error %v; want %d keys", got, err, n*len(keys))
			}
		}
	})
	t.Run("leaves out damaged records, and counts them", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir(), Log: zap.NewNop()})
		ids := fill(t, s, 3, 10)
		mustDo(t, s.db.Update(func(txn *badger.Txn) error { return txn.Set(messageKey(ids[1]), []byte("damaged")) }))
		path := filepath.Join(t.TempDir(), "new")
		got, err := Restore(t.Context(), RestoreOptions{From: bytes.NewReader(backupOf(t, s, store.BackupOptions{})), Path: path})
		if err != nil || got.Counts.Damaged != 1 || got.Counts.Messages != 2 {
			t.Fatalf("restored: got %+v, error %v; want 2 messages and 1 damaged", got, err)
		}
		again := mustOpen(t, Options{Path: path, Log: zap.NewNop()})
		if _, _, err := again.Load(t.Context(), ids[2]); err != nil {
			t.Errorf("Load of another: %v", err)
		}
	})
	t.Run("ends when the store is closed", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		fill(t, s, 2, 1<<20)
		begun, closed := make(chan struct{}), make(chan error, 1)
		w := &gatedWriter{begun: begun, goOn: make(chan struct{})}
		go func() {
			<-begun
			go func() { closed <- s.Close() }()
			for !s.closed.Load() {
				runtime.Gosched()
			}
			close(w.goOn)
		}()
		if _, err := s.WriteBackup(t.Context(), w, store.BackupOptions{}); !errors.Is(err, store.ErrClosed) {
			t.Errorf("got error %v, want ErrClosed", err)
		}
		mustDo(t, <-closed)
	})
}

// gatedWriter waits within its first call.
type gatedWriter struct {
	begun, goOn chan struct{}
	once        sync.Once
}

func (w *gatedWriter) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.begun) })
	<-w.goOn
	return len(p), nil
}
