package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

// killAtCommit accepts messages and records their deliveries from several goroutines, and prints what is acknowledged. At
// the n-th commit group it kills itself: before anything of it is written, or when Badger has it and neither the folder
// nor the side file is synced, nor anybody answered.
func killAtCommit(arguments string) int {
	var path, when string
	var n int64
	if _, err := fmt.Sscan(arguments, &path, &n, &when); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	var commits atomic.Int64
	s, err := Open(Options{Path: path, commit: func(txn *badger.Txn) error {
		now := commits.Add(1) == n
		if now && when == "before" {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		err := txn.Commit()
		if now {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return err
	}})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				if err := acceptAndRecord(s); err != nil {
					fmt.Println("error:", err)
					return
				}
			}
		})
	}
	all.Wait()
	return 0
}

// acceptAndRecord accepts a message and records its delivery, and prints each when it is acknowledged.
func acceptAndRecord(s *Store) error {
	ctx := context.Background()
	id, err := store.NewMessageID()
	if err != nil {
		return err
	}
	m := store.Message{ID: id, AcceptedAt: time.Now(), Recipients: []store.Recipient{{Destination: "alerts"}}}
	if _, _, err := s.Accept(ctx, m, []byte(id.String())); err != nil {
		return err
	}
	fmt.Println("accepted", id)
	before, err := s.Delivery(ctx, id.Delivery(0))
	if err != nil {
		return err
	}
	after := before
	after.State, after.EndedAt, after.Made, after.Attempts = store.Delivered, time.Now(), 1, 1
	a := store.Attempt{Delivery: before.ID, Round: before.Round, Number: 1, Class: store.ClassOK, Status: 200, StartedAt: time.Now()}
	if _, err := s.Record(ctx, before, after, a); err != nil {
		return err
	}
	fmt.Println("recorded", id)
	return nil
}

// TestFaultKillAtCommit kills a store at one commit group after the other. What was acknowledged before is there after it,
// also an outcome: what is on record as delivered is not sent again.
func TestFaultKillAtCommit(t *testing.T) {
	path := t.TempDir()
	at := faultLength([]int{1, 2, 3, 7}, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 68, 80})
	accepted, recorded := map[store.MessageID]bool{}, map[store.MessageID]bool{}
	for _, n := range at {
		for _, when := range []string{"before", "after"} {
			for _, line := range runUntilKilled(t, fmt.Sprintf("BADGERSTORE_TEST_COMMITS=%s %d %s", path, n, when)) {
				what, text, _ := strings.Cut(line, " ")
				id, err := store.ParseMessageID(text)
				switch {
				case err != nil:
					t.Fatalf("the process that was to be killed says %q", line)
				case what == "accepted":
					accepted[id] = true
				case what == "recorded":
					recorded[id] = true
				}
			}
			s := mustOpen(t, Options{Path: path})
			pending := 0
			for id := range accepted {
				_, body, err := s.Load(t.Context(), id)
				if err != nil || string(body) != id.String() {
					t.Fatalf("killed %s commit %d: message %s: %q, error %v", when, n, id, body, err)
				}
				d, err := s.Delivery(t.Context(), id.Delivery(0))
				if err != nil || recorded[id] && d.State != store.Delivered {
					t.Fatalf("killed %s commit %d: delivery of %s is %s, error %v; recorded: %t", when, n, id, d.State, err, recorded[id])
				}
				if d.State == store.Pending {
					pending++
				}
			}
			if got := pendingOf(t, s); got < pending || got != int(s.Pending()) {
				t.Errorf("killed %s commit %d: pending: got %d in the queue, counted %d, want at least %d", when, n, got, s.Pending(), pending)
			}
			mustDo(t, s.Close())
		}
	}
	if len(accepted) == 0 || len(recorded) == 0 {
		t.Errorf("%d were accepted and %d recorded: this tests nothing", len(accepted), len(recorded))
	}
	t.Attr("fault", fmt.Sprintf("kill: %d times before a commit group is written and after it, before any answer: %d accepted, 0 missing; "+
		"%d recorded as delivered, 0 forgotten; each start worked at the first try", 2*len(at), len(accepted), len(recorded)))
}

// runUntilKilled runs this program again, with a variable, until it has killed itself. It returns all lines that have
// come whole.
func runUntilKilled(t *testing.T, variable string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), variable)
	out, err := cmd.Output()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL || ctx.Err() != nil {
		t.Fatalf("the process ended by itself: %v, after %q", err, out)
	}
	whole := out[:strings.LastIndex(string(out), "\n")+1]
	return strings.Split(strings.TrimSuffix(string(whole), "\n"), "\n")[:strings.Count(string(whole), "\n")]
}
