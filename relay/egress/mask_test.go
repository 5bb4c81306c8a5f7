package egress

import (
	"net/url"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

func TestMaskURL(t *testing.T) {
	for _, c := range []struct {
		name, base, more string
		secrets          []string
		want             string
	}{
		{"nothing to mask", "https://h/p", "", nil, "https://h/p"},
		{"a question mark alone", "https://h/p?", "", nil, "https://h/p?"},
		{"a query behind a question mark alone", "https://h/p?", "?a=b", nil, "https://h/p?a=b"},
		{"seven bytes are none", "https://h/p?a=1234567", "", nil, "https://h/p?a=1234567"},
		{"eight may be one", "https://h/p?a=12345678&b=1", "", nil, "https://h/p?a=***&b=1"},
		{"a short one by its name", "https://h/p?api%5Fkey=1&code=2&sig=3", "", nil, "https://h/p?api%5Fkey=***&code=***&sig=***"},
		{"a name that cannot be read", "https://h/p?%zz=1", "", nil, "https://h/p?%zz=***"},
		{"an empty value", "https://h/p?key=&key", "", nil, "https://h/p?key=&key"},
		{"what the app adds", "https://h/p?a=12345678", "/q?a=12345678&token=1", nil, "https://h/p/q?a=***&a=12345678&token=***"},
		{"a secret that somebody has encoded", "https://h/a%2fsecret%20x/%63anary", "", []string{"a/secret x", "canary"}, "https://h/***/***"},
		{"a secret that is encoded in part", "https://h/p%2fx?a=%7Ecanary", "", []string{"~canary"}, "https://h/p%2fx?a=***"},
		{"the slash behind the host stays", "https://h/secret/more", "", []string{"/secret/"}, "https://h/***more"},
		{"secrets that overlap or touch", "https://h/canary-ab-secret/x", "", []string{"canary-ab", "ab-secret", "/x-not"}, "https://h/***/x"},
		{"a secret over path and query", "https://h/secret?v=1&b=2", "", []string{"secret?v=1"}, "https://h/***&b=2"},
		{"a secret that ends within a value", "https://h/?a=12345678&b=1", "", []string{"?a=123"}, "https://h/***&b=1"},
		{"a secret in path and host", "https://secret-1.example/a/secret-1/b", "", []string{"secret-1"}, "https://***.example/a/***/b"},
		{"a short secret would be found everywhere", "https://h/p", "", []string{"h"}, "https://h/p"},
	} {
		t.Run(c.name, func(t *testing.T) {
			base, err := url.Parse(c.base)
			if err != nil {
				t.Fatal(err)
			}
			u, err := joinPath(base, c.more)
			if err != nil {
				t.Fatal(err)
			}
			if got := maskURL(u, base, masked, c.secrets); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func FuzzMaskURL(f *testing.F) {
	f.Add("/a/canary-secret?b=canary-secret&c", "/d?token=canary-secret")
	f.Add("?%zz=1&&=;canary-secret", "")
	f.Add("", "?a=%63anary-secret")
	f.Fuzz(func(t *testing.T, base, more string) {
		b, err := url.Parse("https://h.example" + base)
		if err != nil || b.Host != "h.example" || b.Fragment != "" {
			return
		}
		u, err := joinPath(b, more)
		if err != nil {
			return
		}
		got := maskURL(u, b, masked, []string{"canary-secret"})
		if strings.Contains(got, "canary-secret") {
			t.Fatalf("%s became %s", u, got)
		}
		if plain := maskURL(u, b, masked, nil); len(u.RawQuery) == 0 && plain != u.String() {
			t.Fatalf("%s became %s without secrets", u, plain)
		}
	})
}

func TestMaskCredential(t *testing.T) {
	for v, want := range map[string]string{
		"Basic dTpw": "Basic ***", "bearer t": "bearer ***", "Token a b": "Token ***", "ApiKey a:b": "ApiKey ***", "Digest x": "Digest ***",
		"mine is secret": "***", "Bearer": "***", "": "***", " x": "***",
	} {
		if got := maskCredential(v, masked); got != want {
			t.Errorf("%q: got %q, want %q", v, got, want)
		}
	}
}

// BenchmarkSent is what the record of the request adds to an attempt.
func BenchmarkSent(b *testing.B) {
	standard, err := sign.NewStandard([]string{sign.NewSecret()})
	if err != nil {
		b.Fatal(err)
	}
	s := newSender(b, func(o *Options) {
		o.URL, _ = url.Parse("https://hooks.example.com/alerts?key=0123456789")
		o.Auth.Bearer = &Bearer{Token: "a-token-of-some-length"}
		o.Header = []Header{{Name: "X-Team", Value: "data"}, {Name: "X-Event", Value: "{{ .Event }}"}}
		o.Signers = []sign.Signer{standard}
	})
	m := store.Message{Event: "alert.fired", ContentType: "application/json"}
	req, err := s.render(sampleJob(m, []byte(`{"a":1}`)))
	if err != nil {
		b.Fatal(err)
	}
	size := 0
	b.ReportAllocs()
	for b.Loop() {
		sent := s.sent(req, false)
		size = len(sent.Method) + len(sent.URL)
		for _, f := range sent.Header {
			size += len(f.Name) + len(f.Value)
		}
	}
	b.ReportMetric(float64(size), "bytes-kept")
}
