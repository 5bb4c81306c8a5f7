package egress_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

const (
	storedTrace  = "0af7651916cd43dd8448eb211c80319c"
	storedParent = "b7ad6b7169203331"
)

// noting is a far end in memory, and a signer: it notes what it is given.
type noting struct {
	status  int
	body    string
	err     error
	sent    []http.Header
	signed  []http.Header
	message store.Message
	wait    bool // for the end of the context
}

func (n *noting) RoundTrip(r *http.Request) (*http.Response, error) {
	n.sent = append(n.sent, r.Header.Clone())
	if n.wait {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if n.err != nil {
		return nil, n.err
	}
	return &http.Response{StatusCode: n.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(n.body)), Request: r}, nil
}

func (n *noting) Sign(in sign.Input) ([]sign.Header, error) {
	n.signed = append(n.signed, in.Header.Clone())
	return []sign.Header{{Name: "X-Sig", Value: "s"}}, nil
}

func (*noting) Headers() []sign.Header { return []sign.Header{{Name: "X-Sig"}} }

func (n *noting) Load(_ context.Context, id store.MessageID) (store.Message, []byte, error) {
	m := n.message
	m.ID = id
	return m, []byte("{}"), nil
}

// tracedSender makes a Sender over n whose spans are noted.
func tracedSender(t *testing.T, n *noting, change func(*egress.Options)) (*egress.Sender, *tracetest.SpanRecorder) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans), sdktrace.WithIDGenerator(egress.SpanIDs{})).Tracer("test")
	o := egress.Options{
		URL: parseURL(t, "https://"+farHost+"/hook?key=canary"), Transport: n, Messages: n, Signers: []sign.Signer{n},
		Tracer: func() oteltrace.Tracer { return tracer },
	}
	if change != nil {
		change(&o)
	}
	s, err := egress.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s, spans
}

func traceHeader(flags string) []store.Field {
	return []store.Field{
		{Name: "Traceparent", Value: "00-" + storedTrace + "-" + storedParent + "-" + flags}, {Name: "Tracestate", Value: "vendor=1"},
	}
}

func parentOf(c oteltrace.SpanContext) string {
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String()
}

func TestSpanOfAnAttempt(t *testing.T) {
	t.Run("its context is signed and sent in place of the message's", func(t *testing.T) {
		n := &noting{status: 200, message: store.Message{Header: traceHeader("01")}}
		s, spans := tracedSender(t, n, func(o *egress.Options) { o.Body = `{{ json (.Header "traceparent") }}` })
		check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
		span := spans.Ended()[0]
		want := parentOf(span.SpanContext())
		signed := n.signed[len(n.signed)-1].Get("Traceparent") // New has tried a sample
		if got := n.sent[0].Get("Traceparent"); got != want || signed != want {
			t.Errorf("got %s sent and %s signed, want %s", got, signed, want)
		}
		if got := n.sent[0].Get("Tracestate"); got != "vendor=1" {
			t.Errorf("got tracestate %q, want that of the message", got)
		}
		if p := span.Parent(); p.TraceID().String() != storedTrace || p.SpanID().String() != storedParent || !p.IsRemote() {
			t.Errorf("got parent %v, want the message's", p)
		}
	})
	t.Run("a header of the config goes before it", func(t *testing.T) {
		n := &noting{status: 200, message: store.Message{Header: traceHeader("01")}}
		s, _ := tracedSender(t, n, func(o *egress.Options) {
			o.Header = []egress.Header{{Name: "traceparent", Value: "own"}}
		})
		s.Send(t.Context(), newDelivery(t))
		if got := n.sent[0]["Traceparent"]; len(got) != 1 || got[0] != "own" {
			t.Errorf("got %q, want the config's", got)
		}
	})
	t.Run("an unsampled trace stays one", func(t *testing.T) {
		n := &noting{status: 200, message: store.Message{Header: traceHeader("00")}}
		s, spans := tracedSender(t, n, nil)
		s.Send(t.Context(), newDelivery(t))
		if got := n.sent[0].Get("Traceparent"); !strings.HasPrefix(got, "00-"+storedTrace) || !strings.HasSuffix(got, "-00") || len(spans.Ended()) > 0 {
			t.Errorf("got %s and %d spans, want the trace with flags 00, and none", got, len(spans.Ended()))
		}
	})
	t.Run("flags that nobody knows yet end no trace", func(t *testing.T) {
		n := &noting{status: 200, message: store.Message{Header: traceHeader("fd")}}
		s, spans := tracedSender(t, n, nil)
		s.Send(t.Context(), newDelivery(t))
		if got := n.sent[0].Get("Traceparent"); len(spans.Ended()) != 1 || spans.Ended()[0].Parent().SpanID().String() != storedParent ||
			!strings.HasPrefix(got, "00-"+storedTrace) || !strings.HasSuffix(got, "-01") {
			t.Errorf("got %s and %d spans, want one below the message's, with flags 01", got, len(spans.Ended()))
		}
	})
	t.Run("a wrong context of the message begins a trace without its state", func(t *testing.T) {
		n := &noting{status: 200, message: store.Message{Header: traceHeader("zz")}}
		s, spans := tracedSender(t, n, nil)
		d := newDelivery(t)
		s.Send(t.Context(), d)
		s.Send(t.Context(), d)
		one, two := spans.Ended()[0], spans.Ended()[1]
		if one.Parent().IsValid() || one.SpanContext().TraceID() != two.SpanContext().TraceID() {
			t.Errorf("got %v below %v, then %v; want one trace for the message", one.SpanContext(), one.Parent(), two.SpanContext())
		}
		if got := n.sent[0]["Tracestate"]; got != nil {
			t.Errorf("got tracestate %q, want none", got)
		}
	})
	t.Run("a test send has one", func(t *testing.T) {
		n := &noting{status: 200}
		s, spans := tracedSender(t, n, nil)
		id, err := store.NewMessageID()
		if err != nil {
			t.Fatal(err)
		}
		s.Test(t.Context(), store.Message{ID: id, Recipients: []store.Recipient{{Destination: "far"}}}, nil)
		if ended := spans.Ended(); len(ended) != 1 || len(ended[0].Links()) != 0 || n.sent[0].Get("Traceparent") != parentOf(ended[0].SpanContext()) {
			t.Errorf("got %d spans and %v sent, want one without links", len(ended), n.sent[0])
		}
	})
}

func TestLinksOfAttempts(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	n := &noting{status: 500, message: store.Message{Header: traceHeader("01")}}
	s, spans := tracedSender(t, n, func(o *egress.Options) { o.Now = func() time.Time { return now } })
	d := newDelivery(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, step := range []struct {
		name   string
		change func()
	}{
		{"the first", func() {}},
		{"a retry", func() { d.Made, d.Attempts = d.Made+1, d.Attempts+1 }},
		{"one after an interrupted one, which used up none", func() { d.Made++ }},
		{"the first of a replay, whose counts begin anew", func() { d.Round, d.Made, d.Attempts = 2, 0, 0 }},
	} {
		step.change()
		now = now.Add(1234 * time.Microsecond)
		a := s.Send(t.Context(), d)
		all := spans.Ended()
		this := all[len(all)-1]
		switch links := this.Links(); {
		case len(all) == 1 && len(links) != 0:
			t.Errorf("%s: got links %v, want none", step.name, links)
		case len(all) > 1 && (len(links) != 1 || links[0].SpanContext.SpanID() != all[len(all)-2].SpanContext().SpanID() ||
			links[0].SpanContext.TraceID() != this.SpanContext().TraceID()):
			t.Errorf("%s: got links %v, want one to %v", step.name, links, all[len(all)-2].SpanContext())
		}
		d.Last = a.Outcome() // as the store keeps it: to the millisecond
	}
	seen := map[oteltrace.SpanID]bool{}
	for _, span := range spans.Ended() {
		if id := span.SpanContext().SpanID(); seen[id] {
			t.Errorf("span id %s is there twice", id)
		} else {
			seen[id] = true
		}
	}
	before := len(spans.Started())
	if s.Send(ended, d); len(spans.Started()) != before {
		t.Error("an attempt that does not begin has a span")
	}
}

func TestOutcomeOfSpans(t *testing.T) {
	expect, err := match.NewExpectation("$.status", []any{"ok"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		far    noting
		change func(*egress.Options)
		status codes.Code
		want   map[attribute.Key]string
	}{
		{"ok", noting{status: 204}, nil, codes.Unset, map[attribute.Key]string{
			"postern.class": "ok", "error.type": "", "http.response.status_code": "204", "http.request.method": "POST", "server.address": farHost,
			"http.request.resend_count": "2", "postern.attempt": "3", "postern.round": "1", "postern.event": "alert.fired", "messaging.system": "postern",
		}},
		{"status", noting{status: 503}, nil, codes.Error, map[attribute.Key]string{"postern.class": "status", "error.type": "503"}},
		{"connect", noting{err: errors.New("connection refused")}, nil, codes.Error, map[attribute.Key]string{
			"postern.class": "connect", "error.type": "connect", "http.response.status_code": "",
		}},
		{"timeout", noting{wait: true}, func(o *egress.Options) { o.Timeout = time.Millisecond }, codes.Error, map[attribute.Key]string{"error.type": "timeout"}},
		{"render", noting{}, func(o *egress.Options) { o.Body = "{{ .Data.missing }}" }, codes.Error, map[attribute.Key]string{
			"error.type": "render", "http.request.method": "",
		}},
		{"expect, whose error quotes the answer", noting{status: 200, body: `{"status": "canary"}`}, func(o *egress.Options) {
			o.Expect = []*match.Expectation{expect}
		}, codes.Error, map[attribute.Key]string{"error.type": "expect", "http.response.status_code": "200"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, spans := tracedSender(t, &tc.far, tc.change)
			d := newDelivery(t)
			d.Event, d.Made = "alert.fired", 2
			a := s.Send(t.Context(), d)
			span := spans.Ended()[0]
			if span.Status().Code != tc.status || span.Name() != "attempt far" || span.SpanKind() != oteltrace.SpanKindClient {
				t.Errorf("got %q, %v, %v; want status %v", span.Name(), span.SpanKind(), span.Status(), tc.status)
			}
			if took := span.EndTime().Sub(span.StartTime()); took < a.Took {
				t.Errorf("got %s, want at least the %s of the attempt", took, a.Took)
			}
			text := span.Status().Description
			got := map[attribute.Key]string{}
			for _, kv := range span.Attributes() {
				got[kv.Key] = kv.Value.String()
				text += " " + kv.Value.String()
			}
			for key, want := range tc.want {
				if got[key] != want {
					t.Errorf("got %s %q, want %q", key, got[key], want)
				}
			}
			if strings.Contains(text, "canary") {
				t.Errorf("the span holds a query or a piece of an answer: %s", text)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		n := &noting{wait: true}
		s, spans := tracedSender(t, n, nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		check(t, s.Send(ctx, newDelivery(t)), store.ClassInterrupted, 0)
		if span := spans.Ended()[0]; span.Status().Code != codes.Unset {
			t.Errorf("got status %v for our own stop, want none", span.Status())
		}
	})
}

func TestTokensInSpans(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	e, r, s := oauthPair(t, nil, func(o *egress.Options) { o.Tracer = func() oteltrace.Tracer { return tracer } })
	check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
	e.server.Revoke()
	check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
	var events []string
	for _, event := range spans.Ended()[1].Events() {
		events = append(events, event.Name)
	}
	if want := []string{"token ready", "fresh token ready after 401"}; len(spans.Ended()) != 2 || !slices.Equal(events, want) {
		t.Errorf("got %d spans, the second with %q; want 2 and %q", len(spans.Ended()), events, want)
	}
	want := parentOf(spans.Ended()[1].SpanContext())
	for _, request := range r.Latest()[1:] {
		if got := request.Header.Get("Traceparent"); got != want {
			t.Errorf("got traceparent %s, want %s in both requests", got, want)
		}
	}
}
