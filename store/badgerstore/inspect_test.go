package badgerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

// contentOf says what a folder holds, so that a change shows.
func contentOf(tb testing.TB, path string) string {
	tb.Helper()
	var out strings.Builder
	mustDo(tb, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			fmt.Fprintln(&out, name, info.Mode(), info.Size(), info.ModTime().UnixNano())
		}
		return err
	}))
	return out.String()
}

// inspected inspects a folder and checks that this has changed nothing.
func inspected(tb testing.TB, path string) (Inspection, error) {
	tb.Helper()
	before := contentOf(tb, path)
	found, err := Inspect(Options{Path: path})
	if after := contentOf(tb, path); after != before {
		tb.Errorf("the folder was changed:\n%s\nbefore:\n%s", after, before)
	}
	return found, err
}

func TestInspect(t *testing.T) {
	t.Run("no store is no error", func(t *testing.T) {
		if found, err := inspected(t, t.TempDir()); err != nil || found != (Inspection{}) {
			t.Errorf("got %+v, %v; want nothing", found, err)
		}
	})
	t.Run("a store that was closed has tables, and no log", func(t *testing.T) {
		path := stopped(t, 20)
		found, err := inspected(t, path)
		if err != nil || !found.Exists || found.Tables != 1 || found.Log != 0 || found.Strays != 0 || found.Bytes == 0 || found.Encrypted {
			t.Errorf("got %+v, %v; want one table and no log", found, err)
		}
		if found.Commits == 0 || time.Since(found.LastWrite) > time.Minute || time.Since(found.LastWrite) < 0 {
			t.Errorf("got %+v, want the number and the time of the last commit", found)
		}
	})
	t.Run("one that was killed has a log", func(t *testing.T) {
		if found, err := inspected(t, killed(t, 20)); err != nil || found.Log == 0 {
			t.Errorf("got %+v, %v; want a log", found, err)
		}
	})
	t.Run("one that is open is locked", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path})
		if _, err := Inspect(Options{Path: path}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("got %v, want ErrLocked with the number of the process", err)
		}
		mustDo(t, s.Close())
		if _, err := Inspect(Options{Path: path}); err != nil {
			t.Errorf("when it is closed: got %v, want none", err)
		}
		s = mustOpen(t, Options{Path: path}) // and it has let go of the lock
		mustDo(t, s.Close())
	})
	for rule, damage := range map[string]func(t *testing.T, path string){
		"a manifest that is missing is damage": func(t *testing.T, path string) {
			mustDo(t, os.Remove(filepath.Join(path, "badger", badger.ManifestFilename)))
		},
		"a manifest that was cut is damage": func(t *testing.T, path string) {
			mustDo(t, os.Truncate(filepath.Join(path, "badger", badger.ManifestFilename), 8))
		},
		"a flipped byte in a table is damage": func(t *testing.T, path string) { flip(t, only(t, path, "*.sst"), 100) },
		"a table that is gone is damage":      func(t *testing.T, path string) { mustDo(t, os.Remove(only(t, path, "*.sst"))) },
		"what an earlier start has found is damage": func(t *testing.T, path string) {
			mustDo(t, os.WriteFile(filepath.Join(path, "damage"), []byte("{}"), 0o600))
		},
	} {
		t.Run(rule, func(t *testing.T) {
			path := stopped(t, 20)
			damage(t, path)
			_, err := inspected(t, path)
			if damaged, ok := errors.AsType[*DamageError](err); !ok || damaged.Path != path {
				t.Fatalf("got %v, want a *DamageError", err)
			}
			if _, err := Open(Options{Path: path}); err == nil {
				t.Error("Open takes it: this tests nothing")
			}
		})
	}
	t.Run("a stray table is counted", func(t *testing.T) {
		path := stopped(t, 20)
		raw, err := os.ReadFile(only(t, path, "*.sst"))
		mustDo(t, err)
		mustDo(t, os.WriteFile(filepath.Join(path, "badger", "000099.sst"), raw, 0o600))
		if found, err := inspected(t, path); err != nil || found.Strays != 1 {
			t.Errorf("got %+v, %v; want one stray", found, err)
		}
	})
	t.Run("a restore that was cut off is told, and one that has come to its end is not", func(t *testing.T) {
		path := t.TempDir()
		left := filepath.Join(path, restoringFolder)
		mustDo(t, os.MkdirAll(filepath.Join(left, "badger"), 0o700))
		if _, err := inspected(t, path); !errors.Is(err, ErrRestoring) {
			t.Errorf("got %v, want ErrRestoring", err)
		}
		held, err := lock(filepath.Join(path, "lock"))
		mustDo(t, err)
		if _, err := inspected(t, path); !errors.Is(err, ErrLocked) {
			t.Errorf("under way: got %v, want ErrLocked", err)
		}
		mustDo(t, held.Close())
		path = stopped(t, 5)
		left = filepath.Join(path, restoringFolder)
		mustDo(t, os.Mkdir(left, 0o700))
		if found, err := inspected(t, path); err != nil || !found.Exists {
			t.Errorf("at its last step: got %+v, %v; want a store", found, err)
		}
		mustDo(t, os.WriteFile(filepath.Join(left, "hwm"), nil, 0o600))
		if _, err := inspected(t, path); !errors.Is(err, ErrRestoring) {
			t.Errorf("with something left: got %v, want ErrRestoring", err)
		}
	})
	t.Run("the keys are compared", func(t *testing.T) {
		path := t.TempDir()
		keys := []store.Key{store.NewKey()}
		s := mustOpen(t, Options{Path: path, Keys: keys})
		fill(t, s, 5, 100)
		mustDo(t, s.Close())
		if found, err := Inspect(Options{Path: path, Keys: keys}); err != nil || !found.Encrypted || !found.KeysKnown {
			t.Errorf("got %+v, %v; want it encrypted, and fine", found, err)
		}
		file := filepath.Join(path, "keys")
		raw, err := os.ReadFile(file)
		mustDo(t, err)
		for _, damaged := range []string{"", string(raw[:len(raw)-3])} {
			mustDo(t, os.WriteFile(file, []byte(damaged), 0o600))
			if found, err := Inspect(Options{Path: path, Keys: []store.Key{store.NewKey()}}); err != nil || !found.Encrypted || found.KeysKnown {
				t.Errorf("with %q for keys: got %+v, %v; want that nobody knows whether the key fits", damaged, found, err)
			}
		}
		mustDo(t, os.WriteFile(file, raw, 0o600))
		for _, keys := range [][]store.Key{nil, {store.NewKey()}} {
			if _, err := Inspect(Options{Path: path, Keys: keys}); !isKeyError(err) {
				t.Errorf("with %d other keys: got %v, want a *KeyError", len(keys), err)
			}
		}
	})
}

func isKeyError(err error) bool {
	_, ok := errors.AsType[*KeyError](err)
	return ok
}

func TestReserveOfAStore(t *testing.T) {
	for minFree, want := range map[int64]int64{0: 256 << 20, 1: floor, floor: floor, floor + 1: floor + 1} {
		if got := Reserve(minFree); got != want {
			t.Errorf("Reserve(%d): got %d, want %d", minFree, got, want)
		}
	}
}
