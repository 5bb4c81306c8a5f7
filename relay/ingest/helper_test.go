package ingest_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// routes is a Router: destinations by name, and the names that each event goes to.
type routes struct {
	known  map[string]time.Duration // with the delay of each
	events map[string][]string
	header []string        // that each destination sends on
	paths  map[string]bool // names of those that send a path on
	filter map[string]bool // names of those whose filter needs JSON
	order  bool            // each delivery stands in the line of its key
}

func (r routes) Route(p ingest.Post) ([]ingest.Route, error) {
	if p.Destination == "" {
		var all []ingest.Route
		for _, name := range r.events[p.Event] {
			if r.filter[name] && !json.Valid(p.Body) {
				return nil, &ingest.RouteError{Fault: ingest.BodyNotJSON, Destination: name, Err: errors.New("it is none")}
			}
			all = append(all, r.to(name, p))
		}
		return all, nil
	}
	if _, ok := r.known[p.Destination]; !ok {
		e := &ingest.RouteError{Fault: ingest.UnknownDestination, Destination: p.Destination}
		if strings.HasPrefix(p.Destination, "alrt") {
			e.Nearest = "alerts"
		}
		return nil, e
	}
	if p.Path != "" && !r.paths[p.Destination] {
		return nil, &ingest.RouteError{Fault: ingest.PathNotForwarded, Destination: p.Destination}
	}
	return []ingest.Route{r.to(p.Destination, p)}, nil
}

func (r routes) to(name string, p ingest.Post) ingest.Route {
	to := store.Recipient{Destination: name, Delay: r.known[name]}
	if r.order {
		to.Order = p.Key
	}
	return ingest.Route{To: to, Header: r.header}
}

// bench is a handler behind a real server, with a real engine behind it.
type bench struct {
	url    string
	store  *storetest.Memory
	server *httptest.Server

	mu    sync.Mutex // guards the field below
	woken []woken
}

type woken struct {
	destination string
	cursor      store.Cursor
}

func (b *bench) wakes() []woken {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.woken)
}

var acceptedAt = time.Date(2026, 11, 21, 6, 0, 0, 123_000_000, time.UTC)

// start serves a handler until the test ends. adjust may change it before, and configure the server.
func start(t testing.TB, o storetest.MemoryOptions, adjust func(*ingest.Handler), configure ...func(*http.Server)) *bench {
	t.Helper()
	b := &bench{store: storetest.NewMemory(o)}
	h := &ingest.Handler{
		Acceptor: b.store,
		Router: routes{
			known:  map[string]time.Duration{"alerts": 0, "audit": time.Minute, "a/b": 0, "proxy": 0},
			events: map[string][]string{"alert.fired": {"alerts", "audit"}, "json.only": {"alerts"}},
			header: []string{"X-Request-Id", "Authorization"},
			paths:  map[string]bool{"proxy": true, "a/b": true},
			filter: map[string]bool{},
		},
		Wake: func(destination string, c store.Cursor) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.woken = append(b.woken, woken{destination, c})
		},
		Now: func() time.Time { return acceptedAt.Add(456 * time.Microsecond) },
	}
	if adjust != nil {
		adjust(h)
	}
	b.server = httptest.NewUnstartedServer(h)
	for _, f := range configure {
		f(b.server.Config)
	}
	b.server.Start()
	b.url = b.server.URL
	t.Cleanup(func() {
		b.server.Close()
		if err := b.store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return b
}

// answer is what a success says.
type answer struct {
	ID         string `json:"id"`
	Deliveries []struct {
		ID          string `json:"id"`
		Destination string `json:"destination"`
		State       string `json:"state"`
	} `json:"deliveries"`
}

// post sends a request and returns the answer with its whole body.
func (b *bench) post(t testing.TB, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return do(t, req)
}

func do(t testing.TB, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("post: %v", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	return resp, string(text)
}

func parse(t testing.TB, text string) answer {
	t.Helper()
	var a answer
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		t.Fatalf("answer %q: %v", text, err)
	}
	return a
}
