package badgerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// mustOpen opens a store and closes it with the test.
func mustOpen(tb testing.TB, o Options) *Store {
	tb.Helper()
	if o.Log == nil {
		o.Log = zaptest.NewLogger(tb, zaptest.Level(zap.InfoLevel))
	}
	s, err := Open(o)
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(tb testing.TB, o storetest.Options) store.Store {
		return mustOpen(tb, Options{Path: tb.TempDir(), Now: o.Now, MaxPending: o.MaxPending})
	})
}

func TestModel(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			o := Options{Path: t.TempDir(), MaxPending: storetest.MaxModelPending}
			storetest.Model(t, seed, 400, mustOpen(t, o), func(s store.Store) store.Store {
				if err := s.Close(); err != nil {
					t.Fatalf("Close: %v", err)
				}
				return mustOpen(t, o)
			})
		})
	}
	t.Run("reopened from a copy, as after a kill", func(t *testing.T) {
		o := Options{Path: t.TempDir(), MaxPending: storetest.MaxModelPending}
		storetest.Model(t, 99, 400, mustOpen(t, o), func(s store.Store) store.Store {
			killed := snapshot(t, s.(*Store).path)
			if err := s.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return mustOpen(t, Options{Path: killed, MaxPending: storetest.MaxModelPending})
		})
	})
}

// snapshot copies the folder of a store that may be open: what a kill at this moment would leave. A kill is one
// moment, and copying is not, so it is done again if Badger has changed its set of files meanwhile.
func snapshot(tb testing.TB, path string) string {
	tb.Helper()
	for range 50 {
		before := fileSet(tb, path)
		to := tb.TempDir()
		if err := copyTree(path, to); err != nil {
			tb.Fatalf("copy store: %v", err)
		}
		if fileSet(tb, path) == before {
			return to
		}
	}
	tb.Fatal("the set of files does not come to rest")
	return ""
}

// fileSet tells sets of files apart: it is the manifest and the names.
func fileSet(tb testing.TB, path string) string {
	tb.Helper()
	set, err := os.ReadFile(filepath.Join(path, "badger", badger.ManifestFilename))
	if err != nil {
		tb.Fatalf("read manifest: %v", err)
	}
	files, err := os.ReadDir(filepath.Join(path, "badger"))
	if err != nil {
		tb.Fatalf("read folder: %v", err)
	}
	for _, file := range files {
		set = append(set, file.Name()...)
	}
	return string(set)
}

func copyTree(path, to string) error {
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(path, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		err = copySparse(name, filepath.Join(to, rel))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		return err
	})
}
