package egress

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

func TestRenderHeaders(t *testing.T) {
	for _, c := range []struct {
		name, value, body string
		want              string
		fault             string // in the error; empty means none
	}{
		{"a field", "{{ .Event }}", "{}", "alert.fired", ""},
		{"text around it", "v1 {{ .Destination }}; x", "{}", "v1 alerts; x", ""},
		{"white space around it is not sent", " {{ .Event }}\t", "{}", "alert.fired", ""},
		{"the body", "{{ .Body }}", "plain", "plain", ""},
		{"a hash of the body", `sha256={{ hmac "sha256" "Jefe" .Body }}`, "what do ya want for nothing?", "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", ""},
		{"a line break in the data", "{{ .Data.x }}", `{"x":"a\r\nHost: evil"}`, "", "headers.X-T: it makes a value with a line break"},
		{"a line feed in the body", "{{ .Body }}", "a\nb", "", "headers.X-T: it makes a value with a line break"},
		{"a NUL", "{{ .Data.x }}", `{"x":"\u0000"}`, "", "headers.X-T: it makes a value with a line break"},
		{"just inside the length", "{{ .Body }}", strings.Repeat("x", maxHeaderValue), strings.Repeat("x", maxHeaderValue), ""},
		{"just outside the length", "{{ .Body }}", strings.Repeat("x", maxHeaderValue+1), "", "headers.X-T: it makes a value of 8193 bytes; at most 8192"},
		{"what is missing", "{{ .Data.x }}", "{}", "", "headers.X-T: line 1, column 4: .Data.x is missing or null"},
		{"the data of a template are no template", "{{ .Data.x }}", `{"x":"{{ .Event }}"}`, "{{ .Event }}", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSender(t, func(o *Options) { o.Header = []Header{{Name: "X-T", Value: c.value}} })
			req, err := s.render(newJob(t, c.body))
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("got %v, want %q", err, c.fault)
				}
				return
			}
			if err != nil || !slices.Equal(req.Header["X-T"], []string{c.want}) {
				t.Errorf("got %v, %v, want %.40q", req, err, c.want)
			}
		})
	}
	t.Run("a user agent by template", func(t *testing.T) {
		s := newSender(t, func(o *Options) { o.Header = []Header{{Name: "user-agent", Value: "Acme/{{ .Destination }}"}} })
		req, err := s.render(newJob(t, "{}"))
		if err != nil || !slices.Equal(req.Header["User-Agent"], []string{"Acme/alerts"}) {
			t.Errorf("got %v, %v, want the user agent of the template alone", req, err)
		}
	})
	t.Run("what is fixed in a template is a secret", func(t *testing.T) {
		s := newSender(t, func(o *Options) {
			o.Header = []Header{{Name: "X-T", Value: `token canary-1 {{ hmac "sha256" "canary-22" .Body }}{{ "short" }}`}, {Name: "User-Agent", Value: "Acme-Agent/{{ .ID }}"}}
		})
		for _, want := range []string{"token canary-1 ", "token+canary-1+", "canary-1 ", "canary-22"} {
			if !slices.Contains(s.secrets, want) {
				t.Errorf("got %q, want %q among them", s.secrets, want)
			}
		}
		for _, secret := range s.secrets {
			if strings.Contains(secret, "Acme") || strings.Contains(secret, "short") {
				t.Errorf("got %q among the secrets", secret)
			}
		}
	})
	t.Run("a replay is marked, the first round is not", func(t *testing.T) {
		s := newSender(t, func(*Options) {})
		for round, want := range map[int][]string{1: nil, 2: {"1"}, 7: {"6"}} {
			j := newJob(t, "{}")
			j.d.Round = round
			req, err := s.render(j)
			if err != nil || !slices.Equal(req.Header[store.ReplayHeader], want) {
				t.Errorf("round %d: got %v, %v, want the mark %q", round, req, err, want)
			}
		}
	})
	t.Run("a name is never a template", func(t *testing.T) {
		_, err := New(Options{URL: &url.URL{Scheme: "https", Host: "h"}, Header: []Header{{Name: "X-{{ .ID }}", Value: "v"}}})
		if err == nil || !strings.Contains(err.Error(), "is not a header name") {
			t.Errorf("got %v, want an error", err)
		}
	})
}

func readAll(t testing.TB, req *http.Request) string {
	t.Helper()
	b, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRenderBody(t *testing.T) {
	for _, c := range []struct {
		name, text, contentType, body string
		want, fault                   string
	}{
		{"without a template it is sent as it came", "", "application/json", "{{ .ID }} no JSON", "{{ .ID }} no JSON", ""},
		{"the body of a message is no template", `{"data":{{ .Body }}}`, "application/json", `"{{ .ID }}"`, `{"data":"{{ .ID }}"}`, ""},
		{"JSON that is none", `{"data":{{ .Body }}}`, "application/json", `no JSON`, "", "body: not JSON: at byte 9"},
		{"JSON of a kind", `{"data":{{ .Body }}}`, "application/vnd.acme+json; charset=utf-8", `{`, "", "body: not JSON: "},
		{"another type may be anything", `data={{ .Body }}`, "text/plain", `{`, "data={", ""},
		{"the type of the app counts if there is no other", `{"data":{{ .Body }}}`, "", `{`, "", "body: not JSON: "},
		{"bytes that are not UTF-8", `{"data":{{ .Body }}}`, "application/json", "\"\xff\"", "", "body: not JSON: "},
		{"bytes that are not UTF-8 through json", `{"data":{{ json .Body }}}`, "application/json", "\xff", "{\"data\":\"\ufffd\"}", ""},
		{"a name twice passes through", `{"data":{{ .Body }}}`, "application/json", `{"a":1,"a":2}`, `{"data":{"a":1,"a":2}}`, ""},
		{"an empty body as text", `{"data":{{ json .Body }}}`, "application/json", "", `{"data":""}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := new(sign.Input)
			s := newSender(t, func(o *Options) {
				o.Body, o.ContentType, o.Signers = c.text, c.contentType, []sign.Signer{signed{seen: seen}}
			})
			req, err := s.render(newJob(t, c.body))
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("got %v, want %q", err, c.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := readAll(t, req)
			if got != c.want || req.ContentLength != int64(len(c.want)) {
				t.Errorf("got %q of length %d, want %q", got, req.ContentLength, c.want)
			}
			if string(seen.Body) != got {
				t.Errorf("%q was signed, %q is sent", seen.Body, got)
			}
		})
	}
}

// FuzzRender holds that whatever an app posts becomes one request with the lines that it should have, and that
// exactly that is what is signed.
func FuzzRender(f *testing.F) {
	f.Add(`{"x":"y"}`, "application/json", "r-1", "/a/b?c=d", "k")
	f.Add("\r\n", "text/plain\r\nX: y", "a\r\nb: c", "/..", "\x00")
	f.Add(`{"x":"\r\nHost: evil"}`, "", "", "?", "\n")
	f.Fuzz(func(t *testing.T, body, contentType, id, path, key string) {
		seen := new(sign.Input)
		s := newSender(t, func(o *Options) {
			o.Header = []Header{{Name: "X-X", Value: "{{ .Data.x }}"}, {Name: "X-Key", Value: "{{ .Key }}"}, {Name: "X-Fixed", Value: "fixed"}}
			o.ForwardPath, o.Signers = true, []sign.Signer{signed{headers: []sign.Header{{Name: "X-Sig", Value: "s"}}, seen: seen}}
		})
		j := newJob(t, body)
		j.m.ContentType, j.m.Key, j.m.Path = contentType, key, path
		j.m.Header = []store.Field{{Name: "X-Request-Id", Value: id}}
		req, err := s.render(j)
		if err != nil {
			return
		}
		sent := readAll(t, req)
		if sent != body || string(seen.Body) != body {
			t.Errorf("got %q, signed %q, want %q", sent, seen.Body, body)
		}
		signedHeader := req.Header.Clone()
		signedHeader.Del("X-Sig")
		if !reflect.DeepEqual(seen.Header, signedHeader) || seen.URL.String() != req.URL.String() || seen.Method != req.Method {
			t.Errorf("signed: %v %v %v, sent: %v %v %v", seen.Method, seen.URL, seen.Header, req.Method, req.URL, signedHeader)
		}
		var wire bytes.Buffer
		req.Body, req.ContentLength = http.NoBody, 0
		if err := req.Write(&wire); err != nil {
			t.Fatal(err)
		}
		// The request line, Host, Content-Length and one line for each header, then an empty one.
		if got, want := strings.Count(wire.String(), "\n"), 1+1+1+len(req.Header)+1; got != want {
			t.Errorf("got %d lines, want %d:\n%s", got, want, wire.String())
		}
	})
}

// TestSignedIsSent checks signatures over all of a request against what arrives in net/http's own form.
func TestSignedIsSent(t *testing.T) {
	seen := new(sign.Input)
	s := newSender(t, func(o *Options) {
		o.Method, o.ForwardPath, o.ContentType = "PUT", true, "application/json"
		o.ForwardHeader = []string{"Idempotency-Key", "X-Request-Id"}
		o.Header = []Header{{Name: "X-Event", Value: "{{ .Event }}"}, {Name: "x-team", Value: "data"}}
		o.Auth.Bearer = &Bearer{Token: "token-of-the-test"}
		o.Body = `{"data":{{ .Body }}}`
		o.Signers = []sign.Signer{signed{seen: seen, headers: []sign.Header{{Name: "x-sig", Value: "s"}}}}
	})
	j := newJob(t, `{"a":1}`)
	j.m.Path = "/a%20b?c=d"
	j.m.Header = append(j.m.Header, store.Field{Name: "Idempotency-Key", Value: "k"})
	req, err := s.render(j)
	if err != nil {
		t.Fatal(err)
	}
	var wire bytes.Buffer
	if err := req.Write(&wire); err != nil {
		t.Fatal(err)
	}
	arrived, err := http.ReadRequest(bufio.NewReader(&wire))
	if err != nil {
		t.Fatal(err)
	}
	body := readAll(t, arrived)
	if string(seen.Body) != body || body != `{"data":{"a":1}}` {
		t.Errorf("%q was signed, %q arrived", seen.Body, body)
	}
	if seen.Method != arrived.Method || seen.URL.RequestURI() != arrived.RequestURI || seen.URL.Host != arrived.Host || arrived.RequestURI != "/hook/a%20b?c=d" {
		t.Errorf("%s %v was signed, %s %s %s arrived", seen.Method, seen.URL, arrived.Method, arrived.Host, arrived.RequestURI)
	}
	for _, name := range []string{"Content-Length", "X-Sig"} { // what net/http and the signer add
		if arrived.Header.Get(name) == "" {
			t.Errorf("%s did not arrive", name)
		}
		arrived.Header.Del(name)
	}
	if !reflect.DeepEqual(seen.Header, arrived.Header) {
		t.Errorf("signed:  %v\narrived: %v", seen.Header, arrived.Header)
	}
}

func TestLiteralHeader(t *testing.T) {
	t.Run("it is sent as it is", func(t *testing.T) {
		for _, value := range []string{`{{ .ID }}`, `{{canary`, `{{ canary "x" }} }}`, "plain"} {
			s := newSender(t, func(o *Options) { o.Header = []Header{{Name: "X-T", Value: value, Literal: true}} })
			req, err := s.render(newJob(t, "{}"))
			if err != nil || !slices.Equal(req.Header["X-T"], []string{value}) {
				t.Errorf("got %v, %v, want %q", req, err, value)
			}
		}
	})
	t.Run("it is a secret as a whole", func(t *testing.T) {
		s := newSender(t, func(o *Options) { o.Header = []Header{{Name: "X-T", Value: `{{ "canary" }}`, Literal: true}} })
		if !slices.Contains(s.secrets, `{{ "canary" }}`) {
			t.Errorf("got %q", s.secrets)
		}
	})
	t.Run("it must be a value of a header, and its error does not repeat it", func(t *testing.T) {
		_, err := New(Options{URL: &url.URL{Scheme: "https", Host: "h"}, Header: []Header{{Name: "X-T", Value: "{{canary\n}}", Literal: true}}})
		if err == nil || !strings.HasPrefix(err.Error(), "headers.X-T: value holds a line break") || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v, want an error about the line break", err)
		}
	})
}

// TestSignersSeeTheSameRequest holds with and without a header that is kept under another key: no signer is shown what
// another adds.
func TestSignersSeeTheSameRequest(t *testing.T) {
	hmac, err := sign.NewHMAC(sign.HMACOptions{Header: "X-Sig", Secret: "secret of the test"})
	if err != nil {
		t.Fatal(err)
	}
	covering, err := sign.NewRFC9421(sign.RFC9421Options{Secret: "secret of the test", Components: []string{"@method", "x-sig"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, header := range map[string][]Header{
		"plain": {{Name: "X-A", Value: "1"}}, "with an idempotency key": {{Name: "X-A", Value: "1"}, {Name: "Idempotency-Key", Value: "k"}},
	} {
		t.Run(name, func(t *testing.T) {
			var seen [3]sign.Input
			s := newSender(t, func(o *Options) {
				o.Header = header
				o.Signers = []sign.Signer{
					signed{seen: &seen[0], headers: []sign.Header{{Name: "X-First", Value: "1"}}}, hmac,
					signed{seen: &seen[1], headers: []sign.Header{{Name: "X-Second", Value: "1"}}}, signed{seen: &seen[2]},
				}
			})
			req, err := s.render(newJob(t, "{}"))
			if err != nil {
				t.Fatal(err)
			}
			for i, in := range seen {
				if !reflect.DeepEqual(in.Header, seen[0].Header) || len(in.Header["X-A"]) != 1 || len(in.Header["X-Sig"])+len(in.Header["X-First"]) > 0 {
					t.Errorf("signer %d was shown %v, want what the first was shown: %v", i, in.Header, seen[0].Header)
				}
			}
			for _, name := range []string{"X-First", "X-Sig", "X-Second"} {
				if len(req.Header[name]) != 1 {
					t.Errorf("%s: got %q", name, req.Header[name])
				}
			}
			for _, signers := range [][]sign.Signer{{hmac, covering}, {covering, hmac}} {
				_, err := New(Options{URL: &url.URL{Scheme: "https", Host: "h"}, Header: header, Signers: signers})
				if err == nil || !strings.Contains(err.Error(), "x-sig, which the signature covers") {
					t.Errorf("got %v, want the signature of a signature refused", err)
				}
			}
		})
	}
}

func TestSignersShareAHeader(t *testing.T) {
	one := func(values ...string) sign.Signer {
		var all []sign.Header
		for i := 0; i < len(values); i += 2 {
			all = append(all, sign.Header{Name: values[i], Value: values[i+1], Join: ", "})
		}
		return signed{headers: all}
	}
	alone := signed{headers: []sign.Header{{Name: "Signature", Value: "x"}}}
	for _, c := range []struct {
		name    string
		signers []sign.Signer
		want    http.Header
		fault   string
	}{
		{"dictionaries are joined", []sign.Signer{one("signature", "a=:AA==:"), one("Signature", "b=:BB==:"), one("Signature", "c=:CC==:")},
			http.Header{"Signature": {"a=:AA==:, b=:BB==:, c=:CC==:"}}, ""},
		{"what is identical is sent once", []sign.Signer{one("Signature", "a=:AA==:", "Content-Digest", "sha-256=:AA==:"), one("Signature", "b=:BB==:", "Content-Digest", "sha-256=:AA==:")},
			http.Header{"Signature": {"a=:AA==:, b=:BB==:"}, "Content-Digest": {"sha-256=:AA==:"}}, ""},
		{"a header that is not to be shared", []sign.Signer{alone, alone}, nil, "sign[1]: Signature is set by sign[0] already; remove one of them"},
		{"one that shares and one that does not", []sign.Signer{one("Signature", "a=:AA==:"), alone}, nil, "sign[1]: Signature is set by sign[0] already; remove one of them"},
		{"one that does not share and one that does", []sign.Signer{alone, one("Signature", "a=:AA==:")}, nil, "sign[1]: Signature is set by sign[0] already; remove one of them"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := New(Options{URL: &url.URL{Scheme: "https", Host: "h"}, Signers: c.signers})
			if c.fault != "" {
				if err == nil || err.Error() != c.fault {
					t.Errorf("got %v, want %q", err, c.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			req, err := s.render(newJob(t, "{}"))
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range c.want {
				if got := req.Header[name]; !slices.Equal(got, want) {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
	t.Run("a header of the config is not shared", func(t *testing.T) {
		_, err := New(Options{URL: &url.URL{Scheme: "https", Host: "h"}, Signers: []sign.Signer{one("Signature", "a=:AA==:")}, Header: []Header{{Name: "signature", Value: "b"}}})
		if err == nil || !strings.Contains(err.Error(), "headers.signature: Signature is set by sign[0] already") {
			t.Errorf("got %v, want an error", err)
		}
	})
}

// signed is a signer that shows what it was given.
type signed struct {
	headers []sign.Header
	seen    *sign.Input
}

func (s signed) Headers() []sign.Header { return s.headers }

func (s signed) Sign(in sign.Input) ([]sign.Header, error) {
	if s.seen != nil {
		*s.seen = in
		s.seen.Header = in.Header.Clone()
	}
	return s.headers, nil
}
