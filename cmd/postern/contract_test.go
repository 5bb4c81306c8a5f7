package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// writeClient writes a client certificate and its key for the transport to find, in place of those that are there.
func writeClient(t *testing.T, ca *receiver.CA, dir, name string) {
	t.Helper()
	pair, err := ca.IssueClient(name)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := receiver.EncodePEM(pair)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{"client.pem": cert, "client.key": key} {
		fresh := filepath.Join(dir, file+".new")
		writeFile(t, fresh, string(text))
		if err := os.Rename(fresh, filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClientCertificateIsReloaded(t *testing.T) {
	dir := t.TempDir()
	c := newContract(t, "127.0.0.41", "retry: none", func(r *receiver.Receiver, ca *receiver.CA) {
		r.ClientCAs = ca.Pool()
		writeClient(t, ca, dir, "alpha")
	})
	raw, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	files := fmt.Sprintf("tls: {cert_file: %q, key_file: %q, ca_file", filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key"))
	writeFile(t, c.config, strings.Replace(string(raw), "tls: {ca_file", files, 1))
	c.start(t)
	if got := c.arrived(t, c.post(t, httpClient(t), "{}")).Peer; got != "CN=alpha" {
		t.Fatalf("got a client certificate of %q, want CN=alpha", got)
	}
	writeClient(t, c.ca, dir, "beta")
	client := httpClient(t)
	waitUntil(t, 15*time.Second, "a request carries the new certificate", func() bool {
		switch got := c.arrived(t, c.post(t, client, "{}")).Peer; got {
		case "CN=beta":
			return true
		case "CN=alpha":
			return false
		default:
			t.Fatalf("got a client certificate of %q", got)
			return false
		}
	})
	if got := c.arrived(t, c.post(t, client, "{}")).Peer; got != "CN=beta" {
		t.Errorf("after the change: got a client certificate of %q, want CN=beta", got)
	}
	c.relay.stop(t)
	if log := c.relay.log.String(); strings.Contains(log, `"state":"failed"`) {
		t.Errorf("a delivery has failed while the files changed:\n%s", log)
	}
}

func TestRevokedTokenIsRenewedWithinTheAttempt(t *testing.T) {
	tokens := &receiver.TokenServer{ClientID: "postern", ClientSecret: "client-secret-83fe"}
	c := newContract(t, "127.0.0.42", `retry: none
    auth: {oauth2: {client_id: postern, client_secret: client-secret-83fe, token_url: "https://far.test/oauth/token"}}`,
		func(r *receiver.Receiver, _ *receiver.CA) { r.Tokens = tokens })
	c.start(t)
	client := httpClient(t)
	c.arrived(t, c.post(t, client, `{"n":1}`))
	c.arrived(t, c.post(t, client, `{"n":2}`))
	if got := tokens.Stats(); got.Requests != 1 || got.Issued != 1 {
		t.Errorf("two messages: got %+v, want one token for both", got)
	}
	tokens.Revoke()
	id := c.post(t, client, `{"n":3}`)
	if d := awaitEnd(t, c.relay, "far", id); d.State != "delivered" || d.Attempt != 1 || d.Class != "ok" {
		t.Errorf("after the token was revoked: got %+v, want it delivered by the first attempt", d)
	}
	if got := tokens.Stats(); got.Requests != 2 || got.Issued != 2 {
		t.Errorf("after the token was revoked: got %+v, want one more token", got)
	}
	if got := c.far.Stats(); got.Unauthorized != 1 || got.Requests != 4 {
		t.Errorf("got %+v, want one of four requests answered 401", got)
	}
	c.relay.stop(t)
	for _, secret := range []string{"client-secret-83fe", tokenOf(c.far)} {
		if secret == "" || strings.Contains(c.relay.log.String(), secret) {
			t.Errorf("the log holds the secret %q:\n%s", secret, c.relay.log)
		}
	}
}

// tokenOf returns the bearer token of the latest request.
func tokenOf(far *farEnd) string {
	latest := far.Latest()
	return strings.TrimPrefix(latest[len(latest)-1].Header.Get("Authorization"), "Bearer ")
}

func TestBatch(t *testing.T) {
	c := newContract(t, "127.0.0.43", `events: ["order.*"]`, nil)
	c.start(t)
	client := httpClient(t)
	url := "http://" + c.ingest + "/batch"
	header := http.Header{"Content-Type": {"application/x-ndjson"}}
	const lines = 1000
	line := func(n int) string {
		if n%2 == 0 {
			return fmt.Sprintf(`{"to":"far","data":{"n":%d}}`+"\n", n)
		}
		return fmt.Sprintf(`{"event":"order.paid","data":{"n":%d},"id":"order-%d"}`+"\n", n, n)
	}
	var good, bad strings.Builder
	for n := 1; n <= lines; n++ {
		good.WriteString(line(n))
		if n == 500 {
			bad.WriteString(`{"to":"far","data":{"n":500}` + "\n")
		} else {
			bad.WriteString(strings.Replace(line(n), `"id":"order-`, `"id":"bad-`, 1))
		}
	}

	t.Run("a bad line is named by its number, and nothing is delivered", func(t *testing.T) {
		status, text := answerOf(t, client, url, bad.String(), header)
		if status != http.StatusBadRequest || !strings.Contains(text, "line 500") || strings.Contains(text, "msg_") {
			t.Errorf("got %d %s, want 400 with line 500", status, text)
		}
		c.arrived(t, c.post(t, client, `"marker"`))
		if got := c.far.Stats(); got.Distinct != 1 || got.Requests != 1 {
			t.Errorf("got %+v, want the message after the batch and no other", got)
		}
	})
	t.Run("all lines of a good batch are delivered", func(t *testing.T) {
		status, text := answerOf(t, client, url, good.String(), header)
		if status != http.StatusAccepted {
			t.Fatalf("got %d %s, want 202", status, text)
		}
		var answer struct {
			Messages []struct {
				ID         string
				Deliveries []struct{ Destination string }
			}
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Messages) != lines {
			t.Fatalf("got %d messages, want %d", len(answer.Messages), lines)
		}
		ids := map[string]string{}
		for n, m := range answer.Messages {
			if len(m.Deliveries) != 1 || m.Deliveries[0].Destination != "far" {
				t.Fatalf("line %d: got deliveries %v, want one to far", n+1, m.Deliveries)
			}
			ids[m.ID] = fmt.Sprintf(`{"n":%d}`, n+1)
		}
		waitUntil(t, 60*time.Second, "all lines arrive", func() bool { return c.far.has(ids) })
		for id, want := range ids {
			if m, _ := c.far.Message(id); string(m.Body) != want || m.Header.Get("Content-Type") != "application/json" {
				t.Fatalf("%s: got %q as %q, want %s as JSON", id, m.Body, m.Header.Get("Content-Type"), want)
			}
		}
		if got := c.far.Stats(); got.Distinct != lines+1 || got.Duplicates != 0 {
			t.Errorf("got %+v, want each line once", got)
		}
	})
	c.relay.stop(t)
}

func TestCloudEventKeepsItsAttributes(t *testing.T) {
	c := newContract(t, "127.0.0.44", `events: ["com.example.order.*"]`, nil)
	c.start(t)
	want := map[string]string{
		"Ce-Id": "A234-1234-1234", "Ce-Source": "/orders", "Ce-Type": "com.example.order.created", "Ce-Specversion": "1.0",
		"Ce-Subject": "order-7", "Ce-Comexampleextension1": "value%20with%20blanks", "Content-Type": "application/json; charset=utf-8",
	}
	header := http.Header{}
	for name, value := range want {
		header.Set(name, value)
	}
	const body = `{"order": 7, "total": 12.50}`
	url := "http://" + c.ingest + "/cloudevents"
	status, text := answerOf(t, httpClient(t), url, body, header)
	if status != http.StatusAccepted {
		t.Fatalf("got %d %s, want 202", status, text)
	}
	id, err := messageID([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := c.arrived(t, id)
	for name, value := range want {
		if got := m.Header.Values(name); len(got) != 1 || got[0] != value {
			t.Errorf("header %s: got %q, want %q", name, got, value)
		}
	}
	if string(m.Body) != body {
		t.Errorf("got body %q, want %q", m.Body, body)
	}
	if again, same := answerOf(t, httpClient(t), url, body, header); again != status || same != text {
		t.Errorf("the same event again: got %d %s, want the first answer, %s", again, same, text)
	}
	c.relay.stop(t)
}

func TestPreferWait(t *testing.T) {
	c := newContract(t, "127.0.0.45", "retry: none", nil)
	c.start(t)
	client := httpClient(t)
	url := "http://" + c.ingest + "/to/far"
	prefer := http.Header{"Prefer": {"wait=20"}}

	status, text := answerOf(t, client, url, "{}", prefer)
	if status != http.StatusOK || !strings.Contains(text, `"destination":"far","state":"delivered"`) {
		t.Errorf("got %d %s, want 200 and the delivery delivered", status, text)
	}
	if got := c.far.Stats().Distinct; got != 1 {
		t.Errorf("when it was answered, %d messages had arrived, want 1", got)
	}
	c.far.SetFault(receiver.Fault{Kind: receiver.Status, Status: 500})
	status, text = answerOf(t, client, url, "{}", prefer)
	if status != http.StatusOK || !strings.Contains(text, `"state":"failed","reason":"`) {
		t.Errorf("a delivery that fails: got %d %s, want 200, failed, and why", status, text)
	}
	c.far.SetFault(receiver.Fault{Kind: receiver.Hang})
	status, text = answerOf(t, client, url, "{}", http.Header{"Prefer": {"wait=1"}})
	if status != http.StatusAccepted || !strings.Contains(text, `"state":"pending"`) {
		t.Errorf("a delivery that takes longer: got %d %s, want 202, pending", status, text)
	}
	c.far.SetFault(receiver.Fault{})
}
