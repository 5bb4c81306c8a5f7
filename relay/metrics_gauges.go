package relay

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/store"
)

// gauges describe what is read of each destination when somebody scrapes.
type gauges struct {
	enabled, pending, oldestDue, blockedLines   *prometheus.Desc
	inFlight, inFlightLimit, breakerState, held *prometheus.Desc
	certExpires                                 *prometheus.Desc
	ownCertExpires                              *prometheus.Desc
}

func newGauges() gauges {
	of := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"destination"}, labels...), nil)
	}
	return gauges{
		enabled: of("postern_destination_enabled",
			"Whether a destination is in the config and enabled, 1 or 0. One that is gone has series while something is pending."),
		pending: of("postern_deliveries_pending", "Deliveries that have not ended."),
		oldestDue: of("postern_oldest_due_age_seconds",
			"For how long the first delivery in the queue has been due; 0 if none is, as while all wait for a retry."),
		blockedLines: of("postern_blocked_lines",
			"Lines of deliveries that a failed one holds up, with order_on_failure: block; counted up to 10000."),
		inFlight: of("postern_attempts_in_flight", "Attempts that are being made or recorded."),
		inFlightLimit: of("postern_attempts_in_flight_limit",
			"Attempts that may be in flight now: concurrency, or less while the receiver recovers."),
		breakerState: of("postern_breaker_state", "1 for the state that the breaker is in, 0 for the others.", "state"),
		held:         of("postern_destination_paused", "Whether a destination is paused, 1 or 0."),
		certExpires: of("postern_receiver_certificate_expiry_timestamp_seconds",
			"When the receiver's certificate expires, as last seen; absent before the first attempt."),
		ownCertExpires: prometheus.NewDesc("postern_listener_certificate_expiry_timestamp_seconds",
			"When the certificate of the https listener for a name expires; 0 if there is none yet.", []string{"name"}, nil),
	}
}

func (g gauges) all() []*prometheus.Desc {
	return []*prometheus.Desc{g.enabled, g.pending, g.oldestDue, g.blockedLines, g.inFlight, g.inFlightLimit, g.breakerState, g.held, g.certExpires, g.ownCertExpires}
}

var _ prometheus.Collector = (*metrics)(nil)

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, vec := range m.vecs() {
		vec.Describe(ch)
	}
	for _, d := range m.gauges.all() {
		ch <- d
	}
}

func (m *metrics) vecs() []prometheus.Collector {
	return []prometheus.Collector{m.attempts, m.attemptTime, m.ended, m.latency, m.refused}
}

// Collect implements prometheus.Collector. What cannot be read is left out, so that a scrape never fails for it.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	if m.relay.plan.Load() == nil {
		return // nothing is in force yet
	}
	backlog, err := m.backlog()
	if err != nil {
		m.relay.Log.Warn("backlog not read for metrics", zap.Error(err))
	} else {
		m.settle(backlog)
	}
	for _, vec := range m.vecs() {
		vec.Collect(ch)
	}
	if m.relay.secure != nil {
		for _, c := range m.relay.secure.Certificates() {
			ch <- gauge(m.gauges.ownCertExpires, unixOrZero(c.Expires), c.Name)
		}
	}
	for name, expires := range m.known() {
		m.collectDestination(ch, name, expires)
		if err == nil {
			m.collectBacklog(ch, name, backlog[name])
		}
	}
}

// known returns the destinations that have series, and when their receivers' certificates expire.
func (m *metrics) known() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]int64, len(m.destinations))
	for name, d := range m.destinations {
		all[name] = d.certExpires.Load()
	}
	return all
}

func (m *metrics) collectBacklog(ch chan<- prometheus.Metric, name string, waiting store.Backlog) {
	var age float64
	if !waiting.DueAt.IsZero() {
		age = max(m.relay.Now().Sub(waiting.DueAt), 0).Seconds()
	}
	ch <- gauge(m.gauges.pending, float64(waiting.Pending), name)
	ch <- gauge(m.gauges.oldestDue, age, name)
	ch <- gauge(m.gauges.blockedLines, float64(waiting.Blocked), name)
}

func (m *metrics) collectDestination(ch chan<- prometheus.Metric, name string, certExpires int64) {
	to := m.relay.plan.Load().destinations[name]
	ch <- gauge(m.gauges.enabled, oneIf(to != nil && to.enabled), name)
	if certExpires != 0 {
		ch <- gauge(m.gauges.certExpires, float64(certExpires), name)
	}
	l := m.relay.lane(name)
	if l == nil {
		return
	}
	now := l.Stats()
	ch <- gauge(m.gauges.inFlight, float64(now.InFlight), name)
	ch <- gauge(m.gauges.inFlightLimit, float64(now.Limit), name)
	ch <- gauge(m.gauges.held, oneIf(now.Paused != nil), name)
	if to != nil && to.breaker.Failures > 0 {
		for state := lane.BreakerClosed; state <= lane.BreakerProbing; state++ {
			ch <- gauge(m.gauges.breakerState, oneIf(now.Breaker == state), name, state.String())
		}
	}
}

func gauge(d *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

// unixOrZero is unixSeconds, and 0 for no time.
func unixOrZero(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return unixSeconds(t)
}
