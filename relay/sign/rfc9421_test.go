package sign

import (
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
)

// What follows is from RFC 9421, Appendix B: keys for testing, which everybody knows.
const (
	rfcShared  = "base64:uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
	rfcEd25519 = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----`
	rfcEd25519Public = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----`
	rfcECDSA = `-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIFKbhfNZfpDsW43+0+JjUr9K+bTeuxopu653+hBaXGA7oAoGCCqGSM49
AwEHoUQDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lfw0EkjqF7xB4FivAxzic30tMM
4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END EC PRIVATE KEY-----`
	rfcECDSAPublic = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----`
	rfcDigest  = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
	rfcBody    = `{"hello": "world"}`
	rfcCreated = 1618884473
)

// rfcRequest is the request of Appendix B.2.
func rfcRequest() Request {
	return Request{
		Method: "POST",
		URL:    &url.URL{Scheme: "https", Host: "example.com", Path: "/foo", RawQuery: "param=Value&Pet=dog"},
		Header: http.Header{
			"Date": {"Tue, 20 Apr 2021 02:07:55 GMT"}, "Content-Type": {"application/json"},
			"Content-Digest": {rfcDigest}, "Content-Length": {"18"},
		},
		Body: []byte(rfcBody),
	}
}

// base is the signature base of a request under the given Signature-Input, without its label.
func baseOf(t testing.TB, r Request, input string, value func(component) (string, error)) (string, httpsfv.InnerList) {
	t.Helper()
	d, err := httpsfv.UnmarshalDictionary([]string{"x=" + input})
	if err != nil {
		t.Fatalf("%s: %v", input, err)
	}
	member, _ := d.Get("x")
	list, ok := member.(httpsfv.InnerList)
	if !ok {
		t.Fatalf("%s is no inner list", input)
	}
	var covered []component
	for _, item := range list.Items {
		name, _ := item.Value.(string)
		text, err := httpsfv.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		covered = append(covered, component{name, item, text})
	}
	if value == nil {
		value = r.message().value
	}
	base, params, err := signatureBase(list, covered, value)
	if err != nil {
		t.Fatalf("signatureBase: %v", err)
	}
	if params != input {
		t.Errorf("parameters: got %s, want %s", params, input)
	}
	return string(base), list
}

func TestRFC9421Bases(t *testing.T) {
	for _, tt := range []struct{ name, input, want string }{
		{
			"B.2.1: nothing but a nonce", `();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"`,
			`"@signature-params": ();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"`,
		},
		{
			"B.2.2: some components", `("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"`,
			`"@authority": example.com
"content-digest": ` + rfcDigest + `
"@query-param";name="Pet": dog
"@signature-params": ("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"`,
		},
		{
			"B.2.3: all of it", `("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"`,
			`"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@query": ?param=Value&Pet=dog
"@authority": example.com
"content-type": application/json
"content-digest": ` + rfcDigest + `
"content-length": 18
"@signature-params": ("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := baseOf(t, rfcRequest(), tt.input, nil); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestRFC9421Vectors(t *testing.T) {
	response := func(c component) (string, error) { // that of B.2.4
		return map[string]string{
			"@status": "200", "content-type": "application/json", "content-length": "23",
			"content-digest": "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:",
		}[c.name], nil
	}
	for _, tt := range []struct {
		name, input, want string
		value             func(component) (string, error)
		keys              []string
		same              bool // the algorithm makes the same signature each time
	}{
		{
			"B.2.4: ecdsa-p256-sha256", `("@status" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-ecc-p256"`,
			"wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==",
			response, []string{rfcECDSA, rfcECDSAPublic}, false,
		},
		{
			"B.2.5: hmac-sha256", `("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`,
			"pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=", nil, []string{rfcShared}, true,
		},
		{
			"B.2.6: ed25519", `("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`,
			"wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
			nil, []string{rfcEd25519, rfcEd25519Public}, true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base, _ := baseOf(t, rfcRequest(), tt.input, tt.value)
			want, err := base64.StdEncoding.DecodeString(tt.want)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range tt.keys {
				k, err := parseRequestKey(text, "")
				if err != nil {
					t.Fatalf("parseRequestKey: %v", err)
				}
				if !k.verify([]byte(base), want) {
					t.Error("the signature of the RFC does not verify")
				}
				if k.verify([]byte(base+" "), want) || k.verify([]byte(base), want[1:]) || k.verify([]byte(base), nil) {
					t.Error("another base or signature verifies")
				}
				if !k.canSign() {
					continue
				}
				first, err := k.sign([]byte(base))
				if err != nil {
					t.Fatalf("sign: %v", err)
				}
				if got := base64.StdEncoding.EncodeToString(first); tt.same && got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
				second, err := k.sign([]byte(base))
				if err != nil || string(second) != string(first) {
					t.Errorf("the second signature is another one, or %v", err)
				}
				if !k.verify([]byte(base), first) {
					t.Error("our own signature does not verify")
				}
			}
		})
	}
	t.Run("B.2.5 as a whole request", func(t *testing.T) {
		r := rfcRequest()
		r.Header["Signature-Input"] = []string{`sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`}
		r.Header["Signature"] = []string{`sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:`}
		v := newVerifier(t, rfcShared)
		if err := v.Verify(r, time.Unix(rfcCreated, 0)); !errors.Is(err, ErrNotCovered) {
			t.Errorf("with a body: got %v, want %v", err, ErrNotCovered)
		}
		r.Body = nil
		if err := v.Verify(r, time.Unix(rfcCreated, 0)); err != nil {
			t.Errorf("without a body: got %v, want none", err)
		}
	})
}

func newVerifier(t testing.TB, keys ...string) *RFC9421Verifier {
	t.Helper()
	v, err := NewRFC9421Verifier("", "", keys)
	if err != nil {
		t.Fatalf("NewRFC9421Verifier: %v", err)
	}
	return v
}

// TestComponents holds the values of section 2 of the RFC, mostly its own examples.
func TestComponents(t *testing.T) {
	header := http.Header{
		"X-Ows-Header": {"  Leading and trailing whitespace.\t"}, "X-Empty-Header": {""},
		"Cache-Control": {"max-age=60", "   must-revalidate"},
		"Example-Dict":  {`a=1,    b=2;x=1;y=2`, `c=(a   b   c), d`},
		"X-Line":        {"a\r\nb"},
	}
	for _, tt := range []struct{ component, url, want string }{
		{"x-ows-header", "https://h/", "Leading and trailing whitespace."},
		{"x-empty-header", "https://h/", ""},
		{"cache-control", "https://h/", "max-age=60, must-revalidate"},
		{"cache-control;bs", "https://h/", ":bWF4LWFnZT02MA==:, :bXVzdC1yZXZhbGlkYXRl:"},
		{`example-dict;key="a"`, "https://h/", "1"},
		{`example-dict;key="b"`, "https://h/", "2;x=1;y=2"},
		{`example-dict;key="c"`, "https://h/", "(a b c)"},
		{`example-dict;key="d"`, "https://h/", "?1"},
		{"@method", "https://h/", "POST"},
		{"@authority", "https://WWW.Example.com/path", "www.example.com"},
		{"@authority", "https://example.com:443/", "example.com"},
		{"@authority", "https://example.com:8443/", "example.com:8443"},
		{"@authority", "http://example.com:80/", "example.com"},
		{"@authority", "http://example.com:443/", "example.com:443"},
		{"@authority", "https://[::1]:443/", "[::1]"},
		{"@authority", "https://bücher.example/", "xn--bcher-kva.example"},
		{"@scheme", "HTTPS://example.com/", "https"},
		{"@path", "https://example.com/path?param=value", "/path"},
		{"@path", "https://example.com", "/"},
		{"@path", "https://example.com?a", "/"},
		{"@path", "https://example.com/a%2Fb/%C3%BC/", "/a%2Fb/%C3%BC/"},
		{"@query", "https://example.com/path?param=value&foo=bar&baz=bat%2Dman", "?param=value&foo=bar&baz=bat%2Dman"},
		{"@query", "https://example.com/path?queryString", "?queryString"},
		{"@query", "https://example.com/path", "?"},
		{"@query", "https://example.com/path?", "?"},
		{"@request-target", "https://example.com/path?param=value", "/path?param=value"},
		{"@request-target", "https://example.com", "/"},
		{"@target-uri", "https://www.example.com/path?param=value", "https://www.example.com/path?param=value"},
		{"@target-uri", "https://WWW.example.com:443", "https://www.example.com/"},
		{`@query-param;name="baz"`, "https://h/path?param=value&foo=bar&baz=batman&qux=", "batman"},
		{`@query-param;name="qux"`, "https://h/path?param=value&foo=bar&baz=batman&qux=", ""},
		{
			`@query-param;name="var"`, "https://h/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace",
			"this%20is%20a%20big%0Amultiline%20value",
		},
		{`@query-param;name="bar"`, "https://h/parameters?bar=with+plus+whitespace", "with%20plus%20whitespace"},
		{`@query-param;name="fa%C3%A7ade%22%3A%20"`, "https://h/p?fa%C3%A7ade%22%3A%20=something", "something"},
		{`@query-param;name="a"`, "https://h/p?a=*~-._", "*%7E-._"},
	} {
		t.Run(tt.component+" of "+tt.url, func(t *testing.T) {
			c, err := parseComponent(tt.component)
			if err != nil {
				t.Fatalf("parseComponent: %v", err)
			}
			u, err := url.Parse(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Request{Method: "POST", URL: u, Header: header}.message().value(c)
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	for _, tt := range []struct{ component, query, want string }{
		{"x-missing", "", "x-missing"},
		{`example-dict;key="e"`, "", `no member "e"`},
		{`x-ows-header;key="e"`, "", "not a dictionary"},
		{"x-line", "", "line end"},
		{`@query-param;name="a"`, "a=1&a=2", "2 parameters"},
		{`@query-param;name="a"`, "b=1", "0 parameters"},
		{`@query-param;name="a"`, "a=%zz", "taken apart"},
	} {
		t.Run("no "+tt.component+" of ?"+tt.query, func(t *testing.T) {
			c, err := parseComponent(tt.component)
			if err != nil {
				t.Fatalf("parseComponent: %v", err)
			}
			u := &url.URL{Scheme: "https", Host: "h", RawQuery: tt.query}
			_, err = Request{URL: u, Header: header}.message().value(c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	for component, want := range map[string]string{
		"@status": "not known", "": "not the name", "a b": "not the name", `a";b="`: "", "signature": "made by the signature",
		"@query-param": "lacks the name", "date;sf": `parameter "sf"`, "@method;bs": `parameter "bs"`, "date;req": `"req"`, "date;": "cannot be read",
	} {
		t.Run("component "+component+" is refused", func(t *testing.T) {
			if _, err := parseComponent(component); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want an error with %q", err, want)
			}
		})
	}
}

func webhookInput() Input {
	return Input{
		ID: "msg_1", Time: time.Unix(1700000000, 0), Body: []byte(`{"a":1}`), Method: "POST",
		URL:    &url.URL{Scheme: "https", Host: "Hooks.Example.com:443", RawQuery: "x=1"},
		Header: http.Header{"Content-Type": {"application/json"}, "X-Team": {"data"}},
	}
}

// received is the request as it arrives after being signed by all of signers.
func received(t testing.TB, in Input, signers ...Signer) Request {
	t.Helper()
	h := in.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set(HeaderID, in.ID)
	h.Set(HeaderTimestamp, "1700000000")
	for _, s := range signers {
		headers, err := s.Sign(in)
		if err != nil {
			t.Fatalf("Sign: %v", err)
		}
		for _, x := range headers {
			switch earlier := h.Get(x.Name); {
			case earlier == "" || earlier == x.Value:
				h.Set(x.Name, x.Value)
			case x.Join == "":
				t.Fatalf("%s is set twice", x.Name)
			default:
				h.Set(x.Name, earlier+x.Join+x.Value)
			}
		}
	}
	return Request{Method: in.Method, URL: in.URL, Header: h, Body: in.Body}
}

func newRFC9421(t testing.TB, o RFC9421Options) *RFC9421 {
	t.Helper()
	s, err := NewRFC9421(o)
	if err != nil {
		t.Fatalf("NewRFC9421: %v", err)
	}
	return s
}

func TestRFC9421Sign(t *testing.T) {
	now := time.Unix(1700000000, 0)
	t.Run("the default covers all that matters", func(t *testing.T) {
		r := received(t, webhookInput(), newRFC9421(t, RFC9421Options{KeyID: "k 1", Secret: rfcEd25519}))
		const want = `sig1=("@method" "@authority" "@path" "@query" "content-digest" "content-type" "webhook-id" ` +
			`"webhook-timestamp");created=1700000000;keyid="k 1";alg="ed25519"`
		if got := r.Header.Get("Signature-Input"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		// From: printf '{"a":1}' | openssl dgst -sha256 -binary | base64
		if got, want := r.Header.Get("Content-Digest"), "sha-256=:AVq9f1zFei3ZS3WQ8ErYCEJzkF7jPsXOvq5iJ2qX+GI=:"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		base, _ := baseOf(t, r, strings.TrimPrefix(want, "sig1="), nil)
		if want := "\"@method\": POST\n\"@authority\": hooks.example.com\n\"@path\": /\n\"@query\": ?x=1\n"; !strings.HasPrefix(base, want) {
			t.Errorf("got %s, want a base that begins with %s", base, want)
		}
	})
	t.Run("without a content type it is not covered", func(t *testing.T) {
		in := webhookInput()
		in.Header, in.Body, in.Method = nil, nil, "GET"
		r := received(t, in, newRFC9421(t, RFC9421Options{Secret: rfcEd25519}))
		if got := r.Header.Get("Signature-Input"); strings.Contains(got, "content-type") || !strings.Contains(got, "content-digest") {
			t.Errorf("got %s", got)
		}
		if err := newVerifier(t, rfcEd25519Public).Verify(r, now); err != nil {
			t.Errorf("got %v, want none", err)
		}
	})
	t.Run("three signatures side by side verify, each by its own key", func(t *testing.T) {
		r := received(t, webhookInput(), newStandard(t, v1Secret),
			newRFC9421(t, RFC9421Options{Label: "a", Secret: rfcEd25519}),
			newRFC9421(t, RFC9421Options{Label: "b", Secret: rfcShared, Components: []string{"X-Team", "content-digest"}}),
			newRFC9421(t, RFC9421Options{Label: "c", Secret: rfcECDSA}))
		for label, key := range map[string]string{"a": rfcEd25519Public, "b": rfcShared, "c": rfcECDSAPublic} {
			v, err := NewRFC9421Verifier(label, "", []string{key})
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Verify(r, now); err != nil {
				t.Errorf("%s: got %v, want none", label, err)
			}
			if err := newVerifier(t, key).Verify(r, now); err != nil {
				t.Errorf("%s among all: got %v, want none", label, err)
			}
		}
		if got := strings.Count(r.Header.Get("Content-Digest"), "sha-256"); got != 1 {
			t.Errorf("got %d digests, want 1", got)
		}
	})
	t.Run("what cannot be signed is refused", func(t *testing.T) {
		s := newRFC9421(t, RFC9421Options{Secret: rfcShared, Components: []string{"x-request-id", "content-digest"}})
		if _, err := s.Sign(webhookInput()); err == nil || !strings.Contains(err.Error(), "x-request-id") {
			t.Errorf("got %v, want an error with x-request-id", err)
		}
		for _, change := range []func(*Input){
			func(in *Input) { in.URL = nil }, func(in *Input) { in.Method = "" }, func(in *Input) { in.URL.Host = "" },
		} {
			in := webhookInput()
			change(&in)
			if _, err := s.Sign(in); err == nil || !strings.Contains(err.Error(), "method and URL") {
				t.Errorf("got %v, want an error with method and URL", err)
			}
		}
	})
	t.Run("without content-digest there is no such header", func(t *testing.T) {
		s := newRFC9421(t, RFC9421Options{Secret: rfcShared, Components: []string{"@method"}})
		if r := received(t, webhookInput(), s); r.Header.Get("Content-Digest") != "" || len(s.Headers()) != 2 {
			t.Errorf("got %v, %v", r.Header, s.Headers())
		}
	})
	t.Run("several goroutines may sign", func(t *testing.T) {
		s, v := newRFC9421(t, RFC9421Options{Secret: rfcECDSA}), newVerifier(t, rfcECDSAPublic)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 10 {
					if err := v.Verify(received(t, webhookInput(), s), now); err != nil {
						t.Errorf("got %v, want none", err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestRFC9421Verify(t *testing.T) {
	now := time.Unix(1700000000, 0)
	good := func() Request { return received(t, webhookInput(), newRFC9421(t, RFC9421Options{Secret: rfcEd25519})) }
	other := sha512.Sum512([]byte("other"))
	for _, tt := range []struct {
		name   string
		change func(r *Request)
		want   error
	}{
		{"a genuine request passes", func(*Request) {}, nil},
		{"headers that are not covered may change", func(r *Request) { r.Header.Set("X-Team", "ops") }, nil},
		{"the authority is compared without case and port", func(r *Request) {
			r.URL = &url.URL{Scheme: "https", Host: "hooks.example.com", Path: "/", RawQuery: "x=1"}
		}, nil},
		{"another method does not match", func(r *Request) { r.Method = "PUT" }, ErrNoMatch},
		{"another host does not match", func(r *Request) { r.URL = &url.URL{Scheme: "https", Host: "evil.example", RawQuery: "x=1"} }, ErrNoMatch},
		{"another query does not match", func(r *Request) { r.URL = &url.URL{Scheme: "https", Host: "hooks.example.com", RawQuery: "x=2"} }, ErrNoMatch},
		{"another id does not match", func(r *Request) { r.Header.Set(HeaderID, "msg_2") }, ErrNoMatch},
		{"another body has another digest", func(r *Request) { r.Body = []byte("{}") }, ErrBadDigest},
		{"another digest does not match", func(r *Request) { r.Header.Set("Content-Digest", "sha-256=:AAAA:") }, ErrNoMatch},
		{"a digest that is added does not match", func(r *Request) {
			r.Header.Add("Content-Digest", "sha-512=:"+base64.StdEncoding.EncodeToString(other[:])+":")
		}, ErrNoMatch},
		{"a covered header that is gone is told", func(r *Request) { r.Header.Del("Content-Type") }, ErrMissingHeader},
		{"no Signature is told", func(r *Request) { r.Header.Del("Signature") }, ErrMissingHeader},
		{"no Signature-Input is told", func(r *Request) { r.Header.Del("Signature-Input") }, ErrMissingHeader},
		{"a Signature under another label is told", func(r *Request) {
			r.Header.Set("Signature", "x"+r.Header.Get("Signature"))
		}, ErrMissingHeader},
		{"a Signature that is text is told", func(r *Request) { r.Header.Set("Signature", `sig1="AAAA"`) }, ErrBadHeader},
		{"a Signature-Input that is no list is told", func(r *Request) { r.Header.Set("Signature-Input", `sig1=1`) }, ErrBadHeader},
		{"an empty Signature-Input is told", func(r *Request) { r.Header.Set("Signature-Input", ``) }, ErrBadHeader},
		{"a Signature-Input that is no dictionary is told", func(r *Request) { r.Header.Set("Signature-Input", `sig1=(`) }, ErrBadHeader},
		{"an unknown component is told", func(r *Request) { r.Header.Set("Signature-Input", `sig1=("@future");created=1700000000`) }, ErrBadHeader},
		{"a component twice is told", func(r *Request) { r.Header.Set("Signature-Input", `sig1=("date" "date");created=1700000000`) }, ErrBadHeader},
		{"a later creation does not match", func(r *Request) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), "1700000000", "1700000001", 1))
		}, ErrNoMatch},
		{"another algorithm does not match", func(r *Request) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), `"ed25519"`, `"hmac-sha256"`, 1))
		}, ErrNoMatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := good()
			tt.change(&r)
			if got := newVerifier(t, rfcEd25519Public).Verify(r, now); !errors.Is(got, tt.want) || got != nil && tt.want == nil {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		name string
		now  time.Time
		want error
	}{
		{"5 minutes later is in time", now.Add(Tolerance), nil},
		{"a second more is too late", now.Add(Tolerance + time.Second), ErrTooOld},
		{"5 minutes earlier is in time", now.Add(-Tolerance), nil},
		{"a second more is too early", now.Add(-Tolerance - time.Second), ErrTooNew},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := newVerifier(t, rfcEd25519Public).Verify(good(), tt.now); !errors.Is(got, tt.want) || got != nil && tt.want == nil {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("what expires is taken until then, and what says no time never", func(t *testing.T) {
		k, err := parseRequestKey(rfcEd25519, "")
		if err != nil {
			t.Fatal(err)
		}
		for params, want := range map[string]error{
			";created=1700000000;expires=1700000000": nil,
			";created=1700000000;expires=1699999999": ErrTooOld,
			";expires=1700000010":                    ErrBadTimestamp,
			`;created="now"`:                         ErrBadTimestamp,
		} {
			r := Request{Method: "GET", URL: &url.URL{Scheme: "https", Host: "h"}, Header: http.Header{}}
			base, _ := baseOf(t, r, `("@method")`+params, nil)
			proof, err := k.sign([]byte(base))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Signature-Input", `s=("@method")`+params)
			r.Header.Set("Signature", "s=:"+base64.StdEncoding.EncodeToString(proof)+":")
			if got := newVerifier(t, rfcEd25519Public).Verify(r, now); !errors.Is(got, want) || got != nil && want == nil {
				t.Errorf("%s: got %v, want %v", params, got, want)
			}
		}
	})
}

func TestCheckDigest(t *testing.T) {
	body := []byte(rfcBody)
	const sha256Value = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:" // of RFC 9530, Appendix D
	for _, tt := range []struct {
		name, value string
		want        error
	}{
		{"sha-512 passes", rfcDigest, nil},
		{"sha-256 passes", sha256Value, nil},
		{"both pass", sha256Value + ", " + rfcDigest, nil},
		{"unknown ones are skipped", "md5=:AAAA:, " + sha256Value, nil},
		{"one that is wrong is told though the other fits", "sha-512=:AAAA:, " + sha256Value, ErrBadDigest},
		{"unknown ones alone are told", "md5=:AAAA:", ErrBadHeader},
		{"text is told", `sha-256="X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="`, ErrBadHeader},
		{"no dictionary is told", "sha-256=:", ErrBadHeader},
		{"nothing is told", "", ErrBadHeader},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := checkDigest([]string{tt.value}, body); !errors.Is(got, tt.want) || got != nil && tt.want == nil {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestNewRFC9421(t *testing.T) {
	rsa := "-----BEGIN PUBLIC KEY-----\nMDwwDQYJKoZIhvcNAQEBBQADKwAwKAIhAL3u\n-----END PUBLIC KEY-----"
	long := make([]string, 65)
	for _, tt := range []struct {
		name string
		o    RFC9421Options
		want string // in the error; empty means none
	}{
		{"a secret is enough", RFC9421Options{Secret: "correct horse"}, ""},
		{"a whsec_ secret is decoded", RFC9421Options{Secret: v1Secret, Algorithm: HMACSHA256}, ""},
		{"a whsk_ secret signs ed25519", RFC9421Options{Secret: "whsk_" + v1aKey, Algorithm: Ed25519}, ""},
		{"white space around PEM does not matter", RFC9421Options{Secret: "\n" + rfcECDSA + "\n"}, ""},
		{"16 bytes in base64 are enough", RFC9421Options{Secret: "base64:MDEyMzQ1Njc4OWFiY2RlZg=="}, ""},
		{"15 bytes are not", RFC9421Options{Secret: "base64:MDEyMzQ1Njc4OWFiY2Rl"}, "holds 15 bytes"},
		{"base64 must be base64", RFC9421Options{Secret: "base64:correct horse"}, "is not base64:"},
		{"a repeated byte is refused", RFC9421Options{Secret: "base64:AAAAAAAAAAAAAAAAAAAAAA=="}, "repeated"},
		{"a short text is refused", RFC9421Options{Secret: "short"}, "shorter than 8"},
		{"an empty secret is refused", RFC9421Options{}, "is empty"},
		{"a public key is refused", RFC9421Options{Secret: rfcECDSAPublic}, "cannot sign"},
		{"a whpk_ key is refused", RFC9421Options{Secret: v1aPublic}, "cannot sign"},
		{"a broken public key is refused", RFC9421Options{Secret: rsa}, "cannot be read as PUBLIC KEY"},
		{"half a PEM is refused", RFC9421Options{Secret: rfcECDSA[:100]}, "not a whole block"},
		{"two keys are refused", RFC9421Options{Secret: rfcECDSA + "\n" + rfcEd25519}, "something behind"},
		{"a certificate is refused", RFC9421Options{Secret: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}, "CERTIFICATE"},
		{"the algorithm must be that of the key", RFC9421Options{Secret: rfcECDSA, Algorithm: Ed25519}, "ecdsa-p256-sha256, and the algorithm is ed25519"},
		{"a text is no ed25519 key", RFC9421Options{Secret: "correct horse", Algorithm: Ed25519}, "hmac-sha256, and the algorithm"},
		{"an unknown algorithm is refused", RFC9421Options{Secret: "correct horse", Algorithm: "rsa-pss-sha512"}, "not known; write hmac-sha256, ed25519 or"},
		{"a label of one's own is allowed", RFC9421Options{Secret: "correct horse", Label: "*my_sig-1.a"}, ""},
		{"a label in capitals is refused", RFC9421Options{Secret: "correct horse", Label: "Sig"}, "label"},
		{"a label that begins with a digit is refused", RFC9421Options{Secret: "correct horse", Label: "1a"}, "label"},
		{"a label of 65 bytes is refused", RFC9421Options{Secret: "correct horse", Label: strings.Repeat("a", 65)}, "at most 64"},
		{"a key id with a line end is refused", RFC9421Options{Secret: "correct horse", KeyID: "a\nb"}, "printable ASCII"},
		{"a key id of 257 bytes is refused", RFC9421Options{Secret: "correct horse", KeyID: strings.Repeat("a", 257)}, "up to 256"},
		{"a component twice is refused", RFC9421Options{Secret: "correct horse", Components: []string{"Date", `"date"`}}, "twice"},
		{"an unknown component is refused", RFC9421Options{Secret: "correct horse", Components: []string{"@status"}}, "not known"},
		{"a hop-by-hop header is refused", RFC9421Options{Secret: "correct horse", Components: []string{"connection"}}, "changes on the way"},
		{"65 components are refused", RFC9421Options{Secret: "correct horse", Components: long}, "at most 64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewRFC9421(tt.o)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if err != nil && len(tt.o.Secret) > 8 && strings.Contains(err.Error(), tt.o.Secret[len(tt.o.Secret)-8:]) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestCheckLabels(t *testing.T) {
	first, second := newRFC9421(t, RFC9421Options{Secret: rfcShared}), newRFC9421(t, RFC9421Options{Secret: rfcECDSA, Label: "sig2"})
	if err := CheckLabels([]Signer{first, newStandard(t, v1Secret), second}); err != nil {
		t.Errorf("got %v, want none", err)
	}
	if err := CheckLabels([]Signer{first, newStandard(t, v1Secret), second, first}); err == nil || !strings.HasPrefix(err.Error(), "sign[3]: label sig1 is that of sign[0]") {
		t.Errorf("got %v, want an error of sign[3] and sign[0]", err)
	}
}

func TestNewKey(t *testing.T) {
	for _, kind := range Kinds() {
		t.Run("a new "+kind+" signs, and its public half verifies", func(t *testing.T) {
			key, err := NewKey(kind)
			if err != nil {
				t.Fatal(err)
			}
			again, err := NewKey(kind)
			if err != nil || key.Kind != kind || key.Secret == again.Secret {
				t.Fatalf("got %q and %q, %v", key.Kind, again.Kind, err)
			}
			asymmetric := slices.Contains([]string{"ed25519", "rfc9421-ed25519", "rfc9421-ecdsa"}, kind)
			if (key.Public != "") != asymmetric {
				t.Errorf("got a public half %q, want one: %t", key.Public, asymmetric)
			}
			public := key.Public
			if !asymmetric {
				public = key.Secret
			}
			var signer Signer
			switch kind {
			case "hmac":
				signer, err = NewHMAC(HMACOptions{Header: "X-S", Secret: key.Secret})
			case "timestamped":
				signer, err = NewTimestamped(TimestampedOptions{Header: "X-S", Secrets: []string{key.Secret}})
			case "standard", "ed25519":
				signer, err = NewStandard([]string{key.Secret})
			default:
				signer, err = NewRFC9421(RFC9421Options{Secret: key.Secret})
			}
			if err != nil {
				t.Fatal(err)
			}
			r, now := received(t, webhookInput(), signer), time.Unix(1700000000, 0)
			switch kind {
			case "hmac":
				err = signer.(*HMAC).Verify(r.Header, r.Body)
			case "timestamped":
				err = signer.(*Timestamped).Verify(r.Header, r.Body, now)
			case "standard", "ed25519":
				var v *StandardVerifier
				if v, err = NewStandardVerifier([]string{public}); err == nil {
					err = v.Verify(r.Header, r.Body, now)
				}
			default:
				err = newVerifier(t, public).Verify(r, now)
			}
			if err != nil {
				t.Errorf("Verify: got %v, want none", err)
			}
		})
	}
	t.Run("an unknown kind is refused with the list", func(t *testing.T) {
		if _, err := NewKey("rsa"); err == nil || !strings.Contains(err.Error(), `"rsa" is not known; choose one of standard, ed25519`) {
			t.Errorf("got %v", err)
		}
	})
}

// FuzzRFC9421Verify: nothing that a sender writes makes a verifier panic, and only what we signed passes.
func FuzzRFC9421Verify(f *testing.F) {
	f.Add(`sig1=("@method" "@query-param";name="a" "x-team";bs "content-digest";key="sha-256");created=1700000000`, "sig1=:AAAA:", "sha-256=:AAAA:", "a=b&a", []byte("{}"))
	f.Add(`a=();created=1, b=("@path";req)`, `a=:AAAA:, b="x"`, "", "%", []byte(""))
	f.Add(`sig1=("@status" 1 token)`, "sig1", "sha-512=1", "?", []byte{0xff})
	v := newVerifier(f, rfcEd25519Public, rfcShared, rfcECDSAPublic)
	s := newRFC9421(f, RFC9421Options{Label: "own", Secret: rfcShared})
	f.Fuzz(func(t *testing.T, input, proof, digest, query string, body []byte) {
		now := time.Unix(1700000000, 0)
		r := Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "h", RawQuery: query}, Body: body, Header: http.Header{
			"Signature-Input": {input}, "Signature": {proof}, "Content-Digest": {digest}, "X-Team": {query, digest},
		}}
		if v.Verify(r, now) == nil {
			t.Errorf("a signature that nobody made passes: %v", r.Header)
		}
		if strings.ContainsAny(query, "\r\n") {
			return // such a URL cannot be sent
		}
		own := received(t, Input{ID: "msg_1", Time: now, Body: body, Method: "POST", URL: r.URL}, s)
		if err := v.Verify(own, now); err != nil {
			t.Errorf("we refuse what we signed: %v", err)
		}
	})
}

func FuzzParseComponent(f *testing.F) {
	for _, s := range []string{"content-type", `"@query-param";name="a"`, "date;bs", "@method;", `a";b="`, "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseComponent(s)
		if err != nil {
			return
		}
		// What is accepted must come back as the same from Signature-Input, or no verifier could read it.
		list, err := httpsfv.UnmarshalDictionary([]string{"x=(" + c.text + ")"})
		if err != nil {
			t.Fatalf("%q: %v", c.text, err)
		}
		member, _ := list.Get("x")
		again, err := components(member.(httpsfv.InnerList))
		if err != nil || len(again) != 1 || again[0].text != c.text {
			t.Errorf("%q: got %v, %v", c.text, again, err)
		}
	})
}

// FuzzParseRequestKey: no text makes the readers of keys panic, and no error shows it.
func FuzzParseRequestKey(f *testing.F) {
	for _, s := range []string{rfcShared, rfcEd25519, rfcECDSA, rfcECDSAPublic, v1Secret, v1aPublic, "whsk_" + v1aKey, "correct horse"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseRequestKey(text, "")
		switch {
		case err != nil && len(text) > 40 && strings.Contains(err.Error(), text):
			t.Errorf("the error shows the key: %v", err)
		case err != nil || !k.canSign():
			return
		}
		proof, err := k.sign([]byte("base"))
		if err != nil || !k.verify([]byte("base"), proof) {
			t.Errorf("a key that was accepted does not work: %v", err)
		}
	})
}
