package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// answerOf makes a post and returns status and text of the answer.
func answerOf(t *testing.T, client *http.Client, url, body string, header http.Header) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	answer, err := client.Do(req)
	if err != nil {
		t.Fatalf("post %s: %v", url, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestRunDeliversWhatTheAppPosts(t *testing.T) {
	far := newFarEnd(t, "127.0.0.22", "run.test")
	dir := t.TempDir()
	ingest, admin := freeAddresses(t)
	config := filepath.Join(dir, "postern.yaml")
	writeFile(t, config, far.config(ingest, admin, filepath.Join(dir, "data"), `events: ["order.*"]
    headers: {X-Team: data}
    auth: {bearer: {token: canary-token-1b7e}}`))
	relay := startPostern(t, admin, "run", "--config", config)
	client := http.DefaultClient
	base := "http://" + ingest

	status, text := answerOf(t, client, base+"/events/order.paid", "not json \x00\xff", http.Header{
		"Content-Type": {"application/x-thing"}, "Idempotency-Key": {"k1"}, "Authorization": {"Bearer from-the-app"},
		"Postern-Hops": {"2"},
	})
	if status != http.StatusAccepted || !strings.Contains(text, `"destination":"far","state":"pending"`) {
		t.Fatalf("post of an event: got %d %s", status, text)
	}
	id, err := messageID([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, 10*time.Second, "the message arrives", func() bool { _, ok := far.Message(id); return ok })
	m, _ := far.Message(id)
	if string(m.Body) != "not json \x00\xff" {
		t.Errorf("body: got %q", m.Body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/x-thing", "X-Team": "data", "Authorization": "Bearer canary-token-1b7e",
		"Webhook-Id": id, "Idempotency-Key": "", "Host": "run.test", "Postern-Hops": "3",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("header %s: got %q, want %q", name, got, want)
		}
	}
	if m.Proto != "HTTP/2.0" {
		t.Errorf("protocol: got %s, want HTTP/2.0 where it is offered", m.Proto)
	}

	t.Run("the same post again has the same answer", func(t *testing.T) {
		header := http.Header{"Content-Type": {"application/x-thing"}, "Idempotency-Key": {"k1"}}
		again, same := answerOf(t, client, base+"/events/order.paid", "not json \x00\xff", header)
		if again != status || same != text {
			t.Errorf("got %d %s, want %d %s", again, same, status, text)
		}
		if conflict, said := answerOf(t, client, base+"/events/order.paid", "other", header); conflict != http.StatusUnprocessableEntity {
			t.Errorf("the key with another body: got %d %s, want 422", conflict, said)
		}
	})
	t.Run("an unknown destination is named with its nearest", func(t *testing.T) {
		status, text := answerOf(t, client, base+"/to/fra", "{}", nil)
		if status != http.StatusNotFound || !strings.Contains(text, "far") {
			t.Errorf("got %d %s, want 404 and the name far", status, text)
		}
	})
	t.Run("an event that nobody wants is accepted with an empty list", func(t *testing.T) {
		status, text := answerOf(t, client, base+"/events/user.created", "{}", nil)
		if status != http.StatusAccepted || !strings.Contains(text, `"deliveries":[]`) {
			t.Errorf("got %d %s, want 202 and no deliveries", status, text)
		}
	})
	t.Run("a page of another site is refused", func(t *testing.T) {
		status, text := answerOf(t, client, base+"/to/far", "{}", http.Header{"Origin": {"https://evil.example"}})
		if status != http.StatusForbidden {
			t.Errorf("got %d %s, want 403", status, text)
		}
	})
	t.Run("a second process on the same folder is refused", func(t *testing.T) {
		other := launchPostern(t, "run", "--config", config)
		select {
		case <-other.exited:
		case <-time.After(20 * time.Second):
			t.Fatal("it runs")
		}
		if got := other.cmd.ProcessState.ExitCode(); got != exitLocked {
			t.Errorf("exit code: got %d, want %d; it said:\n%s", got, exitLocked, other.log)
		}
	})
	if err := healthcheck(t, admin); err != nil {
		t.Errorf("healthcheck of a running relay: %v", err)
	}
	relay.stop(t)
	err = filepath.WalkDir(filepath.Join(dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s: others can read messages", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	log := relay.log.String()
	for _, secret := range []string{"canary-token-1b7e", far.secret, "from-the-app", "k1\""} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds the secret %q:\n%s", secret, log)
		}
	}
	if !strings.Contains(log, `"message":"delivery ended"`) || !strings.Contains(log, id) {
		t.Errorf("the log has no line for the ended delivery of %s:\n%s", id, log)
	}
}

// healthcheck runs postern healthcheck within this process.
func healthcheck(t *testing.T, admin string) error {
	t.Helper()
	var out, errOut syncBuffer
	if code := run(context.Background(), []string{"healthcheck", "--admin", admin}, nil, strings.NewReader(""), &out, &errOut); code != exitOK {
		return fmt.Errorf("exit code %d: %s%s", code, out.String(), errOut.String())
	}
	return nil
}

func TestASickDestinationSlowsNoOther(t *testing.T) {
	healthy, sick := newFarEnd(t, "127.0.0.23", "healthy.test"), newFarEnd(t, "127.0.0.24", "sick.test")
	sick.SetFault(receiver.Fault{Kind: receiver.Hang})
	dir := t.TempDir()
	ingest, admin := freeAddresses(t)
	config := filepath.Join(dir, "postern.yaml")
	writeFile(t, config, fmt.Sprintf(`
listen: {ingest: "%s", admin: "%s"}
store: {path: %q}
egress: {resolve: {healthy.test: 127.0.0.23, sick.test: 127.0.0.24}}
defaults:
  allow_networks: [127.0.0.0/8]
  events: ["**"]
destinations:
  healthy: {url: "https://healthy.test/", tls: {ca_file: %q}, sign: [{standard: {secrets: [%s]}}]}
  sick: {url: "https://sick.test/", tls: {ca_file: %q}, sign: [{standard: {secrets: [%s]}}]}
  dead: {url: "https://dead.test/"}
`, ingest, admin, filepath.Join(dir, "data"), healthy.caFile, healthy.secret, sick.caFile, sick.secret))
	relay := startPostern(t, admin, "run", "--config", config, "--drain", "1s")
	const messages = 200
	accepted := map[string]string{}
	for i := range messages {
		id, err := post(t.Context(), http.DefaultClient, "http://"+ingest+"/events/thing.happened", fmt.Sprintf(`{"n":%d}`, i))
		if err != nil {
			t.Fatalf("post %d beside a hanging destination: %v", i, err)
		}
		accepted[id] = ""
	}
	waitUntil(t, 20*time.Second, "all messages reach the healthy destination while the other hangs", func() bool { return healthy.has(accepted) })
	if got := sick.Stats().Distinct; got != 0 {
		t.Errorf("the hanging receiver took %d messages: this tests nothing", got)
	}
	relay.stop(t)

	// What the sick one did not take is still there, and goes on after a restart.
	sick.SetFault(receiver.Fault{})
	relay = startPostern(t, admin, "run", "--config", config)
	waitUntil(t, 40*time.Second, "the other destination gets everything after a restart", func() bool { return sick.has(accepted) })
	relay.stop(t)
}

func TestUnixSocket(t *testing.T) {
	far := newFarEnd(t, "127.0.0.25", "unix.test")
	dir := t.TempDir()
	socket := filepath.Join(dir, "in.sock")
	_, admin := freeAddresses(t)
	config := filepath.Join(dir, "postern.yaml")
	writeFile(t, config, far.config("unix://"+socket, admin, filepath.Join(dir, "data"), ""))
	relay := startPostern(t, admin, "run", "--config", config)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	id, err := post(t.Context(), client, "http://localhost/to/far", "{}")
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, 10*time.Second, "the message arrives", func() bool { _, ok := far.Message(id); return ok })
	relay.stop(t)
}

func TestAFolderThatCannotBeUsedIsExplained(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	writeFile(t, file, "not a folder")
	config := filepath.Join(dir, "postern.yaml")
	writeFile(t, config, fmt.Sprintf("store: {path: %q}\ndestinations: {a: {url: 'https://a.example.com/'}}\n", filepath.Join(file, "data")))
	p := launchPostern(t, "run", "--config", config)
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		t.Fatal("it runs")
	}
	if got, text := p.cmd.ProcessState.ExitCode(), p.log.String(); got != exitFailed || !strings.Contains(text, "open store") || !strings.Contains(text, file) {
		t.Errorf("got exit code %d and:\n%s\nwant %d and the folder's name", got, text, exitFailed)
	}
}
