package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFaultDamagedFolder kills a relay under load, hurts its folder, and starts it again: it exits with 4 and says what is
// missing and what to do, goes on with --accept-loss if that is possible, or loses nothing. What single bytes do to each
// file, the tests of the store have in hundreds of cases.
func TestFaultDamagedFolder(t *testing.T) {
	s, l := newSite(t, siteOptions{
		IP: "127.0.63.1", Destinations: []destination{{Name: "far", IP: "127.0.63.2", Keys: "retry: {attempts: 100, first: 50ms, max: 5s, factor: 2}"}},
	}), newLedger()
	s.fars["far"].Outage(true)
	app := s.load(seeded(t), l, 8, plainPosts("far", "damage", 2000))
	p := s.start(t)
	waitUntil(t, 60*time.Second, "messages are accepted", func() bool { return l.count() > pick(100, 1000) })
	p.kill(t)
	app.stop()
	killed := s.Data
	file := func(name string) string { return filepath.Join(s.Data, name) }
	cases := []struct {
		name    string
		hurt    func()
		losable bool   // --accept-loss is a way on
		text    string // in the refusal
	}{
		{"a bit of the log flipped", func() { change(t, s.newestLog(t), 3000, 1) }, true, "acknowledged records are missing"},
		{"4 KiB of the log inverted", func() { change(t, s.newestLog(t), 10_000, 4096) }, true, "acknowledged records are missing"},
		{"the log missing", func() { remove(t, s.newestLog(t)) }, true, "are missing"},
		{"the manifest missing", func() { remove(t, file("badger/MANIFEST")) }, true, "the manifest of the database is missing"},
		{"the side file missing", func() { remove(t, file("hwm")) }, true, "the side file (hwm) is missing or unreadable"},
		{"a restore that was cut off", func() {
			if err := os.MkdirAll(file("restoring/badger"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, false, "a restore into it was cut off"},
	}
	refused, accepted := 0, 0
	for _, c := range cases[:pick(3, len(cases))] {
		s.takeCopy(t, killed)
		c.hurt()
		for range 2 { // a supervisor's restart finds the same
			p := s.launch(t)
			p.wait(t, 30*time.Second)
			if p.code() != 4 || !strings.Contains(p.log.String(), c.text) || c.losable != strings.Contains(p.log.String(), "--accept-loss") {
				t.Errorf("%s: exit code %d, want 4, %q, and whether the loss can be accepted: %t; it printed:\n%s", c.name, p.code(), c.text, c.losable, p.log)
			}
			refused++
		}
		if !c.losable {
			continue
		}
		p := s.launchWith(t, []string{"--accept-loss"})
		p.ready(t, 30*time.Second)
		if !strings.Contains(p.log.String(), "loss accepted") {
			t.Errorf("%s: the log does not say that a loss was accepted:\n%s", c.name, p.log)
		}
		p.stop(t)
		s.start(t).stop(t) // without the flag from now on
		accepted++
	}
	// What can be made anew loses nothing.
	s.takeCopy(t, killed)
	for _, name := range []string{"badger/KEYREGISTRY", "badger/DISCARD", "badger/000001.vlog"} {
		if err := os.WriteFile(file(name), []byte("noise"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change(t, s.newestLog(t), 2, 1)
	p = s.start(t)
	s.fars["far"].Outage(false)
	tally := s.settle(l, 60*time.Second)
	tally.check(t)
	p.stop(t)
	report(t, "damage", "the folder of a relay killed under load, hurt in %d ways: %d starts refused with code 4, each saying what is missing, "+
		"%d went on by --accept-loss; with four files damaged that can be made anew: %v", pick(3, len(cases)), refused, accepted, tally)
}

// takeCopy makes the relay's folder a new copy of another.
func (s *site) takeCopy(t *testing.T, from string) {
	t.Helper()
	s.Data = filepath.Join(t.TempDir(), "data")
	if out, err := exec.Command("cp", "-a", from, s.Data).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	s.configure(t)
}

// newestLog returns the write-ahead log that was written last.
func (s *site) newestLog(t *testing.T) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(s.Data, "badger", "*.mem"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("logs: %q, %v", logs, err)
	}
	return logs[len(logs)-1]
}

// change inverts so many bytes of a file.
func change(t *testing.T, name string, at int64, n int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	was := make([]byte, n)
	if _, err := f.ReadAt(was, at); err != nil {
		t.Fatal(err)
	}
	for i := range was {
		was[i] ^= 0xff
	}
	if _, err := f.WriteAt(was, at); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}
