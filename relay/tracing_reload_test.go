package relay

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// TestReloadsWithTracesLeaveNothing moves the traces from a collector that hangs to one that works and back, and takes
// them and a destination away, while messages are posted and metrics are read. What it makes ends with the relay, and a
// collector that hangs holds up none of it.
func TestReloadsWithTracesLeaveNothing(t *testing.T) {
	release := make(chan struct{})
	hung := newCollector(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	working := newCollector(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	before := runtime.NumGoroutine()
	const a, b = "  a: {url: 'https://a.test/hook'}\n", "  b: {url: 'https://b.test/hook'}\n"
	config := func(n int) string {
		section := [...]string{hung.section(fmt.Sprintf(", headers: {X-N: 'n%d'}", n)), working.section(""), ""}[n%3]
		destinations := "destinations:\n" + a
		if n%2 == 0 {
			destinations += b
		}
		return section + destinations
	}
	r := newRig(t, config(0), func(r *rig) { r.Drain = time.Second })
	done := make(chan struct{})
	var busy sync.WaitGroup
	loop := func(f func()) {
		busy.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					f()
				}
			}
		})
	}
	loop(func() {
		if status, text, err := r.tryPost("/to/a", "{}"); err != nil || status != http.StatusAccepted {
			t.Errorf("got %d %s, %v for a post", status, text, err)
		}
	})
	for range 2 {
		loop(func() {
			families, err := r.Metrics.Gather()
			if err != nil || !slices.ContainsFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "postern_deliveries_pending" }) {
				t.Errorf("got %d metrics, %v, want those of a backlog too", len(families), err)
			}
		})
	}
	for n := 1; n <= 30; n++ {
		begun := time.Now()
		if outcome := r.reloadWith(t, config(n)); outcome.Err != nil {
			t.Fatal(outcome.Err)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("reload %d took %s", n, took)
		}
	}
	close(done)
	busy.Wait()
	until(t, "all is delivered", func() bool { return r.Store.Pending() == 0 })
	begun := time.Now()
	r.stop()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the stop took %s", took)
	}
	close(release)
	hung.server.CloseClientConnections()
	working.server.CloseClientConnections()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	until(t, "no goroutine of it is left", func() bool { return runtime.NumGoroutine() <= before+8 }) // those of the far end
}
