package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/listen/acmetest"
	"github.com/postern-relay/postern/store"
)

// frontDoor is the program with a listener for other hosts, whose certificate comes from Pebble, and a receiver behind it.
type frontDoor struct {
	ca     *acmetest.Authority
	far    *farEnd
	admin  string
	config string

	dir        string
	token      string   // of apps
	secrets    []string // all that no log and no file but its own may show
	home, work string   // the home and the working directory of the program
}

func newFrontDoor(t *testing.T, host string, o acmetest.Options) *frontDoor {
	t.Helper()
	ca := acmetest.Start(t, o)
	f := &frontDoor{ca: ca, far: newFarEnd(t, ca.Addr().String(), host), dir: t.TempDir(), token: randomText(t, 40)}
	adminToken, key := randomText(t, 40), store.NewKey()
	f.secrets = []string{f.token, adminToken, key.Text(), strings.TrimPrefix(f.far.secret, "whsec_")}
	secret := func(name, text string) string {
		path := filepath.Join(f.dir, name)
		writeFile(t, path, text+"\n")
		return path
	}
	f.home, f.work = filepath.Join(f.dir, "home"), filepath.Join(f.dir, "work")
	for _, folder := range []string{f.home, f.work} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ingest, admin := freeAddresses(t)
	f.admin = admin
	f.config = filepath.Join(f.dir, "postern.yaml")
	writeFile(t, f.config, fmt.Sprintf(`
listen:
  ingest: %q
  admin: %q
  tokens: [{name: shop, token: "${file:%s}", destinations: [far]}]
  admin_tokens: [{name: ops, token: "${file:%s}"}]
  https:
    address: %q
    domains: [%s]
    acme: {email: ops@example.com, directory: %q, ca_file: %q, allow_networks: [127.0.0.0/8]}
store: {path: %q, encryption_key: "${file:%s}"}
log: {format: json, level: info}
egress: {resolve: {%s: %s}}
destinations:
  far:
    url: https://%s/hook
    tls: {ca_file: %q}
    allow_networks: [127.0.0.0/8]
    sign: [{standard: {secrets: ["${file:%s}"]}}]
    retry: {attempts: 100, first: 50ms, max: 500ms, factor: 2}
    breaker: {failures: 5, probe_every: 200ms}
`, ingest, admin, secret("token", f.token), secret("admin-token", adminToken), ca.Listen(), frontName, ca.Directory(), ca.CAFile(),
		filepath.Join(f.dir, "data"), secret("store.key", key.Text()), f.far.host, f.far.ip, f.far.host, f.far.caFile,
		secret("sign.key", f.far.secret)))
	return f
}

// launch starts the program.
func (f *frontDoor) launch(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command("postern", "run", "--config", f.config)
	cmd.Dir = f.work
	cmd.Env = append(os.Environ(), "HOME="+f.home, "XDG_DATA_HOME="+f.home, "XDG_CONFIG_HOME="+f.home, "XDG_CACHE_HOME="+f.home, "XDG_STATE_HOME="+f.home)
	return launch(t, cmd)
}

// start starts the program and waits until it is ready, with a certificate.
func (f *frontDoor) start(t *testing.T) *process {
	t.Helper()
	p := f.launch(t)
	waitUntil(t, 30*time.Second, "postern is ready", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("postern ended with code %d:\n%s", p.cmd.ProcessState.ExitCode(), p.log)
		default:
		}
		status, _ := f.ready()
		return status == http.StatusOK
	})
	return p
}

// ready asks whether it is ready. The status is 0 when nobody answers.
func (f *frontDoor) ready() (status int, reasons string) {
	resp, err := http.Get("http://" + f.admin + "/readyz")
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		return 0, ""
	}
	return resp.StatusCode, text.String()
}

// TestFrontDoor is the whole way: apps on another host post over HTTPS with a token, while the certificate is renewed, and
// while the relay is killed and comes back with its authority silent; all that was accepted is delivered.
func TestFrontDoor(t *testing.T) {
	// The renewal comes after a third of the life; two thirds are left for a busy machine.
	f := newFrontDoor(t, "front.test", acmetest.Options{Validity: 24 * time.Second})
	begun := time.Now()
	relay := f.start(t)
	t.Logf("ready with a certificate after %s", time.Since(begun).Round(time.Millisecond))
	roots := f.ca.Roots(t)
	const elsewhere = "127.50.0.9"
	keeping := newHostApp(t, elsewhere, f.ca.Listen(), roots, f.token, true)
	fresh := newHostApp(t, elsewhere, f.ca.Listen(), roots, f.token, false)
	apps := []*hostApp{keeping, fresh}
	stopKeeping, stopFresh := keeping.goOn(t, "keeping"), fresh.goOn(t, "fresh")

	progress := func(what string) {
		t.Helper()
		for _, app := range apps {
			before, _ := app.count()
			waitUntil(t, 30*time.Second, what, func() bool { now, _ := app.count(); return now > before+20 })
		}
	}
	progress("posts before the renewal")
	first, _ := fresh.certificate()
	f.ca.RenewNow(t, first)
	waitUntil(t, 30*time.Second, "another certificate is served", func() bool { _, n := fresh.certificate(); return n > 1 })
	second, _ := fresh.certificate()
	f.ca.RenewNow(t, second)
	t.Logf("serial number %x was followed by %x after %s", first.SerialNumber, second.SerialNumber, time.Since(begun).Round(time.Millisecond))
	progress("posts after the renewal")
	for _, app := range apps {
		if _, failed := app.count(); len(failed) > 0 {
			t.Errorf("%d posts have failed before the kill: %q", len(failed), failed[0])
		}
	}
	f.wantDoors(t, elsewhere)

	f.far.Outage(true) // so that deliveries are pending at the kill
	progress("posts during an outage of the receiver")
	relay.kill(t)
	f.ca.Suspend(t)
	again := f.start(t)
	progress("posts after the restart")
	f.ca.Resume(t)
	f.far.Outage(false)
	stopKeeping()
	stopFresh()

	accepted := map[string]string{}
	for _, app := range apps {
		for id, body := range app.accepted {
			accepted[id] = body
		}
	}
	waitUntil(t, 60*time.Second, "all that was accepted arrives", func() bool { return f.far.has(accepted) })
	again.stop(t)
	for id, body := range accepted {
		if m, _ := f.far.Message(id); string(m.Body) != body {
			t.Errorf("%s: got body %q, want %q", id, m.Body, body)
		}
	}
	stats := f.far.Stats()
	if stats.Distinct != len(accepted) || stats.Altered > 0 || stats.Unverified > 0 {
		t.Errorf("of %d accepted: got %+v, want each once, unaltered and signed", len(accepted), stats)
	}
	t.Logf("%d accepted and received, %d arrived again under the same id, in %s", len(accepted), stats.Duplicates, time.Since(begun).Round(time.Millisecond))
	f.wantQuiet(t, relay.log.String()+again.log.String())
}

// TestFrontDoorKilledWithinAnOrder kills the program while its authority checks the name. What it was about to do must not
// keep the next start from doing it.
func TestFrontDoorKilledWithinAnOrder(t *testing.T) {
	f := newFrontDoor(t, "frontkill.test", acmetest.Options{})
	release := f.ca.HoldNames()
	relay := f.launch(t)
	waitUntil(t, 30*time.Second, "the authority checks the name", func() bool { return f.ca.Questions() > 0 })
	status, reasons := f.ready()
	if want := "certificate of " + frontName + ": it is being obtained"; status != http.StatusServiceUnavailable || !strings.Contains(reasons, want) {
		t.Errorf("within the order: got %d %s, want 503 and %q", status, reasons, want)
	}
	relay.kill(t)
	release()
	again := f.start(t)
	app := newHostApp(t, "127.50.0.10", f.ca.Listen(), f.ca.Roots(t), f.token, true)
	if err := app.try(t.Context(), "a", "{}"); err != nil {
		t.Error(err)
	}
	waitUntil(t, 30*time.Second, "it arrives", func() bool { return f.far.has(app.accepted) })
	again.stop(t)
	f.wantQuiet(t, relay.log.String()+again.log.String())
}

// wantDoors wants requests that must not come in to be refused.
func (f *frontDoor) wantDoors(t *testing.T, from string) {
	t.Helper()
	roots := f.ca.Roots(t)
	for _, c := range []struct {
		name, token, host, path string
		want                    int
	}{
		{"without a token", "", frontName, "/to/far", http.StatusUnauthorized},
		{"with a wrong token", "0123456789abcdef", frontName, "/to/far", http.StatusUnauthorized},
		{"with the token of the admin listener", f.secrets[1], frontName, "/to/far", http.StatusUnauthorized},
		{"to a destination that the token is not for", f.token, frontName, "/to/other", http.StatusForbidden},
		{"for another host", f.token, "other.example.com", "/to/far", http.StatusMisdirectedRequest},
		{"for the dashboard", f.token, frontName, "/", http.StatusNotFound},
	} {
		app := newHostApp(t, from, f.ca.Listen(), roots, c.token, true)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+frontName+c.path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err := app.client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if resp.Body.Close(); resp.StatusCode != c.want {
			t.Errorf("%s: got status %d, want %d", c.name, resp.StatusCode, c.want)
		}
	}
}

// wantQuiet wants no secret in the log or in the store's files, no line in the log but ours, and no file where nobody has
// asked for one.
func (f *frontDoor) wantQuiet(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		var fields struct{ Level, Message string }
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields.Level == "" || fields.Message == "" {
			t.Errorf("this is no line of the log: %q", line)
			break
		}
	}
	hidden := append([]string{"PRIVATE KEY", "body-of-an-app"}, f.secrets...)
	for _, secret := range hidden {
		if strings.Contains(log, secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
	err := filepath.WalkDir(filepath.Join(f.dir, "data"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(name)
		for _, secret := range hidden {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s shows %q", name, secret)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for _, folder := range []string{f.home, f.work} {
		if found, err := os.ReadDir(folder); err != nil || len(found) > 0 {
			t.Errorf("%s: got %v, error %v; want nothing", folder, found, err)
		}
	}
}
