package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// epoch is the time of every test that does not say otherwise.
func epoch() time.Time { return time.Date(2026, 3, 14, 15, 9, 26, 535_000_000, time.UTC) }

// fake is a relay without lanes: what the API asks of it is done on the store, or noted.
type fake struct {
	store *storetest.Memory

	mu      sync.Mutex // guards the fields below
	pauses  map[string]admin.Pause
	held    map[string]admin.Held // by destination
	err     error                 // of every call
	tested  []store.Message
	bodies  [][]byte
	attempt store.Attempt // what a test comes to
	next    store.State
	reload  *admin.Reload
}

func (f *fake) Destinations(context.Context) ([]admin.Destination, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := []admin.Destination{
		{Name: "alerts", URL: "https://hooks.example.com/a?key=***", Enabled: true, Breaker: "closed", InFlight: 2, ConcurrencyLimit: 16, Due: 3},
		{
			Name: "audit", URL: "https://audit.example.com/", Enabled: true, Breaker: "open", ConcurrencyLimit: 1,
			BreakerOpenSince: epoch().Add(-time.Minute), NextProbeAt: epoch().Add(time.Second), HeldUntil: epoch().Add(time.Hour),
		},
	}
	for i := range list {
		if p, ok := f.pauses[list[i].Name]; ok {
			list[i].Pause = &p
		}
	}
	return list, f.err
}

func (f *fake) known(name string) error {
	if f.err != nil {
		return f.err
	}
	if name != "alerts" && name != "audit" {
		unknown := &admin.UnknownError{Name: name}
		if strings.HasPrefix(name, "alert") {
			unknown.Nearest = "alerts"
		}
		return unknown
	}
	return nil
}

func (f *fake) Pause(_ context.Context, name, reason string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.known(name); err != nil {
		return err
	}
	f.pauses[name] = admin.Pause{At: epoch(), Reason: reason}
	return nil
}

func (f *fake) Resume(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.known(name); err != nil {
		return err
	}
	delete(f.pauses, name)
	return nil
}

func (f *fake) Replay(ctx context.Context, id store.DeliveryID) (store.Delivery, error) {
	return f.store.Replay(ctx, id, epoch())
}

func (f *fake) Cancel(ctx context.Context, id store.DeliveryID, reason string) (store.Delivery, error) {
	d, _, err := f.store.Cancel(ctx, id, epoch(), reason)
	return d, err
}

func (f *fake) Retry(ctx context.Context, id store.DeliveryID) (store.Delivery, error) {
	return f.store.Expedite(ctx, id, epoch())
}

func (f *fake) Held(_ context.Context, d store.Delivery) admin.Held {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held[d.Destination]
}

func (f *fake) Test(_ context.Context, m store.Message, body []byte) (store.Attempt, store.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.known(m.Recipients[0].Destination); err != nil {
		return store.Attempt{}, 0, err
	}
	f.tested, f.bodies = append(f.tested, m), append(f.bodies, body)
	return f.attempt, f.next, nil
}

func (f *fake) Render(_ context.Context, m store.Message, body []byte) (admin.Rendering, error) {
	if err := f.known(m.Recipients[0].Destination); err != nil {
		return admin.Rendering{}, err
	}
	if m.Event == "bad" {
		return admin.Rendering{}, &admin.RenderError{Err: fmt.Errorf("body: there is no .Data.id")}
	}
	return rendering(body), nil
}

func (f *fake) RenderDelivery(ctx context.Context, d store.Delivery) (admin.Rendering, error) {
	_, body, err := f.store.Load(ctx, d.ID.Message())
	return rendering(body), err
}

func rendering(body []byte) admin.Rendering {
	request := sent()
	request.Body = body
	return admin.Rendering{
		Request: request, Curl: "curl https://hooks.example.com/a",
		Bases: []admin.SignedBase{{Signer: "sign[0].standard", Base: []byte("msg.1.{}")}, {Signer: "sign[1].hmac", Base: []byte{0xff}}},
	}
}

func (f *fake) Reload(context.Context) (admin.Reload, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return admin.Reload{}, f.err
	}
	f.reload = &admin.Reload{At: epoch(), OK: true, Changed: []string{"destinations.alerts"}}
	return *f.reload, nil
}

func (f *fake) LastReload() *admin.Reload {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reload
}

// sent is the request of each attempt in these tests.
func sent() store.Sent {
	return store.Sent{
		Method: "POST", URL: "https://hooks.example.com/a?key=***",
		Header: []store.Field{{Name: "Authorization", Value: "Bearer ***"}, {Name: "Webhook-Id", Value: "msg_1"}},
	}
}

// api is a handler behind a real server, over a store in memory.
type api struct {
	*admin.Handler
	relay  *fake
	store  *storetest.Memory
	url    string
	client admin.Client
	checks *checker
}

func newAPI(t testing.TB) *api {
	t.Helper()
	a := newHandler()
	server := httptest.NewServer(a.Handler)
	t.Cleanup(server.Close)
	a.url = server.URL
	a.client = admin.Client{Address: server.Listener.Addr().String()}
	a.checks = newChecker(t)
	return a
}

// newHandler is newAPI without a server.
func newHandler() *api {
	memory := storetest.NewMemory(storetest.MemoryOptions{Now: epoch})
	relay := &fake{store: memory, pauses: map[string]admin.Pause{}, held: map[string]admin.Held{}, next: store.Pending}
	return &api{relay: relay, store: memory, Handler: &admin.Handler{
		Records: memory, Steering: relay, Deliveries: relay, Trials: relay, Reloads: relay,
		Activity: &admin.Activity{Now: epoch}, Changes: &admin.Changes{},
		Config: func(name string) (json.RawMessage, error) {
			return json.RawMessage(`{"url":"https://hooks.example.com/` + name + `","auth":{"bearer":{"token":"***"}}}`), nil
		},
		Nearest: func(word string, known []string) string {
			for _, k := range known {
				if len(word) > 3 && strings.HasPrefix(k, word[:4]) {
					return k
				}
			}
			return ""
		},
		Version: "1.2.3", StartedAt: epoch().Add(-time.Hour), Now: epoch,
	}}
}

// accept stores a message for one destination each, and returns its deliveries.
func (a *api) accept(t testing.TB, m store.Message, body string, destinations ...string) []store.Delivery {
	t.Helper()
	id, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	m.ID = id
	for _, name := range destinations {
		m.Recipients = append(m.Recipients, store.Recipient{Destination: name})
	}
	if m.AcceptedAt.IsZero() {
		m.AcceptedAt = epoch()
	}
	m, _, err = a.store.Accept(t.Context(), m, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	var list []store.Delivery
	for n := range m.Recipients {
		list = append(list, m.Delivery(n))
	}
	return list
}

// end records one attempt that ends a delivery.
func (a *api) end(t testing.TB, d store.Delivery, state store.State, class store.Class, status int) store.Delivery {
	t.Helper()
	after := d
	after.State, after.Attempts, after.Made = state, d.Attempts+1, d.Made+1
	if state == store.Failed {
		after.Reason = "no success in 1 of 1 attempts"
	}
	if state.Ended() {
		after.DueAt, after.EndedAt = time.Time{}, epoch()
	}
	at := store.Attempt{
		Delivery: d.ID, Round: d.Round, Number: after.Made, StartedAt: epoch(), Took: 120 * time.Millisecond, Class: class, Status: status,
		Request: sent(), Timing: store.Timing{DNS: time.Millisecond, FirstByte: 100 * time.Millisecond}, Peer: "192.0.2.1:443",
		CertExpires: epoch().Add(90 * 24 * time.Hour),
	}
	if status != 0 {
		at.Header = http.Header{"Content-Type": {"text/html"}, "Set-Cookie": {"session=canary"}}
		at.Body = []byte("<script>alert(1)</script>")
	}
	if class != store.ClassOK {
		at.Error = "status " + strconv.Itoa(status)
	}
	after.Last = store.Outcome{At: at.StartedAt, Class: class, Status: status, Error: at.Error}
	if _, err := a.store.Record(t.Context(), d, after, at); err != nil {
		t.Fatal(err)
	}
	stored, err := a.store.Delivery(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// do makes a request, and fails the test if the answer is not as the served description says.
func (a *api) do(t testing.TB, method, path, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a.checks.answer(t, req, resp, raw)
	return resp.StatusCode, string(raw)
}

// into makes a request that succeeds, and decodes its answer.
func into[V any](t testing.TB, a *api, method, path, body string) V {
	t.Helper()
	status, answer := a.do(t, method, path, body)
	if status != http.StatusOK {
		t.Fatalf("%s %s: got %d %s, want 200", method, path, status, answer)
	}
	var v V
	if err := json.Unmarshal([]byte(answer), &v); err != nil {
		t.Fatal(err)
	}
	return v
}
