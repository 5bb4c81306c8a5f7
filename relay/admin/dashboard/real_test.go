package dashboard_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store/badgerstore"
)

// brokenAnswer is what the receiver says while it is broken.
const brokenAnswer = `{"error":"<script>pwned()</script> is down"}`

// wholeRelay is a relay as it really runs, over a store on disk, with a receiver that verifies. Its destination alerts
// tries once, billing a second time in an hour.
type wholeRelay struct {
	testing.TB
	ingest, admin string // URLs
	secret, path  string // what the config refers to and nobody is to see: of the signatures, in the URL
	receiver      *receiver.Receiver
	broken        atomic.Bool
	whole         *relay.Relay
	file          string // of the config
}

func startRelay(t *testing.T) *wholeRelay { return startRelayWith(t, "") }

// startRelayWith starts a relay with more keys in listen, which begin with a comma.
func startRelayWith(t *testing.T, listen string) *wholeRelay {
	t.Helper()
	r := &wholeRelay{TB: t, secret: sign.NewSecret(), path: "T0KENinTHEpath"}
	dir := t.TempDir()
	ca, err := receiver.NewCA("dashboard tests")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue("hooks.test")
	if err != nil {
		t.Fatal(err)
	}
	pipe := receiver.NewPipe()
	r.receiver = &receiver.Receiver{Listener: pipe, Certificate: cert, Secret: r.secret}
	r.serve(t, pipe, cert)
	file := filepath.Join(dir, "postern.yaml")
	for name, text := range map[string]string{filepath.Join(dir, "ca.pem"): string(ca.PEM()), file: `
listen: {ingest: "127.0.0.1:0", admin: "127.0.0.1:0"` + listen + `}
defaults:
  tls: {ca_file: ca.pem}
  breaker: none
  sign: [{standard: {secrets: ["${env:SECRET}"]}}]
destinations:
  alerts: {url: "https://hooks.test/${env:URL_PATH}", retry: none}
  billing: {url: "https://hooks.test/billing", retry: {schedule: [0s, 1h]}}
`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inject := relay.LoadOptions{Inject: map[string]func(context.Context) (net.Conn, error){"hooks.test": pipe.Dial}}
	_, plan, err := relay.LoadWith(file, []string{"SECRET=" + r.secret, "URL_PATH=" + r.path}, inject)
	if err != nil {
		t.Fatal(err)
	}
	s, err := badgerstore.Open(badgerstore.Options{Path: filepath.Join(dir, "data")})
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.InfoLevel)
	whole := &relay.Relay{Plan: plan, Store: s, Log: zap.New(core), Drain: time.Second, Version: "1.2.3"}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- whole.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	for end := time.Now().Add(waitBound); logs.FilterMessage("listening").Len() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the relay does not listen")
		}
	}
	listening := logs.FilterMessage("listening").All()[0].ContextMap()
	r.ingest, r.admin = "http://"+listening["ingest"].(string), "http://"+listening["admin"].(string)
	r.whole, r.file = whole, file
	return r
}

// serve runs the receiver until the test ends.
func (r *wholeRelay) serve(t *testing.T, l net.Listener, cert tls.Certificate) {
	t.Helper()
	take, err := r.receiver.Handler()
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !r.broken.Load() {
				take.ServeHTTP(w, req)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, brokenAnswer)
		}),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ServeTLS(l, "", "") // ends with Close
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
}

// post posts to a destination and returns the id of the delivery.
func (r *wholeRelay) post(destination, body string) string {
	r.Helper()
	resp, err := http.Post(r.ingest+"/to/"+destination, "application/json", strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct{ Deliveries []struct{ ID string } }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || len(answer.Deliveries) != 1 {
		r.Fatalf("post: got the status %d, %d deliveries, error %v", resp.StatusCode, len(answer.Deliveries), err)
	}
	return answer.Deliveries[0].ID
}

// state returns that of a delivery.
func (r *wholeRelay) state(id string) string {
	r.Helper()
	resp, err := http.Get(r.admin + "/api/v1/deliveries/" + id)
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var d struct{ State string }
	if err := json.NewDecoder(resp.Body).Decode(&d); err != nil {
		r.Fatal(err)
	}
	return d.State
}

// TestWholeRelay does in a browser what a person does about a running relay, without anything in place of its parts.
func TestWholeRelay(t *testing.T) {
	browser := startBrowser(t)

	t.Run("a failure is seen, opened, read on both sides, replayed and watched to its delivery", func(t *testing.T) {
		r := startRelay(t)
		r.broken.Store(true)
		id := r.post("alerts", `{"html":"<script>pwned()</script>","n":1}`)
		p := openTab(t, browser, r.admin)
		p.open("/")
		p.shows(".destination", "Failing")
		p.click(".destination a", "alerts")
		p.click("[data-row]", "502 Bad Gateway")
		p.until(`location.hash === "#/deliveries/` + id + `"`)
		p.shows("section[aria-label=Request]", "Webhook-Signature")
		p.shows("section[aria-label=Request]", `"html": "<script>pwned()</script>"`)
		p.shows("section[aria-label=Response]", "502 Bad Gateway")
		p.shows("section[aria-label=Response]", `"error": "<script>pwned()</script> is down"`)
		r.broken.Store(false)
		p.click("button", "Replay")
		p.shows(".badge", "Delivered") // nothing was asked for again by hand: the stream has told the page
		p.shows(".timeline", "round 2")
		p.shows("section[aria-label=Response]", "200 OK")
		if got := r.receiver.Stats(); got.Distinct != 1 || got.Unverified != 0 {
			t.Errorf("got %+v at the receiver, want one verified message", got)
		}
		if got := p.eval(`String(window.pwned) + document.querySelectorAll("main img, main script").length`); got != "undefined0" {
			t.Errorf("got %s, want nothing of it run or made into an element", got)
		}
	})

	t.Run("a pending delivery is sent now, another one is canceled", func(t *testing.T) {
		r := startRelay(t)
		r.broken.Store(true)
		first, second := r.post("billing", `{"n":1}`), r.post("billing", `{"n":2}`)
		p := openTab(t, browser, r.admin)
		p.open("/deliveries/" + first)
		p.shows(".timeline", "Next attempt")
		r.broken.Store(false)
		p.click("button", "Retry now")
		p.shows(".badge", "Delivered")
		p.open("/deliveries/" + second)
		p.shows(".timeline", "Next attempt")
		p.click("button", "Cancel")
		p.fill("dialog input", "no longer wanted")
		p.click("dialog button", "Cancel delivery")
		p.shows(".badge", "Canceled")
		p.shows("main", "no longer wanted")
		if got := r.state(first) + " " + r.state(second); got != "delivered canceled" {
			t.Errorf("got %s, want delivered canceled", got)
		}
	})

	t.Run("a paused destination holds what comes, and lets it go when it is resumed", func(t *testing.T) {
		r := startRelay(t)
		p := openTab(t, browser, r.admin)
		p.open("/destinations/alerts")
		p.click("button", "Pause")
		p.fill("dialog input", "they are moving")
		p.click("dialog button", "Pause")
		p.shows(".callout.warn", "they are moving")
		id := r.post("alerts", `{"n":1}`)
		p.open("/deliveries/" + id)
		p.shows("main", "aused")
		if got := r.state(id); got != "pending" {
			t.Errorf("got %s while paused, want pending", got)
		}
		p.open("/destinations/alerts")
		p.click("button", "Resume")
		p.until(`!document.querySelector(".callout.warn")`)
		p.open("/deliveries/" + id)
		p.shows(".badge", "Delivered")
	})

	t.Run("a test is one real request of which nothing stays", func(t *testing.T) {
		r := startRelay(t)
		p := openTab(t, browser, r.admin)
		p.open("/destinations/alerts?tab=test")
		p.fill("textarea", `{"amount": 1}`)
		p.click("button", "Send test")
		p.shows("section.attempt", "A delivery would be delivered by this.")
		p.shows("section[aria-label=Response]", "200 OK")
		p.open("/deliveries")
		p.until(`document.querySelectorAll("[data-row]").length === 0`)
		if got := r.receiver.Stats(); got.Requests != 1 || got.Unverified != 0 {
			t.Errorf("got %+v at the receiver, want one verified request", got)
		}
	})

	t.Run("many are replayed after a preview", func(t *testing.T) {
		r := startRelay(t)
		r.broken.Store(true)
		ids := []string{r.post("alerts", `{"n":1}`), r.post("alerts", `{"n":2}`), r.post("alerts", `{"n":3}`)}
		p := openTab(t, browser, r.admin)
		p.open("/deliveries?state=failed")
		p.until(`document.querySelectorAll("[data-row]").length === 3`)
		r.broken.Store(false)
		p.open("/replay?destination=alerts&state=failed")
		p.shows("#confirm-title", "3 deliveries match")
		p.click("button", "Replay 3 deliveries")
		p.shows(".toasts", "3 deliveries replayed")
		p.open("/deliveries?state=delivered")
		p.until(`document.querySelectorAll("[data-row]").length === 3`)
		for _, id := range ids {
			if got := r.state(id); got != "delivered" {
				t.Errorf("got %s %s, want delivered", id, got)
			}
		}
	})

	t.Run("no page, answer or copy shows a secret", func(t *testing.T) {
		r := startRelay(t)
		r.broken.Store(true)
		id := r.post("alerts", `{"n":1}`)
		p := openTab(t, browser, r.admin)
		bare := strings.TrimPrefix(r.secret, "whsec_")
		for _, view := range []string{"/", "/deliveries/" + id, "/destinations/alerts", "/destinations/alerts?tab=config", "/destinations/alerts?tab=test&delivery=" + id} {
			p.open(view)
			p.until(`!document.querySelector("button.primary:disabled")`)
			if page := p.eval("document.documentElement.outerHTML"); strings.Contains(page, bare) || strings.Contains(page, r.path) {
				t.Errorf("%s shows a secret", view)
			}
		}
		p.open("/deliveries/" + id)
		p.click("button", "Copy as curl")
		p.shows(".toasts", "copied")
		if got := p.clipboard(); strings.Contains(got, r.path) || strings.Contains(got, bare) {
			t.Errorf("got %q copied, with a secret", got)
		}
	})

	t.Run("pages of other hosts can do nothing", func(t *testing.T) {
		r := startRelay(t)
		r.broken.Store(true)
		id := r.post("alerts", `{"n":1}`)
		evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, `<!doctype html><title>elsewhere</title>`)
		}))
		defer evil.Close()
		p := openTab(t, browser, evil.URL)
		for _, part := range []string{"CORS", "ERR_FAILED", "request to another host", "403"} {
			p.expecting(part)
		}
		p.do(chromedp.Navigate(evil.URL))
		got := p.eval(`(async () => {
			const said = [];
			for (const how of [{}, {method: "POST"}, {method: "POST", mode: "no-cors"}, {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"}])
				for (const path of ["/api/v1/deliveries/` + id + `/replay", "/api/v1/destinations/alerts/pause", "/api/v1/overview", "/metrics"])
					said.push(await fetch("` + r.admin + `" + path, how).then((r) => r.type === "opaque" ? "hidden" : "read", () => "refused"));
			return [...new Set(said)].sort().join(" ");
		})()`)
		if got != "hidden refused" {
			t.Errorf("got %q, want nothing readable", got)
		}
		if got := r.state(id); got != "failed" {
			t.Errorf("got the delivery %s, want it failed as before", got)
		}
		for _, path := range []string{"/", "/api/v1/overview", "/api/v1/events", "/metrics"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.admin+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "rebound.example"
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusMisdirectedRequest {
				t.Errorf("%s under a foreign Host: got %d, want 421", path, resp.StatusCode)
			}
		}
		resp, err := http.Get(r.admin + "/api/v1/destinations/alerts")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var d struct{ Pause any }
		if err := json.NewDecoder(resp.Body).Decode(&d); err != nil || d.Pause != nil {
			t.Errorf("got the pause %v, error %v; want none", d.Pause, err)
		}
	})
}
