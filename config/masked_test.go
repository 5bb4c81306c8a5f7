package config

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

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
	for name, render := range map[string]func() ([]byte, error){"YAML": cfg.Masked, "JSON": cfg.MaskedJSON} {
		t.Run(name+" holds no secret and shows the rest", func(t *testing.T) {
			out, err := render()
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
	t.Run("YAML and JSON say the same", func(t *testing.T) {
		asYAML, _ := cfg.Masked()
		asJSON, _ := cfg.MaskedJSON()
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
		for _, file := range []string{everyKey, "destinations: {a: {url: https://a.example}}"} {
			first, err := mustParseFile(t, file, "TOKEN=a-long-enough-token").Masked()
			if err != nil {
				t.Fatal(err)
			}
			again := strings.Replace(string(first), "tokens: ['***']", "tokens: [a-long-enough-token]", 1)
			cfg, err := Parse("postern.yaml", []byte(again), nil)
			if err != nil {
				t.Fatalf("%v in\n%s", err, first)
			}
			second, err := cfg.Masked()
			if err != nil || strings.ReplaceAll(string(second), "dir/dir/", "dir/") != string(first) {
				t.Errorf("error %v, got\n%s\nwant\n%s", err, second, first)
			}
		}
	})
}
