package egress

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/sign"
)

func TestNew(t *testing.T) {
	hook := &url.URL{Scheme: "https", Host: "hooks.example.com", Path: "/x"}
	standard := func() sign.Signer {
		s, err := sign.NewStandard([]string{sign.NewSecret()})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	hmac := func(header string) sign.Signer {
		s, err := sign.NewHMAC(sign.HMACOptions{Header: header, Secret: "canary-hmac-secret"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const secret = "canary-secret"
	for _, c := range []struct {
		name string
		o    Options
		want string // in the error; empty means allowed
	}{
		{"a URL is enough", Options{URL: hook}, ""},
		{"no URL", Options{}, "url: missing"},
		{"http", Options{URL: &url.URL{Scheme: "http", Host: "h"}}, "url: not judged"},
		{"a port", Options{URL: &url.URL{Scheme: "https", Host: "h:8443"}}, "url: not judged"},
		{"user info", Options{URL: &url.URL{Scheme: "https", Host: "h", User: url.UserPassword("u", secret)}}, "url: not judged"},
		{"every method", Options{URL: hook, Method: http.MethodDelete}, ""},
		{"a method in lower case", Options{URL: hook, Method: "post"}, "method: \"post\" is not supported"},
		{"HEAD", Options{URL: hook, Method: http.MethodHead}, "method"},
		{"a content type", Options{URL: hook, ContentType: "application/json"}, ""},
		{"no content type", Options{URL: hook, ContentType: "json"}, "content_type"},
		{"a user agent with a line break", Options{URL: hook, UserAgent: "a\nb"}, "user_agent"},
		{"longest timeout", Options{URL: hook, Timeout: MaxTimeout}, ""},
		{"too long a timeout", Options{URL: hook, Timeout: MaxTimeout + 1}, "timeout"},
		{"a negative timeout", Options{URL: hook, Timeout: -time.Second}, "timeout"},
		{"most bytes kept", Options{URL: hook, KeepResponse: MaxKeepResponse}, ""},
		{"too many bytes kept", Options{URL: hook, KeepResponse: MaxKeepResponse + 1}, "keep.response"},
		{"nothing kept", Options{URL: hook, KeepResponse: -1}, ""},
		{"basic", Options{URL: hook, Auth: Auth{Basic: &Basic{Username: "u", Password: secret}}}, ""},
		{"basic without a name", Options{URL: hook, Auth: Auth{Basic: &Basic{Password: secret}}}, "auth.basic.username: missing"},
		{"basic with a colon in the name", Options{URL: hook, Auth: Auth{Basic: &Basic{Username: "u:v", Password: secret}}}, "colon"},
		{"basic with a newline", Options{URL: hook, Auth: Auth{Basic: &Basic{Username: "u", Password: secret + "\n"}}}, "auth.basic.password: "},
		{"bearer", Options{URL: hook, Auth: Auth{Bearer: &Bearer{Token: secret}}}, ""},
		{"an empty token", Options{URL: hook, Auth: Auth{Bearer: &Bearer{}}}, "auth.bearer.token: empty"},
		{"a token with a newline", Options{URL: hook, Auth: Auth{Bearer: &Bearer{Token: secret + "\n"}}}, "auth.bearer.token: byte 14 is"},
		{"an API key", Options{URL: hook, Auth: Auth{APIKey: &APIKey{Header: "X-API-Key", Value: secret}}}, ""},
		{"an API key in a signature's header", Options{URL: hook, Auth: Auth{APIKey: &APIKey{Header: "webhook-id", Value: secret}}}, "auth.api_key: "},
		{"an API key without a header", Options{URL: hook, Auth: Auth{APIKey: &APIKey{Value: secret}}}, "auth.api_key.header: missing"},
		{"an API key without a value", Options{URL: hook, Auth: Auth{APIKey: &APIKey{Header: "X"}}}, "auth.api_key.value: empty"},
		{"two kinds of auth", Options{URL: hook, Auth: Auth{Bearer: &Bearer{Token: secret}, Basic: &Basic{Username: "u", Password: secret}}}, "more than one kind"},
		{"Authorization as a header", Options{URL: hook, Header: []Header{{Name: "Authorization", Value: secret}}}, ""},
		{"Authorization beside auth", Options{URL: hook, Header: []Header{{Name: "authorization", Value: secret}},
			Auth: Auth{APIKey: &APIKey{Header: "X", Value: secret}}}, "auth makes the authorization"},
		{"a header twice", Options{URL: hook, Header: []Header{{Name: "X-A", Value: secret}, {Name: "x-a", Value: secret}}}, "headers.x-a: X-A is set by headers.X-A already"},
		{"a header that auth sets", Options{URL: hook, Header: []Header{{Name: "X-Key", Value: secret}},
			Auth: Auth{APIKey: &APIKey{Header: "x-key", Value: secret}}}, "X-Key is set by auth already"},
		{"a header that a signature sets", Options{URL: hook, Header: []Header{{Name: "X-Sig", Value: "v"}}, Signers: []sign.Signer{hmac("X-Sig")}}, "X-Sig is set by sign[0] already"},
		{"two signatures side by side", Options{URL: hook, Signers: []sign.Signer{standard(), hmac("X-Sig")}}, ""},
		{"two signatures in one header", Options{URL: hook, Signers: []sign.Signer{standard(), standard()}}, "sign[1]: Webhook-Signature is set by sign[0] already"},
		{"a header with a line break", Options{URL: hook, Header: []Header{{Name: "X-A", Value: secret + "\r\nX-B: c"}}}, "headers.X-A: value holds a line break"},
		{"a user agent by header", Options{URL: hook, Header: []Header{{Name: "User-Agent", Value: "Acme/1.0"}}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.o)
			if c.want == "" {
				if err != nil {
					t.Errorf("got %v, want no error", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error holds a secret: %v", err)
			}
		})
	}
	t.Run("all faults are told at once", func(t *testing.T) {
		_, err := New(Options{Method: "X", Timeout: -1, Header: []Header{{Name: "Host", Value: "h"}, {Name: "Te", Value: "x"}}})
		all, ok := err.(interface{ Unwrap() []error })
		if !ok {
			t.Fatalf("got %v, want joined errors", err)
		}
		for _, one := range all.Unwrap() {
			if _, ok := errors.AsType[*OptionError](one); !ok {
				t.Errorf("%v does not name its option", one)
			}
		}
		for _, want := range []string{"url:", "method:", "timeout:", "headers.Host: Host is", "headers.Te: Te is"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		}
	})
}
