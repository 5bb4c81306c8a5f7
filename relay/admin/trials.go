package admin

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// Trials makes requests by the path of every attempt, for messages that are in no store, and shows requests without
// making them. Its methods are called from several goroutines. The only recipient of the message, or the delivery, says
// the destination. One that is unknown is an *UnknownError, and a request that cannot be built a *RenderError.
type Trials interface {
	// Test makes one request. next is the state of a delivery after it, if it were its first attempt.
	Test(ctx context.Context, m store.Message, body []byte) (a store.Attempt, next store.State, err error)

	// Render returns the request that Test would make now.
	Render(ctx context.Context, m store.Message, body []byte) (Rendering, error)

	// RenderDelivery returns the request that an attempt of a stored delivery would make now.
	RenderDelivery(ctx context.Context, d store.Delivery) (Rendering, error)
}

// Rendering is a request that was not sent.
type Rendering struct {
	Request  store.Sent // its secrets masked; its body is whole, whoever made it
	Bases    []SignedBase
	Curl     string // a command line without secrets but the signatures
	BodyFile string // where Curl looks for the body; empty if it holds the body itself
}

// SignedBase is what a signer signs.
type SignedBase struct {
	Signer string // its key in the config
	Base   []byte // empty if it cannot be shown without secrets
}

// RenderError says why a request cannot be built, for a person.
type RenderError struct{ Err error }

func (e *RenderError) Error() string { return e.Err.Error() }

func (e *RenderError) Unwrap() error { return e.Err }

// The message that a Sample without any field stands for.
const (
	sampleEvent = "postern.test"
	sampleBody  = `{"test": true, "message": "This is a test of Postern."}`
)

// renderRequest is the body of a request to render: the id of a delivery, or a sample.
type renderRequest struct {
	// DeliveryID of a stored delivery to the destination; a sample is rendered without it.
	DeliveryID string `json:"delivery_id,omitempty"`
	// Event type of the sample.
	Event string `json:"event,omitempty" jsonschema:"maxLength=255"`
	// ContentType of the body; application/json if absent.
	ContentType string `json:"content_type,omitempty" jsonschema:"maxLength=255"`
	// Body as text.
	Body string `json:"body,omitempty"`
	// BodyBase64 is the body in base64, instead of Body.
	BodyBase64 []byte `json:"body_base64,omitempty"`
	// Headers as if the app had sent them.
	Headers map[string]string `json:"headers,omitempty" jsonschema:"maxProperties=50"`
}

// sample returns the part of the request that is one.
func (r renderRequest) sample() Sample {
	return Sample{Event: r.Event, ContentType: r.ContentType, Body: r.Body, BodyBase64: r.BodyBase64, Headers: r.Headers}
}

func (r renderRequest) isSample() bool {
	s := r.sample()
	return s.Event != "" || s.ContentType != "" || s.Body != "" || len(s.BodyBase64) > 0 || len(s.Headers) > 0
}

func (h *Handler) test(ctx context.Context, in input[none, Sample]) (Exchange, error) {
	m, body, err := h.message(in.Segment, in.Body)
	if err != nil {
		return Exchange{}, err
	}
	a, next, err := h.Trials.Test(ctx, m, body)
	if err != nil {
		return Exchange{}, trialRefused(err)
	}
	out := Exchange{Attempt: newAttempt(a), Would: "retried"}
	if next.Ended() {
		out.Would = next.String()
	}
	if out.Attempt.Request != nil {
		whole := newRequest(a.Request, body)
		out.Request = &whole
	}
	return out, nil
}

func (h *Handler) render(ctx context.Context, in input[none, renderRequest]) (Render, error) {
	var (
		made Rendering
		err  error
	)
	if in.Body.DeliveryID != "" {
		if in.Body.isSample() {
			return Render{}, problem.New(http.StatusBadRequest, "there is both a delivery_id and a sample; send one of them")
		}
		made, err = h.renderStored(ctx, in.Segment, in.Body.DeliveryID)
	} else {
		m, body, faulty := h.message(in.Segment, in.Body.sample())
		if faulty != nil {
			return Render{}, faulty
		}
		made, err = h.Trials.Render(ctx, m, body)
	}
	if err != nil {
		return Render{}, trialRefused(err)
	}
	out := Render{
		Request: newRequest(made.Request, nil), SignatureBases: make([]SignatureBase, len(made.Bases)), Curl: made.Curl, BodyFile: made.BodyFile,
	}
	for i, b := range made.Bases {
		out.SignatureBases[i].Signer = b.Signer
		if utf8.Valid(b.Base) {
			out.SignatureBases[i].Base = string(b.Base)
		} else {
			out.SignatureBases[i].BaseBase64 = b.Base
		}
	}
	return out, nil
}

// renderStored renders a stored delivery to a destination.
func (h *Handler) renderStored(ctx context.Context, destination, text string) (Rendering, error) {
	id, err := deliveryID(text)
	if err != nil {
		return Rendering{}, err
	}
	d, err := h.Records.Delivery(ctx, id)
	if err != nil {
		return Rendering{}, err
	}
	if d.Destination != destination {
		return Rendering{}, problem.New(http.StatusBadRequest, "the delivery goes to %q; ask for it there", d.Destination)
	}
	m, _, err := h.Records.Load(ctx, id.Message())
	if err != nil {
		return Rendering{}, err
	}
	if err := sendable(m); err != nil {
		return Rendering{}, err
	}
	return h.Trials.RenderDelivery(ctx, d)
}

// message makes the message that a sample stands for.
func (h *Handler) message(destination string, s Sample) (store.Message, []byte, error) {
	id, err := store.NewMessageID()
	if err != nil {
		return store.Message{}, nil, err
	}
	const longest = 255
	body := []byte(s.Body)
	switch {
	case len(s.Body) > 0 && len(s.BodyBase64) > 0:
		return store.Message{}, nil, problem.New(http.StatusBadRequest, "there is both a body and a body_base64; send one of them")
	case len(s.Event) > longest || len(s.ContentType) > longest:
		return store.Message{}, nil, problem.New(http.StatusBadRequest, "event and content_type have at most %d bytes", longest)
	case s.Event != "" && match.CheckEvent(s.Event) != nil:
		return store.Message{}, nil, problem.New(http.StatusBadRequest, "the event is wrong: %v", match.CheckEvent(s.Event))
	case !httpguts.ValidHeaderFieldValue(s.ContentType):
		return store.Message{}, nil, problem.New(http.StatusBadRequest, "the content_type is no valid value of a header")
	case len(s.Headers) > 50:
		return store.Message{}, nil, problem.New(http.StatusBadRequest, "there are %d headers; at most 50 are allowed", len(s.Headers))
	case len(s.BodyBase64) > 0:
		body = s.BodyBase64
	case len(s.Body) == 0:
		body = []byte(sampleBody)
	}
	m := store.Message{
		ID: id, Event: s.Event, ContentType: s.ContentType, AcceptedAt: instant(h.now()), Size: len(body),
		Recipients: []store.Recipient{{Destination: destination}},
	}
	if m.Event == "" {
		m.Event = sampleEvent
	}
	if m.ContentType == "" {
		m.ContentType = jsonType
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(s.Headers[name]) {
			return store.Message{}, nil, problem.New(http.StatusBadRequest, "the header %.100q is no valid header field", name)
		}
		m.Header = append(m.Header, store.Field{Name: http.CanonicalHeaderKey(name), Value: s.Headers[name]})
	}
	return m, body, nil
}

func trialRefused(err error) error {
	if fault, ok := errors.AsType[*RenderError](err); ok {
		return problem.New(http.StatusUnprocessableEntity, "the request cannot be built: %v", fault)
	}
	return refused(err)
}
