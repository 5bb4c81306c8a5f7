package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// shortenAnomalyArmor divides the schedule by 2400, and returns it.
func shortenAnomalyArmor(delays *[]time.Duration) func(*testing.T, map[string]any) {
	return func(t *testing.T, doc map[string]any) {
		var short []any
		short, *delays = shortened(t, 2400, get(t, doc, "defaults", "retry", "schedule"))
		set(t, doc, short, "defaults", "retry", "schedule")
	}
}

func TestExampleAnomalyArmorFails(t *testing.T) {
	env := map[string]string{"ANOMALYARMOR_SECRET": "armor-secret", "ONCALL_TOKEN": "oncall-token", "CATALOG_KEY": "catalog-key"}
	t.Run("after five attempts by the schedule, and not before", func(t *testing.T) {
		var delays []time.Duration
		e := runExample(t, "anomalyarmor", exampleOptions{ip: "127.0.0.32", env: env, shorten: shortenAnomalyArmor(&delays)})
		if len(delays) != 5 {
			t.Fatalf("got a schedule of %v, want five delays", delays)
		}
		statuses := []int{500, 404, 302, 503, 429} // none is a 2xx
		e.site.answers(func(r wireRequest) siteAnswer {
			if r.host != "oncall.example.com" {
				return siteAnswer{status: 204}
			}
			return siteAnswer{status: statuses[len(e.site.to(r.host))-1]}
		})
		id := e.send(t, "connection_failed")[0]
		if d := awaitEnd(t, e.relay, "oncall", id); d.State != "failed" || d.Attempt != 5 || d.Status != statuses[4] {
			t.Errorf("got %+v, want it failed after 5 attempts", d)
		}
		checkSpacing(t, e.site.to("oncall.example.com"), delays)
		if d := awaitEnd(t, e.relay, "catalog", id); d.State != "delivered" || d.Attempt != 1 {
			t.Errorf("204: got %+v, want it delivered by the first attempt", d)
		}
		e.site.answers(func(wireRequest) siteAnswer { return siteAnswer{status: 503} })
		e.outage(t, "oncall", "schema_change", len(delays))
		e.relay.stop(t)
	})
	t.Run("a receiver whose certificate is signed by itself gets nothing", func(t *testing.T) {
		var delays []time.Duration
		e := runExample(t, "anomalyarmor", exampleOptions{
			ip: "127.0.0.33", env: env, selfSigned: true, shorten: shortenAnomalyArmor(&delays),
		})
		id := e.send(t, "schema_change")[0]
		for _, name := range []string{"oncall", "catalog"} {
			if d := awaitEnd(t, e.relay, name, id); d.State != "failed" || d.Class != "tls" || d.Attempt != 5 || d.Status != 0 {
				t.Errorf("%s: got %+v, want it failed with class tls after 5 attempts", name, d)
			}
		}
		if got := e.site.to(""); len(got) > 0 {
			t.Errorf("got %d requests, want none; the first is %q", len(got), got[0].raw)
		}
		e.relay.stop(t)
	})
}

func TestExampleAponoFails(t *testing.T) {
	env := map[string]string{"TICKETS_CLIENT_ID": "apono-client", "TICKETS_CLIENT_SECRET": "client-secret", "SIEM_TOKEN": "siem-token"}
	e := runExample(t, "apono", exampleOptions{
		ip: "127.0.0.34", env: env, tokens: &receiver.TokenServer{ClientID: "someone else", ClientSecret: "client-secret"},
		shorten: func(t *testing.T, doc map[string]any) {
			short, _ := shortened(t, 1000, get(t, doc, "defaults", "retry", "schedule"))
			set(t, doc, short, "defaults", "retry", "schedule")
		},
	})
	e.site.answers(func(wireRequest) siteAnswer { return siteAnswer{body: `{"data":{"accepted":"yes"}}`} })
	id := e.send(t)[0]
	t.Run("no value of a validator holds", func(t *testing.T) {
		d := awaitEnd(t, e.relay, "siem", id)
		if d.State != "failed" || d.Class != "expect" || d.Status != 200 || d.Attempt != 4 || strings.Contains(d.Error, "yes") {
			t.Errorf("got %+v, want it failed with class expect after 4 attempts, and nothing of the answer in the log", d)
		}
	})
	t.Run("the token endpoint refuses the client", func(t *testing.T) {
		d := awaitEnd(t, e.relay, "tickets", id)
		if d.State != "failed" || d.Class != "auth" || !strings.Contains(d.Error, "invalid_client") {
			t.Errorf("got %+v, want it failed with class auth and what the endpoint says", d)
		}
		if got := len(e.site.to("tickets.example.com")); got > 0 {
			t.Errorf("got %d requests without a token, want none", got)
		}
	})
	e.relay.stop(t)
}

func TestExampleAnesyaFails(t *testing.T) {
	e := runExample(t, "anesya", exampleOptions{
		ip: "127.0.0.35", env: map[string]string{"CRM_TOKEN": "crm-token", "WAREHOUSE_TOKEN": "warehouse-token", "SUPPORT_TOKEN": "support-token"},
	})
	e.site.answers(func(r wireRequest) siteAnswer {
		if r.host == "crm.example.com" {
			return siteAnswer{status: 503}
		}
		return siteAnswer{status: 304}
	})
	id := e.send(t, "extract.completed")[0]
	for name, status := range map[string]int{"crm": 503, "warehouse": 304} {
		if d := awaitEnd(t, e.relay, name, id); d.State != "failed" || d.Class != "status" || d.Status != status || d.Attempt != 1 {
			t.Errorf("%s answers %d: got %+v, want it failed after one attempt", name, status, d)
		}
	}
	if got := len(e.site.to("")); got != 2 {
		t.Errorf("got %d requests, want one for each destination", got)
	}
	e.outage(t, "crm", "extract.completed", 1)
	e.relay.stop(t)
}

// outage posts more messages than the usual breaker would let fail, and expects each to have its attempts and to end as
// failed.
func (e *example) outage(t *testing.T, destination, event string, attempts int) {
	t.Helper()
	client := httpClient(t)
	const messages = 25
	ids := make([]string, messages)
	for n := range ids {
		var err error
		if ids[n], err = post(t.Context(), client, "http://"+e.ingest+"/events/"+event, fmt.Sprintf(`{"n":%d}`, n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if d := awaitEnd(t, e.relay, destination, id); d.State != "failed" || d.Attempt != attempts {
			t.Errorf("in an outage: got %+v, want it failed after %d attempts", d, attempts)
		}
	}
}
