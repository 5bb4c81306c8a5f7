package ingest_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

const (
	appTrace  = "0af7651916cd43dd8448eb211c80319c"
	appParent = "00-" + appTrace + "-b7ad6b7169203331-01"
)

// traced starts a handler whose spans are noted.
func traced(t *testing.T, adjust func(*ingest.Handler)) (*bench, *tracetest.SpanRecorder) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	limits := sdktrace.NewSpanLimits()
	limits.LinkCountLimit = -1 // ours is to hold
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans), sdktrace.WithRawSpanLimits(limits)).Tracer("test")
	return start(t, storetest.MemoryOptions{MaxPending: 100}, func(h *ingest.Handler) {
		h.Tracer = func() trace.Tracer { return tracer }
		if adjust != nil {
			adjust(h)
		}
	}), spans
}

// kept returns the headers that the message of an answer keeps.
func (b *bench) kept(t *testing.T, text string) []store.Field {
	t.Helper()
	id, err := store.ParseMessageID(parse(t, text).ID)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := b.store.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return m.Header
}

func describe(s sdktrace.ReadOnlySpan) map[attribute.Key]string {
	m := map[attribute.Key]string{}
	for _, kv := range s.Attributes() {
		m[kv.Key] = kv.Value.String()
	}
	return m
}

func TestSpans(t *testing.T) {
	for _, tc := range []struct {
		name, path, body string
		header           []string
		span             string
		status           codes.Code
		want             map[attribute.Key]string
	}{
		{"a post to a destination", "/to/alerts", "{}", nil, "accept alerts", codes.Unset, map[attribute.Key]string{
			"http.route": "/to/{destination}", "messaging.destination.name": "alerts", "http.response.status_code": "202", "messaging.message.body.size": "2",
		}},
		{"an event", "/events/alert.fired", "{}", nil, "accept", codes.Unset, map[attribute.Key]string{
			"http.route": "/events/{type}", "messaging.destination.name": "alert.fired", "postern.deliveries": "2",
		}},
		{"a CloudEvent", "/cloudevents", `{"specversion":"1.0","id":"1","source":"s","type":"alert.fired"}`,
			[]string{"Content-Type", "application/cloudevents+json"}, "accept", codes.Unset, map[attribute.Key]string{
				"http.route": "/cloudevents", "messaging.destination.name": "alert.fired",
			}},
		{"a post that waits", "/to/alerts", "{}", []string{"Prefer", "wait=1"}, "accept alerts", codes.Unset, map[attribute.Key]string{"http.response.status_code": ""}},
		{"an unknown destination", "/to/nobody", "{}", nil, "accept", codes.Unset, map[attribute.Key]string{"error.type": "404", "http.response.status_code": "404"}},
		{"a wrong header", "/to/alerts", "{}", []string{"Postern-Delay", "never"}, "accept", codes.Unset, map[attribute.Key]string{"error.type": "400"}},
		{"a wrong line", "/batch", "{", nil, "accept", codes.Unset, map[attribute.Key]string{"error.type": "400", "messaging.batch.message_count": ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, spans := traced(t, func(h *ingest.Handler) {
				h.Watch = func(store.MessageID) (<-chan store.Delivery, func()) { return nil, func() {} }
				h.Deliveries = nobody{}
			})
			b.post(t, tc.path, tc.body, tc.header...)
			ended := spans.Ended()
			if len(ended) != 1 {
				t.Fatalf("got %d spans, want 1", len(ended))
			}
			got := describe(ended[0])
			if ended[0].Name() != tc.span || ended[0].Status().Code != tc.status || ended[0].SpanKind() != trace.SpanKindServer {
				t.Errorf("got %q, %v, %v; want %q, %v", ended[0].Name(), ended[0].Status(), ended[0].SpanKind(), tc.span, tc.status)
			}
			for key, want := range tc.want {
				if got[key] != want {
					t.Errorf("got %s %q, want %q", key, got[key], want)
				}
			}
		})
	}
	t.Run("an error of ours is one", func(t *testing.T) {
		b, spans := traced(t, func(h *ingest.Handler) { h.Draining = func() bool { return true } })
		b.post(t, "/to/alerts", "{}")
		if ended := spans.Ended(); len(ended) != 1 || ended[0].Status().Code != codes.Error || describe(ended[0])["http.response.status_code"] != "503" {
			t.Errorf("got %v, want one with status 503 and an error", ended)
		}
	})
	t.Run("what is no post has none", func(t *testing.T) {
		b, spans := traced(t, nil)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/to/alerts", nil)
		if err != nil {
			t.Fatal(err)
		}
		do(t, req)
		b.post(t, "/elsewhere", "{}")
		if n := len(spans.Started()); n != 0 {
			t.Errorf("got %d spans, want none", n)
		}
	})
}

// nobody has no deliveries.
type nobody struct{}

func (nobody) Delivery(context.Context, store.DeliveryID) (store.Delivery, error) {
	return store.Delivery{}, store.ErrNotFound
}

func TestContextOfSpansIsKept(t *testing.T) {
	parent := func(s sdktrace.ReadOnlySpan) string {
		c := s.SpanContext()
		return fmt.Sprintf("00-%s-%s-%s", c.TraceID(), c.SpanID(), c.TraceFlags())
	}
	for _, tc := range []struct {
		name   string
		header []string
		trace  string // of the app, if any
		state  string
	}{
		{"no context begins a trace", nil, "", ""},
		{"the app's context is continued", []string{"Traceparent", appParent, "Tracestate", "a=1, b=2"}, appTrace, "a=1,b=2"},
		{"flags to come do not matter", []string{"Traceparent", appParent[:53] + "fd"}, appTrace, ""},
		{"nor does a version to come", []string{"Traceparent", "cc" + appParent[2:] + "-more"}, appTrace, ""},
		{"a tracestate that means nothing to us is passed on", []string{"Traceparent", appParent, "Tracestate", "A~=x"}, appTrace, "A~=x"},
		{"a wrong context begins a trace", []string{"Traceparent", appParent[:50], "Tracestate", "a=1"}, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, spans := traced(t, nil)
			_, text := b.post(t, "/to/alerts", "{}", tc.header...)
			span := spans.Ended()[0]
			want := []store.Field{{Name: "Traceparent", Value: parent(span)}}
			if tc.state != "" {
				want = append(want, store.Field{Name: "Tracestate", Value: tc.state})
			}
			if got := b.kept(t, text); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the message keeps %v, want %v", got, want)
			}
			if got := span.Parent().TraceID(); tc.trace != "" && got.String() != tc.trace || tc.trace == "" && got.IsValid() {
				t.Errorf("got parent in trace %s, want %q", got, tc.trace)
			}
		})
	}
	t.Run("a request of many is one span with links up to a bound", func(t *testing.T) {
		b, spans := traced(t, func(h *ingest.Handler) {
			h.Router = routes{known: map[string]time.Duration{}, events: map[string][]string{}}
		})
		var body strings.Builder
		for n := range 1000 {
			fmt.Fprintf(&body, `{"event":"x","data":1,"headers":{"traceparent":"00-%032x-b7ad6b7169203331-01"}}`+"\n", n+1)
		}
		if resp, text := b.post(t, "/batch", body.String()); resp.StatusCode != http.StatusAccepted {
			t.Fatalf("got %d %s", resp.StatusCode, text)
		}
		ended := spans.Ended()
		if len(ended) != 1 || len(ended[0].Links()) != 128 || describe(ended[0])["messaging.batch.message_count"] != "1000" {
			t.Errorf("got %d spans, want one with 128 links for 1000 messages", len(ended))
		}
	})
	t.Run("a tracer that is turned off is none", func(t *testing.T) {
		b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.Tracer = func() trace.Tracer { return nil } })
		_, text := b.post(t, "/to/alerts", "{}", "Traceparent", appParent)
		if got := b.kept(t, text); len(got) != 1 || got[0].Value != appParent {
			t.Errorf("the message keeps %v, want the app's context", got)
		}
	})
}
