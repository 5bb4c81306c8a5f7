package relay

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/store"
)

// The trace that the app of these tests posts in.
const (
	appTrace  = "0af7651916cd43dd8448eb211c80319c"
	appSpan   = "b7ad6b7169203331"
	appParent = "00-" + appTrace + "-" + appSpan + "-01"
)

// collector takes what is exported, and notes it.
type collector struct {
	server *httptest.Server

	mu       sync.Mutex // guards the fields below
	answer   http.HandlerFunc
	raw      []byte // all bodies
	header   http.Header
	path     string
	requests int
	resource map[string]string
	spans    []*tracepb.Span
}

// newCollector starts one. answer, if any, answers instead of taking what comes.
func newCollector(t testing.TB, answer http.HandlerFunc) *collector {
	t.Helper()
	c := &collector{answer: answer}
	c.server = httptest.NewServer(c)
	t.Cleanup(c.server.Close)
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	c.mu.Lock()
	c.requests++
	answer := c.answer
	c.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	var export coltracepb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &export)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw, c.header, c.path = append(c.raw, body...), r.Header.Clone(), r.URL.Path
	for _, rs := range export.GetResourceSpans() {
		c.resource = attributes(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			c.spans = append(c.spans, ss.GetSpans()...)
		}
	}
}

// section is the config that has spans go to the collector.
func (c *collector) section(more string) string {
	return fmt.Sprintf("tracing: {otlp_endpoint: %q%s}\n", c.server.URL, more)
}

// all returns the spans of a name so far, in the order of their start.
func (c *collector) all(name string) []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*tracepb.Span
	for _, s := range c.spans {
		if s.GetName() == name {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b *tracepb.Span) int { return int(int64(a.GetStartTimeUnixNano() - b.GetStartTimeUnixNano())) })
	return found
}

// await returns the spans of a name as soon as there are n.
func (c *collector) await(t testing.TB, name string, n int) []*tracepb.Span {
	t.Helper()
	until(t, fmt.Sprintf("%d spans %q are exported", n, name), func() bool { return len(c.all(name)) >= n })
	got := c.all(name)
	if len(got) != n {
		t.Fatalf("got %d spans %q, want %d", len(got), name, n)
	}
	return got
}

func attributes(list []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range list {
		switch v := kv.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			m[kv.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			m[kv.GetKey()] = fmt.Sprint(v.IntValue)
		case *commonpb.AnyValue_DoubleValue:
			m[kv.GetKey()] = fmt.Sprint(v.DoubleValue)
		case *commonpb.AnyValue_BoolValue:
			m[kv.GetKey()] = fmt.Sprint(v.BoolValue)
		}
	}
	return m
}

// holds checks some attributes.
func holds(t testing.TB, s *tracepb.Span, want map[string]string) {
	t.Helper()
	got := attributes(s.GetAttributes())
	for key, value := range want {
		if got[key] != value {
			t.Errorf("span %q: got %s=%q, want %q", s.GetName(), key, got[key], value)
		}
	}
}

// parentOf is the traceparent of what a span makes.
func parentOf(s *tracepb.Span) string {
	return fmt.Sprintf("00-%x-%x-01", s.GetTraceId(), s.GetSpanId())
}

const oneDestination = "destinations: {a: {url: 'https://a.test/hook?key=canary-query'}}\n"

func TestTraceOfAMessage(t *testing.T) {
	c := newCollector(t, nil)
	text := c.section(", headers: {X-Tenant: canary-tenant}") + oneDestination
	r := newRig(t, text, func(r *rig) { r.Version = "1.2.3" })
	r.far.answer("a.test", func(n int) int { return []int{500, 200}[min(n, 2)-1] })
	id := r.accept(t, "a", "Traceparent", appParent, "Tracestate", "vendor=1")
	r.awaitState(t, id, store.Delivered)

	accept := c.await(t, "accept a", 1)[0]
	attempts := c.await(t, "attempt a", 2)
	t.Run("the span of the request continues the app's trace", func(t *testing.T) {
		if got := fmt.Sprintf("%x %x", accept.GetTraceId(), accept.GetParentSpanId()); got != appTrace+" "+appSpan {
			t.Errorf("got trace and parent %s, want %s %s", got, appTrace, appSpan)
		}
		if accept.GetKind() != tracepb.Span_SPAN_KIND_SERVER || accept.GetTraceState() != "vendor=1" || accept.GetStatus().GetCode() != 0 {
			t.Errorf("got kind %v, state %q, status %v", accept.GetKind(), accept.GetTraceState(), accept.GetStatus())
		}
		holds(t, accept, map[string]string{
			"messaging.system": "postern", "messaging.operation.type": "send", "messaging.operation.name": "accept",
			"messaging.destination.name": "a", "messaging.message.id": id.Message().String(), "messaging.message.body.size": "2",
			"http.request.method": "POST", "http.route": "/to/{destination}", "http.response.status_code": "202", "postern.deliveries": "1",
		})
	})
	t.Run("the attempts are its children", func(t *testing.T) {
		for n, a := range attempts {
			if !bytes.Equal(a.GetTraceId(), accept.GetTraceId()) || !bytes.Equal(a.GetParentSpanId(), accept.GetSpanId()) {
				t.Errorf("attempt %d: got trace %x, parent %x", n+1, a.GetTraceId(), a.GetParentSpanId())
			}
			holds(t, a, map[string]string{
				"http.request.method": "POST", "server.address": "a.test", "server.port": "443", "postern.destination": "a",
				"postern.delivery_id": id.String(), "postern.round": "1", "postern.attempt": fmt.Sprint(n + 1),
				"postern.class":             []string{"status", "ok"}[n],
				"http.response.status_code": []string{"500", "200"}[n], "error.type": []string{"500", ""}[n],
			})
			if want := []tracepb.Status_StatusCode{tracepb.Status_STATUS_CODE_ERROR, tracepb.Status_STATUS_CODE_UNSET}[n]; a.GetStatus().GetCode() != want {
				t.Errorf("attempt %d: got status %v, want %v", n+1, a.GetStatus(), want)
			}
			if a.GetKind() != tracepb.Span_SPAN_KIND_CLIENT || a.GetEndTimeUnixNano() < a.GetStartTimeUnixNano() {
				t.Errorf("attempt %d: got kind %v from %d to %d", n+1, a.GetKind(), a.GetStartTimeUnixNano(), a.GetEndTimeUnixNano())
			}
		}
	})
	t.Run("a retry is linked with the attempt before", func(t *testing.T) {
		if links := attempts[0].GetLinks(); len(links) != 0 {
			t.Errorf("the first attempt has links %v", links)
		}
		links := attempts[1].GetLinks()
		if len(links) != 1 || !bytes.Equal(links[0].GetSpanId(), attempts[0].GetSpanId()) || !bytes.Equal(links[0].GetTraceId(), accept.GetTraceId()) {
			t.Errorf("got links %v, want one to %x", links, attempts[0].GetSpanId())
		}
	})
	t.Run("requests carry their attempt's context, and the record shows it", func(t *testing.T) {
		recorded, err := r.memory.Attempts(t.Context(), id, 10)
		if err != nil {
			t.Fatal(err)
		}
		for n, req := range r.far.of("a.test") {
			want := parentOf(attempts[n])
			if got := req.header.Get("Traceparent"); got != want {
				t.Errorf("attempt %d sent traceparent %s, want %s", n+1, got, want)
			}
			if got := req.header["Tracestate"]; !slices.Equal(got, []string{"vendor=1"}) {
				t.Errorf("attempt %d sent tracestate %q, want vendor=1", n+1, got)
			}
			if !slices.Contains(recorded[n].Request.Header, store.Field{Name: "Traceparent", Value: want}) {
				t.Errorf("attempt %d: the record lacks %s: %v", n+1, want, recorded[n].Request.Header)
			}
		}
	})
	t.Run("the collector is told who exports", func(t *testing.T) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.resource["service.name"] != "postern" || c.resource["service.version"] != "1.2.3" || c.path != "/v1/traces" || c.header.Get("X-Tenant") != "canary-tenant" {
			t.Errorf("got %v at %s with %v", c.resource, c.path, c.header)
		}
	})

	r.stop()
	again := newRig(t, text, func(next *rig) { next.memory, next.Store = r.memory, r.memory })
	if _, err := (api{steering{again.Relay}}).Replay(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	replayed := c.await(t, "attempt a", 3)[2]
	t.Run("a replay after a restart is in the same trace, and linked", func(t *testing.T) {
		links := replayed.GetLinks()
		if fmt.Sprintf("%x", replayed.GetTraceId()) != appTrace || !bytes.Equal(replayed.GetParentSpanId(), accept.GetSpanId()) ||
			len(links) != 1 || !bytes.Equal(links[0].GetSpanId(), attempts[1].GetSpanId()) {
			t.Errorf("got trace %x, parent %x, links %v", replayed.GetTraceId(), replayed.GetParentSpanId(), links)
		}
		holds(t, replayed, map[string]string{"postern.round": "2", "postern.attempt": "1"})
	})
	if c.mu.Lock(); bytes.Contains(c.raw, []byte("canary")) {
		t.Error("what was exported holds a query or a header")
	}
	c.mu.Unlock()
}

func TestSamplingIsTheParents(t *testing.T) {
	c := newCollector(t, nil)
	r := newRig(t, c.section(", sample_ratio: 0")+oneDestination)
	quiet := r.accept(t, "a", "Traceparent", "00-"+appTrace+"-"+appSpan+"-00")
	r.awaitState(t, quiet, store.Delivered)
	fresh := r.accept(t, "a")
	r.awaitState(t, fresh, store.Delivered)
	loud := r.accept(t, "a", "Traceparent", "00-"+appTrace+"-"+appSpan+"-ff") // flags to come are no reason to drop it
	r.awaitState(t, loud, store.Delivered)
	c.await(t, "accept a", 1)
	holds(t, c.await(t, "attempt a", 1)[0], map[string]string{"postern.delivery_id": loud.String()})
	for _, req := range r.far.of("a.test") {
		id, got := req.id, req.header.Get("Traceparent")
		switch {
		case id == quiet.Message().String() && (!strings.HasPrefix(got, "00-"+appTrace+"-") || !strings.HasSuffix(got, "-00")):
			t.Errorf("unsampled: sent %s, want the app's trace with flags 00", got)
		case id == fresh.Message().String() && !strings.HasSuffix(got, "-00"):
			t.Errorf("ratio 0: sent %s, want flags 00", got)
		}
	}
}

// TestTracesOff has requests without traces be what they always were.
func TestTracesOff(t *testing.T) {
	r := newRig(t, oneDestination)
	with := r.accept(t, "a", "Traceparent", appParent, "Tracestate", "vendor=1")
	without := r.accept(t, "a")
	r.awaitState(t, with, store.Delivered)
	r.awaitState(t, without, store.Delivered)
	for _, req := range r.far.of("a.test") {
		var want []string
		if req.id == with.Message().String() {
			want = []string{appParent}
		}
		if got := req.header["Traceparent"]; !slices.Equal(got, want) {
			t.Errorf("got traceparent %q, want %q", got, want)
		}
	}
	m, _, err := r.memory.Load(t.Context(), with.Message())
	if want := []store.Field{{Name: "Traceparent", Value: appParent}, {Name: "Tracestate", Value: "vendor=1"}}; err != nil || !slices.Equal(m.Header, want) {
		t.Errorf("the message keeps %v, %v; want %v", m.Header, err, want)
	}
}

func TestTraceWithoutAContextIsTheMessagesOwn(t *testing.T) {
	r := newRig(t, oneDestination)
	r.far.answer("a.test", func(int) int { return 500 })
	id := r.accept(t, "a") // while there are no traces
	until(t, "the first attempt failed", func() bool { return r.delivery(t, id).Made > 0 })
	c := newCollector(t, nil)
	r.reloadWith(t, c.section("")+oneDestination)
	if got, want := r.LastReload().Settings, []string{"tracing.otlp_endpoint"}; !slices.Equal(got, want) || len(r.LastReload().NeedRestart) > 0 {
		t.Errorf("got settings %v, restart for %v; want %v and none", got, r.LastReload().NeedRestart, want)
	}
	until(t, "two attempts are exported", func() bool { return len(c.all("attempt a")) >= 2 })
	spans := c.all("attempt a")
	first, second := spans[0], spans[1]
	if len(first.GetParentSpanId()) != 0 || !bytes.Equal(first.GetTraceId(), second.GetTraceId()) {
		t.Errorf("got traces %x and %x with parent %x, want one without a parent", first.GetTraceId(), second.GetTraceId(), first.GetParentSpanId())
	}
	if links := second.GetLinks(); len(links) != 1 || !bytes.Equal(links[0].GetSpanId(), first.GetSpanId()) {
		t.Errorf("got links %v, want one to %x", links, first.GetSpanId())
	}
}

func TestReloadOfTraces(t *testing.T) {
	one, two := newCollector(t, nil), newCollector(t, nil)
	r := newRig(t, one.section("")+oneDestination)
	r.awaitState(t, r.accept(t, "a"), store.Delivered)
	one.await(t, "accept a", 1)
	r.far.hang("a.test")
	over := r.accept(t, "a") // begins before the reload, and ends after it
	until(t, "the attempt has begun", func() bool { return len(r.far.of("a.test")) == 2 })
	r.reloadWith(t, two.section(", headers: {X-Tenant: b}")+oneDestination)
	if got, want := r.LastReload().Settings, []string{"tracing.headers", "tracing.otlp_endpoint"}; !slices.Equal(got, want) {
		t.Errorf("got settings %v, want %v", got, want)
	}
	r.far.open()
	r.awaitState(t, over, store.Delivered)
	holds(t, two.await(t, "attempt a", 1)[0], map[string]string{"postern.delivery_id": over.String()})
	one.await(t, "accept a", 2)
	r.reloadWith(t, oneDestination)
	r.awaitState(t, r.accept(t, "a"), store.Delivered)
	r.stop()
	two.await(t, "attempt a", 1)
	one.await(t, "attempt a", 1)
}

func TestSeveralMessagesAreOneSpan(t *testing.T) {
	c := newCollector(t, nil)
	r := newRig(t, c.section("")+oneDestination)
	const lines = 200
	var body strings.Builder
	for range lines - 1 {
		body.WriteString(`{"to":"a","data":{}}` + "\n")
	}
	body.WriteString(`{"to":"a","data":{},"headers":{"traceparent":"` + appParent + `"}}`)
	if status, text := r.post(t, "/batch", body.String()); status != http.StatusAccepted {
		t.Fatalf("got %d %s", status, text)
	}
	accept := c.await(t, "accept", 1)[0]
	holds(t, accept, map[string]string{"messaging.batch.message_count": fmt.Sprint(lines), "http.route": "/batch", "messaging.message.id": ""})
	if links := accept.GetLinks(); len(links) != 1 || fmt.Sprintf("%x", links[0].GetSpanId()) != appSpan {
		t.Errorf("got links %v, want one to the trace that a line brought", links)
	}
	own := 0
	for _, a := range c.await(t, "attempt a", lines) {
		switch {
		case bytes.Equal(a.GetParentSpanId(), accept.GetSpanId()):
		case fmt.Sprintf("%x", a.GetParentSpanId()) == appSpan:
			own++
		default:
			t.Errorf("got parent %x", a.GetParentSpanId())
		}
	}
	if own != 1 {
		t.Errorf("got %d attempts in the trace of their line, want 1", own)
	}
	if status, text := r.post(t, "/cloudevents", `[{"specversion":"1.0","id":"1","source":"s","type":"x"}]`, "Content-Type", "application/cloudevents-batch+json"); status != http.StatusAccepted {
		t.Fatalf("got %d %s", status, text)
	}
	holds(t, c.await(t, "accept", 2)[1], map[string]string{"messaging.batch.message_count": "1", "http.route": "/cloudevents"})
}

func TestRefusedPostsAreTraced(t *testing.T) {
	c := newCollector(t, nil)
	r := newRig(t, c.section("")+oneDestination)
	r.post(t, "/to/canary-unknown", "{}")
	r.post(t, "/to/a", "{}", "Idempotency-Key", "1")
	r.post(t, "/to/a", "{}", "Idempotency-Key", "1")
	r.post(t, "/to/a", "other", "Idempotency-Key", "1")
	refused := c.await(t, "accept", 2)
	holds(t, refused[0], map[string]string{"http.response.status_code": "404", "error.type": "404"})
	holds(t, refused[1], map[string]string{"http.response.status_code": "422"})
	for _, s := range refused {
		if s.GetStatus().GetCode() != tracepb.Status_STATUS_CODE_UNSET {
			t.Errorf("got status %v for what the client did wrong", s.GetStatus())
		}
	}
	taken := c.await(t, "accept a", 2)
	holds(t, taken[1], map[string]string{"postern.replayed": "true"})
	if links := taken[1].GetLinks(); len(links) != 1 || !bytes.Equal(links[0].GetSpanId(), taken[0].GetSpanId()) {
		t.Errorf("got links %v, want one to the first post", links)
	}
	if c.mu.Lock(); bytes.Contains(c.raw, []byte("canary")) {
		t.Error("a name that is none of the config's is exported")
	}
	c.mu.Unlock()
}

// TestTracesHoldNoSecrets has secrets and content wherever they can be, and looks for them in all that is exported.
func TestTracesHoldNoSecrets(t *testing.T) {
	c := newCollector(t, nil)
	r := newRig(t, c.section(", headers: {Authorization: canary-collector}")+`
destinations:
  a:
    url: https://a.test/canary-path?canary=query
    forward_path: true
    headers: {X-Secret: canary-header-value}
    auth: {bearer: {token: canary-bearer-token}}
    sign: [{hmac: {header: X-Sig, secret: canary-signing-key}}]
    expect: [{path: $.ok, values: [canary-expected]}]
    retry: none
  b:
    url: https://b.test/
    body: '{{ .Data.missing }}'
    retry: none
`)
	status, _ := r.post(t, "/to/a/canary-more?q=canary", `{"canary": "canary-body"}`, "Idempotency-Key", "canary-key", "Postern-Key", "canary-order", "X-Request-Id", "canary")
	if status != http.StatusAccepted {
		t.Fatalf("got %d", status)
	}
	r.post(t, "/to/b", `{"other": "canary-body"}`)
	if got := attributes(c.await(t, "attempt a", 1)[0].GetAttributes())["postern.class"]; got != "expect" {
		t.Errorf("got class %s, want expect", got)
	}
	c.await(t, "attempt b", 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := bytes.Index(c.raw, []byte("canary")); i >= 0 {
		t.Errorf("exported: %q", c.raw[max(i-60, 0):min(i+60, len(c.raw))])
	}
}

func TestCollectorInTrouble(t *testing.T) {
	elsewhere := newCollector(t, nil)
	gate := make(chan struct{})
	t.Cleanup(func() { close(gate) })
	hang := func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-gate:
		case <-r.Context().Done():
		}
	}
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"it hangs", hang},
		{"it refuses", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }},
		{"it is overloaded", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }},
		{"it redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.server.URL+"/v1/traces", http.StatusTemporaryRedirect)
		}},
		{"it is gone", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCollector(t, tc.answer)
			section := c.section("")
			if tc.answer == nil {
				c.server.Close()
			}
			r := newRig(t, section+oneDestination, func(r *rig) { r.Drain = 2 * time.Second })
			for range 50 {
				r.awaitState(t, r.accept(t, "a"), store.Delivered)
			}
			if tc.name != "it hangs" {
				until(t, "the log tells", func() bool { return r.logs.FilterMessage("traces not exported").Len() > 0 })
			}
			begin := time.Now()
			r.stop()
			if took := time.Since(begin); took > r.Drain+2*time.Second {
				t.Errorf("the stop took %s, which is more than the drain time", took)
			}
			if n := r.logs.FilterMessage("traces not exported").Len(); n < 1 || n > 2 {
				t.Errorf("got %d lines about it, want one, and one at the end", n)
			}
		})
	}
	elsewhere.mu.Lock()
	defer elsewhere.mu.Unlock()
	if elsewhere.requests > 0 {
		t.Error("a redirect was followed")
	}
}

func TestStopExportsWhatThereIs(t *testing.T) {
	c := newCollector(t, nil)
	r := newRig(t, c.section("")+oneDestination)
	for range 20 {
		r.awaitState(t, r.accept(t, "a"), store.Delivered)
	}
	r.stop()
	if got := len(c.all("attempt a")); got != 20 {
		t.Errorf("got %d attempts exported, want 20", got)
	}
	if r.logs.FilterMessage("traces not exported").Len() > 0 {
		t.Error("the log tells of spans that were lost")
	}
}

// TestEnvironmentOfTraces sets what the SDK and its exporters look at.
func TestEnvironmentOfTraces(t *testing.T) {
	elsewhere := newCollector(t, nil)
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": elsewhere.server.URL, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": elsewhere.server.URL,
		"OTEL_EXPORTER_OTLP_HEADERS": "x-env=canary", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
		"OTEL_TRACES_SAMPLER": "always_off", "OTEL_SDK_DISABLED": "true", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1",
		"OTEL_BSP_MAX_QUEUE_SIZE": "1", "OTEL_SERVICE_NAME": "other", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,k8s.pod.name=pod-7",
		"HTTP_PROXY": elsewhere.server.URL, "http_proxy": elsewhere.server.URL,
	} {
		t.Setenv(name, value)
	}
	c := newCollector(t, nil)
	r := newRig(t, c.section("")+oneDestination)
	id := r.accept(t, "a")
	r.awaitState(t, id, store.Delivered)
	holds(t, c.await(t, "accept a", 1)[0], map[string]string{"messaging.message.id": id.Message().String(), "messaging.system": "postern"})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.header.Get("X-Env") != "" || c.resource["service.name"] != "postern" || c.resource["k8s.pod.name"] != "pod-7" {
		t.Errorf("got headers %v and resource %v", c.header, c.resource)
	}
	elsewhere.mu.Lock()
	defer elsewhere.mu.Unlock()
	if elsewhere.requests > 0 {
		t.Error("the environment has spans go elsewhere")
	}
}

func TestFaultsOfTracing(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"tracing: {otlp_endpoint: 'http://127.0.0.1:4318/v1/traces'}", "tracing.otlp_endpoint: /v1/traces is appended to it; remove it"},
		{"tracing: {headers: {X-A: canary}}", "tracing.headers: there is no otlp_endpoint"},
		{"tracing: {otlp_endpoint: 'http://127.0.0.1:4318', headers: {Host: canary}}", "tracing.headers.Host: "},
		{`tracing: {otlp_endpoint: 'http://127.0.0.1:4318', headers: {X-A: "canary\nb"}}`, "tracing.headers.X-A: "},
	} {
		cfg, err := config.Parse("postern.yaml", []byte(tc.text+"\n"+oneDestination), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, faults := newPlan(cfg, LoadOptions{})
		if got := fmt.Sprint(faults.Err()); !strings.Contains(got, tc.want) || strings.Contains(got, "canary") {
			t.Errorf("%s: got %s, want %q", tc.text, got, tc.want)
		}
	}
}
