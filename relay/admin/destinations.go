package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/postern-relay/postern/relay/problem"
)

const (
	destinationsPath = "/api/v1/destinations"

	maxRequestBytes = 4 << 10
	maxReasonBytes  = 500 // as the store keeps it
)

// Steering is what the API asks of a running relay. Its methods are called from several goroutines.
type Steering interface {
	// Destinations returns the state of every destination, sorted by name.
	Destinations(ctx context.Context) ([]Destination, error)

	// Pause holds a destination until Resume, also across restarts. The reason is for people. An unknown name is
	// an *UnknownError.
	Pause(ctx context.Context, name, reason string) error

	// Resume ends the pause of a destination, if there is one. An unknown name is an *UnknownError.
	Resume(ctx context.Context, name string) error
}

// UnknownError says that there is no destination of that name.
type UnknownError struct {
	Name    string
	Nearest string // the name most like it; empty for none
}

func (e *UnknownError) Error() string {
	text := fmt.Sprintf("there is no destination %.100q in the config", e.Name)
	if e.Nearest != "" {
		text += fmt.Sprintf("; did you mean %q?", e.Nearest)
	}
	return text
}

// Destination is the state of one destination, and its form in the API.
type Destination struct {
	Name     string `json:"name"`
	Enabled  bool   `json:"enabled"`
	Pause    *Pause `json:"pause,omitempty"`   // nil if it is not paused
	Breaker  string `json:"breaker,omitempty"` // closed, open or probing; empty without a breaker
	InFlight int    `json:"in_flight"`         // attempts being made or recorded
	Due      int    `json:"due"`               // deliveries that wait though their time has come; of a long queue only the first are counted
}

// Pause is why and since when a destination is held.
type Pause struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// destinationList is the answer to a request for all destinations.
type destinationList struct {
	Destinations []Destination `json:"destinations"`
}

// pauseRequest is the body of a request to pause.
type pauseRequest struct {
	Reason string `json:"reason"`
}

// destinations answers the requests below destinationsPath:
//
//	GET  …                  the state of each
//	POST …/{name}/pause     hold it; {"reason": "…"} is optional
//	POST …/{name}/resume    let it go on
func (h *Handler) destinations(w http.ResponseWriter, r *http.Request) error {
	rest := strings.TrimPrefix(r.URL.EscapedPath(), destinationsPath)
	if rest == "" {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return wrongMethod(r, "GET, HEAD")
		}
		list, err := h.Steering.Destinations(r.Context())
		if err != nil {
			return err
		}
		return write(w, http.StatusOK, destinationList{Destinations: list})
	}
	name, action, ok := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	if !ok || action != "pause" && action != "resume" {
		return problem.New(http.StatusNotFound, "there is nothing at this path; post to %s/{name}/pause or /resume", destinationsPath)
	}
	if r.Method != http.MethodPost {
		return wrongMethod(r, http.MethodPost)
	}
	var err error
	if action == "pause" {
		var asked pauseRequest
		if asked, err = readPause(r); err != nil {
			return err
		}
		err = h.Steering.Pause(r.Context(), name, asked.Reason)
	} else {
		err = h.Steering.Resume(r.Context(), name)
	}
	if unknown, ok := errors.AsType[*UnknownError](err); ok {
		return problem.New(http.StatusNotFound, "%v", unknown)
	}
	if err != nil {
		return err
	}
	list, err := h.Steering.Destinations(r.Context())
	if err != nil {
		return err
	}
	for _, d := range list {
		if d.Name == name {
			return write(w, http.StatusOK, d)
		}
	}
	return problem.New(http.StatusNotFound, "%v", &UnknownError{Name: name})
}

func wrongMethod(r *http.Request, allowed string) error {
	return problem.New(http.StatusMethodNotAllowed, "method %s is not supported here; use %s", r.Method, allowed).Allow(allowed)
}

func readPause(r *http.Request) (pauseRequest, error) {
	asked := pauseRequest{Reason: "paused by hand"}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequestBytes+1))
	switch {
	case err != nil:
		return asked, problem.New(http.StatusBadRequest, "the body ended early; send it again").Closing()
	case len(body) > maxRequestBytes:
		return asked, problem.New(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes; send less", maxRequestBytes).Closing()
	case len(body) == 0:
		return asked, nil
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&asked); err != nil || dec.More() {
		return asked, problem.New(http.StatusBadRequest, `the body is not of the form {"reason": "…"}`)
	}
	if n := len(asked.Reason); n == 0 || n > maxReasonBytes {
		return asked, problem.New(http.StatusBadRequest, "the reason has %d bytes; 1 to %d are allowed", n, maxReasonBytes)
	}
	if strings.ContainsFunc(asked.Reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return asked, problem.New(http.StatusBadRequest, "the reason holds a character that cannot be printed; write one line of text")
	}
	return asked, nil
}
