package config

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustParseFile(t *testing.T, file string, environ ...string) *Config {
	t.Helper()
	cfg, err := Parse("dir/postern.yaml", []byte(file), environ)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestURLAloneIsACompleteConfig(t *testing.T) {
	cfg := mustParseFile(t, "destinations: {alerts: {url: https://hooks.example.com/alerts}}")
	minutes := func(m ...int) []Duration {
		var list []Duration
		for _, n := range m {
			list = append(list, Duration(time.Duration(n)*time.Minute))
		}
		return list
	}
	dest := Destination{
		URL: "https://hooks.example.com/alerts", Enabled: true, Method: "POST", TLS: TLS{MinVersion: "1.2"},
		Timeout: Duration(30 * time.Second), Success: []string{"2xx"}, Concurrency: 16, Order: "none", OrderOnFailure: "next",
		Breaker: Breaker{Failures: 20, ProbeEvery: Duration(30 * time.Second)},
		Retry: Retry{
			Schedule: append([]Duration{0, Duration(5 * time.Second)}, minutes(5, 30, 2*60, 5*60, 10*60, 14*60, 20*60, 24*60)...),
			Jitter:   0.2, MaxAge: Duration(96 * time.Hour),
		},
		Keep: Keep{Body: true, Response: 16 << 10},
	}
	want := Config{
		Listen: Listen{Ingest: "127.0.0.1:8025", AcceptedStatus: 202, Admin: DefaultAdmin, MaxBody: 1 << 20, SocketMode: 0o600},
		Store:  Store{Path: "./data", Retention: Duration(72 * time.Hour), MinFree: 256 << 20, MaxPending: 1_000_000},
		Log:    Log{Format: "auto", Level: "info"}, Tracing: Tracing{SampleRatio: 1},
		Egress: Egress{UserAgent: "Postern/1"},
	}
	got := *cfg
	if !reflect.DeepEqual(got.Destinations, map[string]*Destination{"alerts": &dest}) {
		t.Errorf("destinations: got %+v, want %+v", *got.Destinations["alerts"], dest)
	}
	dest.URL = ""
	want.Defaults = dest
	got.Destinations, got.src = nil, source{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestEveryKeyIsDecoded(t *testing.T) {
	cfg := mustParseFile(t, everyKey, "TOKEN=a-long-enough-token")
	small := mustParseFile(t, "destinations: {alerts: {url: https://x.example}}")
	var walk func(path string, got, plain reflect.Value)
	walk = func(path string, got, plain reflect.Value) {
		for _, f := range fieldsOf(got.Type()) {
			if path == "" && f.key == "destinations" {
				continue
			}
			a, b, key := got.Field(f.index), plain.Field(f.index), join(path, f.key)
			if a.Kind() == reflect.Struct && !isScalar(a.Type()) && a.Type() != reflect.TypeFor[Retry]() && key != "defaults" {
				walk(key, a, b)
				continue
			}
			if reflect.DeepEqual(a.Interface(), b.Interface()) {
				t.Errorf("%s: got %v as without the key, want the value of the file", key, a)
			}
		}
	}
	walk("", reflect.ValueOf(*cfg), reflect.ValueOf(*small))
	walk("destinations.alerts", reflect.ValueOf(*cfg.Destinations["alerts"]), reflect.ValueOf(*small.Destinations["alerts"]))

	alerts := cfg.Destinations["alerts"]
	wantRetry := Retry{Attempts: 4, First: Duration(10 * time.Second), Max: Duration(10 * time.Minute), Factor: 3, Jitter: 0.1, MaxAge: Duration(12 * time.Hour)}
	if got := alerts.Retry; !reflect.DeepEqual(got, wantRetry) {
		t.Errorf("retry: got %+v, want %+v", got, wantRetry)
	}
	if got := cfg.Destinations["key"].Retry; !got.None || got.Schedule != nil || got.Attempts != 0 {
		t.Errorf("retry none: got %+v", got)
	}
	if got, want := alerts.TLS.CAFile, filepath.Join("dir", "ca.pem"); got != want {
		t.Errorf("ca_file: got %q, want %q beside the config file", got, want)
	}
	if got, want := cfg.Store.Path, "/var/lib/postern"; got != want {
		t.Errorf("store.path: got %q, want %q", got, want)
	}
	if got, want := alerts.Sign[1].HMAC.Secret.Reveal(), "a-long-enough-token"; got != want {
		t.Errorf("secret: got %q, want %q", got, want)
	}
	wantValues := []Value{{"ok"}, {json.Number("1")}, {json.Number("0.5")}, {true}, {nil}, {[]any{"a"}}, {map[string]any{"b": "c"}}}
	if got := alerts.Expect[0]; got.Path != "$.data.status" || !reflect.DeepEqual(got.Values, wantValues) {
		t.Errorf("expect: got %+v, want values %+v", got, wantValues)
	}
	if got := alerts.Breaker; got != (Breaker{Failures: 7, ProbeEvery: Duration(10 * time.Second)}) {
		t.Errorf("breaker: got %+v", got)
	}
	if got := cfg.Destinations["key"].Breaker; got != (Breaker{None: true}) {
		t.Errorf("breaker none: got %+v", got)
	}
	if one, two := alerts.Sign[2].Timestamped.Secret, alerts.Sign[3].Timestamped.Secret; len(one) != 1 || len(two) != 2 || one[0].Reveal() != two[1].Reveal() {
		t.Errorf("secrets: got %d and %d, want one without brackets and two in them", len(one), len(two))
	}
	if got, want := cfg.Names(), []string{"alerts", "plain", "key", "oauth"}; !slices.Equal(got, want) {
		t.Errorf("names: got %q, want %q as in the file", got, want)
	}
}

func TestIncompleteExponentialRetryIsCompleted(t *testing.T) {
	for file, want := range map[string]Retry{
		"{attempts: 3}": {Attempts: 3, First: Duration(5 * time.Second), Max: Duration(time.Hour), Factor: 2},
		"{first: 2h}":   {Attempts: 10, First: Duration(2 * time.Hour), Max: Duration(2 * time.Hour), Factor: 2},
		"{factor: 1.5}": {Attempts: 10, First: Duration(5 * time.Second), Max: Duration(time.Hour), Factor: 1.5},
		"{max: 1m}":     {Attempts: 10, First: Duration(5 * time.Second), Max: Duration(time.Minute), Factor: 2},
	} {
		t.Run(file, func(t *testing.T) {
			want.Jitter, want.MaxAge = 0.2, Duration(96*time.Hour)
			cfg := mustParseFile(t, "destinations: {a: {url: https://a.example, retry: "+file+"}}")
			if got := cfg.Destinations["a"].Retry; !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestErrorfFindsThePlaceOfAKey(t *testing.T) {
	file := `defaults:
  url: https://d.example
  sign: [{standard: {secrets: [a, b]}}]
  tls: {ca_file: /ca.pem}
destinations:
  own:
    url: https://o.example
    sign:
      - standard:
          secrets:
            - a
            - b
  heir: {tls: {min_version: "1.3"}}
  a.b: {}
`
	cfg, err := Parse("postern.yaml", []byte(file), []string{"POSTERN_DESTINATIONS_HEIR_TIMEOUT=5s"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"destinations.own.url":                          "postern.yaml:7:10",
		"destinations.own.sign[0].standard.secrets[1]":  "postern.yaml:12:15",
		"destinations.own.sign[0].standard.unheard_of":  "postern.yaml:9:9",
		"destinations.own.timeout":                      "postern.yaml:6:3",
		"destinations.heir.url":                         "postern.yaml:2:8",
		"destinations.heir.sign[0].standard.secrets[1]": "postern.yaml:3:35",
		"destinations.heir.tls.ca_file":                 "postern.yaml:4:18",
		"destinations.heir.tls.min_version":             "postern.yaml:13:29",
		"destinations.heir.timeout":                     "POSTERN_DESTINATIONS_HEIR_TIMEOUT",
		"destinations.a.b.url":                          "postern.yaml:2:8",
		"destinations.a.b":                              "postern.yaml:14:3",
		"store.path":                                    "postern.yaml:1:1",
	} {
		t.Run(path, func(t *testing.T) {
			got := cfg.Errorf(path, "number %d", 7).Error()
			if want := want + ": " + path + ": number 7"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestFaultyKnowsTheKeysWithFaults(t *testing.T) {
	cfg, err := Parse("postern.yaml", []byte(`
defaults: {url: 5, tls: {ca_file: 5}, sign: [{hmac: {header: X-S}}]}
destinations:
  own: {url: https://o.example, unknown: 1, events: [5], tls: {min_version: "1.3"}, sign: []}
  heir: {}
  broken: 1
`), nil)
	if err == nil {
		t.Fatal("got no error")
	}
	for path, want := range map[string]bool{
		"destinations.own.url": false, "destinations.own.events": true, "destinations.own.events[0]": true,
		"destinations.own.unknown": false, "destinations.own.tls": true, "destinations.own.tls.min_version": false,
		"destinations.own.tls.ca_file": true, "destinations.own.sign": false, "destinations.own": true,
		"destinations.heir.url": true, "destinations.heir.sign[0].hmac": true, "destinations.heir.sign[0].hmac.header": false,
		"destinations.heir.timeout": false, "destinations.broken.url": true, "destinations.broken": true,
		"store.path": false, "defaults.url": true, "destinations": true,
	} {
		t.Run(path, func(t *testing.T) {
			if got := cfg.Faulty(path); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestReferences(t *testing.T) {
	environ := []string{"A=old", "A=aa", "B=b b", "EMPTY=", "REF=${env:A}"}
	for _, c := range []struct{ text, want string }{
		{`"${env:A}"`, "aa"},
		{`${env:A}`, "aa"},
		{`"x${env:A}y${env:B}z"`, "xaayb bz"},
		{`x-${env:A}`, "x-aa"},
		{`"$${env:A}"`, "${env:A}"},
		{`"$$${env:A}"`, "$${env:A}"},
		{`"$$${env:A}${env:A}"`, "$${env:A}aa"},
		{`"a$b$"`, "a$b$"},
		{`"${env:REF}"`, "${env:A}"},
		{`'${env:A}'`, "aa"},
		{`"x${env:EMPTY}"`, "x"},
		{`"{a} $ {b}"`, "{a} $ {b}"},
	} {
		t.Run(c.text, func(t *testing.T) {
			for _, form := range []string{"destinations: {a: {url: https://a.example, headers: {X-A: %}}}", "destinations:\n  a:\n    url: https://a.example\n    headers:\n      X-A: %\n"} {
				cfg := mustParseFile(t, strings.Replace(form, "%", c.text, 1), environ...)
				if got := cfg.Destinations["a"].Headers["X-A"].Reveal(); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
		})
	}
	t.Run("stand for numbers, booleans, durations and entries of lists too", func(t *testing.T) {
		cfg := mustParseFile(t, `
listen: {accepted_status: "${env:N}"}
destinations: {a: {url: "https://${env:H}/x", enabled: "${env:B}", timeout: "${env:D}", events: ["${env:E}"], retry: "${env:R}", tls: {ca_file: "${env:F}"}}}`,
			"N=200", "H=a.example", "B=false", "D=5s", "E=a.*", "R=none", "F=sub/ca.pem")
		a := cfg.Destinations["a"]
		if cfg.Listen.AcceptedStatus != 200 || a.URL != "https://a.example/x" || a.Enabled || a.Timeout != Duration(5*time.Second) ||
			a.Events[0] != "a.*" || !a.Retry.None || a.TLS.CAFile != filepath.Join("dir", "sub", "ca.pem") {
			t.Errorf("got %+v and %+v", cfg.Listen, a)
		}
	})
}

func TestVariablesOverrideTheFile(t *testing.T) {
	file := "store: {path: ./file}\nlog:\ndestinations:\n  alerts.v2: {url: https://a.example}\n  shared: &s {url: https://s.example, tls: &t {min_version: \"1.3\"}}\n  other: {url: https://o.example, tls: *t}\n"
	cfg := mustParseFile(t, file,
		"POSTERN_STORE_PATH=/env", "POSTERN_LOG_LEVEL=debug", "POSTERN_LISTEN_MAX_BODY=2MiB", "POSTERN_LISTEN_ACCEPTED_STATUS=200",
		"POSTERN_EGRESS_USER_AGENT=a: ${env:B}", "POSTERN_DEFAULTS_CONCURRENCY=3", "POSTERN_DESTINATIONS_ALERTS_V2_URL=https://e.example/?k=canary",
		"POSTERN_DESTINATIONS_ALERTS_V2_ENABLED=false", "POSTERN_DESTINATIONS_OTHER_TLS_MIN_VERSION=1.2", "POSTERN_STORE_RETENTION=",
		"POSTERN_SERVICE_PORT=8025")
	a := cfg.Destinations["alerts.v2"]
	got := []any{cfg.Store.Path, cfg.Log.Level, cfg.Listen.MaxBody, cfg.Listen.AcceptedStatus, cfg.Egress.UserAgent, a.Concurrency, a.URL, a.Enabled,
		cfg.Destinations["other"].TLS.MinVersion, cfg.Destinations["shared"].TLS.MinVersion, cfg.Store.Retention}
	want := []any{"/env", "debug", Size(2 << 20), 200, "a: ${env:B}", 3, "https://e.example/?k=canary", false, "1.2", "1.3", Duration(72 * time.Hour)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	masked, err := cfg.Masked(Form{})
	if err != nil || strings.Contains(string(masked), "canary") {
		t.Errorf("got error %v and\n%s\nwant no canary", err, masked)
	}
	if held := cfg.Contents("destinations.alerts.v2"); len(held) != 1 || held[0].Reveal() != a.URL {
		t.Errorf("got %d texts to keep out of records, want that of the URL alone", len(held))
	}
}

func TestVariablesReachEverySection(t *testing.T) {
	const at = "POSTERN_DESTINATIONS_A_"
	cfg := mustParseFile(t, "defaults: {retry: {schedule: [0s, 1m]}}\ndestinations: {a: {url: https://a.example, breaker: {probe_every: 1s}}, b: {url: https://b.example}}",
		at+"RATE=5/s", at+"BATCH_EVERY=2s", at+"BREAKER_FAILURES=3", at+"RETRY_ATTEMPTS=4", at+"AUTH_BEARER_TOKEN=canary",
		"POSTERN_DESTINATIONS_B_BREAKER=none", "POSTERN_DESTINATIONS_B_RETRY=none")
	a, b := cfg.Destinations["a"], cfg.Destinations["b"]
	if a.Rate == nil || a.Rate.Count != 5 || a.Batch == nil || a.Batch.Every != Duration(2*time.Second) || a.Auth == nil || a.Auth.Bearer.Token.Reveal() != "canary" {
		t.Errorf("got rate %v, batch %v, auth %v", a.Rate, a.Batch, a.Auth)
	}
	if want := (Breaker{Failures: 3, ProbeEvery: Duration(time.Second)}); a.Breaker != want {
		t.Errorf("breaker: got %+v, want %+v, beside what the file says", a.Breaker, want)
	}
	if a.Retry.Attempts != 4 || a.Retry.Schedule != nil {
		t.Errorf("retry: got %+v, want 4 attempts instead of the inherited schedule", a.Retry)
	}
	if !b.Breaker.None || !b.Retry.None {
		t.Errorf("the word none: got %+v, %+v", b.Breaker, b.Retry)
	}
	if masked, err := cfg.Masked(Form{}); err != nil || strings.Contains(string(masked), "canary") {
		t.Errorf("masked: %v\n%s", err, masked)
	}
}
