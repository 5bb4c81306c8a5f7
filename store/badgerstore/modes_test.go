package badgerstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestModes(t *testing.T) {
	t.Run("what others could read is closed at a start", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path})
		fill(t, s, 3, 10)
		mustDo(t, s.Close())
		open := 0
		mustDo(t, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err != nil || name == path {
				return err
			}
			open++
			if d.IsDir() {
				return os.Chmod(name, 0o755)
			}
			return os.Chmod(name, 0o644)
		}))
		mustDo(t, os.Chmod(path, 0o755))
		core, logs := observer.New(zap.WarnLevel)
		mustDo(t, mustOpen(t, Options{Path: path, Log: zap.New(core)}).Close())
		got := logs.FilterMessage("files of the store were open to other users and are closed now").All()
		if len(got) != 1 || got[0].ContextMap()["files"] != int64(open) {
			t.Errorf("got %v, want a warning of %d files", got, open)
		}
		if got := logs.FilterMessage("store folder is open to other users").Len(); got != 1 {
			t.Errorf("got %d warnings of the folder, want 1", got)
		}
		mustDo(t, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err != nil || name == path {
				return err
			}
			if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has the mode %v, error %v", name, info.Mode(), err)
			}
			return nil
		}))
	})
	t.Run("also where the folder is a link to one, and without what a volume has of its own", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "link")
		real := t.TempDir()
		mustDo(t, os.Symlink(real, path))
		mustDo(t, os.Mkdir(filepath.Join(real, "lost+found"), 0o700))
		mustDo(t, os.WriteFile(filepath.Join(real, "hwm"), nil, 0o600))
		mustDo(t, errors.Join(os.Chmod(filepath.Join(real, "lost+found"), 0o755), os.Chmod(filepath.Join(real, "hwm"), 0o644)))
		closed, err := closeModes(path)
		if err != nil || closed != 1 {
			t.Errorf("got %d closed, error %v; want the one file", closed, err)
		}
		for name, want := range map[string]fs.FileMode{"hwm": 0o600, "lost+found": 0o755} {
			if info, err := os.Stat(filepath.Join(real, name)); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: got %v, error %v; want %v", name, info, err, want)
			}
		}
	})
}
