package badgerstore

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// logEntry makes an entry of a log, whole or with lengths that are not its own.
func logEntry(key, value []byte, keyLength, valueLength uint64) []byte {
	raw := binary.AppendUvarint(binary.AppendUvarint([]byte{0, 0}, keyLength), valueLength)
	raw = append(append(append(raw, 0), key...), value...) // 0 is the expiry
	return binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli()))
}

func TestCheckLog(t *testing.T) {
	head := make([]byte, logHead)
	good := logEntry([]byte("key"), []byte("value"), 3, 5)
	rest := make([]byte, 200)
	whole := int64(logHead + len(good))
	for name, c := range map[string]struct {
		raw []byte
		end int64 // 0 for nowhere
	}{
		"an empty log":                               {head, 0},
		"a log that ends with zeros":                 {append(bytes.Clone(good), rest...), 0},
		"a log that ends within an entry":            {append(bytes.Clone(good), good[:4]...), 0},
		"a checksum that does not match":             {append(bytes.Clone(good), append(logEntry([]byte("kez"), nil, 2, 1), rest...)...), 0},
		"a value longer than the rest":               {append(bytes.Clone(good), append(logEntry(nil, nil, 3, 1<<20), rest...)...), whole},
		"a value of 4 GiB":                           {append(bytes.Clone(good), append(logEntry(nil, nil, 3, 1<<32-1), rest...)...), whole},
		"lengths whose sum is beyond 32 bits":        {append(bytes.Clone(good), append(logEntry(nil, nil, 100, 1<<32-50), rest...)...), whole},
		"a length that is too long for a number":     {append(bytes.Clone(good), bytes.Repeat([]byte{0xff}, 40)...), whole},
		"a key that is too long, which Badger knows": {append(bytes.Clone(good), append(logEntry(nil, nil, 1<<16+1, 1), rest...)...), 0},
	} {
		t.Run(name, func(t *testing.T) {
			raw := append(bytes.Clone(head), c.raw...)
			want := c.end
			if want == 0 {
				want = int64(len(raw))
			}
			headed, end, err := checkLog(bytes.NewReader(raw), int64(len(raw)))
			if !headed || end != want || err != nil {
				t.Errorf("got %t, cut at %d, error %v; want %d of %d bytes", headed, end, err, want, len(raw))
			}
		})
	}
}

func TestReadyLog(t *testing.T) {
	t.Run("a log whose head is damaged loses nothing", func(t *testing.T) {
		path := killed(t, 20)
		flip(t, only(t, path, "*.mem"), 3)
		if got := pendingOf(t, mustOpen(t, Options{Path: path})); got != 20 {
			t.Errorf("pending: got %d, want 20", got)
		}
	})
	t.Run("an entry over which Badger would stumble shows as a gap, and can be accepted", func(t *testing.T) {
		path := killed(t, 20)
		log := only(t, path, "*.mem")
		raw, err := os.ReadFile(log)
		mustDo(t, err)
		second := int64(logHead) // somewhere in the middle an entry begins
		for range 20 {
			c := &counter{in: bufio.NewReader(bytes.NewReader(raw[second:])), at: second}
			if whole, _, err := c.entry(int64(len(raw))); !whole || err != nil {
				t.Fatalf("entry at %d is not whole, error %v", second, err)
			}
			second = c.at
		}
		f, err := os.OpenFile(log, os.O_RDWR, 0)
		mustDo(t, err)
		_, err = f.WriteAt(binary.AppendUvarint([]byte{0, 0, 100}, 1<<32-50), second)
		mustDo(t, errors.Join(err, f.Close()))
		if damage := openDamaged(t, path); damage.From < 2 || damage.To != 21 || !damage.CanLose {
			t.Errorf("got %+v, want a gap to commit 21 that can be accepted", damage)
		}
		mustOpen(t, Options{Path: path, AcceptLoss: true})
	})
	t.Run("files that hold nothing are made anew", func(t *testing.T) {
		path := killed(t, 20)
		for _, name := range []string{badger.KeyRegistryFileName, discardName, "000001.vlog"} {
			mustDo(t, os.WriteFile(filepath.Join(path, "badger", name), []byte("noise"), 0o600))
		}
		if got := pendingOf(t, mustOpen(t, Options{Path: path})); got != 20 {
			t.Errorf("pending: got %d, want 20", got)
		}
	})
}

func TestBottom(t *testing.T) {
	t.Run("with hardly any free disk not even what makes room is written", func(t *testing.T) {
		free := int64(1 << 40)
		s := mustOpen(t, Options{Path: t.TempDir(), Log: zap.NewNop(), free: func(string) (int64, error) { return free, nil }})
		fill(t, s, 3, 100)
		for _, d := range mustDueAll(t, s) {
			endDelivery(t, s, d)
		}
		mustDo(t, s.Pause(t.Context(), "audit", store.Pause{At: time.Now()}))
		mustDo(t, s.NoteOutage(t.Context(), "audit", store.Outage{Since: time.Now()}))
		seq := s.seq
		free = bottom - 1
		_, _, sweepErr := s.Sweep(t.Context(), time.Now().Add(time.Hour), 10)
		for i, err := range []error{sweepErr, s.Resume(t.Context(), "audit"), s.NoteOutage(t.Context(), "audit", store.Outage{})} {
			if !errors.Is(err, store.ErrNoSpace) {
				t.Errorf("call %d: got error %v, want ErrNoSpace", i, err)
			}
		}
		if s.seq != seq {
			t.Errorf("got commit %d, want still %d", s.seq, seq)
		}
		free = bottom
		mustDo(t, s.Resume(t.Context(), "audit"))
		if n, _, err := s.Sweep(t.Context(), time.Now().Add(time.Hour), 10); n != 3 || err != nil {
			t.Errorf("Sweep: %d, error %v; want 3", n, err)
		}
	})
	t.Run("a start that failed leaves room for the next, which copies no log again", func(t *testing.T) {
		path := killed(t, 20)
		info, err := os.Stat(only(t, path, "*.mem"))
		mustDo(t, err)
		obstacle := filepath.Join(path, "badger", badger.KeyRegistryFileName)
		mustDo(t, errors.Join(os.Remove(obstacle), os.MkdirAll(filepath.Join(obstacle, "x"), 0o700)))
		room := func(n int64) Options {
			return Options{Path: path, Log: zap.NewNop(), free: func(string) (int64, error) { return n, nil }}
		}
		enough := floor/2 + dataSize(info)
		if _, err := Open(room(enough - 1)); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("got error %v, want ErrNoSpace", err)
		}
		if _, err := Open(room(enough)); err == nil || errors.Is(err, store.ErrNoSpace) {
			t.Errorf("got error %v, want that of the obstacle", err)
		}
		mustDo(t, os.RemoveAll(obstacle))
		mustOpen(t, room(floor/2))
	})
}
