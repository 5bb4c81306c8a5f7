package ingest

import (
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/postern-relay/postern/relay/problem"
)

// The media types of CloudEvents in JSON (JSON format, section 1.3; HTTP binding, section 3).
const (
	cloudType      = "application/cloudevents"
	cloudJSONType  = "application/cloudevents+json"
	cloudBatchType = "application/cloudevents-batch+json"
)

// cloudKey is what a CloudEvent has for an idempotency key.
const cloudKey = "source and id"

// serveCloudEvents takes POST /cloudevents in the three content modes of the HTTP binding, told apart by the content
// type (section 3).
func (h *Handler) serveCloudEvents(w http.ResponseWriter, r *http.Request, head header) error {
	if head.hasKey {
		return problem.New(http.StatusBadRequest, "Idempotency-Key is not for CloudEvents, which have their source and id; remove it")
	}
	media, params, err := mime.ParseMediaType(head.contentType)
	if err != nil {
		media = strings.ToLower(head.contentType)
	}
	if !strings.HasPrefix(media, cloudType) {
		return h.serveBinary(w, r, head)
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return problem.New(http.StatusUnsupportedMediaType, "charset %.40q is not supported; send UTF-8", charset)
	}
	switch media {
	case cloudJSONType:
		return h.serveStructured(w, r, head)
	case cloudBatchType:
		return h.serveCloudBatch(w, r, head)
	default:
		return problem.New(http.StatusUnsupportedMediaType, "the event format %.60q is not supported; use %s, %s or binary mode",
			media, cloudJSONType, cloudBatchType)
	}
}

// serveBinary takes one event whose attributes are headers and whose data is the body (HTTP binding, section 3.1).
func (h *Handler) serveBinary(w http.ResponseWriter, r *http.Request, head header) error {
	event, err := parseBinary(r.Header)
	if err != nil {
		return problem.New(http.StatusBadRequest, "%v", err)
	}
	return h.serveCloudEvent(w, r, head, func([]byte) (cloudEvent, error) {
		event.contentType = head.contentType
		return event, nil
	})
}

// serveStructured takes one event that the body holds whole (HTTP binding, section 3.2).
func (h *Handler) serveStructured(w http.ResponseWriter, r *http.Request, head header) error {
	return h.serveCloudEvent(w, r, head, func(body []byte) (cloudEvent, error) {
		event, err := parseStructured(body)
		event.contentType = head.contentType
		return event, err
	})
}

func (h *Handler) serveCloudEvent(w http.ResponseWriter, r *http.Request, head header, parse func(body []byte) (cloudEvent, error)) error {
	body, release, err := h.readBody(w, r)
	defer release()
	if err != nil {
		return err
	}
	event, err := parse(body)
	if err != nil {
		return problem.New(http.StatusBadRequest, "%v", err)
	}
	in := event.incoming(head, body)
	in.header = r.Header
	if in.routes, err = h.route(in.post); err != nil {
		return err
	}
	return h.take(w, r, in, taking{wait: head.wait, release: release, key: cloudKey, span: head.span})
}

// incoming turns an event into a post with a body.
func (e cloudEvent) incoming(head header, body []byte) incoming {
	return incoming{
		post:   Post{Event: e.kind, Key: head.order, ContentType: e.contentType, Body: body, Caller: head.caller},
		timing: head.timing, hops: head.hops, always: slices.Concat(head.trace, e.fields),
		idempotency: repeat{
			key: e.digest(), target: cloudPath + "/" + e.kind, contentType: e.format(), order: head.order,
			bounded: bounded(head.caller),
		}.fingerprint(body),
	}
}
