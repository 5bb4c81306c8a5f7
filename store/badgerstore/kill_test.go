package badgerstore

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("BADGERSTORE_TEST_FILL"); path != "" {
		os.Exit(fillUntilKilled(path))
	}
	if path := os.Getenv("BADGERSTORE_TEST_BATCHES"); path != "" {
		os.Exit(acceptBatches(path))
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
	s, err := Open(Options{Path: path})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	var out sync.Mutex
	var all sync.WaitGroup
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

func TestKill(t *testing.T) {
	t.Run("what was acknowledged before a kill is there after it", func(t *testing.T) {
		path := t.TempDir()
		var acknowledged []store.MessageID
		for round := range 3 {
			for _, text := range runAndKill(t, "BADGERSTORE_TEST_FILL="+path, 60+round*60) {
				id, err := store.ParseMessageID(text)
				if err != nil {
					t.Fatalf("the filling process says %q", text)
				}
				acknowledged = append(acknowledged, id)
			}
			s := mustOpen(t, Options{Path: path})
			for _, id := range acknowledged {
				m, body, err := s.Load(t.Context(), id)
				if err != nil || len(body) != m.Size {
					t.Fatalf("round %d: Load: %d bytes of %d, error %v", round, len(body), m.Size, err)
				}
			}
			if got := pendingOf(t, s); got < len(acknowledged) {
				t.Errorf("round %d: pending: got %d, want at least the %d acknowledged", round, got, len(acknowledged))
			}
			mustDo(t, s.Close())
		}
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

func TestKillBatches(t *testing.T) {
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
	})
}

// eventsIn counts the messages of each event.
func eventsIn(tb testing.TB, s *Store) map[string]int {
	tb.Helper()
	found := make(map[string]int)
	mustDo(tb, s.db.View(func(txn *badger.Txn) error {
		return scan(txn, []byte{kindMessage}, nil, func(key, content []byte) (bool, error) {
			m, err := decodeMessage(store.MessageID(key[1:]), content)
			found[m.Event]++
			return true, err
		})
	}))
	return found
}
