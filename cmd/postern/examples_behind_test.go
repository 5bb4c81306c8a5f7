package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/sign"
)

// hexHMAC is the HMAC-SHA256 of a text in hexadecimal.
func hexHMAC(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// TestExampleBehindAlertmanager and the others hold what a product posts against what the receivers behind Postern get.
func TestExampleBehindAlertmanager(t *testing.T) {
	secret := sign.NewSecret()
	e := runExample(t, "behind-alertmanager", exampleOptions{
		ip: "127.0.0.61", env: map[string]string{"ONCALL_TOKEN": "oncall-token-19ef", "CHAT_SECRET": secret},
	})
	id := e.send(t)[0]
	t.Run("the one gets the group as it is, the other a text", func(t *testing.T) {
		oncall := e.site.await(t, "oncall.example.com", 1)[0]
		e.compare(t, "expected-request-oncall.txt", oncall, map[string]string{"webhook-id": id})
		if oncall.body != e.file(t, "group.json") {
			t.Errorf("got body %q, want what was posted", oncall.body)
		}
		chat := e.site.await(t, "chat.example.com", 1)[0]
		verifier, err := sign.NewStandardVerifier([]string{secret})
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(chat.header, []byte(chat.body), time.Now()); err != nil {
			t.Errorf("signature: %v", err)
		}
		e.compare(t, "expected-request-chat.txt", chat, map[string]string{
			"webhook-id": id, "webhook-signature": chat.header.Get("Webhook-Signature"),
		})
	})
	t.Run("what is not critical wakes nobody", func(t *testing.T) {
		body := `{"status":"firing","alerts":[{}],"groupLabels":{"alertname":"Slow"},"commonLabels":{"severity":"warning"},"commonAnnotations":{}}`
		later, err := post(t.Context(), httpClient(t), "http://"+e.ingest+"/events/alertmanager", body)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := e.site.await(t, "chat.example.com", 2)[1].body, `{"text": "[FIRING] Slow: 1 alerts, no summary"}`+"\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		awaitEnd(t, e.relay, "chat", later)
		e.relay.stop(t)
		if got := len(e.site.to("oncall.example.com")); got != 1 {
			t.Errorf("oncall got %d requests, want the critical one only", got)
		}
	})
}

func TestExampleBehindGrafana(t *testing.T) {
	env := map[string]string{"INCIDENTS_SECRET": "incidents-secret-70aa", "STATUS_KEY": "status-key-b2c4"}
	e := runExample(t, "behind-grafana", exampleOptions{ip: "127.0.0.62", env: env})
	id := e.send(t)[0]
	got := e.site.await(t, "incidents.example.com", 1)[0]
	at := got.header.Get("X-Grafana-Alerting-Timestamp")
	e.compare(t, "expected-request-incidents.txt", got, map[string]string{
		"webhook-id": id, "time": at, "signature": hexHMAC(env["INCIDENTS_SECRET"], at+":"+e.file(t, "alert.json")),
	})
	e.compare(t, "expected-request-status-page.txt", e.site.await(t, "status.example.com", 1)[0], map[string]string{"webhook-id": id})
	e.relay.stop(t)
}

func TestExampleBehindGitea(t *testing.T) {
	env := map[string]string{"CI_SECRET": "ci-secret-3d11", "MIRROR_SECRET": "mirror-secret-8f02"}
	e := runExample(t, "behind-gitea", exampleOptions{ip: "127.0.0.63", env: env})
	ids := e.send(t)
	for i, name := range []string{"ci", "mirror"} {
		got := e.site.await(t, name+".example.com", 1)[0]
		secret := env[map[string]string{"ci": "CI_SECRET", "mirror": "MIRROR_SECRET"}[name]]
		e.compare(t, "expected-request-"+name+".txt", got, map[string]string{
			"webhook-id": ids[i], "signature": hexHMAC(secret, e.file(t, "push.json")),
		})
	}
	e.relay.stop(t)
}

func TestExampleBehindSentry(t *testing.T) {
	t.Setenv("SENTRY_CLIENT_SECRET", "sentry-client-secret-5511")
	e := runExample(t, "behind-sentry", exampleOptions{ip: "127.0.0.64", env: map[string]string{"TRACKER_TOKEN": "tracker-token-aa31"}})
	ids := e.send(t)
	e.compare(t, "expected-request-triage.txt", e.site.await(t, "triage.example.com", 1)[0], map[string]string{
		"webhook-id": ids[0], "sentry's signature": hexHMAC("sentry-client-secret-5511", e.file(t, "issue.json")),
	})
	e.compare(t, "expected-request-tracker.txt", e.site.await(t, "tracker.example.com", 1)[0], map[string]string{"webhook-id": ids[1]})
	e.relay.stop(t)
}
