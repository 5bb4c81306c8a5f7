package egress

import (
	"net/http"
	"net/url"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

func TestCheckForwardHeader(t *testing.T) {
	for name, want := range map[string]string{
		"X-Request-Id": "", "x-request-id": "", "User-Agent": "", "Accept-Language": "", "Idempotency-Key": "", "Traceparent": "",
		"Authorization": "use auth or headers", "authorization": "use auth or headers", "Cookie": "use auth or headers",
		"Host": "host of url", "Content-Type": "set content_type", "Content-Encoding": "describes the body",
		"content-disposition": "describes the body", "Content-Length": "belongs to the connection",
		"Connection": "belongs to the connection", "TE": "belongs to the connection", "Upgrade": "belongs to the connection",
		"Keep-Alive": "belongs to the connection", "Proxy-Anything": "belongs to the connection",
		"Transfer-Encoding": "belongs to the connection", "Webhook-Id": "webhook- headers", "webhook-signature": "webhook- headers",
		"Postern-Hops": "counts relays", "Postern-Key": "meant for Postern", "postern-delay": "meant for Postern",
		"": "is not a header name", "X A": "is not a header name", "X-A:": "is not a header name", "X-Ä": "is not a header name",
	} {
		err := CheckForwardHeader(name)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", name, err, want)
		}
	}
	t.Run("New names the place in the list", func(t *testing.T) {
		_, err := New(Options{URL: &url.URL{Scheme: "https", Host: "h"}, ForwardHeader: []string{"X-A", "Cookie"}})
		if err == nil || !strings.Contains(err.Error(), "forward_headers[1]: Cookie is not allowed") {
			t.Errorf("got %v, want an error at forward_headers[1]", err)
		}
	})
}

func TestForwardHeader(t *testing.T) {
	hmac, err := sign.NewHMAC(sign.HMACOptions{Header: "X-Sig", Secret: "secret of the test"})
	if err != nil {
		t.Fatal(err)
	}
	fields := func(nameValues ...string) []store.Field {
		var all []store.Field
		for i := 0; i < len(nameValues); i += 2 {
			all = append(all, store.Field{Name: nameValues[i], Value: nameValues[i+1]})
		}
		return all
	}
	for _, c := range []struct {
		name    string
		forward []string
		change  func(*Options)
		posted  []store.Field
		want    http.Header // of the names in it; an empty list means that it is not sent
	}{
		{"what is named", []string{"x-a"}, nil, fields("X-A", "1", "X-B", "2"), http.Header{"X-A": {"1"}, "X-B": nil}},
		{"nothing, if it did not come", []string{"x-a"}, nil, nil, http.Header{"X-A": nil}},
		{"several values in their order", []string{"x-a"}, nil, fields("X-A", "1", "X-A", "2"), http.Header{"X-A": {"1", "2"}}},
		{"the trace without being named", nil, nil, fields("Traceparent", "00-a-b-01", "Tracestate", "v=1", "Tracestate", "w=2"),
			http.Header{"Traceparent": {"00-a-b-01"}, "Tracestate": {"v=1", "w=2"}}},
		{"the attributes of a CloudEvent", nil, nil, fields("Ce-Id", "1", "Ce-Subject", "s", "Cex", "no"), http.Header{"Ce-Id": {"1"}, "Ce-Subject": {"s"}, "Cex": nil}},
		{"what is stored without being named is not", nil, nil, fields("Authorization", "a", "Cookie", "b", "Host", "c", "X-A", "d"),
			http.Header{"Authorization": nil, "Cookie": nil, "Host": nil, "X-A": nil}},
		{"a header of the config wins", []string{"X-A"}, func(o *Options) { o.Header = []Header{{Name: "x-a", Value: "ours"}} },
			fields("X-A", "theirs"), http.Header{"X-A": {"ours"}}},
		{"a template wins", []string{"X-A"}, func(o *Options) { o.Header = []Header{{Name: "x-a", Value: "{{ .Event }}"}} },
			fields("X-A", "theirs"), http.Header{"X-A": {"alert.fired"}}},
		{"a template may use what it replaces", []string{"X-A"}, func(o *Options) { o.Header = []Header{{Name: "x-a", Value: `{{ .Header "X-A" }}, ours`}} },
			fields("X-A", "theirs"), http.Header{"X-A": {"theirs, ours"}}},
		{"auth wins", []string{"X-Key"}, func(o *Options) { o.Auth.APIKey = &APIKey{Header: "x-key", Value: "ours"} },
			fields("X-Key", "theirs"), http.Header{"X-Key": {"ours"}}},
		{"a trace of the config wins", nil, func(o *Options) { o.Header = []Header{{Name: "Traceparent", Value: "ours"}} },
			fields("Traceparent", "theirs"), http.Header{"Traceparent": {"ours"}}},
		{"the default user agent gives way", []string{"User-Agent"}, nil, fields("User-Agent", "App/1"), http.Header{"User-Agent": {"App/1"}}},
		{"a user agent of the config does not", []string{"User-Agent"}, func(o *Options) { o.Header = []Header{{Name: "User-Agent", Value: "Acme/1"}} },
			fields("User-Agent", "App/1"), http.Header{"User-Agent": {"Acme/1"}}},
		{"a key that net/http would act on is in lower case", []string{"Idempotency-Key"}, nil, fields("Idempotency-Key", "k"),
			http.Header{"idempotency-key": {"k"}, "Idempotency-Key": nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSender(t, func(o *Options) {
				o.ForwardHeader, o.Signers = c.forward, []sign.Signer{hmac}
				if c.change != nil {
					c.change(o)
				}
			})
			j := newJob(t, "{}")
			j.m.Header = c.posted
			for range 2 { // twice, since the headers that all requests share must not be touched
				req, err := s.render(j)
				if err != nil {
					t.Fatal(err)
				}
				for name, want := range c.want {
					if got := req.Header[name]; !slices.Equal(got, want) {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
			}
		})
	}
	t.Run("a signature is never the app's", func(t *testing.T) {
		s := newSender(t, func(o *Options) { o.ForwardHeader, o.Signers = []string{"X-Sig"}, []sign.Signer{hmac} })
		j := newJob(t, "{}")
		j.m.Header = fields("X-Sig", "forged", "Webhook-Id", "forged", "Postern-Hops", "0")
		req, err := s.render(j)
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range req.Header {
			if len(values) != 1 || values[0] == "forged" || name == store.HopsHeader && values[0] != "1" {
				t.Errorf("%s: got %q", name, values)
			}
		}
	})
	t.Run("an invalid value sends nothing", func(t *testing.T) {
		for value, want := range map[string]string{
			"a\r\nHost: evil": "its value is invalid: it holds a line break or another control character", "a\x00": "its value is invalid: it holds a line break or another control character",
			strings.Repeat("x", maxHeaderValue+1): "its value of 8193 bytes is too long; at most 8192 are allowed",
		} {
			j := newJob(t, "{}")
			j.m.Header = fields("X-Request-Id", value)
			_, err := newSender(t, nil).render(j)
			if err == nil || err.Error() != "forward_headers: X-Request-Id of the message cannot be sent: "+want {
				t.Errorf("%.20q: got %v, want %q", value, err, want)
			}
		}
	})
}

func TestJoinPath(t *testing.T) {
	for _, c := range []struct{ base, more, want string }{ // an empty want means refused
		{"https://h/hook", "", "https://h/hook"},
		{"https://h/hook", "/a/b", "https://h/hook/a/b"},
		{"https://h/hook/", "/a/b", "https://h/hook/a/b"},
		{"https://h", "/a", "https://h/a"},
		{"https://h/", "/a", "https://h/a"},
		{"https://h/hook", "/", "https://h/hook/"},
		{"https://h/hook", "/a/", "https://h/hook/a/"},
		{"https://h/hook", "?c=d", "https://h/hook?c=d"},
		{"https://h/hook", "/a?c=d&e", "https://h/hook/a?c=d&e"},
		{"https://h/hook?key=v", "/a?c=d", "https://h/hook/a?key=v&c=d"},
		{"https://h/hook?key=v", "?", "https://h/hook?key=v"},
		{"https://h/hook?key=v", "/a", "https://h/hook/a?key=v"},
		{"https://h", "?a=/../b", "https://h?a=/../b"},
		{"https://h/hook", "?a=b?c=%0d%0a%", "https://h/hook?a=b?c=%0d%0a%"},
		{"https://h/a%2Fb", "/c%20d", "https://h/a%2Fb/c%20d"},
		{"https://h/hook", "/group%2Fproject", "https://h/hook/group%2Fproject"},
		{"https://h/hook", "/a:b@c;d=e,f", "https://h/hook/a:b@c;d=e,f"},
		{"https://h/hook", "/a..b/...", "https://h/hook/a..b/..."},
		{"https://h/hook", "/%E2%98%82", "https://h/hook/%E2%98%82"},
		{"https://h/hook", "/100%25", "https://h/hook/100%25"},
		{"https://h/hook", "/@evil.com/", "https://h/hook/@evil.com/"},

		{"https://h/hook", "a", ""},
		{"https://h/hook", "@evil.com", ""},
		{"https://h/hook", ":8443/x", ""},
		{"https://h", "//evil.com/x", ""},
		{"https://h/hook", "/a b", ""},
		{"https://h/hook", "/a\r\nHost: evil", ""},
		{"https://h/hook", "/ä", ""},
		{"https://h/hook", "/a#b", ""},
		{"https://h/hook", "?a#b", ""},
		{"https://h/hook", "?a b", ""},
		{"https://h/hook", "?a\nb", ""},
		{"https://h/hook", "/" + strings.Repeat("x", maxForwardPath), ""},
	} {
		base, err := url.Parse(c.base)
		if err != nil {
			t.Fatal(err)
		}
		before := *base
		u, err := joinPath(base, c.more)
		switch {
		case c.want == "":
			if err == nil {
				t.Errorf("%s and %.40q: got %s, want an error", c.base, c.more, u)
			}
		case err != nil || u.String() != c.want:
			t.Errorf("%s and %q: got %v, %v, want %s", c.base, c.more, u, err, c.want)
		}
		if !reflect.DeepEqual(*base, before) {
			t.Errorf("%s and %q: the base was changed", c.base, c.more)
		}
	}
	t.Run("the longest is allowed", func(t *testing.T) {
		if _, err := joinPath(&url.URL{Scheme: "https", Host: "h"}, "/"+strings.Repeat("x", maxForwardPath-1)); err != nil {
			t.Error(err)
		}
	})
}

// TestForwardPaths reads the table that the test of package ingest reads too.
func TestForwardPaths(t *testing.T) {
	table, err := os.ReadFile("testdata/paths.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(table)) {
		want, more, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || want == "#" {
			continue
		}
		seen[want]++
		for _, base := range []string{"https://h", "https://h/hook", "https://h/hook/?k=v"} {
			u, err := url.Parse(base)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := joinPath(u, more); (err == nil) != (want == "ok") {
				t.Errorf("%s and %s: got %v, %v, want %s", base, more, got, err, want)
			}
		}
	}
	if seen["ok"] < 20 || seen["no"] < 70 || len(seen) != 2 {
		t.Errorf("got a table of %v lines", seen)
	}
}

// FuzzJoinPath holds that what is joined stays on its host and below its path, however often it is decoded, and has no
// line break.
func FuzzJoinPath(f *testing.F) {
	for _, more := range []string{"/a/b?c=d", "/../x", "/%2e%2e/x", "/a%2f..%2f..", "//evil", "/a\\..\\b", "?x", "/%25%32%65%2e/x", "/;..", "/..;x", "/%c0%ae%c0%ae/x"} {
		f.Add(more)
	}
	f.Fuzz(func(t *testing.T, more string) {
		base := &url.URL{Scheme: "https", Host: "h.example", Path: "/hook/in", RawQuery: "k=v"}
		u, err := joinPath(base, more)
		if err != nil {
			return
		}
		if u.Scheme != "https" || u.Host != "h.example" || u.User != nil || u.Fragment != "" || !strings.HasPrefix(u.RawQuery, "k=v") {
			t.Errorf("%q: got %v", more, u)
		}
		again, err := url.Parse(u.String())
		if err != nil || again.Host != u.Host || again.EscapedPath() != u.EscapedPath() || again.RawQuery != u.RawQuery {
			t.Errorf("%q: %v is read as %v, %v", more, u, again, err)
		}
		if target := u.RequestURI(); strings.ContainsAny(target, "\r\n \x00") || !strings.HasPrefix(target, "/hook/in") {
			t.Errorf("%q: the target is %q", more, target)
		}
		text := u.EscapedPath()
		for range 5 {
			for _, slashed := range []string{text, strings.ReplaceAll(text, `\`, "/")} {
				if clean := path.Clean(slashed); clean != "/hook/in" && !strings.HasPrefix(clean, "/hook/in/") {
					t.Errorf("%q: %q leads to %q", more, text, clean)
				}
			}
			plain, err := url.PathUnescape(text)
			if err != nil {
				break
			}
			if !utf8.ValidString(plain) {
				t.Errorf("%q: %q is no UTF-8", more, plain)
			}
			text = plain
		}
	})
}

func TestForwardPath(t *testing.T) {
	for _, c := range []struct {
		forward    bool
		path, want string // in the error if it begins with "forward_path"
	}{
		{true, "/a/b?c=d", "https://hooks.example.com/hook/a/b?c=d"},
		{true, "", "https://hooks.example.com/hook"},
		{false, "/a/b?c=d", "https://hooks.example.com/hook"},
		{false, "/../..", "https://hooks.example.com/hook"},
		{true, "/../x", "forward_path: the path has a . or .. segment"},
	} {
		seen := new(sign.Input)
		s := newSender(t, func(o *Options) { o.ForwardPath, o.Signers = c.forward, []sign.Signer{signed{seen: seen}} })
		j := newJob(t, "{}")
		j.m.Path = c.path
		req, err := s.render(j)
		if strings.HasPrefix(c.want, "forward_path") {
			if err == nil || err.Error() != c.want {
				t.Errorf("%q: got %v, want %q", c.path, err, c.want)
			}
			continue
		}
		if err != nil || req.URL.String() != c.want || req.Host != "hooks.example.com" {
			t.Errorf("%q: got %v, %v, want %s", c.path, req, err, c.want)
		} else if seen.URL.String() != c.want {
			t.Errorf("%q: %v was signed, want %s", c.path, seen.URL, c.want)
		}
	}
}
