package listen

import (
	"github.com/prometheus/client_golang/prometheus"
)

// refusal is why a request was refused for its token.
type refusal string

const (
	tokenMissing   refusal = "missing"   // there is none
	tokenMalformed refusal = "malformed" // there is something else than one bearer token
	tokenUnknown   refusal = "unknown"   // it is none of those in force
	tokenThrottled refusal = "throttled" // malformed or unknown, after too many of them
)

func refusals() []refusal {
	return []refusal{tokenMissing, tokenMalformed, tokenUnknown, tokenThrottled}
}

// closed is the door at which a request was refused, before its token counted; see the package comment.
type closed string

const (
	closedFraming closed = "framing"
	closedSize    closed = "size"
	closedHost    closed = "host"
	closedClient  closed = "client"
	closedOrigin  closed = "origin"
)

func allClosed() []closed {
	return []closed{closedFraming, closedSize, closedHost, closedClient, closedOrigin}
}

// Metrics counts what tokens are used, and what is refused. NewMetrics makes one; nil counts nothing. Listeners share one,
// each under its name. Its labels come from the config and from fixed lists.
type Metrics struct {
	turnedAway, refused, requests *prometheus.CounterVec
}

// NewMetrics registers the metrics of listeners. An error means that the registry holds some of them already.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		turnedAway: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_listener_refusals_total",
			Help: "Requests that a listener refused before their token counted, by reason: framing that could be read in two ways, size of the head, a Host that is not ours, a client certificate that is not accepted any more, or the page of another site as their origin. What is no HTTP at all is not counted.",
		}, []string{"listener", "reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_token_refusals_total",
			Help: "Requests that a listener refused for their token, by reason: none, no bearer token, one that is not in force, or either of these after too many of them.",
		}, []string{"listener", "reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_token_requests_total",
			Help: "Requests that were let in with a token, by its name. One that no app uses any more can be taken out of the config.",
		}, []string{"listener", "token"}),
	}
	for _, c := range []prometheus.Collector{m.turnedAway, m.refused, m.requests} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// doorMetrics is what is counted of one listener. A nil one counts nothing.
type doorMetrics struct {
	*Metrics
	listener string
	byDoor   map[closed]prometheus.Counter  // never changed
	byReason map[refusal]prometheus.Counter // never changed
}

// of begins the series of a listener. A nil Metrics has none.
func (m *Metrics) of(listener string) *doorMetrics {
	if m == nil {
		return nil
	}
	d := &doorMetrics{
		Metrics: m, listener: listener, byDoor: map[closed]prometheus.Counter{}, byReason: map[refusal]prometheus.Counter{},
	}
	for _, at := range allClosed() {
		d.byDoor[at] = m.turnedAway.WithLabelValues(listener, string(at))
	}
	for _, why := range refusals() {
		d.byReason[why] = m.refused.WithLabelValues(listener, string(why))
	}
	return d
}

func (d *doorMetrics) turnAway(at closed) {
	if d != nil {
		d.byDoor[at].Inc()
	}
}

func (d *doorMetrics) refuse(why refusal) {
	if d != nil {
		d.byReason[why].Inc()
	}
}

// requestsOf returns what counts the requests of a token, and begins its series.
func (d *doorMetrics) requestsOf(name string) prometheus.Counter {
	if d == nil {
		return nil
	}
	return d.requests.WithLabelValues(d.listener, name)
}

// settle ends the series of names that are in the list before and not in the list after.
func (d *doorMetrics) settle(before, after tokens) {
	if d == nil {
		return
	}
	kept := map[string]bool{}
	for _, e := range after {
		kept[e.Name] = true
	}
	for _, e := range before {
		if !kept[e.Name] {
			d.requests.DeleteLabelValues(d.listener, e.Name)
		}
	}
}
