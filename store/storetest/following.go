package storetest

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// follow makes a message for some destinations that is to be accepted with a record.
func follow(tb testing.TB, body string, destinations ...string) store.Post {
	tb.Helper()
	return store.Post{Message: message(tb, destinations...), Body: []byte(body)}
}

func testRecordAndAccept(t *testing.T, open Open) {
	failed := func(t *testing.T, s store.Store, p store.Post) (store.Delivery, store.Recorded) {
		t.Helper()
		d := due(t, s, "alerts", store.Cursor{}, 1)[0]
		after, a := end(d, store.Failed, start.Add(time.Second))
		got, err := s.RecordAndAccept(t.Context(), d, after, a, p)
		if err != nil {
			t.Fatalf("RecordAndAccept: %v", err)
		}
		stored(t, s, "the record", after)
		return after, got
	}
	t.Run("the record and the post are there together", func(t *testing.T) {
		s := open(t, Options{})
		accept(t, s, message(t, "alerts"), "x")
		p := follow(t, "told", "chat", "pager")
		p.Message.Key, p.Message.Recipients[0].Delay = "alerts", time.Minute
		d, got := failed(t, s, p)
		p.Message.Size = 4
		equal(t, "recorded", got, store.Recorded{Accepted: store.Accepted{Message: p.Message.Brief()}})
		m, body, err := s.Load(t.Context(), p.Message.ID)
		if err != nil || string(body) != "told" {
			t.Fatalf("Load: %q, error %v; want the post", body, err)
		}
		equal(t, "message", m, p.Message)
		equal(t, "due for chat", due(t, s, "chat", store.Cursor{}, 2), []store.Delivery{m.Delivery(0)})
		equal(t, "due for pager", due(t, s, "pager", store.Cursor{}, 2), []store.Delivery{m.Delivery(1)})
		equal(t, "due for alerts", len(due(t, s, "alerts", store.Cursor{}, 2)), 0)
		equal(t, "pending", s.Pending(), int64(2))
		if all, err := s.Attempts(t.Context(), d.ID, 2); err != nil || len(all) != 1 {
			t.Errorf("Attempts: got %d, error %v; want 1", len(all), err)
		}
		equal(t, "listed", len(listAll(t, s, store.Filter{Event: "alert.fired"}, 10)), 3)
	})
	t.Run("it may follow a retry, and a post may be for nobody", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "x").Delivery(0)
		after, a := retry(d, start, start.Add(time.Minute))
		p := follow(t, "")
		got, err := s.RecordAndAccept(t.Context(), d, after, a, p)
		if err != nil || got.Refused != nil || got.Accepted.Message.ID != p.Message.ID {
			t.Errorf("got %+v, %v; want it accepted", got, err)
		}
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 2), []store.Delivery{after})
		equal(t, "pending", s.Pending(), int64(1))
	})
	t.Run("the place that the record frees is the post's", func(t *testing.T) {
		s := open(t, Options{MaxPending: 1})
		accept(t, s, message(t, "alerts"), "")
		if _, got := failed(t, s, follow(t, "", "chat")); got.Refused != nil {
			t.Errorf("got %v, want it accepted", got.Refused)
		}
		equal(t, "pending", s.Pending(), int64(1))
	})
	for name, tc := range map[string]struct {
		post func(t *testing.T) store.Post
		want error // nil for any
	}{
		"a full backlog": {func(t *testing.T) store.Post { return follow(t, "", "chat", "pager") }, store.ErrBacklog},
		"a body that is too long": {
			func(t *testing.T) store.Post { return follow(t, strings.Repeat("x", store.MaxFollowUp+1), "chat") }, store.ErrTooLarge,
		},
		"a key of another post": {func(t *testing.T) store.Post {
			p := follow(t, "", "chat")
			p.Message.Idempotency = &store.Idempotency{Key: [32]byte{1}, Content: [32]byte{2}}
			return p
		}, store.ErrKeyConflict},
		"a message without an id": {func(t *testing.T) store.Post {
			p := follow(t, "", "chat")
			p.Message.ID = store.MessageID{}
			return p
		}, nil},
	} {
		t.Run(name+" refuses the post alone", func(t *testing.T) {
			s := open(t, Options{MaxPending: 1})
			known := message(t)
			known.Idempotency = &store.Idempotency{Key: [32]byte{1}, Content: [32]byte{1}}
			accept(t, s, known, "")
			accept(t, s, message(t, "alerts"), "")
			p := tc.post(t)
			_, got := failed(t, s, p)
			if got.Refused == nil || tc.want != nil && !errors.Is(got.Refused, tc.want) {
				t.Errorf("got refused for %v, want %v", got.Refused, tc.want)
			}
			got.Refused = nil
			equal(t, "all but why", got, store.Recorded{})
			if _, _, err := s.Load(t.Context(), p.Message.ID); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("Load: got error %v, want ErrNotFound", err)
			}
			equal(t, "pending", s.Pending(), int64(0))
		})
	}
	t.Run("a key that is known means the earlier post", func(t *testing.T) {
		s := open(t, Options{})
		known := message(t, "chat")
		known.Idempotency = &store.Idempotency{Key: [32]byte{1}, Content: [32]byte{1}}
		earlier := accept(t, s, known, "told before")
		accept(t, s, message(t, "alerts"), "")
		p := follow(t, "told", "chat")
		p.Message.Idempotency = known.Idempotency
		_, got := failed(t, s, p)
		equal(t, "recorded", got, store.Recorded{Accepted: store.Accepted{Message: earlier.Brief(), Existing: true}})
		equal(t, "pending", s.Pending(), int64(1))
	})
	t.Run("both may be as large as they can be", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "").Delivery(0)
		after, a := end(d, store.Failed, start)
		a.Body = []byte(strings.Repeat("y", 500<<10))
		p := follow(t, strings.Repeat("x", store.MaxFollowUp), "chat", "pager", "mail")
		got, err := s.RecordAndAccept(t.Context(), d, after, a, p)
		if err != nil || got.Refused != nil {
			t.Fatalf("got %v, %v; want both written", err, got.Refused)
		}
		clear(p.Body) // the engine keeps nothing of it
		if _, body, err := s.Load(t.Context(), p.Message.ID); err != nil || string(body) != strings.Repeat("x", store.MaxFollowUp) {
			t.Errorf("Load: %d bytes, error %v; want the post", len(body), err)
		}
	})
	t.Run("without the record there is no post", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "").Delivery(0)
		after, a := end(d, store.Failed, start)
		wrong := a
		wrong.Number = -1
		stale := d
		stale.Made++
		for _, tc := range []struct {
			before store.Delivery
			a      store.Attempt
			want   error
		}{{d, wrong, store.ErrInvalid}, {stale, a, store.ErrStale}} {
			p := follow(t, "told", "chat")
			if _, err := s.RecordAndAccept(t.Context(), tc.before, after, tc.a, p); !errors.Is(err, tc.want) {
				t.Errorf("got error %v, want %v", err, tc.want)
			}
			if _, _, err := s.Load(t.Context(), p.Message.ID); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("Load: got error %v, want ErrNotFound", err)
			}
		}
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 2), []store.Delivery{d})
		equal(t, "pending", s.Pending(), int64(1))
	})
	t.Run("a line goes on, and the post stands at its end", func(t *testing.T) {
		s := open(t, Options{})
		inLine := func(m store.Message) store.Message {
			m.Recipients[0].Order = "k"
			return m
		}
		accept(t, s, inLine(message(t, "alerts")), "")
		second := accept(t, s, inLine(message(t, "alerts")), "").Delivery(0)
		p := follow(t, "", "alerts")
		p.Message = inLine(p.Message)
		_, got := failed(t, s, p)
		equal(t, "released", got.Released, second)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 3), []store.Delivery{second})
		after, a := end(second, store.Delivered, start)
		record(t, s, second, after, a)
		equal(t, "due then", due(t, s, "alerts", store.Cursor{}, 3)[0].ID, p.Message.ID.Delivery(0))
	})
	t.Run("of recorders that race one has its post accepted", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "").Delivery(0)
		after, a := end(d, store.Failed, start)
		posts := make([]store.Post, 16)
		for i := range posts {
			posts[i] = follow(t, "told", "chat")
		}
		var all sync.WaitGroup
		errs := make([]error, len(posts))
		for i := range posts {
			all.Go(func() { _, errs[i] = s.RecordAndAccept(t.Context(), d, after, a, posts[i]) })
		}
		all.Wait()
		told := due(t, s, "chat", store.Cursor{}, 100)
		for i, err := range errs {
			if err == nil && (len(told) != 1 || told[0].ID.Message() != posts[i].Message.ID) {
				t.Errorf("got %+v, want the post of the one that won", told)
			} else if err != nil && !errors.Is(err, store.ErrStale) {
				t.Errorf("got error %v, want ErrStale", err)
			}
		}
		equal(t, "pending", s.Pending(), int64(1))
	})
}
