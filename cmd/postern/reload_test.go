package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReload edits the config of the real program while it runs.
func TestReload(t *testing.T) {
	far := newFarEnd(t, "127.0.0.71", "reload.test")
	dir := t.TempDir()
	ingest, admin := freeAddresses(t)
	config := filepath.Join(dir, "postern.yaml")
	text := far.config(ingest, admin, filepath.Join(dir, "data"), "headers: {X-Edit: first}\n    timeout: 20s")
	writeFile(t, config, text)
	relay := startPostern(t, admin, "run", "--config", config)
	logged := func(parts ...string) int {
		n := 0
		for line := range strings.Lines(relay.log.String()) {
			all := true
			for _, part := range parts {
				all = all && strings.Contains(line, part)
			}
			if all {
				n++
			}
		}
		return n
	}
	edit := func(old, new string) {
		t.Helper()
		if strings.Count(text, old) != 1 {
			t.Fatalf("%q stands in the config %d times, want once", old, strings.Count(text, old))
		}
		text = strings.Replace(text, old, new, 1)
		fresh := config + ".new"
		writeFile(t, fresh, text)
		if err := os.Rename(fresh, config); err != nil {
			t.Fatal(err)
		}
	}
	arrives := func(want string) {
		t.Helper()
		id, err := post(t.Context(), http.DefaultClient, "http://"+ingest+"/to/far", "{}")
		if err != nil {
			t.Fatal(err)
		}
		waitUntil(t, 10*time.Second, "the message arrives", func() bool { _, ok := far.Message(id); return ok })
		if m, _ := far.Message(id); m.Header.Get("X-Edit") != want {
			t.Errorf("got a request by the config %q, want %q", m.Header.Get("X-Edit"), want)
		}
	}
	arrives("first")

	edit("X-Edit: first", "X-Edit: second")
	waitUntil(t, 10*time.Second, "the edit is seen", func() bool {
		return logged(`"message":"config reloaded"`, `"trigger":"file"`, `"changed":["far"]`) == 1
	})
	arrives("second")

	if err := relay.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, 10*time.Second, "the hangup reloads", func() bool {
		return logged(`"message":"config reloaded"`, `"trigger":"signal"`) == 1
	})
	arrives("second")

	edit("timeout", "timeuot")
	t.Run("a mistake changes nothing", func(t *testing.T) {
		waitUntil(t, 10*time.Second, "it is told", func() bool {
			return logged(`"level":"warn"`, `"message":"config not reloaded`, `destinations.far.timeuot`, `did you mean`) == 1
		})
		if err := relay.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, 10*time.Second, "who asks is told again", func() bool {
			return logged(`"message":"config not reloaded`, `"trigger":"signal"`) == 1
		})
		if err := healthcheck(t, admin); err != nil {
			t.Errorf("healthcheck: %v", err)
		}
		arrives("second")
	})

	edit("timeuot", "timeout")
	edit("level: info", "level: debug")
	edit("admin: ", "max_body: 3B, admin: ")
	edit("X-Edit: second", "X-Edit: third")
	waitUntil(t, 10*time.Second, "all of it is in force", func() bool {
		return logged(`"message":"config reloaded"`, `"trigger":"file"`, `listen.max_body`) == 1
	})
	arrives("third")
	waitUntil(t, 10*time.Second, "the log says more", func() bool { return logged(`"message":"attempt made"`) > 0 })
	if _, err := post(t.Context(), http.DefaultClient, "http://"+ingest+"/to/far", "1234"); err == nil || !strings.Contains(err.Error(), "413") {
		t.Errorf("a body beyond the new bound: got %v, want 413", err)
	}

	edit("format: json", "format: console")
	waitUntil(t, 10*time.Second, "a restart is asked for", func() bool {
		return logged(`"level":"warn"`, `"message":"restart needed"`, `"keys":["log.format"]`) == 1
	})
	relay.stop(t)
	if strings.Contains(relay.log.String(), far.secret) {
		t.Error("the log holds the secret")
	}
}

// TestHeapFollowsDestinations has a reload bring destinations, each of which may take more of the heap.
func TestHeapFollowsDestinations(t *testing.T) {
	far := newFarEnd(t, "127.0.0.97", "heap.test")
	dir := t.TempDir()
	ingest, admin := freeAddresses(t)
	config := filepath.Join(dir, "postern.yaml")
	text := far.config(ingest, admin, filepath.Join(dir, "data"), "timeout: 20s")
	writeFile(t, config, text)
	relay := startPostern(t, admin, "run", "--config", config)
	limit := func(destinations int) string {
		return "go_gc_gomemlimit_bytes " + strconv.FormatFloat(float64(heapLimit(destinations)), 'g', -1, 64)
	}
	shown := func(want string) func() bool {
		return func() bool { return strings.Contains(metricsOf(t, admin), want+"\n") }
	}
	waitUntil(t, 10*time.Second, "the limit of one destination", shown(limit(1)))
	for n := range 50 {
		text += fmt.Sprintf("  more%d: {url: 'https://heap.test/'}\n", n)
	}
	writeFile(t, config, text)
	if err := relay.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, 10*time.Second, "the limit of 51", shown(limit(51)))
}
