package egress_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// posted is a store with one message.
type posted struct {
	m    store.Message
	body string
}

func (p posted) Load(_ context.Context, id store.MessageID) (store.Message, []byte, error) {
	m := p.m
	m.ID = id
	return m, []byte(p.body), nil
}

// TestSendShaped sends requests in which all that can be shaped is, over the wire, to verifiers that know nothing of us
// and to the one of RFC 9421.
func TestSendShaped(t *testing.T) {
	at := time.Now()
	message := posted{
		m: store.Message{
			Event: "anomaly.found", ContentType: "application/json", AcceptedAt: at, Path: "/team%20a/7?verbose=1",
			Header: []store.Field{{Name: "X-Request-Id", Value: "r-1"}, {Name: "Traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}},
		},
		body: `{"severity":"high","count":5}`,
	}
	for _, http1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http1 %v", http1), func(t *testing.T) {
			f := newFarEnd(t)
			r := f.receive(t, http1)
			standard, err := sign.NewStandard([]string{f.secret})
			if err != nil {
				t.Fatal(err)
			}
			components := []string{"@method", "@authority", "@path", "@query", "content-digest", "content-type", "webhook-id", "x-request-id", "x-event", "traceparent"}
			signers := []sign.Signer{standard}
			secrets := map[string]string{"one": "the first secret of the test", "two": "the second secret of the test"}
			for label, secret := range secrets {
				s, err := sign.NewRFC9421(sign.RFC9421Options{Label: label, Algorithm: "hmac-sha256", Secret: secret, Components: components})
				if err != nil {
					t.Fatal(err)
				}
				signers = append(signers, s)
			}
			s := f.sender(t, func(o *egress.Options) {
				o.Method, o.ForwardPath, o.ForwardHeader, o.Messages = "PUT", true, []string{"X-Request-Id"}, message
				o.Header = []egress.Header{{Name: "X-Event", Value: "{{ .Event | upper }}"}}
				o.Body = `{"id": {{ json .ID }}, "delivery": {{ json .DeliveryID }}, "severity": {{ json .Data.severity }}, "data": {{ .Body }}}`
				o.ContentType, o.Signers = "application/json", signers
				o.Now = func() time.Time { return at }
			})
			d := newDelivery(t)
			check(t, s.Send(t.Context(), d), store.ClassOK, 200)
			m, ok := r.Message(d.ID.Message().String())
			if !ok {
				t.Fatal("nothing arrived")
			}
			want := fmt.Sprintf(`{"id": %q, "delivery": %q, "severity": "high", "data": %s}`, d.ID.Message(), d.ID, message.body)
			if string(m.Body) != want {
				t.Errorf("got %s, want %s", m.Body, want)
			}
			if m.Method != "PUT" || m.Target != "/hook/team%20a/7?verbose=1" {
				t.Errorf("got %s %s", m.Method, m.Target)
			}
			for name, want := range map[string]string{"X-Event": "ANOMALY.FOUND", "X-Request-Id": "r-1", "Traceparent": message.m.Header[1].Value} {
				if got := m.Header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			official, err := standardwebhooks.NewWebhook(f.secret)
			if err != nil {
				t.Fatal(err)
			}
			if err := official.Verify(m.Body, m.Header); err != nil {
				t.Errorf("the official library: %v", err)
			}
			u, err := url.Parse("https://" + farHost + m.Target)
			if err != nil {
				t.Fatal(err)
			}
			for label, secret := range secrets {
				verifier, err := sign.NewRFC9421Verifier(label, "hmac-sha256", []string{secret})
				if err != nil {
					t.Fatal(err)
				}
				if err := verifier.Verify(sign.Request{Method: m.Method, URL: u, Header: m.Header, Body: m.Body}, at); err != nil {
					t.Errorf("%s: %v", label, err)
				}
			}
		})
	}
}

func TestSendWithoutRequest(t *testing.T) {
	f := newFarEnd(t)
	r := f.receive(t, false)
	for _, c := range []struct {
		name   string
		change func(*egress.Options)
		posted posted
		want   string
	}{
		{"a field that is missing", func(o *egress.Options) { o.Body = `{{ .Data.a.b }}` }, posted{body: `{"a":{}}`}, "body: line 1, column 4: .Data.a.b is missing or null; use default if it may be"},
		{"a result that is no JSON", func(o *egress.Options) { o.Body, o.ContentType = `{{ .Body }}`, "application/json" }, posted{body: `{"a":1]`}, "body: not JSON: at byte 6: "},
		{"a header with a line break", func(o *egress.Options) { o.Header = []egress.Header{{Name: "X-A", Value: "{{ .Body }}"}} },
			posted{body: "a\r\nHost: evil.example"}, "headers.X-A: it makes a value with a line break or another control character"},
		{"a path that leads out", func(o *egress.Options) { o.ForwardPath = true }, posted{m: store.Message{Path: "/../admin"}}, "forward_path: the path has a . or .. segment"},
		{"a header that cannot be sent", func(o *egress.Options) { o.ForwardHeader = []string{"X-A"} },
			posted{m: store.Message{Header: []store.Field{{Name: "X-A", Value: "a\nb"}}}}, "forward_headers: X-A of the message cannot be sent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := f.sender(t, func(o *egress.Options) { c.change(o); o.Messages = c.posted }).Send(t.Context(), newDelivery(t))
			check(t, a, store.ClassRender, 0)
			if !strings.HasPrefix(a.Error, c.want) {
				t.Errorf("got %q, want %q", a.Error, c.want)
			}
		})
	}
	if got := r.Stats().Requests; got != 0 {
		t.Errorf("%d requests were sent, want none", got)
	}
}

func TestTemplateSecretsAreNotRecorded(t *testing.T) {
	const canary = "canary-0123456789"
	f := newFarEnd(t)
	f.serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", r.Header.Get("X-Token"))
		w.WriteHeader(http.StatusTeapot)
		_, _ = fmt.Fprint(w, r.Header)
	})
	s := f.sender(t, func(o *egress.Options) {
		o.Header = []egress.Header{{Name: "X-Token", Value: canary + "{{ .Event }}"}, {Name: "X-Other", Value: `{{ print "` + canary + `" .ID }}`}}
	})
	a := s.Send(t.Context(), newDelivery(t))
	check(t, a, store.ClassStatus, http.StatusTeapot)
	if text := a.Error + a.Header.Get("X-Echo") + string(a.Body); strings.Contains(text, "canary") || !strings.Contains(text, "*****") {
		t.Errorf("got %s, want it masked", text)
	}
}

func TestSampleIsSigned(t *testing.T) {
	try := func(component string) error {
		signer, err := sign.NewRFC9421(sign.RFC9421Options{Secret: "the secret of the test", Components: []string{"@method", component}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = egress.New(egress.Options{
			URL: parseURL(t, "https://"+farHost+"/"), Signers: []sign.Signer{signer}, ForwardHeader: []string{"X-Request-Id", "Idempotency-Key"},
			Header: []egress.Header{{Name: "X-A", Value: "a"}, {Name: "X-T", Value: "{{ .Data.a }}"}},
		})
		return err
	}
	for _, there := range []string{"x-a", "x-t", "x-request-id", "idempotency-key", "traceparent", "content-type", "user-agent"} {
		if err := try(there); err != nil {
			t.Errorf("%s: got %v, want no error", there, err)
		}
	}
	if err := try("x-none"); err == nil || !strings.HasPrefix(err.Error(), "sign[0]: ") {
		t.Errorf("got %v, want an error at sign[0]", err)
	}
}

func BenchmarkSendTemplate(b *testing.B) {
	f := newFarEnd(b)
	s := f.sender(b, func(o *egress.Options) {
		o.Transport, o.ContentType = answering{}, "application/json"
		o.Header = []egress.Header{{Name: "X-Event", Value: "{{ .Event }}"}}
		o.Body = `{"id": {{ json .ID }}, "event": {{ json .Event }}, "timestamp": {{ json .Timestamp }}, "n": {{ .Data.id }}, "data": {{ .Body }}}`
		o.Messages = posted{body: `{"id":7}`}
	})
	d := newDelivery(b)
	b.ReportAllocs()
	for b.Loop() {
		if a := s.Send(b.Context(), d); a.Class != store.ClassOK {
			b.Fatal(a.Error)
		}
	}
}
