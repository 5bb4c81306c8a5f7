package badgerstore

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the committer counts. A nil one counts nothing.
type metrics struct {
	requests prometheus.Observer
	duration prometheus.Observer
}

// newMetrics registers the metrics of a store; reg may be nil. Those that only show a number read it when they are
// collected, which neither blocks nor touches the disk.
func newMetrics(reg prometheus.Registerer, s *Store) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	requests := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "postern_store_commit_requests",
		Help:    "Writes (messages, attempts, changes by a person) of a commit group, which share one sync.",
		Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000},
	})
	duration := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "postern_store_commit_duration_seconds",
		Help:    "Time to commit a group, its sync included.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	})
	free := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postern_store_disk_free_bytes",
		Help: "Free space on the disk of the store, as of a few seconds ago.",
	}, func() float64 { return float64(s.free.Load()) })
	reserve := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postern_store_disk_reserve_bytes",
		Help: "Free space below which nothing is accepted.",
	}, func() float64 { return float64(s.reserve) })
	limit := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postern_store_pending_limit",
		Help: "Pending deliveries, of all destinations together, above which nothing is accepted.",
	}, func() float64 { return float64(s.maxPending) })
	keys := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postern_store_encryption_keys",
		Help: "Keys that the store needs: 0 if it is not encrypted, 1 if it is, more until a rotation is done.",
	}, func() float64 { return float64(len(s.Keys())) })
	for _, c := range []prometheus.Collector{requests, duration, free, reserve, limit, keys} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return &metrics{requests: requests, duration: duration}, nil
}

// committed counts a group of n requests that has been written since begun.
func (m *metrics) committed(n int, begun time.Time) {
	if m == nil {
		return
	}
	m.requests.Observe(float64(n))
	m.duration.Observe(time.Since(begun).Seconds())
}
