package egress_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// received is a request as a receiver's framework shows it.
type received struct {
	method, target string
	header         map[string][]string
	body           string
}

// receives serves a receiver that takes everything and tells what it got.
func (f *farEnd) receives(t testing.TB, http1 bool, answer string) <-chan received {
	t.Helper()
	got := make(chan received, 10)
	f.serve(t, http1, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		h := r.Header.Clone()
		h.Set("Host", r.Host)
		if r.ContentLength > 0 || r.Header.Get("Content-Length") != "" {
			h.Set("Content-Length", fmt.Sprint(r.ContentLength))
		}
		got <- received{r.Method, "https://" + r.Host + r.URL.RequestURI(), h, string(body)}
		_, _ = io.WriteString(w, answer)
	})
	return got
}

func headerOf(s store.Sent) map[string][]string {
	h := make(map[string][]string)
	for _, f := range s.Header {
		h[f.Name] = append(h[f.Name], f.Value)
	}
	return h
}

// field returns the value of a header that is on record once.
func field(t testing.TB, s store.Sent, name string) string {
	t.Helper()
	values := headerOf(s)[name]
	if len(values) != 1 {
		t.Errorf("got %q of %s in %v, want one value", values, name, s.Header)
		return ""
	}
	return values[0]
}

// TestRequestOnRecordIsTheOneReceived compares, for requests without secrets, the record with what the receiver got.
func TestRequestOnRecordIsTheOneReceived(t *testing.T) {
	for _, http1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http1 %v", http1), func(t *testing.T) { testRecord(t, http1) })
	}
}

func testRecord(t *testing.T, http1 bool) {
	f := newFarEnd(t)
	got := f.receives(t, http1, "")
	for _, c := range []struct {
		name   string
		body   string
		change func(*egress.Options)
	}{
		{"a body", `{"a":1}`, nil},
		{"no body", "", nil},
		{"PUT without a body", "", func(o *egress.Options) { o.Method = http.MethodPut }},
		{"DELETE", "", func(o *egress.Options) { o.Method = http.MethodDelete }},
		{"DELETE with a body", "b", func(o *egress.Options) { o.Method = http.MethodDelete }},
		{"GET", "b", func(o *egress.Options) { o.Method = http.MethodGet }},
		{"a template", "", func(o *egress.Options) { o.Body, o.ContentType = "id={{ .ID }}", "text/plain" }},
		{"a template that makes nothing", "", func(o *egress.Options) { o.Body, o.ContentType = "{{ .Body }}", "text/plain" }},
		{"headers, a path and a query", `{}`, func(o *egress.Options) {
			o.URL = parseURL(t, "https://"+farHost+"/hook?v=1")
			o.ForwardPath, o.ForwardHeader = true, []string{"X-Request-Id", "Idempotency-Key"}
			o.Header = []egress.Header{{Name: "X-Team", Value: "data"}, {Name: "x-event", Value: "{{ .Event }}"}}
			o.UserAgent = "Acme/1"
		}},
		{"white space around values", `{}`, func(o *egress.Options) {
			o.ContentType, o.UserAgent = " text/plain ", " Acme/1\t"
			o.Header = []egress.Header{{Name: "X-Team", Value: " of data\t"}}
			o.Auth.APIKey = &egress.APIKey{Header: "X-Odd", Value: "***  "}
		}},
		{"no user agent", `{}`, func(o *egress.Options) { o.Header = []egress.Header{{Name: "User-Agent", Value: ""}} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := f.sender(t, func(o *egress.Options) {
				o.Messages = posted{body: c.body, m: store.Message{
					Event: "alert.fired", Path: "/a%20b?verbose=yes&id=123456789", ContentType: "text/plain",
					Header: []store.Field{{Name: "X-Request-Id", Value: "r-1"}, {Name: "X-Request-Id", Value: "r-2"},
						{Name: "Traceparent", Value: "00-1-2-01"}, {Name: "Idempotency-Key", Value: "k-123456789"}},
				}}
				if c.change != nil {
					c.change(o)
				}
			})
			a := s.Send(t.Context(), newDelivery(t))
			check(t, a, store.ClassOK, 200)
			r := <-got
			if r.method == http.MethodPost || r.method == http.MethodPut {
				r.header["Content-Length"] = []string{fmt.Sprint(len(r.body))} // Go's server does not show one of 0
			}
			if a.Request.Method != r.method || a.Request.URL != r.target {
				t.Errorf("got %s %s, want %s %s", a.Request.Method, a.Request.URL, r.method, r.target)
			}
			on, want := fmt.Sprint(headerOf(a.Request)), fmt.Sprint(r.header)
			if on != want {
				t.Errorf("got\n%s\nwant\n%s", on, want)
			}
			if !slices.IsSortedFunc(a.Request.Header, func(a, b store.Field) int { return strings.Compare(a.Name, b.Name) }) {
				t.Errorf("got %v, want it in the order of names", a.Request.Header)
			}
			if templated := strings.Contains(c.name, "template"); a.Request.Rendered != templated || a.Request.Truncated {
				t.Errorf("got rendered %v, truncated %v, want %v, false", a.Request.Rendered, a.Request.Truncated, templated)
			} else if templated && string(a.Request.Body) != r.body || !templated && a.Request.Body != nil {
				t.Errorf("got body %q, want %q if it was rendered", a.Request.Body, r.body)
			}
		})
	}
}

func TestSecretsOfTheRequestAreMasked(t *testing.T) {
	hmac, err := sign.NewHMAC(sign.HMACOptions{Header: "X-Auth-Signature", Secret: "canary-of-hmac"})
	if err != nil {
		t.Fatal(err)
	}
	f := newFarEnd(t)
	got := f.receives(t, false, "")
	send := func(t *testing.T, change func(*egress.Options)) (store.Sent, received) {
		t.Helper()
		a := f.sender(t, change).Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassOK, 200)
		return a.Request, <-got
	}
	for _, c := range []struct {
		name, header, want string
		auth               egress.Auth
	}{
		{"basic", "Authorization", "Basic ***", egress.Auth{Basic: &egress.Basic{Username: "u", Password: "p"}}},
		{"bearer", "Authorization", "Bearer ***", egress.Auth{Bearer: &egress.Bearer{Token: "t"}}},
		{"an API key", "X-Odd", "***", egress.Auth{APIKey: &egress.APIKey{Header: "X-Odd", Value: "k"}}},
		{"an API key with a scheme", "Authorization", "ApiKey ***", egress.Auth{APIKey: &egress.APIKey{Header: "Authorization", Value: "ApiKey a b"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sent, r := send(t, func(o *egress.Options) { o.Auth = c.auth })
			if got := field(t, sent, c.header); got != c.want || r.header[c.header][0] == c.want {
				t.Errorf("got %q, and %q was sent; want %q", got, r.header[c.header], c.want)
			}
		})
	}
	t.Run("headers by their names, their values and their fixed parts", func(t *testing.T) {
		sent, r := send(t, func(o *egress.Options) {
			o.Signers = append(o.Signers, hmac)
			o.PlainHeader = []string{"x-env", "X-Short-Key"}
			o.Secrets = []string{"canary-ref", "short"}
			o.ForwardHeader = []string{"X-App-Token", "X-App"}
			o.Header = []egress.Header{
				{Name: "X-Api-Key", Value: "k"}, {Name: "X-Short-Key", Value: "plain-or-not"}, {Name: "X-Env", Value: "production"},
				{Name: "X-Team", Value: "data"}, {Name: "X-Long", Value: "long-enough-to-be-one"},
				{Name: "X-Made", Value: `from {{ "short" }} canary-made {{ .Event }}`}, {Name: "X-Session-Id", Value: "{{ .Event }}"},
			}
			o.Messages = posted{m: store.Message{Event: "e", Header: []store.Field{
				{Name: "X-App-Token", Value: "t"}, {Name: "X-App", Value: "has canary-ref in it"},
			}}}
		})
		for name, want := range map[string]string{
			"X-Api-Key": "***", "X-Short-Key": "***", "X-Env": "production", "X-Team": "data", "X-Long": "***",
			"X-Made": "from short***e", "X-Session-Id": "***", "X-App-Token": "***", "X-App": "has *** in it",
			"X-Auth-Signature": r.header["X-Auth-Signature"][0], "Webhook-Signature": r.header["Webhook-Signature"][0],
		} {
			if got := field(t, sent, name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	})
	t.Run("the address", func(t *testing.T) {
		sent, _ := send(t, func(o *egress.Options) {
			o.URL = parseURL(t, "https://"+farHost+"/services/T0/canary-path?v=1&a=canary%2fa&sig=s&b")
			o.Secrets = []string{"https://" + strings.ToUpper(farHost) + ":443/services/T0/canary-path"}
			o.ForwardPath = true
			o.Messages = posted{m: store.Message{Path: "/more?id=123456789&api_key=k&%zz"}}
		})
		want := "https://" + farHost + "/***/more?v=1&a=***&sig=***&b&id=123456789&api_key=***&%zz"
		if sent.URL != want {
			t.Errorf("got %s, want %s", sent.URL, want)
		}
	})
	t.Run("what a template makes of references", func(t *testing.T) {
		sent, r := send(t, func(o *egress.Options) {
			o.Body, o.ContentType, o.Secrets = `{"token":"canary-ref","id":"{{ .ID }}"}`, "application/json", []string{"canary-ref"}
		})
		if want := strings.Replace(r.body, "canary-ref", "**********", 1); string(sent.Body) != want || want == r.body {
			t.Errorf("got %s, want %s", sent.Body, want)
		}
	})
}

func TestRequestIsOnRecordIfThereWasOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		class  store.Class
		change func(*egress.Options)
		want   bool
	}{
		{"nothing listens", store.ClassConnect, nil, true},
		{"the guard refuses", store.ClassBlocked, func(o *egress.Options) {
			o.Transport = guard.NewTransport(guard.TransportOptions{Dialer: &guard.Dialer{Resolve: map[string]netip.Addr{farHost: netip.MustParseAddr("127.1.2.3")}}})
		}, true},
		{"no message", store.ClassRender, func(o *egress.Options) { o.Messages = messages{err: store.ErrNotFound} }, false},
		{"a template fails", store.ClassRender, func(o *egress.Options) { o.Body = "{{ .Data.none }}" }, false},
		{"no token", store.ClassBlocked, func(o *egress.Options) {
			o.Auth = egress.Auth{OAuth2: &egress.OAuth2{
				ClientID: "c", ClientSecrets: []string{"secret-of-the-test"}, TokenURL: parseURL(t, "https://none.example.test/token"),
				Client: guard.NewClient(guard.TransportOptions{Dialer: &guard.Dialer{Resolve: map[string]netip.Addr{"none.example.test": netip.MustParseAddr("127.1.2.3")}}}),
			}}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newFarEnd(t).sender(t, c.change).Send(t.Context(), newDelivery(t))
			check(t, a, c.class, 0)
			if (a.Request.Method == "POST") != c.want || (len(a.Request.Header) > 0) != c.want {
				t.Errorf("got %v and request %+v, want one %v", a.Class, a.Request, c.want)
			}
		})
	}
}

func TestTokenIsMaskedInTheRecord(t *testing.T) {
	_, r, s := oauthPair(t, nil, nil)
	a := s.Send(t.Context(), newDelivery(t))
	check(t, a, store.ClassOK, 200)
	if got := field(t, a.Request, "Authorization"); got != "Bearer ***" {
		t.Errorf("got %q, want Bearer ***", got)
	}
	if r.Stats().Distinct != 1 {
		t.Errorf("got %+v, want one request taken", r.Stats())
	}
}

func TestCertificateExpiryIsAlwaysOnRecord(t *testing.T) {
	for _, http1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http1 %v", http1), func(t *testing.T) {
			f := newFarEnd(t)
			hang := make(chan struct{})
			f.serve(t, http1, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Hang") != "" {
					select {
					case <-hang:
					case <-r.Context().Done():
					}
				}
			})
			defer close(hang)
			transport := f.transport(t, f.dialer())
			change := func(o *egress.Options) { o.Transport = transport }
			first := f.sender(t, change).Send(t.Context(), newDelivery(t))
			second := f.sender(t, change).Send(t.Context(), newDelivery(t))
			third := f.sender(t, func(o *egress.Options) {
				change(o)
				o.Header, o.Timeout = []egress.Header{{Name: "X-Hang", Value: "1"}}, 300*time.Millisecond
			}).Send(t.Context(), newDelivery(t))
			check(t, first, store.ClassOK, 200)
			check(t, second, store.ClassOK, 200)
			check(t, third, store.ClassTimeout, 0)
			if first.Reused || !second.Reused || !third.Reused {
				t.Errorf("got reused %v, %v, %v, want false, true, true", first.Reused, second.Reused, third.Reused)
			}
			want := f.issue(t, farHost).Leaf.NotAfter
			for i, a := range []store.Attempt{first, second, third} {
				if d := want.Sub(a.CertExpires); d < -time.Minute || d > time.Minute {
					t.Errorf("attempt %d: got %v, want about %v", i+1, a.CertExpires, want)
				}
			}
		})
	}
}

func TestTestIsAnAttempt(t *testing.T) {
	f := newFarEnd(t)
	got := f.receives(t, false, `{"status":"fine"}`)
	id := newDelivery(t).ID.Message()
	m := store.Message{
		ID: id, Event: "sample", ContentType: "application/json", AcceptedAt: time.Now(),
		Recipients: []store.Recipient{{Destination: "far"}},
	}
	s := f.sender(t, func(o *egress.Options) {
		o.Messages, o.OmitBody, o.KeepResponse = nil, true, 10
		o.Body = `{"to":"{{ .Destination }}","id":"{{ .DeliveryID }}","event":"{{ .Event }}","data":{{ .Body }}}`
	})
	a := s.Test(t.Context(), m, []byte(`{"n":1}`))
	check(t, a, store.ClassOK, 200)
	r := <-got
	want := fmt.Sprintf(`{"to":"far","id":"%s","event":"sample","data":{"n":1}}`, id.Delivery(0))
	if r.body != want || string(a.Request.Body) != want {
		t.Errorf("got %s sent and %s on record, want %s", r.body, a.Request.Body, want)
	}
	if a.Delivery != id.Delivery(0) || a.Number != 1 || a.Round != 1 || r.header["Webhook-Id"][0] != id.String() {
		t.Errorf("got delivery %v, number %d, round %d, id %v", a.Delivery, a.Number, a.Round, r.header["Webhook-Id"])
	}
	if string(a.Body) != `{"status":` || !a.Truncated || a.Timing.FirstByte <= 0 || a.Peer == "" {
		t.Errorf("got answer %s, truncated %v, timing %+v, peer %q; want all of an attempt", a.Body, a.Truncated, a.Timing, a.Peer)
	}
	t.Run("our own stop ends it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		check(t, s.Test(ctx, m, nil), store.ClassInterrupted, 0)
	})
	t.Run("a template that fails sends nothing", func(t *testing.T) {
		check(t, s.Test(t.Context(), m, bytes.Repeat([]byte("x"), 2<<20)), store.ClassRender, 0)
		if len(got) > 0 {
			t.Error("a request was sent")
		}
	})
}
