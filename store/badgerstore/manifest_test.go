package badgerstore

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/postern-relay/postern/store"
)

// giveUp appends to a manifest what a flush or a merge leaves there whose sync has failed.
func giveUp(tb testing.TB, path string, made uint64, deleted ...uint64) {
	tb.Helper()
	set := &pb.ManifestChangeSet{Changes: []*pb.ManifestChange{{Op: pb.ManifestChange_CREATE, Id: made, Level: 6}}}
	for _, id := range deleted {
		set.Changes = append(set.Changes, &pb.ManifestChange{Op: pb.ManifestChange_DELETE, Id: id})
	}
	raw, err := proto.Marshal(set)
	mustDo(tb, err)
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), crc32.Checksum(raw, castagnoli()))
	f, err := os.OpenFile(filepath.Join(path, "badger", badger.ManifestFilename), os.O_APPEND|os.O_WRONLY, 0)
	mustDo(tb, err)
	_, err = f.Write(append(head, raw...))
	mustDo(tb, errors.Join(err, f.Close()))
}

func TestGivenUpChanges(t *testing.T) {
	id := func(tb testing.TB, path string) uint64 {
		tb.Helper()
		n, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(only(tb, path, "*.sst")), ".sst"), 10, 64)
		mustDo(tb, err)
		return n
	}
	t.Run("what Badger has written of a change and given up is taken back, and all is there", func(t *testing.T) {
		for _, tries := range []int{1, 2} { // Badger tries again
			path := stopped(t, 50)
			for try := range tries {
				giveUp(t, path, uint64(900+try), id(t, path))
			}
			giveUp(t, path, 950) // of a flush
			s := mustOpen(t, Options{Path: path})
			if got := pendingOf(t, s); got != 50 {
				t.Errorf("pending: got %d, want 50", got)
			}
			mustDo(t, s.Close())
			if got := pendingOf(t, mustOpen(t, Options{Path: path})); got != 50 {
				t.Errorf("pending at the next start: got %d, want 50", got)
			}
		}
	})
	t.Run("a table that is missing is no such change", func(t *testing.T) {
		path := stopped(t, 50)
		lost := only(t, path, "*.sst")
		giveUp(t, path, 900, id(t, path))
		mustDo(t, os.Remove(lost))
		if damage := openDamaged(t, path); damage.From == 0 && damage.CanLose {
			t.Errorf("got %+v, want the gap named, or no way on", damage)
		}
	})
	t.Run("each table of a store that was restored is missed", func(t *testing.T) {
		tables := 0
		for n := 0; n == 0 || n < tables; n++ {
			raw, _ := backedUpLarge(t)
			path := filepath.Join(t.TempDir(), "restored")
			mustDo(t, restoreTo(path, raw, nil, nil))
			found, err := filepath.Glob(filepath.Join(path, "badger", "*.sst"))
			mustDo(t, err)
			if tables = len(found); tables < 2 {
				t.Fatalf("got tables %q, want several", found)
			}
			mustDo(t, os.Remove(found[n]))
			openDamaged(t, path)
		}
	})
}

// backedUpLarge returns a backup that a restore makes several tables of.
func backedUpLarge(t *testing.T) (raw *strings.Reader, ids []store.MessageID) {
	t.Helper()
	s := mustOpen(t, Options{Path: t.TempDir(), Log: zap.NewNop()})
	ids = fill(t, s, 20, 1<<20)
	var out strings.Builder
	_, err := s.WriteBackup(t.Context(), &out, store.BackupOptions{})
	mustDo(t, err)
	return strings.NewReader(out.String()), ids
}

func TestFailedManifest(t *testing.T) {
	t.Run("a manifest that cannot be written ends the store", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		s.db.bridge.Warningf("While running doCompact: %v\n", &os.PathError{Op: "sync", Path: "/x/MANIFEST", Err: errors.New("input/output error")})
		select {
		case <-s.Broken():
		case <-time.After(10 * time.Second):
			t.Error("Broken is open, want it closed")
		}
		mustDo(t, s.Close())
		mustDo(t, s.db.Close()) // Close leaves that to the end of the process
	})
}
