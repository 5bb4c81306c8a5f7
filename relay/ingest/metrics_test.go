package ingest_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// counts returns the value of each counter, and the number of observations of each histogram, by name and label.
func counts(t testing.TB, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			key := strings.TrimPrefix(family.GetName(), "postern_")
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			all[key] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// none knows no delivery.
type none struct{}

func (none) Delivery(context.Context, store.DeliveryID) (store.Delivery, error) {
	return store.Delivery{}, store.ErrNotFound
}

func newMetrics(t testing.TB) (*prometheus.Registry, *ingest.Metrics) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m, err := ingest.NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	return reg, m
}

// TestMetrics makes requests one after the other, and looks at what has changed with each.
func TestMetrics(t *testing.T) {
	reg, m := newMetrics(t)
	stopping := make(chan struct{})
	close(stopping) // nobody waits for long
	b := start(t, storetest.MemoryOptions{MaxPending: 6}, func(h *ingest.Handler) {
		h.Metrics, h.MaxBody, h.Stopping, h.Deliveries = m, 1000, stopping, none{}
		h.Watch = func(store.MessageID) (<-chan store.Delivery, func()) { return nil, func() {} }
	})
	const (
		accepted, bytes, repeated = "messages_accepted_total", "messages_accepted_bytes_total", "messages_repeated_total"
		tookAccepted              = "ingest_request_duration_seconds accepted"
		tookRefused               = "ingest_request_duration_seconds refused"
		refused                   = "ingest_refusals_total "
	)
	for _, tc := range []struct {
		name, path, body string
		header           []string
		status           int
		want             map[string]float64 // what has grown, by how much
	}{
		{"a message", "/to/alerts", "12345", nil, 202, map[string]float64{accepted: 1, bytes: 5, tookAccepted: 1}},
		{"a message without a body", "/to/alerts", "", nil, 202, map[string]float64{accepted: 1, tookAccepted: 1}},
		{"one with a key", "/to/alerts", "123", []string{"Idempotency-Key", "k"}, 202, map[string]float64{accepted: 1, bytes: 3, tookAccepted: 1}},
		{"the same again", "/to/alerts", "123", []string{"Idempotency-Key", "k"}, 202, map[string]float64{repeated: 1, tookAccepted: 1}},
		{"the key with another body", "/to/alerts", "4", []string{"Idempotency-Key", "k"}, 422, map[string]float64{refused + "key_conflict": 1, tookRefused: 1}},
		{"a batch", "/batch", `{"to":"alerts","id":"x","data":[1]}` + "\n" + `{"to":"alerts","id":"x","data":[1]}`, nil, 202,
			map[string]float64{accepted: 1, bytes: 3, repeated: 1, tookAccepted: 1}},
		{"a batch with a wrong line counts once, and no message", "/batch", `{"to":"alerts","data":[1]}` + "\n{", nil, 400,
			map[string]float64{refused + "invalid": 1, tookRefused: 1}},
		{"one that waits", "/to/alerts", "1", []string{"Prefer", "wait=1"}, 202, map[string]float64{accepted: 1, bytes: 1}},
		{"an unknown destination", "/to/nobody", "", nil, 404, map[string]float64{refused + "unknown_target": 1, tookRefused: 1}},
		{"a body that is too large", "/to/alerts", strings.Repeat("x", 1001), nil, 413, map[string]float64{refused + "too_large": 1, tookRefused: 1}},
		{"a wrong header", "/to/alerts", "", []string{"Postern-Delay", "soon"}, 400, map[string]float64{refused + "invalid": 1, tookRefused: 1}},
		{"a loop", "/to/alerts", "", []string{"Postern-Hops", "4"}, 508, map[string]float64{refused + "loop": 1, tookRefused: 1}},
		{"the last one that fits", "/to/alerts", "", nil, 202, map[string]float64{accepted: 1, tookAccepted: 1}},
		{"one too many", "/to/alerts", "", nil, 429, map[string]float64{refused + "backlog": 1, tookRefused: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := counts(t, reg)
			resp, text := b.post(t, tc.path, tc.body, tc.header...)
			if resp.StatusCode != tc.status {
				t.Fatalf("got %d %s, want %d", resp.StatusCode, text, tc.status)
			}
			grown := map[string]float64{}
			for end := time.Now().Add(10 * time.Second); !maps.Equal(grown, tc.want) && time.Now().Before(end); {
				clear(grown) // the last to be counted comes a moment after the answer
				for key, n := range counts(t, reg) {
					if n != before[key] {
						grown[key] = n - before[key]
					}
				}
			}
			if !maps.Equal(grown, tc.want) {
				t.Errorf("got %v, want %v", grown, tc.want)
			}
			for key := range tc.want {
				if _, ok := before[key]; !ok {
					t.Errorf("there was no %s at the beginning", key)
				}
			}
		})
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	reg, _ := newMetrics(t)
	if _, err := ingest.NewMetrics(reg); err == nil {
		t.Error("got no error for a registry that has them")
	}
}

// BenchmarkPostCounted is BenchmarkPost with metrics.
func BenchmarkPostCounted(b *testing.B) {
	_, m := newMetrics(b)
	h := &ingest.Handler{Acceptor: instant{}, Router: routes{known: map[string]time.Duration{"alerts": 0}}, Metrics: m}
	body := bytes.Repeat([]byte("x"), 1000)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := http.NewRequest(http.MethodPost, "/to/alerts", bytes.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			w := newRecorder()
			if h.ServeHTTP(w, r); w.status != http.StatusAccepted {
				b.Fatalf("got %d, want 202", w.status)
			}
		}
	})
}
