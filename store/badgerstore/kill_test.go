package badgerstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func TestMain(m *testing.M) {
	syscall.Umask(0o077) // as the program does
	if path := os.Getenv("BADGERSTORE_TEST_FILL"); path != "" {
		os.Exit(fillUntilKilled(path))
	}
	if path := os.Getenv("BADGERSTORE_TEST_BATCHES"); path != "" {
		os.Exit(acceptBatches(path))
	}
	if arguments := os.Getenv("BADGERSTORE_TEST_COMMITS"); arguments != "" {
		os.Exit(killAtCommit(arguments))
	}
	if file := os.Getenv("BADGERSTORE_TEST_RESTORE"); file != "" {
		os.Exit(restoreUntilKilled(file))
	}
	if path := os.Getenv("BADGERSTORE_TEST_LARGE"); path != "" {
		os.Exit(acceptLarge(path))
	}
	if path := os.Getenv("BADGERSTORE_TEST_FOLLOWING"); path != "" {
		os.Exit(failUntilKilled(path))
	}
	os.Exit(m.Run())
}

// fillUntilKilled accepts messages from several goroutines, and prints the id of each that is acknowledged.
func fillUntilKilled(path string) int {
	s, err := Open(Options{Path: path, Keys: keysOfTest()})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	var out sync.Mutex
	var all sync.WaitGroup
	if os.Getenv("BADGERSTORE_TEST_BACKUPS") != "" {
		all.Go(func() {
			for {
				b, err := s.Backup(context.Background(), store.BackupOptions{})
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, b)
				_ = b.Close()
			}
		})
	}
	for worker := range 8 {
		all.Go(func() {
			body := bytes.Repeat([]byte{byte(worker)}, 10_000*worker)
			for range 100_000 {
				id, err := store.NewMessageID()
				if err != nil {
					return
				}
				m := store.Message{ID: id, Recipients: []store.Recipient{{Destination: "alerts"}}}
				if _, _, err := s.Accept(context.Background(), m, body); err != nil {
					return
				}
				out.Lock()
				fmt.Println(id)
				out.Unlock()
			}
		})
	}
	all.Wait()
	return 0
}

// keysOfTest returns the keys that a process of a test is given.
func keysOfTest() (keys []store.Key) {
	for _, text := range strings.Fields(os.Getenv("BADGERSTORE_TEST_KEYS")) {
		k, err := store.ParseKey(text)
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	return keys
}

func TestFaultKill(t *testing.T) {
	acknowledged := 0
	t.Run("what was acknowledged before a kill is there after it", func(t *testing.T) { acknowledged += testKill(t) })
	t.Run("also with encryption, with another key at each start", func(t *testing.T) { acknowledged += testKill(t, manyKeys(4)...) })
	t.Run("also while backups are made", func(t *testing.T) {
		t.Setenv("BADGERSTORE_TEST_BACKUPS", "1")
		acknowledged += testKill(t, store.NewKey())
	})
	t.Attr("fault", fmt.Sprintf("kill: 9 times while a store is filled, also with encryption and a new key at each start, also during backups: "+
		"%d acknowledged, 0 missing", acknowledged))
}

// testKill kills a store at each of several starts, whose first key is the next of keys. It returns how many messages were
// acknowledged.
func testKill(t *testing.T, keys ...store.Key) int {
	t.Helper()
	path := t.TempDir()
	var acknowledged []store.MessageID
	for round := range 3 {
		given := slices.Clone(keys[:min(len(keys), round+1)])
		slices.Reverse(given)
		var texts []string
		for _, k := range given {
			texts = append(texts, k.Text())
		}
		t.Setenv("BADGERSTORE_TEST_KEYS", strings.Join(texts, " "))
		for _, text := range runAndKill(t, "BADGERSTORE_TEST_FILL="+path, 60+round*60) {
			id, err := store.ParseMessageID(text)
			if err != nil {
				t.Fatalf("the filling process says %q", text)
			}
			acknowledged = append(acknowledged, id)
		}
		s := mustOpen(t, Options{Path: path, Keys: given})
		if found, err := filepath.Glob(filepath.Join(path, "backup-*")); err != nil || len(found) > 0 {
			t.Errorf("round %d: of a backup is left %q, error %v", round, found, err)
		}
		for _, id := range acknowledged {
			m, body, err := s.Load(t.Context(), id)
			if err != nil || len(body) != m.Size {
				t.Fatalf("round %d: Load: %d bytes of %d, error %v", round, len(body), m.Size, err)
			}
		}
		if got := pendingOf(t, s); got < len(acknowledged) {
			t.Errorf("round %d: pending: got %d, want at least the %d acknowledged", round, got, len(acknowledged))
		}
		if len(given) > 0 {
			waitRotated(t, s)
			if got := s.Keys(); !slices.Equal(got, []string{given[0].Fingerprint()}) {
				t.Errorf("round %d: keys needed: %q, want the first alone", round, got)
			}
		}
		mustDo(t, s.Close())
	}
	return len(acknowledged)
}

// restoreUntilKilled restores into one folder after the other. It prints the number of each, and a dot now and then, so
// that it can be killed at any moment.
func restoreUntilKilled(file string) int {
	go func() {
		for range time.Tick(5 * time.Millisecond) {
			fmt.Println(".")
		}
	}()
	for n := range 1000 {
		from, err := os.Open(file)
		if err == nil {
			fmt.Println(n)
			_, err = Restore(context.Background(), RestoreOptions{From: from, Path: filepath.Join(filepath.Dir(file), fmt.Sprint("store", n))})
		}
		if err != nil {
			fmt.Println("error:", err)
			return 1
		}
		_ = from.Close()
	}
	return 0
}

func TestFaultKillRestore(t *testing.T) {
	t.Run("a restore that was killed left no store, and another makes it whole", func(t *testing.T) {
		raw, ids := backedUp(t)
		kills := []int{3, 10, 20, 33, 50}
		for _, lines := range kills {
			file := filepath.Join(t.TempDir(), "backup")
			mustDo(t, os.WriteFile(file, raw, 0o600))
			begun := 0
			for _, line := range runAndKill(t, "BADGERSTORE_TEST_RESTORE="+file, lines) {
				if line != "." {
					begun++
				}
			}
			for n := range begun {
				path := filepath.Join(filepath.Dir(file), fmt.Sprint("store", n))
				if _, err := os.Stat(filepath.Join(path, "badger")); err != nil {
					// Killed on the way.
					if _, err := os.Stat(filepath.Join(path, restoringFolder)); err == nil {
						if _, err := Open(Options{Path: path}); !errors.Is(err, ErrRestoring) {
							t.Errorf("Open: got error %v, want ErrRestoring", err)
						}
					}
					if err := restoreTo(path, bytes.NewReader(raw), nil, nil); err != nil {
						t.Fatalf("again: %v", err)
					}
				}
				if got := pendingOf(t, mustOpen(t, Options{Path: path})); got != len(ids) {
					t.Errorf("restore %d of %d: pending: got %d, want %d", n+1, begun, got, len(ids))
				}
			}
		}
		t.Attr("fault", fmt.Sprintf("kill: %d times during restores of a backup: no half store is opened, and another restore makes it whole", len(kills)))
	})
}

// runAndKill runs this program again, with a variable, until it has written so many lines, and kills it. It returns all
// lines that have come whole.
func runAndKill(t *testing.T, variable string, lines int) (all []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), variable)
	out, err := cmd.StdoutPipe()
	mustDo(t, err)
	mustDo(t, cmd.Start())
	reader := bufio.NewReader(out)
	for {
		text, err := reader.ReadString('\n')
		if err != nil {
			break // a last line without its end is torn
		}
		if all = append(all, strings.TrimSuffix(text, "\n")); len(all) == lines {
			mustDo(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err == nil || len(all) < lines {
		t.Fatalf("the process ended by itself: %v, after %q", err, all)
	}
	return all
}

// acceptBatches accepts batches from several goroutines, and prints the event of each that is acknowledged, which says
// how many messages it has.
func acceptBatches(path string) int {
	s, err := Open(Options{Path: path})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	var out sync.Mutex
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(worker)))
			for n := range 100_000 {
				size := 1 + random.IntN(400)
				event := fmt.Sprintf("e%d-%d-%d.%d.%s", os.Getpid(), worker, n, size, strings.Repeat("x", 3000))
				body := make([]byte, []int{100, 5000, 60_000}[random.IntN(3)])
				if _, err := s.AcceptAll(context.Background(), batchOf(event, size, body)); err != nil {
					return
				}
				out.Lock()
				fmt.Println(event)
				out.Unlock()
			}
		})
	}
	all.Wait()
	return 0
}

func batchOf(event string, size int, body []byte) iter.Seq2[store.Post, error] {
	return func(yield func(store.Post, error) bool) {
		for n := range size {
			id, err := store.NewMessageID()
			m := store.Message{ID: id, Event: event, Recipients: []store.Recipient{
				{Destination: "alerts"}, {Destination: "alerts", Order: fmt.Sprint(n % 5)}, {Destination: "audit", Order: event[:20]},
			}}
			if !yield(store.Post{Message: m, Body: body}, err) {
				return
			}
		}
	}
}

func TestFaultKillBatches(t *testing.T) {
	t.Run("of each batch all messages are there after a kill, or none", func(t *testing.T) {
		path := t.TempDir()
		acknowledged := make(map[string]bool)
		for round := range 4 {
			for _, event := range runAndKill(t, "BADGERSTORE_TEST_BATCHES="+path, 3+round) {
				acknowledged[event] = true
			}
			s := mustOpen(t, Options{Path: path})
			found := eventsIn(t, s)
			total := 0
			for event, n := range found {
				var size int
				if _, err := fmt.Sscan(strings.Split(event, ".")[1], &size); err != nil || n != size {
					t.Errorf("round %d: a batch of %d has %d messages, error %v; want all", round, size, n, err)
				}
				total += n
			}
			for event := range acknowledged {
				if found[event] == 0 {
					t.Errorf("round %d: an acknowledged batch is missing", round)
				}
			}
			if got := s.Pending(); got != int64(3*total) {
				t.Errorf("round %d: pending: got %d, want the %d of %d messages", round, got, 3*total, total)
			}
			if _, n, err := countPending(s.db); err != nil || n != s.Pending() {
				t.Errorf("round %d: in the queues: %d, error %v; want %d", round, n, err, s.Pending())
			}
			if got := keysIn(t, s); got["o"] != 0 {
				t.Errorf("round %d: keys: %v, want no batch left", round, got)
			}
			mustDo(t, s.Close())
		}
		t.Attr("fault", fmt.Sprintf("kill: 4 times while batches of up to 400 messages are accepted: %d acknowledged, 0 missing; of each all is there "+
			"or nothing", len(acknowledged)))
	})
}

// eventsIn counts the messages of each event.
func eventsIn(tb testing.TB, s *Store) map[string]int {
	tb.Helper()
	found := make(map[string]int)
	mustDo(tb, s.db.View(func(txn *view) error {
		return txn.each(context.Background(), func(key, value []byte) error {
			if key[0] != kindMessage {
				return nil
			}
			content, err := txn.open(key, value)
			if err != nil {
				return err
			}
			m, err := decodeMessage(store.MessageID(key[1:]), content)
			found[m.Event]++
			return err
		})
	}))
	return found
}
