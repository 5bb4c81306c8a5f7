package relay

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// setClock is a wall clock that a test sets, and that has no monotonic reading.
type setClock struct {
	mu     sync.Mutex // guards the fields below
	offset time.Duration
	still  time.Time // what it shows while it stands still; zero while it goes
}

// Now returns what the clock shows.
func (c *setClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.still.IsZero() {
		return c.still
	}
	return time.Now().Add(c.offset).Round(0)
}

// show has the clock show a time and go on from there, or stand still.
func (c *setClock) show(at time.Time, still bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset, c.still = time.Until(at), time.Time{}
	if still {
		c.still = at
	}
}

// TestFaultTimeRelay sets the wall clock of a whole relay while apps post, under each kind of destination that looks at the
// clock, and asks everything of its admin listener that does.
func TestFaultTimeRelay(t *testing.T) {
	clock, store1970 := &setClock{}, time.Unix(10, 0)
	r := newRig(t, `
listen: {ingest: "127.0.0.1:0", admin: "127.0.0.1:0", tokens: [{name: app, token: "0123456789abcdef0123456789abcdef", rate: 1000/s}]}
destinations:
  a: {url: "https://a.test/", sign: [{standard: {secrets: ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="]}}]}
  b: {url: "https://b.test/", order: all, rate: 1000/s}
  c: {url: "https://c.test/", breaker: {failures: 3, probe_every: 1s}}
`, func(r *rig) {
		r.Now = clock.Now
		r.memory = storetest.NewMemory(storetest.MemoryOptions{Now: clock.Now})
		r.Store = r.memory
	})
	r.far.answer("c.test", func(n int) int { // the first attempt of each fails
		if n == 1 {
			return 500
		}
		return 200
	})
	bearer := []string{"Authorization", "Bearer 0123456789abcdef0123456789abcdef"}
	key := append([]string{"Idempotency-Key", "the-first"}, bearer...)
	_, first := r.post(t, "/to/a", `{"first":true}`, key...)
	var ids []store.DeliveryID
	now, day, year := time.Now(), 24*time.Hour, 365*24*time.Hour
	shows := []struct {
		at    time.Time
		still bool
	}{
		{now.Add(-10 * time.Minute), false}, {now.Add(10 * time.Minute), false}, {now.Add(day), false}, {now.Add(-day), false},
		{now.Add(year), false}, {now.Add(-year), false}, {now.Add(10 * year), false}, {now.Add(-10 * year), false},
		{store1970, false}, {time.Unix(-86400, 0), false}, {now, true}, {now, false},
	}
	for n, show := range shows {
		clock.show(show.at, show.still)
		for _, name := range []string{"a", "b", "c"} {
			ids = append(ids, r.accept(t, name, bearer...))
		}
		ids = append(ids, r.accept(t, "a", append([]string{"Postern-Delay", "20ms"}, bearer...)...))
		if _, again := r.post(t, "/to/a", `{"first":true}`, key...); idIn(t, again) != idIn(t, first) {
			t.Errorf("clock %d: the same post under the same idempotency key got %s, want the answer %s", n, again, first)
		}
		if status, _ := r.post(t, "/to/a", `{"other":true}`, key...); status != http.StatusUnprocessableEntity {
			t.Errorf("clock %d: another post under the key: got %d, want 422", n, status)
		}
		for _, path := range []string{"/api/v1/destinations", "/api/v1/deliveries?limit=500", "/api/v1/deliveries?since=2h", "/api/v1/overview", "/metrics", "/readyz"} {
			if status, text := r.get(t, path); status != http.StatusOK {
				t.Errorf("clock %d: %s: got %d %s, want 200", n, path, status, text)
			}
		}
		if show.still {
			clock.show(show.at, false) // while it stands still, what is due later is
		}
		time.Sleep(30 * time.Millisecond)
	}
	// Posts that come now wake the lanes, which would look at the clock within a minute by themselves.
	clock.show(now.Add(10*year+time.Hour), false) // what was posted under the clock that was furthest ahead is due
	for _, name := range []string{"a", "b", "c"} {
		ids = append(ids, r.accept(t, name, bearer...))
	}
	for _, id := range ids {
		r.awaitState(t, id, store.Delivered)
	}
	for _, id := range ids {
		if d := r.delivery(t, id); d.Attempts > 3 {
			t.Errorf("got %d attempts of %s, want the one that fails and another, or a third after the breaker", d.Attempts, id)
		}
	}
	total := len(r.far.of("a.test")) + len(r.far.of("b.test")) + len(r.far.of("c.test"))
	if len(r.far.doubled) > 0 {
		t.Errorf("got %q twice at a time, want none", r.far.doubled)
	}
	if most := 2*len(ids) + 20; total > most {
		t.Errorf("got %d requests for %d deliveries, want at most %d", total, len(ids), most)
	}
	t.Attr("fault", fmt.Sprintf("time: a whole relay under %d clocks, one after the other, from before 1970 to ten years ahead: "+
		"%d deliveries, 0 lost, %d requests; idempotency keys, lists, metrics and health answer under each", len(shows), len(ids), total))
}

// idIn returns the id of an answer of ingest.
func idIn(t *testing.T, answer string) string {
	t.Helper()
	var a struct{ ID string }
	if err := json.Unmarshal([]byte(answer), &a); err != nil || a.ID == "" {
		t.Fatalf("answer %q: error %v, want an id", answer, err)
	}
	return a.ID
}

// get asks the admin listener.
func (r *rig) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := r.client.Get("http://" + r.backAddr() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text strings.Builder
	if _, err := io.Copy(&text, io.LimitReader(resp.Body, 1<<20)); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, text.String()
}
