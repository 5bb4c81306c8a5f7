package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files in testdata/faults are bad configs; beside each NAME.yaml stands NAME.txt with every line that loading
// must print, and no other.
func TestEveryFaultIsReportedWithItsPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("got %d files and error %v, want at least 10", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			environ := []string{"EMPTY=", "SHORT=canary-short", "LONG=canary-0123456789abcdef"}
			for line := range strings.Lines(string(data)) {
				if entry, ok := strings.CutPrefix(line, "# environment: "); ok {
					environ = append(environ, strings.TrimSpace(entry))
				}
			}
			cfg, err := Parse("postern.yaml", data, environ)
			var list ErrorList
			if !errors.As(err, &list) {
				t.Fatalf("got error %v, want an ErrorList", err)
			}
			if cfg == nil {
				t.Error("got no Config beside the faults")
			}
			got, golden := list.Error()+"\n", strings.TrimSuffix(file, ".yaml")+".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if strings.Contains(got, "canary") {
				t.Errorf("a secret is in the errors:\n%s", got)
			}
		})
	}
}
