package badgerstore

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-relay/postern/store"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	o := Options{
		Path: filepath.Join(t.TempDir(), "store"), MaxPending: 1234, MinFree: 300 << 20, Metrics: reg,
		free: func(string) (int64, error) { return 5 << 30, nil },
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	before := readMetrics(t, reg)
	for range 3 {
		id, err := store.NewMessageID()
		if err != nil {
			t.Fatal(err)
		}
		m := store.Message{ID: id, Recipients: []store.Recipient{{Destination: "alerts"}}}
		if _, _, err := s.Accept(t.Context(), m, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	after := readMetrics(t, reg)
	// One after the other, each has been a group by itself.
	for name, want := range map[string]float64{
		"postern_store_commit_requests count": 3, "postern_store_commit_requests sum": 3, "postern_store_commit_duration_seconds count": 3,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s grew by %v, want %v", name, got, want)
		}
	}
	if got := after["postern_store_commit_duration_seconds sum"] - before["postern_store_commit_duration_seconds sum"]; got <= 0 || got > 60 {
		t.Errorf("got %v s for three commits", got)
	}
	for name, want := range map[string]float64{
		"postern_store_disk_free_bytes": 5 << 30, "postern_store_disk_reserve_bytes": 300 << 20, "postern_store_pending_limit": 1234,
	} {
		if got := after[name]; got != want {
			t.Errorf("got %s %v, want %v", name, got, want)
		}
	}

	t.Run("a registry is for one store", func(t *testing.T) {
		o.Path = filepath.Join(t.TempDir(), "store")
		if _, err := Open(o); err == nil {
			t.Error("got no error for a registry that has the metrics of another store")
		}
	})
}

// readMetrics returns the gauges, and the count and sum of each histogram, by name.
func readMetrics(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		m := family.GetMetric()[0]
		if h := m.GetHistogram(); h != nil {
			all[family.GetName()+" count"], all[family.GetName()+" sum"] = float64(h.GetSampleCount()), h.GetSampleSum()
			continue
		}
		all[family.GetName()] = m.GetGauge().GetValue()
	}
	return all
}

// BenchmarkCommitted is what metrics cost a commit group.
func BenchmarkCommitted(b *testing.B) {
	m, err := newMetrics(prometheus.NewRegistry(), &Store{})
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		m.committed(8, begun)
	}
}
