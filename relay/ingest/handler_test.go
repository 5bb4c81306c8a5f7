package ingest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func TestPostToDestination(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	body := "\x00\xff not JSON {{ .Event }}"
	resp, text := b.post(t, "/to/audit", body, "Content-Type", "application/x-thing; v=1")
	if resp.StatusCode != http.StatusAccepted || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s %q, want 202 and JSON", resp.StatusCode, resp.Header.Get("Content-Type"), text)
	}
	a := parse(t, text)
	id, err := store.ParseMessageID(a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Deliveries) != 1 || a.Deliveries[0].ID != id.Delivery(0).String() ||
		a.Deliveries[0].Destination != "audit" || a.Deliveries[0].State != "pending" {
		t.Errorf("got %q, want the one delivery", text)
	}
	m, stored, err := b.store.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if string(stored) != body || m.Size != len(body) || m.ContentType != "application/x-thing; v=1" || m.Event != "" {
		t.Errorf("got message %+v with body %q, want them as posted", m, stored)
	}
	if !m.AcceptedAt.Equal(acceptedAt) {
		t.Errorf("got accepted at %v, want %v", m.AcceptedAt, acceptedAt)
	}
	want := woken{"audit", store.Cursor{DueAt: acceptedAt.Add(time.Minute), ID: id.Delivery(0)}}
	if got := b.wakes(); len(got) != 1 || got[0].destination != want.destination ||
		!got[0].cursor.DueAt.Equal(want.cursor.DueAt) || got[0].cursor.ID != want.cursor.ID {
		t.Errorf("got woken %v, want %v", got, want)
	}
}

func TestPostEvent(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	t.Run("each destination that wants it gets a delivery", func(t *testing.T) {
		resp, text := b.post(t, "/events/alert.fired", "{}")
		a := parse(t, text)
		if resp.StatusCode != 202 || len(a.Deliveries) != 2 || a.Deliveries[0].Destination != "alerts" || a.Deliveries[1].Destination != "audit" {
			t.Fatalf("got %d %q, want 202 and two deliveries", resp.StatusCode, text)
		}
		id, _ := store.ParseMessageID(a.ID)
		if m, _, err := b.store.Load(t.Context(), id); err != nil || m.Event != "alert.fired" {
			t.Errorf("got event %q and %v, want alert.fired", m.Event, err)
		}
		if got := len(b.wakes()); got != 2 {
			t.Errorf("got %d lanes woken, want 2", got)
		}
	})
	t.Run("one that nobody wants is kept without deliveries", func(t *testing.T) {
		resp, text := b.post(t, "/events/nobody.cares", "{}")
		if a := parse(t, text); resp.StatusCode != 202 || a.Deliveries == nil || len(a.Deliveries) != 0 {
			t.Fatalf("got %d %q, want 202 and an empty list", resp.StatusCode, text)
		}
		id, _ := store.ParseMessageID(parse(t, text).ID)
		if _, _, err := b.store.Load(t.Context(), id); err != nil {
			t.Errorf("load: %v", err)
		}
	})
}

func TestAcceptedStatus(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.AcceptedStatus = http.StatusOK })
	if resp, text := b.post(t, "/to/alerts", ""); resp.StatusCode != 200 {
		t.Errorf("got %d %q, want 200", resp.StatusCode, text)
	}
}

func TestRefusals(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.MaxBody = 100 })
	long := strings.Repeat("a", 300)
	for _, tc := range []struct {
		name, method, path string
		header             []string
		body               string
		status             int
		detail             string // part of it
	}{
		{"an unknown destination", "POST", "/to/nothing", nil, "x", 404, `no destination "nothing"`},
		{"an unknown destination names the nearest", "POST", "/to/alrts", nil, "x", 404, `did you mean "alerts"?`},
		{"a long name does not hide the nearest", "POST", "/to/alrt" + strings.Repeat("s", 2000), nil, "x", 404, `did you mean "alerts"?`},
		{"a path behind the destination", "POST", "/to/alerts/a/b", nil, "x", 404, "does not forward a path"},
		{"a slash behind the destination", "POST", "/to/alerts/", nil, "x", 404, "does not forward a path"},
		{"no destination", "POST", "/to/", nil, "x", 404, "ends too early"},
		{"no event", "POST", "/events/", nil, "x", 404, "ends too early"},
		{"the root", "POST", "/", nil, "x", 404, "/to/{destination}"},
		{"something behind /batch", "POST", "/batch/", nil, "x", 404, "nothing at this path"},
		{"something behind /cloudevents", "POST", "/cloudevents/x", nil, "x", 404, "nothing at this path"},
		{"a batch by GET", "GET", "/batch", nil, "", 405, "use POST"},
		{"a path with dots", "POST", "/to/../to/alerts", nil, "x", 404, "no"},
		{"a double slash", "POST", "//to/alerts", nil, "x", 404, "nothing at this path"},
		{"an event with a space", "POST", "/events/a%20b", nil, "x", 400, "not allowed"},
		{"an event with an empty segment", "POST", "/events/a..b", nil, "x", 400, "empty"},
		{"an event with a slash", "POST", "/events/a/b", nil, "x", 400, "not allowed"},
		{"an event that is a pattern", "POST", "/events/a.*", nil, "x", 400, "not allowed"},
		{"GET", "GET", "/to/alerts", nil, "", 405, "use POST"},
		{"PUT", "PUT", "/events/a", nil, "x", 405, "use POST"},
		{"OPTIONS", "OPTIONS", "/to/alerts", nil, "", 405, "use POST"},
		{"a query behind an event", "POST", "/events/a?a=b", nil, "x", 400, "query"},
		{"a query behind a batch", "POST", "/batch?a=b", nil, "x", 400, "query"},
		{"an empty query", "POST", "/to/alerts?", nil, "x", 400, "query"},
		{"a body above the limit", "POST", "/to/alerts", nil, strings.Repeat("x", 101), 413, "100 bytes"},
		{"a loop of relays", "POST", "/to/alerts", []string{"Postern-Hops", "4"}, "x", 508, "came through 4 relays"},
		{"a hop count that is none", "POST", "/to/alerts", []string{"Postern-Hops", "-1"}, "x", 400, "not one whole number"},
		{"an empty ordering key", "POST", "/to/alerts", []string{"Postern-Key", ""}, "x", 400, "Postern-Key: it has 0 bytes"},
		{"a long ordering key", "POST", "/to/alerts", []string{"Postern-Key", long}, "x", 400, "1 to 255"},
		{"two ordering keys", "POST", "/to/alerts", []string{"Postern-Key", "a", "Postern-Key", "b"}, "x", 400, "more than one Postern-Key"},
		{"a delay that is none", "POST", "/to/alerts", []string{"Postern-Delay", "soon"}, "x", 400, `Postern-Delay: "soon" is no duration`},
		{"a delay that is too long", "POST", "/to/alerts", []string{"Postern-Delay", "2592001"}, "x", 400, "more than 30 days"},
		{"a time that is none", "POST", "/to/alerts", []string{"Postern-Deliver-At", "x"}, "x", 400, "RFC 3339"},
		{"a time that is too far", "POST", "/to/alerts", []string{"Postern-Deliver-At", "2026-12-21T06:00:01Z"}, "x", 400, "30 days"},
		{"a delay and a time", "POST", "/to/alerts", []string{"Postern-Delay", "1s", "Postern-Deliver-At", "2026-12-01T00:00:00Z"}, "x", 400, "both"},
		{"a misspelt header of ours", "POST", "/to/alerts", []string{"Postern-Dely", "1h"}, "x", 400, "Postern-Dely is not known; did you mean Postern-Delay?"},
		{"a header of ours that is like none", "POST", "/events/alert.fired", []string{"postern-priority", "1"}, "x", 400,
			"Postern-Priority is not known; there are Postern-Key, Postern-Delay and Postern-Deliver-At"},
		{"two of them", "POST", "/batch", []string{"Postern-Kee", "1", "Postern-Aaa", "2"}, "x", 400, "Postern-Aaa is not known"},
		{"a header that no receiver would get", "POST", "/to/alerts", []string{"X-Request-Id", strings.Repeat("x", 8193)}, "x", 431,
			"the value of X-Request-Id, which is to be sent on, has 8193 bytes; at most 8192 are allowed"},
		{"a query for a destination that forwards none", "POST", "/to/alerts?a=b", nil, "x", 400, "forward_path"},
		{"a path that climbs", "POST", "/to/proxy/a/%2e%2e/b", nil, "x", 400, "segment"},
		{"a long path", "POST", "/to/proxy/" + strings.Repeat("a", 2048), nil, "x", 414, "2048"},
		{"a compressed body", "POST", "/to/alerts", []string{"Content-Encoding", "gzip"}, "x", 415, "gzip"},
		{"a long content type", "POST", "/to/alerts", []string{"Content-Type", long}, "x", 400, "256"},
		{"a content type that is not ASCII", "POST", "/to/alerts", []string{"Content-Type", "text/ü"}, "x", 400, "ASCII"},
		{"two content types", "POST", "/to/alerts", []string{"Content-Type", "a/b", "Content-Type", "c/d"}, "x", 400, "more than one"},
		{"two idempotency keys", "POST", "/to/alerts", []string{"Idempotency-Key", "a", "Idempotency-Key", "a"}, "x", 400, "more than one"},
		{"an empty idempotency key", "POST", "/to/alerts", []string{"Idempotency-Key", ""}, "x", 400, "0 bytes"},
		{"a long idempotency key", "POST", "/to/alerts", []string{"Idempotency-Key", long}, "x", 400, "255"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tc.method, b.url+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(tc.header); i += 2 {
				req.Header.Add(tc.header[i], tc.header[i+1])
			}
			resp, text := do(t, req)
			if resp.StatusCode != tc.status {
				t.Fatalf("got %d %q, want %d", resp.StatusCode, text, tc.status)
			}
			var p struct{ Detail string }
			if err := json.Unmarshal([]byte(text), &p); err != nil || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("got %q, want a problem", text)
			}
			if !strings.Contains(p.Detail, tc.detail) {
				t.Errorf("got detail %q, want it to say %q", p.Detail, tc.detail)
			}
			if got := resp.Header.Get("Allow"); (tc.status == 405) != (got == "POST") {
				t.Errorf("got Allow %q with status %d", got, tc.status)
			}
		})
	}
	if got := b.store.Pending(); got != 0 {
		t.Errorf("got %d deliveries stored, want none", got)
	}
	if got := b.wakes(); len(got) != 0 {
		t.Errorf("got woken %v, want nobody", got)
	}
}

func TestAccepts(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.MaxBody = 100 })
	for _, tc := range []struct {
		name, path string
		header     []string
		body       string
	}{
		{"an empty body", "/to/alerts", nil, ""},
		{"a body at the limit", "/to/alerts", nil, strings.Repeat("x", 100)},
		{"an escaped name", "/to/%61lerts", nil, "x"},
		{"an escaped slash in a name", "/to/a%2Fb", nil, "x"},
		{"an ordering key at the limit", "/to/alerts", []string{"Postern-Key", strings.Repeat("a", 255)}, "x"},
		{"a delay at the limit", "/to/alerts", []string{"Postern-Delay", "720h"}, "x"},
		{"Prefer, which nobody has to honour", "/to/alerts", []string{"Prefer", "wait=10"}, "x"},
		{"identity", "/to/alerts", []string{"Content-Encoding", "identity"}, "x"},
		{"a content type at the limit", "/to/alerts", []string{"Content-Type", strings.Repeat("a", 256)}, "x"},
		{"a key at the limit", "/to/alerts", []string{"Idempotency-Key", strings.Repeat("a", 255)}, "x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if resp, text := b.post(t, tc.path, tc.body, tc.header...); resp.StatusCode != 202 {
				t.Errorf("got %d %q, want 202", resp.StatusCode, text)
			}
		})
	}
}

func TestIdempotency(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	first, text := b.post(t, "/to/alerts", "body", "Idempotency-Key", "k", "Content-Type", "a/b")
	if first.StatusCode != 202 || first.Header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("got %d %v, want 202 and no mark", first.StatusCode, first.Header)
	}
	for _, tc := range []struct {
		name, path, body, key, contentType string
		want                               int
	}{
		{"the same again", "/to/alerts", "body", "k", "a/b", 202},
		{"the same in quotes", "/to/alerts", "body", `"k"`, "a/b", 202},
		{"the same with an escaped path", "/to/%61lerts", "body", "k", "a/b", 202},
		{"another body", "/to/alerts", "other", "k", "a/b", 422},
		{"another destination", "/to/audit", "body", "k", "a/b", 422},
		{"an event", "/events/alerts", "body", "k", "a/b", 422},
		{"another content type", "/to/alerts", "body", "k", "a/c", 422},
		{"a part moved from one field to the next", "/to/alerts", "bbody", "k", "a/", 422},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, again := b.post(t, tc.path, tc.body, "Idempotency-Key", tc.key, "Content-Type", tc.contentType)
			if resp.StatusCode != tc.want {
				t.Fatalf("got %d %q, want %d", resp.StatusCode, again, tc.want)
			}
			if tc.want == 202 && (again != text || resp.Header.Get("Idempotency-Replayed") != "true") {
				t.Errorf("got %q with mark %q, want the first answer, marked", again, resp.Header.Get("Idempotency-Replayed"))
			}
		})
	}
	if got := b.store.Pending(); got != 1 {
		t.Errorf("got %d deliveries, want 1", got)
	}
	if got := b.wakes(); len(got) != 1 {
		t.Errorf("got woken %v, want the lane of the first post only", got)
	}
}

func TestKeyAndBodyDoNotReachTheStore(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	_, text := b.post(t, "/to/alerts", "x", "Idempotency-Key", "canary-key")
	id, err := store.ParseMessageID(parse(t, text).ID)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := b.store.Load(t.Context(), id)
	if err != nil || m.Idempotency == nil {
		t.Fatalf("got %+v and %v, want a message with digests", m, err)
	}
	if bytes.Contains(m.Idempotency.Key[:], []byte("canary")) || m.Idempotency.Key == m.Idempotency.Content {
		t.Errorf("got %x, want a digest of the key alone", m.Idempotency.Key)
	}
}

// failing is an Acceptor whose answer is given.
type failing struct {
	store.Acceptor
	err    error
	called chan struct{} // receives for each call, if not nil
}

func (f failing) Accept(context.Context, store.Message, []byte) (store.Message, bool, error) {
	if f.called != nil {
		f.called <- struct{}{}
	}
	return store.Message{}, false, f.err
}

func TestStoreErrors(t *testing.T) {
	for _, tc := range []struct {
		err        error
		status     int
		retryAfter bool
		closes     bool
	}{
		{store.ErrKeyConflict, 422, false, false},
		{store.ErrBacklog, 429, true, false},
		{store.ErrNoSpace, 507, true, false},
		{store.ErrTooLarge, 413, false, false},
		{store.ErrClosed, 503, true, true},
		{store.ErrBroken, 503, true, true},
		{errors.New("secret inside"), 500, false, true},
		{context.Canceled, 500, false, true},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) {
				h.Acceptor = failing{err: fmt.Errorf("commit: %w", tc.err)}
			})
			resp, text := b.post(t, "/to/alerts", "x")
			if resp.StatusCode != tc.status || strings.Contains(text, "inside") {
				t.Errorf("got %d %q, want %d without internals", resp.StatusCode, text, tc.status)
			}
			if got := resp.Header.Get("Retry-After") != ""; got != tc.retryAfter {
				t.Errorf("got Retry-After %q, want one = %t", resp.Header.Get("Retry-After"), tc.retryAfter)
			}
			if resp.Close != tc.closes {
				t.Errorf("got close = %t, want %t", resp.Close, tc.closes)
			}
			if got := b.wakes(); len(got) != 0 {
				t.Errorf("got woken %v, want nobody", got)
			}
		})
	}
}

func TestBacklogOfRealEngine(t *testing.T) {
	b := start(t, storetest.MemoryOptions{MaxPending: 1}, nil)
	for n, want := range []int{202, 429} {
		if resp, text := b.post(t, "/to/alerts", "x"); resp.StatusCode != want {
			t.Errorf("post %d: got %d %q, want %d", n+1, resp.StatusCode, text, want)
		}
	}
}

func TestDraining(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.Draining = func() bool { return true } })
	resp, text := b.post(t, "/to/alerts", "x")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !resp.Close {
		t.Errorf("got %d %q with %v, want 503, Retry-After and an end", resp.StatusCode, text, resp.Header)
	}
	if got := b.store.Pending(); got != 0 {
		t.Errorf("got %d deliveries stored, want none", got)
	}
}

func TestParallelPosts(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	var wg sync.WaitGroup
	const posts, each = 64, 5
	ids := make(chan string, posts*each)
	for p := range posts {
		wg.Go(func() {
			for n := range each {
				key := fmt.Sprintf("%d-%d", p/2, n) // each key is raced for by two
				resp, text := b.post(t, "/to/alerts", key, "Idempotency-Key", key)
				if resp.StatusCode != 202 {
					t.Errorf("got %d %q, want 202", resp.StatusCode, text)
				}
				ids <- text
			}
		})
	}
	wg.Wait()
	close(ids)
	seen := map[string]int{}
	for text := range ids {
		seen[text]++
	}
	for text, n := range seen {
		if n != 2 {
			t.Errorf("got answer %q %d times, want it twice: one key, one message", text, n)
		}
	}
	if got, want := b.store.Pending(), int64(posts*each/2); got != want {
		t.Errorf("got %d deliveries, want %d", got, want)
	}
	if got, want := len(b.wakes()), posts*each/2; got != want {
		t.Errorf("got %d lanes woken, want %d", got, want)
	}
}
