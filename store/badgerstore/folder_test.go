package badgerstore

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What tells that the entries of new files are on disk is the time of the folder's latest change, and that alone is no
// proof as long as another change could have the same.
func TestSyncFolder(t *testing.T) {
	folder := t.TempDir()
	dir, err := os.Open(folder)
	mustDo(t, err)
	defer dir.Close()
	changedAt := func(at time.Time) { mustDo(t, os.Chtimes(folder, at, at)) }
	s := &Store{dir: dir}
	for _, step := range []struct {
		name string
		do   func()
		want bool // known afterwards
	}{
		{"a change of just now is not trusted", func() { changedAt(time.Now()) }, false},
		{"nor one from ahead, by a clock that was set back", func() { changedAt(time.Now().Add(time.Hour)) }, false},
		{"an old one is", func() { changedAt(time.Now().Add(-time.Minute)) }, true},
		{"and stays so", func() {}, true},
		{"a new file is another change", func() { mustDo(t, os.WriteFile(filepath.Join(folder, "1.mem"), nil, 0o600)) }, false},
	} {
		step.do()
		mustDo(t, s.syncFolder())
		info, err := dir.Stat()
		mustDo(t, err)
		if got := info.ModTime().Equal(s.folderSynced); got != step.want {
			t.Errorf("%s: known is %t, want %t", step.name, got, step.want)
		}
	}
}
