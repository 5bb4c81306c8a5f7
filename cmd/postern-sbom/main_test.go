package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schema compiles the schema of CycloneDX 1.6.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	folder := filepath.Join("..", "..", "testdata", "schemas")
	c := jsonschema.NewCompiler()
	for url, file := range map[string]string{
		"http://cyclonedx.org/schema/bom-1.6.schema.json":  "cyclonedx-1.6.json",
		"http://cyclonedx.org/schema/spdx.schema.json":     "spdx.json",
		"http://cyclonedx.org/schema/jsf-0.82.schema.json": "jsf-0.82.json",
	} {
		f, err := os.Open(filepath.Join(folder, file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		doc, err := jsonschema.UnmarshalJSON(f)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if err := c.AddResource(url, doc); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	s, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDocument describes a real binary: this test.
func TestDocument(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := run([]string{"-version", "1.2.3", self}, &out, &errOut); code != 0 {
		t.Fatalf("got exit code %d: %s", code, errOut.String())
	}
	t.Run("it is what the schema of CycloneDX asks for", func(t *testing.T) {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(out.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		s := schema(t)
		if err := s.Validate(doc); err != nil {
			t.Error(err)
		}
		doc.(map[string]any)["components"].([]any)[0].(map[string]any)["type"] = "thing"
		if err := s.Validate(doc); err == nil {
			t.Error("a component of an unknown type is let pass: this tests nothing")
		}
	})
	t.Run("it names each module that is linked, with its version and sum", func(t *testing.T) {
		var doc document
		if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		found := map[string]component{}
		for _, c := range doc.Components {
			found[c.Name] = c
		}
		info, ok := debug.ReadBuildInfo()
		if !ok || len(info.Deps) == 0 {
			t.Fatal("this test has no build info")
		}
		for _, m := range info.Deps {
			c, ok := found[m.Path]
			if !ok || c.Version != m.Version || c.PURL != "pkg:golang/"+m.Path+"@"+strings.ReplaceAll(m.Version, "+", "%2B") || len(c.Properties) != 1 || c.Properties[0].Value != m.Sum {
				t.Errorf("got %+v, want %s %s with its sum", c, m.Path, m.Version)
			}
		}
		if got := doc.Metadata.Component; got.Version != "1.2.3" || !strings.HasSuffix(got.PURL, "@1.2.3") || len(got.Hashes) != 1 {
			t.Errorf("got %+v, want the release's number and the hash of the file", got)
		}
		if found["std"].Version == "" {
			t.Errorf("got %+v, want the version of Go", found["std"])
		}
		if got, want := len(doc.Components), len(info.Deps)+1; got != want {
			t.Errorf("got %d components, want %d", got, want)
		}
		if got, want := len(doc.Dependencies[0].DependsOn), len(info.Deps)+1; got != want {
			t.Errorf("got %d dependencies, want %d", got, want)
		}
	})
	t.Run("the same binary gives the same document", func(t *testing.T) {
		again, err := describe(self, "1.2.3")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, out.Bytes()) {
			t.Error("got another one")
		}
	})
	t.Run("it does not say where it was built", func(t *testing.T) {
		wd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), filepath.Dir(filepath.Dir(wd))) {
			t.Errorf("%s is in it", wd)
		}
	})
}

func TestRunRefuses(t *testing.T) {
	for rule, tc := range map[string]struct {
		args []string
		code int
	}{
		"nothing to describe":      {nil, 2},
		"more than one":            {[]string{"a", "b"}, 2},
		"a file that is not there": {[]string{filepath.Join(t.TempDir(), "none")}, 1},
		"what is no Go program":    {[]string{"main.go"}, 1},
	} {
		t.Run(rule, func(t *testing.T) {
			var out, errOut bytes.Buffer
			if code := run(tc.args, &out, &errOut); code != tc.code || errOut.Len() == 0 || out.Len() != 0 {
				t.Errorf("got exit code %d, output %q, errors %q; want %d and only errors", code, out.String(), errOut.String(), tc.code)
			}
		})
	}
}
