// Package admin is what people and machines ask of a running relay, both ends of it: [Handler] answers, [Client] asks.
// Today that is its health (/livez, /readyz) and to pause and resume a destination (/api/v1/destinations). Who may ask
// is decided by the listener in front of it.
package admin

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/problem"
)

// Paths of the answers about health.
const (
	livePath  = "/livez"
	readyPath = "/readyz"
)

// Handler answers on the admin listener. Set its fields before its first request; it may then serve any number at a
// time.
type Handler struct {
	// Ready returns why new messages should not be sent here now, for a person to read; nothing if they may. It is
	// called for each request for /readyz, must not block, and its texts go to anybody who can reach the listener.
	// nil means always ready.
	Ready func() []string

	Steering Steering    // required
	Log      *zap.Logger // nil logs nothing
}

// health is the answer about health.
type health struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"`
}

const (
	statusAlive    = "alive"
	statusReady    = "ready"
	statusNotReady = "not ready"
)

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	problem.Serve(w, r, h.Log, h.serve)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Path == destinationsPath || strings.HasPrefix(r.URL.Path, destinationsPath+"/") {
		return h.destinations(w, r)
	}
	if r.URL.Path != livePath && r.URL.Path != readyPath {
		return problem.New(http.StatusNotFound, "there is nothing at this path; there are %s (the process runs), "+
			"%s (it takes messages) and %s", livePath, readyPath, destinationsPath)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return wrongMethod(r, "GET, HEAD")
	}
	if r.URL.Path == livePath {
		return write(w, http.StatusOK, health{Status: statusAlive})
	}
	if h.Ready != nil {
		if reasons := h.Ready(); len(reasons) > 0 {
			return write(w, http.StatusServiceUnavailable, health{Status: statusNotReady, Reasons: reasons})
		}
	}
	return write(w, http.StatusOK, health{Status: statusReady})
}

func write(w http.ResponseWriter, status int, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	body = append(body, '\n')
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone needs no answer
	return nil
}
