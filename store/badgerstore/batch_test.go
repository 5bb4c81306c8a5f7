package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

func postsOf(posts []store.Post) iter.Seq2[store.Post, error] {
	return func(yield func(store.Post, error) bool) {
		for _, p := range posts {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// largeBatch needs several groups for its bodies, and several for its queue entries.
func largeBatch(tb testing.TB) (posts []store.Post, deliveries int) {
	tb.Helper()
	event := strings.Repeat("e", 2000)
	for i, size := range []int{10, 60_000, 5 << 20, 0, 700_000} {
		m := newMessage(tb)
		m.Event = event
		m.Idempotency = &store.Idempotency{Key: [32]byte{byte(i + 1)}}
		for n := range []int{3, 1500, 1, 0, 800}[i] {
			m.Recipients = append(m.Recipients, store.Recipient{Destination: fmt.Sprintf("d%d", n%10), Order: fmt.Sprint(n % 7)})
		}
		deliveries += len(m.Recipients)
		posts = append(posts, store.Post{Message: m, Body: bytes.Repeat([]byte{byte(i)}, size)})
	}
	return posts, deliveries
}

// drain ends all deliveries of a store, in the order in which Due hands them out, and returns how many there were.
func drain(tb testing.TB, s *Store) (n int) {
	tb.Helper()
	names, err := s.PendingDestinations(tb.Context())
	mustDo(tb, err)
	for _, name := range names {
		for range 10_000 {
			due, err := s.Due(tb.Context(), name, store.Cursor{}, 100)
			mustDo(tb, err)
			if len(due) == 0 {
				break
			}
			var all sync.WaitGroup // together, so that they share syncs
			for _, d := range due {
				all.Go(func() {
					after := d
					after.State, after.EndedAt = store.Delivered, time.Now()
					if _, err := s.Record(tb.Context(), d, after, store.Attempt{}); err != nil {
						tb.Errorf("record %s: %v", d.ID, err)
					}
				})
			}
			all.Wait()
			n += len(due)
		}
	}
	return n
}

func TestBatchCutOff(t *testing.T) {
	t.Run("whichever commit is the last before the end, all are accepted or none", func(t *testing.T) {
		posts, deliveries := largeBatch(t)
		none, all := 0, 0
		for last := 1; last < 40; last++ {
			commits := 0
			s, err := Open(Options{Path: t.TempDir(), commit: func(txn *badger.Txn) error {
				if commits == last {
					return errors.New("the end")
				}
				commits++
				return txn.Commit()
			}})
			mustDo(t, err)
			_, acceptErr := s.AcceptAll(t.Context(), postsOf(posts))
			dead := snapshot(t, s.path)
			mustDo(t, s.Close())
			if acceptErr == nil {
				if none == 0 || all == 0 {
					t.Errorf("cut off %d times before the decision and %d times behind it, want both", none, all)
				}
				return
			}
			if !errors.Is(acceptErr, store.ErrBroken) {
				t.Fatalf("AcceptAll: got error %v, want ErrBroken", acceptErr)
			}
			mustDo(t, s.db.Close())
			after := mustOpen(t, Options{Path: dead})
			found := keysIn(t, after)
			if found["o"] != 0 {
				t.Errorf("after %d commits: keys %v, want no batch left", last, found)
			}
			if got := after.Pending(); got != 0 && got != int64(deliveries) || (got == 0) != (len(found) == 0) {
				t.Errorf("after %d commits: pending: got %d, keys %v; want all %d or none", last, got, found, deliveries)
			}
			if len(found) == 0 {
				none++
			} else {
				all++
				checkBatch(t, after, posts)
				if got := drain(t, after); got != deliveries {
					t.Errorf("after %d commits: drained %d, want %d", last, got, deliveries)
				}
			}
			mustDo(t, after.Close())
		}
		t.Error("the batch does not come to its end")
	})
}

// checkBatch wants all posts to be there as they were accepted.
func checkBatch(tb testing.TB, s *Store, posts []store.Post) {
	tb.Helper()
	for i, p := range posts {
		m, body, err := s.Load(tb.Context(), p.Message.ID)
		if err != nil || !bytes.Equal(body, p.Body) || len(m.Recipients) != len(p.Message.Recipients) {
			tb.Errorf("post %d: Load: %d bytes, error %v; want the %d of the body", i, len(body), err, len(p.Body))
		}
	}
}

func TestBatchRivals(t *testing.T) {
	rivalled := func(t *testing.T, content byte) (*Store, store.Message, []store.Post, []store.Accepted, error) {
		t.Helper()
		rival := newMessage(t, "alerts")
		rival.Idempotency = &store.Idempotency{Key: [32]byte{3}, Content: [32]byte{content}}
		var s *Store
		var once sync.Once
		s = mustOpen(t, Options{Path: t.TempDir(), commit: func(txn *badger.Txn) error {
			err := txn.Commit()
			once.Do(func() { // after the first group that is written ahead, so before the decision
				s.requests <- rivalRequest(t, rival)
			})
			return err
		}})
		posts, _ := largeBatch(t)
		accepted, err := s.AcceptAll(t.Context(), postsOf(posts))
		return s, rival, posts, accepted, err
	}
	t.Run("a key that another post takes meanwhile with the same content means that one", func(t *testing.T) {
		s, rival, posts, accepted, err := rivalled(t, 0)
		mustDo(t, err)
		if !accepted[2].Existing || accepted[2].Message.ID != rival.ID {
			t.Errorf("got %s, existing %t; want the rival", accepted[2].Message.ID, accepted[2].Existing)
		}
		if _, _, err := s.Load(t.Context(), posts[2].Message.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Load: got error %v, want ErrNotFound", err)
		}
		if got := keysIn(t, s); got["m"] != len(posts) || got["b"] != 2 || got["o"] != 0 {
			t.Errorf("keys: %v, want the chunks of the one other long body alone, and no batch", got)
		}
	})
	t.Run("with another content it refuses all, and nothing is left", func(t *testing.T) {
		s, _, _, _, err := rivalled(t, 1)
		var post *store.PostError
		if !errors.Is(err, store.ErrKeyConflict) || !errors.As(err, &post) || post.Index != 2 {
			t.Errorf("got error %v, want ErrKeyConflict of post 2", err)
		}
		if got := keysIn(t, s); got["m"] != 1 || got["b"]+got["o"] != 0 || got["i"] != 1 || s.Pending() != 1 {
			t.Errorf("keys: %v, pending %d; want those of the rival alone", got, s.Pending())
		}
	})
}

func TestBatchHidden(t *testing.T) {
	t.Run("what is written ahead is seen by nobody", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		posts, _ := largeBatch(t)
		looked := false
		_, err := s.AcceptAll(t.Context(), func(yield func(store.Post, error) bool) {
			postsOf(posts)(yield)
			looked = true
			if got := keysIn(t, s); got["m"] == 0 || got["o"] < 2 {
				t.Fatalf("keys: %v, want messages written ahead", got)
			}
			for i, p := range posts {
				if _, _, err := s.Load(t.Context(), p.Message.ID); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("post %d: Load: got error %v, want ErrNotFound", i, err)
				}
				if _, err := s.Delivery(t.Context(), p.Message.ID.Delivery(0)); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("post %d: Delivery: got error %v, want ErrNotFound", i, err)
				}
			}
			if n, more, err := s.Sweep(t.Context(), time.Now().Add(time.Hour), 10); n != 0 || more || err != nil {
				t.Errorf("Sweep: %d, more %t, error %v; want nothing", n, more, err)
			}
			if names, err := s.PendingDestinations(t.Context()); len(names) != 0 || err != nil || s.Pending() != 0 {
				t.Errorf("PendingDestinations: %q, error %v, pending %d; want none", names, err, s.Pending())
			}
		})
		mustDo(t, err)
		if !looked {
			t.Error("the posts were not read to their end")
		}
		checkBatch(t, s, posts)
	})
	t.Run("the store can be closed while the next post is waited for, and the next start cleans up", func(t *testing.T) {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path})
		posts, _ := largeBatch(t)
		_, err := s.AcceptAll(t.Context(), func(yield func(store.Post, error) bool) {
			postsOf(posts[:4])(yield)
			mustDo(t, s.Close())
			yield(posts[4], nil)
		})
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("got error %v, want ErrClosed", err)
		}
		if got := keysIn(t, mustOpen(t, Options{Path: path})); len(got) != 0 {
			t.Errorf("keys: %v, want none", got)
		}
	})
	t.Run("posts that fit into one group take one commit", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		seq := s.seq
		var posts []store.Post
		for range 100 {
			posts = append(posts, store.Post{Message: newMessage(t, "alerts"), Body: []byte("x")})
		}
		_, err := s.AcceptAll(t.Context(), postsOf(posts))
		mustDo(t, err)
		if s.seq != seq+1 {
			t.Errorf("got %d commits, want 1", s.seq-seq)
		}
	})
	t.Run("a damaged message of a decided batch does not stop the start", func(t *testing.T) {
		posts, deliveries := largeBatch(t)
		path := t.TempDir()
		var s *Store
		decided := false
		s, err := Open(Options{Path: path, commit: func(txn *badger.Txn) error {
			if decided {
				return errors.New("the end")
			}
			err := txn.Commit()
			if got, getErr := getOutside(s, posts[0].Message.ID); getErr == nil && got.decided {
				decided = true
			}
			return err
		}})
		mustDo(t, err)
		if _, err := s.AcceptAll(t.Context(), postsOf(posts)); !errors.Is(err, store.ErrBroken) || !decided {
			t.Fatalf("AcceptAll: decided %t, error %v; want it cut off behind the decision", decided, err)
		}
		spoil(t, s, messageKey(posts[4].Message.ID))
		dead := snapshot(t, path)
		mustDo(t, s.Close())
		mustDo(t, s.db.Close())
		after := mustOpen(t, Options{Path: dead})
		if got, want := after.Pending(), int64(deliveries-800); got != want {
			t.Errorf("pending: got %d, want the %d of the others", got, want)
		}
		checkBatch(t, after, posts[:4])
	})
}

// getOutside reads the head of a batch. It returns an error if there is none.
func getOutside(s *Store, id store.MessageID) (b batchRecord, err error) {
	if s == nil {
		return b, store.ErrNotFound
	}
	err = s.db.View(func(txn *view) error {
		content, err := get(txn, batchKey(id))
		if err == nil && content == nil {
			err = store.ErrNotFound
		}
		if err == nil {
			b, err = decodeBatch(content)
		}
		return err
	})
	return b, err
}

func TestDamagedLine(t *testing.T) {
	setup := func(t *testing.T) (*Store, []store.Delivery, []byte) {
		t.Helper()
		s := mustOpen(t, Options{Path: t.TempDir()})
		var all []store.Delivery
		for range 4 {
			m := newMessage(t, "alerts")
			m.Recipients[0].Order = "a"
			m, _, err := s.Accept(t.Context(), m, nil)
			mustDo(t, err)
			all = append(all, m.Delivery(0))
		}
		return s, all, lineKey(kindLine, "alerts", "a")
	}
	next := func(t *testing.T, s *Store, d store.Delivery) store.Delivery {
		t.Helper()
		after := d
		after.State, after.EndedAt = store.Delivered, time.Now()
		return mustRecord(t, s, d, after, store.Attempt{})
	}
	t.Run("a line whose record is damaged goes on in its order", func(t *testing.T) {
		s, all, key := setup(t)
		next(t, s, all[0])
		spoil(t, s, key)
		m := newMessage(t, "alerts")
		m.Recipients[0].Order = "a"
		m, _, err := s.Accept(t.Context(), m, nil)
		mustDo(t, err)
		spoil(t, s, key)
		for i, want := range []store.Delivery{all[2], all[3], m.Delivery(0), {}} {
			if got := next(t, s, append(all, m.Delivery(0))[i+1]); got != want {
				t.Errorf("behind %d: got %+v, want %+v", i+1, got, want)
			}
		}
		if got := keysIn(t, s); got["t"]+got["l"]+got["q"] != 0 {
			t.Errorf("keys: %v, want no line left", got)
		}
	})
	t.Run("a head whose line is damaged, with nobody behind, lets the line go", func(t *testing.T) {
		s, all, key := setup(t)
		for _, d := range all[:3] {
			next(t, s, d)
		}
		spoil(t, s, key)
		if got := next(t, s, all[3]); got != (store.Delivery{}) {
			t.Errorf("got %+v, want nothing released", got)
		}
	})
	t.Run("a damaged place is passed over", func(t *testing.T) {
		s, all, key := setup(t)
		spoil(t, s, waitingKey(key, 2))
		if got := next(t, s, all[0]); got != all[2] {
			t.Errorf("got %+v, want the one behind it", got)
		}
	})
	t.Run("a blocked line is released though its note is damaged", func(t *testing.T) {
		s, all, _ := setup(t)
		after := all[0]
		after.State, after.EndedAt, after.Blocking = store.Failed, time.Now(), true
		mustRecord(t, s, all[0], after, store.Attempt{})
		spoil(t, s, lineKey(kindBlocked, "alerts", "a"))
		if n, err := s.Release(t.Context(), "alerts", 10); n != 1 || err != nil {
			t.Errorf("Release: %d, error %v; want 1", n, err)
		}
		if got := mustDue(t, s); got != all[1] {
			t.Errorf("Due: got %+v, want the next", got)
		}
	})
	t.Run("a destination whose pause is damaged is paused", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		mustDo(t, s.Pause(t.Context(), "alerts", store.Pause{At: time.Now(), Reason: "gone"}))
		spoil(t, s, pauseKey("alerts"))
		got, err := s.Paused(t.Context())
		if err != nil || got["alerts"].Reason == "" {
			t.Errorf("Paused: %+v, error %v; want a pause that says so", got, err)
		}
		mustDo(t, s.Resume(t.Context(), "alerts"))
		if got, err := s.Paused(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("Paused: %+v, error %v; want none", got, err)
		}
	})
	t.Run("a destination whose outage is damaged is not out, and the next note takes its place", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		since := time.UnixMilli(1).UTC()
		for _, name := range []string{"alerts", "audit", "backup"} {
			mustDo(t, s.NoteOutage(t.Context(), name, store.Outage{Since: since}))
		}
		spoil(t, s, outageKey("alerts"))
		spoil(t, s, outageKey("backup"))
		mustDo(t, s.NoteOutage(t.Context(), "backup", store.Outage{}))
		got, err := s.Outages(t.Context())
		if err != nil || len(got) != 1 || !got["audit"].Since.Equal(since) {
			t.Errorf("Outages: %+v, error %v; want that of audit", got, err)
		}
		mustDo(t, s.NoteOutage(t.Context(), "alerts", store.Outage{Since: since}))
		if got, err := s.Outages(t.Context()); err != nil || len(got) != 2 {
			t.Errorf("Outages: %+v, error %v; want those of alerts and audit", got, err)
		}
	})
}
