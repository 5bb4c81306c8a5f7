package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// Steering is what the API asks of a running relay about its destinations. Its methods are called from several
// goroutines.
type Steering interface {
	// Destinations returns the state of every destination of the config, sorted by name. What is known from the store
	// and from Activity (pending deliveries, the last hour) is left to the Handler.
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
	// Name in the config.
	Name string `json:"name"`
	// URL that it sends to; secret values of the query are masked. Absent if it is not in the config.
	URL string `json:"url,omitempty"`
	// Enabled as the config says.
	Enabled bool `json:"enabled"`
	// InConfig is false for one that is gone and still has pending deliveries.
	InConfig bool `json:"in_config"`
	// Pause is why and since when it is held, null if it is not.
	Pause *Pause `json:"pause" jsonschema:"nullable"`
	// Breaker is its state; absent without a breaker.
	Breaker string `json:"breaker,omitempty" jsonschema:"enum=closed,enum=open,enum=probing"`
	// BreakerOpenSince is when the breaker opened; absent while it is closed.
	BreakerOpenSince time.Time `json:"breaker_open_since,omitzero"`
	// NextProbeAt is from when the next attempt may test whether the outage is over.
	NextProbeAt time.Time `json:"next_probe_at,omitzero"`
	// HeldUntil is until when the receiver has asked for no attempt.
	HeldUntil time.Time `json:"held_until,omitzero"`
	// InFlight attempts are being made or recorded.
	InFlight int `json:"in_flight"`
	// ConcurrencyLimit is how many may be in flight now.
	ConcurrencyLimit int `json:"concurrency_limit"`
	// Due deliveries wait though their time has come; of a long queue only the first are counted.
	Due int `json:"due"`
	// Pending deliveries.
	Pending int64 `json:"pending"`
	// BlockedLines are held up by a delivery that has failed, until it is replayed or canceled; counted up to 10000.
	BlockedLines int `json:"blocked_lines"`
	// BlockingDeliveryID is one of those deliveries; absent without any.
	BlockingDeliveryID string `json:"blocking_delivery_id,omitempty"`
	// OldestDueAt is since when the one that has waited longest is due; absent if none is.
	OldestDueAt time.Time `json:"oldest_due_at,omitzero"`
	// NextRetryAt is when the first of those pending falls due; absent if one is due already.
	NextRetryAt time.Time `json:"next_retry_at,omitzero"`
	// LastHour as counted since the start of the relay.
	LastHour LastHour `json:"last_hour"`
	// CertificateExpiresAt is the end of validity of the receiver's certificate, as last seen.
	CertificateExpiresAt time.Time `json:"certificate_expires_at,omitzero"`
}

// Pause is why and since when a destination is held.
type Pause struct {
	// At is since when.
	At time.Time `json:"at"`
	// Reason for a person.
	Reason string `json:"reason"`
}

// DestinationList is all destinations.
type DestinationList struct {
	// Destinations of the config, and those that are gone and still have pending deliveries, by name.
	Destinations []Destination `json:"destinations"`
}

// DestinationDetail is a destination with its config.
type DestinationDetail struct {
	Destination
	// Config that is in effect, secrets masked; null for a destination that is gone.
	Config json.RawMessage `json:"config"`
}

// pauseRequest is the body of a request to pause.
type pauseRequest struct {
	// Reason for whoever finds it paused.
	Reason string `json:"reason,omitempty" jsonschema:"maxLength=500"`
}

const stateAge = time.Second // how old the state of the destinations may be that streams are told

// stateCache spares streams from asking for the same at the same time.
type stateCache struct {
	mu   sync.Mutex // guards the fields below, and is held while they are made
	at   time.Time
	list []Destination
}

// recent returns the state of the destinations as of at most stateAge ago. The list is not to be changed.
func (h *Handler) recent(ctx context.Context) ([]Destination, error) {
	h.states.mu.Lock()
	defer h.states.mu.Unlock()
	if h.states.list != nil && time.Since(h.states.at) < stateAge {
		return h.states.list, nil
	}
	at := time.Now()
	list, err := h.destinations(ctx)
	if err == nil {
		h.states.at, h.states.list = at, list
	}
	return list, err
}

// destinations returns the state of all destinations by name, also of those that only have something pending.
func (h *Handler) destinations(ctx context.Context) ([]Destination, error) {
	list, err := h.Steering.Destinations(ctx)
	if err != nil {
		return nil, refused(err)
	}
	backlog, err := h.Records.Backlog(ctx)
	if err != nil {
		return nil, refused(fmt.Errorf("read backlog: %w", err))
	}
	known := make(map[string]bool, len(list))
	for i := range list {
		known[list[i].Name] = true
		list[i].InConfig = true
	}
	for name, waiting := range backlog {
		if !known[name] && waiting.Pending > 0 {
			list = append(list, Destination{Name: name})
		}
	}
	slices.SortFunc(list, func(a, b Destination) int { return strings.Compare(a.Name, b.Name) })
	for i := range list {
		h.complete(&list[i], backlog[list[i].Name])
	}
	return list, nil
}

// complete adds what the relay does not know of a destination.
func (h *Handler) complete(d *Destination, waiting store.Backlog) {
	now := h.now()
	d.URL, d.Pending = MaskQuery(d.URL), waiting.Pending
	d.BlockedLines = waiting.Blocked
	if waiting.Blocked > 0 && waiting.Blocking != (store.DeliveryID{}) {
		d.BlockingDeliveryID = waiting.Blocking.String()
	}
	switch {
	case waiting.DueAt.IsZero():
	case waiting.DueAt.After(now):
		d.NextRetryAt = instant(waiting.DueAt)
	default:
		d.OldestDueAt = instant(waiting.DueAt)
	}
	d.BreakerOpenSince, d.NextProbeAt, d.HeldUntil = instant(d.BreakerOpenSince), instant(d.NextProbeAt), instant(d.HeldUntil)
	if d.Pause != nil {
		d.Pause = &Pause{At: instant(d.Pause.At), Reason: d.Pause.Reason}
	}
	d.LastHour, d.CertificateExpiresAt = h.Activity.lastHour(d.Name, now)
}

// destination returns the state of one destination.
func (h *Handler) destination(ctx context.Context, name string) (Destination, error) {
	list, err := h.destinations(ctx)
	if err != nil {
		return Destination{}, err
	}
	names := make([]string, len(list))
	for i, d := range list {
		if d.Name == name {
			return d, nil
		}
		names[i] = d.Name
	}
	unknown := &UnknownError{Name: name}
	if h.Nearest != nil {
		unknown.Nearest = h.Nearest(name, names)
	}
	return Destination{}, refused(unknown)
}

func (h *Handler) listDestinations(ctx context.Context, _ input[none, none]) (DestinationList, error) {
	list, err := h.destinations(ctx)
	if list == nil {
		list = []Destination{}
	}
	return DestinationList{Destinations: list}, err
}

func (h *Handler) getDestination(ctx context.Context, in input[none, none]) (DestinationDetail, error) {
	d, err := h.destination(ctx, in.Segment)
	if err != nil {
		return DestinationDetail{}, err
	}
	detail := DestinationDetail{Destination: d, Config: json.RawMessage("null")}
	if d.InConfig && h.Config != nil {
		if detail.Config, err = h.Config(in.Segment); err != nil {
			return DestinationDetail{}, fmt.Errorf("render config of %q: %w", in.Segment, err)
		}
	}
	return detail, nil
}

func (h *Handler) pause(ctx context.Context, in input[none, pauseRequest]) (Destination, error) {
	reason := in.Body.Reason
	if err := checkReason(reason); err != nil {
		return Destination{}, err
	}
	if reason == "" {
		reason = "paused by hand"
	}
	if err := h.Steering.Pause(ctx, in.Segment, reason); err != nil {
		return Destination{}, refused(err)
	}
	h.Changes.Destination(in.Segment)
	return h.destination(ctx, in.Segment)
}

// checkReason refuses what cannot be kept as the reason of a person, or be shown on a terminal.
func checkReason(reason string) error {
	if n := len(reason); n > store.MaxReason {
		return problem.New(http.StatusBadRequest, "the reason has %d bytes; at most %d are allowed", n, store.MaxReason)
	}
	if strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return problem.New(http.StatusBadRequest, "the reason holds a character that cannot be printed; write one line of text")
	}
	return nil
}

func (h *Handler) resume(ctx context.Context, in input[none, none]) (Destination, error) {
	if err := h.Steering.Resume(ctx, in.Segment); err != nil {
		return Destination{}, refused(err)
	}
	h.Changes.Destination(in.Segment)
	return h.destination(ctx, in.Segment)
}

// refused turns what the relay and the store refuse into the problem that says so. Other errors stay what they are.
func refused(err error) error {
	if unknown, ok := errors.AsType[*UnknownError](err); ok {
		return problem.New(http.StatusNotFound, "%v", unknown)
	}
	status, detail := 0, ""
	switch {
	case errors.Is(err, store.ErrNotFound):
		status, detail = http.StatusNotFound, "there is nothing of that id; what has ended is deleted after store.retention"
	case errors.Is(err, store.ErrStale):
		status, detail = http.StatusConflict, "the delivery is not in a state for that, or has changed meanwhile; look at it again"
	case errors.Is(err, store.ErrTooLarge):
		status, detail = http.StatusConflict, "the delivery has had as many rounds as there can be; post the message anew"
	case errors.Is(err, store.ErrBusy):
		status, detail = http.StatusConflict, "another one is being made; try again when it is done"
	case errors.Is(err, store.ErrBacklog):
		status, detail = http.StatusTooManyRequests, "too many deliveries are pending (store.max_pending); try again when there are fewer"
	case errors.Is(err, store.ErrNoSpace):
		status, detail = http.StatusInsufficientStorage, "free disk space is below the reserve; make room on the disk of store.path, and try again"
	case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrBroken):
		status, detail = http.StatusServiceUnavailable, "Postern is stopping or its store has failed; try again after the next start"
	default:
		return err
	}
	return &problem.Error{Status: status, Detail: detail, Cause: err}
}
