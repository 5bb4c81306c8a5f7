package relay

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/sdk"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
)

// tracesPath is what a base URL is followed by (OpenTelemetry Protocol Exporter, "Endpoint URLs for OTLP/HTTP").
const tracesPath = "/v1/traces"

// tracing says where traces go, and how many. Two of them are compared by reflect.DeepEqual.
type tracing struct {
	endpoint  *url.URL // with tracesPath; nil for no traces
	header    http.Header
	ratio     float64 // of the traces that begin here
	userAgent string
	collector guard.CollectorOptions
}

// tracing turns the section of that name into options.
func (c *compiler) tracing() tracing {
	cfg := c.cfg.Tracing
	out := tracing{
		ratio: cfg.SampleRatio, header: http.Header{}, userAgent: c.cfg.Egress.UserAgent,
		collector: guard.CollectorOptions{Deny: c.cfg.Egress.DenyNetworks, Resolve: lowerKeys(c.cfg.Egress.Resolve)},
	}
	for _, name := range sortedKeys(cfg.Headers) {
		value := cfg.Headers[name].Reveal()
		err := egress.CheckHeader(name, value)
		if http.CanonicalHeaderKey(name) == "Content-Type" {
			err = errors.New("Content-Type is not allowed; it is that of the protocol")
		}
		if c.fault("tracing.headers."+name, err) {
			out.header.Set(name, value)
		}
	}
	switch {
	case cfg.OTLPEndpoint != "":
		base, err := guard.ParseCollectorURL(cfg.OTLPEndpoint)
		if err == nil && strings.HasSuffix(base.Path, tracesPath) {
			err = errors.New(tracesPath + " is appended to it; remove it")
		}
		if c.fault("tracing.otlp_endpoint", err) {
			out.endpoint = base.JoinPath(tracesPath)
		}
	case len(cfg.Headers) > 0:
		c.fault("tracing.headers", errors.New("there is no otlp_endpoint that they are for; set one, or remove them"))
	}
	return out
}

// traces makes the spans of a relay and exports them by the options in force, which change with a reload. Spans of the
// relay's parts come by tracer. Its methods may be called from several goroutines.
//
// Nothing of it is global, and of the environment only OTEL_RESOURCE_ATTRIBUTES counts, by which orchestrators say where
// a process runs: it can add to what is said here, and replace none of it.
type traces struct {
	Log     *zap.Logger
	Version string // of Postern

	current atomic.Pointer[pipeline] // nil while there are no traces

	mu   sync.Mutex // guards the fields below
	part *part      // that exports are of; nil before a run, and as soon as its end has begun
}

// pipeline is what becomes of spans by one set of options.
type pipeline struct {
	options tracing
	tracer  trace.Tracer
	export  *exporter
}

// tracer returns what makes spans now, or nil if there are to be none.
func (t *traces) tracer() trace.Tracer {
	if p := t.current.Load(); p != nil {
		return p.tracer
	}
	return nil
}

// begin lets spans be exported by a part. Nothing is until use.
func (t *traces) begin(p *part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part = p
}

// use puts options in force. What has not been exported by earlier ones goes where they said, if that is quick.
func (t *traces) use(o tracing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.current.Load()
	switch {
	case t.part == nil, before == nil && o.endpoint == nil, before != nil && reflect.DeepEqual(before.options, o):
		return
	case o.endpoint == nil:
		t.current.Store(nil)
	default:
		p := t.pipeline(o)
		ctx := t.part.ctx
		t.part.group.Go(func() error { return p.export.Run(ctx) })
		t.current.Store(p)
	}
	if before != nil {
		before.export.Retire()
	}
}

// end has what there is exported, and no more begun.
func (t *traces) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part = nil
	if p := t.current.Load(); p != nil {
		p.export.Retire()
	}
}

func (t *traces) pipeline(o tracing) *pipeline {
	about := resource.NewWithAttributes(semconv.SchemaURL,
		semconv.ServiceName("postern"), semconv.ServiceVersion(t.Version), semconv.TelemetrySDKName("opentelemetry"),
		semconv.TelemetrySDKLanguageGo, semconv.TelemetrySDKVersion(sdk.Version()),
	)
	// All that the SDK would otherwise take from the environment is said here.
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(about), sdktrace.WithIDGenerator(egress.SpanIDs{}), sdktrace.WithSpanProcessor(spanSink{t}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.ratio))),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
			AttributeValueLengthLimit: 1024, AttributeCountLimit: 64, EventCountLimit: 16, LinkCountLimit: 128,
			AttributePerEventCountLimit: 8, AttributePerLinkCountLimit: 8,
		}),
	)
	return &pipeline{
		options: o,
		tracer:  provider.Tracer("github.com/postern-relay/postern", trace.WithInstrumentationVersion(t.Version)),
		export:  newExporter(o, t.Log),
	}
}

// spanSink hands spans that have ended to the exporter of the day: one that began before a reload goes where those after
// it go.
type spanSink struct{ *traces }

var _ sdktrace.SpanProcessor = spanSink{}

// OnStart implements sdktrace.SpanProcessor.
func (spanSink) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor. It never blocks.
func (s spanSink) OnEnd(span sdktrace.ReadOnlySpan) {
	if p := s.current.Load(); p != nil && span.SpanContext().IsSampled() {
		p.export.Add(span)
	}
}

// Shutdown implements sdktrace.SpanProcessor. What ends a relay ends its exporters.
func (spanSink) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (spanSink) ForceFlush(context.Context) error { return nil }
