package badgerstore

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func numbered(n int) (id store.MessageID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

func TestRecent(t *testing.T) {
	t.Run("a record is as the latest group has left it", func(t *testing.T) {
		r := newRecent()
		r.update([]changedMessage{{id: numbered(1), content: []byte("first")}, {id: numbered(2), content: []byte("other")}})
		r.update([]changedMessage{{id: numbered(1), content: []byte("second")}, {id: numbered(2)}})
		if got := r.get(numbered(1)).content; string(got) != "second" {
			t.Errorf("got %q, want the second", got)
		}
		if got := r.get(numbered(2)).content; got != nil {
			t.Errorf("got %q for what was deleted", got)
		}
	})
	t.Run("what has changed during a reading ahead is not taken from its older snapshot", func(t *testing.T) {
		r := newRecent()
		p := r.begin()
		r.update([]changedMessage{{id: numbered(1), content: []byte("new")}, {id: numbered(2)}})
		r.end(p, []changedMessage{{id: numbered(1), content: []byte("old")}, {id: numbered(2), content: []byte("old")}, {id: numbered(3), content: []byte("same")}})
		for n, want := range map[int]string{1: "new", 2: "", 3: "same"} {
			if got := r.get(numbered(n)).content; string(got) != want {
				t.Errorf("message %d: got %q, want %q", n, got, want)
			}
		}
		if len(r.previews) > 0 {
			t.Error("a reading that has ended is still followed")
		}
	})
	t.Run("it holds no more than two generations, and the latest always", func(t *testing.T) {
		r := newRecent()
		record := make([]byte, recentRecord)
		for n := range 10 * recentSize / recentRecord {
			r.update([]changedMessage{{id: numbered(n), content: record}})
			if r.get(numbered(n)).content == nil {
				t.Fatalf("record %d is not there", n)
			}
		}
		if got, most := (len(r.young)+len(r.old))*recentRecord, 2*recentSize; got > most {
			t.Errorf("got %d bytes, want at most %d", got, most)
		}
	})
	t.Run("a long record is not kept, and takes the place of none", func(t *testing.T) {
		r := newRecent()
		r.update([]changedMessage{{id: numbered(1), content: []byte("short")}})
		r.update([]changedMessage{{id: numbered(1), content: make([]byte, recentRecord+1)}})
		if got := r.get(numbered(1)).content; got != nil {
			t.Errorf("got %d bytes", len(got))
		}
	})
}

// What Due gives out is at hand for Load, read ahead by the way of the database.
func TestReadAhead(t *testing.T) {
	ctx := t.Context()
	s := mustOpen(t, Options{Path: t.TempDir()})
	const waiting = 20
	bodies := make(map[store.MessageID][]byte)
	for n := range waiting {
		m := newMessage(t, "alerts")
		body := bytes.Repeat([]byte{byte(n)}, 100+n)
		if n == 7 {
			body = make([]byte, 100<<10) // in chunks
		}
		if _, _, err := s.Accept(ctx, m, body); err != nil {
			t.Fatal(err)
		}
		bodies[m.ID] = body
	}
	s.recent = newRecent() // as after a restart
	due, err := s.Due(ctx, "alerts", store.Cursor{}, 100)
	if err != nil || len(due) != waiting {
		t.Fatalf("got %d deliveries, %v", len(due), err)
	}
	held := 0
	for id, body := range bodies {
		m, got, ok := s.kept(id)
		if ok {
			held++
		} else if len(body) < 1<<10 {
			t.Errorf("%s is not at hand", id)
			continue
		}
		if ok && (m.ID != id || !bytes.Equal(got, body)) {
			t.Errorf("%s: got %d bytes, want %d", id, len(got), len(body))
		}
		if _, got, err := s.Load(ctx, id); err != nil || !bytes.Equal(got, body) {
			t.Errorf("load %s: got %d bytes, %v; want %d", id, len(got), err, len(body))
		}
	}
	if held != waiting-1 {
		t.Errorf("%d messages are at hand, want all but the one in chunks", held)
	}
	t.Run("the caller owns the body", func(t *testing.T) {
		id := due[0].ID.Message()
		_, body, err := s.Load(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		clear(body)
		if _, again, err := s.Load(ctx, id); err != nil || !bytes.Equal(again, bodies[id]) {
			t.Errorf("got %x, %v; want it unchanged", again, err)
		}
	})
	t.Run("what is not due yet is not read ahead", func(t *testing.T) {
		later := []store.Delivery{}
		for _, d := range due {
			d.DueAt = s.now().Add(time.Hour)
			later = append(later, d)
		}
		if got := newRecent().missing(later, s.now()); len(got) > 0 {
			t.Errorf("got %d messages", len(got))
		}
	})
}

// A message of a batch is at hand as soon as it is in the queue, and not before.
func TestReadAheadOfABatch(t *testing.T) {
	ctx := t.Context()
	s := mustOpen(t, Options{Path: t.TempDir()})
	var ids []store.MessageID
	_, err := s.AcceptAll(ctx, func(yield func(store.Post, error) bool) {
		for range 20 {
			m := newMessage(t, "alerts")
			ids = append(ids, m.ID)
			if !yield(store.Post{Message: m, Body: []byte("body")}, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	atHand := func() (n int) {
		for _, id := range ids {
			if _, body, ok := s.kept(id); ok && string(body) == "body" {
				n++
			}
		}
		return n
	}
	if got := atHand(); got != 0 {
		t.Errorf("%d messages are at hand that nobody has seen in the queue", got)
	}
	for _, when := range []string{"just accepted", "read ahead"} {
		if _, err := s.Due(ctx, "alerts", store.Cursor{}, 100); err != nil {
			t.Fatal(err)
		}
		if got := atHand(); got != len(ids) {
			t.Errorf("%s: %d messages are at hand, want %d", when, got, len(ids))
		}
		s.recent = newRecent() // as after a restart
	}
}
