package egress

import (
	"bytes"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

func TestCheckHeader(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        string // in the error; empty means allowed
	}{
		{"X-Team", "data", ""},
		{"User-Agent", "Acme/1.0", ""},
		{"Authorization", "Token abc", ""},
		{"Idempotency-Key", "k", ""},
		{"x-lower", "", ""},
		{"X-Tab", "a\tb", ""},
		{"X-Latin", "caf\xe9", ""},
		{"X-Emoji", "☂", ""},
		{"Content-Encoding", "gzip", ""},
		{"Webhook", "is no webhook- header", ""},
		{"X-Webhook-Id", "is one of theirs", ""},
		{strings.Repeat("n", maxHeaderName), "v", ""},
		{strings.Repeat("n", maxHeaderName+1), "v", "is not a header name"},
		{"X-Long", strings.Repeat("v", maxHeaderValue), ""},
		{"X-Long", strings.Repeat("v", maxHeaderValue+1), "too long"},
		{"", "v", "is not a header name"},
		{"X Team", "v", "is not a header name"},
		{"X-Team:", "v", "is not a header name"},
		{":authority", "v", "is not a header name"},
		{"X-Team\r\nHost", "v", "is not a header name"},
		{"X-Täm", "v", "is not a header name"},
		{"X-CR", "a\rb", "line break"},
		{"X-LF", "a\nb", "line break"},
		{"X-NL", "token\n", "line break"},
		{"X-NUL", "a\x00b", "line break"},
		{"X-DEL", "a\x7fb", "line break"},
		{"Host", "h", "it is the host of url"},
		{"hOST", "h", "it is the host of url"},
		{"Content-Type", "text/plain", "set content_type"},
		{"Content-Length", "1", "belongs to the connection"},
		{"Transfer-Encoding", "chunked", "belongs to the connection"},
		{"Connection", "close", "belongs to the connection"},
		{"Keep-Alive", "5", "belongs to the connection"},
		{"Proxy-Connection", "close", "belongs to the connection"},
		{"Proxy-Authorization", "x", "belongs to the connection"},
		{"Proxy-Authenticate", "x", "belongs to the connection"},
		{"TE", "trailers", "belongs to the connection"},
		{"Trailer", "X", "belongs to the connection"},
		{"Upgrade", "h2c", "belongs to the connection"},
		{"HTTP2-Settings", "x", "belongs to the connection"},
		{"Expect", "100-continue", "belongs to the connection"},
		{"webhook-id", "1", "webhook- headers itself"},
		{"Webhook-Timestamp", "1", "webhook- headers itself"},
		{"WEBHOOK-SIGNATURE", "1", "webhook- headers itself"},
		{"webhook-anything", "1", "webhook- headers itself"},
	} {
		t.Run(clip(c.name, 40)+" "+clip(c.value, 20), func(t *testing.T) {
			err := CheckHeader(c.name, c.value)
			if c.want == "" {
				if err != nil {
					t.Errorf("got %v, want no error", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	t.Run("errors do not hold the value", func(t *testing.T) {
		err := CheckHeader("X-Token", "canary-secret\n")
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v, want an error without the value", err)
		}
	})
}

// FuzzCheckHeader holds that whatever passes adds one line to a request and nothing else.
func FuzzCheckHeader(f *testing.F) {
	f.Add("X-Team", "data")
	f.Add("X-A\r\nX-B", "v")
	f.Add("X-A", "v\r\n\r\nGET / HTTP/1.1")
	f.Add("Host", "h")
	f.Add("webhook-id", "\x00")
	f.Fuzz(func(t *testing.T, name, value string) {
		if CheckHeader(name, value) != nil {
			return
		}
		lines := func(h http.Header) int {
			var b bytes.Buffer
			r := &http.Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "h"}, Header: h, Body: http.NoBody}
			if err := r.Write(&b); err != nil {
				t.Fatalf("%q: %q passes and cannot be written: %v", name, value, err)
			}
			return bytes.Count(b.Bytes(), []byte("\n"))
		}
		bare := http.Header{"User-Agent": {"x"}}
		with := http.Header{"User-Agent": {"x"}}
		with[headerKey(name)] = []string{value}
		more := 1
		if http.CanonicalHeaderKey(name) == "User-Agent" {
			more = 0
			if value == "" {
				more = -1 // net/http takes an empty one for none at all
			}
		}
		if got, want := lines(with), lines(bare)+more; got != want {
			t.Errorf("%q: %q gives %d lines, want %d", name, value, got, want)
		}
	})
}

func TestCheckContentType(t *testing.T) {
	for _, v := range []string{"", "application/json", "text/plain; charset=utf-8", "application/cloudevents+json"} {
		if err := CheckContentType(v); err != nil {
			t.Errorf("%q: got %v, want no error", v, err)
		}
	}
	for _, v := range []string{"json", "a b", "application/json\r\nHost: h", ";", "/", "text/"} {
		if CheckContentType(v) == nil {
			t.Errorf("%q is allowed", v)
		}
	}
}

func TestKeepHeader(t *testing.T) {
	big := strings.Repeat("b", 5000)
	for _, c := range []struct {
		name    string
		in      http.Header
		secrets []string
		want    http.Header
	}{
		{"what is small is kept", http.Header{"A": {"1", "2"}, "B": {"3"}}, nil, http.Header{"A": {"1", "2"}, "B": {"3"}}},
		{"cookies keep their names only", http.Header{"Set-Cookie": {"sid=abc; Path=/", "odd", "b d=1"}}, nil,
			http.Header{"Set-Cookie": {"sid=***", "***", "***"}}},
		{"secrets are masked", http.Header{"X-Echo": {"Bearer tokentoken!"}}, []string{"tokentoken"},
			http.Header{"X-Echo": {"Bearer **********!"}}},
		{"a name that holds a secret is left out", http.Header{"X-Tokentoken": {"1"}, "Y": {"2"}}, []string{"tokenTOKEN", "Y"}, http.Header{"Y": {"2"}}},
		{"what does not fit is dropped by order of names", http.Header{"C": {big}, "A": {big}, "D": {"small"}}, nil,
			http.Header{"A": {big}, "D": {"small"}}},
		{"just inside the bound", http.Header{"A": {strings.Repeat("a", maxKeptHeader-1)}}, nil,
			http.Header{"A": {strings.Repeat("a", maxKeptHeader-1)}}},
		{"just outside the bound", http.Header{"A": {strings.Repeat("a", maxKeptHeader)}}, nil, http.Header{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := keepHeader(c.in, c.secrets); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestMaskBytes(t *testing.T) {
	for _, c := range []struct {
		in      string
		secrets []string
		want    string
	}{
		{"nothing here", []string{"secret"}, "nothing here"},
		{"secret", []string{"secret"}, "******"},
		{"a secret and a secret", []string{"secret"}, "a ****** and a ******"},
		{"secretsecret", []string{"secret"}, "************"},
		{"longersecret secret", []string{"longersecret", "secret"}, "************ ******"},
		{"", []string{"secret"}, ""},
	} {
		b := []byte(c.in)
		maskBytes(b, c.secrets)
		if got := string(b); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}
