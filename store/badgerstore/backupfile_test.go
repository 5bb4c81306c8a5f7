package badgerstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// swapFrames exchanges two frames of records and makes the sums anew, as somebody without the key could.
func swapFrames(tb testing.TB, raw []byte) []byte {
	tb.Helper()
	b, err := openSums(bytes.NewReader(raw))
	mustDo(tb, err)
	type frame struct {
		kind    byte
		payload []byte
	}
	var frames []frame
	for kind := byte(0); kind != frameEnd; {
		var payload []byte
		kind, payload, err = b.frame()
		mustDo(tb, err)
		frames = append(frames, frame{kind, payload})
	}
	if len(frames) < 3 {
		tb.Fatalf("%d frames, want 3 at least", len(frames))
	}
	frames[0], frames[1] = frames[1], frames[0]
	head := len(backupMagic) + 5
	head += int(binary.BigEndian.Uint32(raw[head-4:])) // the header stays as it is
	var out bytes.Buffer
	w, err := newBackupWriter(&out, mustKeyring(tb), backupHeader{})
	mustDo(tb, err)
	mustDo(tb, w.out.Flush())
	out.Reset()
	w.sum.Reset()
	mustDo(tb, w.write(raw[:head]))
	mustDo(tb, w.write(w.sum.Sum(nil)))
	for _, f := range frames {
		mustDo(tb, w.frame(f.kind, f.payload))
	}
	mustDo(tb, w.out.Flush())
	return out.Bytes()
}

func TestBackupOfAnotherFormat(t *testing.T) {
	written := func(h backupHeader) []byte {
		var out bytes.Buffer
		w, err := newBackupWriter(&out, mustKeyring(t), h)
		mustDo(t, err)
		mustDo(t, w.put([]byte("m1"), []byte("content")))
		mustDo(t, w.end())
		return out.Bytes()
	}
	now := backupHeader{CreatedAt: time.Now(), Format: formatVersion}
	newer := now
	newer.Format++
	for name, c := range map[string]struct {
		raw  []byte
		says string // nothing if it is read
	}{
		"this one is read":                       {written(now), ""},
		"a newer one of the file is refused":     {bytes.Replace(written(now), []byte("backup 1\n"), []byte("backup 2\n"), 1), "another format"},
		"a newer one of the store is refused":    {written(newer), fmt.Sprintf("of format %d, and this program", newer.Format)},
		"something else is refused":              {[]byte("PK\x03\x04 an archive, and no backup"), "does not begin like one"},
		"an empty file is refused":               {nil, "ends early"},
		"one without a header is refused":        {append([]byte(backupMagic), written(now)[len(backupMagic)+20:]...), "damaged"},
		"one of nothing but a header is refused": {written(now)[:len(backupMagic)+5+frameSize(written(now))+32], "ends early"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "new")
			_, err := Restore(t.Context(), RestoreOptions{From: bytes.NewReader(c.raw), Path: path})
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got error %v, want %q", err, c.says)
			}
			if err != nil {
				left(t, path)
			}
		})
	}
}

// frameSize returns the length of the first payload of a backup.
func frameSize(raw []byte) int { return int(binary.BigEndian.Uint32(raw[len(backupMagic)+1:])) }

func FuzzBackup(f *testing.F) {
	key := store.NewKey()
	var seeds [][]byte
	for _, keys := range [][]store.Key{nil, {key}} {
		ring, err := newKeyring(keys, forBackup)
		mustDo(f, err)
		var out bytes.Buffer
		w, err := newBackupWriter(&out, ring, backupHeader{CreatedAt: time.Now(), Format: formatVersion})
		mustDo(f, err)
		for n := range 3 {
			mustDo(f, w.put([]byte(fmt.Sprintf("m%d", n)), []byte("content")))
		}
		mustDo(f, w.end())
		seeds = append(seeds, out.Bytes(), out.Bytes()[:out.Len()/2])
	}
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Add([]byte(backupMagic))
	f.Add([]byte(backupMagic + "h\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		sums := CheckSums(bytes.NewReader(raw))
		var last []byte
		b, err := openBackup(bytes.NewReader(raw), []store.Key{key})
		if err == nil {
			err = b.each(func(key, _ []byte) error {
				if bytes.Compare(key, last) <= 0 || !inBackup(key[0], b.header.IncludeKeys) {
					t.Errorf("got the key %x behind %x", key, last)
				}
				last = bytes.Clone(key)
				return nil
			})
		}
		if err == nil && sums != nil {
			t.Errorf("what is whole has wrong sums: %v", sums)
		}
	})
}

// FuzzBackupRecords reads what a frame with right sums may hold.
func FuzzBackupRecords(f *testing.F) {
	f.Add([]byte("\x02m1\x07content"), true)
	f.Add([]byte("\x02s1\x00"), true)
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), false)
	f.Fuzz(func(t *testing.T, payload []byte, keys bool) {
		b := &backupReader{header: backupHeader{IncludeKeys: keys}}
		size := 0
		err := b.records(payload, func(key, content []byte) error {
			size += len(key) + len(content)
			return nil
		})
		if err == nil && size > len(payload) {
			t.Errorf("%d bytes of %d", size, len(payload))
		}
	})
}
