package relay

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// acceptBody posts a body to a path, and returns the message.
func (r *rig) acceptBody(t *testing.T, path, body string) store.MessageID {
	t.Helper()
	status, text := r.post(t, path, body, "Content-Type", "application/json")
	var answer struct{ ID string }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status/100 != 2 {
		t.Fatalf("post to %s: got %d %s", path, status, text)
	}
	id, err := store.ParseMessageID(answer.ID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (r *rig) message(t *testing.T, id store.MessageID) (store.Message, string) {
	t.Helper()
	m, body, err := r.Store.Load(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return m, string(body)
}

func TestBodiesAreReducedAfterTheLastDelivery(t *testing.T) {
	const body = `{"card":{"number":"4111","name":"A"},"n":1}`
	for _, tc := range []struct {
		name, keepA, keepB, body string
		want                     string // what is kept
		reduced                  bool
	}{
		{"keep.body: false removes the body", "{body: false}", "{}", body, "", true},
		{"also if another destination ends last", "{}", "{body: false}", body, "", true},
		{"keep.redact masks values", "{redact: [$.card.number]}", "{}", body, `{"card":{"number":"***","name":"A"},"n":1}`, true},
		{"of all destinations together", "{redact: [$.card.number]}", "{redact: [$.n]}", body, `{"card":{"number":"***","name":"A"},"n":"***"}`, true},
		{"what holds nothing of it stays as it was posted", "{redact: [$.card.number]}", "{}", `{"n":1}`, `{"n":1}`, false},
		{"an empty body stays as it was posted", "{body: false}", "{}", "", "", false},
		{"all is kept unless something is said", "{}", "{}", body, body, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, `destinations:
  a: {url: "https://a.test/", events: [x], keep: `+tc.keepA+`}
  b: {url: "https://b.test/", events: [x], keep: `+tc.keepB+`}
`)
			r.far.hang("b.test")
			id := r.acceptBody(t, "/events/x", tc.body)
			first, last := id.Delivery(0), id.Delivery(1)
			if r.delivery(t, first).Destination != "a" {
				first, last = last, first
			}
			r.awaitState(t, first, store.Delivered)
			if m, got := r.message(t, id); m.Reduced || got != tc.body {
				t.Errorf("got %q while a delivery is pending, want all of it", got)
			}
			r.far.open()
			r.awaitState(t, last, store.Delivered)
			r.stop() // what follows the end of a delivery is over then
			if m, got := r.message(t, id); m.Reduced != tc.reduced || got != tc.want || m.Size != len(tc.body) {
				t.Errorf("got %q, reduced %t, want %q, %t", got, m.Reduced, tc.want, tc.reduced)
			}
		})
	}
}

func TestReducedMessagesAreNotSent(t *testing.T) {
	r := newRig(t, `destinations: {a: {url: "https://a.test/", keep: {body: false}}}`)
	id := r.acceptBody(t, "/to/a", `{"n":1}`)
	until(t, "the message is reduced", func() bool { m, _ := r.message(t, id); return m.Reduced })
	client := admin.Client{Address: r.backAddr()}
	_, err := client.Replay(t.Context(), id.Delivery(0).String())
	if refusal, ok := errors.AsType[*admin.Refusal](err); !ok || refusal.Status != http.StatusGone {
		t.Errorf("got %v for a replay, want 410", err)
	}
	// One that was asked for before the message was reduced.
	if _, err := (api{steering{r.Relay}}).Replay(t.Context(), id.Delivery(0)); err != nil {
		t.Fatal(err)
	}
	r.awaitState(t, id.Delivery(0), store.Failed)
	d := r.delivery(t, id.Delivery(0))
	if d.Round != 2 || d.Last.Class != store.ClassRender || !strings.Contains(d.Reason, "the body was removed from the history (keep)") {
		t.Errorf("got %+v, want that there is nothing to send", d)
	}
	if n := len(r.far.of("a.test")); n != 1 {
		t.Errorf("got %d requests, want the first only", n)
	}
	_, err = client.RenderDelivery(t.Context(), "a", id.Delivery(0).String())
	if refusal, ok := errors.AsType[*admin.Refusal](err); !ok || refusal.Status != http.StatusGone {
		t.Errorf("got %v, want 410", err)
	}
}

func TestCanceledMessagesAreReduced(t *testing.T) {
	r := newRig(t, `destinations: {a: {url: "https://a.test/", keep: {body: false}}}`)
	if _, err := (admin.Client{Address: r.backAddr()}).Pause(t.Context(), "a", ""); err != nil {
		t.Fatal(err)
	}
	id := r.acceptBody(t, "/to/a", `{"n":1}`)
	if _, err := (admin.Client{Address: r.backAddr()}).Cancel(t.Context(), id.Delivery(0).String(), ""); err != nil {
		t.Fatal(err)
	}
	if m, body := r.message(t, id); !m.Reduced || body != "" {
		t.Errorf("got %q, want nothing left of what was canceled", body)
	}
}

// failingReduce cannot reduce.
type failingReduce struct{ *storetest.Memory }

func (failingReduce) Reduce(context.Context, store.MessageID, []byte) error {
	return errors.New("disk on fire")
}

func TestAFailedReductionIsLogged(t *testing.T) {
	r := newRig(t, `destinations: {a: {url: "https://a.test/", keep: {body: false}}}`, func(r *rig) {
		r.Store = failingReduce{r.memory}
	})
	id := r.acceptBody(t, "/to/a", `{"n":1}`)
	r.awaitState(t, id.Delivery(0), store.Delivered)
	r.stop()
	if n := r.logs.FilterMessage("message not reduced").Len(); n != 1 {
		t.Errorf("got %d lines in the log, want one", n)
	}
}
