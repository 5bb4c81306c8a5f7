package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestDemoEndsByItselfAndLosesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// What is set for the user's own relay must not reach the demo's.
	mine := filepath.Join(t.TempDir(), "data")
	cmd := exec.CommandContext(ctx, "postern", "demo", "--for", "6s", "--json")
	cmd.Env = append(os.Environ(), "POSTERN_STORE_PATH="+mine, "POSTERN_LISTEN_INGEST=127.0.0.1:1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	if _, err := os.Stat(mine); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the demo has used the store of the environment: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var last struct{ Summary demoSummary }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatalf("last line %q: %v", lines[len(lines)-1], err)
	}
	s := last.Summary
	if s.Accepted == 0 || s.Delivered != s.Accepted || s.Lost != 0 || s.Altered != 0 || s.Unverified != 0 {
		t.Errorf("summary: got %+v, want as many delivered as accepted, nothing lost or altered", s)
	}
	if s.Kills != 1 || s.Refused == 0 {
		t.Errorf("summary: got %+v, want one kill and an outage that refused something", s)
	}
}

// TestDemoStoppedInAnOutage stops the demo when a receiver has failed for long enough to open its breaker: what waits for it
// must still arrive before the summary.
func TestDemoStoppedInAnOutage(t *testing.T) {
	p := launchPostern(t, "demo", "--json", "--for", "20s")
	latest := func() (line struct {
		Refused int
		Summary demoSummary
	}) {
		lines := strings.Split(strings.TrimSpace(p.log.String()), "\n")
		_ = json.Unmarshal([]byte(lines[len(lines)-1]), &line) // else it is half a line
		return line
	}
	waitUntil(t, 30*time.Second, "the breaker is open", func() bool { return latest().Refused >= 10 })
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.exited
	if s := latest().Summary; s.Accepted == 0 || s.Delivered != s.Accepted || s.Lost != 0 {
		t.Errorf("summary: got %+v, want as many delivered as accepted", s)
	}
}

func TestDemoLeavesNoRelayBehind(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"a closed terminal": syscall.SIGHUP, "kill -9": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			p := launchPostern(t, "demo", "--json")
			waitUntil(t, 20*time.Second, "the demo shows its first numbers", func() bool { return strings.Contains(p.log.String(), "accepted") })
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			<-p.exited
			waitUntil(t, 20*time.Second, "no relay of the demo runs", func() bool { return !isRunning(t, tmp) })
			left, err := os.ReadDir(tmp)
			if err != nil {
				t.Fatal(err)
			}
			if sig == syscall.SIGHUP && len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// isRunning reports whether some process has text in its command line.
func isRunning(t *testing.T, text string) bool {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(lines) == 0 {
		t.Fatalf("list processes: %v; this test needs /proc", err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(line), text) {
			return true
		}
	}
	return false
}
