//go:build npm

package dashboard_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestNPMBuildIsReproducible builds the dashboard from its source, elsewhere, and compares every byte with dist. It
// needs node, npm and its registry.
func TestNPMBuildIsReproducible(t *testing.T) {
	dir := t.TempDir()
	ui := filepath.Join(dir, "ui")
	for _, name := range []string{".npmrc", "build.mjs", "package-lock.json", "package.json", "tsconfig.json"} {
		copyFile(t, filepath.Join("ui", name), filepath.Join(ui, name))
	}
	if err := os.CopyFS(filepath.Join(ui, "src"), os.DirFS(filepath.Join("ui", "src"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "testdata"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	for _, arguments := range [][]string{
		{"ci", "--ignore-scripts", "--no-audit", "--no-fund"}, {"run", "check"}, {"run", "build"},
	} {
		npm := exec.CommandContext(ctx, "npm", arguments...)
		npm.Dir = ui
		if out, err := npm.CombinedOutput(); err != nil {
			t.Fatalf("npm %q: %v\n%s", arguments, err, out)
		}
	}
	got, want := files(t, filepath.Join(dir, "dist")), files(t, "dist")
	if len(want) < 5 {
		t.Fatalf("dist has only %d files: this tests nothing", len(want))
	}
	for name, content := range want {
		if !bytes.Equal(got[name], content) {
			t.Errorf("%s is not what its source builds (%d bytes, not %d); run make dashboard", name, len(got[name]), len(content))
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d files, want %d", len(got), len(want))
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// files reads the files below a folder, by their path in it.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(filepath.Join(dir, name))
		found[name] = raw
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
