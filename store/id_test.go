package store_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/postern-relay/postern/store"
)

func newID(tb testing.TB) store.MessageID {
	tb.Helper()
	id, err := store.NewMessageID()
	if err != nil {
		tb.Fatalf("NewMessageID: %v", err)
	}
	return id
}

func TestNewMessageID(t *testing.T) {
	t.Run("ids of one process ascend", func(t *testing.T) {
		last := newID(t)
		for range 10_000 {
			id := newID(t)
			if bytes.Compare(id[:], last[:]) <= 0 {
				t.Fatalf("got %s after %s, want a larger one", id, last)
			}
			last = id
		}
	})
	t.Run("an id is a UUID of version 7 without dots, and reads back", func(t *testing.T) {
		id := newID(t)
		text := id.String()
		if !strings.HasPrefix(text, "msg_") || len(text) != 4+32 || text[4+12] != '7' || strings.Contains(text, ".") {
			t.Errorf("got %q, want msg_ and 32 digits of a UUIDv7", text)
		}
		if back, err := store.ParseMessageID(text); err != nil || back != id {
			t.Errorf("ParseMessageID: got %s, error %v; want %s", back, err, id)
		}
	})
}

func TestDeliveryID(t *testing.T) {
	id := newID(t)
	t.Run("each number leads back to its message and place", func(t *testing.T) {
		seen := make(map[store.DeliveryID]bool)
		for n := range store.MaxDeliveries {
			d := id.Delivery(n)
			if d.Message() != id || d.Index() != n || seen[d] {
				t.Fatalf("delivery %d: got message %s, place %d, seen %t", n, d.Message(), d.Index(), seen[d])
			}
			seen[d] = true
			if back, err := store.ParseDeliveryID(d.String()); err != nil || back != d {
				t.Fatalf("ParseDeliveryID: got %s, error %v; want %s", back, err, d)
			}
		}
	})
	for _, n := range []int{-1, store.MaxDeliveries} {
		t.Run("a number out of range panics", func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Errorf("Delivery(%d) returned, want a panic", n)
				}
			}()
			id.Delivery(n)
		})
	}
}

func TestParse(t *testing.T) {
	zero, digits := strings.Repeat("0", 32), "0199e3a1b2c37def8123456789abc"
	for text, want := range map[string]struct{ message, delivery bool }{
		"msg_" + digits + "000":        {message: true},
		"msg_" + digits + "001":        {},
		"dlv_" + digits + "000":        {},
		"dlv_" + digits + "001":        {delivery: true},
		"dlv_" + digits + "fff":        {delivery: true},
		"msg_" + zero:                  {message: true},
		"dlv_" + zero:                  {},
		"":                             {},
		"msg_":                         {},
		"msg_" + zero[1:]:              {},
		"msg_" + zero + "0":            {},
		"MSG_" + zero:                  {},
		zero:                           {},
		"msg_" + zero[1:] + "g":        {},
		"msg_" + zero[2:] + "\u00e9":   {},
		"dlv_" + digits + "00\x00":     {},
		"msg_ " + zero[1:]:             {},
		"msg_" + zero + "\n":           {},
		"msg_" + strings.ToUpper("ab"): {},
	} {
		_, err := store.ParseMessageID(text)
		if (err == nil) != want.message || err != nil && !errors.Is(err, store.ErrBadID) {
			t.Errorf("ParseMessageID(%q): got error %v, want it good: %t", text, err, want.message)
		}
		_, err = store.ParseDeliveryID(text)
		if (err == nil) != want.delivery || err != nil && !errors.Is(err, store.ErrBadID) {
			t.Errorf("ParseDeliveryID(%q): got error %v, want it good: %t", text, err, want.delivery)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("msg_0199e3a1b2c37def8123456789abc000")
	f.Add("dlv_0199e3a1b2c37def8123456789abc001")
	f.Add("dlv_0199e3a1b2c37def8123456789abcFFF")
	f.Add("msg_")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := store.ParseMessageID(text); err == nil && id.String() != strings.ToLower(text) {
			t.Errorf("ParseMessageID(%q): reads back as %q", text, id)
		}
		if id, err := store.ParseDeliveryID(text); err == nil {
			if id.String() != strings.ToLower(text) || id.Message().Delivery(id.Index()) != id {
				t.Errorf("ParseDeliveryID(%q): reads back as %q", text, id)
			}
		}
	})
}
