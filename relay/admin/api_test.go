package admin_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
)

// hostile is text that must stay text.
const hostile = `<script>alert("x")</script>`

// populate fills a store with one delivery of each kind.
func populate(t testing.TB, a *api) (delivered, failed, pending, gone store.Delivery) {
	t.Helper()
	m := store.Message{
		Event: "alert.fired", ContentType: "application/json", Key: "k1", Path: "/sub?api_key=canary&x=1",
		Header: []store.Field{{Name: "X-Request-Id", Value: hostile}, {Name: "X-Api-Key", Value: "canary***"}},
	}
	both := a.accept(t, m, `{"text":"`+`\u003c`+`"}`, "alerts", "audit")
	delivered = a.end(t, both[0], store.Delivered, store.ClassOK, 200)
	failed = a.end(t, both[1], store.Failed, store.ClassStatus, 500)
	pending = a.end(t, a.accept(t, store.Message{Event: "alert.cleared"}, "\xff\x00binary", "alerts")[0], store.Pending, store.ClassTimeout, 0)
	gone = a.accept(t, store.Message{}, "", "retired")[0]
	for _, d := range []store.Delivery{delivered, failed} {
		a.Activity.Observe(store.Delivery{}, d, store.Attempt{Class: d.Last.Class, CertExpires: epoch().Add(time.Hour)})
	}
	return delivered, failed, pending, gone
}

func TestEveryOperationAnswersAsDescribed(t *testing.T) {
	a := newAPI(t)
	delivered, failed, pending, gone := populate(t, a)
	a.relay.held["retired"] = admin.HeldNotInConfig
	a.Backups = newCopies("x")
	a.relay.attempt = store.Attempt{
		StartedAt: epoch(), Took: time.Second, Class: store.ClassStatus, Status: 503, Request: sent(), RetryHint: time.Minute,
	}
	for _, step := range []struct{ method, path, body string }{
		{"GET", "/overview", ""},
		{"GET", "/destinations", ""},
		{"GET", "/destinations/alerts", ""},
		{"GET", "/destinations/retired", ""},
		{"POST", "/destinations/alerts/pause", `{"reason":"they are moving"}`},
		{"GET", "/overview", ""},
		{"POST", "/destinations/alerts/resume", ""},
		{"POST", "/destinations/alerts/test", ""},
		{"POST", "/destinations/alerts/test", `{"event":"a.b","content_type":"text/plain","body":"x","headers":{"x-request-id":"1"}}`},
		{"POST", "/destinations/alerts/render", `{"body_base64":"/wA="}`},
		{"POST", "/destinations/audit/render", `{"delivery_id":"` + failed.ID.String() + `"}`},
		{"GET", "/deliveries", ""},
		{"GET", "/deliveries?limit=1", ""},
		{"GET", "/deliveries/" + delivered.ID.String(), ""},
		{"GET", "/deliveries/" + failed.ID.String(), ""},
		{"GET", "/deliveries/" + pending.ID.String(), ""},
		{"GET", "/deliveries/" + gone.ID.String(), ""},
		{"GET", "/messages/" + failed.ID.Message().String(), ""},
		{"GET", "/messages/" + failed.ID.Message().String() + "/body", ""},
		{"POST", "/replay", `{"filter":{"state":"failed"},"dry_run":true}`},
		{"POST", "/replay", `{"filter":{"state":"failed"}}`},
		{"POST", "/deliveries/" + delivered.ID.String() + "/replay", ""},
		{"POST", "/deliveries/" + pending.ID.String() + "/retry", "{}"},
		{"POST", "/deliveries/" + pending.ID.String() + "/cancel", `{"reason":"not wanted"}`},
		{"GET", "/deliveries/" + pending.ID.String(), ""},
		{"POST", "/reload", ""},
		{"POST", "/backup", `{"include_keys":true}`},
		{"GET", "/overview", ""},
		{"GET", "/openapi.json", ""},
	} {
		if status, answer := a.do(t, step.method, "/api/v1"+step.path, step.body); status != http.StatusOK {
			t.Errorf("%s %s: got %d %s, want 200", step.method, step.path, status, answer)
		} else if strings.Contains(answer, "canary") || strings.Contains(answer, "<script>") {
			t.Errorf("%s %s: got %s, want no secret and no markup", step.method, step.path, answer)
		}
	}
	for _, id := range a.checks.operations() {
		if id != "streamEvents" && !a.checks.seen[id] { // its events are checked where they are read
			t.Errorf("no answer of %s was checked", id)
		}
	}
}

func TestRefusals(t *testing.T) {
	a := newAPI(t)
	delivered, failed, pending, _ := populate(t, a)
	unknown, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 501)
	for _, tc := range []struct {
		name, method, path, body string
		status                   int
		want                     string // part of the detail
	}{
		{"an unknown path", "GET", "/nothing", "", 404, "/api/v1/openapi.json lists"},
		{"a path below one", "GET", "/overview/x", "", 404, "nothing at this path"},
		{"a path that ends early", "GET", "/deliveries/", "", 404, "nothing at this path"},
		{"another method", "POST", "/deliveries", "", 405, "use GET, HEAD"},
		{"GET of an action", "GET", "/destinations/alerts/pause", "", 405, "use POST"},

		{"an unknown parameter has the nearest", "GET", "/deliveries?destinaton=x", "", 400, `did you mean \"destination\"?`},
		{"an unknown parameter has all if none is near", "GET", "/deliveries?zzz=x", "", 400, "there are destination, state"},
		{"a parameter where there is none", "GET", "/overview?x=1", "", 400, "leave it out"},
		{"a parameter twice", "GET", "/deliveries?state=failed&state=pending", "", 400, "2 times"},
		{"a malformed query", "GET", "/deliveries?q=%zz", "", 400, "malformed"},
		{"a limit that is no number", "GET", "/deliveries?limit=ten", "", 400, "whole number"},
		{"a limit below one", "GET", "/deliveries?limit=0", "", 400, "1 to 500"},
		{"a limit above the most", "GET", "/deliveries?limit=501", "", 400, "1 to 500"},
		{"an unknown state", "GET", "/deliveries?state=fail", "", 400, `did you mean \"failed\"?`},
		{"an unknown class", "GET", "/deliveries?class=x", "", 400, "there are ok, status"},
		{"a time that is none", "GET", "/deliveries?since=yesterday", "", 400, "or a duration before now"},
		{"a time in the future as a duration", "GET", "/deliveries?until=-1h", "", 400, "until is"},
		{"a long text", "GET", "/deliveries?q=" + long, "", 400, "at most 200"},
		{"a cursor that is none", "GET", "/deliveries?cursor=x", "", 400, "malformed"},

		{"a delivery that is not there", "GET", "/deliveries/" + unknown.Delivery(0).String(), "", 404, "after store.retention"},
		{"an id of another kind", "GET", "/deliveries/" + unknown.String(), "", 400, "dlv_ and 32"},
		{"a message that is not there", "GET", "/messages/" + unknown.String(), "", 404, "after store.retention"},
		{"a body that is not there", "GET", "/messages/" + unknown.String() + "/body", "", 404, "after store.retention"},
		{"a message by the id of a delivery", "GET", "/messages/" + failed.ID.String(), "", 400, "msg_ and 32"},

		{"cancel of one that has ended", "POST", "/deliveries/" + delivered.ID.String() + "/cancel", "", 409, "look at it again"},
		{"retry of one that has ended", "POST", "/deliveries/" + delivered.ID.String() + "/retry", "", 409, "look at it again"},
		{"a long reason to cancel", "POST", "/deliveries/" + pending.ID.String() + "/cancel", `{"reason":"` + long + `"}`, 400, "at most 500"},

		{"an unknown name has the nearest", "POST", "/destinations/alert/pause", "", 404, `did you mean \"alerts\"?`},
		{"an unknown name", "POST", "/destinations/x/resume", "", 404, `there is no destination \"x\"`},
		{"an unknown destination", "GET", "/destinations/aler", "", 404, `did you mean \"alerts\"?`},
		{"an unknown action", "POST", "/destinations/alerts/stop", "", 404, "nothing at this path"},
		{"a body that is no JSON", "POST", "/destinations/alerts/pause", "reason", 400, "the keys reason"},
		{"an unknown key", "POST", "/destinations/alerts/pause", `{"why":"x"}`, 400, "not known here"},
		{"a key of a wrong type", "POST", "/destinations/alerts/pause", `{"reason":1}`, 400, "wrong type"},
		{"a key twice", "POST", "/destinations/alerts/pause", `{"reason":"a","reason":"b"}`, 400, "the body"},
		{"two bodies", "POST", "/destinations/alerts/pause", `{"reason":"x"}{}`, 400, "the keys reason"},
		{"a body where there is none", "POST", "/destinations/alerts/resume", `{"reason":"x"}`, 400, "not known here"},
		{"a reason with an escape sequence", "POST", "/destinations/alerts/pause", `{"reason":"x\u001b[31m"}`, 400, "cannot be printed"},
		{"a long reason", "POST", "/destinations/alerts/pause", `{"reason":"` + long + `"}`, 400, "at most 500"},
		{"a body beyond its bound", "POST", "/destinations/alerts/pause", strings.Repeat(" ", 64<<10+1), 413, "send less"},

		{"a test of an unknown destination", "POST", "/destinations/alert/test", "", 404, `did you mean \"alerts\"?`},
		{"a test with two bodies", "POST", "/destinations/alerts/test", `{"body":"x","body_base64":"eA=="}`, 400, "one of them"},
		{"a test with a header that is none", "POST", "/destinations/alerts/test", `{"headers":{"X-A":"a\r\nb"}}`, 400, "no valid header"},
		{"a test with an event that is none", "POST", "/destinations/alerts/test", `{"event":"a..b"}`, 400, "the event is wrong"},
		{"a test with a content type that is none", "POST", "/destinations/alerts/test", `{"content_type":"a\nb"}`, 400, "content_type"},
		{"a render of what cannot be built", "POST", "/destinations/alerts/render", `{"event":"bad"}`, 422, "there is no .Data.id"},
		{"a render of both", "POST", "/destinations/alerts/render", `{"delivery_id":"x","body":"y"}`, 400, "one of them"},
		{"a render of no id", "POST", "/destinations/alerts/render", `{"delivery_id":"x"}`, 400, "dlv_ and 32"},
		{"a render of a delivery that goes elsewhere", "POST", "/destinations/alerts/render", `{"delivery_id":"` + failed.ID.String() + `"}`, 400, `goes to \"audit\"`},

		{"a replay of what is pending", "POST", "/replay", `{"filter":{"state":"pending"}}`, 400, "only those that have ended"},
		{"a replay by a wrong filter", "POST", "/replay", `{"filter":{"since":"x"}}`, 400, "since is"},
		{"a replay by an unknown key", "POST", "/replay", `{"filter":{"sinse":"x"}}`, 400, "/filter/sinse"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, answer := a.do(t, tc.method, "/api/v1"+tc.path, tc.body)
			if status != tc.status || !strings.Contains(answer, tc.want) {
				t.Errorf("got %d %s, want %d %q", status, answer, tc.status, tc.want)
			}
		})
	}
	t.Run("trouble inside tells nothing", func(t *testing.T) {
		a.relay.err = errors.New("disk on fire")
		defer func() { a.relay.err = nil }()
		if status, answer := a.do(t, "GET", "/api/v1/overview", ""); status != 500 || strings.Contains(answer, "fire") {
			t.Errorf("got %d %s, want a 500 that tells nothing", status, answer)
		}
	})
	t.Run("a store that is closed is a 503", func(t *testing.T) {
		if err := a.store.Close(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/deliveries", "/overview", "/destinations", "/destinations/alerts", "/messages/" + failed.ID.Message().String()} {
			if status, answer := a.do(t, "GET", "/api/v1"+path, ""); status != 503 || !strings.Contains(answer, "after the next start") {
				t.Errorf("%s: got %d %s, want 503", path, status, answer)
			}
		}
	})
}

func TestRefusedReload(t *testing.T) {
	a := newAPI(t)
	a.relay.err = &admin.ReloadError{Faults: []admin.ConfigFault{
		{File: "postern.yaml", Line: 12, Column: 5, Path: "destinations.alerts.url", Message: "custom port 8443 is not allowed; remove it"},
		{File: "postern.yaml", Line: 14, Column: 5, Path: "x", Message: "unknown key"},
	}}
	status, answer := a.do(t, "POST", "/api/v1/reload", "")
	if status != http.StatusUnprocessableEntity || !strings.Contains(answer, "postern.yaml:12:5: destinations.alerts.url") {
		t.Errorf("got %d %s, want 422 with the first fault in its detail", status, answer)
	}
	_, err := a.client.Reload(t.Context())
	refusal, ok := errors.AsType[*admin.Refusal](err)
	if !ok || refusal.Status != 422 || len(refusal.Errors) != 2 || refusal.Errors[1].Line != 14 {
		t.Errorf("got %v, want a refusal with both faults", err)
	}
}

func TestDestinations(t *testing.T) {
	a := newAPI(t)
	_, _, _, gone := populate(t, a)
	list := into[admin.DestinationList](t, a, "GET", "/api/v1/destinations", "").Destinations
	var names []string
	for _, d := range list {
		names = append(names, d.Name)
	}
	if !slices.Equal(names, []string{"alerts", "audit", "retired"}) {
		t.Fatalf("got %v, want those of the config and the one that is gone", names)
	}
	if d := list[0]; !d.InConfig || d.Pending != 1 || d.LastHour.Delivered != 1 || *d.LastHour.SuccessRate != 1 || len(d.LastHour.Series) != 60 {
		t.Errorf("got %+v", d)
	}
	if d := list[1]; d.Pending != 0 || d.LastHour.Failed != 1 || *d.LastHour.SuccessRate != 0 || d.CertificateExpiresAt.IsZero() {
		t.Errorf("got %+v", d)
	}
	if d := list[2]; d.InConfig || d.Pending != 1 || !d.OldestDueAt.Equal(gone.DueAt) || !d.NextRetryAt.IsZero() {
		t.Errorf("got %+v", d)
	}

	detail := into[admin.DestinationDetail](t, a, "GET", "/api/v1/destinations/alerts", "")
	if !strings.Contains(string(detail.Config), `"token":"***"`) {
		t.Errorf("got config %s", detail.Config)
	}
	if detail := into[admin.DestinationDetail](t, a, "GET", "/api/v1/destinations/retired", ""); string(detail.Config) != "null" {
		t.Errorf("got config %s of a destination that is gone, want null", detail.Config)
	}

	d := into[admin.Destination](t, a, "POST", "/api/v1/destinations/alerts/pause", "")
	if d.Pause == nil || d.Pause.Reason != "paused by hand" {
		t.Errorf("got %+v, want a pause with a reason", d)
	}
	d = into[admin.Destination](t, a, "POST", "/api/v1/destinations/alerts/resume", "")
	if d.Pause != nil {
		t.Errorf("got %+v, want no pause", d)
	}

	t.Run("the next retry is the first that is due later", func(t *testing.T) {
		a := newAPI(t)
		due := epoch().Add(time.Minute)
		d := a.accept(t, store.Message{}, "", "alerts")[0]
		after := d
		after.DueAt = due
		if _, err := a.store.Record(t.Context(), d, after, store.Attempt{}); err != nil {
			t.Fatal(err)
		}
		if d := into[admin.DestinationDetail](t, a, "GET", "/api/v1/destinations/alerts", ""); !d.NextRetryAt.Equal(due) || !d.OldestDueAt.IsZero() {
			t.Errorf("got oldest %v and next %v, want %v as the next", d.OldestDueAt, d.NextRetryAt, due)
		}
	})
}

func TestDelivery(t *testing.T) {
	a := newAPI(t)
	_, failed, pending, _ := populate(t, a)
	a.relay.held["alerts"] = admin.HeldPaused
	d := into[admin.DeliveryDetail](t, a, "GET", "/api/v1/deliveries/"+failed.ID.String(), "")
	if d.State != "failed" || d.Reason == "" || d.Last == nil || d.Last.Status != 500 || d.Held != "" || d.EndedAt.IsZero() || !d.DueAt.IsZero() {
		t.Errorf("got %+v", d.Delivery)
	}
	if len(d.History) != 1 {
		t.Fatalf("got %d attempts, want 1", len(d.History))
	}
	at := d.History[0]
	if at.Request == nil || at.Request.Headers[0].Value != "Bearer ***" || at.Request.Body != "" || !at.Request.BodyIsMessage {
		t.Errorf("got request %+v, want it as it was recorded, without the message's body", at.Request)
	}
	if at.Response == nil || at.Response.Body != "<script>alert(1)</script>" || at.Response.Headers[1] != (admin.Header{Name: "Set-Cookie", Value: "***"}) {
		t.Errorf("got response %+v, want its body as text and no cookie", at.Response)
	}
	if at.Timing.TotalSeconds != 0.12 || at.Timing.FirstByteSeconds != 0.1 || at.Timing.DNSSeconds != 0.001 {
		t.Errorf("got timing %+v", at.Timing)
	}
	if m := d.Message; m.Path != "/sub?api_key=***&x=***" || m.Headers[1].Value != "***" || m.Headers[0].Value != hostile || m.Key != "k1" {
		t.Errorf("got message %+v", m)
	}

	d = into[admin.DeliveryDetail](t, a, "GET", "/api/v1/deliveries/"+pending.ID.String(), "")
	if d.Held != admin.HeldPaused || d.Message.Body != "" || string(d.Message.BodyBase64) != "\xff\x00binary" || d.History[0].Response != nil {
		t.Errorf("got held %q, message %+v, attempt %+v", d.Held, d.Message, d.History[0])
	}
}

func TestMessage(t *testing.T) {
	a := newAPI(t)
	delivered, _, _, _ := populate(t, a)
	path := "/api/v1/messages/" + delivered.ID.Message().String()
	m := into[admin.Message](t, a, "GET", path, "")
	if len(m.Deliveries) != 2 || m.Deliveries[1].Destination != "audit" || m.Body == "" || m.BodyRemoved {
		t.Errorf("got %+v", m)
	}

	t.Run("the raw body is a download", func(t *testing.T) {
		resp, err := http.Get(a.url + path + "/body")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for key, want := range map[string]string{
			"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff",
			"Content-Disposition":     `attachment; filename="` + delivered.ID.Message().String() + `.bin"`,
			"Content-Security-Policy": "default-src 'none'; sandbox",
		} {
			if got := resp.Header.Get(key); got != want {
				t.Errorf("got %s %q, want %q", key, got, want)
			}
		}
	})
	t.Run("what is redacted is not shown", func(t *testing.T) {
		a.Redact = func(m store.Message, body []byte) []byte { return []byte(m.Event + " redacted") }
		defer func() { a.Redact = nil }()
		if m := into[admin.Message](t, a, "GET", path, ""); m.Body != "alert.fired redacted" {
			t.Errorf("got body %q", m.Body)
		}
		if body, err := a.client.MessageBody(t.Context(), delivered.ID.Message().String()); err != nil || string(body) != "alert.fired redacted" {
			t.Errorf("got %q, %v", body, err)
		}
	})
	t.Run("a body that is not kept is told to be gone", func(t *testing.T) {
		if err := a.store.Reduce(t.Context(), delivered.ID.Message(), nil); err != nil {
			t.Fatal(err)
		}
		if m := into[admin.Message](t, a, "GET", path, ""); !m.BodyRemoved || m.SizeBytes == 0 {
			t.Errorf("got %+v, want a body that was removed", m)
		}
		if status, answer := a.do(t, "GET", path+"/body", ""); status != http.StatusGone {
			t.Errorf("got %d %s, want 410", status, answer)
		}
		body := `{"delivery_id":"` + delivered.ID.String() + `"}`
		if status, answer := a.do(t, "POST", "/api/v1/destinations/alerts/render", body); status != http.StatusGone {
			t.Errorf("render: got %d %s, want 410", status, answer)
		}
	})
	t.Run("of a large body the beginning is shown", func(t *testing.T) {
		text := strings.Repeat("é", 200<<10)
		d := a.accept(t, store.Message{}, "x"+text, "alerts")[0]
		m := into[admin.Message](t, a, "GET", "/api/v1/messages/"+d.ID.Message().String(), "")
		if !m.BodyTruncated || len(m.Body) != 256<<10-1 || !strings.HasPrefix("x"+text, m.Body) {
			t.Errorf("got %d bytes, truncated %t; want 256 KiB, cut at a character", len(m.Body), m.BodyTruncated)
		}
		whole, err := a.client.MessageBody(t.Context(), d.ID.Message().String())
		if err != nil || string(whole) != "x"+text {
			t.Errorf("got %d bytes, %v; want all of them raw", len(whole), err)
		}
	})
}

func TestTrials(t *testing.T) {
	a := newAPI(t)
	a.relay.attempt = store.Attempt{Class: store.ClassOK, Status: 204, Request: sent(), StartedAt: epoch()}
	for next, want := range map[store.State]string{store.Delivered: "delivered", store.Pending: "retried", store.Failed: "failed"} {
		a.relay.next = next
		got := into[admin.Exchange](t, a, "POST", "/api/v1/destinations/alerts/test", `{"event":"a.b","body":"hi","headers":{"x-b":"2","X-A":"1"}}`)
		if got.Would != want || got.Request == nil || got.Request.Body != "hi" || got.Attempt.Status != 204 {
			t.Errorf("got %+v, want would %q with the sample as the body", got, want)
		}
	}
	m := a.relay.tested[0]
	want := []store.Field{{Name: "X-A", Value: "1"}, {Name: "X-B", Value: "2"}}
	if m.Event != "a.b" || m.ContentType != "application/json" || !slices.Equal(m.Header, want) || m.Size != 2 || m.Recipients[0].Destination != "alerts" {
		t.Errorf("got message %+v", m)
	}
	into[admin.Exchange](t, a, "POST", "/api/v1/destinations/alerts/test", "")
	if m, body := a.relay.tested[3], a.relay.bodies[3]; m.Event != "postern.test" || !json.Valid(body) {
		t.Errorf("got %+v with %q, want a sample", m, body)
	}
	if n := a.store.Pending(); n != 0 {
		t.Errorf("got %d pending deliveries after tests, want none", n)
	}

	a.relay.attempt = store.Attempt{Class: store.ClassRender, StartedAt: epoch()}
	if got := into[admin.Exchange](t, a, "POST", "/api/v1/destinations/alerts/test", ""); got.Request != nil || got.Attempt.Response != nil {
		t.Errorf("got %+v, want no request where none could be sent", got)
	}
	rendered := into[admin.Render](t, a, "POST", "/api/v1/destinations/alerts/render", `{"body":"hi"}`)
	if rendered.Request.Body != "hi" || len(rendered.SignatureBases) != 2 || rendered.SignatureBases[0].Base != "msg.1.{}" || string(rendered.SignatureBases[1].BaseBase64) != "\xff" {
		t.Errorf("got %+v", rendered)
	}
}
