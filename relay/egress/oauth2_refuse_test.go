package egress_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store"
)

func TestTokenEndpointRefuses(t *testing.T) {
	const canary = "canary&secret"
	f := newFarEnd(t)
	e := newTokenEnd(f)
	r := f.receive(t, false)
	var answer atomic.Value
	e.serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			t.Error("a redirect was followed")
		}
		h, ok := answer.Load().(http.HandlerFunc)
		if !ok {
			t.Error("no answer is set")
			return
		}
		h(w, r)
	})
	says := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const asJSON = "application/json"
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // in the error; empty means that there is a token
	}{
		{"a token without a type", says(200, asJSON, `{"access_token":"canary-token"}`), ""},
		{"a token in a form", says(200, "application/x-www-form-urlencoded", "access_token=canary-token&token_type=Bearer&expires_in=60"), ""},
		{"a life as text", says(200, asJSON, `{"access_token":"canary-token","expires_in":"60"}`), ""},
		{"a wrong client", says(401, asJSON, `{"error":"invalid_client","error_description":"Client authentication failed"}`),
			"answered 401 Unauthorized, error invalid_client; it says: Client authentication failed"},
		{"an error without a description", says(400, asJSON, `{"error":"invalid_scope"}`), "answered 400 Bad Request, error invalid_scope"},
		{"an error that is answered 200", says(200, asJSON, `{"error":"invalid_request","access_token":"canary-token"}`), "answered 200 OK, error invalid_request"},
		{"an error in a form", says(400, "application/x-www-form-urlencoded", "error=invalid_grant&error_description=no+way"), "error invalid_grant; it says: no way"},
		{"an error that repeats the secret", says(400, asJSON, `{"error":"invalid_client","error_description":"bad secret `+canary+`"}`), "bad secret *************"},
		{"an error that repeats the secret as sent", says(400, asJSON, `{"error":"`+url.QueryEscape(canary)+`"}`), "it says: ***"},
		{"an error whose end cuts the secret in two", says(400, asJSON, `{"error":"x","error_description":"`+strings.Repeat("y", 247)+canary+`"}`), "y***…"},
		{"an error that repeats the secret in JSON", says(400, asJSON, `{"error":"x","error_description":"{\"secret\":\"canary\\u0026secret\"}"}`), `{"secret":"******************"}`},
		{"a description without an error", says(400, asJSON, `{"error_description":"no way"}`), "answered 400 Bad Request; it says: no way"},
		{"an error for a terminal", says(400, asJSON, `{"error":"a\u001b[2J\u202eb\u2028"}`), `it says: a\u001b[2J\u202eb\u2028`},
		{"a type that cuts the secret in two", says(200, asJSON, `{"access_token":"t","token_type":"`+strings.Repeat("z", 55)+canary+`"}`), "zz******…"},
		{"an error with a line break", says(400, asJSON, `{"error":"a\nb\u0000"}`), `it says: a\u000ab\u0000`},
		{"a long error", says(400, asJSON, `{"error":"x","error_description":"`+strings.Repeat("long ", 5000)+`"}`), "long long"},
		{"an error page", says(502, "text/html", "<html>canary</html>"), "answered 502 Bad Gateway"},
		{"a huge error page", says(500, "text/html", strings.Repeat("canary", 100_000)), "answered 500 Internal Server Error"},
		{"a page", says(200, "text/html", "<html>canary</html>"), "holds no access_token"},
		{"JSON that breaks off", says(200, asJSON, `{"access_token":"canary`), "holds no access_token"},
		{"JSON of another shape", says(200, asJSON, `["canary"]`), "holds no access_token"},
		{"an empty token", says(200, asJSON, `{"access_token":""}`), "holds no access_token"},
		{"nothing", says(200, asJSON, ""), "holds no access_token"},
		{"a status without content", says(204, asJSON, ""), "holds no access_token"},
		{"a huge answer", says(200, asJSON, `{"x":"`+strings.Repeat("x", 64<<10)+`","access_token":"canary-token"}`), "larger than 64 KiB"},
		{"a token for another scheme", says(200, asJSON, `{"access_token":"canary-token","token_type":"mac"}`), "and only those can be sent; it says: mac"},
		{"a token with a line break", says(200, asJSON, `{"access_token":"canary\r\nX-Evil: 1"}`), "byte 7 of its token"},
		{"a token with a space", says(200, asJSON, `{"access_token":"canary token"}`), "byte 7 of its token"},
		{"a token beyond ASCII", says(200, asJSON, `{"access_token":"canaryé"}`), "byte 7 of its token"},
		{"a token that is too long", says(200, asJSON, `{"access_token":"`+strings.Repeat("t", 8<<10)+`"}`), "its token has 8192 bytes"},
		{"a redirect", says(307, asJSON, ""), "answered 307 Temporary Redirect; redirects are never followed, so write the new address as token_url"},
		{"an answer that breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"access_token":"canary`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "its answer broke off"},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "connection closed by the token endpoint"},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer.Store(c.answer)
			s := f.sender(t, func(o *egress.Options) {
				o.Auth = e.auth(t, e.dialer(), func(o *egress.OAuth2) { o.ClientSecrets = []string{canary} })
			})
			before := r.Stats().Requests
			a := s.Send(t.Context(), newDelivery(t))
			if c.want == "" {
				check(t, a, store.ClassOK, 200)
				return
			}
			check(t, a, store.ClassAuth, 0)
			if want := fmt.Sprintf("no token from %q: ", tokenHost); !strings.HasPrefix(a.Error, want) || !strings.Contains(a.Error, c.want) {
				t.Errorf("got %q, want %q and %q in it", a.Error, want, c.want)
			}
			if strings.Contains(a.Error, "canary") || len(a.Error) > 400 {
				t.Errorf("got %q, want a short text without a secret or the answer", a.Error)
			}
			if a.RetryHint != 0 || a.Body != nil || a.Header != nil || a.Peer != "" {
				t.Errorf("got %+v, want nothing of the endpoint's answer beside the text", a)
			}
			if got := r.Stats().Requests - before; got != 0 {
				t.Errorf("the receiver got %d requests, want none", got)
			}
		})
	}
	t.Run("and repeats a token that it gave out before", func(t *testing.T) {
		now := time.Now()
		s := f.sender(t, func(o *egress.Options) {
			o.Auth, o.Now = e.auth(t, e.dialer(), nil), func() time.Time { return now }
		})
		answer.Store(says(200, asJSON, `{"access_token":"canary-token","expires_in":60}`))
		check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
		now = now.Add(time.Minute)
		answer.Store(says(400, asJSON, `{"error":"invalid_grant","error_description":"canary-token is no longer valid"}`))
		a := s.Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassAuth, 0)
		if !strings.HasSuffix(a.Error, "error invalid_grant; it says: ************ is no longer valid") {
			t.Errorf("got %q, want the token masked", a.Error)
		}
	})
	t.Run("and asks for a pause", func(t *testing.T) {
		for value, want := range map[string]time.Duration{
			"30": 30 * time.Second, "7200": time.Hour, "soon": 0, time.Now().Add(2 * time.Minute).UTC().Format(http.TimeFormat): 2 * time.Minute,
		} {
			at := time.Now().Truncate(time.Second)
			answer.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", value)
				w.WriteHeader(429)
			}))
			s := f.sender(t, func(o *egress.Options) {
				o.Auth, o.Now = e.auth(t, e.dialer(), nil), func() time.Time { return at }
			})
			for range 2 { // the second one hears of it without asking
				a := s.Send(t.Context(), newDelivery(t))
				check(t, a, store.ClassAuth, 0)
				if d := a.RetryHint - want; d < -2*time.Second || d > 2*time.Second || want == 0 && a.RetryHint != 0 {
					t.Errorf("%q: got hint %v, want %v", value, a.RetryHint, want)
				}
			}
			answer.Store(http.HandlerFunc(e.server.ServeHTTP))
			pause := max(min(want, time.Minute), time.Second) // nobody is kept from a mended endpoint for longer
			at = at.Add(pause - 2*time.Second + 1)
			if pause > time.Second {
				check(t, s.Send(t.Context(), newDelivery(t)), store.ClassAuth, 0)
			}
			at = at.Add(4 * time.Second)
			check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
		}
	})
}

func TestTokenEndpointIsOutOfReach(t *testing.T) {
	f := newFarEnd(t)
	r := f.receive(t, false)
	sender := func(t *testing.T, e *tokenEnd, d *guard.Dialer) *egress.Sender {
		return f.sender(t, func(o *egress.Options) { o.Auth = e.auth(t, d, nil) })
	}
	for _, c := range []struct {
		name  string
		make  func(t *testing.T, e *tokenEnd) *guard.Dialer
		class store.Class
		want  string
	}{
		{"connection refused", func(_ *testing.T, e *tokenEnd) *guard.Dialer { return e.dialer() }, store.ClassAuth, "connection refused while connecting"},
		{"no such name", func(*testing.T, *tokenEnd) *guard.Dialer {
			return &guard.Dialer{Resolver: lookup{err: &net.DNSError{Err: "x", Name: tokenHost, IsNotFound: true}}}
		}, store.ClassAuth, "does not resolve: no such host"},
		{"blocked by the guard", func(t *testing.T, e *tokenEnd) *guard.Dialer {
			e.serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the endpoint was reached") })
			return &guard.Dialer{Resolve: map[string]netip.Addr{tokenHost: e.addr}}
		}, store.ClassBlocked, "is not allowed"},
		{"a certificate of nobody", func(t *testing.T, e *tokenEnd) *guard.Dialer {
			cert, err := receiver.SelfSigned(tokenHost)
			if err != nil {
				t.Fatal(err)
			}
			e.talk(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
			return e.dialer()
		}, store.ClassAuth, "not signed by a trusted authority"},
		{"no TLS", func(t *testing.T, e *tokenEnd) *guard.Dialer {
			e.talk(t, nil, func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1000))
				_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			})
			return e.dialer()
		}, store.ClassAuth, "the token endpoint does not speak TLS on port 443"},
		{"no HTTP", func(t *testing.T, e *tokenEnd) *guard.Dialer {
			e.talk(t, &tls.Config{Certificates: []tls.Certificate{e.issue(t, tokenHost)}}, func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1000))
				_, _ = io.WriteString(c, "220 canary\r\n")
			})
			return e.dialer()
		}, store.ClassAuth, "the answer is not HTTP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newTokenEnd(f)
			a := sender(t, e, c.make(t, e)).Send(t.Context(), newDelivery(t))
			check(t, a, c.class, 0)
			if !strings.Contains(a.Error, tokenHost) || !strings.Contains(a.Error, c.want) || strings.Contains(a.Error, "canary") {
				t.Errorf("got %q, want %q and %q in it", a.Error, tokenHost, c.want)
			}
		})
	}
	if got := r.Stats().Requests; got != 0 {
		t.Errorf("the receiver got %d requests, want none", got)
	}
}
