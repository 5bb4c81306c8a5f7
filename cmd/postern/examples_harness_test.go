package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/postern-relay/postern/relay/receiver"
)

// example is one folder of examples, with a relay that runs its config.
type example struct {
	dir    string
	env    map[string]string // the secrets of its config
	site   *site
	ingest string
	relay  *process
	began  time.Time
	said   string // what the latest run of send.sh has printed
}

// exampleOptions are what a test says about an example.
type exampleOptions struct {
	ip         string            // of its site
	env        map[string]string // value of each ${env:…} in the config
	selfSigned bool              // see siteOptions
	tokens     *receiver.TokenServer

	// shorten makes the times of the config shorter, and changes nothing else; nil leaves them.
	shorten func(t *testing.T, doc map[string]any)
}

// runExample runs the config of an example as it is shipped, except for where it listens and keeps its store, where
// its hosts are and who signs their certificates, and how long it waits.
func runExample(t *testing.T, name string, o exampleOptions) *example {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "postern.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatalf("examples/%s/postern.yaml: %v", name, err)
	}
	if o.shorten != nil {
		o.shorten(t, doc)
	}
	hosts := hostsOf(t, doc)
	ingest, admin := freeAddresses(t)
	e := &example{dir: dir, env: o.env, ingest: ingest, began: time.Now().Truncate(time.Second)}
	e.site = newSite(t, o.ip, siteOptions{hosts: hosts, selfSigned: o.selfSigned, tokens: o.tokens})

	own := t.TempDir()
	set(t, doc, e.ingest, "listen", "ingest")
	set(t, doc, admin, "listen", "admin")
	set(t, doc, filepath.Join(own, "data"), "store", "path")
	for _, host := range hosts {
		set(t, doc, o.ip, "egress", "resolve", host)
	}
	set(t, doc, e.site.caFile, "defaults", "tls", "ca_file")
	set(t, doc, []any{"127.0.0.0/8"}, "defaults", "allow_networks")
	text, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(own, "postern.yaml")
	writeFile(t, config, string(text))
	for name, value := range o.env {
		t.Setenv(name, value)
	}
	e.relay = startPostern(t, admin, "run", "--config", config)
	return e
}

// set puts a value into a document of nested mappings, and makes those that are missing.
func set(t *testing.T, doc map[string]any, value any, path ...string) {
	t.Helper()
	for _, key := range path[:len(path)-1] {
		inner, ok := doc[key].(map[string]any)
		if !ok {
			if doc[key] != nil {
				t.Fatalf("%v: %q is %T, want a mapping", path, key, doc[key])
			}
			inner = map[string]any{}
			doc[key] = inner
		}
		doc = inner
	}
	doc[path[len(path)-1]] = value
}

// get returns what stands in a document of nested mappings.
func get(t *testing.T, doc map[string]any, path ...string) any {
	t.Helper()
	var v any = doc
	for _, key := range path {
		inner, ok := v.(map[string]any)
		if !ok || inner[key] == nil {
			t.Fatalf("the config has no %s", strings.Join(path, "."))
		}
		v = inner[key]
	}
	return v
}

// shortened divides durations of the config. It returns them too, to compare what happens with.
func shortened(t *testing.T, by time.Duration, texts any) (short []any, delays []time.Duration) {
	t.Helper()
	list, ok := texts.([]any)
	if !ok {
		list = []any{texts}
	}
	for _, text := range list {
		d, err := time.ParseDuration(fmt.Sprint(text))
		if err != nil {
			t.Fatalf("a duration of the config: %v", err)
		}
		short, delays = append(short, (d/by).String()), append(delays, d/by)
	}
	return short, delays
}

// hostsOf returns the hosts of all URLs in a config.
func hostsOf(t *testing.T, doc any) []string {
	t.Helper()
	found := map[string]bool{}
	var look func(v any)
	look = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, inner := range v {
				look(inner)
			}
		case []any:
			for _, inner := range v {
				look(inner)
			}
		case string:
			if u, err := url.Parse(v); err == nil && u.Scheme == "https" {
				found[u.Hostname()] = true
			}
		}
	}
	look(doc)
	if len(found) == 0 {
		t.Fatal("the config has no URL")
	}
	return slices.Sorted(maps.Keys(found))
}

var messageIDs = regexp.MustCompile(`"id":"(msg_[0-9a-f]{32})"`)

// send runs the example's send.sh and returns the ids of the messages that were accepted.
func (e *example) send(t *testing.T, args ...string) []string {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatalf("%v; the examples post by curl, so this test needs it", err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{filepath.Join(e.dir, "send.sh")}, args...)...)
	cmd.Dir = t.TempDir() // it must not matter from where it is called
	cmd.Env = append(os.Environ(), "INGEST_URL=http://"+e.ingest)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("send.sh %v: %v\n%s%s", args, err, out.String(), errOut.String())
	}
	e.said = out.String()
	var ids []string
	for _, found := range messageIDs.FindAllStringSubmatch(e.said, -1) {
		ids = append(ids, found[1])
	}
	if len(ids) == 0 {
		t.Fatalf("send.sh %v printed no id of a message:\n%s", args, e.said)
	}
	return ids
}

// file returns what a file of the example holds.
func (e *example) file(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(e.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// compare holds a request against a file of the example, byte by byte. What varies from run to run has a placeholder
// in the file: a secret of the config by its name, or what values has for it. Those of the message are checked here.
func (e *example) compare(t *testing.T, file string, got wireRequest, values map[string]string) {
	t.Helper()
	pairs := []string{}
	for name, value := range e.env {
		pairs = append(pairs, "{"+name+"}", value)
		for other, password := range e.env {
			basic := base64.StdEncoding.EncodeToString([]byte(value + ":" + password))
			pairs = append(pairs, "{base64 of "+name+":"+other+"}", basic)
		}
	}
	for name, value := range values {
		pairs = append(pairs, "{"+name+"}", value)
	}
	if _, plain := got.header["Webhook-Timestamp"]; plain {
		pairs = append(pairs, "{webhook-timestamp}", e.timestamp(t, got))
	}
	if want := strings.NewReplacer(pairs...).Replace(e.file(t, file)); got.sorted(t) != want {
		t.Errorf("the request is not that of %s:\ngot\n%s\nwant\n%s", file, got.sorted(t), want)
	}
}

// timestamp returns the time of a request's attempt, if it is one of the time since the relay was started.
func (e *example) timestamp(t *testing.T, r wireRequest) string {
	t.Helper()
	text := r.header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(text, 10, 64)
	if at := time.Unix(seconds, 0); err != nil || at.Before(e.began) || at.After(time.Now()) {
		t.Errorf("webhook-timestamp: got %q, want seconds since 1970, from %v until now", text, e.began)
	}
	return text
}

// endedDelivery is the log's line for a delivery that has ended.
type endedDelivery struct {
	Message     string
	MessageID   string `json:"message_id"`
	Destination string
	Event       string
	State       string
	Class       string
	Status      int
	Attempt     int
	Reason      string
	Error       string
}

// endedDeliveries returns those of a relay's log, by destination and message id.
func endedDeliveries(t *testing.T, relay *process) map[[2]string]endedDelivery {
	t.Helper()
	found := map[[2]string]endedDelivery{}
	text := relay.log.String()
	for line := range strings.Lines(text[:strings.LastIndexByte(text, '\n')+1]) {
		var d endedDelivery
		if err := json.Unmarshal([]byte(line), &d); err != nil || d.Message != "delivery ended" {
			continue // another line, or one that is no JSON
		}
		key := [2]string{d.Destination, d.MessageID}
		if earlier, twice := found[key]; twice {
			t.Errorf("a delivery has ended twice: %+v and %+v", earlier, d)
		}
		found[key] = d
	}
	return found
}

// awaitEnd returns how the delivery of a message to a destination has ended, as soon as it has.
func awaitEnd(t *testing.T, relay *process, destination, id string) endedDelivery {
	t.Helper()
	var d endedDelivery
	waitUntil(t, 30*time.Second, "the delivery of "+id+" to "+destination+" ends", func() bool {
		found, ok := endedDeliveries(t, relay)[[2]string{destination, id}]
		d = found
		return ok
	})
	return d
}

// checkSpacing holds the times between the attempts against the delays of a schedule: each is that long, or longer.
func checkSpacing(t *testing.T, attempts []wireRequest, delays []time.Duration) {
	t.Helper()
	if len(attempts) != len(delays) {
		t.Fatalf("got %d attempts, want %d", len(attempts), len(delays))
	}
	for i := 1; i < len(attempts); i++ {
		if got := attempts[i].at.Sub(attempts[i-1].at); got < delays[i] {
			t.Errorf("attempt %d came %v after the one before, want at least %v", i+1, got, delays[i])
		}
	}
}

// httpClient returns a client whose connections end with the test.
func httpClient(t *testing.T) *http.Client {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	return client
}
