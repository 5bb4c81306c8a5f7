package postern_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay"
	"github.com/postern-relay/postern/relay/sign"
)

var (
	yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")
	variable  = regexp.MustCompile(`\$\{env:([A-Z_]+)\}`)
	mounted   = regexp.MustCompile(`\$\{file:(/[^}]+)\}`)
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

// TestScriptsInExamples holds what their READMEs take for granted: ./send.sh can be run as it is.
func TestScriptsInExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("examples", "*", "*.sh"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d scripts, error %v; want at least one", len(files), err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got&0o111 != 0o111 {
			t.Errorf("%s: got mode %o, want it executable", filepath.ToSlash(file), got)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "#!/bin/sh\n") {
			t.Errorf("%s: it does not say which shell it is for", filepath.ToSlash(file))
		}
	}
}

// loadConfig loads a file with a good value for each variable, and for each file of an absolute path, that it asks for.
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
	if mounted.Match(text) {
		dir := t.TempDir()
		here := mounted.ReplaceAllFunc(text, func(reference []byte) []byte {
			secret := filepath.Join(dir, filepath.Base(string(mounted.FindSubmatch(reference)[1])))
			if err := os.WriteFile(secret, []byte(sign.NewSecret()+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return []byte("${file:" + secret + "}")
		})
		file = filepath.Join(dir, "postern.yaml")
		if err := os.WriteFile(file, here, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, plan, err := relay.Load(file, environ)
	if err != nil {
		t.Fatalf("load:\n%v", err)
	}
	if got := plan.Destinations(); len(got) == 0 {
		t.Error("got no destinations, want some")
	}
}
