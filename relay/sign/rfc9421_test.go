package sign

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
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
