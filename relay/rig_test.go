package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// patience is how long a test waits for what must happen; nothing waits that long when all is well.
const patience = 20 * time.Second

// rig is a whole relay: a config file, real listeners, the engine in memory, and a far end in memory for each host
// below .test.
type rig struct {
	*Relay
	path   string // of the config file
	memory *storetest.Memory
	far    *far
	logs   *observer.ObservedLogs
	client *http.Client
	stop   func() // ends the relay and waits; may be called again
}

// rigHosts are the hosts that the far end is.
var rigHosts = []string{"a.test", "b.test", "c.test", "d.test", "e.test"}

// newRig starts a relay with a config of the given destinations and more; see config. adjust, if any, sets fields of the
// relay beforehand.
func newRig(t *testing.T, text string, adjust ...func(*rig)) *rig {
	t.Helper()
	dir := t.TempDir()
	ca, err := receiver.NewCA("relay tests")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(rigHosts...)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.DebugLevel)
	r := &rig{
		path: filepath.Join(dir, "postern.yaml"), memory: storetest.NewMemory(storetest.MemoryOptions{}), far: newFar(t, cert),
		logs: logs, client: &http.Client{Transport: &http.Transport{}},
	}
	t.Cleanup(r.client.CloseIdleConnections)
	r.write(t, text)
	inject := map[string]func(context.Context) (net.Conn, error){}
	for _, host := range rigHosts {
		inject[host] = r.far.pipe.Dial
	}
	_, plan, err := LoadWith(r.path, nil, LoadOptions{Inject: inject})
	if err != nil {
		t.Fatal(err)
	}
	r.Relay = &Relay{Plan: plan, Store: r.memory, Log: zap.New(core), Drain: 5 * time.Second}
	for _, a := range adjust {
		a(r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		r.far.open() // what hangs must not hold up the end of the test
		r.stop()
	})
	until(t, "the relay listens", func() bool { return logs.FilterMessage("listening").Len() > 0 })
	return r
}

// rigSections are the sections of a rig's config, unless a test says them itself.
var rigSections = map[string]string{
	"listen":   `{ingest: "127.0.0.1:0", admin: "127.0.0.1:0"}`,
	"defaults": `{tls: {ca_file: ca.pem}, retry: {schedule: [0s, 20ms, 20ms, 20ms, 1h], jitter: 0}, breaker: none}`,
}

// write replaces the config file by rigSections and text.
func (r *rig) write(t *testing.T, text string) {
	t.Helper()
	for section, value := range rigSections {
		if !strings.Contains("\n"+text, "\n"+section+":") {
			text += "\n" + section + ": " + value
		}
	}
	replaceFile(t, r.path, text)
}

// replaceFile writes a file as editors do: another one takes its place.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	fresh := path + ".new"
	if err := os.WriteFile(fresh, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, path); err != nil {
		t.Fatal(err)
	}
}

// reloadWith reloads with another config, which must be fine.
func (r *rig) reloadWith(t *testing.T, text string) Reloaded {
	t.Helper()
	r.write(t, text)
	begin := time.Now()
	if err := r.Reload(t.Context()); err != nil {
		t.Fatalf("reload: %v", err)
	}
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("the reload took %s: it waited for something", took)
	}
	return r.LastReload()
}

// backAddr returns where the admin listener listens.
func (r *rig) backAddr() string {
	return r.logs.FilterMessage("listening").All()[0].ContextMap()["admin"].(string)
}

// post makes a post and returns the status and the text of the answer.
func (r *rig) post(t testing.TB, path, body string, header ...string) (int, string) {
	t.Helper()
	status, text, err := r.tryPost(path, body, header...)
	if err != nil {
		t.Fatalf("post %s: %v", path, err)
	}
	return status, text
}

// tryPost is post for any goroutine.
func (r *rig) tryPost(path, body string, header ...string) (status int, text string, err error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+r.front.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

// accept posts to a destination and returns the delivery.
func (r *rig) accept(t testing.TB, name string, header ...string) store.DeliveryID {
	t.Helper()
	status, text := r.post(t, "/to/"+name, "{}", header...)
	var answer struct{ ID string }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status/100 != 2 {
		t.Fatalf("post to %s: got %d %s", name, status, text)
	}
	id, err := store.ParseMessageID(answer.ID)
	if err != nil {
		t.Fatal(err)
	}
	return id.Delivery(0)
}

func (r *rig) delivery(t testing.TB, id store.DeliveryID) store.Delivery {
	t.Helper()
	d, err := r.memory.Delivery(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// awaitState waits until a delivery has a state.
func (r *rig) awaitState(t testing.TB, id store.DeliveryID, want store.State) {
	t.Helper()
	until(t, fmt.Sprintf("delivery %s is %s", id, want), func() bool { return r.delivery(t, id).State == want })
}

// until waits until ok says yes, and fails the test if it does not.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// far is the other end of all destinations of a rig. It answers 200 unless told otherwise, and notes every request.
type far struct {
	pipe *receiver.Pipe

	mu       sync.Mutex // guards the fields below
	cert     *tls.Certificate
	shown    int                         // handshakes with cert
	handlers map[string]http.HandlerFunc // by host, in place of answers
	answers  map[string]func(n int) int
	gates    map[string]chan struct{} // of hosts that hang: closed when they do no more
	requests []farRequest
	flying   map[string]int // by host and id
	doubled  []string       // host and id of what came while it was in flight
}

// farRequest is one request as it began.
type farRequest struct {
	host, id string
	header   http.Header
	body     string
	client   string // common name of the client certificate; empty without one
}

func newFar(t *testing.T, cert tls.Certificate) *far {
	t.Helper()
	f := &far{
		pipe: receiver.NewPipe(), cert: &cert, handlers: map[string]http.HandlerFunc{}, answers: map[string]func(int) int{},
		gates: map[string]chan struct{}{}, flying: map[string]int{},
	}
	server := &http.Server{
		Handler: f, TLSConfig: &tls.Config{GetCertificate: f.show, ClientAuth: tls.RequestClientCert}, ErrorLog: log.New(io.Discard, "", 0),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ServeTLS(f.pipe, "", "") // ends with Close
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return f
}

// show is for tls.Config.GetCertificate.
func (f *far) show(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shown++
	return f.cert, nil
}

// answer has a host answer by a func, which is given the number of the request for its id, from 1; nil means 200.
func (f *far) answer(host string, by func(n int) int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[host] = by
}

// hang has a host answer nothing to this and later requests, until open.
func (f *far) hang(host string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gates[host] = make(chan struct{})
}

// open ends all hanging.
func (f *far) open() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for host, gate := range f.gates {
		close(gate)
		delete(f.gates, host)
	}
}

// of returns the requests to a host, oldest first.
func (f *far) of(host string) []farRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []farRequest
	for _, r := range f.requests {
		if r.host == host {
			all = append(all, r)
		}
	}
	return all
}

func (f *far) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	key := r.Host + " " + r.Header.Get("Webhook-Id")
	f.mu.Lock()
	n := 1
	for _, earlier := range f.requests {
		if earlier.host+" "+earlier.id == key {
			n++
		}
	}
	seen := farRequest{host: r.Host, id: r.Header.Get("Webhook-Id"), header: r.Header.Clone(), body: string(body)}
	if len(r.TLS.PeerCertificates) > 0 {
		seen.client = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	f.requests = append(f.requests, seen)
	if f.flying[key] > 0 {
		f.doubled = append(f.doubled, key)
	}
	f.flying[key]++
	gate, by, handler := f.gates[r.Host], f.answers[r.Host], f.handlers[r.Host]
	f.mu.Unlock()
	status := http.StatusOK
	if gate != nil {
		<-gate
	}
	if by != nil {
		status = by(n)
	}
	f.mu.Lock()
	f.flying[key]--
	f.mu.Unlock()
	if handler != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler(w, r)
		return
	}
	w.WriteHeader(status)
}
