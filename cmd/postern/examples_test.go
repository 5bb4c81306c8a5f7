package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

func TestExampleAnaphora(t *testing.T) {
	var first []time.Duration
	e := runExample(t, "anaphora", exampleOptions{
		ip: "127.0.0.31",
		env: map[string]string{
			"ARCHIVE_USER": "anaphora", "ARCHIVE_PASSWORD": "pass:wörd-1c9e", "CHAT_TOKEN": "chat-token-77ab",
			"WAREHOUSE_KEY": "warehouse-key-e02d",
		},
		shorten: func(t *testing.T, doc map[string]any) {
			var short []any
			short, first = shortened(t, 50, get(t, doc, "defaults", "retry", "first"))
			set(t, doc, short[0], "defaults", "retry", "first")
		},
	})

	t.Run("POST and PUT, each authorization and the custom headers arrive byte for byte", func(t *testing.T) {
		id := e.send(t)[0]
		for _, name := range []string{"portal", "archive", "chat", "warehouse"} {
			got := e.site.await(t, name+".example.com", 1)
			e.compare(t, "expected-request-"+name+".txt", got[0], map[string]string{"webhook-id": id})
			if d := awaitEnd(t, e.relay, name, id); d.State != "delivered" || d.Attempt != 1 {
				t.Errorf("%s: got %+v, want it delivered by the first attempt", name, d)
			}
		}
	})
	t.Run("a report that fails is retried three times with exponential backoff, and is visible as failed", func(t *testing.T) {
		e.site.answers(func(r wireRequest) siteAnswer {
			if r.host == "archive.example.com" {
				return siteAnswer{status: 500}
			}
			return siteAnswer{}
		})
		id := e.send(t, "report.failed")[0]
		d := awaitEnd(t, e.relay, "archive", id)
		if d.State != "failed" || d.Class != "status" || d.Status != 500 || d.Attempt != 4 || !strings.Contains(d.Reason, "4 of 4 attempts") {
			t.Errorf("got %+v, want it failed with status 500 after 4 attempts, and a reason", d)
		}
		attempts := e.site.to("archive.example.com")[1:]
		checkSpacing(t, attempts, []time.Duration{0, first[0], 2 * first[0], 4 * first[0]})
		for _, a := range attempts {
			if a.body != e.file(t, "report.failed.json") || a.header.Get("Webhook-Id") != id {
				t.Errorf("got attempt %q, want the report under the same id", a.raw)
			}
		}
		if d := awaitEnd(t, e.relay, "portal", id); d.State != "delivered" {
			t.Errorf("another destination: got %+v, want it delivered", d)
		}
	})
	e.relay.stop(t)
}

func TestExampleAnomalyArmor(t *testing.T) {
	var delays []time.Duration
	const secret = "armor-secret-5b1f"
	e := runExample(t, "anomalyarmor", exampleOptions{
		ip:      "127.0.0.32",
		env:     map[string]string{"ANOMALYARMOR_SECRET": secret, "ONCALL_TOKEN": "oncall-token-90aa", "CATALOG_KEY": "catalog-key-31cd"},
		shorten: shortenAnomalyArmor(&delays),
	})
	signature := func(body string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(body))
		return hex.EncodeToString(mac.Sum(nil))
	}
	events := []string{"schema_change", "freshness_violation", "discovery_complete", "connection_failed"}

	var ids []string
	t.Run("each kind of alert arrives at both receivers, signed over the raw body", func(t *testing.T) {
		ids = e.send(t)
		for _, name := range []string{"oncall", "catalog"} {
			got := e.site.await(t, name+".example.com", len(events))
			for i, event := range events {
				n := slices.IndexFunc(got, func(r wireRequest) bool { return r.header.Get("Webhook-Id") == ids[i] })
				if n < 0 {
					t.Fatalf("%s did not get %s", name, event)
				}
				if want := e.file(t, event+".json"); got[n].body != want {
					t.Errorf("%s of %s: got body %q, want %q", event, name, got[n].body, want)
				}
				if sum, want := got[n].header.Get("X-AnomalyArmor-Signature"), "sha256="+signature(got[n].body); sum != want {
					t.Errorf("%s of %s: got signature %q, want %q", event, name, sum, want)
				}
				if event == "schema_change" {
					e.compare(t, "expected-request-"+name+".txt", got[n], map[string]string{
						"webhook-id": ids[i], "signature": signature(e.file(t, event+".json")),
					})
				}
			}
		}
	})
	t.Run("an alert that is posted twice arrives once", func(t *testing.T) {
		if again := e.send(t); !slices.Equal(again, ids) {
			t.Errorf("got ids %v, want those of the first post, %v", again, ids)
		}
		e.relay.stop(t) // and with that, whatever was begun has ended
		for _, name := range []string{"oncall", "catalog"} {
			if got := len(e.site.to(name + ".example.com")); got != len(events) {
				t.Errorf("%s got %d requests, want %d", name, got, len(events))
			}
		}
	})
}

func TestExampleApono(t *testing.T) {
	env := map[string]string{
		"TICKETS_CLIENT_ID": "apono-client", "TICKETS_CLIENT_SECRET": "client-secret-4e77", "SIEM_TOKEN": "siem-token-c3b2",
	}
	e := runExample(t, "apono", exampleOptions{
		ip: "127.0.0.34", env: env,
		tokens: &receiver.TokenServer{
			ClientID: env["TICKETS_CLIENT_ID"], ClientSecret: env["TICKETS_CLIENT_SECRET"], SecretIn: "header",
			Scope: "issues.write issues.read",
		},
		shorten: func(t *testing.T, doc map[string]any) {
			short, _ := shortened(t, 100, get(t, doc, "defaults", "retry", "schedule"))
			set(t, doc, short, "defaults", "retry", "schedule")
		},
	})
	// A receiver that says no with a 200, twice and by either validator, before it says yes.
	said := []string{
		`{"data":{"status":"rejected","issue":{"open":true}}}`,
		`{"data":{"status":"created","issue":{"open":"true"}}}`,
		`{"data":{"status":"queued","issue":{"open":true}}}`,
	}
	e.site.answers(func(r wireRequest) siteAnswer {
		if r.host != "tickets.example.com" {
			return siteAnswer{body: `{"data":{"accepted":1.0}}`}
		}
		return siteAnswer{body: said[min(len(e.site.to(r.host)), len(said))-1]}
	})
	id := e.send(t)[0]

	t.Run("a validator that does not hold is a failed attempt", func(t *testing.T) {
		if d := awaitEnd(t, e.relay, "tickets", id); d.State != "delivered" || d.Attempt != len(said) {
			t.Errorf("got %+v, want it delivered by attempt %d", d, len(said))
		}
	})
	t.Run("the template and the token arrive byte for byte", func(t *testing.T) {
		for _, got := range e.site.to("tickets.example.com") {
			token, ok := strings.CutPrefix(got.header.Get("Authorization"), "Bearer ")
			if !ok || !e.site.tokens.Valid(token) {
				t.Errorf("got Authorization %q, want a token of the server", got.header.Get("Authorization"))
			}
			e.compare(t, "expected-request-tickets.txt", got, map[string]string{"webhook-id": id, "token": token})
			if !json.Valid([]byte(got.body)) {
				t.Errorf("the body is no JSON: %q", got.body)
			}
		}
		asked := e.site.to("login.example.com")
		if len(asked) != 1 {
			t.Fatalf("got %d requests for a token, want one for all attempts", len(asked))
		}
		e.compare(t, "expected-token-request.txt", asked[0], nil)
	})
	t.Run("another method with a bearer token arrives byte for byte", func(t *testing.T) {
		e.compare(t, "expected-request-siem.txt", e.site.await(t, "siem.example.com", 1)[0], map[string]string{"webhook-id": id})
		if d := awaitEnd(t, e.relay, "siem", id); d.State != "delivered" || d.Attempt != 1 {
			t.Errorf("got %+v, want it delivered by the first attempt", d)
		}
	})
	t.Run("an inactive destination gets nothing", func(t *testing.T) {
		if !strings.Contains(e.said, `"destination":"siem"`) || strings.Contains(e.said, "legacy") {
			t.Errorf("the answer was %s, want deliveries to the active destinations alone", e.said)
		}
		// What is posted to it by name is held, while others go on.
		for _, name := range []string{"legacy", "siem"} {
			if _, err := post(t.Context(), httpClient(t), "http://"+e.ingest+"/to/"+name, "{}"); err != nil {
				t.Fatal(err)
			}
		}
		e.site.await(t, "siem.example.com", 2)
		e.relay.stop(t)
		if got := e.site.to("legacy.example.com"); len(got) > 0 {
			t.Errorf("got %d requests, want none", len(got))
		}
		for key := range endedDeliveries(t, e.relay) {
			if key[0] == "legacy" {
				t.Error("there was a delivery to it, want none")
			}
		}
	})
}

func TestExampleAnesya(t *testing.T) {
	e := runExample(t, "anesya", exampleOptions{
		ip:  "127.0.0.35",
		env: map[string]string{"CRM_TOKEN": "crm-token-8a1b", "WAREHOUSE_TOKEN": "warehouse-token-2c3d", "SUPPORT_TOKEN": "support-token-4e5f"},
	})
	events := []string{"workflow.completed", "workflow.failed", "extract.completed", "extract.failed"}
	wanted := map[string][]string{
		"crm": {"extract.completed"}, "warehouse": {"extract.completed", "workflow.completed"}, "support": {"workflow.failed", "extract.failed"},
	}
	shown := map[string]string{"crm": "extract.completed", "warehouse": "extract.completed", "support": "workflow.failed"}
	ids := e.send(t)
	if len(ids) != len(events) {
		t.Fatalf("got %d messages, want %d", len(ids), len(events))
	}
	for name, subscribed := range wanted {
		t.Run(name+" gets what it has subscribed to, in the envelope", func(t *testing.T) {
			var got []string
			for _, r := range e.site.await(t, name+".example.com", len(subscribed)) {
				var envelope struct {
					ID, Event string
					Timestamp time.Time
					Data      json.RawMessage
				}
				if err := json.Unmarshal([]byte(r.body), &envelope); err != nil {
					t.Fatalf("body %q: %v", r.body, err)
				}
				got = append(got, envelope.Event)
				n := slices.Index(events, envelope.Event)
				if n < 0 || envelope.ID != ids[n] || r.header.Get("X-Webhook-Id") != envelope.ID {
					t.Errorf("got id %q in the body and %q in X-Webhook-Id for %q, want that of the message",
						envelope.ID, r.header.Get("X-Webhook-Id"), envelope.Event)
				}
				if want := strings.TrimSpace(e.file(t, envelope.Event+".json")); string(envelope.Data) != want {
					t.Errorf("got data %s, want %s", envelope.Data, want)
				}
				if at := envelope.Timestamp; at.Before(e.began) || at.After(time.Now()) {
					t.Errorf("got timestamp %v, want the time of acceptance", at)
				}
				if envelope.Event == shown[name] {
					e.compare(t, "expected-request-"+name+".txt", r, map[string]string{
						"webhook-id": envelope.ID, "timestamp": envelope.Timestamp.Format(time.RFC3339),
					})
				}
			}
			slices.Sort(got)
			slices.Sort(subscribed)
			if !slices.Equal(got, subscribed) {
				t.Errorf("got events %v, want %v", got, subscribed)
			}
		})
	}
	e.relay.stop(t)
}

func TestExampleBacktrace(t *testing.T) {
	var every []time.Duration
	e := runExample(t, "backtrace", exampleOptions{
		ip:  "127.0.0.36",
		env: map[string]string{"CRASHES_USER": "backtrace", "CRASHES_PASSWORD": "crashes-password-6f70"},
		shorten: func(t *testing.T, doc map[string]any) {
			var short []any
			short, every = shortened(t, 5, get(t, doc, "destinations", "crashes", "batch", "every"))
			set(t, doc, short[0], "destinations", "crashes", "batch", "every")
		},
	})
	t.Run("a batch is one request for each group", func(t *testing.T) {
		ids := e.send(t)
		if len(ids) != 3 {
			t.Fatalf("got %d messages, want one for each group", len(ids))
		}
		got := e.site.await(t, "crashes.example.com", 3)
		for i, id := range ids {
			n := slices.IndexFunc(got, func(r wireRequest) bool { return r.header.Get("Webhook-Id") == id })
			if n < 0 {
				t.Fatalf("group %d did not arrive", i+1)
			}
			e.compare(t, fmt.Sprintf("expected-request-%d.txt", i+1), got[n], map[string]string{"webhook-id": id})
			var sent, posted map[string]any
			if err := json.Unmarshal([]byte(got[n].body), &sent); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(e.file(t, fmt.Sprintf("group-%d.json", i+1))), &posted); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(sent) != fmt.Sprint(posted) {
				t.Errorf("got group %v, want %v", sent, posted)
			}
		}
		if again := e.send(t); !slices.Equal(again, ids) {
			t.Errorf("the same groups again: got ids %v, want %v", again, ids)
		}
	})
	t.Run("groups are released every few seconds", func(t *testing.T) {
		before, begin := len(e.site.to("")), time.Now()
		const releases = 3
		for i := range releases {
			url := "http://" + e.ingest + "/to/crashes"
			if _, err := post(t.Context(), httpClient(t), url, e.file(t, "group-1.json")); err != nil {
				t.Fatal(err)
			}
			e.site.await(t, "crashes.example.com", before+i+1)
		}
		// Each was posted after the release before, so it has waited for the next.
		if got, want := time.Since(begin), (releases-1)*every[0]; got < want {
			t.Errorf("%d groups, each posted when the one before had arrived, took %v; want at least %v", releases, got, want)
		}
	})
	e.relay.stop(t)
}
