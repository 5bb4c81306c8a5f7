package badgerstore

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/postern-relay/postern/store"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("BADGERSTORE_TEST_FILL"); path != "" {
		os.Exit(fillUntilKilled(path))
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
			acknowledged = append(acknowledged, fillAndKill(t, path, 60+round*60)...)
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

// fillAndKill runs fillUntilKilled in a process of its own until it has acknowledged so many messages, and kills it.
func fillAndKill(t *testing.T, path string, messages int) (ids []store.MessageID) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "BADGERSTORE_TEST_FILL="+path)
	out, err := cmd.StdoutPipe()
	mustDo(t, err)
	mustDo(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if len(ids) == messages {
			mustDo(t, cmd.Process.Kill())
		}
		id, err := store.ParseMessageID(lines.Text())
		if err != nil {
			if len(ids) > messages {
				break // a torn last line
			}
			t.Fatalf("the filling process says %q", lines.Text())
		}
		ids = append(ids, id)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the filling process ended by itself")
	}
	return ids
}
