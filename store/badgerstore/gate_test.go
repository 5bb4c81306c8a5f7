package badgerstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

// newMessage makes a message for some destinations.
func newMessage(tb testing.TB, destinations ...string) store.Message {
	tb.Helper()
	id, err := store.NewMessageID()
	if err != nil {
		tb.Fatalf("NewMessageID: %v", err)
	}
	m := store.Message{ID: id, Event: "alert.fired"}
	for _, name := range destinations {
		m.Recipients = append(m.Recipients, store.Recipient{Destination: name})
	}
	return m
}

// fill accepts n messages one after the other and returns their ids.
func fill(tb testing.TB, s *Store, n, size int) (ids []store.MessageID) {
	tb.Helper()
	body := bytes.Repeat([]byte("x"), size)
	for range n {
		m := newMessage(tb, "alerts")
		if _, _, err := s.Accept(tb.Context(), m, body); err != nil {
			tb.Fatalf("Accept: %v", err)
		}
		ids = append(ids, m.ID)
	}
	return ids
}

// killed returns the folder of a store that was killed after n messages.
func killed(tb testing.TB, n int) string {
	tb.Helper()
	s := mustOpen(tb, Options{Path: tb.TempDir()})
	fill(tb, s, n, 100)
	return snapshot(tb, s.path)
}

// stopped returns the folder of a store that was closed after n messages, so that they are in a table.
func stopped(tb testing.TB, n int) string {
	tb.Helper()
	path := tb.TempDir()
	s := mustOpen(tb, Options{Path: path})
	fill(tb, s, n, 100)
	if err := s.Close(); err != nil {
		tb.Fatalf("Close: %v", err)
	}
	return path
}

// only returns the one file of Badger's folder that matches the pattern.
func only(tb testing.TB, path, pattern string) string {
	tb.Helper()
	found, err := filepath.Glob(filepath.Join(path, "badger", pattern))
	if err != nil || len(found) != 1 {
		tb.Fatalf("files that match %s: %q, error %v; want one", pattern, found, err)
	}
	return found[0]
}

func flip(tb testing.TB, name string, at int64) {
	tb.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		tb.Fatalf("open: %v", err)
	}
	defer f.Close()
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, at); err != nil {
		tb.Fatalf("read: %v", err)
	}
	one[0] ^= 0x40
	if _, err := f.WriteAt(one, at); err != nil {
		tb.Fatalf("write: %v", err)
	}
}

func mustDo(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// openDamaged wants Open to report damage.
func openDamaged(tb testing.TB, path string) *DamageError {
	tb.Helper()
	s, err := Open(Options{Path: path})
	if err == nil {
		tb.Fatalf("Open: no error; close says %v", s.Close())
	}
	var damage *DamageError
	if !errors.As(err, &damage) {
		tb.Fatalf("Open: got error %v, want a DamageError", err)
	}
	return damage
}

func pendingOf(tb testing.TB, s *Store) int {
	tb.Helper()
	due, err := s.Due(tb.Context(), "alerts", store.Cursor{}, 100_000)
	if err != nil {
		tb.Fatalf("Due: %v", err)
	}
	if got := s.Pending(); got != int64(len(due)) {
		tb.Errorf("Pending: got %d, want the %d of the queue", got, len(due))
	}
	return len(due)
}

func TestLock(t *testing.T) {
	t.Run("a second opener is told who has the store", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		_, err := Open(Options{Path: s.path})
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
			t.Errorf("got error %v, want ErrLocked with this process", err)
		}
	})
	t.Run("a stale lock file does not matter", func(t *testing.T) {
		path := t.TempDir()
		mustDo(t, os.WriteFile(filepath.Join(path, "lock"), []byte("1\n"), 0o600))
		mustOpen(t, Options{Path: path})
	})
}

func TestFreshStore(t *testing.T) {
	t.Run("folders are closed to others", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a", "b")
		s := mustOpen(t, Options{Path: path})
		for _, name := range []string{path, filepath.Join(path, "badger")} {
			info, err := os.Stat(name)
			if err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%s: mode %v, error %v; want 0700", name, info.Mode(), err)
			}
		}
		fill(t, s, 1, 1)
	})
	t.Run("a path that is a file is named", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		mustDo(t, os.WriteFile(path, nil, 0o600))
		if _, err := Open(Options{Path: path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("got error %v, want one with the path", err)
		}
	})
	t.Run("a kill between Badger's first files and ours is no damage", func(t *testing.T) {
		path := t.TempDir()
		db, err := badger.Open(badgerOptions(filepath.Join(path, "badger")).WithLogger(nil))
		mustDo(t, err)
		dead := t.TempDir()
		mustDo(t, copyTree(path, dead))
		mustDo(t, db.Close())
		mustOpen(t, Options{Path: dead})
	})
	t.Run("a kill before the side file is no damage", func(t *testing.T) {
		path := killed(t, 0)
		mustDo(t, os.Remove(filepath.Join(path, "hwm")))
		mustOpen(t, Options{Path: path})
	})
	t.Run("a later format is refused", func(t *testing.T) {
		path := stopped(t, 1)
		db, err := badger.Open(badgerOptions(filepath.Join(path, "badger")).WithLogger(nil))
		mustDo(t, err)
		key := []byte{kindFormat}
		content := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, formatVersion+1), 1)
		mustDo(t, db.Update(func(txn *badger.Txn) error { return txn.Set(key, seal(key, content)) }))
		mustDo(t, db.Close())
		if _, err := Open(Options{Path: path}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("format %d", formatVersion+1)) {
			t.Errorf("got error %v, want one about the format", err)
		}
	})
}

func TestDamagedLog(t *testing.T) {
	path := killed(t, 200)
	log := only(t, path, "*.mem")
	info, err := os.Stat(log)
	mustDo(t, err)
	flip(t, log, dataSize(info)*3/10)
	hurt, err := os.ReadFile(log)
	mustDo(t, err)

	first := openDamaged(t, path)
	t.Run("the gap is named", func(t *testing.T) {
		if first.From < 2 || first.From > 200 || first.To != 201 {
			t.Errorf("got commits %d to %d, want one of the middle to 201", first.From, first.To)
		}
		for _, way := range []string{"--accept-loss", "postern restore"} {
			if !strings.Contains(first.Error(), way) {
				t.Errorf("got %q, want %s as a way out in it", first, way)
			}
		}
	})
	t.Run("the files are kept as they were found", func(t *testing.T) {
		kept, err := os.ReadFile(filepath.Join(first.Copies, filepath.Base(log)))
		if err != nil || !bytes.Equal(kept, hurt) {
			t.Errorf("copy has %d bytes, error %v; want the %d bytes of the damaged log", len(kept), err, len(hurt))
		}
	})
	t.Run("a restart finds the same and copies nothing more", func(t *testing.T) {
		again := openDamaged(t, path)
		if *again != *first {
			t.Errorf("got %+v, want %+v", again, first)
		}
		if all, err := filepath.Glob(filepath.Join(path, "set-aside", "*")); err != nil || len(all) != 1 {
			t.Errorf("set aside: %q, error %v; want one folder", all, err)
		}
	})
	t.Run("the loss can be accepted, once", func(t *testing.T) {
		s := mustOpen(t, Options{Path: path, AcceptLoss: true})
		want := int(first.From) - 2 // the first commit group is the format
		if got := pendingOf(t, s); got != want {
			t.Errorf("pending: got %d, want the %d before the gap", got, want)
		}
		fill(t, s, 5, 100)
		mustDo(t, s.Close())
		if got := pendingOf(t, mustOpen(t, Options{Path: path})); got != want+5 {
			t.Errorf("pending after: got %d, want %d", got, want+5)
		}
		if _, err := os.Stat(first.Copies); err != nil {
			t.Errorf("copies: %v, want them kept", err)
		}
	})
}

func TestDamagedManifest(t *testing.T) {
	for name, spoil := range map[string]func(tb testing.TB, manifest string){
		"missing":           func(tb testing.TB, m string) { mustDo(tb, os.Remove(m)) },
		"cut to its header": func(tb testing.TB, m string) { mustDo(tb, os.Truncate(m, 8)) },
		"empty":             func(tb testing.TB, m string) { mustDo(tb, os.Truncate(m, 0)) },
		"flipped byte":      func(tb testing.TB, m string) { flip(tb, m, 20) },
	} {
		t.Run("a manifest that is "+name+" stops the start, and nothing is deleted", func(t *testing.T) {
			path := stopped(t, 50)
			table := only(t, path, "*.sst")
			spoil(t, filepath.Join(path, "badger", badger.ManifestFilename))
			for range 2 {
				if damage := openDamaged(t, path); !damage.CanLose {
					t.Errorf("got %+v, want a loss that can be accepted", damage)
				}
			}
			want, err := os.ReadFile(table)
			mustDo(t, err)
			s := mustOpen(t, Options{Path: path, AcceptLoss: true})
			if got := pendingOf(t, s); got != 0 {
				t.Errorf("pending: got %d, want an empty store", got)
			}
			fill(t, s, 1, 1)
			kept, err := filepath.Glob(filepath.Join(path, "set-aside", "*", filepath.Base(table)))
			if err != nil || len(kept) != 1 {
				t.Fatalf("kept tables: %q, error %v; want one", kept, err)
			}
			if got, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(got, want) {
				t.Errorf("kept table: %d bytes, error %v; want the %d as they were", len(got), err, len(want))
			}
		})
	}
	t.Run("a manifest that has lost its end shows as a gap, and the table is kept", func(t *testing.T) {
		path := stopped(t, 50)
		table := only(t, path, "*.sst")
		mustDo(t, os.Truncate(filepath.Join(path, "badger", badger.ManifestFilename), 16))
		damage := openDamaged(t, path)
		if damage.From != 1 || damage.To != 51 {
			t.Errorf("got commits %d to %d, want 1 to 51", damage.From, damage.To)
		}
		if _, err := os.Stat(filepath.Join(damage.Copies, filepath.Base(table))); err != nil {
			t.Errorf("kept table: %v", err)
		}
	})
}

func TestDamagedTable(t *testing.T) {
	for _, part := range []int64{1, 5, 9} {
		t.Run(fmt.Sprintf("a byte flipped at %d tenths stops the start", part), func(t *testing.T) {
			path := stopped(t, 300)
			table := only(t, path, "*.sst")
			info, err := os.Stat(table)
			mustDo(t, err)
			flip(t, table, info.Size()*part/10)
			for range 3 {
				openDamaged(t, path)
			}
			if all, err := filepath.Glob(filepath.Join(path, "set-aside", "*")); err != nil || len(all) > 1 {
				t.Errorf("set aside: %q, error %v; want one folder at most", all, err)
			}
			flip(t, table, info.Size()*part/10)
			if got := pendingOf(t, mustOpen(t, Options{Path: path})); got != 300 {
				t.Errorf("pending with the table mended: got %d, want 300", got)
			}
		})
	}
	t.Run("a missing table stops the start", func(t *testing.T) {
		path := stopped(t, 50)
		mustDo(t, os.Remove(only(t, path, "*.sst")))
		openDamaged(t, path)
	})
}

func TestStrays(t *testing.T) {
	t.Run("what a kill leaves behind is put aside and forgotten", func(t *testing.T) {
		path := killed(t, 50)
		for _, name := range []string{"00077.mem", "000077.vlog"} {
			mustDo(t, os.WriteFile(filepath.Join(path, "badger", name), nil, 0o600))
		}
		mustDo(t, os.WriteFile(filepath.Join(path, "badger", "000099.sst"), []byte("half a table"), 0o600))
		s := mustOpen(t, Options{Path: path})
		if got := pendingOf(t, s); got != 50 {
			t.Errorf("pending: got %d, want 50", got)
		}
		if left, err := filepath.Glob(filepath.Join(path, "set-aside", "*")); err != nil || len(left) != 0 {
			t.Errorf("set aside: %q, error %v; want nothing left", left, err)
		}
	})
}

func TestSideFile(t *testing.T) {
	for name, spoil := range map[string]func(tb testing.TB, side string){
		"missing": func(tb testing.TB, side string) { mustDo(tb, os.Remove(side)) },
		"garbage": func(tb testing.TB, side string) { mustDo(tb, os.WriteFile(side, []byte("garbage"), 0o600)) },
	} {
		t.Run("a side file that is "+name+" stops the start until that is accepted", func(t *testing.T) {
			path := stopped(t, 10)
			spoil(t, filepath.Join(path, "hwm"))
			openDamaged(t, path)
			s := mustOpen(t, Options{Path: path, AcceptLoss: true})
			if got := pendingOf(t, s); got != 10 {
				t.Errorf("pending: got %d, want 10", got)
			}
			mustDo(t, s.Close())
			mustOpen(t, Options{Path: path})
		})
	}
	t.Run("a torn slot costs only itself", func(t *testing.T) {
		for slot := range int64(2) {
			path := stopped(t, 10)
			flip(t, filepath.Join(path, "hwm"), slot*sideSlot+5)
			mustOpen(t, Options{Path: path})
		}
	})
	t.Run("an end that Badger does not have is a gap", func(t *testing.T) {
		path := stopped(t, 10)
		mustDo(t, createSide(filepath.Join(path, "hwm"), 15))
		if damage := openDamaged(t, path); damage.From != 12 || damage.To != 15 {
			t.Errorf("got commits %d to %d, want 12 to 15", damage.From, damage.To)
		}
	})
	t.Run("a side file that is behind is no gap", func(t *testing.T) {
		path := killed(t, 10)
		mustDo(t, createSide(filepath.Join(path, "hwm"), 3))
		mustOpen(t, Options{Path: path})
	})
	t.Run("a missing note in the middle is a gap", func(t *testing.T) {
		path := stopped(t, 10)
		db, err := badger.Open(badgerOptions(filepath.Join(path, "badger")).WithLogger(nil))
		mustDo(t, err)
		mustDo(t, db.Update(func(txn *badger.Txn) error { return txn.Delete(commitKey(5)) }))
		mustDo(t, db.Close())
		if damage := openDamaged(t, path); damage.From != 5 || damage.To != 5 {
			t.Errorf("got commits %d to %d, want 5 to 5", damage.From, damage.To)
		}
	})
}

func TestSetAside(t *testing.T) {
	asideOf := func(tb testing.TB, path string) []string {
		tb.Helper()
		all, err := filepath.Glob(filepath.Join(path, "set-aside", "*"))
		mustDo(tb, err)
		return all
	}
	t.Run("starts that fail pile up nothing, and keep what the first has found", func(t *testing.T) {
		path := killed(t, 50)
		log := only(t, path, "*.mem")
		first, err := os.ReadFile(log)
		mustDo(t, err)
		obstacle := filepath.Join(path, "badger", "KEYREGISTRY")
		mustDo(t, os.Remove(obstacle))
		mustDo(t, os.MkdirAll(filepath.Join(obstacle, "x"), 0o700)) // Badger cannot open with it
		for range 3 {
			if s, err := Open(Options{Path: path}); err == nil {
				t.Fatalf("Open: no error; close says %v", s.Close())
			}
			if all := asideOf(t, path); len(all) != 1 || filepath.Base(all[0]) != "start" {
				t.Fatalf("set aside: %q, want the one folder", all)
			}
			mustDo(t, os.WriteFile(log, []byte("changed by a start that failed"), 0o600))
		}
		kept, err := os.ReadFile(filepath.Join(path, "set-aside", "start", filepath.Base(log)))
		if err != nil || !bytes.Equal(kept, first) {
			t.Errorf("copy has %d bytes, error %v; want the %d that were there first", len(kept), err, len(first))
		}
		mustDo(t, os.RemoveAll(obstacle))
		mustDo(t, os.WriteFile(log, first, 0o600))
		if got := pendingOf(t, mustOpen(t, Options{Path: path})); got != 50 {
			t.Errorf("pending: got %d, want 50", got)
		}
		if all := asideOf(t, path); len(all) != 0 {
			t.Errorf("set aside: %q, want nothing left", all)
		}
	})
	t.Run("a copy that a kill has cut is made anew", func(t *testing.T) {
		path := killed(t, 50)
		log := only(t, path, "*.mem")
		mustDo(t, os.MkdirAll(filepath.Join(path, "set-aside", "start"), 0o700))
		mustDo(t, os.WriteFile(filepath.Join(path, "set-aside", "start", filepath.Base(log)+".part"), []byte("half"), 0o600))
		info, err := os.Stat(log)
		mustDo(t, err)
		flip(t, log, dataSize(info)*3/10)
		hurt, err := os.ReadFile(log)
		mustDo(t, err)
		damage := openDamaged(t, path)
		kept, err := os.ReadFile(filepath.Join(damage.Copies, filepath.Base(log)))
		if err != nil || !bytes.Equal(kept, hurt) {
			t.Errorf("copy has %d bytes, error %v; want the %d of the damaged log", len(kept), err, len(hurt))
		}
	})
}

func TestRestored(t *testing.T) {
	good := killed(t, 50)
	path := t.TempDir()
	mustDo(t, copyTree(good, path))
	log := only(t, path, "*.mem")
	info, err := os.Stat(log)
	mustDo(t, err)
	flip(t, log, dataSize(info)*3/10)
	note := filepath.Join(path, "damage")
	if damage := openDamaged(t, path); !strings.Contains(damage.Error(), note) {
		t.Errorf("got %q, want the file of the note in it", damage)
	}
	openDamaged(t, path)
	t.Run("a store whose files have been put back is looked at again", func(t *testing.T) {
		mustDo(t, os.RemoveAll(filepath.Join(path, "badger")))
		mustDo(t, os.Remove(filepath.Join(path, "hwm")))
		mustDo(t, copyTree(filepath.Join(good, "badger"), filepath.Join(path, "badger")))
		mustDo(t, copySparse(filepath.Join(good, "hwm"), filepath.Join(path, "hwm")))
		if got := pendingOf(t, mustOpen(t, Options{Path: path})); got != 50 {
			t.Errorf("pending: got %d, want 50", got)
		}
		if _, err := os.Stat(note); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("note: got %v, want it gone", err)
		}
	})
	t.Run("nothing that is older hides what was found missing", func(t *testing.T) {
		for name, hide := range map[string]func(path string) error{
			"side file":    func(path string) error { return createSide(filepath.Join(path, "hwm"), 3) },
			"no side file": func(path string) error { return os.Remove(filepath.Join(path, "hwm")) },
			"no database": func(path string) error {
				return errors.Join(os.RemoveAll(filepath.Join(path, "badger")), os.Remove(filepath.Join(path, "hwm")))
			},
		} {
			other := t.TempDir()
			mustDo(t, copyTree(good, other))
			log := only(t, other, "*.mem")
			flip(t, log, dataSize(info)*3/10)
			openDamaged(t, other)
			mustDo(t, hide(other))
			if damage := openDamaged(t, other); !damage.CanLose {
				t.Errorf("%s: got %+v, want a loss that can be accepted", name, damage)
			}
		}
	})
	t.Run("a note that cannot be read refuses, and is named", func(t *testing.T) {
		other := t.TempDir()
		mustDo(t, copyTree(good, other))
		mustDo(t, os.WriteFile(filepath.Join(other, "damage"), []byte("{"), 0o600))
		if damage := openDamaged(t, other); !strings.Contains(damage.Error(), filepath.Join(other, "damage")) {
			t.Errorf("got %q, want the file of the note in it", damage)
		}
	})
}
