package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// encryptedConfig writes a config of a relay whose store has the given keys.
func encryptedConfig(t *testing.T, far *farEnd, path, ingest, admin, data string, keys []store.Key) {
	t.Helper()
	var texts []string
	for _, k := range keys {
		texts = append(texts, fmt.Sprintf("%q", k.Text()))
	}
	text := far.config(ingest, admin, data, "retry: {attempts: 100, first: 50ms, max: 500ms, factor: 2}")
	writeFile(t, path, strings.Replace(text, "store: {", "store: {encryption_key: ["+strings.Join(texts, ", ")+"], ", 1))
}

// rotated is what the log says at the end of a rotation.
const rotated = "encryption keys rotated, the earlier ones are not needed any more"

// TestFaultKillWhileKeysRotate kills the real process at random moments under load, and gives the store a new key at each
// start, beside those that its folder names as still needed and no others: whatever was answered with 202 must reach
// the receiver, wherever the kills have cut the rotations off.
func TestFaultKillWhileKeysRotate(t *testing.T) {
	far := newFarEnd(t, "127.0.0.28", "rotate.test")
	dir := t.TempDir()
	ingest, admin := freeAddresses(t)
	config, data := filepath.Join(dir, "postern.yaml"), filepath.Join(dir, "data")
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	accepted := map[string]string{} // the body posted, by the id answered
	var keys []store.Key
	finished, most := 0, 0
	start := func() *process {
		named, err := os.ReadFile(filepath.Join(data, "keys"))
		if err != nil && len(keys) > 0 {
			t.Fatal(err)
		}
		needed := []store.Key{store.NewKey()}
		for _, k := range keys {
			if strings.Contains(string(named), k.Fingerprint()) {
				needed = append(needed, k)
			}
		}
		if keys = needed; len(keys) == 2 {
			finished++
		}
		most = max(most, len(keys))
		encryptedConfig(t, far, config, ingest, admin, data, keys)
		return startPostern(t, admin, "run", "--config", config)
	}
	rounds := 6
	if os.Getenv("POSTERN_FAULTS") == "full" {
		rounds = 60
	}
	for round := range rounds {
		relay := start()
		far.Outage(round%3 == 2)
		stop := loadUntilDead(t, client, "http://"+ingest+"/to/far", round, accepted)
		if len(keys) < 6 {
			time.Sleep(time.Duration(randomInt(t, 600)) * time.Millisecond) // the moment is what varies
		} else { // a store takes 16
			waitUntil(t, 5*time.Minute, "a rotation ends", func() bool { return strings.Contains(relay.log.String(), rotated) })
		}
		relay.kill(t)
		stop()
	}
	far.Outage(false)
	relay := start()
	waitUntil(t, 2*time.Minute, "what was accepted arrives", func() bool { return far.has(accepted) })
	waitUntil(t, 2*time.Minute, "the last rotation ends", func() bool {
		return strings.Contains(relay.log.String(), rotated)
	})
	relay.stop(t)
	encryptedConfig(t, far, config, ingest, admin, data, keys[:1])
	out, _ := execPostern(t, exitOK, "store", "check", "--config", config, "--json")
	var checked checkedStore
	if err := json.Unmarshal([]byte(out), &checked); err != nil || checked.Messages < int64(len(accepted)) || len(checked.Keys) != 1 {
		t.Errorf("store check with the last key alone: got %s, error %v; want all %d messages", out, err, len(accepted))
	}
	for id, body := range accepted {
		if m, ok := far.Message(id); !ok || string(m.Body) != body {
			t.Errorf("message %s: got %q, want %q", id, m.Body, body)
		}
	}
	if t.Failed() {
		return
	}
	t.Attr("fault", fmt.Sprintf("kill: %d rounds while encryption keys rotate, %d accepted, 0 missing, 0 altered, up to %d keys at once, "+
		"%d rotations done before the next kill", rounds, len(accepted), most, finished))
}

// TestBackupsUnderLoad backs up a relay that is posted to all the while, and restores each copy: it is one moment, whose
// counts are those that were told, and holds what was accepted before it.
func TestBackupsUnderLoad(t *testing.T) {
	far := newFarEnd(t, "127.0.0.29", "copies.test")
	dir := t.TempDir()
	ingest, admin := freeAddresses(t)
	config, key := filepath.Join(dir, "postern.yaml"), store.NewKey()
	encryptedConfig(t, far, config, ingest, admin, filepath.Join(dir, "data"), []store.Key{key})
	relay := startPostern(t, admin, "run", "--config", config)
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var load sync.WaitGroup
	accepted, ended := 0, false
	for worker := range 4 {
		load.Go(func() {
			for i := 0; i < 100_000; i++ {
				_, err := post(t.Context(), client, "http://"+ingest+"/to/far", fmt.Sprintf(`{"worker":%d,"i":%d}`, worker, i))
				mu.Lock()
				if err == nil {
					accepted++
				} else if !ended {
					t.Errorf("post: %v", err)
				}
				stop := ended
				mu.Unlock()
				if stop || err != nil {
					return
				}
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return accepted
	}
	for round := range 4 {
		floor := 300 * (round + 1)
		waitUntil(t, time.Minute, "enough is accepted", func() bool { return count() >= floor })
		before := count()
		file, path := filepath.Join(dir, fmt.Sprintf("%d.backup", round)), filepath.Join(dir, fmt.Sprintf("restored-%d", round))
		out, _ := execPostern(t, exitOK, "backup", "--config", config, "--json", file)
		after := count()
		var made, got madeBackup
		var checked checkedStore
		if err := json.Unmarshal([]byte(out), &made); err != nil || made.Messages < int64(before) {
			t.Errorf("round %d: got %s, error %v; want at least %d messages", round, out, err, before)
		}
		out, _ = execPostern(t, exitOK, "restore", "--config", config, "--json", file, "--store", path)
		if err := json.Unmarshal([]byte(out), &got); err != nil || got.BackupCounts != made.BackupCounts {
			t.Errorf("round %d: restored %s, error %v; want %+v", round, out, err, made.BackupCounts)
		}
		out, _ = execPostern(t, exitOK, "store", "check", "--config", config, "--json", "--store", path)
		if err := json.Unmarshal([]byte(out), &checked); err != nil || checked.BackupCounts != made.BackupCounts {
			t.Errorf("round %d: in the new store are %s, error %v; want %+v", round, out, err, made.BackupCounts)
		}
		t.Logf("round %d: %d accepted before, %d in the backup, %d after; %d pending", round, before, made.Messages, after, made.Pending)
	}
	_, errs := execPostern(t, exitLocked, "store", "check", "--config", config)
	if !strings.Contains(errs, "in use") || !strings.Contains(errs, "stop it first") {
		t.Errorf("store check of a store in use: got %q", errs)
	}
	mu.Lock()
	ended = true
	mu.Unlock()
	load.Wait()
	relay.stop(t)
}
