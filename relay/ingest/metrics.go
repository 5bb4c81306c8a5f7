package ingest

import (
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// Metrics counts what handlers take and refuse. NewMetrics makes one; nil counts nothing. Handlers that take one
// another's place share one. Its labels are from fixed lists.
type Metrics struct {
	accepted, repeated, bytes prometheus.Counter
	refused                   map[reason]prometheus.Counter // never changed
	tookAccepted, tookRefused prometheus.Observer
}

// NewMetrics registers the metrics of ingest. An error means that the registry holds some of them already.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	accepted := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "postern_messages_accepted_total",
		Help: "Messages that were accepted: they are on disk.",
	})
	repeated := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "postern_messages_repeated_total",
		Help: "Messages that were posted again under a known idempotency key, and not stored again.",
	})
	bytes := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "postern_messages_accepted_bytes_total",
		Help: "Bytes of the bodies of accepted messages.",
	})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postern_ingest_refusals_total",
		Help: "Requests whose messages were refused, by reason. What the listener turns away, such as a wrong token, is not counted.",
	}, []string{"reason"})
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "postern_ingest_request_duration_seconds",
		Help:    "Time from the head of a request to its answer, by result. Those that wait for the outcome (Prefer) are not counted.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"result"})
	for _, c := range []prometheus.Collector{accepted, repeated, bytes, refused, took} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	m := &Metrics{
		accepted: accepted, repeated: repeated, bytes: bytes, refused: map[reason]prometheus.Counter{},
		tookAccepted: took.WithLabelValues("accepted"), tookRefused: took.WithLabelValues("refused"),
	}
	for _, why := range allReasons() {
		m.refused[why] = refused.WithLabelValues(string(why))
	}
	return m, nil
}

// accept counts a message whose body has size bytes.
func (m *Metrics) accept(existing bool, size int) {
	switch {
	case m == nil:
	case existing:
		m.repeated.Inc()
	default:
		m.accepted.Inc()
		m.bytes.Add(float64(size))
	}
}

// measured is serve, counted.
func (h *Handler) measured(w http.ResponseWriter, r *http.Request) error {
	m := h.Metrics
	if m == nil {
		return h.serve(w, r)
	}
	start := time.Now()
	err := h.serve(w, r)
	switch {
	case err != nil:
		m.tookRefused.Observe(time.Since(start).Seconds())
		m.refused[reasonOf(err)].Inc()
	case w.Header().Get(preferenceAppliedHeader) == "":
		m.tookAccepted.Observe(time.Since(start).Seconds())
	}
	return err
}

// reason is the label of a refusal. The status says what kind of problem it is (RFC 9457, section 4.2.1); where one has
// two causes, the error tells them apart.
type reason string

const (
	reasonInvalid   reason = "invalid"
	reasonUnknown   reason = "unknown_target"
	reasonMethod    reason = "method"
	reasonSlow      reason = "slow_body"
	reasonTooLarge  reason = "too_large"
	reasonMediaType reason = "media_type"
	reasonFilter    reason = "filter"
	reasonConflict  reason = "key_conflict"
	reasonBacklog   reason = "backlog"
	reasonForbidden reason = "forbidden"
	reasonRate      reason = "token_rate"
	reasonMemory    reason = "memory"
	reasonLoop      reason = "loop"
	reasonNoSpace   reason = "no_space"
	reasonStopping  reason = "stopping"
	reasonInternal  reason = "internal"
)

func allReasons() []reason {
	return []reason{
		reasonInvalid, reasonUnknown, reasonMethod, reasonSlow, reasonTooLarge, reasonMediaType, reasonFilter, reasonConflict,
		reasonBacklog, reasonForbidden, reasonRate, reasonMemory, reasonLoop, reasonNoSpace, reasonStopping, reasonInternal,
	}
}

// reasonOf returns why a request was refused with err.
func reasonOf(err error) reason {
	answer, ok := errors.AsType[*problem.Error](err)
	if !ok {
		return reasonInternal
	}
	switch answer.Status {
	case http.StatusBadRequest:
		return reasonInvalid
	case http.StatusNotFound:
		return reasonUnknown
	case http.StatusMethodNotAllowed:
		return reasonMethod
	case http.StatusRequestTimeout:
		return reasonSlow
	case http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge, http.StatusRequestURITooLong:
		return reasonTooLarge
	case http.StatusUnsupportedMediaType:
		return reasonMediaType
	case http.StatusUnprocessableEntity:
		if errors.Is(err, store.ErrKeyConflict) {
			return reasonConflict
		}
		return reasonFilter
	case http.StatusForbidden:
		return reasonForbidden
	case http.StatusTooManyRequests:
		if errors.Is(err, errRate) {
			return reasonRate
		}
		return reasonBacklog
	case http.StatusLoopDetected:
		return reasonLoop
	case http.StatusInsufficientStorage:
		return reasonNoSpace
	case http.StatusServiceUnavailable:
		if errors.Is(err, errNoMemory) {
			return reasonMemory
		}
		return reasonStopping
	}
	return reasonInternal
}
