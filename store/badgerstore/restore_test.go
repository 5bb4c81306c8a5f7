package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

func TestRestore(t *testing.T) {
	raw, ids := backedUp(t)
	key, other := store.NewKey(), store.NewKey()
	for name, c := range map[string]struct{ from, to, read []store.Key }{
		"encrypted, with the same key":  {[]store.Key{key}, []store.Key{key}, nil},
		"encrypted, with another key":   {[]store.Key{key}, []store.Key{other}, []store.Key{key}},
		"encrypted on the way":          {nil, []store.Key{key}, nil},
		"encrypted no more":             {[]store.Key{key}, nil, []store.Key{key}},
		"with an earlier key in a list": {[]store.Key{key}, []store.Key{other, key}, nil},
	} {
		t.Run(name+" it holds the same", func(t *testing.T) {
			raw, ids := backedUp(t, c.from...)
			path := filepath.Join(t.TempDir(), "new")
			mustDo(t, restoreTo(path, bytes.NewReader(raw), c.to, c.read))
			s := mustOpen(t, Options{Path: path, Keys: c.to})
			for _, id := range ids {
				if m, body, err := s.Load(t.Context(), id); err != nil || len(body) != m.Size || len(body) != 2000 {
					t.Fatalf("Load: %d bytes, error %v", len(body), err)
				}
			}
			want := 0
			if c.to != nil {
				want = 1
			}
			if got := s.Keys(); pendingOf(t, s) != len(ids) || len(got) != want || want == 1 && got[0] != c.to[0].Fingerprint() {
				t.Errorf("%d pending, keys %q; want %d and the first key", pendingOf(t, s), got, len(ids))
			}
		})
	}
	t.Run("into a folder with anything in it is refused, and touches nothing", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path})
		fill(t, s, 1, 10)
		err := restoreTo(path, bytes.NewReader(raw), nil, nil)
		if !errors.Is(err, ErrLocked) {
			t.Errorf("into a store in use: got error %v, want ErrLocked", err)
		}
		mustDo(t, s.Close())
		before := state(t, path)
		if err := restoreTo(path, bytes.NewReader(raw), nil, nil); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("into a store: got error %v", err)
		}
		if state(t, path) != before {
			t.Error("files have changed")
		}
		other := t.TempDir()
		mustDo(t, os.WriteFile(filepath.Join(other, "notes.txt"), nil, 0o600))
		if err := restoreTo(other, bytes.NewReader(raw), nil, nil); !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), "notes.txt") {
			t.Errorf("into another folder: got error %v", err)
		}
	})
	t.Run("of a damaged backup leaves the folder as it was", func(t *testing.T) {
		damaged := bytes.NewReader(raw[:len(raw)-1])
		there, cut, none := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "none")
		mustDo(t, os.Mkdir(filepath.Join(cut, restoringFolder), 0o700))
		for _, path := range []string{there, cut, none} {
			damaged.Reset(raw[:len(raw)-1])
			if err := restoreTo(path, damaged, nil, nil); !errors.Is(err, ErrBackup) {
				t.Errorf("got error %v, want ErrBackup", err)
			}
		}
		if _, err := os.Stat(none); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the folder that it made is there, error %v", err)
		}
		left(t, there)
		if s, err := Open(Options{Path: cut}); !errors.Is(err, ErrRestoring) {
			t.Errorf("where another was cut off: Open: got store %v, error %v; want ErrRestoring", s, err)
		}
	})
	t.Run("without the key of the backup is refused", func(t *testing.T) {
		key := store.NewKey()
		locked, _ := backedUp(t, key)
		for name, keys := range map[string][]store.Key{"none": nil, "another": {store.NewKey()}} {
			path := filepath.Join(t.TempDir(), "new")
			var wrong *KeyError
			err := restoreTo(path, bytes.NewReader(locked), keys, nil)
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), key.Fingerprint()) {
				t.Errorf("%s: got error %v, want a KeyError with %s", name, err, key.Fingerprint())
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: the folder is there, error %v", name, err)
			}
		}
	})
	t.Run("a frame of an encrypted backup cannot be moved to another place", func(t *testing.T) {
		key := store.NewKey()
		s := mustOpen(t, Options{Path: t.TempDir(), Keys: []store.Key{key}})
		fill(t, s, 3, 500_000)
		locked := backupOf(t, s, store.BackupOptions{})
		err := restoreTo(filepath.Join(t.TempDir(), "new"), bytes.NewReader(swapFrames(t, locked)), []store.Key{key}, nil)
		if !errors.Is(err, ErrBackup) || !strings.Contains(err.Error(), "does not open") {
			t.Errorf("got error %v, want ErrBackup of a frame that does not open", err)
		}
	})
	t.Run("a full disk ends it and leaves nothing", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "new")
		_, err := Restore(t.Context(), RestoreOptions{
			From: bytes.NewReader(raw), Path: path, free: func(string) (int64, error) { return floor - 1, nil },
		})
		if !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("got error %v, want ErrNoSpace", err)
		}
		left(t, path)
	})
	t.Run("an end of its context ends it and leaves nothing", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		path := filepath.Join(t.TempDir(), "new")
		_, err := Restore(ctx, RestoreOptions{From: &cancelingReader{Reader: bytes.NewReader(raw), cancel: cancel}, Path: path})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v", err)
		}
		left(t, path)
	})
	t.Run("one that was cut off at any step is no store, and the next one begins anew", func(t *testing.T) {
		for _, step := range []string{"begun", "made", "keys out", "hwm out"} {
			key := store.NewKey()
			path := filepath.Join(t.TempDir(), "new")
			b, err := openBackup(bytes.NewReader(raw), nil)
			mustDo(t, err)
			mustDo(t, makeFolder(path))
			o := RestoreOptions{Path: path, Keys: []store.Key{key}, Log: zap.NewNop(), free: freeSpace}
			r := &restoring{options: o, from: b, path: filepath.Join(path, restoringFolder)}
			if step == "begun" {
				mustDo(t, os.Mkdir(r.path, 0o700))
			} else {
				mustDo(t, r.run(t.Context()))
			}
			for _, name := range map[string][]string{"keys out": {"keys"}, "hwm out": {"keys", "hwm"}}[step] {
				mustDo(t, os.Rename(filepath.Join(r.path, name), filepath.Join(path, name)))
			}
			if s, err := Open(Options{Path: path, Keys: []store.Key{key}}); !errors.Is(err, ErrRestoring) {
				t.Fatalf("%s: Open: got store %v, error %v; want ErrRestoring", step, s, err)
			}
			if err := restoreTo(path, bytes.NewReader(raw), []store.Key{key}, nil); err != nil {
				t.Fatalf("%s: again: %v", step, err)
			}
			if got := pendingOf(t, mustOpen(t, Options{Path: path, Keys: []store.Key{key}})); got != len(ids) {
				t.Errorf("%s: pending: got %d, want %d", step, got, len(ids))
			}
		}
	})
	t.Run("one that was cut off at its last step is done", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "new")
		err := restoreTo(path, bytes.NewReader(raw), nil, nil)
		mustDo(t, err)
		mustDo(t, os.Mkdir(filepath.Join(path, restoringFolder), 0o700))
		if got := pendingOf(t, mustOpen(t, Options{Path: path})); got != len(ids) {
			t.Errorf("pending: got %d, want %d", got, len(ids))
		}
		if _, err := os.Stat(filepath.Join(path, restoringFolder)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("its folder is still there, error %v", err)
		}
	})
	t.Run("nothing of it is open to others", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "new")
		err := restoreTo(path, bytes.NewReader(raw), nil, nil)
		mustDo(t, err)
		mustDo(t, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has the mode %v, error %v", name, info.Mode(), err)
			}
			return nil
		}))
	})
	t.Run("looking at a backup writes nothing", func(t *testing.T) {
		got, err := CheckBackup(t.Context(), RestoreOptions{From: bytes.NewReader(raw)})
		if err != nil || got.Counts.Messages != int64(len(ids)) || time.Since(got.CreatedAt) > time.Hour {
			t.Errorf("got %+v, error %v", got, err)
		}
		mustDo(t, CheckSums(bytes.NewReader(raw)))
		if err := CheckSums(bytes.NewReader(raw[:len(raw)-1])); !errors.Is(err, ErrBackup) {
			t.Errorf("cut: got error %v, want ErrBackup", err)
		}
	})
}

// cancelingReader cancels before its second call.
type cancelingReader struct {
	io.Reader
	cancel context.CancelFunc
	calls  int
}

func (r *cancelingReader) Read(p []byte) (int, error) {
	if r.calls++; r.calls == 2 {
		r.cancel()
	}
	return r.Reader.Read(p[:min(len(p), 4096)])
}
