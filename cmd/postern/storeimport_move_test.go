package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store"
)

// movedMessages is how many messages TestMove moves: MOVE_MESSAGES, or a few.
func movedMessages(t *testing.T) int {
	t.Helper()
	text := os.Getenv("MOVE_MESSAGES")
	if text == "" {
		return 600
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("MOVE_MESSAGES: %q is not a positive number", text)
	}
	return n
}

// movedEvery is the share of the messages that goes to one destination each: delivered, failed, pending and in a line.
const movedEvery = 4

// TestMove takes messages from one relay to another through an export, and an import that is killed again and again:
// what was pending is delivered by the new one, once, under the same ids, and nothing else is.
func TestMove(t *testing.T) {
	good, bad := newFarEnd(t, "127.0.0.90", "moved.test"), newFarEnd(t, "127.0.0.91", "faulty.test")
	bad.SetFault(receiver.Fault{Kind: receiver.Status, Status: 500})
	good.Outage(true)
	dir := t.TempDir()
	ingest, admin := freeAddresses(t)
	configFile := func(name, more string) string {
		path := filepath.Join(dir, name+".yaml")
		writeFile(t, path, fmt.Sprintf(`
listen: {ingest: "%s", admin: "%s"}
store: {path: %q}
egress: {resolve: {moved.test: 127.0.0.90, faulty.test: 127.0.0.91}}
defaults: {allow_networks: [127.0.0.0/8]}
destinations:
  waiting: {url: "https://moved.test/waiting", tls: {ca_file: %[4]q}, sign: [{standard: {secrets: [%[5]s]}}], %[8]s}
  lined: {url: "https://moved.test/lined", tls: {ca_file: %[4]q}, sign: [{standard: {secrets: [%[5]s]}}], order: key, %[8]s}
  failing: {url: "https://faulty.test/failing", tls: {ca_file: %[6]q}, sign: [{standard: {secrets: [%[7]s]}}], retry: {schedule: [0s]}, breaker: none}
`, ingest, admin, filepath.Join(dir, name), good.caFile, good.secret, bad.caFile, bad.secret, more))
		return path
	}
	from := configFile("old", "retry: {attempts: 50, first: 100ms, max: 30m, factor: 60}, breaker: {failures: 3, probe_every: 1h}")
	to := configFile("new", "retry: {attempts: 50, first: 100ms, max: 1s, factor: 2}, breaker: none")

	total := movedMessages(t)
	relay := startPostern(t, admin, "run", "--config", from)
	postMoved(t, ingest, total)
	waitUntil(t, 3*time.Minute, "all that fails has failed", func() bool {
		return bad.Stats().Faulted >= total/movedEvery && countListed(t, from, "--destination", "failing", "--state", "pending") == 0
	})
	waitUntil(t, time.Minute, "attempts to what is out", func() bool { return good.Stats().Faulted >= 6 })
	file := filepath.Join(dir, "messages.ndjson")
	if _, errs := execPostern(t, exitLocked, "store", "export", "--config", from, "-o", file); !strings.Contains(errs, "postern restore") {
		t.Errorf("of a store in use: got %q, want what to do", errs)
	}
	relay.stop(t)

	out, _ := execPostern(t, exitOK, "store", "export", "--config", from, "--json", "-o", file)
	var made exportedStore
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Messages != int64(total) || made.Attempts < int64(total/movedEvery) {
		t.Fatalf("export: got %s, error %v; want %d messages", out, err, total)
	}
	if want := int64(2 * (total / movedEvery)); made.Pending != want {
		t.Errorf("export: %d pending, want %d", made.Pending, want)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || info.Size() != made.Bytes {
		t.Errorf("the file: %v, error %v; want mode 0600 and %d bytes", info, err, made.Bytes)
	}
	execPostern(t, exitUsage, "store", "export", "--config", from, "-o", file)

	kills, done := importThroughKills(t, to, file)
	if done.Messages+done.Existing != int64(total) {
		t.Errorf("the last import: got %+v, want %d messages", done, total)
	}
	again := filepath.Join(dir, "again.ndjson")
	execPostern(t, exitOK, "store", "export", "--config", to, "-o", again)
	if !bytes.Equal(exportedMessages(t, again), exportedMessages(t, file)) {
		t.Error("the new store does not hold what was exported")
	}

	good.Outage(false)
	faulted := bad.Stats()
	relay = startPostern(t, admin, "run", "--config", to)
	waitUntil(t, 3*time.Minute, "all that was pending arrives", func() bool { return good.Stats().Distinct >= int(made.Pending) })
	waitUntil(t, time.Minute, "nothing is pending", func() bool { return countListed(t, to, "--state", "pending") == 0 })
	relay.stop(t)
	stats := good.Stats()
	if stats.Distinct != int(made.Pending) || stats.Duplicates != 0 || stats.Altered != 0 || stats.Unverified != 0 {
		t.Errorf("of %d pending the new relay has delivered: %+v; want each once", made.Pending, stats)
	}
	if got := bad.Stats(); got != faulted {
		t.Errorf("what has failed was tried again: %+v, want %+v", got, faulted)
	}
	t.Logf("%d messages, %d bytes, %d kills, %d there already at the last, %d delivered", total, made.Bytes, kills, done.Existing, stats.Distinct)
}

// postMoved posts messages in batches: of each four one for every destination, and one for nobody.
func postMoved(t *testing.T, ingest string, total int) {
	t.Helper()
	for first := 0; first < total; first += 1000 {
		var lines strings.Builder
		for n := first; n < min(total, first+1000); n++ {
			where := []string{`"to":"waiting"`, `"to":"failing"`, fmt.Sprintf(`"to":"lined","key":"k%d"`, n%13), `"event":"nobody.cares"`}[n%movedEvery]
			fmt.Fprintf(&lines, `{%s,"id":"post-%d","data":{"n":%d,"text":"%s"}}`+"\n", where, n, n, strings.Repeat("é", n%300))
		}
		answer, err := http.Post("http://"+ingest+"/batch", "application/x-ndjson", strings.NewReader(lines.String()))
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusAccepted {
			t.Fatalf("post: answer %d", answer.StatusCode)
		}
	}
}

func countListed(t *testing.T, config string, filter ...string) int {
	t.Helper()
	out, _ := execPostern(t, exitOK, append([]string{"list", "--config", config, "--json", "--limit", "1"}, filter...)...)
	return strings.Count(out, "\n")
}

// importThroughKills imports a file, and kills that each time a little later, until it comes to its end. After each kill
// the store opens and holds whole messages.
func importThroughKills(t *testing.T, config, file string) (kills int, done importedStore) {
	t.Helper()
	for wait := 30 * time.Millisecond; ; wait += wait / 3 {
		p := launchPostern(t, "store", "import", "--config", config, "--json", file)
		timer := time.NewTimer(wait) // the moment of the kill is what varies
		select {
		case <-p.exited:
			timer.Stop()
			if code := p.cmd.ProcessState.ExitCode(); code != exitOK {
				t.Fatalf("import: exit code %d:\n%s", code, p.log)
			}
			if err := json.Unmarshal([]byte(p.log.String()), &done); err != nil {
				t.Fatalf("import printed %s: %v", p.log, err)
			}
			return kills, done
		case <-timer.C:
		}
		p.kill(t)
		kills++
		path := filepath.Join(filepath.Dir(config), "new")
		if _, err := os.Stat(filepath.Join(path, "badger", "MANIFEST")); err != nil {
			continue // killed before there was anything
		}
		out, _ := execPostern(t, exitOK, "store", "check", "--config", config, "--json")
		var found checkedStore
		if err := json.Unmarshal([]byte(out), &found); err != nil || len(found.Faults) > 0 {
			t.Errorf("after kill %d: got %s, error %v; want no fault", kills, out, err)
		}
	}
}

// exportedMessages returns the lines of an export that are messages.
func exportedMessages(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, _, err := store.CheckExport(t.Context(), file, func(store.Exported) error { return nil }, nil); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	lines := bytes.SplitAfter(raw, []byte("\n"))
	return bytes.Join(lines[1:len(lines)-2], nil)
}
