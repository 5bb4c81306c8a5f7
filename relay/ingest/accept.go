package ingest

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// acceptTimeout bounds the wait for the store. A commit takes milliseconds; a disk that takes this long is in trouble,
// and then the client should know.
const acceptTimeout = 30 * time.Second

// Seconds after which a refused client may try again.
const (
	retryBacklog = 10
	retryNoSpace = 60
	retryRestart = 5
	retryMemory  = 1
)

// incoming is one post that has been read, ready to become a message.
type incoming struct {
	post   Post // with its body
	routes []Route
	timing timing
	hops   int
	always []store.Field // headers that are kept for all
	header http.Header   // those that are kept for a route that asks for them; nil for none

	idempotency *store.Idempotency // nil for a post without an idempotency key
}

// message makes the message of a post.
func (h *Handler) message(in incoming) (store.Message, error) {
	id, err := store.NewMessageID()
	if err != nil {
		return store.Message{}, err
	}
	accepted := h.now().UTC().Truncate(time.Millisecond)
	later, err := in.timing.from(accepted)
	if err != nil {
		return store.Message{}, problem.New(http.StatusBadRequest, "%v", err)
	}
	kept, err := keep(in.always, in.header, in.routes)
	if err != nil {
		return store.Message{}, err
	}
	to := make([]store.Recipient, len(in.routes))
	for n, route := range in.routes {
		to[n] = route.To
		to[n].Delay += later
	}
	return store.Message{
		ID: id, Event: in.post.Event, ContentType: in.post.ContentType, AcceptedAt: accepted, Size: len(in.post.Body),
		Hops: in.hops, Key: in.post.Key, Path: in.post.Path, Header: kept, Recipients: to, Idempotency: in.idempotency,
	}, nil
}

func (h *Handler) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

// accept stores the message and wakes whom it concerns.
func (h *Handler) accept(ctx context.Context, m store.Message, body []byte) (stored store.Message, existing bool, err error) {
	// A client that goes away must not leave a message in the store that nobody was told of. So its going does not
	// end the wait, which is short anyway.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), acceptTimeout, errAcceptTimeout)
	defer cancel()
	stored, existing, err = h.Acceptor.Accept(ctx, m, body)
	if err == nil {
		h.Metrics.accept(existing, m.Size)
	}
	switch {
	case err == nil && !existing:
		h.wake(stored)
	case err != nil && ctx.Err() != nil:
		h.wake(m) // it may have been stored all the same
	}
	return stored, existing, err
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

// stopping is the answer to a post that comes too late.
func stopping() *problem.Error {
	return problem.New(http.StatusServiceUnavailable, "Postern is stopping and takes no new messages; try again soon").
		RetryAfter(retryRestart).Closing()
}

// refuse turns an error of the store into an answer. key is what the client calls its idempotency key.
func refuse(err error, key string) *problem.Error {
	switch {
	case errors.Is(err, store.ErrKeyConflict):
		e := problem.New(http.StatusUnprocessableEntity, "the same %s came before with another target, "+
			"content type, ordering key or body; use a new one for a new message", key)
		e.Cause = err
		return e
	case errors.Is(err, store.ErrBacklog):
		return problem.New(http.StatusTooManyRequests, "too many deliveries are pending (store.max_pending); "+
			"try again later").RetryAfter(retryBacklog)
	case errors.Is(err, store.ErrNoSpace):
		e := problem.New(http.StatusInsufficientStorage, "the free disk space is below the reserve; make room on the "+
			"disk of store.path, deliveries go on meanwhile").RetryAfter(retryNoSpace)
		e.Cause = err
		return e
	case errors.Is(err, store.ErrTooLarge):
		return problem.New(http.StatusRequestEntityTooLarge, "the message is larger than the store can keep; send less")
	case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrBroken):
		e := stopping()
		e.Cause = err
		return e
	default:
		e := problem.New(http.StatusInternalServerError, "the message could not be stored; it is not certain that it was "+
			"not, so repeat it with the same %s", key)
		e.Cause = err
		return e.Closing()
	}
}
