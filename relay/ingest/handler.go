// Package ingest is the way in: it turns an HTTP request of the app into a message, or refuses it with a problem. A
// 2xx means that the message and its deliveries are on disk (the store's Accept has returned); whatever cannot be
// honoured is refused, never ignored. Its main type is [Handler].
//
//	POST /to/{destination}  one delivery
//	POST /events/{type}     one delivery for each destination that wants the event; none is fine too
//
// The body is opaque bytes of any type. An Idempotency-Key makes a post safe to repeat.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

const (
	defaultMaxBody = 1 << 20

	// acceptTimeout bounds the wait for the store. A commit takes milliseconds; a disk that takes this long is in
	// trouble, and then the client should know.
	acceptTimeout = 30 * time.Second
)

// Seconds after which a refused client may try again.
const (
	retryBacklog = 10
	retryNoSpace = 60
	retryRestart = 5
	retryMemory  = 1
)

// Router says where a message goes. Its methods are called from several goroutines and do not block.
type Router interface {
	// ToDestination returns the recipient for a destination's name. For an unknown name ok is false, and nearest is
	// the known name most like it, or empty.
	ToDestination(name string) (r store.Recipient, ok bool, nearest string)

	// ForEvent returns a recipient for each destination that wants an event, at most store.MaxDeliveries.
	ForEvent(event string) []store.Recipient
}

// Handler takes messages. Set its fields before its first request; it may then serve any number at a time.
type Handler struct {
	Acceptor store.Acceptor // required
	Router   Router         // required

	// Wake is told of each new delivery, once it is stored or may have been, with its place in the queue. It must not
	// block. nil tells nobody.
	Wake func(destination string, c store.Cursor)

	MaxBody        int64            // largest body in bytes; 0 means 1 MiB
	BodyMemory     int64            // bytes that the bodies of all requests together may take; 0 means 64 times MaxBody
	AcceptedStatus int              // status of success, 200 to 299; 0 means 202
	Draining       func() bool      // true refuses new messages with 503; nil means never
	Now            func() time.Time // wall clock; nil means time.Now
	Log            *zap.Logger      // nil logs nothing

	bodies atomic.Int64 // bytes that bodies take now
}

// ServeHTTP answers one request. It returns after the message is on disk, or refused.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	problem.Serve(w, r, h.Log, h.serve)
}

// target is where a request wants its message to go. Just one of its fields is set.
type target struct{ destination, event string }

// path returns the target in the one spelling that idempotency keys compare.
func (t target) path() string {
	if t.event != "" {
		return eventsPath + t.event
	}
	return toPath + t.destination
}

const (
	toPath     = "/to/"
	eventsPath = "/events/"
)

// parseTarget reads the path of a request, and refuses one that is not ours.
func parseTarget(u *url.URL) (target, error) {
	// The escaped path, since %2F is part of a name and no separator.
	path := u.EscapedPath()
	if rest, ok := strings.CutPrefix(path, toPath); ok {
		name, more, extra := strings.Cut(rest, "/")
		if extra {
			return target{}, problem.New(http.StatusNotFound,
				"forwarding of the path %q behind the destination is not supported; post to %s%s", "/"+more, toPath, name)
		}
		return parsedTarget(name, func(s string) (target, error) { return target{destination: s}, nil })
	}
	if rest, ok := strings.CutPrefix(path, eventsPath); ok {
		return parsedTarget(rest, func(s string) (target, error) {
			if err := match.CheckEvent(s); err != nil {
				return target{}, problem.New(http.StatusBadRequest, "%v", err)
			}
			return target{event: s}, nil
		})
	}
	return target{}, problem.New(http.StatusNotFound,
		"there is nothing at this path; post to /to/{destination} or to /events/{type}")
}

func parsedTarget(escaped string, parse func(string) (target, error)) (target, error) {
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return target{}, problem.New(http.StatusBadRequest, "the path is not properly escaped")
	}
	if name == "" {
		return target{}, problem.New(http.StatusNotFound,
			"the path ends too early; post to /to/{destination} or to /events/{type}")
	}
	return parse(name)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	to, err := parseTarget(r.URL)
	if err != nil {
		return err
	}
	if r.Method != http.MethodPost {
		return problem.New(http.StatusMethodNotAllowed, "method %s is not supported here; use POST", r.Method).Allow(http.MethodPost)
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return problem.New(http.StatusBadRequest, "a query is not supported; remove what follows the ? in the target")
	}
	if h.Draining != nil && h.Draining() {
		return problem.New(http.StatusServiceUnavailable, "Postern is stopping and takes no new messages; try again soon").
			RetryAfter(retryRestart).Closing()
	}
	head, err := parseHeader(r.Header)
	if err != nil {
		return err
	}
	recipients, err := h.route(to)
	if err != nil {
		return err
	}
	body, release, err := h.readBody(w, r)
	defer release()
	if err != nil {
		return err
	}

	m, err := h.message(to, head, recipients, len(body))
	if err != nil {
		return err
	}
	if head.hasKey {
		m.Idempotency = fingerprint(head, to.path(), body)
	}
	stored, existing, err := h.accept(r.Context(), m, body)
	if err != nil {
		return err
	}
	h.answer(w, stored, existing)
	return nil
}

func (h *Handler) route(to target) ([]store.Recipient, error) {
	if to.event != "" {
		return h.Router.ForEvent(to.event), nil
	}
	recipient, ok, nearest := h.Router.ToDestination(to.destination)
	if ok {
		return []store.Recipient{recipient}, nil
	}
	detail := fmt.Sprintf("there is no destination %.100q in the config", to.destination)
	if nearest != "" {
		detail += fmt.Sprintf("; did you mean %q?", nearest)
	}
	return nil, &problem.Error{Status: http.StatusNotFound, Detail: detail}
}

func (h *Handler) message(to target, head header, recipients []store.Recipient, size int) (store.Message, error) {
	id, err := store.NewMessageID()
	if err != nil {
		return store.Message{}, err
	}
	now := time.Now
	if h.Now != nil {
		now = h.Now
	}
	return store.Message{
		ID: id, Event: to.event, ContentType: head.contentType, Recipients: recipients, Size: size,
		Hops:       head.hops,
		AcceptedAt: now().UTC().Truncate(time.Millisecond),
	}, nil
}

// accept stores the message and wakes whom it concerns.
func (h *Handler) accept(ctx context.Context, m store.Message, body []byte) (store.Message, bool, error) {
	// A client that goes away must not leave a message in the store that nobody was told of. So its going does not
	// end the wait, which is short anyway.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), acceptTimeout, errAcceptTimeout)
	defer cancel()
	stored, existing, err := h.Acceptor.Accept(ctx, m, body)
	switch {
	case err == nil && !existing:
		h.wake(stored)
	case err != nil && ctx.Err() != nil:
		h.wake(m) // it may have been stored all the same
	}
	if err != nil {
		return store.Message{}, false, h.refuse(err)
	}
	return stored, existing, nil
}

var errAcceptTimeout = errors.New("the store did not answer in time")

func (h *Handler) wake(m store.Message) {
	if h.Wake == nil {
		return
	}
	for n, to := range m.Recipients {
		h.Wake(to.Destination, m.Delivery(n).Cursor())
	}
}

// refuse turns an error of the store into an answer.
func (h *Handler) refuse(err error) error {
	switch {
	case errors.Is(err, store.ErrKeyConflict):
		return problem.New(http.StatusUnprocessableEntity, "this Idempotency-Key was used with another target, "+
			"content type or body; use a new key for a new message")
	case errors.Is(err, store.ErrBacklog):
		return problem.New(http.StatusTooManyRequests, "too many deliveries are pending (store.max_pending); "+
			"try again later").RetryAfter(retryBacklog)
	case errors.Is(err, store.ErrNoSpace):
		e := problem.New(http.StatusInsufficientStorage, "the free disk space is below the reserve (store.min_free); "+
			"make room, deliveries go on meanwhile").RetryAfter(retryNoSpace)
		e.Cause = err
		return e
	case errors.Is(err, store.ErrTooLarge):
		return problem.New(http.StatusRequestEntityTooLarge, "the message is larger than the store can keep; send less")
	case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrBroken):
		e := problem.New(http.StatusServiceUnavailable, "Postern is stopping and takes no new messages; try again soon").
			RetryAfter(retryRestart).Closing()
		e.Cause = err
		return e
	default:
		e := problem.New(http.StatusInternalServerError, "the message could not be stored; it is not certain that it was "+
			"not, so repeat it with the same Idempotency-Key")
		e.Cause = err
		return e.Closing()
	}
}

// answer writes what became of the message. The first answer and its repetitions are the same but for a header.
func (h *Handler) answer(w http.ResponseWriter, m store.Message, existing bool) {
	status := h.AcceptedStatus
	if status == 0 {
		status = http.StatusAccepted
	}
	body := appendAnswer(make([]byte, 0, 64+160*len(m.Recipients)), m)
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if existing {
		header.Set("Idempotency-Replayed", "true")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone does not make the message less accepted
}
