package postern_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/postern-relay/postern/relay"
	"github.com/postern-relay/postern/relay/sign"
)

var (
	yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")
	variable  = regexp.MustCompile(`\$\{env:([A-Z_]+)\}`)
)

// TestConfigsInDocuments loads each config that the README shows, by the code that run uses: what is written there
// works.
func TestConfigsInDocuments(t *testing.T) {
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := yamlBlock.FindAllSubmatch(raw, -1)
	if len(blocks) < 2 {
		t.Fatalf("README.md has %d blocks of YAML, want the small config and the large one", len(blocks))
	}
	for _, block := range blocks {
		file := filepath.Join(t.TempDir(), "postern.yaml")
		if err := os.WriteFile(file, block[1], 0o600); err != nil {
			t.Fatal(err)
		}
		loadConfig(t, file)
	}
}

// TestConfigsInExamples does the same for each folder of examples.
func TestConfigsInExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("examples", "*", "postern.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d examples, error %v; want at least one", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.ToSlash(file), func(t *testing.T) { loadConfig(t, file) })
	}
}

// loadConfig loads a file with a good value for each variable that it asks for.
func loadConfig(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var environ []string
	for _, found := range variable.FindAllSubmatch(text, -1) {
		environ = append(environ, string(found[1])+"="+sign.NewSecret())
	}
	_, plan, err := relay.Load(file, environ)
	if err != nil {
		t.Fatalf("load:\n%v", err)
	}
	if got := plan.Destinations(); len(got) == 0 {
		t.Error("got no destinations, want some")
	}
}
