package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func sha256Of(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])[:8]
}

func TestFingerprint(t *testing.T) {
	for _, c := range []struct {
		name, secret string
		chosen, want bool
	}{
		{"a secret made at random", "7d1a4c0be92f4d7f", false, true},
		{"16 characters, 6 of them different", "aaaaaaaaaaabcdef", false, true},
		{"15 characters", "7d1a4c0be92f4d7", false, false},
		{"5 different characters", "abcdeabcdeabcdeabcde", false, false},
		{"nothing", "", false, false},
		{"a password, however long", "correct horse battery staple", true, false},
		{"a user name with a password", "Basic dXNlcjpodW50ZXIyaHVudGVyMg==", false, false},
		{"the same in another case", "bASIC dXNlcjpodW50ZXIyaHVudGVyMg==", false, false},
		{"a bearer token with its scheme", "Bearer 7d1a4c0be92f4d7f", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := ""
			if c.want {
				want = sha256Of(c.secret)
			}
			if got := fingerprint(NewSecret(c.secret), rules{chosen: c.chosen}); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// fingerprinted has a secret of its own in each key that holds one.
const fingerprinted = `
listen:
  tokens: [canary-0123456789-01, {name: shop, token: canary-0123456789-02}]
  admin_tokens: [canary-0123456789-03, {name: ops, token: canary-0123456789-04}]
  https: {address: 127.0.0.1:0, domains: [relay.example.com], acme: {external_account: {key_id: k, hmac_key: canary-0123456789-05}}}
store: {encryption_key: [canary-0123456789-06, canary-0123456789-07]}
tracing: {otlp_endpoint: http://127.0.0.1:4318, headers: {X-Token: canary-0123456789-08}}
defaults: {headers: {X-Api-Key: canary-0123456789-09}}
destinations:
  a:
    url: https://a.example
    headers: {X-Plain: shown-as-it-is-0123, X-Ref: "${file:ref}", X-Part: "with ${file:ref}"}
    auth: {bearer: {token: canary-0123456789-10}}
    sign:
      - standard: {secrets: [canary-0123456789-11, canary-0123456789-12]}
      - hmac: {header: X-S, secret: canary-0123456789-13}
      - timestamped: {header: X-T, secret: [canary-0123456789-14, canary-0123456789-15]}
      - rfc9421: {key_id: k, secret: canary-0123456789-16}
      - profile: {name: github, secret: canary-0123456789-17}
  b: {url: https://b.example, auth: {basic: {username: u, password: canary-0123456789-of-a-person}}}
  c: {url: https://c.example, auth: {api_key: {header: X-K, value: canary-0123456789-18}}}
  d: {url: https://d.example, auth: {oauth2: {client_id: c, token_url: https://t.example, client_secret: [canary-0123456789-19, canary-0123456789-20]}}}
`

func TestFingerprintsOfAllSecrets(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ref"), []byte("canary-0123456789-21\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Parse(filepath.Join(dir, "postern.yaml"), []byte(fingerprinted), nil)
	if err != nil {
		t.Fatal(err)
	}
	times := map[int]int{9: 4} // inherited by each destination
	for name, render := range map[string]func(Form) ([]byte, error){"YAML": cfg.Masked, "JSON": cfg.MaskedJSON} {
		out, err := render(Form{Fingerprints: true})
		if err != nil {
			t.Fatal(err)
		}
		text := string(out)
		for n := 1; n <= 21; n++ {
			secret := fmt.Sprintf("canary-0123456789-%02d", n)
			if got, want := strings.Count(text, "*** "+sha256Of(secret)), max(times[n], 1); got != want {
				t.Errorf("%s: got the fingerprint of secret %d %d times, want %d", name, n, got, want)
			}
		}
		if all := strings.Count(text, "sha256:"); all != 24 {
			t.Errorf("%s: got %d fingerprints, want 24, and none of the password, in\n%s", name, all, text)
		}
		if strings.Contains(text, "canary") || !strings.Contains(text, "shown-as-it-is-0123") || !strings.Contains(text, "with ***") {
			t.Errorf("%s: got\n%s\nwant no secret, and what is none", name, text)
		}
		plain, err := render(Form{})
		if err != nil {
			t.Fatal(err)
		}
		if want := maskedSecrets.ReplaceAllString(text, "***"); strings.ReplaceAll(string(plain), `'***'`, `"***"`) != strings.ReplaceAll(want, `'***'`, `"***"`) {
			t.Errorf("%s: without fingerprints got\n%s\nwant\n%s", name, plain, want)
		}
	}
}

// Whoever adds a secret must decide about its fingerprint: each key that holds one is in the test above.
func TestEachKindOfSecretIsTried(t *testing.T) {
	var kinds []string
	var visit func(v reflect.Type, seen []reflect.Type, path string)
	visit = func(v reflect.Type, seen []reflect.Type, path string) {
		switch {
		case v == reflect.TypeFor[Secret]():
			kinds = append(kinds, path)
		case slices.Contains(seen, v):
		case v.Kind() == reflect.Pointer, v.Kind() == reflect.Slice, v.Kind() == reflect.Map:
			visit(v.Elem(), seen, path)
		case v.Kind() == reflect.Struct && v != reflect.TypeFor[Value]() && !isScalar(v):
			for _, f := range fieldsOf(v) {
				if f.key != "defaults" {
					visit(v.Field(f.index).Type, append(seen, v), join(path, f.key))
				}
			}
		}
	}
	visit(reflect.TypeFor[Config](), nil, "")
	want := []string{
		"listen.tokens.token", "listen.admin_tokens.token", "listen.https.acme.external_account.hmac_key", "store.encryption_key",
		"tracing.headers", "destinations.headers", "destinations.auth.bearer.token", "destinations.auth.basic.password",
		"destinations.auth.api_key.value", "destinations.auth.oauth2.client_secret", "destinations.sign.standard.secrets",
		"destinations.sign.hmac.secret", "destinations.sign.timestamped.secret", "destinations.sign.rfc9421.secret",
		"destinations.sign.profile.secret",
	}
	if !slices.Equal(kinds, want) {
		t.Errorf("got %q, want %q", kinds, want)
	}
}

func TestCertificatesAreShown(t *testing.T) {
	cfg := mustParseFile(t, `destinations: {a: {url: https://a.example, tls: {ca_file: /ca.pem, cert_file: /c.pem, key_file: /k.pem}}}`)
	many := make([]Certificate, maxComment+2)
	for i := range many {
		many[i] = Certificate{SHA256: fmt.Sprintf("%064x", i), Subject: fmt.Sprintf("CN=%d", i), NotAfter: time.Unix(2e9, 0).UTC()}
	}
	form := Form{Certificates: map[string][]Certificate{"destinations.a.tls.ca_file": many, "destinations.a.tls.cert_file": many[:1]}}
	t.Run("as comments above the key of their file", func(t *testing.T) {
		out, err := cfg.Masked(form)
		if err != nil {
			t.Fatal(err)
		}
		line := "      # sha256:" + many[0].SHA256 + ", ends 2033-05-18T03:33:20Z, CN=0\n"
		for _, want := range []string{line + "      cert_file: /c.pem\n", "CN=9\n      # and 2 more\n      ca_file: /ca.pem\n"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("got\n%s\nwant in it\n%s", out, want)
			}
		}
		if strings.Count(string(out), "#") != 1+maxComment+1 {
			t.Errorf("got\n%s\nwant %d lines of comment", out, 1+maxComment+1)
		}
	})
	t.Run("as a member of JSON", func(t *testing.T) {
		out, err := cfg.MaskedJSON(form)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Destinations map[string]any
			Certificates map[string][]Certificate
		}
		if err := json.Unmarshal(out, &got); err != nil || !reflect.DeepEqual(got.Certificates, form.Certificates) || len(got.Destinations) != 1 {
			t.Errorf("got error %v and\n%s", err, out)
		}
		if out, err := cfg.MaskedJSON(Form{}); err != nil || strings.Contains(string(out), "certificates") {
			t.Errorf("without any: got error %v and\n%s", err, out)
		}
	})
}
