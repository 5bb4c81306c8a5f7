// Package admin is what people and machines ask of a running relay, both ends of it: [Handler] answers, [Client] asks.
//
//	/livez /readyz           whether the process runs, and whether it takes messages
//	/api/v1/…                history and steering, described by /api/v1/openapi.json
//	/metrics                 for Prometheus
//	everything else          the dashboard
//
// The API is a table of operations. What an operation takes and answers are Go types, its description is made from the
// same types, and the client decodes into them, so that none of the three can say something else than the others. Each
// refusal is a problem (RFC 9457) whose detail says what to do; a query parameter or a key of a body that is not known
// is refused, since a filter with a typing error would mean more than was asked for.
//
// What it tells about the past it reads from the store, in pages of bounded work (T57); about the present it asks the
// relay, through the small interfaces of this package; about the last hour it asks [Activity], and what changes now is
// told by [Changes]. Nothing that leaves here holds a secret: requests are masked before they are recorded, and what
// the app or a receiver sent under a name that sounds like one is masked here (T31, T32). Who may ask is decided by the
// listener in front of it.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// Handler answers on the admin listener. Set its fields before its first request; it may then serve any number at a
// time. What is called required is required by the API only: health needs none of it.
type Handler struct {
	// Full returns why no messages are taken now, and HTTPS what keeps apps on other hosts from posting, for a person to
	// read; nothing if all is well. With either the relay is not ready. They are called for each request for /readyz, must
	// not block, and their texts go to anybody who can reach the listener. nil means that all is well.
	Full, HTTPS func() []string

	Records    Records          // history; required
	Steering   Steering         // destinations; required
	Deliveries DeliverySteering // required
	Trials     Trials           // required
	Reloads    Reloader         // required
	Backups    store.Backuper   // nil refuses to make any

	Activity *Activity // of the last hour; nil shows an hour without any
	Changes  *Changes  // what the stream of events tells; nil tells nothing

	// Config returns the effective config of a destination of the config, as a JSON object with its secrets masked. nil
	// shows none.
	Config func(name string) (json.RawMessage, error)

	// Redact returns what may be shown of the body of a message, which it may change. nil shows all.
	Redact func(m store.Message, body []byte) []byte

	// Nearest returns the word of known that is most like word, or nothing. nil finds none.
	Nearest func(word string, known []string) string

	Dashboard http.Handler    // answers what is not for the others; nil means 404
	Metrics   http.Handler    // answers /metrics, see NewMetrics; nil means 404
	Stopping  <-chan struct{} // closed when the relay begins to stop, which ends all streams; nil means never

	Version   string    // of Postern
	StartedAt time.Time // of the relay

	Now func() time.Time // wall clock; nil means time.Now
	Log *zap.Logger      // nil logs nothing

	once   sync.Once // guards the making of the field below
	routes []operation

	states stateCache
}

// Records is what the API reads from the store.
type Records interface {
	store.History
	store.Loader
}

const (
	apiPath     = "/api/v1"
	metricsPath = "/metrics"
)

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	problem.Serve(w, r, h.Log, h.answer)
}

// answer is serve, but tells a request that has ended from a failure of ours: it is for nobody's attention.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request) error {
	err := h.serve(w, r)
	if err != nil && r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return problem.New(http.StatusRequestTimeout, "the request ended before its answer was there: the client hung up, or it "+
			"took too long; what it had changed until then stays").Closing()
	}
	return err
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	path := r.URL.Path
	switch {
	case path == livePath || path == readyPath:
		return h.health(w, r)
	case path == apiPath || strings.HasPrefix(path, apiPath+"/"):
		return h.api(w, r)
	case path == metricsPath && h.Metrics != nil:
		return h.metrics(w, r)
	case path != metricsPath && h.Dashboard != nil:
		h.Dashboard.ServeHTTP(w, r)
	default:
		return problem.New(http.StatusNotFound, "there is nothing at this path; there are %s (the process runs), "+
			"%s (it takes messages) and %s", livePath, readyPath, openAPIPath)
	}
	return nil
}

func (h *Handler) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

func wrongMethod(r *http.Request, allowed string) error {
	return problem.New(http.StatusMethodNotAllowed, "method %s is not supported here; use %s", r.Method, allowed).Allow(allowed)
}
