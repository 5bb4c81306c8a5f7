package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// apiConfig has a canary in each place where a secret can be.
const apiConfig = `
destinations:
  alerts:
    url: https://hooks.example.com/alerts?key=canary-in-query
    tls: {ca_file: %q}
    auth: {bearer: {token: canary-in-auth}}
    headers: {X-Api-Key: canary-in-header}
    sign: [{standard: {secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=]}}]
  capability:
    url: ${env:HOOK}
    tls: {ca_file: %q}
  lined: {url: 'https://hooks.example.com/lined', order: key, tls: {ca_file: %q}}
  off: {url: 'https://hooks.example.com/off', enabled: false}
`

// apiRelay is a relay without listeners, and what would answer on its admin listener.
type apiRelay struct {
	*Relay
	api    api
	far    *receiver.Receiver
	client admin.Client
}

func newAPIRelay(t *testing.T) *apiRelay {
	t.Helper()
	ca, err := receiver.NewCA("relay test")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ca.Issue("hooks.example.com")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("postern.yaml", fmt.Appendf(nil, apiConfig, file, file, file), []string{"HOOK=https://hooks.example.com/canary-in-path"})
	if err != nil {
		t.Fatal(err)
	}
	pipe := receiver.NewPipe()
	plan, faults := newPlan(cfg, LoadOptions{Inject: map[string]func(context.Context) (net.Conn, error){"hooks.example.com": pipe.Dial}})
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	if plan.shown, err = showDestinations(cfg); err != nil {
		t.Fatal(err)
	}

	memory := &readStore{Memory: storetest.NewMemory(storetest.MemoryOptions{}), read: make(chan struct{}, 100)}
	r := &Relay{Plan: plan, Store: memory}
	r.setDefaults()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	lanes, stopLanes := newPart(ctx, func() {})
	r.beginHandovers(lanes)
	h, err := r.prepare(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.handOver(h); err != nil {
		t.Fatal(err)
	}
	for range r.lanes.running {
		<-memory.read // from now on a lane learns of something by a wake only
	}
	out := &apiRelay{Relay: r, api: api{steering{r}}, far: &receiver.Receiver{Listener: pipe, Certificate: certificate, KeepLatest: 10}}
	server := httptest.NewServer(out.api.handler())
	out.client = admin.Client{Address: server.Listener.Addr().String()}

	var running errgroup.Group
	running.Go(func() error { return out.far.Run(ctx) })
	t.Cleanup(func() {
		server.Close()
		stopLanes()
		if err := lanes.group.Wait(); err != nil {
			t.Error(err)
		}
		stop()
		if err := running.Wait(); err != nil {
			t.Error(err)
		}
	})
	return out
}

// readStore tells when a queue has been read.
type readStore struct {
	*storetest.Memory
	read chan struct{}
}

func (s *readStore) Due(ctx context.Context, destination string, after store.Cursor, limit int) ([]store.Delivery, error) {
	defer func() {
		select {
		case s.read <- struct{}{}:
		default:
		}
	}()
	return s.Memory.Due(ctx, destination, after, limit)
}

// run has the lanes attempt what was accepted.
func (r *apiRelay) run(t *testing.T) {
	t.Helper()
	for _, name := range r.Plan.names {
		if l := r.lane(name); l != nil {
			l.WakeAll()
		}
	}
}

func (r *apiRelay) accept(t *testing.T, to ...store.Recipient) []store.Delivery {
	t.Helper()
	id, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := r.Store.Accept(t.Context(), store.Message{ID: id, Event: "a.b", ContentType: "application/json", Recipients: to}, []byte(`{"n":1}`))
	if err != nil {
		t.Fatal(err)
	}
	list := make([]store.Delivery, len(to))
	for n := range list {
		list[n] = m.Delivery(n)
	}
	return list
}

// ends waits for the end of a delivery.
func (r *apiRelay) ends(t *testing.T, id store.DeliveryID) store.Delivery {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		d, err := r.Store.Delivery(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if d.State.Ended() {
			return d
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the delivery is still %+v", d)
		}
	}
}

func TestAPIShowsNoSecret(t *testing.T) {
	r := newAPIRelay(t)
	d := r.accept(t, store.Recipient{Destination: "alerts"})[0]
	r.run(t)
	r.ends(t, d.ID)
	for _, call := range []struct{ method, path, body string }{
		{"GET", "/overview", ""},
		{"GET", "/destinations/alerts", ""},
		{"GET", "/destinations/capability", ""},
		{"GET", "/deliveries/" + d.ID.String(), ""},
		{"POST", "/destinations/alerts/test", ""},
		{"POST", "/destinations/alerts/render", ""},
		{"POST", "/destinations/alerts/render", `{"delivery_id":"` + d.ID.String() + `"}`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), call.method, "http://"+r.client.Address+"/api/v1"+call.path, strings.NewReader(call.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s %s: got %d %s, want 200", call.method, call.path, resp.StatusCode, answer)
		}
		for _, secret := range []string{"canary", "whsec_"} {
			if i := strings.Index(string(answer), secret); i >= 0 {
				t.Errorf("%s %s: got …%s, want no secret", call.method, call.path, answer[max(0, i-100):min(len(answer), i+50)])
			}
		}
	}
}

func TestAPIDestinations(t *testing.T) {
	r := newAPIRelay(t)
	detail, err := r.client.Destination(t.Context(), "lined")
	if err != nil {
		t.Fatal(err)
	}
	var shown struct{ Order string }
	if err := json.Unmarshal(detail.Config, &shown); err != nil || shown.Order != "key" || detail.URL != "https://hooks.example.com/lined" || !detail.InConfig {
		t.Errorf("got %+v with config %s, want that of the file", detail.Destination, detail.Config)
	}
}

func TestAPITrials(t *testing.T) {
	r := newAPIRelay(t)
	x, err := r.client.Test(t.Context(), "alerts", admin.Sample{Body: `{"hello":1}`})
	if err != nil || x.Would != "delivered" || x.Attempt.Status != 204 && x.Attempt.Status != 200 || x.Request == nil || x.Request.Body != `{"hello":1}` {
		t.Fatalf("got %+v, %v; want one that was delivered", x, err)
	}
	sent := r.far.Latest()
	if len(sent) != 1 || string(sent[0].Body) != `{"hello":1}` || sent[0].Header.Get("Webhook-Signature") == "" {
		t.Errorf("got %+v at the receiver, want the sample, signed", sent)
	}
	r.far.SetFault(receiver.Fault{Kind: receiver.Status})
	if x, err := r.client.Test(t.Context(), "alerts", admin.Sample{}); err != nil || x.Would != "retried" || x.Attempt.Class != "status" {
		t.Errorf("got %+v, %v; want one that would be retried", x, err)
	}
	if n := r.Store.Pending(); n != 0 {
		t.Errorf("got %d pending deliveries, want none of a test", n)
	}

	d := r.accept(t, store.Recipient{Destination: "alerts"})[0]
	rendered, err := r.client.RenderDelivery(t.Context(), "alerts", d.ID.String())
	if err != nil || rendered.Request.Body != `{"n":1}` || !strings.Contains(rendered.Curl, "curl") || len(rendered.SignatureBases) != 1 {
		t.Fatalf("got %+v, %v; want the request of the delivery", rendered, err)
	}
	if base := rendered.SignatureBases[0].Base; !strings.HasPrefix(base, d.ID.Message().String()+".") || !strings.HasSuffix(base, `.{"n":1}`) {
		t.Errorf("got signature base %q, want id, time and body", base)
	}
	if _, err := r.client.Test(t.Context(), "off", admin.Sample{}); err == nil || !strings.Contains(err.Error(), "is not enabled") {
		t.Errorf("got %v, want that the destination is not enabled", err)
	}
	if _, err := r.client.Render(t.Context(), "lind", admin.Sample{}); err == nil || !strings.Contains(err.Error(), `did you mean "lined"`) {
		t.Errorf("got %v, want the nearest name", err)
	}
}

func TestAPISteersDeliveries(t *testing.T) {
	t.Run("a replay is made at once", func(t *testing.T) {
		r := newAPIRelay(t)
		d := r.accept(t, store.Recipient{Destination: "alerts"})[0]
		if _, err := r.client.Cancel(t.Context(), d.ID.String(), "for the test"); err != nil {
			t.Fatal(err)
		}
		r.run(t)
		if got, err := r.client.Replay(t.Context(), d.ID.String()); err != nil || got.Round != 2 {
			t.Fatalf("got %+v, %v; want a second round", got, err)
		}
		if got := r.ends(t, d.ID); got.State != store.Delivered {
			t.Errorf("got %v, want it delivered", got.State)
		}
	})
	t.Run("a retry is made at once", func(t *testing.T) {
		r := newAPIRelay(t)
		d := r.accept(t, store.Recipient{Destination: "alerts", Delay: time.Hour})[0]
		r.run(t)
		if _, err := r.client.Retry(t.Context(), d.ID.String()); err != nil {
			t.Fatal(err)
		}
		if got := r.ends(t, d.ID); got.State != store.Delivered {
			t.Errorf("got %v, want it delivered", got.State)
		}
	})
	t.Run("to cancel the head of a line lets go the next, and tells who waits", func(t *testing.T) {
		r := newAPIRelay(t)
		first := r.accept(t, store.Recipient{Destination: "lined", Order: "=k", Delay: time.Hour})[0]
		second := r.accept(t, store.Recipient{Destination: "lined", Order: "=k"})[0]
		ended, stop := r.watches.watch(first.ID.Message())
		defer stop()
		r.run(t)
		if got, err := r.client.Delivery(t.Context(), second.ID.String()); err != nil || got.Held != admin.HeldOrder || got.OrderKey != "k" {
			t.Errorf("got %+v, %v; want it held by its order", got.Delivery, err)
		}
		if got, err := r.client.Cancel(t.Context(), first.ID.String(), ""); err != nil || got.State != "canceled" {
			t.Fatalf("got %+v, %v; want it canceled", got, err)
		}
		if got := r.ends(t, second.ID); got.State != store.Delivered {
			t.Errorf("got %v, want the next delivered", got.State)
		}
		if got := <-ended; got.State != store.Canceled {
			t.Errorf("got %v, want that who waits learns of the cancel", got.State)
		}
	})
}

func TestAPIHeld(t *testing.T) {
	r := newAPIRelay(t)
	recipients := []store.Recipient{{Destination: "gone"}, {Destination: "off"}, {Destination: "alerts"}, {Destination: "capability"}}
	for n := len(recipients); n < 255; n++ {
		recipients = append(recipients, store.Recipient{Destination: fmt.Sprintf("d%d", n)})
	}
	recipients = append(recipients, store.Recipient{Destination: "lined", Order: "=k"}) // its number ends with a zero byte
	list := r.accept(t, recipients...)
	behind := r.accept(t, store.Recipient{Destination: "lined", Order: "=k"}, store.Recipient{Destination: "lined", Order: "=other"})
	if _, err := r.client.Pause(t.Context(), "capability", ""); err != nil {
		t.Fatal(err)
	}
	ended := list[2]
	ended.State = store.Canceled
	for _, tc := range []struct {
		name string
		d    store.Delivery
		want admin.Held
	}{
		{"gone", list[0], admin.HeldNotInConfig},
		{"not enabled", list[1], admin.HeldDisabled},
		{"nothing holds it", list[2], ""},
		{"ended", ended, ""},
		{"paused", list[3], admin.HeldPaused},
		{"the head of a line", list[255], ""},
		{"behind it", behind[0], admin.HeldOrder},
		{"the head of another line", behind[1], ""},
	} {
		if got := r.api.Held(t.Context(), tc.d); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestAfterFirst(t *testing.T) {
	twice, err := lane.NewSchedule([]time.Duration{0, time.Minute}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		at    store.Attempt
		retry lane.Schedule
		want  store.State
	}{
		{"success", store.Attempt{Class: store.ClassOK, Status: 200}, twice, store.Delivered},
		{"success by a status that means gone elsewhere", store.Attempt{Class: store.ClassOK, Status: 410}, twice, store.Delivered},
		{"a failure", store.Attempt{Class: store.ClassStatus, Status: 500}, twice, store.Pending},
		{"a failure without a retry", store.Attempt{Class: store.ClassStatus, Status: 500}, lane.Schedule{}, store.Failed},
		{"gone", store.Attempt{Class: store.ClassStatus, Status: 410}, twice, store.Failed},
		{"blocked", store.Attempt{Class: store.ClassBlocked}, twice, store.Failed},
		{"not built", store.Attempt{Class: store.ClassRender}, twice, store.Failed},
		{"interrupted", store.Attempt{Class: store.ClassInterrupted}, lane.Schedule{}, store.Pending},
	} {
		if got := afterFirst(tc.at, tc.retry); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}
