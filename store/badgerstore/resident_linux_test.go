package badgerstore

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/postern-relay/postern/store"
)

// mappedTables returns how many kilobytes of the tables in a folder are in the memory of this process (proc_pid_smaps(5)).
func mappedTables(tb testing.TB, folder string) (kilobytes int) {
	tb.Helper()
	f, err := os.Open("/proc/self/smaps")
	mustDo(tb, err)
	defer f.Close()
	ours := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if first, _, _ := strings.Cut(line, " "); !strings.HasSuffix(first, ":") { // a mapping, and not what is told of one
			_, name, _ := strings.Cut(line, "/")
			ours = filepath.Dir("/"+name) == folder && strings.HasSuffix(name, ".sst")
		}
		if n := 0; ours && strings.HasPrefix(line, "Rss:") {
			if _, err := fmt.Sscanf(line, "Rss: %d kB", &n); err != nil {
				tb.Fatalf("%q: %v", line, err)
			}
			kilobytes += n
		}
	}
	return kilobytes
}

func readAll(tb testing.TB, s *Store, ids []store.MessageID, want []byte) {
	tb.Helper()
	for _, id := range ids {
		if _, body, err := s.Load(context.Background(), id); err != nil || !bytes.Equal(body, want) {
			tb.Errorf("message %s: %d bytes, error %v; want %d as they were", id, len(body), err, len(want))
			return
		}
	}
}

func TestTablesLeaveMemory(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 20_000)
	t.Run("a trim leaves nothing of them in memory, and they are read as before", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path})
		ids := fill(t, s, 50, len(body))
		mustDo(t, s.Close())
		s = mustOpen(t, Options{Path: path})
		folder := filepath.Join(path, "badger")
		got := 0
		for range 100 { // the store may trim by itself just then
			readAll(t, s, ids, body)
			if got = mappedTables(t, folder); got >= 500 {
				break
			}
		}
		if got < 500 {
			t.Fatalf("before: %d KiB in memory, want most of the 1,000 that were read", got)
		}
		mustDo(t, s.trim())
		if got := mappedTables(t, folder); got != 0 {
			t.Errorf("after: %d KiB in memory, want none", got)
		}
		readAll(t, s, ids, body)
	})
	t.Run("tables come and go meanwhile, and nothing that is read changes", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		ids := fill(t, s, 20, len(body))
		var work sync.WaitGroup
		done := make(chan struct{})
		work.Go(func() {
			defer close(done)
			for range 40 { // 32 MiB: each 8 of them become a table, and two of those are merged
				if _, err := s.AcceptAll(context.Background(), func(yield func(store.Post, error) bool) {
					for range 40 {
						if !yield(store.Post{Message: newMessage(t, "alerts"), Body: body}, nil) {
							return
						}
					}
				}); err != nil {
					t.Errorf("AcceptAll: %v", err)
					return
				}
			}
		})
		for range 2 {
			work.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						if err := s.trim(); err != nil {
							t.Errorf("trim: %v", err)
							return
						}
						readAll(t, s, ids, body)
					}
				}
			})
		}
		work.Wait()
		if n := len(s.db.Tables()); n == 0 {
			t.Error("no tables, want some to have come")
		}
		readAll(t, s, ids, body)
	})
}

func TestMappingOf(t *testing.T) {
	held := map[uint64]bool{12: true, 13: false}
	for line, want := range map[string]bool{
		"7f1200000000-7f1200800000 rw-s 00000000 fe:00 1234                       /data/badger/000012.sst":           true,
		"7f1200000000-7f1200800000 rw-s 00000000 fe:00 1234                       /data/badger/000013.sst":           false,
		"7f1200000000-7f1200800000 rw-s 00000000 fe:00 1234                       /data/badger/000014.sst":           false,
		"7f1200000000-7f1200800000 rw-s 00000000 fe:00 1234                       /other/badger/000012.sst":          false,
		"7f1200000000-7f1200800000 rw-s 00000000 fe:00 1234                       /data/badger/000012.sst (deleted)": false,
		"7f1200000000-7f1200800000 rw-p 00000000 fe:00 1234                       /data/badger/000012.sst":           false,
		"7f1200000000-7f1200800000 rw-s 00000000 fe:00 1234                       /data/badger/00012.mem":            false,
		"7f1200000000-7f1200800000 rw-p 00000000 00:00 0 ":                                                           false,
		"7f1200000000-7f1200800000 rw-p 00000000 00:00 0                          [heap]":                            false,
		"zz-7f1200800000 rw-s 00000000 fe:00 1234 /data/badger/000012.sst":                                           false,
	} {
		from, to, ok := mappingOf(line, "/data/badger", held)
		if ok != want || want && (from != 0x7f1200000000 || to != 0x7f1200800000) {
			t.Errorf("%s: got %x to %x, %v; want %v", line, from, to, ok, want)
		}
	}
}
