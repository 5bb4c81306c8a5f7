package ingest

import (
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// maxLinks bounds the other traces that the span of a request is linked with: a batch may bring thousands.
const maxLinks = 128

// acceptSpan is the span of one request that brings messages, from its headers until they are on disk, or refused. It
// is one span however many they are. A nil one does nothing. It belongs to the goroutine that serves the request.
//
// Its context is what the messages keep for their trace context, so that their attempts continue the trace, also after
// a restart.
type acceptSpan struct {
	span  trace.Span
	to    target
	kept  []store.Field // its context
	links int
}

// beginSpan starts the span of a post. It returns nil if there is to be none.
func (h *Handler) beginSpan(r *http.Request, to target) *acceptSpan {
	if h.Tracer == nil {
		return nil
	}
	tracer := h.Tracer()
	if tracer == nil {
		return nil
	}
	ctx, came := r.Context(), traceContext(r.Header)
	if parent := spanContext(came); parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	_, span := tracer.Start(ctx, "accept", trace.WithSpanKind(trace.SpanKindServer))
	s := &acceptSpan{span: span, to: to, kept: []store.Field{{Name: traceParent, Value: formatTraceParent(span.SpanContext())}}}
	if len(came) > 1 {
		s.kept = append(s.kept, came[1]) // tracestate, which is for all to pass on
	}
	return s
}

// context returns the trace context that messages of the request keep, which came with their own of the app's.
func (s *acceptSpan) context(own []store.Field) []store.Field {
	if s == nil {
		return own
	}
	return s.kept
}

// contextOfPart is context for a part of the request that brings a trace context of its own: that one it keeps.
func (s *acceptSpan) contextOfPart(own []store.Field) []store.Field {
	if s == nil {
		return own
	}
	if len(own) == 0 {
		return s.kept
	}
	s.link(own)
	return own
}

func (s *acceptSpan) link(kept []store.Field) {
	if s.links == maxLinks || !s.span.IsRecording() {
		return
	}
	if other := spanContext(kept); other.IsValid() {
		s.links++
		s.span.AddLink(trace.Link{SpanContext: other})
	}
}

// accepted ends the span of a single message. status is that of the answer, 0 if it is not known yet.
func (s *acceptSpan) accepted(m store.Message, size int, existing bool, status int) {
	if s == nil {
		return
	}
	defer s.span.End()
	if !s.span.IsRecording() {
		return
	}
	s.describe(status)
	s.span.SetAttributes(
		semconv.MessagingMessageID(m.ID.String()), semconv.MessagingMessageBodySize(size),
		attribute.Int("postern.deliveries", len(m.Recipients)),
	)
	topic := s.to.destination
	if topic == "" {
		topic = m.Event
	}
	s.span.SetAttributes(semconv.MessagingDestinationName(topic))
	if s.to.destination != "" {
		s.span.SetName("accept " + s.to.destination) // one of the config's by now
	}
	if existing {
		s.span.SetAttributes(attribute.Bool("postern.replayed", true))
		s.link(m.Header)
	}
}

// acceptedAll ends the span of a request that brought several messages.
func (s *acceptSpan) acceptedAll(all []store.Accepted, status int) {
	if s == nil {
		return
	}
	defer s.span.End()
	if !s.span.IsRecording() {
		return
	}
	deliveries := 0
	for _, a := range all {
		deliveries += len(a.Message.Recipients)
	}
	s.describe(status)
	s.span.SetAttributes(semconv.MessagingBatchMessageCount(len(all)), attribute.Int("postern.deliveries", deliveries))
}

// refused ends the span of a request that brought nothing. Without an error it has been ended already.
func (s *acceptSpan) refused(err error) {
	if s == nil || err == nil {
		return
	}
	defer s.span.End()
	status := http.StatusInternalServerError
	if answer, ok := errors.AsType[*problem.Error](err); ok {
		status = answer.Status
	}
	s.describe(status)
	s.span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(status)))
	if status >= http.StatusInternalServerError { // what the client did wrong is no error of ours
		s.span.SetStatus(codes.Error, "")
	}
}

// describe sets what all requests have in common.
func (s *acceptSpan) describe(status int) {
	route := s.to.place
	switch route {
	case toPath:
		route += "{destination}"
	case eventsPath:
		route += "{type}"
	}
	s.span.SetAttributes(
		semconv.MessagingSystemKey.String("postern"), semconv.MessagingOperationName("accept"), semconv.MessagingOperationTypeSend,
		semconv.HTTPRequestMethodPost, semconv.HTTPRoute(route),
	)
	if status != 0 {
		s.span.SetAttributes(semconv.HTTPResponseStatusCode(status))
	}
}

// spanContext reads what traceContext has returned. It is not valid for nothing.
func spanContext(fields []store.Field) trace.SpanContext {
	var c trace.SpanContextConfig
	for _, f := range fields {
		switch f.Name {
		case traceParent:
			if !validTraceParent(f.Value) {
				return trace.SpanContext{}
			}
			// The other flags may mean something by the time that they come.
			var flags [1]byte
			_, _ = hex.Decode(c.TraceID[:], []byte(f.Value[3:35]))
			_, _ = hex.Decode(c.SpanID[:], []byte(f.Value[36:52]))
			_, _ = hex.Decode(flags[:], []byte(f.Value[53:55]))
			c.TraceFlags = trace.TraceFlags(flags[0]) & (trace.FlagsSampled | trace.FlagsRandom)
		case traceState:
			c.TraceState, _ = trace.ParseTraceState(f.Value) // one that it cannot read is passed on all the same
		}
	}
	c.Remote = true
	return trace.NewSpanContext(c)
}

// formatTraceParent writes a traceparent of version 00 (W3C Trace Context, section 3.2).
func formatTraceParent(c trace.SpanContext) string {
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String()
}
