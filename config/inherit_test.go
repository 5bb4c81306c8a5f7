package config

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// inheritance has, for each key of a destination, a value for defaults and one that a destination sets itself.
var inheritance = map[string][2]string{
	"url": {"https://d.example", "https://o.example"}, "enabled": {"false", "true"}, "method": {"PUT", "PATCH"},
	"events": {"[a, b]", "[c]"}, "headers": {"{X-A: d}", "{X-A: o}"}, "content_type": {"text/plain", "text/csv"},
	"auth": {"{bearer: {token: d}}", "{basic: {username: o, password: o}}"}, "tls": {"{ca_file: /d}", "{ca_file: /o}"},
	"sign": {"[{standard: {secrets: [d]}}]", "[]"}, "timeout": {"5s", "6s"}, "success": {"[201]", "[202]"},
	"retry": {"none", "{attempts: 2}"}, "concurrency": {"2", "3"}, "allow_networks": {"[10.0.0.0/8]", "[]"},
	"keep": {"{response: 1KiB, body: false, redact: [$.d]}", "{response: 2KiB, body: true, redact: []}"}, "when": {"$.d", "$.o"}, "forward_headers": {"[X-D]", "[]"},
	"forward_path": {"true", "false"}, "body": {"d", "o"}, "expect": {"[{path: $.d}]", "[{path: $.o, values: [1, null]}]"},
	"breaker": {"none", "{failures: 2}"}, "rate": {"5/s", "6/m"}, "order": {"key", "all"}, "order_on_failure": {"block", "next"},
	"batch": {"{max: 5}", "{every: 1s}"},
}

func TestEveryKeyIsInherited(t *testing.T) {
	for _, f := range fieldsOf(reflect.TypeFor[Destination]()) {
		t.Run(f.key, func(t *testing.T) {
			values, ok := inheritance[f.key]
			if !ok {
				t.Fatal("no values for this key; add them to the table")
			}
			if f.key != "url" {
				values[0] += ", url: https://a.example"
			}
			cfg := mustParseFile(t, "destinations: {own: {"+f.key+": "+values[1]+"}, heir: {}}\ndefaults: {"+f.key+": "+values[0]+"}")
			alone := mustParseFile(t, "defaults: {url: https://a.example}\ndestinations: {own: {"+f.key+": "+values[1]+"}}")
			part := func(cfg *Config, name string) string {
				dest := reflect.ValueOf(*cfg.Destinations[name])
				out, err := json.Marshal(revealed(dest.Field(f.index)))
				if err != nil {
					t.Fatal(err)
				}
				return string(out)
			}
			if got, want := part(cfg, "own"), part(alone, "own"); got != want {
				t.Errorf("own value: got %s, want %s", got, want)
			}
			defaults, err := json.Marshal(revealed(reflect.ValueOf(cfg.Defaults).Field(f.index)))
			if err != nil {
				t.Fatal(err)
			}
			if got := part(cfg, "heir"); got != string(defaults) || got == part(cfg, "own") {
				t.Errorf("inherited value: got %s, want %s", got, defaults)
			}
		})
	}
}

// revealed turns a value into one that shows its secrets, for comparing.
func revealed(v reflect.Value) any {
	if s, ok := v.Interface().(Secret); ok {
		return s.Reveal()
	}
	switch {
	case isScalar(v.Type()):
		return v.Interface()
	case v.Kind() == reflect.Pointer && v.IsNil():
		return nil
	case v.Kind() == reflect.Pointer:
		return revealed(v.Elem())
	case v.Kind() == reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, revealed(v.Index(i)))
		}
		return list
	case v.Kind() == reflect.Map:
		m := map[string]any{}
		for key, value := range v.Seq2() {
			m[key.String()] = revealed(value)
		}
		return m
	}
	if value, ok := v.Interface().(Value); ok {
		return value.JSON
	}
	m := map[string]any{}
	for i := range v.NumField() {
		m[v.Type().Field(i).Name] = revealed(v.Field(i))
	}
	return m
}

func TestMappingsAreMergedKeyByKey(t *testing.T) {
	cfg := mustParseFile(t, `
defaults:
  url: https://a.example
  headers: {X-Team: data, X-Kind: default}
  tls: {ca_file: /ca.pem}
  retry: {schedule: [0s, 1m], max_age: 1h}
  auth: {bearer: {token: t}}
destinations:
  a: {headers: {x-kind: own, X-More: m}, tls: {min_version: "1.3"}, retry: {max_age: 2h}, auth: }
  b: {}
`)
	a, b := cfg.Destinations["a"], cfg.Destinations["b"]
	got := map[string]string{}
	for name, value := range a.Headers {
		got[name] = value.Reveal()
	}
	if want := map[string]string{"X-Team": "data", "x-kind": "own", "X-More": "m"}; !reflect.DeepEqual(got, want) {
		t.Errorf("headers: got %v, want %v", got, want)
	}
	if got, want := a.TLS, (TLS{CAFile: "/ca.pem", MinVersion: "1.3"}); got != want {
		t.Errorf("tls: got %v, want %v", got, want)
	}
	if got := a.Retry; len(got.Schedule) != 10 || got.MaxAge != Duration(2*time.Hour) {
		t.Errorf("retry replaces the inherited one whole: got %+v", got)
	}
	if a.Auth != nil {
		t.Error("auth without a value removes the inherited one: got one")
	}
	if len(b.Headers) != 2 || b.Headers["X-Kind"].Reveal() != "default" || len(b.Retry.Schedule) != 2 || b.Auth == nil {
		t.Errorf("the other destination is unchanged: got %+v", b)
	}
}
