package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzParse holds each file to: no panic, faults with a place and a text on one line, a Config beside them, and a
// Config without faults that prints and loads again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(everyKey))
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("%YAML 1.1\n---\ndestinations: {a: {url: ${env:A}}}"))
	environ := []string{"A=canary-value", "TOKEN=canary-0123456789", "POSTERN_LOG_LEVEL=debug", "POSTERN_DESTINATIONS_A_URL=https://canary-value"}
	f.Fuzz(func(t *testing.T, data []byte) {
		// Files are another matter: a fuzzer must not wander through this machine's.
		if strings.Contains(string(data), "file:") {
			return
		}
		cfg, err := Parse("postern.yaml", data, environ)
		if cfg == nil {
			t.Fatal("got no Config")
		}
		masked, renderErr := cfg.Masked(Form{})
		if renderErr != nil {
			t.Fatalf("got %v from Masked", renderErr)
		}
		if _, err := cfg.MaskedJSON(Form{}); err != nil {
			t.Fatalf("got %v from MaskedJSON", err)
		}
		if !strings.Contains(string(data), "canary") && strings.Contains(string(masked), "canary") {
			t.Errorf("a secret is in\n%s", masked)
		}
		if err == nil {
			return
		}
		var list ErrorList
		if !errors.As(err, &list) || len(list) == 0 {
			t.Fatalf("got %T, want an ErrorList with faults", err)
		}
		for _, e := range list {
			if e.File == "postern.yaml" && (e.Line < 1 || e.Col < 1) || e.Msg == "" || strings.Contains(e.Error(), "\n") {
				t.Errorf("got %#v, want a place and one line of text", e)
			}
		}
		if !strings.Contains(string(data), "canary") && strings.Contains(err.Error(), "canary") {
			t.Errorf("a secret is in\n%v", err)
		}
	})
}
