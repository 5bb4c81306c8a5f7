package egress

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// FuzzTokenAnswer holds that whatever a token endpoint answers is either a token that can be sent or a short,
// printable text without the client's secret.
func FuzzTokenAnswer(f *testing.F) {
	const secret, other = "canary/secret", "another-canary"
	for _, body := range []string{
		`{"access_token":"t","token_type":"Bearer","expires_in":3600}`, `{"access_token":"t","expires_in":"1e300"}`,
		`{"access_token":"t","expires_in":-1}`, `{"error":"invalid_client","error_description":"canary\/secret another-canary"}`,
		`{"error":"canary%2Fsecret\u202e"}`, `{"access_token":"a\r\nb"}`, `{"access_token":7}`, `[]`, "", "access_token=t&expires_in=5", "error=x&error_description=%ff",
	} {
		for _, contentType := range []string{"application/json", "text/plain", ""} {
			f.Add(200, contentType, body)
			f.Add(401, contentType, body)
		}
	}
	f.Fuzz(func(t *testing.T, status int, contentType, body string) {
		asked := 0
		o := OAuth2{
			ClientID: "id", ClientSecrets: []string{secret, other}, TokenURL: &url.URL{Scheme: "https", Host: "login.example.test"},
			Client: &http.Client{Transport: trip(func(r *http.Request) (*http.Response, error) {
				asked++
				resp := answer(r, status, body)
				resp.Header.Set("Content-Type", contentType)
				return resp, nil
			})},
		}
		at := time.Unix(1e9, 0)
		got, err := newTokens(o, "x", spellings(o.secrets()), zap.NewNop()).get(t.Context(), func() time.Time { return at })
		if err != nil {
			failed, ok := err.(*tokenError)
			if !ok || failed.class != store.ClassAuth || clean(failed.Error()) != failed.Error() || holdsSecret(failed.Error(), []string{secret, url.QueryEscape(secret), other}) {
				t.Errorf("got %v", err)
			}
			if asked > 2 {
				t.Errorf("asked %d times, want once with each secret", asked)
			}
			return
		}
		if asked != 1 {
			t.Errorf("asked %d times for a token that is given", asked)
		}
		if checkToken(got.value) != nil || got.value == "" || !got.until.After(at) || got.until.Sub(at) > longestLife {
			t.Errorf("got %+v", got)
		}
	})
}

func TestTokenLife(t *testing.T) {
	for _, c := range []struct {
		in   any
		want time.Duration
	}{
		{float64(3600), time.Hour}, {int64(60), time.Minute}, {"90", 90 * time.Second}, {1.5, 1500 * time.Millisecond},
		{nil, unknownLife}, {float64(0), unknownLife}, {int64(-1), unknownLife}, {"soon", unknownLife}, {"NaN", unknownLife}, {true, unknownLife},
		{float64(86399), 86399 * time.Second}, {float64(86400), longestLife}, {float64(86401), longestLife}, {"1e308", longestLife}, {"Inf", longestLife},
	} {
		if got := tokenLife(c.in); got != c.want {
			t.Errorf("%v: got %v, want %v", c.in, got, c.want)
		}
	}
}

func TestOAuth2Options(t *testing.T) {
	endpoint := &url.URL{Scheme: "https", Host: "login.example.com", Path: "/token"}
	for _, c := range []struct {
		name   string
		change func(*Options, *OAuth2)
		want   string // in the error; empty means allowed
	}{
		{"the least", func(*Options, *OAuth2) {}, ""},
		{"all", func(_ *Options, a *OAuth2) {
			a.Scopes, a.Audience, a.SecretIn = []string{"a:b/c", "!#[]~"}, "https://api.example.com", SecretInBody
		}, ""},
		{"odd characters in id and secret", func(_ *Options, a *OAuth2) { a.ClientID, a.ClientSecrets = "ü: %", []string{"ö&=\""} }, ""},
		{"no id", func(_ *Options, a *OAuth2) { a.ClientID = "" }, "auth.oauth2.client_id: missing"},
		{"an id with a newline", func(_ *Options, a *OAuth2) { a.ClientID = "id\n" }, "auth.oauth2.client_id: control"},
		{"no secret", func(_ *Options, a *OAuth2) { a.ClientSecrets = nil }, "auth.oauth2.client_secret: missing"},
		{"a secret with a newline", func(_ *Options, a *OAuth2) { a.ClientSecrets[0] += "\n" }, "auth.oauth2.client_secret: control"},
		{"two secrets", func(_ *Options, a *OAuth2) { a.ClientSecrets = append(a.ClientSecrets, "canary-two") }, ""},
		{"an empty second secret", func(_ *Options, a *OAuth2) { a.ClientSecrets = append(a.ClientSecrets, "") }, "auth.oauth2.client_secret[1]: empty"},
		{"a second secret with a newline", func(_ *Options, a *OAuth2) { a.ClientSecrets = append(a.ClientSecrets, "canary\n") }, "auth.oauth2.client_secret[1]: control"},
		{"the same secret twice", func(_ *Options, a *OAuth2) { a.ClientSecrets = append(a.ClientSecrets, a.ClientSecrets...) }, "auth.oauth2.client_secret[1]: the same"},
		{"no endpoint", func(_ *Options, a *OAuth2) { a.TokenURL = nil }, "auth.oauth2.token_url: missing"},
		{"an endpoint without TLS", func(_ *Options, a *OAuth2) { a.TokenURL = &url.URL{Scheme: "http", Host: "h"} }, "auth.oauth2.token_url: not judged"},
		{"an endpoint with a port", func(_ *Options, a *OAuth2) { a.TokenURL = &url.URL{Scheme: "https", Host: "h:8443"} }, "auth.oauth2.token_url: not judged"},
		{"an empty scope", func(_ *Options, a *OAuth2) { a.Scopes = []string{"a", ""} }, "auth.oauth2.scopes[1]: empty"},
		{"two scopes in one", func(_ *Options, a *OAuth2) { a.Scopes = []string{"a b"} }, "auth.oauth2.scopes[0]: a space"},
		{"a scope with a quote", func(_ *Options, a *OAuth2) { a.Scopes = []string{`a"`} }, "auth.oauth2.scopes[0]: byte 2"},
		{"a scope with a backslash", func(_ *Options, a *OAuth2) { a.Scopes = []string{`\`} }, "auth.oauth2.scopes[0]: byte 1"},
		{"a scope beyond ASCII", func(_ *Options, a *OAuth2) { a.Scopes = []string{"aé"} }, "auth.oauth2.scopes[0]: byte 2"},
		{"an audience with a newline", func(_ *Options, a *OAuth2) { a.Audience = "a\n" }, "auth.oauth2.audience: control"},
		{"another place", func(_ *Options, a *OAuth2) { a.SecretIn = "query" }, "auth.oauth2.secret_in: \"query\" is not"},
		{"another kind beside it", func(o *Options, _ *OAuth2) { o.Auth.Bearer = &Bearer{Token: "canary"} }, "auth: more than one kind"},
		{"Authorization beside it", func(o *Options, _ *OAuth2) { o.Header = []Header{{Name: "Authorization", Value: "canary"}} }, "headers.Authorization: auth makes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{URL: &url.URL{Scheme: "https", Host: "hooks.example.com"}}
			o.Auth.OAuth2 = &OAuth2{ClientID: "id", ClientSecrets: []string{"canary-secret"}, TokenURL: endpoint}
			c.change(&o, o.Auth.OAuth2)
			_, err := New(o)
			if c.want == "" {
				if err != nil {
					t.Errorf("got %v, want no error", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("got %v, want %q in it and no secret", err, c.want)
			}
		})
	}
	t.Run("all faults are told at once", func(t *testing.T) {
		_, err := New(Options{URL: endpoint, Auth: Auth{OAuth2: &OAuth2{Scopes: []string{""}, SecretIn: "x"}}})
		for _, want := range []string{"client_id:", "client_secret:", "token_url:", "scopes[0]:", "secret_in:"} {
			if err == nil || !strings.Contains(err.Error(), "auth.oauth2."+want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		}
	})
}
