package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-relay/postern/relay/admin"
)

// Kinds of surfaces, where a secret could show. Those that are for people who work with messages show what is in them.
const (
	onLog      = "log and error output of the relay"
	onDump     = "dump of its goroutines"
	onTerminal = "output of commands"
	onIngest   = "answers to apps"
	onRefusal  = "answers to strangers"
	onAPI      = "answers of the admin API"
	onStream   = "stream of changes"
	onMetrics  = "metrics"
	onPage     = "pages of the dashboard"
	onAssets   = "files of the dashboard"
	onNotices  = "what Postern tells of itself to a destination"
	onTraces   = "exported traces"
	onDisk     = "files of the encrypted store"
	onBackup   = "files of backups"
	onPlain    = "a store restored without encryption"
	onKeys     = "the same with its private keys"
)

func showsContent(kind string) bool {
	return slices.Contains([]string{onTerminal, onAPI, onStream, onPage, onPlain, onKeys}, kind)
}

// surfaces is what the test has seen of Postern. It may be used from several goroutines.
type surfaces struct {
	mu   sync.Mutex // guards list
	list []surface
}

type surface struct {
	kind, name string
	data       []byte
}

func (s *surfaces) add(kind, name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, surface{kind, name, data})
}

// folder adds all files below a folder.
func (s *surfaces) folder(t *testing.T, kind, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(name)
		s.add(kind, name, raw)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// search looks for all canaries on all surfaces, and lists what it has looked at: least is how many bytes there must be of
// each kind, so that nothing passes for being empty.
func (s *surfaces) search(t *testing.T, h *hunter, least map[string]int, allowed func(kind string, c *canary) bool) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	bytesOf, partsOf := map[string]int{}, map[string]int{}
	told := map[string]bool{} // each way in which one shows, once
	for _, surface := range s.list {
		bytesOf[surface.kind] += len(surface.data)
		partsOf[surface.kind]++
		for _, p := range h.find(surface.data) {
			if p.canary.content && showsContent(surface.kind) || allowed(surface.kind, p.canary) {
				continue
			}
			if what := p.canary.name + p.encoding; !told[what] && len(told) < 60 {
				told[what] = true
				t.Errorf("%s, %s: shows %q (%s): …%q…", surface.kind, surface.name, p.canary.name, p.encoding, around(surface.data, p))
			}
		}
	}
	for kind := range bytesOf {
		if _, ok := least[kind]; !ok {
			t.Errorf("%s: nothing is said of how much there must be", kind)
		}
	}
	for _, kind := range slices.SortedFunc(maps.Keys(least), cmp.Compare) {
		t.Logf("searched %8d bytes in %4d parts: %s", bytesOf[kind], partsOf[kind], kind)
		if bytesOf[kind] < least[kind] {
			t.Errorf("%s: got %d bytes, want %d at least: this searches nothing", kind, bytesOf[kind], least[kind])
		}
	}
}

// around returns what stands before and behind a find.
func around(data []byte, p *pattern) []byte {
	at := strings.Index(lower(data), p.text)
	return data[max(0, at-160):min(len(data), at+len(p.text)+60)]
}

// ask makes a request to the admin listener and keeps the answer as a surface. The answer's header counts too.
func (w *watch) ask(kind, method, path, token string, body []byte) (status int, answer []byte) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, "http://"+w.Admin+path, bytes.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		w.Fatalf("%s %s: %v", method, path, err)
	}
	w.seen.add(kind, method+" "+path, append(fmt.Appendf(nil, "%d %v\n", resp.StatusCode, resp.Header), answer...))
	return resp.StatusCode, answer
}

// walkAPI asks for everything that the API's own description names, of each delivery, message and destination.
func (w *watch) walkAPI() {
	w.Helper()
	get := func(path string) []byte {
		status, answer := w.ask(onAPI, http.MethodGet, path, w.adminToken(), nil)
		if status != http.StatusOK {
			w.Errorf("GET %s: got %d %.300s", path, status, answer)
		}
		return answer
	}
	list := w.deliveries()
	var named struct{ Destinations []struct{ Name string } }
	if err := json.Unmarshal(get("/api/v1/destinations"), &named); err != nil || len(named.Destinations) == 0 {
		w.Fatalf("got %d destinations, error %v", len(named.Destinations), err)
	}
	var description struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal(admin.OpenAPI(), &description); err != nil {
		w.Fatal(err)
	}
	for path, operations := range description.Paths {
		if _, ok := operations["get"]; !ok || path == "/api/v1/events" { // which is listened to all the time
			continue
		}
		switch {
		case strings.Contains(path, "{name}"):
			for _, d := range named.Destinations {
				get(strings.ReplaceAll(path, "{name}", d.Name))
			}
		case strings.Contains(path, "/deliveries/{id}"):
			for _, d := range list {
				get(strings.ReplaceAll(path, "{id}", d.ID))
			}
		case strings.Contains(path, "/messages/{id}"):
			for _, d := range list {
				path := strings.ReplaceAll(path, "{id}", d.MessageID)
				if status, answer := w.ask(onAPI, http.MethodGet, path, w.adminToken(), nil); status != http.StatusOK && d.Destination != "forgetful" {
					w.Errorf("GET %s: got %d %.300s", path, status, answer)
				}
			}
		case strings.Contains(path, "{"):
			w.Errorf("no values for %s", path)
		default:
			get(path)
		}
	}
	for _, d := range named.Destinations {
		for _, do := range []string{"render", "test"} {
			w.ask(onAPI, http.MethodPost, "/api/v1/destinations/"+d.Name+"/"+do, w.adminToken(), []byte(`{}`))
		}
	}
	w.ask(onMetrics, http.MethodGet, "/metrics", w.adminToken(), nil)
	for _, path := range []string{"/livez", "/readyz", "/api/v1/nothing", "/api/v1/deliveries?state=wrong"} {
		w.ask(onAPI, http.MethodGet, path, w.adminToken(), nil)
	}
}

// deliveries lists them all.
func (w *watch) deliveries() []admin.Delivery {
	w.Helper()
	var page admin.DeliveryPage
	_, answer := w.ask(onAPI, http.MethodGet, "/api/v1/deliveries?limit=500", w.adminToken(), nil)
	if err := json.Unmarshal(answer, &page); err != nil || len(page.Deliveries) == 0 || page.NextCursor != nil {
		w.Fatalf("got %d deliveries, and not all, or error %v", len(page.Deliveries), err)
	}
	return page.Deliveries
}

// oneOfEach returns one delivery of each state to each kind of destination, for what takes long: commands and pages show
// what the API answers, which is asked for all. Destinations whose names differ in what stands before the hyphen differ
// only in the way in which their secrets get into the config.
func (w *watch) oneOfEach() []admin.Delivery {
	w.Helper()
	var some []admin.Delivery
	seen := map[string]bool{}
	for _, d := range w.deliveries() {
		kind := d.State + " " + d.Destination[strings.Index(d.Destination, "-")+1:]
		if !seen[kind] {
			seen[kind] = true
			some = append(some, d)
		}
	}
	return some
}

// listen reads the stream of changes until the returned func is called.
func (w *watch) listen() func() {
	w.Helper()
	ctx, stop := context.WithCancel(w.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.Admin+"/api/v1/events", nil)
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.adminToken())
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.Fatalf("stream: got %v, error %v", resp, err)
	}
	done := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(resp.Body) // ends with the context
		done <- all
	}()
	return func() {
		stop()
		_ = resp.Body.Close()
		w.seen.add(onStream, "all", <-done)
	}
}
