package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/relay/listen"
	"github.com/postern-relay/postern/store"
)

// scrapeTimeout bounds what a scrape asks of the store.
const scrapeTimeout = 5 * time.Second

var errScrapeTimeout = errors.New("the store did not answer a scrape in time")

// metrics are those of one relay. Their labels come from the config or from a fixed list, so that nothing that an app or
// a receiver says can make a series (T30, T57): what a destination has ends with its last pending delivery, once it is
// out of the config. A nil one counts nothing.
type metrics struct {
	relay *Relay

	// backlog reads what is pending, within scrapeTimeout.
	backlog func() (map[string]store.Backlog, error)

	ingest *ingest.Metrics // shared by the handlers of all plans
	listen *listen.Metrics // shared by the listeners

	attempts    *prometheus.CounterVec
	attemptTime *prometheus.HistogramVec
	ended       *prometheus.CounterVec
	latency     *prometheus.HistogramVec
	refused     *prometheus.CounterVec
	gauges      gauges

	reloads        map[bool]prometheus.Counter // by success
	lastReload     prometheus.Gauge
	lastReloadTime prometheus.Gauge

	mu           sync.Mutex // guards the field below; taken after lanes.mu
	destinations map[string]*destinationMetrics
}

// destinationMetrics is what is counted of one destination, its labels resolved once: an attempt costs a few additions.
// A nil one counts nothing.
type destinationMetrics struct {
	attempts    [store.ClassInterrupted + 1]prometheus.Counter // by class; nil where there is none
	ended       [store.Canceled + 1]prometheus.Counter         // by state; nil where there is none
	attemptTime prometheus.Observer
	latency     prometheus.Observer
	refused     prometheus.Counter

	certExpires atomic.Int64 // of the receiver, as last seen, in Unix seconds; 0 before
}

// measure makes the metrics of a relay that begins to run; ctx lends its values, and its end ends nothing. The registry
// must not hold those of another relay.
func (r *Relay) measure(ctx context.Context) error {
	if r.Metrics == nil {
		r.Metrics = prometheus.NewRegistry()
	}
	base := context.WithoutCancel(ctx)
	m, err := newMetrics(r.Metrics, r, func() (map[string]store.Backlog, error) {
		ctx, cancel := context.WithTimeoutCause(base, scrapeTimeout, errScrapeTimeout)
		defer cancel()
		return r.Store.Backlog(ctx)
	})
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	r.metrics = m
	return nil
}

// newMetrics registers the metrics of a relay, and those of the process that it runs in.
func newMetrics(reg prometheus.Registerer, r *Relay, backlog func() (map[string]store.Backlog, error)) (*metrics, error) {
	m := &metrics{
		relay: r, backlog: backlog, destinations: map[string]*destinationMetrics{}, gauges: newGauges(),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_attempts_total",
			Help: "Attempts on record, probes included, by class of their outcome.",
		}, []string{"destination", "class"}),
		attemptTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "postern_attempt_duration_seconds",
			Help:    "Time of an attempt, from its start to the last byte read. Interrupted ones are not counted.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
		}, []string{"destination"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_deliveries_ended_total",
			Help: "Deliveries that have ended, by state. A replay ends once more.",
		}, []string{"destination", "state"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "postern_delivery_latency_seconds",
			Help:    "Time from acceptance to delivery, a delay that was asked for included. Replays are not counted.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 43200, 172800},
		}, []string{"destination"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_client_secrets_refused_total",
			Help: "Times that a token endpoint refused the client secret in use, and the other one was tried.",
		}, []string{"destination"}),
		lastReload: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postern_config_last_reload_successful",
			Help: "Whether the config file was in order when it was last read, 1 or 0.",
		}),
		lastReloadTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postern_config_last_reload_success_timestamp_seconds",
			Help: "When a config was last put in force, at the start or by a reload.",
		}),
	}
	reloads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postern_config_reloads_total",
		Help: "Reloads of the config, by result. One by a changed file that changes nothing is not counted.",
	}, []string{"result"})
	m.reloads = map[bool]prometheus.Counter{true: reloads.WithLabelValues("ok"), false: reloads.WithLabelValues("refused")}
	m.lastReload.Set(1)
	m.lastReloadTime.Set(unixSeconds(r.Now()))
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "postern_build_info",
		Help:        "1, with the versions of Postern and of the Go that built it.",
		ConstLabels: prometheus.Labels{"version": r.Version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	accepting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postern_store_accepting",
		Help: "Whether the store takes new messages, 1 or 0.",
	}, func() float64 { return oneIf(r.Store.Full() == nil) })
	streams := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postern_admin_streams",
		Help: "Streams of events that the admin listener serves now.",
	}, func() float64 { return float64(r.changes.Streams()) })

	for _, c := range []prometheus.Collector{
		m, reloads, m.lastReload, m.lastReloadTime, build, accepting, streams,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	var err error
	if m.ingest, err = ingest.NewMetrics(reg); err != nil {
		return nil, err
	}
	m.listen, err = listen.NewMetrics(reg)
	return m, err
}

// destination returns what is counted of one destination. A lane may keep it: settle lets nothing go while one runs.
func (m *metrics) destination(name string) *destinationMetrics {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.destinationLocked(name)
}

func (m *metrics) destinationLocked(name string) *destinationMetrics {
	if d := m.destinations[name]; d != nil {
		return d
	}
	d := &destinationMetrics{
		attemptTime: m.attemptTime.WithLabelValues(name), latency: m.latency.WithLabelValues(name), refused: m.refused.WithLabelValues(name),
	}
	for class := store.ClassOK; class <= store.ClassInterrupted; class++ {
		d.attempts[class] = m.attempts.WithLabelValues(name, class.String())
	}
	for state := store.Delivered; state <= store.Canceled; state++ {
		d.ended[state] = m.ended.WithLabelValues(name, state.String())
	}
	m.destinations[name] = d
	return d
}

// observe counts an attempt that is on record; see lane.Lane.Observe.
func (d *destinationMetrics) observe(after store.Delivery, a store.Attempt) {
	if d == nil {
		return
	}
	if int(a.Class) < len(d.attempts) && d.attempts[a.Class] != nil {
		d.attempts[a.Class].Inc()
	}
	if a.Class != store.ClassInterrupted {
		d.attemptTime.Observe(a.Took.Seconds())
	}
	if !a.CertExpires.IsZero() {
		d.certExpires.Store(a.CertExpires.Unix())
	}
	if after.State != store.Canceled { // who has canceled it has counted it
		d.observeEnd(after)
	}
}

// observeEnd counts the end of a delivery, if it has ended.
func (d *destinationMetrics) observeEnd(after store.Delivery) {
	if d == nil || int(after.State) >= len(d.ended) || d.ended[after.State] == nil {
		return
	}
	d.ended[after.State].Inc()
	if after.State == store.Delivered && after.Round == 1 {
		d.latency.Observe(max(after.EndedAt.Sub(after.AcceptedAt), 0).Seconds())
	}
}

// secretRefused counts a client secret that a token endpoint has refused; see egress.OAuth2.Refused.
func (d *destinationMetrics) secretRefused() {
	if d != nil {
		d.refused.Inc()
	}
}

// canceled counts a delivery that a person has ended. One that had failed already, and only let go its line, has not
// ended again.
func (m *metrics) canceled(before, after store.Delivery) {
	if m != nil && !before.State.Ended() {
		m.destination(after.Destination).observeEnd(after)
	}
}

// forIngest returns what the handlers count with.
func (m *metrics) forIngest() *ingest.Metrics {
	if m == nil {
		return nil
	}
	return m.ingest
}

// forListeners returns what the listeners count with.
func (m *metrics) forListeners() *listen.Metrics {
	if m == nil {
		return nil
	}
	return m.listen
}

// handler returns what answers a scrape, or nil without metrics.
func (m *metrics) handler() http.Handler {
	if m == nil {
		return nil
	}
	return admin.NewMetrics(m.relay.Metrics, m.relay.Log.Named("admin"))
}

// reloaded counts a reload.
func (m *metrics) reloaded(outcome Reloaded) {
	if m == nil {
		return
	}
	ok := outcome.Err == nil
	m.reloads[ok].Inc()
	m.lastReload.Set(oneIf(ok))
	if !ok {
		return
	}
	m.lastReloadTime.Set(unixSeconds(outcome.At))
	// Also without anybody who scrapes, memory must not grow from one reload to the next.
	if backlog, err := m.backlog(); err == nil {
		m.settle(backlog)
	}
}

// settle begins the series of what is in the config or has something pending, and ends those of all else.
func (m *metrics) settle(backlog map[string]store.Backlog) {
	r := m.relay
	r.lanes.mu.RLock() // no lane begins meanwhile, and the plan stays
	defer r.lanes.mu.RUnlock()
	plan := r.plan.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.destinations {
		if plan.destinations[name] != nil || r.lanes.running[name] != nil || backlog[name].Pending > 0 {
			continue
		}
		delete(m.destinations, name)
		of := prometheus.Labels{"destination": name}
		m.attempts.DeletePartialMatch(of)
		m.attemptTime.DeletePartialMatch(of)
		m.ended.DeletePartialMatch(of)
		m.latency.DeletePartialMatch(of)
		m.refused.DeletePartialMatch(of)
	}
	for _, name := range plan.names {
		m.destinationLocked(name)
	}
	for name, waiting := range backlog {
		if waiting.Pending > 0 {
			m.destinationLocked(name)
		}
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
