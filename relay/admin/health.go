package admin

import (
	"net/http"
	"slices"
)

// Paths of the answers about health.
const (
	livePath  = "/livez"
	readyPath = "/readyz"
)

// health is the answer about health.
type health struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"` // all of them
	HTTPS   []string `json:"https,omitempty"`   // those of Reasons that keep away apps on other hosts only
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
	https := texts(h.HTTPS)
	if reasons := slices.Concat(texts(h.Full), https); len(reasons) > 0 {
		return write(w, http.StatusServiceUnavailable, health{Status: statusNotReady, Reasons: reasons, HTTPS: https})
	}
	return write(w, http.StatusOK, health{Status: statusReady})
}

func texts(of func() []string) []string {
	if of == nil {
		return nil
	}
	return of()
}
