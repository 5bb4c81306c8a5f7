package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

const ndjson = "application/x-ndjson"

// answers is what a success of several messages says.
type answers struct {
	Messages []answer `json:"messages"`
}

func parseAll(t testing.TB, text string) []answer {
	t.Helper()
	var a answers
	if err := json.Unmarshal([]byte(text), &a); err != nil || a.Messages == nil {
		t.Fatalf("answer %.300q: got error %v, want a list of messages", text, err)
	}
	return a.Messages
}

// load returns a stored message by the id of an answer.
func (b *bench) load(t testing.TB, id string) (store.Message, string) {
	t.Helper()
	parsed, err := store.ParseMessageID(id)
	if err != nil {
		t.Fatal(err)
	}
	m, body, err := b.store.Load(t.Context(), parsed)
	if err != nil {
		t.Fatalf("load %s: %v", id, err)
	}
	return m, string(body)
}

func TestBatch(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	batch := `{"to":"alerts","data":{"b" : 1, "a":[ 1.50 ,2e2]}}` + "\r\n" +
		"\n  \t\n" +
		`{ "data" : "te\u0078t" , "event" : "alert.fired", "key":"k 1", "delay":"90s", "headers":{"x-request-id":" r1 ","X-Other":"o","tracestate":"a=1"} }` + "\n" +
		`{"event":"nobody.cares","data":null}` + "\n" +
		`{"to":"a/b","data":[],"deliver_at":"2026-11-21T07:00:00.123Z","headers":{"traceparent":"00-11111111111111111111111111111111-2222222222222222-00"}}` + "\n" +
		`{"to":"audit","data":-0,"delay":60}` // without an end
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	resp, text := b.post(t, "/batch", batch, "Content-Type", ndjson, "traceparent", trace, "X-Request-Id", "of the batch", "Postern-Hops", "1")
	if resp.StatusCode != 202 || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %q, want 202 and JSON", resp.StatusCode, text)
	}
	all := parseAll(t, text)
	if len(all) != 5 {
		t.Fatalf("got %d messages, want 5: %s", len(all), text)
	}
	for n, want := range []struct {
		body, event, key, to, header string
		delays                       []time.Duration
	}{
		{`{"b" : 1, "a":[ 1.50 ,2e2]}`, "", "", "alerts", "[{Traceparent " + trace + "}]", []time.Duration{0}},
		{`"te\u0078t"`, "alert.fired", "k 1", "alerts audit", "[{Traceparent " + trace + "} {X-Request-Id r1}]",
			[]time.Duration{90 * time.Second, 150 * time.Second}},
		{"null", "nobody.cares", "", "", "[{Traceparent " + trace + "}]", nil},
		{"[]", "", "", "a/b", "[{Traceparent 00-11111111111111111111111111111111-2222222222222222-00}]", []time.Duration{time.Hour}},
		{"-0", "", "", "audit", "[{Traceparent " + trace + "}]", []time.Duration{2 * time.Minute}},
	} {
		m, body := b.load(t, all[n].ID)
		if body != want.body || m.Event != want.event || m.Key != want.key || m.ContentType != "application/json" || m.Hops != 1 ||
			m.Size != len(body) || !m.AcceptedAt.Equal(acceptedAt) {
			t.Errorf("message %d: got %+v with body %q, want %+v", n+1, m, body, want)
		}
		if got := fmt.Sprint(m.Header); got != want.header {
			t.Errorf("message %d: got header %s, want %s", n+1, got, want.header)
		}
		var names []string
		var delays []time.Duration
		for i, to := range m.Recipients {
			names, delays = append(names, to.Destination), append(delays, to.Delay)
			if d := all[n].Deliveries[i]; d.Destination != to.Destination || d.State != "pending" || d.ID != m.ID.Delivery(i).String() {
				t.Errorf("message %d: got delivery %+v in the answer, want that to %s", n+1, d, to.Destination)
			}
		}
		if strings.Join(names, " ") != want.to || !slices.Equal(delays, want.delays) {
			t.Errorf("message %d: got recipients %v after %v, want %s after %v", n+1, names, delays, want.to, want.delays)
		}
	}
	if got := len(b.wakes()); got != 5 {
		t.Errorf("got %d lanes woken, want one for each of the 5 deliveries", got)
	}
}

func TestBatchRefusals(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.MaxBody = 100 })
	if resp, text := b.post(t, "/to/alerts", "first", "Idempotency-Key", "taken"); resp.StatusCode != 202 {
		t.Fatalf("got %d %q, want 202", resp.StatusCode, text)
	}
	stored, woken := b.store.Pending(), len(b.wakes())
	good := `{"to":"alerts","data":1}` + "\n"
	for _, tc := range []struct {
		name, batch string
		status      int
		detail      string
	}{
		{"no JSON", "x\n", 400, "line 1: it is not valid JSON"},
		{"an object that ends early", `{"to":"alerts","data":`, 400, "line 1: it is not valid JSON: it ends early"},
		{"two objects", `{"to":"alerts","data":1}{"to":"alerts","data":1}`, 400, "line 1: something follows"},
		{"an array", "[]\n", 400, "line 1: it is an array"},
		{"an unknown key", `{"to":"alerts","data":1,"dat":2}`, 400, `line 1: "dat": this key is not known`},
		{"a key in capitals", `{"To":"alerts","data":1}`, 400, `"To": this key is not known`},
		{"a key twice", `{"to":"alerts","data":1,"to":"alerts"}`, 400, `duplicate object member name "to"`},
		{"a key twice in data", `{"to":"alerts","data":{"a":1,"a":2}}`, 400, `duplicate object member name "a"`},
		{"bad UTF-8", "{\"to\":\"alerts\",\"data\":\"\xff\"}", 400, "invalid UTF-8"},
		{"half a surrogate pair", `{"to":"alerts","data":"\ud800"}`, 400, "surrogate"},
		{"deep data", `{"to":"alerts","data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}", 400, "exceeded max depth"},
		{"no data", `{"to":"alerts"}`, 400, `"data" is missing`},
		{"no target", `{"data":1}`, 400, `either "to" or "event"`},
		{"two targets", `{"data":1,"to":"alerts","event":"a"}`, 400, `either "to" or "event"`},
		{"an empty target", `{"data":1,"to":""}`, 400, `"to": it is empty`},
		{"a target that is no string", `{"data":1,"to":null}`, 400, `"to": it is null; write a string`},
		{"a bad event", `{"data":1,"event":"a..b"}`, 400, `"event": segment 2`},
		{"an unknown destination", `{"data":1,"to":"alrts"}`, 404, `did you mean "alerts"?`},
		{"an id that is a number", `{"to":"alerts","data":1,"id":7}`, 400, `"id": it is a number; write a string`},
		{"an empty id", `{"to":"alerts","data":1,"id":""}`, 400, `"id": it has 0 bytes`},
		{"a long id", `{"to":"alerts","data":1,"id":"` + strings.Repeat("k", 256) + `"}`, 400, `"id": it has 256 bytes`},
		{"an ordering key that is not ASCII", `{"to":"alerts","data":1,"key":"ü"}`, 400, `"key": it holds`},
		{"a delay that is none", `{"to":"alerts","data":1,"delay":"soon"}`, 400, `"delay": "soon" is no duration`},
		{"a part of a second", `{"to":"alerts","data":1,"delay":1.5}`, 400, `"delay": it is no whole number`},
		{"a negative delay", `{"to":"alerts","data":1,"delay":-1}`, 400, `"delay": it is no whole number`},
		{"a delay that is too long", `{"to":"alerts","data":1,"delay":2592001}`, 400, "more than 30 days"},
		{"a time that is none", `{"to":"alerts","data":1,"deliver_at":"tomorrow"}`, 400, `"deliver_at": "tomorrow" is no time`},
		{"a time that is too far", `{"to":"alerts","data":1,"deliver_at":"2036-01-01T00:00:00Z"}`, 400, "30 days ahead"},
		{"a delay and a time", `{"to":"alerts","data":1,"delay":1,"deliver_at":"2026-12-01T00:00:00Z"}`, 400, "both"},
		{"headers that are no object", `{"to":"alerts","data":1,"headers":[]}`, 400, `"headers": it is an array`},
		{"a header that is no string", `{"to":"alerts","data":1,"headers":{"X-A":1}}`, 400, `"headers": "X-A": it is a number`},
		{"a header twice in two cases", `{"to":"alerts","data":1,"headers":{"X-A":"1","x-a":"2"}}`, 400, "there twice"},
		{"a header name that is none", `{"to":"alerts","data":1,"headers":{"X A":"1"}}`, 400, "not a header name"},
		{"a header with a line break", `{"to":"alerts","data":1,"headers":{"X-A":"1\r\nX-B: 2"}}`, 400, "line break"},
		{"a header that does not travel", `{"to":"alerts","data":1,"headers":{"authorization":"x"}}`, 400, "not sent on"},
		{"data above the limit", `{"to":"alerts","data":"` + strings.Repeat("x", 99) + `"}`, 413, `"data" is larger than 100 bytes`},
		{"a line above the limit", `{"to":"alerts","data":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "it is longer than 65636 bytes"},
		{"a used id with another body", `{"to":"alerts","data":1,"id":"taken"}`, 422, "the same id came before"},
		{"an id used twice with other bodies", `{"to":"alerts","data":1,"id":"k"}` + "\n" + `{"to":"alerts","data":2,"id":"k"}`, 422, "line 2: the same id came before"},
		{"no line", "", 400, "the batch is empty"},
		{"empty lines alone", "\n\r\n  \n", 400, "the batch is empty"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, text := b.post(t, "/batch", tc.batch, "Content-Type", ndjson)
			if resp.StatusCode != tc.status || !strings.Contains(detail(t, text), tc.detail) {
				t.Errorf("got %d %s, want %d saying %q", resp.StatusCode, text, tc.status, tc.detail)
			}
		})
		if strings.Contains(tc.name, "used") || strings.Contains(tc.name, "line") {
			continue
		}
		t.Run(tc.name+" behind good lines", func(t *testing.T) {
			resp, text := b.post(t, "/batch", good+"\n"+strings.Repeat(good, 3)+tc.batch+"\n"+good, "Content-Type", ndjson)
			if got := detail(t, text); resp.StatusCode != tc.status || !strings.HasPrefix(got, "line 6: ") || !strings.HasSuffix(got, "; nothing was accepted") {
				t.Errorf("got %d %s, want %d at line 6", resp.StatusCode, text, tc.status)
			}
		})
	}
	t.Run("a body that breaks off", func(t *testing.T) {
		conn, r := b.dial(t)
		send(t, conn, "POST /batch HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"+good+good)
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := status(t, r); got != 400 {
			t.Errorf("got %d, want 400", got)
		}
	})
	if got := b.store.Pending(); got != stored {
		t.Errorf("got %d deliveries stored, want none but the %d before", got, stored)
	}
	if got := len(b.wakes()); got != woken {
		t.Errorf("got %d lanes woken, want none but the %d before", got, woken)
	}
}

// detail returns what a problem says.
func detail(t testing.TB, text string) string {
	t.Helper()
	var p struct{ Detail string }
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatalf("got %.300q, want a problem", text)
	}
	return p.Detail
}

func TestBatchHeaders(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	for _, tc := range []struct {
		name   string
		header []string
		status int
		detail string
	}{
		{"x-ndjson with a charset", []string{"Content-Type", "application/x-ndjson; charset=utf-8"}, 202, ""},
		{"jsonl", []string{"Content-Type", "application/jsonl"}, 202, ""},
		{"no content type", nil, 202, ""},
		{"Prefer, which is for single messages", []string{"Prefer", "wait=10"}, 202, ""},
		{"a form", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "application/x-ndjson"},
		{"JSON", []string{"Content-Type", "application/json"}, 415, "application/x-ndjson"},
		{"an idempotency key", []string{"Idempotency-Key", "k"}, 400, `"id"`},
		{"an ordering key", []string{"Postern-Key", "k"}, 400, `"key"`},
		{"a delay", []string{"Postern-Delay", "0"}, 400, `"delay"`},
		{"a time", []string{"Postern-Deliver-At", "2026-12-01T00:00:00Z"}, 400, `"deliver_at"`},
		{"a loop of relays", []string{"Postern-Hops", "4"}, 508, "relays"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, text := b.post(t, "/batch", `{"to":"alerts","data":1}`, tc.header...)
			if resp.StatusCode != tc.status || tc.detail != "" && !strings.Contains(detail(t, text), tc.detail) {
				t.Errorf("got %d %s, want %d saying %q", resp.StatusCode, text, tc.status, tc.detail)
			}
		})
	}
}

func TestBatchIsIdempotentByLine(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	_, single := b.post(t, "/to/alerts", `{"n":1}`, "Idempotency-Key", "one", "Content-Type", "application/json", "Postern-Key", "k")
	batch := `{"to":"alerts","data":{"n":1},"id":"one","key":"k","delay":5}` + "\n" + `{"event":"alert.fired","data":2,"id":"two"}`
	resp, text := b.post(t, "/batch", batch, "Content-Type", ndjson)
	all := parseAll(t, text)
	if resp.StatusCode != 202 || len(all) != 2 || all[0].ID != parse(t, single).ID || resp.Header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("got %d %s, want 202 with the message of the single post first, not marked", resp.StatusCode, text)
	}
	if again, repeated := b.post(t, "/batch", batch, "Content-Type", ndjson); again.StatusCode != 202 || repeated != text ||
		again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("got %d %s, want the first answer, marked", again.StatusCode, repeated)
	}
	if got := b.store.Pending(); got != 3 {
		t.Errorf("got %d deliveries, want 3", got)
	}
	if got := len(b.wakes()); got != 3 {
		t.Errorf("got %d lanes woken, want 3: none for what was there", got)
	}
	twice := `{"to":"alerts","data":3,"id":"three"}` + "\n" + `{"to":"alerts","data":3,"id":"three"}`
	_, text = b.post(t, "/batch", twice, "Content-Type", ndjson)
	if all := parseAll(t, text); len(all) != 2 || all[0].ID != all[1].ID {
		t.Errorf("got %s, want one message for the two lines", text)
	}
}

func TestBatchStoreErrors(t *testing.T) {
	for _, tc := range []struct {
		name   string
		err    error
		status int
		detail string
	}{
		{"a full backlog concerns the whole", fmt.Errorf("accept: %w", store.ErrBacklog), 429, "too many deliveries"},
		{"no space", store.ErrNoSpace, 507, "disk space"},
		{"a conflict names its line", fmt.Errorf("accept: %w", &store.PostError{Index: 1, Err: store.ErrKeyConflict}), 422, "line 3: the same id came before"},
		{"a message that is too large names its line", &store.PostError{Index: 0, Err: store.ErrTooLarge}, 413, "line 1: "},
		{"a post that is none", &store.PostError{Index: 9, Err: store.ErrTooLarge}, 413, "the message is larger"},
		{"anything else is not told", errors.New("secret inside"), 500, "could not be stored"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.Acceptor = &streaming{err: tc.err} })
			resp, text := b.post(t, "/batch", `{"to":"alerts","data":1}`+"\n\n"+`{"to":"alerts","data":2,"id":"k"}`, "Content-Type", ndjson)
			if resp.StatusCode != tc.status || !strings.Contains(detail(t, text), tc.detail) || strings.Contains(text, "inside") {
				t.Errorf("got %d %s, want %d saying %q", resp.StatusCode, text, tc.status, tc.detail)
			}
			if got := b.wakes(); len(got) != 0 {
				t.Errorf("got woken %v, want nobody", got)
			}
		})
	}
}

func TestBatchOfStoreThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		woken := map[string][]store.Cursor{}
		h := &ingest.Handler{
			Acceptor: &streaming{untilDone: true, err: context.DeadlineExceeded},
			Router:   routes{known: map[string]time.Duration{"alerts": 0, "audit": time.Minute}},
			Wake:     func(name string, c store.Cursor) { woken[name] = append(woken[name], c) },
			Now:      func() time.Time { return acceptedAt },
		}
		batch := `{"to":"alerts","data":1,"delay":20}` + "\n" + `{"to":"alerts","data":1,"delay":10}` + "\n" +
			`{"to":"audit","data":1}` + "\n" + `{"to":"alerts","data":1,"delay":15}`
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/batch", strings.NewReader(batch))
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		w := newRecorder()
		if h.ServeHTTP(w, r); w.status != 500 || time.Since(begun) != 90*time.Second {
			t.Errorf("got %d after %v, want 500 after 90 s", w.status, time.Since(begun))
		}
		// They may have been stored: each lane concerned hears of the whole stretch.
		for name, want := range map[string][]time.Duration{"alerts": {10 * time.Second, 20 * time.Second}, "audit": {time.Minute, time.Minute}} {
			var got []time.Duration
			for _, c := range woken[name] {
				got = append(got, c.DueAt.Sub(acceptedAt))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: got woken at %v, want %v", name, got, want)
			}
		}
	})
}
