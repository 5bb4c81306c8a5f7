package config

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
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
		Timeout: Duration(30 * time.Second), Success: []string{"2xx"}, Concurrency: 16, Order: "none",
		Retry: Retry{
			Schedule: append([]Duration{0, Duration(5 * time.Second)}, minutes(5, 30, 2*60, 5*60, 10*60, 14*60, 20*60, 24*60)...),
			Jitter:   0.2, MaxAge: Duration(96 * time.Hour),
		},
		Keep: Keep{Body: true, Response: 16 << 10},
	}
	want := Config{
		Listen: Listen{Ingest: "127.0.0.1:8025", AcceptedStatus: 202, Admin: DefaultAdmin, MaxBody: 1 << 20},
		Store:  Store{Path: "./data", Retention: Duration(72 * time.Hour), MinFree: 256 << 20, MaxPending: 1_000_000},
		Log:    Log{Format: "auto", Level: "info"},
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
			if f.rules.later || path == "" && f.key == "destinations" {
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
	if got, want := cfg.Names(), []string{"alerts", "plain", "key"}; !slices.Equal(got, want) {
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

// inheritance has, for each key of a destination, a value for defaults and one that a destination sets itself.
var inheritance = map[string][2]string{
	"url": {"https://d.example", "https://o.example"}, "enabled": {"false", "true"}, "method": {"PUT", "PATCH"},
	"events": {"[a, b]", "[c]"}, "headers": {"{X-A: d}", "{X-A: o}"}, "content_type": {"text/plain", "text/csv"},
	"auth": {"{bearer: {token: d}}", "{basic: {username: o, password: o}}"}, "tls": {"{ca_file: /d}", "{ca_file: /o}"},
	"sign": {"[{standard: {secrets: [d]}}]", "[]"}, "timeout": {"5s", "6s"}, "success": {"[201]", "[202]"},
	"retry": {"none", "{attempts: 2}"}, "concurrency": {"2", "3"}, "allow_networks": {"[10.0.0.0/8]", "[]"},
	"keep": {"{response: 1KiB}", "{response: 2KiB}"},
}

func TestEveryKeyIsInherited(t *testing.T) {
	for _, f := range fieldsOf(reflect.TypeFor[Destination]()) {
		if f.rules.later {
			continue
		}
		t.Run(f.key, func(t *testing.T) {
			values, ok := inheritance[f.key]
			if !ok {
				t.Fatal("no values for this key; add them to the table")
			}
			if f.key != "url" {
				values[0] += ", url: https://a.example"
			}
			cfg := mustParseFile(t, "destinations: {own: {"+f.key+": "+values[1]+"}, heir: {}}\ndefaults: {"+f.key+": "+values[0]+"}")
			alone := mustParseFile(t, "destinations: {own: {url: https://a.example, "+f.key+": "+values[1]+"}}")
			if f.key == "url" {
				alone = mustParseFile(t, "destinations: {own: {url: "+values[1]+"}}")
			}
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

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("a file with secrets beside it", func(t *testing.T) {
		write("private", "canary-1\n", 0o600)
		write("open", "canary-2\r\n\n", 0o644)
		path := write("postern.yaml", "destinations: {a: {url: https://a.example, headers: {X-A: \"${file:private}\", X-B: \"-${file:"+dir+"/open}-\"}}}", 0o600)
		cfg, err := Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		headers := cfg.Destinations["a"].Headers
		if got, want := headers["X-A"].Reveal(), "canary-1"; got != want {
			t.Errorf("got %q, want %q without the line break", got, want)
		}
		if got, want := headers["X-B"].Reveal(), "-canary-2\r\n-"; got != want {
			t.Errorf("got %q, want %q with one line break less", got, want)
		}
		if got, want := cfg.Files(), []string{filepath.Join(dir, "open"), filepath.Join(dir, "private")}; !slices.Equal(got, want) {
			t.Errorf("files: got %q, want %q", got, want)
		}
		warnings := cfg.Warnings()
		if len(warnings) != 1 || !strings.Contains(warnings[0].Error(), ":1:79: destinations.a.headers.X-B: every user") {
			t.Errorf("warnings: got %v, want one about the file that others may read", warnings)
		}
	})
	t.Run("a missing file", func(t *testing.T) {
		cfg, err := Load(filepath.Join(dir, "none.yaml"), nil)
		if !errors.Is(err, fs.ErrNotExist) || cfg != nil || !strings.Contains(err.Error(), "none.yaml") {
			t.Errorf("got %v and error %v, want an error that says so", cfg, err)
		}
	})
	t.Run("a named pipe is refused without waiting for its writer", func(t *testing.T) {
		path := filepath.Join(dir, "pipe")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("got %v, want an error that says so", err)
		}
	})
	t.Run("a folder is refused", func(t *testing.T) {
		if _, err := Load(dir, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("got %v, want an error that says so", err)
		}
	})
	comment := "destinations: {a: {url: https://a.example}}\n#"
	t.Run("a file of 1 MiB is read", func(t *testing.T) {
		if _, err := Load(write("big", comment+strings.Repeat("x", 1<<20-len(comment)), 0o600), nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("a larger file is refused", func(t *testing.T) {
		if _, err := Load(write("big", comment+strings.Repeat("x", 1<<20-len(comment)+1), 0o600), nil); err == nil {
			t.Error("got no error")
		}
	})
	t.Run("a secret file of 64 KiB is read, and a larger one is refused", func(t *testing.T) {
		path := write("ref.yaml", `destinations: {a: {url: https://a.example, headers: {X-A: "${file:large}"}}}`, 0o600)
		write("large", strings.Repeat("x", 64<<10), 0o600)
		if _, err := Load(path, nil); err != nil {
			t.Error(err)
		}
		write("large", strings.Repeat("x", 64<<10+1), 0o600)
		if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "larger than 64KiB") {
			t.Errorf("got %v, want an error that says so", err)
		}
	})
}

func TestHostileFilesAreRefusedInBoundedTime(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n")
	for i := range 20 {
		name := string(rune('a' + i))
		last := "x0"
		if i > 0 {
			last = "y" + string(rune('a'+i-1))
		}
		bomb.WriteString("y" + name + ": &y" + name + " [" + strings.Repeat("*"+last+", ", 9) + "*" + last + "]\n")
	}
	bomb.WriteString("destinations: {a: {url: https://a.example, events: *yt}}\n")

	events := "defaults: {events: &e [" + strings.Repeat("a,", 999) + "a]}\ndestinations:\n"
	for i := range 4000 {
		events += "  d" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + Duration(i).String() + ": {url: https://a.example, events: *e}\n"
	}
	for name, file := range map[string]string{
		"an alias bomb":              bomb.String(),
		"an anchor within itself":    "destinations: &d {a: *d}",
		"many uses of one long list": events,
		"deep lists":                 strings.Repeat("[", 1<<19),
		"deep mappings":              strings.Repeat("{a: ", 1<<17),
		"many unknown keys":          strings.Repeat("? k\n: 1\n", 1) + manyKeys(60000),
		"many headers to inherit":    "defaults: {headers: {" + strings.ReplaceAll(manyKeys(10000), "\n", ", ") + "}}\ndestinations: {a: {url: https://a.example}}",
		"all private characters":     allPrivate(),
		"bytes that are not UTF-8":   "destinations: {a: {url: \"\xff\"}}",
		"a file that is too large":   strings.Repeat("#", 1<<20+1),
		"a very long key":            strings.Repeat("k", 1<<19) + ": 1",
		"an endless reference":       "destinations: {a: {url: \"${env:" + strings.Repeat("A", 1<<19) + "\"}}",
		"references that multiply":   "destinations: {a: {url: https://a.example, events: [" + strings.Repeat("\"${env:BIG}${env:BIG}${env:BIG}${env:BIG}${env:BIG}${env:BIG}\",", 999) + "a]}}",
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			cfg, err := Parse("postern.yaml", []byte(file), []string{"BIG=" + strings.Repeat("x", 100_000)})
			var list ErrorList
			if !errors.As(err, &list) || cfg == nil {
				t.Fatalf("got %v and error %v, want an ErrorList", cfg, err)
			}
			if len(list) > maxErrors+1 {
				t.Errorf("got %d faults, want at most %d", len(list), maxErrors+1)
			}
			if n := len(list.Error()); n > 4<<20 {
				t.Errorf("got %d bytes of errors", n)
			}
			// Far above what any of these takes, and far below what following every alias would.
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("k" + Duration(i).String() + ": 1\n")
	}
	return b.String()
}

func allPrivate() string {
	var b strings.Builder
	for r := rune(0xE000); r < 0xF000; r++ {
		b.WriteRune(r)
	}
	return "log: {level: \"" + b.String() + "\"}"
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
	masked, err := cfg.Masked()
	if err != nil || strings.Contains(string(masked), "canary") {
		t.Errorf("got error %v and\n%s\nwant no canary", err, masked)
	}
}

func TestMasked(t *testing.T) {
	secrets := `
store: {path: "${env:DIR}/data"}
destinations:
  z:
    url: https://a.example/${env:CANARY}?key=${env:CANARY}
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
			for _, want := range []string{"shown", "a *** b", "https://a.example/***?key=***", "/srv/data", "72h", "X-Api-Key", "https://***@a.example/"} {
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
