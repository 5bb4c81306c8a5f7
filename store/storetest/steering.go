package storetest

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func replay(tb testing.TB, s store.Store, d store.Delivery, due time.Time) store.Delivery {
	tb.Helper()
	got, err := s.Replay(tb.Context(), d.ID, due)
	if err != nil {
		tb.Fatalf("Replay: %v", err)
	}
	return got
}

func cancel(tb testing.TB, s store.Store, d store.Delivery, at time.Time, reason string) (canceled, released store.Delivery) {
	tb.Helper()
	canceled, released, err := s.Cancel(tb.Context(), d.ID, at, reason)
	if err != nil {
		tb.Fatalf("Cancel: %v", err)
	}
	return canceled, released
}

func stored(tb testing.TB, s store.Store, what string, want store.Delivery) {
	tb.Helper()
	got, err := s.Delivery(tb.Context(), want.ID)
	if err != nil {
		tb.Fatalf("Delivery: %v", err)
	}
	equal(tb, what, got, want)
}

// replayed is d as Replay makes it.
func replayed(d store.Delivery, due time.Time) store.Delivery {
	if !d.Blocking {
		d.Order = ""
	}
	d.State, d.Blocking, d.Reason = store.Pending, false, ""
	d.Round, d.Attempts, d.Made = d.Round+1, 0, 0
	d.BegunAt, d.DueAt, d.EndedAt = time.Time{}, due, time.Time{}
	return d
}

func testReplay(t *testing.T, open Open) {
	for _, state := range []store.State{store.Delivered, store.Failed, store.Canceled} {
		t.Run("one that was "+state.String()+" begins a new round", func(t *testing.T) {
			s := open(t, Options{})
			d := accept(t, s, message(t, "alerts"), "x").Delivery(0)
			after, a := end(d, state, start)
			after.Reason = "because"
			record(t, s, d, after, a)
			now := start.Add(time.Hour + 999*time.Microsecond)
			want := replayed(after, start.Add(time.Hour))
			equal(t, "replayed", replay(t, s, d, now), want)
			stored(t, s, "stored", want)
			equal(t, "due", due(t, s, "alerts", store.Cursor{}, 2), []store.Delivery{want})
			equal(t, "pending", s.Pending(), int64(1))
			equal(t, "swept while it is pending", sweepAll(t, s, start.AddDate(1, 0, 0), 10), 0)
			ended, b := end(want, store.Delivered, start.Add(2*time.Hour))
			record(t, s, want, ended, b)
			attempts, err := s.Attempts(t.Context(), d.ID, 10)
			if err != nil {
				t.Fatalf("Attempts: %v", err)
			}
			equal(t, "attempts", attempts, []store.Attempt{a, b})
			equal(t, "swept by its first end", sweepAll(t, s, start.Add(2*time.Hour), 10), 0)
			equal(t, "swept", sweepAll(t, s, start.Add(3*time.Hour), 10), 1)
		})
	}
	t.Run("a pending one begins the next round", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "x").Delivery(0)
		after, a := retry(d, start, start.Add(time.Hour))
		record(t, s, d, after, a)
		want := replayed(after, start)
		equal(t, "replayed", replay(t, s, d, start), want)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 2), []store.Delivery{want})
		equal(t, "pending", s.Pending(), int64(1))
		if _, err := s.Record(t.Context(), after, after, store.Attempt{}); !errors.Is(err, store.ErrStale) {
			t.Errorf("an attempt of the round before: got error %v, want ErrStale", err)
		}
	})
	t.Run("one that stood in a line stands in none", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 5)
		finish(t, s, all[0], store.Failed)
		ended, err := s.Delivery(t.Context(), all[0].ID)
		if err != nil {
			t.Fatalf("Delivery: %v", err)
		}
		free := replay(t, s, all[0], start.Add(time.Minute))
		equal(t, "ended", free, replayed(ended, start.Add(time.Minute)))
		behind := replay(t, s, all[3], start.Add(2*time.Minute))
		equal(t, "behind the head", behind, replayed(all[3], start.Add(2*time.Minute)))
		head := replay(t, s, all[1], start.Add(3*time.Minute))
		equal(t, "head", head, replayed(all[1], start.Add(3*time.Minute)))
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{all[2], free, behind, head})
		equal(t, "pending", s.Pending(), int64(5))
		equal(t, "released", finish(t, s, all[2], store.Delivered), all[4])
		equal(t, "released by none of a line", finish(t, s, free, store.Delivered), store.Delivery{})
	})
	t.Run("a blocking one is the head of its line again", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 2)
		blocked := block(t, s, all[0], start)
		want := replayed(blocked, start)
		equal(t, "replayed", replay(t, s, all[0], start), want)
		equal(t, "order", want.Order, "a")
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{want})
		equal(t, "pending", s.Pending(), int64(2))
		equal(t, "released by Release", release(t, s, "alerts", 10), 0)
		equal(t, "released", finish(t, s, want, store.Delivered), all[1])
	})
	t.Run("a blocking one with nobody behind is too", func(t *testing.T) {
		s := open(t, Options{})
		d := acceptLine(t, s, "alerts", "a", 1)[0]
		block(t, s, d, start)
		again := replay(t, s, d, start)
		next := acceptLine(t, s, "alerts", "a", 1)[0]
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{again})
		equal(t, "released", finish(t, s, again, store.Delivered), next)
	})
	t.Run("unknown ids are not found, and a full backlog refuses", func(t *testing.T) {
		s := open(t, Options{MaxPending: 1})
		m := accept(t, s, message(t, "alerts"), "x")
		finish(t, s, m.Delivery(0), store.Failed)
		for _, id := range []store.DeliveryID{message(t).ID.Delivery(0), m.ID.Delivery(1), store.DeliveryID(m.ID)} {
			if _, err := s.Replay(t.Context(), id, start); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("unknown: got error %v, want ErrNotFound", err)
			}
		}
		other := accept(t, s, message(t, "alerts"), "x").Delivery(0)
		if _, err := s.Replay(t.Context(), m.ID.Delivery(0), start); !errors.Is(err, store.ErrBacklog) {
			t.Errorf("full: got error %v, want ErrBacklog", err)
		}
		replay(t, s, other, start) // it is pending already
		equal(t, "pending", s.Pending(), int64(1))
	})
	t.Run("rounds have an end", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "x").Delivery(0)
		last := d
		last.Round = store.MaxRound
		record(t, s, d, last, store.Attempt{})
		if _, err := s.Replay(t.Context(), d.ID, start); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("got error %v, want ErrTooLarge", err)
		}
		stored(t, s, "stored", last)
	})
	t.Run("of many at once each counts", func(t *testing.T) {
		s := open(t, Options{})
		m := accept(t, s, message(t, "alerts", "alerts", "audit"), "x")
		var all sync.WaitGroup
		for n := range 30 {
			all.Go(func() { replay(t, s, m.Delivery(n%3), start) })
		}
		all.Wait()
		for n := range 3 {
			d := m.Delivery(n)
			d.Round = 11
			stored(t, s, "stored", d)
		}
		equal(t, "pending", s.Pending(), int64(3))
	})
}

func testCancel(t *testing.T, open Open) {
	t.Run("a pending one ends with the reason", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "x").Delivery(0)
		after, a := retry(d, start, start.Add(time.Hour))
		record(t, s, d, after, a)
		want := after
		want.State, want.Reason = store.Canceled, strings.Repeat("x", store.MaxReason-1)
		want.DueAt, want.EndedAt = time.Time{}, start
		got, released := cancel(t, s, d, start.Add(999*time.Microsecond), want.Reason+"\u00e9")
		equal(t, "canceled", got, want)
		equal(t, "released", released, store.Delivery{})
		stored(t, s, "stored", want)
		equal(t, "due", len(due(t, s, "alerts", store.Cursor{}, 2)), 0)
		equal(t, "pending", s.Pending(), int64(0))
		if _, _, err := s.Cancel(t.Context(), d.ID, start, ""); !errors.Is(err, store.ErrStale) {
			t.Errorf("again: got error %v, want ErrStale", err)
		}
		if _, _, err := s.Cancel(t.Context(), message(t).ID.Delivery(0), start, ""); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("unknown: got error %v, want ErrNotFound", err)
		}
		equal(t, "swept", sweepAll(t, s, start.Add(time.Millisecond), 10), 1)
	})
	t.Run("of a line any can go: its head lets the next go, others leave no trace", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 7)
		for _, n := range []int{3, 2, 6} {
			got, released := cancel(t, s, all[n], start, "by hand")
			equal(t, "state", got.State, store.Canceled)
			equal(t, "released", released, store.Delivery{})
		}
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), all[:1])
		_, released := cancel(t, s, all[0], start, "")
		equal(t, "released", released, all[1])
		equal(t, "released behind the gap", finish(t, s, all[1], store.Delivered), all[4])
		equal(t, "pending", s.Pending(), int64(2))
		late := acceptLine(t, s, "alerts", "a", 1)[0]
		equal(t, "released", finish(t, s, all[4], store.Delivered), all[5])
		equal(t, "released behind the canceled last", finish(t, s, all[5], store.Delivered), late)
		cancel(t, s, late, start, "")
		equal(t, "pending", s.Pending(), int64(0))
		again := acceptLine(t, s, "alerts", "a", 1)
		equal(t, "a new line", due(t, s, "alerts", store.Cursor{}, 10), again)
	})
	t.Run("a line whose others have all been canceled ends with its head", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 4)
		for _, d := range all[1:] {
			cancel(t, s, d, start, "")
		}
		equal(t, "released", finish(t, s, all[0], store.Delivered), store.Delivery{})
		again := acceptLine(t, s, "alerts", "a", 2)
		equal(t, "a new line", due(t, s, "alerts", store.Cursor{}, 10), again[:1])
	})
	t.Run("one behind a blocking head can go", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 3)
		block(t, s, all[0], start)
		cancel(t, s, all[1], start, "")
		equal(t, "pending", s.Pending(), int64(1))
		release(t, s, "alerts", 1)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), all[2:])
	})
	t.Run("a blocking one lets its line go and stays failed", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 2)
		want := block(t, s, all[0], start)
		want.Blocking = false
		got, released := cancel(t, s, all[0], start.Add(time.Hour), "by hand")
		equal(t, "canceled", got, want)
		equal(t, "released", released, all[1])
		stored(t, s, "stored", want)
		equal(t, "released by Release", release(t, s, "alerts", 10), 0)
		equal(t, "pending", s.Pending(), int64(1))
		finish(t, s, all[1], store.Delivered)
		equal(t, "swept", sweepAll(t, s, start.AddDate(1, 0, 0), 10), 2)
	})
}

// testOvertaken steers deliveries of which an attempt is being made: whatever comes of it is on record.
func testOvertaken(t *testing.T, open Open) {
	attempts := func(t *testing.T, s store.Store, id store.DeliveryID, want ...store.Attempt) {
		t.Helper()
		got, err := s.Attempts(t.Context(), id, 10)
		if err != nil {
			t.Fatalf("Attempts: %v", err)
		}
		equal(t, "attempts", got, want)
	}
	overtaken := func(t *testing.T, s store.Store, before, after store.Delivery, a store.Attempt, now store.Delivery) {
		t.Helper()
		released, err := s.Record(t.Context(), before, after, a)
		over, ok := errors.AsType[*store.OvertakenError](err)
		if !ok || !errors.Is(err, store.ErrStale) || over.Now != now || released != (store.Delivery{}) {
			t.Errorf("got error %v, released %+v, want it overtaken by %+v", err, released, now)
		}
		stored(t, s, "stored", now)
		if _, err := s.Record(t.Context(), before, after, a); !errors.Is(err, store.ErrStale) || errors.As(err, &over) {
			t.Errorf("again: got error %v, want ErrStale alone", err)
		}
	}
	t.Run("the attempt of one that was canceled counts, and it stays canceled", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "x").Delivery(0)
		canceled, _ := cancel(t, s, d, start, "enough")
		after, a := end(d, store.Delivered, start.Add(time.Second))
		canceled.Attempts, canceled.Made, canceled.Last = after.Attempts, after.Made, a.Outcome()
		overtaken(t, s, d, after, a, canceled)
		attempts(t, s, d.ID, a)
		equal(t, "due", len(due(t, s, "alerts", store.Cursor{}, 2)), 0)
		equal(t, "pending", s.Pending(), int64(0))
	})
	t.Run("the attempt of a round that is over is on record, and the next round goes on", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "x").Delivery(0)
		now := replay(t, s, d, start.Add(time.Minute))
		after, a := end(d, store.Delivered, start)
		overtaken(t, s, d, after, a, now)
		attempts(t, s, d.ID, a)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 2), []store.Delivery{now})
		equal(t, "pending", s.Pending(), int64(1))
	})
	t.Run("a follow-up of what was overtaken is not accepted", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "x").Delivery(0)
		cancel(t, s, d, start, "enough")
		after, a := end(d, store.Failed, start)
		p := follow(t, "told", "chat")
		_, err := s.RecordAndAccept(t.Context(), d, after, a, p)
		if _, ok := errors.AsType[*store.OvertakenError](err); !ok {
			t.Errorf("got error %v, want it overtaken", err)
		}
		attempts(t, s, d.ID, a)
		equal(t, "due for the other", len(due(t, s, "chat", store.Cursor{}, 2)), 0)
	})
	t.Run("one that was only made due at another time is recorded as if it had not been", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 2)
		after, a := retry(all[0], start, start.Add(time.Hour))
		if _, err := s.Expedite(t.Context(), all[0].ID, start.Add(time.Minute)); err != nil {
			t.Fatalf("Expedite: %v", err)
		}
		record(t, s, all[0], after, a)
		stored(t, s, "stored", after)
		attempts(t, s, all[0].ID, a)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 2), []store.Delivery{after})
		if _, err := s.Expedite(t.Context(), all[0].ID, start); err != nil {
			t.Fatalf("Expedite: %v", err)
		}
		ended, b := end(after, store.Delivered, start.Add(time.Second))
		if released, err := s.Record(t.Context(), after, ended, b); err != nil || released.ID != all[1].ID {
			t.Errorf("got %+v, error %v; want the next of the line", released, err)
		}
		attempts(t, s, all[0].ID, a, b)
	})
}

func testExpedite(t *testing.T, open Open) {
	t.Run("a pending one moves in the queue", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts", "alerts")
		m.Recipients[0].Delay = time.Hour
		m = accept(t, s, m, "x")
		want := m.Delivery(0)
		want.DueAt = start.Add(-time.Minute)
		got, err := s.Expedite(t.Context(), want.ID, want.DueAt.Add(999*time.Microsecond))
		if err != nil {
			t.Fatalf("Expedite: %v", err)
		}
		equal(t, "expedited", got, want)
		stored(t, s, "stored", want)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{want, m.Delivery(1)})
		equal(t, "pending", s.Pending(), int64(2))
		finish(t, s, want, store.Delivered)
		if _, err := s.Expedite(t.Context(), want.ID, start); !errors.Is(err, store.ErrStale) {
			t.Errorf("ended: got error %v, want ErrStale", err)
		}
		if _, err := s.Expedite(t.Context(), message(t).ID.Delivery(0), start); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("unknown: got error %v, want ErrNotFound", err)
		}
	})
	t.Run("of a line only the head does", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 3)
		want := all[0]
		want.DueAt = start.Add(time.Hour)
		if got, err := s.Expedite(t.Context(), want.ID, want.DueAt); err != nil || got != want {
			t.Errorf("head: got %+v, error %v; want %+v", got, err, want)
		}
		if _, err := s.Expedite(t.Context(), all[1].ID, start); !errors.Is(err, store.ErrStale) {
			t.Errorf("behind it: got error %v, want ErrStale", err)
		}
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{want})
		block(t, s, want, start)
		if _, err := s.Expedite(t.Context(), all[1].ID, start); !errors.Is(err, store.ErrStale) {
			t.Errorf("behind a blocking one: got error %v, want ErrStale", err)
		}
	})
}

func testReduce(t *testing.T, open Open) {
	load := func(t *testing.T, s store.Store, id store.MessageID) (store.Message, []byte) {
		t.Helper()
		m, body, err := s.Load(t.Context(), id)
		if err != nil {
			t.Fatalf("Load: %v", err)
		}
		return m, body
	}
	for _, size := range []int{0, 10, 70_000, 3 << 20} {
		for _, left := range []int{0, 5, 100_000, store.MaxReduced} {
			t.Run("another body takes the place of the posted one", func(t *testing.T) {
				s := open(t, Options{})
				m := message(t, "alerts", "audit")
				m.Header = []store.Field{{Name: "X-A", Value: "1"}}
				m = accept(t, s, m, strings.Repeat("x", size))
				finish(t, s, m.Delivery(0), store.Delivered)
				if err := s.Reduce(t.Context(), m.ID, nil); !errors.Is(err, store.ErrStale) {
					t.Errorf("with one pending: got error %v, want ErrStale", err)
				}
				finish(t, s, m.Delivery(1), store.Failed)
				m.Reduced = true
				for _, n := range []int{left, left / 2, 0} {
					body := bytes.Repeat([]byte("y"), n)
					if err := s.Reduce(t.Context(), m.ID, body); err != nil {
						t.Fatalf("Reduce: %v", err)
					}
					clear(body) // the engine keeps nothing of it
					got, kept := load(t, s, m.ID)
					equal(t, "message", got, m)
					if !bytes.Equal(kept, bytes.Repeat([]byte("y"), n)) {
						t.Errorf("body: got %d bytes, want %d of another", len(kept), n)
					}
				}
				equal(t, "swept", sweepAll(t, s, start.AddDate(1, 0, 0), 10), 1)
			})
		}
	}
	t.Run("what is too long or unknown is refused, and the posted body stays", func(t *testing.T) {
		s := open(t, Options{})
		m := accept(t, s, message(t), "hello")
		if err := s.Reduce(t.Context(), m.ID, make([]byte, store.MaxReduced+1)); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("too long: got error %v, want ErrTooLarge", err)
		}
		if err := s.Reduce(t.Context(), message(t).ID, nil); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("unknown: got error %v, want ErrNotFound", err)
		}
		got, body := load(t, s, m.ID)
		equal(t, "message", got, m)
		equal(t, "body", string(body), "hello")
	})
}
