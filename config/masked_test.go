package config

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// maskedSecrets finds secrets as they are shown, with the beginning of their SHA-256.
var maskedSecrets = regexp.MustCompile(`\*\*\* sha256:[0-9a-f]{8}`)

func TestMasked(t *testing.T) {
	secrets := `
store: {path: "${env:DIR}/data"}
destinations:
  z:
    url: https://a.example/${env:CANARY}?key=${env:CANARY}&literal=canary-literal&canary-literal
    headers: {X-Plain: shown, X-Part: "a ${env:CANARY} b", Authorization: canary-literal, X-Api-Key: canary-literal}
    events: ["${env:CANARY}"]
    auth: {basic: {username: "${env:CANARY}", password: canary-literal}}
    sign: [{hmac: {header: X-S, secret: canary-literal}}]
  a: {url: "https://user:canary-literal@a.example/"}
`
	cfg := mustParseFile(t, secrets, "CANARY=canary-value", "DIR=/srv")
	for name, render := range map[string]func(Form) ([]byte, error){"YAML": cfg.Masked, "JSON": cfg.MaskedJSON} {
		t.Run(name+" holds no secret and shows the rest", func(t *testing.T) {
			out, err := render(Form{})
			if err != nil {
				t.Fatal(err)
			}
			got := string(out)
			if strings.Contains(got, "canary") {
				t.Errorf("a secret is in\n%s", got)
			}
			for _, want := range []string{"shown", "a *** b", "https://a.example/***?key=***&literal=***&***", "/srv/data", "72h", "X-Api-Key", "https://***@a.example/"} {
				if !strings.Contains(got, want) {
					t.Errorf("got no %q in\n%s", want, got)
				}
			}
			if strings.Index(got, "z:") > strings.Index(got, "\n  a:") && name == "YAML" {
				t.Errorf("the destinations are not in the order of the file:\n%s", got)
			}
		})
	}
	t.Run("a listener with a certificate from files has no ACME", func(t *testing.T) {
		files := mustParseFile(t, "listen: {https: {address: '127.0.0.1:8443', cert_file: c.pem, key_file: k.pem}}\ndestinations: {a: {url: https://a.example}}")
		if out, err := files.Masked(Form{}); err != nil || strings.Contains(string(out), "acme") || !strings.Contains(string(out), "c.pem") {
			t.Errorf("got error %v and\n%s", err, out)
		}
	})
	t.Run("YAML and JSON say the same", func(t *testing.T) {
		asYAML, _ := cfg.Masked(Form{Fingerprints: true})
		asJSON, _ := cfg.MaskedJSON(Form{Fingerprints: true})
		var a, b any
		if err := yaml.Unmarshal(asYAML, &a); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(asJSON, &b); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(asJSON) || !reflect.DeepEqual(a, b) {
			t.Errorf("got %v and %v", a, b)
		}
	})
	t.Run("what is printed can be loaded and prints the same again", func(t *testing.T) {
		form := Form{Fingerprints: true, Certificates: map[string][]Certificate{
			"destinations.alerts.tls.cert_file": {{SHA256: "00ff", Subject: "CN=a # b: c", NotAfter: time.Unix(2e9, 0).UTC()}},
		}}
		for _, file := range []string{everyKey, "destinations: {a: {url: https://a.example}}"} {
			first, err := mustParseFile(t, file, "TOKEN=a-long-enough-token").Masked(form)
			if err != nil {
				t.Fatal(err)
			}
			var environ []string // a secret again in the place of each
			again := maskedSecrets.ReplaceAllStringFunc(string(first), func(masked string) string {
				name := "SECRET_" + masked[len(masked)-8:]
				environ = append(environ, name+"=a-long-enough-token-"+name)
				return "${env:" + name + "}"
			})
			cfg, err := Parse("postern.yaml", []byte(again), environ)
			if err != nil {
				t.Fatalf("%v in\n%s", err, first)
			}
			second, err := cfg.Masked(form)
			unmarked := func(s []byte) string { return maskedSecrets.ReplaceAllString(string(s), "***") }
			if err != nil || strings.ReplaceAll(unmarked(second), "dir/dir/", "dir/") != unmarked(first) {
				t.Errorf("error %v, got\n%s\nwant\n%s", err, second, first)
			}
		}
	})
}
