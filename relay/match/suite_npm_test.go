//go:build npm

package match

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"
)

// suiteCase is one case of the public compliance suite (jsonpath-standard/jsonpath-compliance-test-suite).
type suiteCase struct {
	Name         string
	Selector     string
	Document     json.RawMessage
	Result       json.RawMessage   // what is selected, or
	Results      []json.RawMessage // one of these
	ResultPaths  []string          `json:"result_paths"`
	ResultsPaths [][]string        `json:"results_paths"`
	Invalid      bool              `json:"invalid_selector"`
}

// TestNPMComplianceSuite runs the suite of RFC 9535. It needs npm and its registry.
func TestNPMComplianceSuite(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json"} {
		raw, err := os.ReadFile(filepath.Join("npmsuite", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	var suite struct{ Tests []suiteCase }
	err := filepath.WalkDir(filepath.Join(dir, "node_modules"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Name() != "cts.json" {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &suite)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(suite.Tests); got < 600 {
		t.Fatalf("found %d cases, want the whole suite", got)
	}
	for _, c := range suite.Tests {
		t.Run(c.Name, func(t *testing.T) { c.run(t) })
	}
}

func (c suiteCase) run(t *testing.T) {
	path, err := ParsePath(c.Selector)
	if c.Invalid {
		if err == nil {
			t.Errorf("%q was parsed", c.Selector)
		}
		return
	}
	if err != nil {
		t.Fatalf("%q: %v", c.Selector, err)
	}
	doc, err := ParseJSON(c.Document)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := path.Select(doc)
	if err != nil {
		t.Fatal(err)
	}
	got, paths := []any{}, []string{}
	for _, n := range nodes {
		got, paths = append(got, decoded(t, n.JSON())), append(paths, n.Path())
	}
	results, resultPaths := c.Results, c.ResultsPaths
	if c.Result != nil {
		results, resultPaths = []json.RawMessage{c.Result}, [][]string{c.ResultPaths}
	}
	for i, want := range results {
		if reflect.DeepEqual(any(got), decoded(t, want)) && (i >= len(resultPaths) || slices.Equal(resultPaths[i], paths)) {
			return
		}
	}
	t.Errorf("%s on %s: got %v at %q, want %s at %q", c.Selector, c.Document, got, paths, results, resultPaths)
}

func decoded(t *testing.T, raw []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
