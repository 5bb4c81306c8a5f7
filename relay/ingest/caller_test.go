package ingest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store/storetest"
)

// limited is a Caller who may post to alerts, and the events that begin with alert.
type limited struct {
	wait time.Duration // what Begin returns

	mu    sync.Mutex // guards the fields below
	begun int
	more  int
}

func (b *limited) May(p ingest.Post, routes []ingest.Route) *ingest.RouteError {
	refuse := func(text string) *ingest.RouteError {
		return &ingest.RouteError{Fault: ingest.NotAllowed, Err: errors.New(text)}
	}
	if p.Destination != "" && p.Destination != "alerts" {
		return refuse("not to " + p.Destination)
	}
	if p.Event != "" && !strings.HasPrefix(p.Event, "alert.") {
		return refuse("not the event " + p.Event)
	}
	for _, r := range routes {
		if r.To.Destination != "alerts" {
			return refuse("not by an event to " + r.To.Destination)
		}
	}
	return nil
}

func (b *limited) Bounded() bool { return true }

func (b *limited) Begin() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun++
	return b.wait
}

func (b *limited) More(messages int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.more += messages
}

// startCalled serves a handler whose requests all come from one caller.
func startCalled(t *testing.T, caller ingest.Caller, reg prometheus.Registerer) *bench {
	t.Helper()
	return start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) {
		h.Caller = func(context.Context) ingest.Caller { return caller }
		r := h.Router.(routes)
		r.events["alert.quiet"] = []string{"alerts"}
		if reg == nil {
			return
		}
		m, err := ingest.NewMetrics(reg)
		if err != nil {
			t.Fatal(err)
		}
		h.Metrics = m
	})
}

func TestACallerPostsWithinItsBounds(t *testing.T) {
	const structured = `{"specversion":"1.0","source":"s","id":"1","type":"%s","data":{}}`
	cloud := func(kind string) string { return strings.ReplaceAll(structured, "%s", kind) }
	for _, tc := range []struct {
		name, path, body, contentType string
		want                          int
		detail                        string
	}{
		{"to a destination", "/to/alerts", "{}", "application/json", 202, ""},
		{"to another one", "/to/audit", "{}", "application/json", 403, "not to audit"},
		{"to one that there is not: nothing is told of what there is", "/to/alrts", "{}", "application/json", 403, "not to alrts"},
		{"an event that goes where it may", "/events/alert.quiet", "{}", "application/json", 202, ""},
		{"an event that goes elsewhere too", "/events/alert.fired", "{}", "application/json", 403, "not by an event to audit"},
		{"an event that nobody wants", "/events/alert.unheard", "{}", "application/json", 202, ""},
		{"another event", "/events/json.only", "{}", "application/json", 403, "not the event json.only"},
		{"a batch", "/batch", `{"to":"alerts","data":1}` + "\n" + `{"event":"alert.quiet","data":2}`, "application/x-ndjson", 202, ""},
		{"a batch with a line that is not allowed", "/batch", `{"to":"alerts","data":1}` + "\n\n" + `{"to":"audit","data":2}`, "application/x-ndjson", 403, "line 3: not to audit; nothing was accepted"},
		{"a batch with an event that goes elsewhere", "/batch", `{"event":"alert.fired","data":1}`, "application/x-ndjson", 403, "line 1: not by an event to audit; nothing"},
		{"a structured event", "/cloudevents", cloud("alert.quiet"), "application/cloudevents+json", 202, ""},
		{"a structured event of another type", "/cloudevents", cloud("json.only"), "application/cloudevents+json", 403, "not the event json.only"},
		{"a batch of events", "/cloudevents", "[" + cloud("alert.quiet") + "]", "application/cloudevents-batch+json", 202, ""},
		{"a batch of events with one that is not allowed", "/cloudevents", "[" + cloud("alert.quiet") + "," + cloud("alert.fired") + "]", "application/cloudevents-batch+json", 403, "event 2: not by an event to audit; nothing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			b := startCalled(t, &limited{}, reg)
			resp, text := b.post(t, tc.path, tc.body, "Content-Type", tc.contentType)
			if resp.StatusCode != tc.want || !strings.Contains(text, tc.detail) {
				t.Errorf("got %d %s, want %d with %q", resp.StatusCode, text, tc.want, tc.detail)
			}
			refused := 0.0
			if tc.want == http.StatusForbidden {
				refused = 1
				if stored := b.store.Pending(); stored != 0 || len(b.wakes()) != 0 {
					t.Errorf("got %d deliveries stored, want none", stored)
				}
			}
			if got := refusals(t, reg, "forbidden"); got != refused {
				t.Errorf("got %v refusals counted, want %v", got, refused)
			}
		})
	}
	t.Run("what is not allowed is refused before its body is asked for", func(t *testing.T) {
		b := startCalled(t, &limited{}, nil)
		for _, path := range []string{"/to/audit", "/events/json.only"} {
			read := false
			body := readerFunc(func([]byte) (int, error) { read = true; return 0, io.EOF })
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+path, body)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = 1 << 20
			req.Header.Set("Expect", "100-continue")
			client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			client.CloseIdleConnections()
			if resp.StatusCode != http.StatusForbidden || read {
				t.Errorf("%s: got %d, body read = %t; want 403 without it", path, resp.StatusCode, read)
			}
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// refusals returns how many were counted for a reason.
func refusals(t *testing.T, reg *prometheus.Registry, reason string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, series := range family.GetMetric() {
			if family.GetName() == "postern_ingest_refusals_total" && series.GetLabel()[0].GetValue() == reason {
				return series.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no series of %q", reason)
	return 0
}

func TestACallersRate(t *testing.T) {
	t.Run("a post beyond it is 429, with the time to wait", func(t *testing.T) {
		reg := prometheus.NewRegistry()
		caller := &limited{wait: 1500 * time.Millisecond}
		b := startCalled(t, caller, reg)
		for _, path := range []string{"/to/alerts", "/events/alert.quiet", "/batch", "/cloudevents"} {
			resp, text := b.post(t, path, "{}")
			if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "2" || !strings.Contains(text, "rate in listen.tokens") {
				t.Errorf("%s: got %d %s, Retry-After %q; want 429 after 2 s", path, resp.StatusCode, text, resp.Header.Get("Retry-After"))
			}
		}
		if got := refusals(t, reg, "token_rate"); got != 4 {
			t.Errorf("got %v refusals for the rate, want 4", got)
		}
		if got := refusals(t, reg, "backlog"); got != 0 {
			t.Errorf("got %v refusals for the backlog, want none", got)
		}
	})
	t.Run("each message counts, also those of a batch", func(t *testing.T) {
		caller := &limited{}
		b := startCalled(t, caller, nil)
		b.post(t, "/to/alerts", "{}")
		b.post(t, "/batch", strings.Repeat(`{"to":"alerts","data":1}`+"\n", 5))
		b.post(t, "/cloudevents", "[]", "Content-Type", "application/cloudevents-batch+json")
		if caller.begun != 3 || caller.more != 4 {
			t.Errorf("got %d begun and %d more, want 3 and 4", caller.begun, caller.more)
		}
	})
	t.Run("what is refused counts as one", func(t *testing.T) {
		caller := &limited{}
		b := startCalled(t, caller, nil)
		b.post(t, "/batch", strings.Repeat(`{"to":"alerts","data":1}`+"\n", 5)+`{"to":"nobody","data":1}`)
		if caller.begun != 1 || caller.more != 0 {
			t.Errorf("got %d begun and %d more, want 1 and 0", caller.begun, caller.more)
		}
	})
	t.Run("what has no meaning here counts as none", func(t *testing.T) {
		caller := &limited{}
		b := startCalled(t, caller, nil)
		b.post(t, "/nothing", "{}")
		b.post(t, "/to/alerts", "{}", "Postern-Misspelt", "x")
		if caller.begun != 0 {
			t.Errorf("got %d begun, want none", caller.begun)
		}
	})
	t.Run("without a caller there is no bound", func(t *testing.T) {
		b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) {
			h.Caller = func(context.Context) ingest.Caller { return nil }
		})
		if resp, text := b.post(t, "/events/alert.fired", "{}"); resp.StatusCode != http.StatusAccepted {
			t.Errorf("got %d %s, want 202", resp.StatusCode, text)
		}
	})
}

func TestCallersDoNotMeetByTheirIdempotencyKeys(t *testing.T) {
	const event = `{"specversion":"1.0","source":"s","id":"KEY","type":"alert.quiet","data":1}`
	for _, tc := range []struct {
		name, path, body, contentType, header string
	}{
		{"one message", "/to/alerts", "1", "text/plain", "Idempotency-Key"},
		{"a batch", "/batch", `{"event":"alert.quiet","data":1,"id":"KEY"}`, "application/x-ndjson", ""},
		{"a CloudEvent", "/cloudevents", event, "application/cloudevents+json", ""},
		{"a batch of CloudEvents", "/cloudevents", "[" + event + "]", "application/cloudevents-batch+json", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var now ingest.Caller
			b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) {
				h.Caller = func(context.Context) ingest.Caller { return now }
				h.Router.(routes).events["alert.quiet"] = []string{"alerts"}
			})
			for _, step := range []struct {
				name   string
				caller ingest.Caller
				again  bool // the answer is that of an earlier post
			}{
				{"one without bounds", nil, false},
				{"one with bounds learns nothing of it", &limited{}, false},
				{"one without bounds, again", nil, true},
				{"another one with bounds, in the place of the one before", &limited{}, true},
			} {
				now = step.caller
				header := []string{"Content-Type", tc.contentType}
				if tc.header != "" {
					header = append(header, tc.header, "KEY")
				}
				resp, text := b.post(t, tc.path, tc.body, header...)
				if again := resp.Header.Get("Idempotency-Replayed") == "true"; resp.StatusCode != 202 || again != step.again {
					t.Errorf("%s: got %d %s, again = %t; want 202 and %t", step.name, resp.StatusCode, text, again, step.again)
				}
			}
		})
	}
	t.Run("with bounds a key counts for each target by itself", func(t *testing.T) {
		b := startCalled(t, &limited{}, nil)
		for _, step := range []struct {
			path, body string
			want       int
		}{{"/to/alerts", "1", 202}, {"/events/alert.quiet", "2", 202}, {"/to/alerts", "2", 422}, {"/to/alerts", "1", 202}} {
			if resp, text := b.post(t, step.path, step.body, "Idempotency-Key", "k"); resp.StatusCode != step.want {
				t.Errorf("%s with %s: got %d %s, want %d", step.path, step.body, resp.StatusCode, text, step.want)
			}
		}
		if got := b.store.Pending(); got != 2 {
			t.Errorf("got %d deliveries, want 2", got)
		}
	})
}
