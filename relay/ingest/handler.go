// Package ingest is the way in: it turns an HTTP request of the app into messages, or refuses it with a problem. A
// 2xx means that the messages and their deliveries are on disk (the store's Accept has returned); whatever cannot be
// honoured is refused, never ignored. Its main type is [Handler].
//
//	POST /to/{destination}         one delivery
//	POST /to/{destination}/a?b=c   the same, where the destination sends on what follows its name
//	POST /events/{type}            one delivery for each destination that wants the event; none is fine too
//	POST /batch                    one message a line of JSON; all of them or none
//	POST /cloudevents              CloudEvents 1.0: binary, structured, or batched (all or none)
//
// The body is opaque bytes of any type, but for the last two, which keep the bytes of each part as they came. These
// headers of a request have a meaning:
//
//	Idempotency-Key      makes a post safe to repeat. A repeat has the same target, content type, ordering key and
//	                     body; its times and other headers may differ, and are those of the first
//	Postern-Key          ordering key, 1 to 255 bytes of printable ASCII
//	Postern-Delay        wait before the first attempt: 90s, 10m, 24h, or whole seconds; at most 30 days
//	Postern-Deliver-At   the same as a time in RFC 3339; one in the past is now
//	Prefer: wait=N       hold the answer back until all deliveries have ended, at most N seconds, at most 60
//	traceparent          W3C Trace Context, with tracestate: kept for the attempts, by way of the request's span if
//	                     there is one
//
// Any other header that begins with Postern- is refused, since it is a misspelt one. A traceparent that is not valid and
// preferences that are not known are ignored, as their standards ask for it.
//
// A batch says these for each line, a CloudEvent has its own idempotency key, and Prefer is for single messages.
package ingest

import (
	"context"
	"crypto/sha256"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

const defaultMaxBody = 1 << 20

// Handler takes messages. Set its fields before its first request; it may then serve any number at a time.
type Handler struct {
	Acceptor store.Acceptor // required
	Router   Router         // required

	// Caller returns who makes a request, by its context, if that is bounded in what it may post. nil, and a func that
	// returns nil, mean that everybody may post everything.
	Caller func(ctx context.Context) Caller

	// Wake is told of each new delivery, once it is stored or may have been, with its place in the queue. It must not
	// block. nil tells nobody.
	Wake func(destination string, c store.Cursor)

	// Watch begins to report the ends of a message's deliveries, each as it is after its end, for Prefer: wait. It is
	// called before the message is accepted, so that nothing is missed, or for an earlier one that was posted again;
	// stop is called once and ends it. The channel must hold what is sent while nobody receives, or drop it: what is
	// missing in the end is looked up. nil: nobody waits, which the preference allows.
	Watch func(id store.MessageID) (ended <-chan store.Delivery, stop func())

	// Deliveries tells how deliveries stand. Required with Watch.
	Deliveries Deliveries

	MaxBody        int64            // largest body of a message in bytes; 0 means 1 MiB
	BodyMemory     int64            // bytes that the bodies of all requests together may take; 0 means 64 times MaxBody
	MaxWaiting     int              // requests that may wait for their deliveries at a time, the rest is answered at once; 0 means 1000
	AcceptedStatus int              // status of success, 200 to 299; 0 means 202
	Draining       func() bool      // true refuses new messages with 503; nil means never
	Stopping       <-chan struct{}  // closed when a stop begins: who waits for deliveries is answered; nil means never
	Now            func() time.Time // wall clock; nil means time.Now
	Log            *zap.Logger      // nil logs nothing

	// Load counts what requests take now of BodyMemory and MaxWaiting. Handlers that take one another's place share
	// one, so that the requests of both stay within the bounds; nil means one of its own.
	Load *Load

	Metrics *Metrics // nil counts nothing

	// Tracer makes the spans of requests; it is asked for each. nil, and a func that returns nil, mean that there are
	// none: messages then keep the trace context that came with them, else that of their request's span.
	Tracer func() trace.Tracer

	own Load
}

// Load is what the requests of one or more Handlers take now. The zero value is ready.
type Load struct {
	bodies  atomic.Int64 // bytes that bodies take
	waiting atomic.Int64 // requests that wait for their deliveries
}

func (h *Handler) load() *Load {
	if h.Load != nil {
		return h.Load
	}
	return &h.own
}

// Deliveries is the part of store.History that ingest needs.
type Deliveries interface {
	// Delivery returns store.ErrNotFound for an unknown id.
	Delivery(ctx context.Context, id store.DeliveryID) (store.Delivery, error)
}

// ServeHTTP answers one request. It returns after the messages are on disk, or refused.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	problem.Serve(w, r, h.Log, h.measured)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	to, err := parseTarget(r.URL)
	if err != nil {
		return err
	}
	if r.Method != http.MethodPost {
		return problem.New(http.StatusMethodNotAllowed, "method %s is not supported here; use POST", r.Method).Allow(http.MethodPost)
	}
	span := h.beginSpan(r, to)
	err = h.servePosted(w, r, to, span)
	span.refused(err)
	return err
}

// servePosted takes what is posted to one of the places.
func (h *Handler) servePosted(w http.ResponseWriter, r *http.Request, to target, span *acceptSpan) error {
	if h.Draining != nil && h.Draining() {
		return stopping()
	}
	head, err := parseHeader(r.Header)
	if err != nil {
		return err
	}
	head.span, head.trace = span, span.context(head.trace)
	head.caller = h.callerOf(r)
	if err := begin(head.caller); err != nil {
		return err
	}
	switch to.place {
	case batchPath:
		return h.serveBatch(w, r, head)
	case cloudPath:
		return h.serveCloudEvents(w, r, head)
	default:
		return h.servePost(w, r, to, head)
	}
}

// servePost takes a post to a destination or of an event.
func (h *Handler) servePost(w http.ResponseWriter, r *http.Request, to target, head header) error {
	in := incoming{
		post: Post{
			Destination: to.destination, Event: to.event, Key: head.order, Path: to.path, ContentType: head.contentType,
			Caller: head.caller,
		},
		timing: head.timing, hops: head.hops, always: head.trace, header: r.Header,
	}
	// What can be judged before the body is, so that it is not sent for nothing.
	var err error
	if to.place == toPath {
		in.routes, err = h.route(in.post)
	} else {
		err = refuseRoute(in.post, may(in.post, nil))
	}
	if err != nil {
		return err
	}
	if !head.hasKey && (r.ContentLength < 0 || r.ContentLength > freeBody) {
		// So is a full store, but for a post that may have been made before: that one is answered all the same.
		if err := h.Acceptor.Full(); err != nil {
			return refuse(err, idempotencyKey)
		}
	}
	body, release, err := h.readBody(w, r)
	defer release()
	if err != nil {
		return err
	}
	in.post.Body = body
	if to.place == eventsPath {
		if in.routes, err = h.route(in.post); err != nil {
			return err
		}
	}
	if head.hasKey {
		in.idempotency = repeat{
			key: sha256.Sum256([]byte(head.key)), target: to.place + to.destination + to.event, path: to.path,
			contentType: head.contentType, order: head.order, bounded: bounded(head.caller),
		}.fingerprint(body)
	}
	return h.take(w, r, in, taking{wait: head.wait, release: release, key: idempotencyKey, span: head.span})
}

// idempotencyKey is what a single post calls its key.
const idempotencyKey = "Idempotency-Key"

// taking is how a single post is taken.
type taking struct {
	wait    time.Duration // how long the client would wait for the outcome; 0 not at all
	release func()        // gives the memory of the body back; may be called again
	key     string        // what the client calls its idempotency key
	span    *acceptSpan   // of the request
}

// take stores a single post and answers.
func (h *Handler) take(w http.ResponseWriter, r *http.Request, in incoming, how taking) error {
	m, err := h.message(in)
	if err != nil {
		return err
	}
	watch := h.watch(m, how.wait)
	if watch != nil {
		defer watch.end()
	}
	stored, existing, err := h.accept(r.Context(), m, in.post.Body)
	if err != nil {
		return refuse(err, how.key)
	}
	if watch == nil {
		how.span.accepted(stored, len(in.post.Body), existing, h.acceptedStatus())
		h.answer(w, stored, existing)
		return nil
	}
	how.span.accepted(stored, len(in.post.Body), existing, 0)
	// Nobody may hold a body in memory while it waits.
	in.post.Body = nil
	how.release()
	extendDeadline(w, how.wait)
	deliveries, over := watch.outcome(r.Context(), stored, existing)
	preferenceApplied(w.Header(), how.wait)
	h.answerOutcome(w, stored, existing, deliveries, over)
	return nil
}
