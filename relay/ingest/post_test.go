package ingest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func TestPostIsKeptWithWhatItCameWith(t *testing.T) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, tc := range []struct {
		name, path string
		header     []string
		want       string // destination, path, key and line
		kept       string
		delay      time.Duration
	}{
		{"a path and a query", "/to/proxy/a%20b/c?d=%2F", nil, "proxy /a%20b/c?d=%2F  ", "[]", 0},
		{"a query alone", "/to/proxy?d=e", nil, "proxy ?d=e  ", "[]", 0},
		{"a slash alone", "/to/proxy/", nil, "proxy /  ", "[]", 0},
		{"a path behind a name with a slash", "/to/a%2Fb/c", nil, "a/b /c  ", "[]", 0},
		{"an ordering key", "/to/alerts", []string{"Postern-Key", "user 7"}, "alerts  user 7 user 7", "[]", 0},
		{"a delay", "/to/alerts", []string{"Postern-Delay", "10m"}, "alerts   ", "[]", 10 * time.Minute},
		{"a delay besides that of the destination", "/to/audit", []string{"Postern-Delay", "10"}, "audit   ", "[]", 70 * time.Second},
		{"a time", "/to/alerts", []string{"Postern-Deliver-At", "2026-11-21T08:00:00.123+01:00"}, "alerts   ", "[]", time.Hour},
		{"a time past", "/to/alerts", []string{"Postern-Deliver-At", "2020-01-01T00:00:00Z"}, "alerts   ", "[]", 0},
		{"30 days", "/to/alerts", []string{"Postern-Deliver-At", "2026-12-21T06:00:00.123Z"}, "alerts   ", "[]", 720 * time.Hour},
		{"a trace", "/to/alerts", []string{"traceparent", trace, "tracestate", "a=1", "tracestate", "b=2"},
			"alerts   ", "[{Traceparent " + trace + "} {Tracestate a=1,b=2}]", 0},
		{"a broken trace is dropped", "/to/alerts", []string{"traceparent", "x", "tracestate", "a=1"}, "alerts   ", "[]", 0},
		{"headers that the destination asks for", "/to/alerts",
			[]string{"X-Request-Id", "r1", "x-request-id", "r2", "X-Other", "o", "Authorization", "Bearer t", "Cookie", "c"},
			"alerts   ", "[{X-Request-Id r1} {X-Request-Id r2}]", 0},
		{"none that the sender says is for this hop", "/to/alerts", []string{"X-Request-Id", "r1", "Connection", "X-Request-Id"}, "alerts   ", "[]", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) {
				r := h.Router.(routes)
				r.order = true
				h.Router = r
			})
			resp, text := b.post(t, tc.path, "x", tc.header...)
			if resp.StatusCode != 202 {
				t.Fatalf("got %d %s, want 202", resp.StatusCode, text)
			}
			m, _ := b.load(t, parse(t, text).ID)
			to := m.Recipients[0]
			if got := strings.Join([]string{to.Destination, m.Path, m.Key, to.Order}, " "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if got := fmt.Sprint(m.Header); got != tc.kept {
				t.Errorf("got header %s, want %s", got, tc.kept)
			}
			if to.Delay != tc.delay {
				t.Errorf("got a delay of %v, want %v", to.Delay, tc.delay)
			}
			if w := b.wakes(); len(w) != 1 || !w[0].cursor.DueAt.Equal(acceptedAt.Add(tc.delay)) {
				t.Errorf("got woken %v, want the lane at %v", w, acceptedAt.Add(tc.delay))
			}
		})
	}
}

func TestRepeatedPostMayComeAtAnotherTime(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	_, first := b.post(t, "/to/alerts", "x", "Idempotency-Key", "k", "Postern-Delay", "10m", "Postern-Key", "a")
	for _, tc := range []struct {
		name   string
		header []string
		status int
	}{
		{"another delay", []string{"Postern-Delay", "5m", "Postern-Key", "a"}, 202},
		{"another trace", []string{"Postern-Key", "a", "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, 202},
		{"another ordering key", []string{"Postern-Delay", "10m", "Postern-Key", "b"}, 422},
		{"no ordering key", []string{"Postern-Delay", "10m"}, 422},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, text := b.post(t, "/to/alerts", "x", append(tc.header, "Idempotency-Key", "k")...)
			if resp.StatusCode != tc.status || tc.status == 202 && text != first {
				t.Errorf("got %d %s, want %d", resp.StatusCode, text, tc.status)
			}
		})
	}
}

func TestFaultsOfRoutes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		err    error
		routes int
		status int
		detail string
	}{
		{"a filter that needs JSON", &ingest.RouteError{Fault: ingest.BodyNotJSON, Destination: "alerts", Err: io.ErrUnexpectedEOF}, 0, 400,
			`the filter (when) of destination "alerts" needs a JSON body: unexpected EOF`},
		{"a wrapped fault", fmt.Errorf("route: %w", &ingest.RouteError{Fault: ingest.UnknownDestination, Destination: "x", Nearest: "y"}), 0, 404,
			`there is no destination "x" in the config; did you mean "y"?`},
		{"an event of Postern's own", &ingest.RouteError{Fault: ingest.ReservedEvent, Event: "postern.x"}, 0, 400, `the event "postern.x" begins like those of Postern itself`},
		{"too many destinations", &ingest.RouteError{Fault: ingest.TooManyRoutes}, 0, 500, "more than 4095 destinations"},
		{"more destinations than a message can have", nil, store.MaxDeliveries + 1, 500, "more than 4095 destinations"},
		{"an error of ours", io.ErrShortWrite, 0, 500, "its log tells more"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.Router = fixed{tc.routes, tc.err} })
			resp, text := b.post(t, "/events/a", "x")
			if resp.StatusCode != tc.status || !strings.Contains(detail(t, text), tc.detail) {
				t.Errorf("got %d %s, want %d saying %q", resp.StatusCode, text, tc.status, tc.detail)
			}
			if resp, text := b.post(t, "/batch", `{"event":"a","data":1}`); resp.StatusCode != tc.status {
				t.Errorf("got %d %s for a batch, want %d", resp.StatusCode, text, tc.status)
			}
		})
	}
}

// fixed is a Router that gives so many routes, or an error.
type fixed struct {
	routes int
	err    error
}

func (f fixed) Route(ingest.Post) ([]ingest.Route, error) {
	return make([]ingest.Route, f.routes), f.err
}

func TestRouterSeesTheBodyOfEventsOnly(t *testing.T) {
	var asked []ingest.Post
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.Router = asking{h.Router, &asked} })
	b.post(t, "/to/proxy/p", "one", "Content-Type", "a/b", "Postern-Key", "k")
	b.post(t, "/events/alert.fired", "two", "Content-Type", "c/d", "Postern-Key", "l")
	b.post(t, "/batch", `{"to":"alerts","data":3}`+"\n"+`{"event":"alert.fired","data":4,"key":"m"}`)
	b.post(t, "/cloudevents", goodEvent, "Content-Type", structured)
	want := []string{
		"proxy  k /p a/b ", " alert.fired l  c/d two", "alerts    application/json ", " alert.fired m  application/json 4",
		" alert.fired   " + structured + " " + goodEvent,
	}
	for n, p := range asked {
		if got := strings.Join([]string{p.Destination, p.Event, p.Key, p.Path, p.ContentType, string(p.Body)}, " "); n >= len(want) || got != want[n] {
			t.Errorf("question %d: got %q, want one of %q", n+1, got, want)
		}
	}
	if len(asked) != len(want) {
		t.Errorf("got %d questions, want %d", len(asked), len(want))
	}
}

// asking notes what its Router is asked.
type asking struct {
	ingest.Router
	asked *[]ingest.Post
}

func (a asking) Route(p ingest.Post) ([]ingest.Route, error) {
	p.Body = append([]byte(nil), p.Body...)
	*a.asked = append(*a.asked, p)
	return a.Router.Route(p)
}

func TestFullStoreIsSaidBeforeTheBodyIsAskedFor(t *testing.T) {
	b := start(t, storetest.MemoryOptions{MaxPending: 1}, nil)
	if resp, text := b.post(t, "/to/alerts", "x", "Idempotency-Key", "k"); resp.StatusCode != 202 {
		t.Fatalf("got %d %s, want 202", resp.StatusCode, text)
	}
	conn, r := b.dial(t)
	send(t, conn, "POST /to/alerts HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n")
	if got := status(t, r); got != 429 {
		t.Errorf("got %d first, want 429 and no 100", got)
	}
	if resp, text := b.post(t, "/to/alerts", "x", "Idempotency-Key", "k"); resp.StatusCode != 202 || resp.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("got %d %s for what was accepted before, want 202", resp.StatusCode, text)
	}
}

func TestWaitOutlivesTheTimeOfTheServer(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) {
		h.Watch, h.Deliveries = (&ends{}).watch, h.Acceptor.(*storetest.Memory)
	}, func(s *http.Server) { s.WriteTimeout = 300 * time.Millisecond })
	resp, text := b.post(t, "/to/alerts", "x", "Prefer", "wait=1") // longer than the server would let it
	if resp.StatusCode != 202 || resp.Header.Get("Preference-Applied") != "wait=1" {
		t.Errorf("got %d %s, want 202 after a wait", resp.StatusCode, text)
	}
}
