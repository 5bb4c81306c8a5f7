package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

// execPostern runs a command to its end, and wants an exit code.
func execPostern(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "postern", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // its code says it
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("postern %v: exit code %d, want %d:\n%s%s", args, got, code, &out, &errs)
	}
	return out.String(), errs.String()
}

// TestBackupAndRestore takes a relay with pending deliveries through a backup under load, a restore elsewhere and on: all
// that was accepted before the backup began arrives, under the ids of the answers.
func TestBackupAndRestore(t *testing.T) {
	far := newFarEnd(t, "127.0.0.23", "backup.test")
	dir := t.TempDir()
	ingest, admin := freeAddresses(t)
	first, second := store.NewKey(), store.NewKey()
	configFile := func(name, data string, keys ...store.Key) string {
		var texts []string
		for _, k := range keys {
			texts = append(texts, `"`+k.Text()+`"`)
		}
		path := filepath.Join(dir, name)
		text := far.config(ingest, admin, filepath.Join(dir, data), "retry: {attempts: 100, first: 50ms, max: 500ms, factor: 2}")
		if len(keys) > 0 {
			text = strings.Replace(text, "store: {", "store: {encryption_key: ["+strings.Join(texts, ", ")+"], ", 1)
		}
		writeFile(t, path, text)
		return path
	}
	config := configFile("postern.yaml", "data", first)
	relay := startPostern(t, admin, "run", "--config", config)
	far.Outage(true)
	accepted := map[string]string{}
	for n := range 50 {
		body := fmt.Sprintf(`{"n":%d,"pad":"canary-body-%d"}`, n, n)
		id, err := post(t.Context(), http.DefaultClient, "http://"+ingest+"/to/far", body)
		if err != nil {
			t.Fatal(err)
		}
		accepted[id] = body
	}
	stop := loadUntilDead(t, http.DefaultClient, "http://"+ingest+"/to/far", 1, map[string]string{})
	file := filepath.Join(dir, "copy.backup")
	out, _ := execPostern(t, exitOK, "backup", "--config", config, "--json", file)
	var made madeBackup
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Messages < 50 || made.Pending < 50 {
		t.Errorf("backup: got %s, error %v; want 50 messages at least", out, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || info.Size() != made.Bytes {
		t.Errorf("the file: %v, error %v; want mode 0600 and %d bytes", info, err, made.Bytes)
	}
	execPostern(t, exitUsage, "backup", "--config", config, file)
	_, errs := execPostern(t, exitLocked, "backup", "--config", config, "--store", filepath.Join(dir, "data"), file+"2")
	if !strings.Contains(errs, "leave out --store") {
		t.Errorf("of a store in use: got %q", errs)
	}
	relay.kill(t)
	stop()

	t.Run("no file shows a body", func(t *testing.T) {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(name)
			if bytes.Contains(raw, []byte("canary-body-")) {
				t.Errorf("%s shows one", name)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("another key ends a start with its own code, and touches nothing", func(t *testing.T) {
		_, errs := execPostern(t, exitKey, "run", "--config", configFile("wrong.yaml", "data", second))
		if !strings.Contains(errs, first.Fingerprint()) || strings.Contains(errs, second.Text()) {
			t.Errorf("got %q, want the fingerprint that is needed", errs)
		}
		execPostern(t, exitKey, "run", "--config", configFile("none.yaml", "data"))
		execPostern(t, exitKey, "restore", file, "--store", filepath.Join(dir, "new"), "--config", configFile("wrong.yaml", "new", second))
	})
	out, _ = execPostern(t, exitOK, "store", "check", "--config", config, "--json")
	var checked checkedStore
	if err := json.Unmarshal([]byte(out), &checked); err != nil || checked.Damaged != 0 || len(checked.Keys) != 1 || checked.Messages < made.Messages {
		t.Errorf("store check: got %s, error %v", out, err)
	}
	execPostern(t, exitOK, "backup", "--config", config, "--store", filepath.Join(dir, "data"), filepath.Join(dir, "stopped.backup"))
	execPostern(t, exitOK, "restore", filepath.Join(dir, "stopped.backup"), "--check", "--config", config)

	// With another key, as one turns to a new one at once.
	keys := filepath.Join(dir, "old.key")
	writeFile(t, keys, first.Text()+"\n")
	restoredConfig := configFile("restored.yaml", "new", second)
	out, _ = execPostern(t, exitOK, "restore", file, "--store", filepath.Join(dir, "new"), "--config", restoredConfig, "--key-file", keys)
	if !strings.Contains(out, "under the same webhook-id") || !strings.Contains(out, fmt.Sprintf("%d messages", made.Messages)) {
		t.Errorf("restore: got %q", out)
	}
	execPostern(t, exitUsage, "restore", file, "--store", filepath.Join(dir, "new"), "--config", restoredConfig, "--key-file", keys)
	far.Outage(false)
	relay = startPostern(t, admin, "run", "--config", restoredConfig)
	waitUntil(t, time.Minute, "what was accepted arrives", func() bool { return far.has(accepted) })
	relay.stop(t)
	for id, body := range accepted {
		if m, ok := far.Message(id); !ok || string(m.Body) != body {
			t.Errorf("message %s: got %q, want %q", id, m.Body, body)
		}
	}
}

func TestWhatARestoreTells(t *testing.T) {
	counts := store.BackupCounts{Messages: 3, Records: 9}
	for _, c := range []struct {
		name      string
		got       badgerstore.Restored
		check     bool
		encrypted bool
		want      []string
		not       string
	}{
		{"a readable backup is called one", badgerstore.Restored{Counts: counts}, false, true,
			[]string{", encrypted: 3 messages", "The backup itself is not encrypted"}, "webhook-id"},
		{"an encrypted one is not", badgerstore.Restored{Counts: counts, Key: "0123456789abcdef"}, false, true,
			[]string{", encrypted: 3 messages"}, "itself"},
		{"what was pending is sent again", badgerstore.Restored{Counts: store.BackupCounts{Pending: 1}}, false, false,
			[]string{"not encrypted: 0 messages, 1 pending", "under the same webhook-id"}, "itself"},
		{"what is missing is told", badgerstore.Restored{Counts: store.BackupCounts{Damaged: 2}}, true, false,
			[]string{"is whole, not encrypted", "2 damaged records were left out"}, "webhook-id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			(&program{}).tellRestored(&out, "a.backup", restoreOptions{path: "new", check: c.check}, c.got, c.encrypted)
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("got %q, want it to say %q", &out, want)
				}
			}
			if strings.Contains(out.String(), c.not) {
				t.Errorf("got %q, want it not to say %q", &out, c.not)
			}
		})
	}
}

// TestNewFile writes to the file of a backup as the command does.
func TestNewFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a.backup")
	only := func(t *testing.T, want ...string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		var got []string
		for _, entry := range entries {
			got = append(got, entry.Name())
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got the files %q, error %v; want %q", got, err, want)
		}
	}
	t.Run("what is no whole backup gets no name", func(t *testing.T) {
		f, err := createNew(name, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("postern backup 1\nand then a cut")); err != nil {
			t.Fatal(err)
		}
		if err := f.finish(badgerstore.CheckSums); !errors.Is(err, badgerstore.ErrBackup) {
			t.Errorf("got error %v, want ErrBackup", err)
		}
		if err := f.discard(); err != nil {
			t.Error(err)
		}
		only(t)
	})
	st, err := badgerstore.Open(badgerstore.Options{Path: filepath.Join(t.TempDir(), "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	write := func(t *testing.T, f *newFile) {
		t.Helper()
		if _, err := st.WriteBackup(t.Context(), f, store.BackupOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("one whose name somebody else has taken meanwhile is not put in its place", func(t *testing.T) {
		f, err := createNew(name, false)
		if err != nil {
			t.Fatal(err)
		}
		write(t, f)
		writeFile(t, name, "of somebody else")
		if err := f.finish(badgerstore.CheckSums); err == nil || !strings.Contains(err.Error(), "there already") {
			t.Errorf("got error %v", err)
		}
		if err := f.discard(); err != nil {
			t.Error(err)
		}
		if raw, err := os.ReadFile(name); err != nil || string(raw) != "of somebody else" {
			t.Errorf("got %q, error %v", raw, err)
		}
		only(t, "a.backup")
	})
	t.Run("with force it replaces a file, and closes it to others", func(t *testing.T) {
		if err := os.Chmod(name, 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := createNew(name, true)
		if err != nil {
			t.Fatal(err)
		}
		write(t, f)
		if err := errors.Join(f.finish(badgerstore.CheckSums), f.discard()); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 || info.Size() != f.size {
			t.Errorf("got %v, error %v; want mode 0600 and %d bytes", info, err, f.size)
		}
		only(t, "a.backup")
	})
	t.Run("and nothing but a file", func(t *testing.T) {
		var wrong usageError
		for _, name := range []string{dir, os.DevNull} {
			if f, err := createNew(name, true); !errors.As(err, &wrong) {
				t.Errorf("%s: got %v, error %v; want a usage error", name, f, err)
			}
		}
	})
}
