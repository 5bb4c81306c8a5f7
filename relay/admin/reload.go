package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/postern-relay/postern/relay/problem"
)

// Reloader reads the config again. Its methods are called from several goroutines.
type Reloader interface {
	// Reload loads the config and, if it is right, puts it into effect. A wrong one changes nothing and is a
	// *ReloadError. Either way, and whoever asked for it, the relay tells Changes of it.
	Reload(ctx context.Context) (Reload, error)

	// LastReload returns what came of the latest reload, whoever asked for it, or nil before the first.
	LastReload() *Reload
}

// Reload is what came of a reload.
type Reload struct {
	// At is when it was.
	At time.Time `json:"at"`
	// OK means that the config in effect is that of the file.
	OK bool `json:"ok"`
	// Error is why the file was refused.
	Error string `json:"error,omitempty"`
	// Changed destinations and keys, those added and removed too.
	Changed []string `json:"changed"`
	// RestartNeeded are keys whose change takes effect at the next start.
	RestartNeeded []string `json:"restart_needed"`
}

// normal returns r as the API shows it.
func (r Reload) normal() Reload {
	r.At = instant(r.At)
	r.Changed, r.RestartNeeded = append([]string{}, r.Changed...), append([]string{}, r.RestartNeeded...)
	return r
}

// ReloadError says that a changed config was refused, and that the one before stays in effect.
type ReloadError struct {
	Faults []ConfigFault // at least one
}

func (e *ReloadError) Error() string {
	first := e.Faults[0]
	text := fmt.Sprintf("%s:%d:%d: %s: %s", first.File, first.Line, first.Column, first.Path, first.Message)
	if more := len(e.Faults) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// ConfigFault is one fault of a config file.
type ConfigFault struct {
	// File by its path.
	File string `json:"file"`
	// Line from 1; 0 if the fault has no place.
	Line int `json:"line"`
	// Column from 1; 0 if the fault has no place.
	Column int `json:"column"`
	// Path of the key.
	Path string `json:"path"`
	// Message says what is wrong and what to write instead.
	Message string `json:"message"`
}

// refusedReload is the problem of a refused config (RFC 9457, with an extension member).
type refusedReload struct {
	// Type is always about:blank.
	Type string `json:"type"`
	// Title of the status.
	Title string `json:"title"`
	// Status of the answer.
	Status int `json:"status"`
	// Detail says what to do.
	Detail string `json:"detail"`
	// Errors of the file.
	Errors []ConfigFault `json:"errors"`
}

// reload answers with what has changed, or with all faults of the file.
func (h *Handler) reload(w http.ResponseWriter, r *http.Request, _ input[none, none]) error {
	done, err := h.Reloads.Reload(r.Context())
	if fault, ok := errors.AsType[*ReloadError](err); ok {
		const status = http.StatusUnprocessableEntity
		return writeAs(w, status, problem.MediaType, refusedReload{
			Type: "about:blank", Title: http.StatusText(status), Status: status, Errors: slices.Clone(fault.Faults),
			Detail: "the config was refused and the one before stays in effect: " + fault.Error(),
		})
	}
	if err != nil {
		return refused(err)
	}
	return write(w, http.StatusOK, done.normal())
}
