package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// scrape is what /metrics has answered, by name.
type scrape map[string]*dto.MetricFamily

// getMetrics asks /metrics.
func (r *rig) getMetrics(t testing.TB, header ...string) (status int, got http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.backAddr()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func (r *rig) scrape(t testing.TB) scrape {
	t.Helper()
	status, _, body := r.getMetrics(t)
	if status != http.StatusOK {
		t.Fatalf("got %d %s", status, body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	return families
}

// find returns the series of that name and those labels (name, value, …), or nil.
func (s scrape) find(name string, labels ...string) *dto.Metric {
	want := map[string]string{}
	for i := 0; i < len(labels); i += 2 {
		want[labels[i]] = labels[i+1]
	}
	for _, m := range s[name].GetMetric() {
		if maps.Equal(labelsOf(m), want) {
			return m
		}
	}
	return nil
}

func labelsOf(m *dto.Metric) map[string]string {
	labels := map[string]string{}
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	return labels
}

// value returns that of a counter or gauge, the number of observations of a histogram, or -1 if there is no such series.
func (s scrape) value(name string, labels ...string) float64 {
	m := s.find(name, labels...)
	switch {
	case m == nil:
		return -1
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Histogram != nil:
		return float64(m.Histogram.GetSampleCount())
	}
	return m.GetGauge().GetValue()
}

func (s scrape) check(t testing.TB, want float64, name string, labels ...string) {
	t.Helper()
	if got := s.value(name, labels...); got != want {
		t.Errorf("%s%q: got %v, want %v", name, labels, got, want)
	}
}

// awaitMetric waits until a series has a value: attempts are counted a moment after they are on record.
func (r *rig) awaitMetric(t testing.TB, want float64, name string, labels ...string) {
	t.Helper()
	until(t, fmt.Sprintf("%s%q is %v", name, labels, want), func() bool { return r.scrape(t).value(name, labels...) == want })
}

// series returns how many there are of a destination, or of all if it is empty.
func (s scrape) series(destination string) int {
	n := 0
	for _, family := range s {
		for _, m := range family.GetMetric() {
			if destination == "" || labelsOf(m)["destination"] == destination {
				n++
			}
		}
	}
	return n
}

const metricsConfig = `
destinations:
  a: {url: https://a.test/, tls: {ca_file: ca.pem}}
  b: {url: https://b.test/, tls: {ca_file: ca.pem}, breaker: {failures: 2, probe_every: 1h}, retry: {schedule: [0s, 1h]}}
  off: {url: https://c.test/, enabled: false}
`

func TestMetricsOfARelay(t *testing.T) {
	r := newRig(t, metricsConfig)
	t.Run("series begin at zero", func(t *testing.T) {
		got := r.scrape(t)
		for _, name := range []string{"a", "b", "off"} {
			for class := store.Class(1); !strings.HasPrefix(class.String(), "Class("); class++ {
				got.check(t, 0, "postern_attempts_total", "destination", name, "class", class.String())
			}
			for state := store.State(1); !strings.HasPrefix(state.String(), "State("); state++ {
				if state.Ended() {
					got.check(t, 0, "postern_deliveries_ended_total", "destination", name, "state", state.String())
				}
			}
			got.check(t, 0, "postern_attempt_duration_seconds", "destination", name)
			got.check(t, 0, "postern_delivery_latency_seconds", "destination", name)
			got.check(t, 0, "postern_deliveries_pending", "destination", name)
			got.check(t, 0, "postern_oldest_due_age_seconds", "destination", name)
		}
		got.check(t, 1, "postern_destination_enabled", "destination", "a")
		got.check(t, 0, "postern_destination_enabled", "destination", "off")
		got.check(t, 16, "postern_attempts_in_flight_limit", "destination", "a")
		got.check(t, -1, "postern_attempts_in_flight_limit", "destination", "off")
		got.check(t, 1, "postern_breaker_state", "destination", "b", "state", "closed")
		got.check(t, 0, "postern_breaker_state", "destination", "b", "state", "open")
		got.check(t, -1, "postern_breaker_state", "destination", "a", "state", "closed")
		got.check(t, -1, "postern_receiver_certificate_expiry_timestamp_seconds", "destination", "a")
		got.check(t, 1, "postern_store_accepting")
		got.check(t, 0, "postern_messages_accepted_total")
		got.check(t, 0, "postern_ingest_refusals_total", "reason", "unknown_target")
	})

	t.Run("a message on its way is counted at each step", func(t *testing.T) {
		r.far.answer("a.test", func(n int) int { return map[bool]int{true: 503, false: 200}[n == 1] })
		r.accept(t, "a")
		r.awaitMetric(t, 1, "postern_deliveries_ended_total", "destination", "a", "state", "delivered")
		got := r.scrape(t)
		got.check(t, 1, "postern_messages_accepted_total")
		got.check(t, 2, "postern_messages_accepted_bytes_total")
		got.check(t, 1, "postern_ingest_request_duration_seconds", "result", "accepted")
		got.check(t, 1, "postern_attempts_total", "destination", "a", "class", "status")
		got.check(t, 1, "postern_attempts_total", "destination", "a", "class", "ok")
		got.check(t, 2, "postern_attempt_duration_seconds", "destination", "a")
		got.check(t, 1, "postern_delivery_latency_seconds", "destination", "a")
		if sum := got.find("postern_delivery_latency_seconds", "destination", "a").GetHistogram().GetSampleSum(); sum < 0.02 {
			t.Errorf("got a latency of %v s, want at least the 20 ms before the second attempt", sum)
		}
		if end := got.value("postern_receiver_certificate_expiry_timestamp_seconds", "destination", "a"); end < float64(time.Now().Unix()) {
			t.Errorf("got %v as the certificate's end, want one to come", end)
		}
	})

	t.Run("a replay ends once more, and has no latency", func(t *testing.T) {
		r.far.answer("a.test", nil)
		id := r.accept(t, "a")
		r.awaitState(t, id, store.Delivered)
		r.awaitMetric(t, 2, "postern_delivery_latency_seconds", "destination", "a")
		if _, err := (api{steering{r.Relay}}).Replay(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		r.awaitMetric(t, 3, "postern_deliveries_ended_total", "destination", "a", "state", "delivered")
		r.scrape(t).check(t, 2, "postern_delivery_latency_seconds", "destination", "a")
	})

	t.Run("a receiver that is out opens the breaker, and the backlog ages", func(t *testing.T) {
		r.far.answer("b.test", func(int) int { return 503 })
		ids := []store.DeliveryID{r.accept(t, "b"), r.accept(t, "b")}
		r.awaitMetric(t, 1, "postern_breaker_state", "destination", "b", "state", "open")
		ids = append(ids, r.accept(t, "b"))
		until(t, "the third one has been due for a while", func() bool {
			return r.scrape(t).value("postern_oldest_due_age_seconds", "destination", "b") > 0
		})
		got := r.scrape(t)
		got.check(t, 0, "postern_breaker_state", "destination", "b", "state", "closed")
		got.check(t, 3, "postern_deliveries_pending", "destination", "b")
		got.check(t, 1, "postern_attempts_in_flight_limit", "destination", "b")
		for _, id := range ids {
			if _, err := (api{steering{r.Relay}}).Cancel(t.Context(), id, "test"); err != nil {
				t.Fatal(err)
			}
		}
		got = r.scrape(t)
		got.check(t, 3, "postern_deliveries_ended_total", "destination", "b", "state", "canceled")
		got.check(t, 0, "postern_deliveries_pending", "destination", "b")
		got.check(t, 0, "postern_oldest_due_age_seconds", "destination", "b")
	})

	t.Run("an attempt in flight and a pause are shown", func(t *testing.T) {
		r.far.hang("a.test")
		id := r.accept(t, "a")
		r.awaitMetric(t, 1, "postern_attempts_in_flight", "destination", "a")
		r.scrape(t).check(t, 0, "postern_destination_paused", "destination", "a")
		if err := (steering{r.Relay}).Pause(t.Context(), "a", "test"); err != nil {
			t.Fatal(err)
		}
		r.scrape(t).check(t, 1, "postern_destination_paused", "destination", "a")
		r.far.open()
		r.awaitState(t, id, store.Delivered)
	})

	t.Run("a refusal is counted by its reason", func(t *testing.T) {
		if status, _ := r.post(t, "/to/nobody", "{}"); status != http.StatusNotFound {
			t.Errorf("got %d, want 404", status)
		}
		got := r.scrape(t)
		got.check(t, 1, "postern_ingest_refusals_total", "reason", "unknown_target")
		got.check(t, 1, "postern_ingest_request_duration_seconds", "result", "refused")
	})

	t.Run("a stream is counted while it lasts", func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.backAddr()+"/api/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		r.scrape(t).check(t, 1, "postern_admin_streams")
		stop()
		r.awaitMetric(t, 0, "postern_admin_streams")
	})
}

func TestMetricsOfReloads(t *testing.T) {
	r := newRig(t, metricsConfig)
	started := r.scrape(t)
	started.check(t, 1, "postern_config_last_reload_successful")
	begun := started.value("postern_config_last_reload_success_timestamp_seconds")
	if now := float64(time.Now().Unix()); begun < now-60 || begun > now+1 {
		t.Errorf("got %v as the time of the first config, want that of the start", begun)
	}

	r.write(t, "destinations: {a: {url: 'http://a.test/'}}")
	if err := r.Reload(t.Context()); err == nil {
		t.Fatal("a wrong config was taken")
	}
	refused := r.scrape(t)
	refused.check(t, 0, "postern_config_last_reload_successful")
	refused.check(t, begun, "postern_config_last_reload_success_timestamp_seconds")
	refused.check(t, 1, "postern_config_reloads_total", "result", "refused")

	r.reloadWith(t, metricsConfig)
	mended := r.scrape(t)
	mended.check(t, 1, "postern_config_last_reload_successful")
	mended.check(t, 1, "postern_config_reloads_total", "result", "ok")
	if got := mended.value("postern_config_last_reload_success_timestamp_seconds"); got <= begun {
		t.Errorf("got %v as the time of the reload, want one after %v", got, begun)
	}
}

// TestMetricsEndWithTheirDestination holds T57: series are those of the config and of what is pending, however many
// destinations there have been.
func TestMetricsEndWithTheirDestination(t *testing.T) {
	const without = "destinations: {b: {url: 'https://b.test/'}}"
	r := newRig(t, "destinations: {a: {url: 'https://a.test/'}, b: {url: 'https://b.test/'}}")

	t.Run("what is pending keeps them", func(t *testing.T) {
		if err := (steering{r.Relay}).Pause(t.Context(), "a", "test"); err != nil {
			t.Fatal(err)
		}
		id := r.accept(t, "a")
		r.reloadWith(t, without)
		until(t, "its lane is over", func() bool { return r.lane("a") == nil })
		got := r.scrape(t)
		got.check(t, 1, "postern_deliveries_pending", "destination", "a")
		got.check(t, 0, "postern_destination_enabled", "destination", "a")
		got.check(t, 0, "postern_attempts_total", "destination", "a", "class", "ok")
		got.check(t, -1, "postern_attempts_in_flight", "destination", "a")

		if _, err := (api{steering{r.Relay}}).Cancel(t.Context(), id, "test"); err != nil {
			t.Fatal(err)
		}
		if got := r.scrape(t).series("a"); got != 0 {
			t.Errorf("got %d series after the last delivery has ended, want none", got)
		}
	})

	t.Run("one that comes back counts again", func(t *testing.T) {
		r.reloadWith(t, "destinations: {a: {url: 'https://a.test/'}, b: {url: 'https://b.test/'}}")
		if err := (steering{r.Relay}).Resume(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		r.accept(t, "a")
		r.awaitMetric(t, 1, "postern_attempts_total", "destination", "a", "class", "ok")
	})

	t.Run("one that comes back while its last attempt is in flight goes on counting", func(t *testing.T) {
		r.far.hang("a.test")
		r.accept(t, "a")
		until(t, "the attempt is in flight", func() bool { return r.lane("a").Stats().InFlight == 1 })
		r.reloadWith(t, without)
		r.scrape(t).check(t, 1, "postern_attempts_in_flight", "destination", "a")
		r.reloadWith(t, "destinations: {a: {url: 'https://a.test/'}, b: {url: 'https://b.test/'}}")
		r.far.open()
		r.awaitMetric(t, 2, "postern_attempts_total", "destination", "a", "class", "ok")
	})

	t.Run("reloads that nobody scrapes between leave nothing", func(t *testing.T) {
		r.reloadWith(t, without)
		until(t, "its lane is over", func() bool { return r.lane("a") == nil })
		want := r.scrape(t).series("")
		for n := range 30 {
			r.reloadWith(t, fmt.Sprintf("destinations: {n%d: {url: 'https://a.test/'}, b: {url: 'https://b.test/'}}", n))
		}
		r.reloadWith(t, without)
		until(t, "no lane is left but one", func() bool {
			r.lanes.mu.RLock()
			defer r.lanes.mu.RUnlock()
			return len(r.lanes.running) == 1
		})
		r.reloadWith(t, without)
		if got := slices.Collect(maps.Keys(r.metrics.known())); !slices.Equal(got, []string{"b"}) {
			t.Errorf("got metrics of %q, want those of b alone", got)
		}
		if got := r.scrape(t).series(""); got != want {
			t.Errorf("got %d series, want %d as before", got, want)
		}
	})
}

// TestMetricsTellNoSecrets holds T30.
func TestMetricsTellNoSecrets(t *testing.T) {
	const canary = "canary"
	r := newRig(t, `
destinations:
  a:
    url: https://a.test/canary-path?key=canary-query
    tls: {ca_file: ca.pem}
    headers: {X-Api-Key: canary-header}
    auth: {bearer: {token: canary-token}}
    events: ["canary-event.*"]
  b: {url: 'https://b.test/', retry: none, tls: {ca_file: ca.pem}}
`)
	r.far.answer("b.test", func(int) int { return 418 })
	r.accept(t, "a", "Idempotency-Key", "canary-key", "Postern-Key", "canary-order")
	r.post(t, "/events/canary-event.x", `{"canary-body":1}`)
	r.post(t, "/to/canary-target", "{}")
	r.accept(t, "b")
	r.awaitMetric(t, 1, "postern_deliveries_ended_total", "destination", "b", "state", "failed")
	r.awaitMetric(t, 2, "postern_attempts_total", "destination", "a", "class", "ok")
	r.write(t, "canary: 1")
	if err := r.Reload(t.Context()); err == nil {
		t.Fatal("a wrong config was taken")
	}
	for name, family := range r.scrape(t) {
		for _, m := range family.GetMetric() {
			text := strings.ToLower(fmt.Sprint(name, family.GetHelp(), labelsOf(m)))
			for _, unwanted := range []string{canary, "a.test", "b.test", "418", "teapot"} {
				if strings.Contains(text, unwanted) {
					t.Errorf("%s tells %q", text, unwanted)
				}
			}
		}
	}
}

func TestMetricsOverHTTP(t *testing.T) {
	r := newRig(t, metricsConfig)
	for _, tc := range []struct {
		name   string
		header []string
		status int
		want   map[string]string // headers, by how they begin
		body   string            // part of it
	}{
		{"text for people", nil, 200, map[string]string{"Content-Type": "text/plain; version=0.0.4", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}, "# HELP postern_build_info"},
		{"OpenMetrics for who asks", []string{"Accept", "application/openmetrics-text; version=1.0.0"}, 200, map[string]string{"Content-Type": "application/openmetrics-text; version=1.0.0"}, "# EOF\n"},
		{"compressed for who asks", []string{"Accept-Encoding", "gzip"}, 200, map[string]string{"Content-Encoding": "gzip"}, "\x1f\x8b"},
		{"a name that is not ours", []string{"Host", "evil.example"}, 421, map[string]string{"Content-Type": "application/problem+json"}, "Host header"},
		{"a page of another site", []string{"Origin", "https://evil.example"}, 403, map[string]string{"Content-Type": "application/problem+json"}, "another site"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, header, body := r.getMetrics(t, tc.header...)
			if status != tc.status || !strings.Contains(body, tc.body) {
				t.Errorf("got %d %.200q, want %d with %q", status, body, tc.status, tc.body)
			}
			for key, want := range tc.want {
				if got := header.Get(key); !strings.HasPrefix(got, want) {
					t.Errorf("got %s %q, want %q", key, got, want)
				}
			}
		})
	}
	t.Run("it is only read", func(t *testing.T) {
		resp, err := r.client.Post("http://"+r.backAddr()+"/metrics", "text/plain", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.Header.Get("Allow"); resp.StatusCode != http.StatusMethodNotAllowed || got != "GET, HEAD" {
			t.Errorf("got %d, Allow %q; want 405, GET, HEAD", resp.StatusCode, got)
		}
	})
}

// deafStore does not answer what is pending.
type deafStore struct{ *storetest.Memory }

func (deafStore) Backlog(context.Context) (map[string]store.Backlog, error) {
	return nil, errors.New("the disk hangs")
}

func TestMetricsOfAStoreThatDoesNotAnswer(t *testing.T) {
	r := newRig(t, metricsConfig, func(r *rig) { r.Store = deafStore{r.memory} })
	r.accept(t, "a")
	r.awaitMetric(t, 1, "postern_attempts_total", "destination", "a", "class", "ok")
	got := r.scrape(t)
	got.check(t, -1, "postern_deliveries_pending", "destination", "a")
	if r.logs.FilterMessage("backlog not read for metrics").Len() == 0 {
		t.Error("nothing in the log says why they are missing")
	}
}

func TestMetricsRegistryOfAnother(t *testing.T) {
	r := newRig(t, metricsConfig)
	other := &Relay{Plan: r.Plan, Store: storetest.NewMemory(storetest.MemoryOptions{}), Metrics: r.Metrics}
	if err := other.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "register metrics") {
		t.Errorf("got %v, want an error that says that the registry is taken", err)
	}
}

func BenchmarkObserve(b *testing.B) {
	r := &Relay{Store: storetest.NewMemory(storetest.MemoryOptions{}), changes: &admin.Changes{}, Now: time.Now}
	if err := r.measure(context.Background()); err != nil {
		b.Fatal(err)
	}
	d := r.metrics.destination("a")
	now := time.Now()
	after := store.Delivery{Destination: "a", State: store.Delivered, Round: 1, AcceptedAt: now, EndedAt: now.Add(20 * time.Millisecond)}
	a := store.Attempt{Class: store.ClassOK, Took: 15 * time.Millisecond, CertExpires: now}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d.observe(after, a)
		}
	})
}
