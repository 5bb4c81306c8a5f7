package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// command runs postern as a process of its own, and returns what it printed.
func command(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "postern", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("postern %v: %v\n%s", args, err, out.String())
	}
	return out.String()
}

func TestGonePauses(t *testing.T) {
	c := newContract(t, "127.0.0.47", `retry: {schedule: [0s, 50ms, 50ms]}
  other: {url: "https://far.test/other", tls: {ca_file: CA}, allow_networks: [127.0.0.0/8], sign: [{standard: {secrets: [SECRET]}}]}`, nil)
	raw, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, c.config, strings.NewReplacer("CA}", c.far.caFile+"}", "SECRET]", c.far.secret+"]").Replace(string(raw)))
	c.start(t)
	client := httpClient(t)
	requests := func() int {
		return len(slices.DeleteFunc(c.far.Latest(), func(r receiver.Request) bool { return r.Target != "/hook" }))
	}
	// passed waits until another destination has got a message that was posted after what came before.
	passed := func() {
		t.Helper()
		id, err := post(t.Context(), client, "http://"+c.ingest+"/to/other", "{}")
		if err != nil {
			t.Fatal(err)
		}
		c.arrived(t, id)
	}

	c.far.SetFault(receiver.Fault{Kind: receiver.Status, Status: http.StatusGone})
	first := c.post(t, client, `{"n":1}`)
	if d := awaitEnd(t, c.relay, "far", first); d.State != "failed" || d.Status != http.StatusGone || d.Attempt != 1 {
		t.Errorf("got %+v, want it failed by the first attempt", d)
	}
	c.far.SetFault(receiver.Fault{})
	if log := c.relay.log.String(); !strings.Contains(log, "destination paused") || !strings.Contains(log, "410 Gone") {
		t.Errorf("the log has no line about the pause:\n%s", log)
	}
	second := c.post(t, client, `{"n":2}`)
	passed()
	if got := requests(); got != 1 {
		t.Errorf("while it is paused: got %d requests, want the first alone", got)
	}

	c.relay.stop(t)
	c.start(t)
	if log := c.relay.log.String(); !strings.Contains(log, "destination is paused") {
		t.Errorf("the log of the next start does not name the pause:\n%s", log)
	}
	third := c.post(t, client, `{"n":3}`)
	passed()
	if got := requests(); got != 1 {
		t.Errorf("paused, after a restart: got %d requests, want the first alone", got)
	}

	if out := command(t, "resume", "far", "--admin", c.admin); !strings.Contains(out, "far goes on") {
		t.Errorf("postern resume: got %q, want that it goes on", out)
	}
	for _, id := range []string{second, third} {
		c.arrived(t, id)
		if d := awaitEnd(t, c.relay, "far", id); d.State != "delivered" {
			t.Errorf("after it was resumed: got %+v, want it delivered", d)
		}
	}
	if _, ok := c.far.Message(first); ok {
		t.Error("the message that was answered 410 was sent again")
	}
	t.Run("postern pause holds it too", func(t *testing.T) {
		if out := command(t, "pause", "far", "--admin", c.admin, "--reason", "maintenance over there"); !strings.Contains(out, "maintenance over there") {
			t.Errorf("postern pause: got %q, want the reason", out)
		}
		before := requests()
		id := c.post(t, client, `{"n":4}`)
		passed()
		if got := requests(); got != before {
			t.Errorf("got %d requests while it was paused, want none", got-before)
		}
		command(t, "resume", "far", "--config", c.config)
		c.arrived(t, id)
	})
	c.relay.stop(t)
}

func TestBreakerOutlastsAnOutage(t *testing.T) {
	// The schedule alone is over in 100 ms, and would fail everything.
	c := newContract(t, "127.0.0.48", `breaker: {failures: 2, probe_every: 200ms}
    concurrency: 1
    retry: {attempts: 3, first: 50ms, max: 50ms}`, nil)
	c.far.Outage(true)
	c.start(t)
	client, ids := httpClient(t), map[string]string{}
	const messages = 30
	for n := range messages {
		ids[c.post(t, client, fmt.Sprintf(`{"n":%d}`, n))] = ""
	}
	waitUntil(t, 30*time.Second, "some probes fail", func() bool { return c.far.Stats().Requests >= 8 })
	if log := c.relay.log.String(); !strings.Contains(log, "breaker opened") {
		t.Errorf("the log does not say that the breaker has opened:\n%s", log)
	}
	var during []time.Time
	for _, r := range c.far.Latest() {
		during = append(during, r.At)
	}
	for i := 2; i < len(during); i++ { // the first two opened it
		if got := during[i].Sub(during[i-1]); got < 200*time.Millisecond {
			t.Errorf("probe %d came %v after the one before, want at least 200ms", i-1, got)
		}
	}
	c.far.Outage(false)
	waitUntil(t, 60*time.Second, "everything arrives after the outage", func() bool { return c.far.has(ids) })
	c.relay.stop(t)
	all := endedDeliveries(t, c.relay)
	for id := range ids {
		if d := all[[2]string{"far", id}]; d.State != "delivered" {
			t.Errorf("%s: got %+v, want it delivered", id, d)
		}
	}
	if got := c.far.Stats(); got.Duplicates > 0 || got.Distinct != messages {
		t.Errorf("got %+v, want each message once", got)
	}
	if log := c.relay.log.String(); !strings.Contains(log, "breaker closed") {
		t.Errorf("the log does not say that the breaker has closed:\n%s", log)
	}
}

// connectProxy tunnels what it is asked for by CONNECT, and keeps the requests.
type connectProxy struct {
	address string

	mu    sync.Mutex // guards the field below
	asked []string   // target and credentials of each request
}

func newConnectProxy(t *testing.T) *connectProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &connectProxy{address: listener.Addr().String()}
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close() // the tunnels end with their other ends
		<-done
	})
	return p
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization"))
	p.mu.Unlock()
	if r.Method != http.MethodConnect {
		http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
		return
	}
	var d net.Dialer
	out, err := d.DialContext(r.Context(), "tcp", r.Host)
	if err != nil {
		http.Error(w, "no connection", http.StatusBadGateway)
		return
	}
	defer out.Close()
	in, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer in.Close()
	if _, err := io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var ways sync.WaitGroup
	for _, way := range [][2]net.Conn{{out, in}, {in, out}} {
		ways.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_, _ = way[0].Close(), way[1].Close()
		})
	}
	ways.Wait()
}

func (p *connectProxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

func TestProxy(t *testing.T) {
	proxy := newConnectProxy(t)
	c := newContract(t, "127.0.0.49", "", nil)
	raw, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf("egress: {proxy: \"http://postern:proxy-password-5a@%s\", ", proxy.address)
	writeFile(t, c.config, strings.Replace(string(raw), "egress: {", own, 1))
	c.start(t)
	m := c.arrived(t, c.post(t, httpClient(t), `{"through":"a proxy"}`))
	if got := string(m.Body); got != `{"through":"a proxy"}` {
		t.Errorf("got body %q", got)
	}
	// The proxy is asked for the address that was judged, and sees no name.
	want := "CONNECT 127.0.0.49:443 Basic cG9zdGVybjpwcm94eS1wYXNzd29yZC01YQ=="
	if got := proxy.requests(); len(got) != 1 || got[0] != want {
		t.Errorf("the proxy was asked for %q, want %q", got, want)
	}
	if m.Header.Get("Proxy-Authorization") != "" {
		t.Error("the receiver got the proxy's password")
	}
	c.relay.stop(t)
	if strings.Contains(c.relay.log.String(), "proxy-password-5a") {
		t.Errorf("the log holds the proxy's password:\n%s", c.relay.log)
	}
}

func TestWhyADeliveryFailed(t *testing.T) {
	s := newSite(t, "127.0.0.40", siteOptions{hosts: []string{"far.test"}})
	s.answers(func(wireRequest) siteAnswer { return siteAnswer{body: `{"data":{"status":"error"}}`} })
	dir := t.TempDir()
	ingest, admin := freeAddresses(t)
	config := filepath.Join(dir, "postern.yaml")
	writeFile(t, config, fmt.Sprintf(`
listen: {ingest: "%s", admin: "%s"}
store: {path: %q}
egress: {resolve: {far.test: %s}}
defaults:
  url: https://far.test/hook
  tls: {ca_file: %q}
  allow_networks: [127.0.0.0/8]
  events: ["thing.*"]
  content_type: application/json
  retry: {schedule: [0s, 10ms]}
destinations:
  member: {body: '{"name": {{ json .Data.name }}}'}
  notjson: {body: '{"name": {{ .Data.count }}, }'}
  header: {headers: {X-Name: "{{ .Data.lines }}"}}
  answer: {expect: [{path: $.data.status, values: [ok, queued]}]}
  good: {body: '{"count": {{ .Data.count }}}'}
`, ingest, admin, filepath.Join(dir, "data"), s.ip, s.caFile))
	relay := startPostern(t, admin, "run", "--config", config)
	posted, err := json.Marshal(map[string]any{"count": 7, "lines": "one\r\nX-Injected: two"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := post(t.Context(), httpClient(t), "http://"+ingest+"/events/thing.happened", string(posted))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, destination, class string
		attempt                  int
		reason                   []string
	}{
		{"a template asks for a member that is not there", "member", "render", 1, []string{"body", ".Data.name is missing"}},
		{"a template makes what is no JSON", "notjson", "render", 1, []string{"body", "JSON"}},
		{"a template puts a line break into a header", "header", "render", 1, []string{"X-Name", "line break"}},
		{"the answer does not hold what is expected", "answer", "expect", 2, []string{"the answer does not hold what is expected"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := awaitEnd(t, relay, tc.destination, id)
			if d.State != "failed" || d.Class != tc.class || d.Attempt != tc.attempt {
				t.Errorf("got %+v, want it failed with class %s by attempt %d", d, tc.class, tc.attempt)
			}
			for _, part := range tc.reason {
				if !strings.Contains(d.Reason, part) {
					t.Errorf("got reason %q, want %q in it", d.Reason, part)
				}
			}
		})
	}
	if d := awaitEnd(t, relay, "good", id); d.State != "delivered" {
		t.Errorf("the destination beside them: got %+v, want it delivered", d)
	}
	relay.stop(t)
	bodies := map[string]int{}
	for _, r := range s.to("") {
		bodies[r.body]++
	}
	if len(bodies) != 2 || bodies[`{"count": 7}`] != 1 || bodies[string(posted)] != 2 {
		t.Errorf("got requests %v, want one of good, two of answer, and none of what could not be built", bodies)
	}
}
