package admin

import (
	"net/http"
)

// Paths of the answers about health.
const (
	livePath  = "/livez"
	readyPath = "/readyz"
)

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

func (h *Handler) health(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return wrongMethod(r, "GET, HEAD")
	}
	if r.URL.Path == livePath {
		return write(w, http.StatusOK, health{Status: statusAlive})
	}
	if reasons := h.unready(); len(reasons) > 0 {
		return write(w, http.StatusServiceUnavailable, health{Status: statusNotReady, Reasons: reasons})
	}
	return write(w, http.StatusOK, health{Status: statusReady})
}

func (h *Handler) unready() []string {
	if h.Ready == nil {
		return nil
	}
	return h.Ready()
}
