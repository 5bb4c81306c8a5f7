package ingest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// ends stands for the lanes: it tells watchers of deliveries that have ended.
type ends struct {
	mu       sync.Mutex // guards the fields below
	watchers map[store.MessageID]chan store.Delivery
	stopped  int
}

func (e *ends) watch(id store.MessageID) (<-chan store.Delivery, func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.watchers == nil {
		e.watchers = map[store.MessageID]chan store.Delivery{}
	}
	c := make(chan store.Delivery, 1)
	e.watchers[id] = c
	return c, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.stopped++
		delete(e.watchers, id)
	}
}

// tell reports an end; what a watcher has no room for is lost, as it may be.
func (e *ends) tell(d store.Delivery) {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case e.watchers[d.ID.Message()] <- d:
	default:
	}
}

func (e *ends) open() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.watchers)
}

// outcome is the answer to a post with Prefer: wait.
type outcome struct {
	ID         string
	Deliveries []struct{ ID, Destination, State, Reason string }
}

// end records the end of a pending delivery as a lane would.
func end(t testing.TB, s store.Store, e *ends, destination string, state store.State, reason string) {
	t.Helper()
	due, err := s.Due(t.Context(), destination, store.Cursor{}, 1)
	if err != nil || len(due) != 1 {
		t.Fatalf("due of %s: got %v and %v, want one", destination, due, err)
	}
	after := due[0]
	after.State, after.EndedAt, after.Reason, after.Attempts, after.Made = state, acceptedAt.Add(time.Second), reason, 1, 1
	a := store.Attempt{Delivery: after.ID, Round: 1, Number: 1, StartedAt: acceptedAt, Class: store.ClassOK, Status: 200}
	if state == store.Failed {
		a.Class, a.Status = store.ClassStatus, 500
	}
	if _, err := s.Record(t.Context(), due[0], after, a); err != nil {
		t.Fatalf("record: %v", err)
	}
	e.tell(after)
}

// waiter is a handler in a bubble, where time is not real and there is no connection.
type waiter struct {
	*ingest.Handler
	memory *storetest.Memory
	ends   *ends
}

func newWaiter(t testing.TB) *waiter {
	t.Helper()
	w := &waiter{memory: storetest.NewMemory(storetest.MemoryOptions{}), ends: &ends{}}
	w.Handler = &ingest.Handler{
		Acceptor: w.memory, Deliveries: w.memory, Watch: w.ends.watch,
		Router: routes{
			known:  map[string]time.Duration{"alerts": 0, "audit": 0},
			events: map[string][]string{"alert.fired": {"alerts", "audit"}},
		},
		Now: func() time.Time { return acceptedAt },
	}
	t.Cleanup(func() {
		if n := w.ends.open(); n != 0 {
			t.Errorf("got %d watches left, want none", n)
		}
	})
	return w
}

// post sends a request and returns the answer's status, outcome and preference, and how long it took.
func (w *waiter) post(ctx context.Context, t testing.TB, path string, header ...string) (status int, o outcome, applied string, took time.Duration) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	begun := time.Now()
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	if err := json.Unmarshal(rec.Body.Bytes(), &o); err != nil {
		t.Fatalf("answer %q: %v", rec.Body, err)
	}
	return rec.Code, o, rec.Header().Get("Preference-Applied"), time.Since(begun)
}

func TestPreferWait(t *testing.T) {
	t.Run("the answer is the outcome when all have ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWaiter(t)
			go func() {
				time.Sleep(2 * time.Second)
				end(t, w.memory, w.ends, "alerts", store.Delivered, "")
				time.Sleep(time.Second)
				end(t, w.memory, w.ends, "audit", store.Failed, `status 500 "no"`)
			}()
			status, o, applied, took := w.post(t.Context(), t, "/events/alert.fired", "Prefer", "wait=10")
			if status != 200 || applied != "wait=10" || took != 3*time.Second {
				t.Errorf("got %d, applied %q after %v, want 200, wait=10 after 3 s", status, applied, took)
			}
			if len(o.Deliveries) != 2 || o.Deliveries[0].State != "delivered" || o.Deliveries[0].Reason != "" ||
				o.Deliveries[1].State != "failed" || o.Deliveries[1].Reason != `status 500 "no"` || o.Deliveries[1].Destination != "audit" {
				t.Errorf("got %+v, want alerts delivered and audit failed with the reason", o)
			}
		})
	})
	t.Run("it is 202 with the states so far when the time is over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWaiter(t)
			go func() {
				time.Sleep(time.Second)
				end(t, w.memory, w.ends, "audit", store.Delivered, "")
			}()
			status, o, applied, took := w.post(t.Context(), t, "/events/alert.fired", "Prefer", "wait=5")
			if status != 202 || applied != "wait=5" || took != 5*time.Second {
				t.Errorf("got %d, applied %q after %v, want 202, wait=5 after 5 s", status, applied, took)
			}
			if len(o.Deliveries) != 2 || o.Deliveries[0].State != "pending" || o.Deliveries[1].State != "delivered" {
				t.Errorf("got %+v, want alerts pending and audit delivered", o)
			}
		})
	})
	t.Run("what the channel lost is looked up in the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWaiter(t)
			go func() {
				time.Sleep(time.Second)
				end(t, w.memory, &ends{}, "alerts", store.Delivered, "") // tells nobody
			}()
			status, o, _, took := w.post(t.Context(), t, "/to/alerts", "Prefer", "wait=5")
			if status != 200 || o.Deliveries[0].State != "delivered" || took != 5*time.Second {
				t.Errorf("got %d %+v after %v, want 200 and delivered after 5 s", status, o, took)
			}
		})
	})
	t.Run("a longer wish is cut to 60 s, as the answer says", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			status, _, applied, took := newWaiter(t).post(t.Context(), t, "/to/alerts", "Prefer", "wait=3600")
			if status != 202 || applied != "wait=60" || took != time.Minute {
				t.Errorf("got %d, applied %q after %v, want 202, wait=60 after 60 s", status, applied, took)
			}
		})
	})
	t.Run("a repeated post gets the outcome of the first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWaiter(t)
			_, first, _, _ := w.post(t.Context(), t, "/events/alert.fired", "Idempotency-Key", "k")
			end(t, w.memory, w.ends, "alerts", store.Delivered, "")
			go func() {
				time.Sleep(time.Second)
				end(t, w.memory, w.ends, "audit", store.Delivered, "")
			}()
			status, o, _, took := w.post(t.Context(), t, "/events/alert.fired", "Idempotency-Key", "k", "Prefer", "wait=5")
			if status != 200 || o.ID != first.ID || took != time.Second || o.Deliveries[0].State != "delivered" || o.Deliveries[1].State != "delivered" {
				t.Errorf("got %d %+v after %v, want 200 and the end of %s after 1 s", status, o, took, first.ID)
			}
			if status, _, _, took := w.post(t.Context(), t, "/events/alert.fired", "Idempotency-Key", "k", "Prefer", "wait=5"); status != 200 || took != 0 {
				t.Errorf("got %d after %v for what has ended long ago, want 200 at once", status, took)
			}
		})
	})
	t.Run("nobody waits for no deliveries", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			status, o, applied, took := newWaiter(t).post(t.Context(), t, "/events/nobody.cares", "Prefer", "wait=5")
			if status != 202 || applied != "" || took != 0 || len(o.Deliveries) != 0 {
				t.Errorf("got %d, applied %q after %v, want a plain 202 at once", status, applied, took)
			}
		})
	})
	t.Run("a stop ends the wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWaiter(t)
			stopping := make(chan struct{})
			w.Stopping = stopping
			time.AfterFunc(time.Second, func() { close(stopping) })
			if status, _, _, took := w.post(t.Context(), t, "/to/alerts", "Prefer", "wait=60"); status != 202 || took != time.Second {
				t.Errorf("got %d after %v, want 202 after 1 s", status, took)
			}
		})
	})
	t.Run("a client that goes ends the wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if status, _, _, took := newWaiter(t).post(ctx, t, "/to/alerts", "Prefer", "wait=60"); status != 202 || took != time.Second {
				t.Errorf("got %d after %v, want 202 after 1 s", status, took)
			}
		})
	})
	t.Run("who is one too many is answered at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWaiter(t)
			w.MaxWaiting = 2
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					if status, _, applied, took := w.post(t.Context(), t, "/to/alerts", "Prefer", "wait=5"); status != 202 || applied == "" || took != 5*time.Second {
						t.Errorf("got %d, applied %q after %v, want a wait of 5 s", status, applied, took)
					}
				})
			}
			synctest.Wait()
			for range w.MaxWaiting {
				if status, _, applied, took := w.post(t.Context(), t, "/to/alerts", "Prefer", "wait=5"); status != 202 || applied != "" || took != 0 {
					t.Errorf("got %d, applied %q after %v, want 202 at once", status, applied, took)
				}
			}
			wg.Wait()
			if _, _, applied, took := w.post(t.Context(), t, "/to/alerts", "Prefer", "wait=5"); applied == "" || took != 5*time.Second {
				t.Errorf("got applied %q after %v when the others had gone, want a wait", applied, took)
			}
		})
	})
}

func TestHandlersCanShareTheirLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var load ingest.Load
		first, second := newWaiter(t), newWaiter(t)
		for _, w := range []*waiter{first, second} {
			w.MaxWaiting, w.Load = 1, &load
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, applied, took := first.post(t.Context(), t, "/to/alerts", "Prefer", "wait=5"); applied == "" || took != 5*time.Second {
				t.Errorf("got applied %q after %v, want a wait of 5 s", applied, took)
			}
		})
		synctest.Wait()
		if status, _, applied, took := second.post(t.Context(), t, "/to/alerts", "Prefer", "wait=5"); status != 202 || applied != "" || took != 0 {
			t.Errorf("got %d, applied %q after %v while another handler has used up the bound, want 202 at once", status, applied, took)
		}
		wg.Wait()
		if _, _, applied, _ := second.post(t.Context(), t, "/to/alerts", "Prefer", "wait=5"); applied == "" {
			t.Error("got no wait when the bound was free again, want one")
		}
	})
}

// forgetful is an Acceptor that keeps nothing.
type forgetful struct {
	store.Acceptor
	taken chan struct{}
}

func (forgetful) Full() error { return nil }

func (f forgetful) Accept(_ context.Context, m store.Message, _ []byte) (store.Message, bool, error) {
	f.taken <- struct{}{}
	return m, false, nil
}

func TestWhoWaitsHoldsNoBody(t *testing.T) {
	const waiters, size = 8, 4 << 20
	memory := storetest.NewMemory(storetest.MemoryOptions{})
	taken := make(chan struct{}, waiters+1)
	stopping := make(chan struct{})
	watching := &ends{}
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) {
		h.Acceptor, h.Deliveries, h.Watch, h.Stopping = forgetful{taken: taken}, memory, watching.watch, stopping
		h.MaxBody, h.BodyMemory = size, 2*size
	}, func(s *http.Server) { s.WriteTimeout = time.Minute })
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var wg sync.WaitGroup
	for range waiters { // one after the other, since only one body fits at a time
		wg.Go(func() {
			if resp, text := b.post(t, "/to/alerts", strings.Repeat("x", size), "Prefer", "wait=60"); resp.StatusCode != 202 {
				t.Errorf("got %d %q, want 202", resp.StatusCode, text)
			}
		})
		<-taken
		for begun := time.Now(); b.post503(t, size); { // until the body's memory has been given back
			if time.Since(begun) > patience {
				t.Fatal("the memory of a body was not given back while its request waits")
			}
		}
		<-taken
	}
	if n := watching.open(); n != waiters {
		t.Errorf("got %d waiting, want %d", n, waiters)
	}
	// The clients, in the same process, hold one string of this size each as well.
	if after := heap(); after > before+(waiters+4)*size {
		t.Errorf("got %d MiB more on the heap, want that of the clients alone", (after-before)>>20)
	}
	close(stopping)
	wg.Wait()
}

// post503 posts a body and reports whether there was no memory for it.
func (b *bench) post503(t testing.TB, size int) bool {
	t.Helper()
	resp, text := b.post(t, "/to/alerts", strings.Repeat("x", size))
	if resp.StatusCode != 202 && resp.StatusCode != 503 {
		t.Fatalf("got %d %q, want 202 or 503", resp.StatusCode, text)
	}
	return resp.StatusCode == 503
}
