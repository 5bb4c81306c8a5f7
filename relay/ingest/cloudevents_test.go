package ingest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

const (
	structured = "application/cloudevents+json"
	batched    = "application/cloudevents-batch+json"
)

// newEvent makes an event by the official SDK.
func newEvent(t testing.TB, id string) cloudevents.Event {
	t.Helper()
	e := cloudevents.NewEvent()
	e.SetID(id)
	e.SetSource("/sensors/42?zone=east")
	e.SetType("alert.fired")
	e.SetSubject("door")
	e.SetTime(acceptedAt)
	e.SetExtension("severity", "high")
	if err := e.SetData(cloudevents.ApplicationJSON, map[string]any{"n": 1, "html": "<&>"}); err != nil {
		t.Fatal(err)
	}
	return e
}

// recorded is a transport that keeps the last body and answer.
type recorded struct {
	sent, answer []byte
	contentType  string
	status       int
}

func (r *recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	var err error
	if r.sent, err = io.ReadAll(req.Body); err != nil {
		return nil, err
	}
	r.contentType = req.Header.Get("Content-Type")
	req.Body = io.NopCloser(strings.NewReader(string(r.sent)))
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if r.answer, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	r.status = resp.StatusCode
	resp.Body = io.NopCloser(strings.NewReader(string(r.answer)))
	return resp, nil
}

// received reads a stored message as the receiver of its delivery would, by the SDK.
func received(t testing.TB, m store.Message, body string) cloudevents.Event {
	t.Helper()
	h := http.Header{"Content-Type": {m.ContentType}}
	for _, f := range m.Header {
		h.Add(f.Name, f.Value)
	}
	e, err := binding.ToEvent(context.Background(), cehttp.NewMessage(h, io.NopCloser(strings.NewReader(body))))
	if err != nil {
		t.Fatalf("the SDK does not read what was stored: %v", err)
	}
	return *e
}

func TestCloudEventsOfTheOfficialSDK(t *testing.T) {
	for _, mode := range []struct {
		name        string
		encoding    func(context.Context) context.Context
		contentType string
		fields      int // headers that are kept
	}{
		{"binary", binding.WithForceBinary, "application/json", 7},
		{"structured", binding.WithForceStructured, structured, 0},
	} {
		t.Run(mode.name, func(t *testing.T) {
			b := start(t, storetest.MemoryOptions{}, nil)
			transport := &recorded{}
			protocol, err := cehttp.New(cehttp.WithTarget(b.url+"/cloudevents"), cehttp.WithRoundTripper(transport))
			if err != nil {
				t.Fatal(err)
			}
			client, err := cloudevents.NewClient(protocol)
			if err != nil {
				t.Fatal(err)
			}
			event := newEvent(t, "e-1")
			for round := range 2 { // the SDK's own retry sends the same again
				result := client.Send(mode.encoding(t.Context()), event)
				if !cloudevents.IsACK(result) || transport.status != 202 {
					t.Fatalf("round %d: got %v and %d %s, want 202 and an ACK", round, result, transport.status, transport.answer)
				}
				a := parse(t, string(transport.answer))
				m, body := b.load(t, a.ID)
				if body != string(transport.sent) || m.ContentType != transport.contentType || m.ContentType != mode.contentType {
					t.Errorf("got body %q of %q, want %q of %q as sent", body, m.ContentType, transport.sent, transport.contentType)
				}
				if m.Event != "alert.fired" || len(a.Deliveries) != 2 || len(m.Header) != mode.fields || m.Idempotency == nil {
					t.Errorf("got %+v, want the event with two deliveries and %d headers", m, mode.fields)
				}
				if got := received(t, m, body); got.String() != event.String() {
					t.Errorf("got at the receiver\n%s, want\n%s", got, event)
				}
			}
			if got := b.store.Pending(); got != 2 {
				t.Errorf("got %d deliveries, want 2: the second was the same event", got)
			}
		})
	}
	t.Run("batched", func(t *testing.T) {
		b := start(t, storetest.MemoryOptions{}, nil)
		events := []cloudevents.Event{newEvent(t, "e-1"), newEvent(t, "e-2"), newEvent(t, "e-3")}
		events[1].SetType("nobody.cares")
		req, err := cehttp.NewHTTPRequestFromEvents(t.Context(), b.url+"/cloudevents", events)
		if err != nil {
			t.Fatal(err)
		}
		resp, text := do(t, req)
		all := parseAll(t, text)
		if resp.StatusCode != 202 || len(all) != 3 {
			t.Fatalf("got %d %s, want 202 and three messages", resp.StatusCode, text)
		}
		for n, event := range events {
			m, body := b.load(t, all[n].ID)
			encoded, err := json.Marshal(event)
			if err != nil {
				t.Fatal(err)
			}
			if body != string(encoded) || m.ContentType != structured || m.Event != event.Type() {
				t.Errorf("event %d: got %q of %q for %q, want %q", n+1, body, m.ContentType, m.Event, encoded)
			}
			if got := received(t, m, body); got.String() != event.String() {
				t.Errorf("event %d: got at the receiver\n%s, want\n%s", n+1, got, event)
			}
		}
		if got := b.store.Pending(); got != 4 {
			t.Errorf("got %d deliveries, want 4", got)
		}
		single, again := b.post(t, "/cloudevents", mustJSON(t, events[2]), "Content-Type", structured+"; charset=UTF-8")
		if a := parse(t, again); single.StatusCode != 202 || a.ID != all[2].ID || single.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("got %d %s for one of them alone, want the message of the batch, marked", single.StatusCode, again)
		}
	})
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const goodEvent = `{"specversion":"1.0","id":"1","source":"/s","type":"alert.fired"}`

func TestCloudEventsRefusals(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.MaxBody = 1000 })
	binary := func(more ...string) []string {
		return append([]string{"Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "/s", "Ce-Type", "alert.fired"}, more...)
	}
	whole, all := []string{"Content-Type", structured}, []string{"Content-Type", batched}
	for _, tc := range []struct {
		name   string
		header []string
		body   string
		status int
		detail string
	}{
		{"no CloudEvent", nil, "{}", 400, "there is no CloudEvent"},
		{"no id", []string{"Ce-Specversion", "1.0", "Ce-Source", "/s", "Ce-Type", "a"}, "", 400, "attribute id is missing"},
		{"no source", []string{"Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Type", "a"}, "", 400, "attribute source is missing"},
		{"no type", []string{"Ce-Specversion", "1.0", "Ce-Source", "/s", "Ce-Id", "1"}, "", 400, "attribute type is missing"},
		{"no version", []string{"Ce-Id", "1", "Ce-Source", "/s", "Ce-Type", "a"}, "", 400, "attribute specversion is missing"},
		{"two ids", binary("Ce-Id", "2"), "", 400, "more than one Ce-Id"},
		{"a content type as an attribute", binary("Ce-Datacontenttype", "a/b"), "", 400, "Ce-Datacontenttype is not allowed"},
		{"a bad escape", binary("Ce-Subject", "100%"), "", 400, "Ce-Subject: it is not properly escaped"},
		{"an overlong encoding", binary("Ce-Subject", "%C0%A0"), "", 400, "Ce-Subject: it is not UTF-8"},
		{"an open quote", binary("Ce-Subject", `"a`), "", 400, "closing quote"},
		{"version 0.3", []string{"Ce-Specversion", "0.3", "Ce-Id", "1", "Ce-Source", "/s", "Ce-Type", "a"}, "", 400, `specversion is "0.3"`},
		{"an escaped line break in the id", []string{"Ce-Specversion", "1.0", "Ce-Id", "a%0Ab", "Ce-Source", "/s", "Ce-Type", "a"}, "", 400, "attribute id holds a control"},
		{"a source that is none", []string{"Ce-Specversion", "1.0", "Ce-Id", "a", "Ce-Source", "http://[x", "Ce-Type", "a"}, "", 400, "source is no URI"},
		{"a type that is no event", []string{"Ce-Specversion", "1.0", "Ce-Id", "a", "Ce-Source", "/s", "Ce-Type", "com/x"}, "", 400, "type is not an event that Postern takes: segment 1"},
		{"an idempotency key", binary("Idempotency-Key", "k"), "", 400, "source and id"},
		{"a large body", binary(), strings.Repeat("x", 1001), 413, "1000 bytes"},
		{"no JSON", whole, "x", 400, "not valid JSON"},
		{"an empty body", whole, "", 400, "not valid JSON: it ends early"},
		{"an array alone", whole, "[]", 400, "it is an array"},
		{"two events without a batch", whole, goodEvent + goodEvent, 400, "something follows"},
		{"an id that is a number", whole, strings.Replace(goodEvent, `"1"`, "1", 1), 400, `"id": it is a number`},
		{"an id that is null", whole, strings.Replace(goodEvent, `"1"`, "null", 1), 400, `"id": it is null`},
		{"an id twice", whole, strings.Replace(goodEvent, `"id"`, `"id":"1","id"`, 1), 400, "duplicate"},
		{"an empty id", whole, strings.Replace(goodEvent, `"1"`, `""`, 1), 400, "attribute id is missing or empty"},
		{"both kinds of data", whole, strings.Replace(goodEvent, `{`, `{"data":1,"data_base64":"",`, 1), 400, "both data and data_base64"},
		{"data and data_base64 in the other order", whole, strings.Replace(goodEvent, `{`, `{"data_base64":"","data":1,`, 1), 400, "both data and data_base64"},
		{"a time that is none", whole, strings.Replace(goodEvent, `{`, `{"time":"yesterday",`, 1), 400, `attribute time is "yesterday", which is no time of RFC 3339`},
		{"a time that is a number", whole, strings.Replace(goodEvent, `{`, `{"time":1,`, 1), 400, `"time": it is a number`},
		{"a time that is none in a header", binary("Ce-Time", "2026-12-24"), "", 400, `attribute time is "2026-12-24"`},
		{"an empty time in a header", binary("Ce-Time", ""), "", 400, `attribute time is ""`},
		{"a name with a capital", whole, strings.Replace(goodEvent, `{`, `{"dataContentType":"a/b",`, 1), 400, `"dataContentType": this is no name of an attribute`},
		{"a name with an underscore", whole, strings.Replace(goodEvent, `{`, `{"trace_id":"1",`, 1), 400, `"trace_id": this is no name`},
		{"an empty name", whole, strings.Replace(goodEvent, `{`, `{"":"1",`, 1), 400, "name of an attribute is empty"},
		{"a name with a hyphen in a header", binary("Ce-My-Team", "a"), "", 400, "Ce-My-Team: this is no name"},
		{"an empty name in a header", binary("Ce-", "a"), "", 400, "name of an attribute is empty"},
		{"an attribute that is too long to be sent", binary("Ce-Subject", strings.Repeat("x", 8193)), "", 431, "the value of Ce-Subject"},
		{"base64 that is none", whole, strings.Replace(goodEvent, `{`, `{"data_base64":"!",`, 1), 400, `"data_base64": it is no base64`},
		{"base64 without padding", whole, strings.Replace(goodEvent, `{`, `{"data_base64":"AA",`, 1), 400, "with padding"},
		{"base64 that is an object", whole, strings.Replace(goodEvent, `{`, `{"data_base64":{},`, 1), 400, `"data_base64": it is an object`},
		{"such an event in a batch", all, "[" + goodEvent + "," + strings.Replace(goodEvent, `{`, `{"data_base64":"!",`, 1) + "]", 400, `event 2: "data_base64"`},
		{"another charset", []string{"Content-Type", structured + "; charset=latin1"}, goodEvent, 415, `charset "latin1"`},
		{"another format", []string{"Content-Type", "application/cloudevents+avro"}, "x", 415, "application/cloudevents+avro"},
		{"a batch that is an object", all, goodEvent, 400, "the batch is an object"},
		{"a batch of nothing", all, "", 400, "not valid JSON"},
		{"a batch of numbers", all, "[1]", 400, "event 1: it is a number"},
		{"a batch that does not end", all, "[" + goodEvent, 400, "event 2: it is not valid JSON: it ends early"},
		{"a batch with a comma too many", all, "[" + goodEvent + ",]", 400, "event 2: it is not valid JSON"},
		{"a batch without commas", all, "[" + goodEvent + goodEvent + "]", 400, "event 2: it is not valid JSON"},
		{"something behind a batch", all, "[" + goodEvent + "] x", 400, "not valid JSON"},
		{"two batches", all, "[" + goodEvent + "][]", 400, "something follows the array"},
		{"a bad event behind a good one", all, "[" + goodEvent + "," + strings.Replace(goodEvent, "1.0", "2", 1) + "]", 400, `event 2: the attribute specversion is "2"`},
		{"a large event", all, "[" + strings.Replace(goodEvent, `{`, `{"data":"`+strings.Repeat("x", 1000)+`",`, 1) + "]", 413, "event 1: it is larger than 1000 bytes"},
		{"a very large event", all, "[" + strings.Replace(goodEvent, `{`, `{"data":"`+strings.Repeat("x", 70<<10)+`",`, 1) + "]", 413, "event 1: it is longer than"},
		{"one event with two contents", all, "[" + goodEvent + "," + strings.Replace(goodEvent, `{`, `{"data":1,`, 1) + "]", 422, "event 2: the same source and id came before"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, text := b.post(t, "/cloudevents", tc.body, tc.header...)
			if resp.StatusCode != tc.status || !strings.Contains(detail(t, text), tc.detail) {
				t.Errorf("got %d %s, want %d saying %q", resp.StatusCode, text, tc.status, tc.detail)
			}
		})
	}
	if got := b.store.Pending(); got != 0 {
		t.Errorf("got %d deliveries stored, want none", got)
	}
}

func TestCloudEventsInDetail(t *testing.T) {
	t.Run("attributes in headers may be escaped or quoted, and are kept as they came", func(t *testing.T) {
		b := start(t, storetest.MemoryOptions{}, nil)
		_, text := b.post(t, "/cloudevents", "data", "Ce-Specversion", "1.0", "Ce-Id", "Euro%20%E2%82%AC", "Ce-Source", `"/s"`, "Ce-Type", "alert%2efired",
			"Postern-Key", "k", "Postern-Delay", "10", "X-Request-Id", "r")
		m, body := b.load(t, parse(t, text).ID)
		want := "[{Ce-Id Euro%20%E2%82%AC} {Ce-Source \"/s\"} {Ce-Specversion 1.0} {Ce-Type alert%2efired} {X-Request-Id r}]"
		if m.Event != "alert.fired" || body != "data" || m.Key != "k" || m.ContentType != "" || fmt.Sprint(m.Header) != want {
			t.Errorf("got %+v with %q, want event alert.fired and header %s", m, body, want)
		}
		if got := m.Recipients[0].Delay.Seconds(); got != 10 {
			t.Errorf("got a delay of %v s, want 10", got)
		}
		again, text2 := b.post(t, "/cloudevents", "data", "Ce-Specversion", "1.0", "Ce-Id", `"Euro %E2%82%AC"`, "Ce-Source", "/s", "Ce-Type", "alert.fired",
			"Postern-Key", "k")
		if again.Header.Get("Idempotency-Replayed") != "true" || text2 != text {
			t.Errorf("got %s for the same event written otherwise, want the first answer", text2)
		}
	})
	t.Run("a time, bytes and an attribute that is null are fine", func(t *testing.T) {
		b := start(t, storetest.MemoryOptions{}, nil)
		for n, more := range []string{`"time":"2026-12-24T18:00:00.5+01:00"`, `"data_base64":"QUJD\/w=="`, `"data_base64":""`, `"time":null`, `"ext1":7`} {
			event := strings.NewReplacer(`{`, "{"+more+",", `"1"`, fmt.Sprintf(`"%d"`, n)).Replace(goodEvent)
			if resp, text := b.post(t, "/cloudevents", event, "Content-Type", structured); resp.StatusCode != 202 {
				t.Errorf("%s: got %d %s, want 202", more, resp.StatusCode, text)
			}
		}
	})
	t.Run("source and id do not run together", func(t *testing.T) {
		b := start(t, storetest.MemoryOptions{}, nil)
		_, one := b.post(t, "/cloudevents", "", "Ce-Specversion", "1.0", "Ce-Id", "bc", "Ce-Source", "a", "Ce-Type", "x")
		_, two := b.post(t, "/cloudevents", "", "Ce-Specversion", "1.0", "Ce-Id", "c", "Ce-Source", "ab", "Ce-Type", "x")
		if parse(t, one).ID == parse(t, two).ID {
			t.Errorf("got one message %s for two events", one)
		}
	})
	t.Run("another type for the same event is refused", func(t *testing.T) {
		b := start(t, storetest.MemoryOptions{}, nil)
		for _, step := range []struct {
			kind string
			want int
		}{{"x", 202}, {"y", 422}, {"x", 202}} {
			resp, text := b.post(t, "/cloudevents", "", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "a", "Ce-Type", step.kind)
			if resp.StatusCode != step.want {
				t.Errorf("type %s: got %d %s, want %d", step.kind, resp.StatusCode, text, step.want)
			}
		}
	})
	t.Run("a batch may be empty", func(t *testing.T) {
		b := start(t, storetest.MemoryOptions{}, nil)
		if resp, text := b.post(t, "/cloudevents", " [ ] ", "Content-Type", batched); resp.StatusCode != 202 || len(parseAll(t, text)) != 0 {
			t.Errorf("got %d %s, want 202 and no messages", resp.StatusCode, text)
		}
	})
	t.Run("spaces between the events of a batch belong to none", func(t *testing.T) {
		b := start(t, storetest.MemoryOptions{}, nil)
		second := "{ \"data\" : [ 1 ] ," + goodEvent[1:len(goodEvent)-1] + ",\"id2\":\"\"\n}"
		second = strings.Replace(second, `"1"`, `"2"`, 1)
		resp, text := b.post(t, "/cloudevents", "\n[\t"+goodEvent+" ,\r\n"+second+"\n]\n", "Content-Type", batched, "Postern-Key", "k", "Postern-Delay", "5s",
			"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		if resp.StatusCode != 202 {
			t.Fatalf("got %d %s, want 202", resp.StatusCode, text)
		}
		all := parseAll(t, text)
		for n, want := range []string{goodEvent, second} {
			m, body := b.load(t, all[n].ID)
			if body != want || m.Key != "k" || m.Recipients[0].Delay.Seconds() != 5 || len(m.Header) != 1 {
				t.Errorf("event %d: got %+v with %q, want key, delay and trace of the request and body %q", n+1, m, body, want)
			}
		}
	})
}
