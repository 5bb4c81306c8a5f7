package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

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
		if len(warnings) != 1 || !strings.Contains(warnings[0].Error(), ":1:83: destinations.a.headers.X-B: every user") {
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
