package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// sequence yields posts, each body in the same buffer, and then err unless that is nil.
func sequence(posts []store.Post, err error) iter.Seq2[store.Post, error] {
	return func(yield func(store.Post, error) bool) {
		var buffer []byte
		for _, p := range posts {
			buffer = append(buffer[:0], p.Body...)
			p.Body = buffer
			if !yield(p, nil) {
				return
			}
			clear(buffer)
		}
		if err != nil {
			yield(store.Post{}, err)
		}
	}
}

func acceptAll(tb testing.TB, s store.Store, posts []store.Post) []store.Accepted {
	tb.Helper()
	accepted, err := s.AcceptAll(tb.Context(), sequence(posts, nil))
	if err != nil {
		tb.Fatalf("AcceptAll: %v", err)
	}
	if len(accepted) != len(posts) {
		tb.Fatalf("AcceptAll: got %d, want %d", len(accepted), len(posts))
	}
	return accepted
}

// posts makes n messages with bodies of some size, which differ.
func posts(tb testing.TB, n, size int, destinations ...string) []store.Post {
	tb.Helper()
	all := make([]store.Post, n)
	for i := range all {
		body := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, size/2)
		all[i] = store.Post{Message: message(tb, destinations...), Body: body}
	}
	return all
}

// gone wants nothing of the posts to be there.
func gone(tb testing.TB, s store.Store, posts []store.Post) {
	tb.Helper()
	for i, p := range posts {
		if _, _, err := s.Load(tb.Context(), p.Message.ID); !errors.Is(err, store.ErrNotFound) {
			tb.Errorf("post %d: Load: got error %v, want ErrNotFound", i, err)
		}
		if _, err := s.Delivery(tb.Context(), p.Message.ID.Delivery(0)); !errors.Is(err, store.ErrNotFound) {
			tb.Errorf("post %d: Delivery: got error %v, want ErrNotFound", i, err)
		}
	}
	equal(tb, "pending", s.Pending(), int64(0))
	names, err := s.PendingDestinations(tb.Context())
	if err != nil || len(names) != 0 {
		tb.Errorf("PendingDestinations: %q, error %v; want none", names, err)
	}
	equal(tb, "deleted by a sweep", sweepAll(tb, s, start.AddDate(1, 0, 0), 100), 0)
}

func testAcceptAll(t *testing.T, open Open) {
	for name, c := range map[string]struct{ n, size int }{
		"few":  {3, 10},
		"many": {400, 10_000},
		"long": {3, 3 << 20},
		"none": {},
	} {
		t.Run(name+" posts are all accepted, in their order", func(t *testing.T) {
			s := open(t, Options{})
			all := posts(t, c.n, c.size, "alerts", "audit")
			for i := range all {
				all[i].Message.Recipients[0].Order = fmt.Sprint(i % 3)
				all[i].Message.Header, all[i].Message.Path = []store.Field{{Name: "X-A", Value: fmt.Sprint(i)}}, "/a?b"
			}
			var heads []store.Delivery
			for i, a := range acceptAll(t, s, all) {
				want := all[i].Message
				want.Size = len(all[i].Body)
				if a.Existing {
					t.Errorf("post %d: existing, want it new", i)
				}
				equal(t, "accepted", a.Message, want.Brief())
				m, body, err := s.Load(t.Context(), want.ID)
				if err != nil || !bytes.Equal(body, all[i].Body) {
					t.Fatalf("post %d: Load: %d bytes, error %v; want the %d bytes of the body", i, len(body), err, len(all[i].Body))
				}
				equal(t, "loaded", m, want)
				if i < 3 {
					heads = append(heads, want.Delivery(0))
				}
			}
			equal(t, "pending", s.Pending(), int64(2*c.n))
			equal(t, "heads", due(t, s, "alerts", store.Cursor{}, 10), heads)
			equal(t, "without lines", len(due(t, s, "audit", store.Cursor{}, 1000)), c.n)
			for i, d := range heads {
				if i+3 < c.n {
					equal(t, "released", finish(t, s, d, store.Delivered), all[i+3].Message.Delivery(0))
				}
			}
		})
	}
	t.Run("a message for nobody goes after its acceptance", func(t *testing.T) {
		s := open(t, Options{})
		acceptAll(t, s, posts(t, 2, 10))
		equal(t, "deleted", sweepAll(t, s, start.Add(time.Millisecond), 10), 2)
	})
	ended := errors.New("line 7 is no JSON")
	for name, size := range map[string]int{"small": 10, "large": 700_000} {
		t.Run("an error between "+name+" posts is returned as it is, and none is accepted", func(t *testing.T) {
			s := open(t, Options{})
			all := posts(t, 5, size, "alerts")
			if _, err := s.AcceptAll(t.Context(), sequence(all, ended)); !errors.Is(err, ended) || err.Error() != ended.Error() {
				t.Errorf("got error %v, want %v", err, ended)
			}
			gone(t, s, all)
		})
		t.Run("a post that cannot be kept is named, and none of the "+name+" is accepted", func(t *testing.T) {
			s := open(t, Options{})
			all := posts(t, 5, size, "alerts")
			all[3].Message.Recipients[0].Destination = ""
			_, err := s.AcceptAll(t.Context(), sequence(all, nil))
			var post *store.PostError
			if !errors.As(err, &post) || post.Index != 3 {
				t.Errorf("got error %v, want a PostError of post 3", err)
			}
			gone(t, s, all)
		})
		t.Run("a panic between "+name+" posts leaves none", func(t *testing.T) {
			s := open(t, Options{})
			all := posts(t, 5, size, "alerts")
			func() {
				defer func() {
					if recover() == nil {
						t.Error("the panic was swallowed")
					}
				}()
				_, _ = s.AcceptAll(t.Context(), func(yield func(store.Post, error) bool) {
					sequence(all, nil)(yield)
					panic("reader is broken")
				})
			}()
			gone(t, s, all)
			accept(t, s, message(t, "alerts"), "")
		})
		t.Run("an end of the context between "+name+" posts leaves none", func(t *testing.T) {
			s := open(t, Options{})
			all := posts(t, 5, size, "alerts")
			ctx, cancel := context.WithCancel(t.Context())
			_, err := s.AcceptAll(ctx, func(yield func(store.Post, error) bool) {
				sequence(all[:3], nil)(yield)
				cancel()
				sequence(all[3:], nil)(yield)
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v, want context.Canceled", err)
			}
			gone(t, s, all)
		})
		t.Run("a backlog that all "+name+" posts together would exceed takes none", func(t *testing.T) {
			s := open(t, Options{MaxPending: 4})
			all := posts(t, 5, size, "alerts")
			if _, err := s.AcceptAll(t.Context(), sequence(all, nil)); !errors.Is(err, store.ErrBacklog) {
				t.Errorf("got error %v, want ErrBacklog", err)
			}
			gone(t, s, all)
			acceptAll(t, s, posts(t, 4, size, "alerts"))
		})
	}
	t.Run("the bounds are kept", func(t *testing.T) {
		s := open(t, Options{})
		count := func(n int, destinations ...string) iter.Seq2[store.Post, error] {
			return func(yield func(store.Post, error) bool) {
				for range n {
					if !yield(store.Post{Message: message(t, destinations...)}, nil) {
						return
					}
				}
			}
		}
		if _, err := s.AcceptAll(t.Context(), count(store.MaxPosts+1)); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("too many posts: got error %v, want ErrTooLarge", err)
		}
		if _, err := s.AcceptAll(t.Context(), count(store.MaxPosts/2+1, "a", "b")); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("too many deliveries: got error %v, want ErrTooLarge", err)
		}
		equal(t, "pending", s.Pending(), int64(0))
	})
	t.Run("as many as may be, with long names, lines and keys", func(t *testing.T) {
		s := open(t, Options{})
		all := make([]store.Post, store.MaxPosts)
		for i := range all {
			m := message(t, fmt.Sprintf("%0100d", i))
			m.Recipients[0].Order = strings.Repeat("x", store.MaxKey-9) + fmt.Sprintf("%010d", i)
			m.Idempotency = &store.Idempotency{Key: [32]byte{byte(i), byte(i >> 8)}}
			all[i] = store.Post{Message: m, Body: []byte("x")}
		}
		acceptAll(t, s, all)
		equal(t, "pending", s.Pending(), int64(store.MaxPosts))
		for _, i := range []int{0, 1, store.MaxPosts / 2, store.MaxPosts - 1} {
			m := all[i].Message
			equal(t, "due", due(t, s, m.Recipients[0].Destination, store.Cursor{}, 2), []store.Delivery{m.Delivery(0)})
		}
		for i, a := range acceptAll(t, s, all) {
			if !a.Existing || a.Message.ID != all[i].Message.ID {
				t.Fatalf("post %d again: existing %t, want the first message", i, a.Existing)
			}
		}
		equal(t, "pending", s.Pending(), int64(store.MaxPosts))
	})
	t.Run("one message may have the most deliveries, each in a line", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t)
		for n := range store.MaxDeliveries {
			m.Recipients = append(m.Recipients, store.Recipient{Destination: fmt.Sprintf("%0100d", n), Order: fmt.Sprintf("%0100d", n)})
		}
		acceptAll(t, s, []store.Post{{Message: m, Body: []byte("x")}})
		equal(t, "pending", s.Pending(), int64(store.MaxDeliveries))
		last := due(t, s, m.Recipients[store.MaxDeliveries-1].Destination, store.Cursor{}, 2)
		equal(t, "last", last, []store.Delivery{m.Delivery(store.MaxDeliveries - 1)})
	})
}

func testAcceptAllKeys(t *testing.T, open Open) {
	pair := func(key, content byte) *store.Idempotency {
		return &store.Idempotency{Key: [32]byte{key}, Content: [32]byte{content}}
	}
	for name, size := range map[string]int{"small": 10, "large": 700_000} {
		t.Run("known keys among "+name+" posts mean the earlier message", func(t *testing.T) {
			s := open(t, Options{MaxPending: 5})
			first := message(t, "alerts")
			first.Idempotency = pair(1, 1)
			first = accept(t, s, first, "x")
			all := posts(t, 5, size, "alerts")
			for i, key := range []byte{2, 1, 2, 3, 1} {
				all[i].Message.Idempotency = pair(key, 1)
			}
			got := acceptAll(t, s, all)
			for i, want := range []struct {
				id       store.MessageID
				existing bool
			}{
				{all[0].Message.ID, false}, {first.ID, true}, {all[0].Message.ID, true}, {all[3].Message.ID, false}, {first.ID, true},
			} {
				if got[i].Message.ID != want.id || got[i].Existing != want.existing {
					t.Errorf("post %d: got %s, existing %t; want %s, %t", i, got[i].Message.ID, got[i].Existing, want.id, want.existing)
				}
			}
			equal(t, "earlier", got[1].Message, first.Brief())
			equal(t, "of the same sequence", got[2].Message, got[0].Message)
			equal(t, "pending", s.Pending(), int64(3))
			for _, i := range []int{1, 2, 4} {
				if _, _, err := s.Load(t.Context(), all[i].Message.ID); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("post %d: Load: got error %v, want ErrNotFound", i, err)
				}
			}
			again := acceptAll(t, s, all)
			for i, a := range again {
				if !a.Existing || a.Message.ID != got[i].Message.ID {
					t.Errorf("post %d again: got %s, existing %t; want the same as before", i, a.Message.ID, a.Existing)
				}
			}
		})
		t.Run("another content under a key refuses all "+name+" posts", func(t *testing.T) {
			for _, within := range []bool{false, true} {
				s := open(t, Options{})
				all := posts(t, 4, size, "alerts")
				all[0].Message.Idempotency = pair(1, 1)
				all[3].Message.Idempotency = pair(1, 2)
				if !within {
					accept(t, s, all[0].Message, "x")
					all = all[1:]
				}
				_, err := s.AcceptAll(t.Context(), sequence(all, nil))
				var post *store.PostError
				if !errors.Is(err, store.ErrKeyConflict) || !errors.As(err, &post) || post.Index != len(all)-1 {
					t.Errorf("within %t: got error %v, want ErrKeyConflict of the last post", within, err)
				}
				if _, _, err := s.Load(t.Context(), all[1].Message.ID); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("within %t: Load: got error %v, want ErrNotFound", within, err)
				}
			}
		})
	}
}

func testFull(t *testing.T, open Open) {
	t.Run("a full backlog shows, and goes", func(t *testing.T) {
		s := open(t, Options{MaxPending: 2})
		accept(t, s, message(t, "alerts"), "")
		if err := s.Full(); err != nil {
			t.Errorf("with room: got %v, want nil", err)
		}
		d := accept(t, s, message(t, "alerts"), "").Delivery(0)
		if err := s.Full(); !errors.Is(err, store.ErrBacklog) {
			t.Errorf("without: got %v, want ErrBacklog", err)
		}
		finish(t, s, d, store.Delivered)
		if err := s.Full(); err != nil {
			t.Errorf("with room again: got %v, want nil", err)
		}
	})
	t.Run("a closed engine is full", func(t *testing.T) {
		s := open(t, Options{})
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		if err := s.Full(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}
