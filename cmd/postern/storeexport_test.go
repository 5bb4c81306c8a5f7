package main

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
)

// exportedOnce is an Exporter of one message.
type exportedOnce struct{ store.Exported }

func (e exportedOnce) Export(context.Context, store.Filter, func(error)) iter.Seq2[store.Exported, error] {
	return func(yield func(store.Exported, error) bool) { yield(e.Exported, nil) }
}

// TestExportNames compares the names of an export with those of the API: what is named in both is the same, and what
// an export has besides is listed here, so that a new name is chosen with a look at the API.
func TestExportNames(t *testing.T) {
	id, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	odd := "\xff"
	m := store.Message{
		ID: id, Event: odd, ContentType: odd, AcceptedAt: at, Size: 9, Reduced: true, Hops: 1, Key: odd, Path: odd,
		Header: []store.Field{{Name: odd, Value: odd}}, Idempotency: &store.Idempotency{},
		Recipients: []store.Recipient{{Destination: odd, Delay: 1, Order: odd}},
	}
	d := m.Delivery(0)
	d.Order, d.BegunAt, d.EndedAt, d.Reason = "", at, at, odd
	d.Last = store.Outcome{At: at, Class: store.ClassStatus, Status: 500, Error: odd}
	a := store.Attempt{
		Delivery: d.ID, Round: 1, Number: 1, StartedAt: at, Class: store.ClassStatus, Status: 500, Error: odd, Peer: odd, CertExpires: at, RetryHint: 1,
		Request: store.Sent{Method: odd, URL: odd, Header: m.Header, Body: []byte(odd)}, Header: http.Header{odd: {odd}}, Body: []byte(odd),
	}
	x := store.Exported{Message: m, Body: []byte(odd), Deliveries: []store.ExportedDelivery{{Delivery: d, History: []store.Attempt{a}, Omitted: 1}}}
	var out bytes.Buffer
	if _, err := store.WriteExport(t.Context(), &out, exportedOnce{x}, store.ExportOptions{At: at, Filter: store.Filter{Destination: "other"}}); err != nil {
		t.Fatal(err)
	}
	var message map[string]any
	if err := json.Unmarshal(bytes.Split(out.Bytes(), []byte("\n"))[1], &message); err != nil {
		t.Fatal(err)
	}
	delivery := message["deliveries"].([]any)[0].(map[string]any)
	attempt := delivery["history"].([]any)[0].(map[string]any)
	for _, c := range []struct {
		what string
		got  any
		api  any
		own  []string
	}{
		{"message", message, admin.Message{}, []string{"hops", "idempotency", "body_reduced"}},
		{"header", message["headers"].([]any)[0], admin.Header{}, nil},
		{"delivery", delivery, admin.DeliveryDetail{}, []string{"begun_at", "delay_seconds", "order", "left_line", "left_out", "history_omitted"}},
		{"outcome", delivery["last"], admin.Outcome{}, nil},
		{"attempt", attempt, admin.Attempt{}, nil},
		{"request", attempt["request"], admin.Request{}, nil},
		{"response", attempt["response"], admin.Response{}, nil},
		{"timing", attempt["timing"], admin.Timing{}, nil},
	} {
		known := make(map[string]bool)
		jsonNames(reflect.TypeOf(c.api), known)
		var own []string
		for _, name := range slices.Sorted(maps.Keys(c.got.(map[string]any))) {
			if !known[strings.TrimSuffix(name, "_base64")] && !slices.Contains(own, strings.TrimSuffix(name, "_base64")) {
				own = append(own, strings.TrimSuffix(name, "_base64"))
			}
		}
		slices.Sort(c.own)
		if !slices.Equal(own, c.own) {
			t.Errorf("names of a %s that the API does not have: got %q, want %q", c.what, own, c.own)
		}
	}
}

// jsonNames adds the names of a struct's fields, those of embedded ones too.
func jsonNames(typ reflect.Type, names map[string]bool) {
	for n := range typ.NumField() {
		f := typ.Field(n)
		if f.Anonymous {
			jsonNames(f.Type, names)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names[name] = true
	}
}

func TestHarmlessLines(t *testing.T) {
	t.Run("what a terminal might obey is escaped, wherever the pieces are cut", func(t *testing.T) {
		const in, want = "{\"a\":\"x\u009b31m\u202e\u00e9\"}\n{}\n", "{\"a\":\"x\\u009b31m\\u202e\u00e9\"}\n{}\n"
		for n := range len(in) {
			var out bytes.Buffer
			h := &harmlessLines{out: &out}
			for _, piece := range []string{in[:n], in[n:]} {
				if got, err := h.Write([]byte(piece)); err != nil || got != len(piece) {
					t.Fatalf("Write: %d, error %v", got, err)
				}
			}
			if out.String() != want {
				t.Errorf("cut at %d: got %q, want %q", n, &out, want)
			}
		}
	})
}
