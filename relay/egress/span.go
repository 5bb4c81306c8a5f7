package egress

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/postern-relay/postern/store"
)

// The headers of a trace (W3C Trace Context, sections 3.2 and 3.3).
const (
	traceParent = "Traceparent"
	traceState  = "Tracestate"
)

// attemptSpan is the span of one attempt. A nil one does nothing.
type attemptSpan struct {
	span oteltrace.Span
	j    job
}

// beginSpan starts the span of an attempt, and has its request carry the span's context. It returns nil if there is to
// be none. The parent is what the message keeps for its trace context; with none, the trace is the message's own. An
// attempt after another one is linked with it.
func (s *Sender) beginSpan(ctx context.Context, j *job, a *store.Attempt, begin time.Time) (context.Context, *attemptSpan) {
	if s.opt.Tracer == nil {
		return ctx, nil
	}
	tracer := s.opt.Tracer()
	if tracer == nil {
		return ctx, nil
	}
	parent := oteltrace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.WithoutCancel(ctx), keptHeader(j.m.Header)))
	next := ids{trace: parent.TraceID(), span: spanID(j.d.ID, a.StartedAt)}
	flags := parent.TraceFlags()
	if parent.IsValid() {
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, parent)
	} else {
		next.trace, flags = traceID(j.m.ID), oteltrace.FlagsSampled
	}
	options := []oteltrace.SpanStartOption{oteltrace.WithSpanKind(oteltrace.SpanKindClient), oteltrace.WithTimestamp(begin)}
	if last := j.d.Last.At; !last.IsZero() {
		options = append(options, oteltrace.WithLinks(oteltrace.Link{SpanContext: oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
			TraceID: next.trace, SpanID: spanID(j.d.ID, last), TraceFlags: flags, TraceState: parent.TraceState(), Remote: true,
		})}))
	}
	ctx, span := tracer.Start(context.WithValue(ctx, idsKey{}, next), "attempt "+j.d.Destination, options...)
	j.m.Header = withContext(j.m.Header, span.SpanContext(), parent.IsValid())
	return ctx, &attemptSpan{span: span, j: *j}
}

// withContext returns the headers of a message with the context of a span in place of their own. The tracestate goes on
// with the trace that it belongs to.
func withContext(header []store.Field, c oteltrace.SpanContext, sameTrace bool) []store.Field {
	out := make([]store.Field, 0, len(header)+1)
	out = append(out, store.Field{
		Name: traceParent, Value: "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String(),
	})
	for _, f := range header {
		if name := http.CanonicalHeaderKey(f.Name); name != traceParent && (name != traceState || sameTrace) {
			out = append(out, f)
		}
	}
	return out
}

// end ends the span with the outcome of the attempt. Nothing of a URL but its host, and nothing of headers and bodies, is
// in it.
func (t *attemptSpan) end(host string, a *store.Attempt) {
	if t == nil {
		return
	}
	defer t.span.End()
	if !t.span.IsRecording() {
		return
	}
	d := t.j.d
	attributes := make([]attribute.KeyValue, 0, 24)
	attributes = append(attributes,
		semconv.MessagingSystemKey.String("postern"), semconv.MessagingOperationName("attempt"),
		semconv.MessagingMessageID(t.j.m.ID.String()), semconv.MessagingDestinationName(d.Destination),
		attribute.String("postern.destination", d.Destination), attribute.String("postern.delivery_id", d.ID.String()),
		attribute.Int("postern.round", a.Round), attribute.Int("postern.attempt", a.Number),
		attribute.String("postern.class", a.Class.String()),
		semconv.ServerAddress(host), semconv.ServerPort(443),
	)
	if d.Event != "" {
		attributes = append(attributes, attribute.String("postern.event", d.Event))
	}
	if a.Request.Method != "" {
		attributes = append(attributes, semconv.HTTPRequestMethodKey.String(a.Request.Method))
	}
	if a.Number > 1 {
		attributes = append(attributes, semconv.HTTPRequestResendCount(a.Number-1))
	}
	if a.Status != 0 {
		attributes = append(attributes, semconv.HTTPResponseStatusCode(a.Status))
	}
	if peer, err := netip.ParseAddrPort(a.Peer); err == nil {
		attributes = append(attributes, semconv.NetworkPeerAddress(peer.Addr().String()), semconv.NetworkPeerPort(int(peer.Port())))
	}
	attributes = appendTiming(attributes, a.Timing)
	switch a.Class {
	case store.ClassOK:
	case store.ClassInterrupted: // by our own stop, which says nothing of the receiver
		attributes = append(attributes, semconv.ErrorTypeKey.String(a.Class.String()))
	default:
		kind := a.Class.String()
		if a.Class == store.ClassStatus {
			kind = strconv.Itoa(a.Status)
		}
		attributes = append(attributes, semconv.ErrorTypeKey.String(kind))
		t.span.SetStatus(codes.Error, a.Gist())
	}
	t.span.SetAttributes(attributes...)
}

// spanEvent notes a moment of an attempt in its span, if it has one.
func spanEvent(ctx context.Context, name string) {
	if span := oteltrace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent(name)
	}
}

// appendTiming adds the phases that took place.
func appendTiming(to []attribute.KeyValue, t store.Timing) []attribute.KeyValue {
	for _, phase := range [...]struct {
		key  attribute.Key
		took time.Duration
	}{
		{"postern.dns_seconds", t.DNS}, {"postern.connect_seconds", t.Connect}, {"postern.tls_seconds", t.TLS},
		{"postern.first_byte_seconds", t.FirstByte},
	} {
		if phase.took > 0 {
			to = append(to, phase.key.Float64(phase.took.Seconds()))
		}
	}
	return to
}

// keptHeader is the headers of a message, to be read by a propagator.
type keptHeader []store.Field

var _ propagation.TextMapCarrier = keptHeader(nil)

// Get implements propagation.TextMapCarrier.
func (k keptHeader) Get(name string) string {
	name = http.CanonicalHeaderKey(name)
	for _, f := range k {
		if f.Name == name {
			if name == traceParent {
				return knownFlags(f.Value)
			}
			return f.Value
		}
	}
	return ""
}

// knownFlags returns a traceparent of version 00 with no flags but those that mean something in it. The propagator takes
// one with others for invalid; its trace would end here.
func knownFlags(parent string) string {
	const flags = len("00-") + 32 + len("-") + 16 + len("-")
	if len(parent) != flags+2 || parent[:2] != "00" {
		return parent
	}
	n, err := strconv.ParseUint(parent[flags:], 16, 8)
	if err != nil {
		return parent
	}
	return parent[:flags] + (oteltrace.TraceFlags(n) & (oteltrace.FlagsSampled | oteltrace.FlagsRandom)).String()
}

// Set implements propagation.TextMapCarrier. Nothing is written.
func (keptHeader) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (k keptHeader) Keys() []string {
	names := make([]string, len(k))
	for i, f := range k {
		names[i] = f.Name
	}
	return names
}

// SpanIDs makes the ids of spans, for the tracer provider of Options.Tracer: it implements the IDGenerator of the
// OpenTelemetry SDK. The id of an attempt's span follows from the delivery and the time when the attempt began, both of
// which are on record. So the next attempt knows the one before it, also in another round or after a restart. All other
// ids are random. The zero value is ready; it may be used from several goroutines.
type SpanIDs struct{}

// ids are those of the next span.
type ids struct {
	trace oteltrace.TraceID
	span  oteltrace.SpanID
}

type idsKey struct{}

// NewIDs returns the ids of a span that begins a trace.
func (g SpanIDs) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	if next, ok := ctx.Value(idsKey{}).(ids); ok {
		return next.trace, next.span
	}
	var t oteltrace.TraceID
	_, _ = rand.Read(t[:]) // never fails
	return t, g.NewSpanID(ctx, t)
}

// NewSpanID returns the id of a span within a trace.
func (SpanIDs) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	if next, ok := ctx.Value(idsKey{}).(ids); ok {
		return next.span
	}
	var s oteltrace.SpanID
	for !s.IsValid() {
		_, _ = rand.Read(s[:])
	}
	return s
}

// spanID is the id of the span of the attempt of a delivery that began at a time, of which the millisecond counts: that
// is what the store keeps.
func spanID(id store.DeliveryID, at time.Time) oteltrace.SpanID {
	var in [len(id) + 8]byte
	copy(in[:], id[:])
	binary.BigEndian.PutUint64(in[len(id):], uint64(at.UnixMilli()))
	sum := sha256.Sum256(in[:])
	s := oteltrace.SpanID(sum[:8])
	if !s.IsValid() {
		s[0] = 1
	}
	return s
}

// traceID is the trace of the attempts of a message that came without one, or before there were traces.
func traceID(id store.MessageID) oteltrace.TraceID {
	sum := sha256.Sum256(id[:])
	return oteltrace.TraceID(sum[:16])
}
