package listen

import (
	"bytes"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/listen/acmetest"
	"github.com/postern-relay/postern/store/storetest"
)

// ours returns the stacks of all goroutines that look after certificates.
func ours(t *testing.T) (stacks []string) {
	t.Helper()
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 2); err != nil {
		t.Fatal(err)
	}
	for stack := range strings.SplitSeq(all.String(), "\n\n") {
		for _, part := range []string{"certmagic", "acmez", "listen.(*manager)", "listen.(*secure)"} {
			if strings.Contains(stack, part) {
				stacks = append(stacks, stack)
				break
			}
		}
	}
	return stacks
}

func TestACMEStops(t *testing.T) {
	t.Run("when all is well, nothing of it is left", func(t *testing.T) {
		ca := acmetest.Start(t, acmetest.Options{})
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"))
		wait(t, "the certificate", func() bool { return f.obtained() == 1 })
		if len(ours(t)) == 0 {
			t.Error("nobody looks after the certificate: this tests nothing")
		}
		f.stop()
		if left := ours(t); len(left) > 0 {
			t.Errorf("got %d goroutines, want none:\n%s", len(left), strings.Join(left, "\n\n"))
		}
	})
	t.Run("in the middle of an order, with an authority that does not answer any more, and the next start obtains it", func(t *testing.T) {
		ca, vault := acmetest.Start(t, acmetest.Options{}), storetest.NewMemory(storetest.MemoryOptions{})
		release := ca.HoldNames()
		f := newFront(t, ca, acmeOptions(t, ca, vault, "relay.example.com"))
		wait(t, "the authority asks where the name leads to", func() bool { return ca.Questions() > 0 })
		ca.Suspend(t)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			f.stop()
		}()
		wait(t, "the stop", func() bool {
			select {
			case <-stopped:
				return true
			default:
				return false
			}
		})
		if left := ours(t); len(left) > 0 {
			t.Errorf("got %d goroutines, want none:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		if got := f.logs.FilterMessage("certificate not obtained").Len(); got != 0 {
			t.Errorf("told %d failures, want none: the stop is none", got)
		}
		items, err := vault.KeptBelow(t.Context(), "")
		if err != nil || len(items) != 1 || !strings.HasSuffix(items[0].Name, "account.json") {
			t.Errorf("got %v kept, error %v; want the account alone", items, err)
		}
		ca.Resume(t)
		release()
		f = newFront(t, ca, acmeOptions(t, ca, vault, "relay.example.com"))
		wait(t, "the certificate", func() bool { return f.obtained() == 1 })
	})
	t.Run("while it waits to try again", func(t *testing.T) {
		ca := acmetest.Start(t, acmetest.Options{})
		ca.Stop(t)
		o := acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com")
		o.Retry = nil // a minute
		f := newFront(t, ca, o)
		wait(t, "a failure", func() bool { return f.logs.FilterMessage("certificate not obtained").Len() == 1 })
		f.stop()
		if left := ours(t); len(left) > 0 {
			t.Errorf("got %d goroutines, want none:\n%s", len(left), strings.Join(left, "\n\n"))
		}
	})
}
