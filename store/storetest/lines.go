package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// inLine makes a message for one destination, whose delivery stands in a line.
func inLine(tb testing.TB, destination, order string) store.Message {
	tb.Helper()
	m := message(tb, destination)
	m.Recipients[0].Order = order
	return m
}

// acceptLine accepts n messages into one line, each before the one before by id and by due time, and returns their
// deliveries.
func acceptLine(tb testing.TB, s store.Store, destination, order string, n int) []store.Delivery {
	tb.Helper()
	var messages []store.Message
	for range n {
		messages = append(messages, inLine(tb, destination, order))
	}
	slices.Reverse(messages) // ids go back when the clock is set back
	var all []store.Delivery
	for i, m := range messages {
		m.AcceptedAt = start.Add(-time.Duration(i) * time.Minute)
		all = append(all, accept(tb, s, m, "x").Delivery(0))
	}
	return all
}

func finish(tb testing.TB, s store.Store, d store.Delivery, state store.State) (released store.Delivery) {
	tb.Helper()
	after, a := end(d, state, start.Add(time.Hour))
	released, err := s.Record(tb.Context(), d, after, a)
	if err != nil {
		tb.Fatalf("Record: %v", err)
	}
	return released
}

// block ends d so that those behind it wait, and returns its state.
func block(tb testing.TB, s store.Store, d store.Delivery, at time.Time) store.Delivery {
	tb.Helper()
	after, a := end(d, store.Failed, at)
	after.Blocking = true
	released, err := s.Record(tb.Context(), d, after, a)
	if err != nil || released != (store.Delivery{}) {
		tb.Fatalf("Record: released %+v, error %v; want nothing released", released, err)
	}
	return after
}

func release(tb testing.TB, s store.Store, destination string, limit int) int {
	tb.Helper()
	n, err := s.Release(tb.Context(), destination, limit)
	if err != nil {
		tb.Fatalf("Release: %v", err)
	}
	return n
}

func testLines(t *testing.T, open Open) {
	t.Run("a line hands out one at a time, in the order of acceptance", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 5)
		equal(t, "pending", s.Pending(), int64(5))
		for i, d := range all {
			equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), all[i:i+1])
			var want store.Delivery
			if i+1 < len(all) {
				want = all[i+1]
			}
			state := []store.State{store.Delivered, store.Failed, store.Canceled}[i%3]
			equal(t, "released", finish(t, s, d, state), want)
		}
		equal(t, "left", len(due(t, s, "alerts", store.Cursor{}, 10)), 0)
		equal(t, "pending", s.Pending(), int64(0))
		again := acceptLine(t, s, "alerts", "a", 2)
		equal(t, "due again", due(t, s, "alerts", store.Cursor{}, 10), again[:1])
	})
	t.Run("a retry of the head keeps the others waiting", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 2)
		after, a := retry(all[0], start, start.Add(time.Hour))
		released, err := s.Record(t.Context(), all[0], after, a)
		if err != nil || released != (store.Delivery{}) {
			t.Errorf("Record: released %+v, error %v; want nothing", released, err)
		}
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{after})
		equal(t, "released", finish(t, s, after, store.Failed), all[1])
	})
	t.Run("lines are apart: by order, by destination, and from those without", func(t *testing.T) {
		s := open(t, Options{})
		a := acceptLine(t, s, "alerts", "a", 2)
		b := acceptLine(t, s, "alerts", "b", 2)
		other := acceptLine(t, s, "audit", "a", 2)
		free := accept(t, s, message(t, "alerts"), "").Delivery(0)
		got := due(t, s, "alerts", store.Cursor{}, 10)
		if len(got) != 3 || !slices.Contains(got, a[0]) || !slices.Contains(got, b[0]) || !slices.Contains(got, free) {
			t.Errorf("due: got %+v, want both heads and the one without a line", got)
		}
		equal(t, "released", finish(t, s, a[0], store.Delivered), a[1])
		equal(t, "released", finish(t, s, free, store.Delivered), store.Delivery{})
		equal(t, "due", due(t, s, "audit", store.Cursor{}, 10), other[:1])
	})
	t.Run("of one message each recipient stands in its own line", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts", "audit", "alerts", "alerts")
		for n, order := range []string{"a", "a", "a", "b"} {
			m.Recipients[n].Order = order
		}
		accept(t, s, m, "x")
		equal(t, "alerts", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{m.Delivery(0), m.Delivery(3)})
		equal(t, "audit", due(t, s, "audit", store.Cursor{}, 10), []store.Delivery{m.Delivery(1)})
		equal(t, "released", finish(t, s, m.Delivery(0), store.Delivered), m.Delivery(2))
	})
	t.Run("one behind the head cannot be recorded", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 2)
		after, a := end(all[1], store.Delivered, start)
		if _, err := s.Record(t.Context(), all[1], after, a); !errors.Is(err, store.ErrStale) {
			t.Errorf("got error %v, want ErrStale", err)
		}
		got, err := s.Delivery(t.Context(), all[1].ID)
		if err != nil || got != all[1] {
			t.Errorf("Delivery: %+v, error %v; want it pending as it was", got, err)
		}
	})
	t.Run("the state after keeps its line", func(t *testing.T) {
		s := open(t, Options{})
		d := acceptLine(t, s, "alerts", "a", 1)[0]
		after, a := end(d, store.Delivered, start)
		after.Order = "b"
		if _, err := s.Record(t.Context(), d, after, a); err == nil {
			t.Error("got no error")
		}
	})
	t.Run("orders up to their bound are told apart, and a longer one is refused", func(t *testing.T) {
		s := open(t, Options{})
		long := strings.Repeat("x", store.MaxKey)
		for _, order := range []string{long + "a", long + "b", "\x00", "\xff"} {
			accept(t, s, inLine(t, "alerts", order), "")
		}
		equal(t, "heads", len(due(t, s, "alerts", store.Cursor{}, 10)), 4)
		if _, _, err := s.Accept(t.Context(), inLine(t, "alerts", long+"ab"), nil); err == nil {
			t.Error("a longer order: accepted, want an error")
		}
		m := message(t, "alerts")
		m.Key = long + "a"
		if _, _, err := s.Accept(t.Context(), m, nil); err == nil {
			t.Error("a longer key: accepted, want an error")
		}
	})
	t.Run("many that come at once into one line all get out", func(t *testing.T) {
		s := open(t, Options{})
		const n = 300
		acceptLine(t, s, "alerts", "a", n)
		for left := n; left > 0; left-- {
			got := due(t, s, "alerts", store.Cursor{}, 2)
			if len(got) != 1 {
				t.Fatalf("due with %d left: got %d, want 1", left, len(got))
			}
			finish(t, s, got[0], store.Delivered)
		}
		equal(t, "pending", s.Pending(), int64(0))
	})
}

func testBlocking(t *testing.T, open Open) {
	t.Run("a blocking head holds its line until it is released", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 3)
		other := acceptLine(t, s, "alerts", "b", 1)
		blocked := block(t, s, all[0], start.Add(time.Second))
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), other)
		equal(t, "pending", s.Pending(), int64(3))
		got, err := s.Delivery(t.Context(), all[0].ID)
		if err != nil || got != blocked {
			t.Errorf("Delivery: %+v, error %v; want %+v", got, err, blocked)
		}
		finish(t, s, other[0], store.Delivered)
		names, err := s.PendingDestinations(t.Context())
		if err != nil {
			t.Fatalf("PendingDestinations: %v", err)
		}
		equal(t, "destinations", names, []string{"alerts"})
		equal(t, "released elsewhere", release(t, s, "alert", 10), 0)
		equal(t, "released of nothing", release(t, s, "alerts", 0), 0)
		equal(t, "released", release(t, s, "alerts", 10), 1)
		equal(t, "released again", release(t, s, "alerts", 10), 0)
		equal(t, "due then", due(t, s, "alerts", store.Cursor{}, 10), all[1:2])
		blocked.Blocking = false
		if got, err = s.Delivery(t.Context(), all[0].ID); err != nil || got != blocked {
			t.Errorf("Delivery: %+v, error %v; want %+v", got, err, blocked)
		}
		equal(t, "next", finish(t, s, all[1], store.Delivered), all[2])
	})
	t.Run("what comes behind a blocking delivery with nobody behind waits too", func(t *testing.T) {
		s := open(t, Options{})
		d := acceptLine(t, s, "alerts", "a", 1)[0]
		block(t, s, d, start)
		equal(t, "pending", s.Pending(), int64(0))
		names, err := s.PendingDestinations(t.Context())
		if err != nil || len(names) != 0 {
			t.Errorf("PendingDestinations: %q, error %v; want none", names, err)
		}
		late := acceptLine(t, s, "alerts", "a", 2)
		equal(t, "due", len(due(t, s, "alerts", store.Cursor{}, 10)), 0)
		equal(t, "pending", s.Pending(), int64(2))
		equal(t, "released", release(t, s, "alerts", 10), 1)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), late[:1])
	})
	t.Run("a released line with nobody behind begins anew", func(t *testing.T) {
		s := open(t, Options{})
		block(t, s, acceptLine(t, s, "alerts", "a", 1)[0], start)
		equal(t, "released", release(t, s, "alerts", 10), 1)
		all := acceptLine(t, s, "alerts", "a", 1)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), all)
	})
	t.Run("a limit is kept, and the rest comes later", func(t *testing.T) {
		s := open(t, Options{})
		const lines = 7
		for n := range lines {
			block(t, s, acceptLine(t, s, "alerts", fmt.Sprint(n), 2)[0], start)
		}
		equal(t, "released", release(t, s, "alerts", 3), 3)
		equal(t, "due", len(due(t, s, "alerts", store.Cursor{}, 10)), 3)
		equal(t, "the rest", release(t, s, "alerts", 100), lines-3)
		equal(t, "due", len(due(t, s, "alerts", store.Cursor{}, 10)), lines)
	})
	t.Run("a blocking delivery is not swept, and a released one by its end", func(t *testing.T) {
		s := open(t, Options{})
		d := acceptLine(t, s, "alerts", "a", 1)[0]
		block(t, s, d, start)
		equal(t, "deleted while it blocks", sweepAll(t, s, start.Add(time.Hour), 10), 0)
		release(t, s, "alerts", 1)
		equal(t, "deleted at its end", sweepAll(t, s, start, 10), 0)
		equal(t, "deleted", sweepAll(t, s, start.Add(time.Millisecond), 10), 1)
	})
	t.Run("only a failed delivery of a line blocks", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 2)
		after, a := end(all[0], store.Delivered, start)
		after.Blocking = true
		if released, err := s.Record(t.Context(), all[0], after, a); err != nil || released != all[1] {
			t.Errorf("delivered: released %+v, error %v; want the next", released, err)
		}
		free := accept(t, s, message(t, "audit"), "").Delivery(0)
		after, a = end(free, store.Failed, start)
		after.Blocking = true
		record(t, s, free, after, a)
		after.Blocking = false
		if got, err := s.Delivery(t.Context(), free.ID); err != nil || got != after {
			t.Errorf("without a line: %+v, error %v; want it not Blocking", got, err)
		}
		equal(t, "released", release(t, s, "audit", 10), 0)
	})
}

func testPauses(t *testing.T, open Open) {
	paused := func(t *testing.T, s store.Store) map[string]store.Pause {
		t.Helper()
		all, err := s.Paused(t.Context())
		if err != nil {
			t.Fatalf("Paused: %v", err)
		}
		return all
	}
	pause := func(t *testing.T, s store.Store, name string, p store.Pause) {
		t.Helper()
		if err := s.Pause(t.Context(), name, p); err != nil {
			t.Fatalf("Pause: %v", err)
		}
	}
	t.Run("a pause is kept until it is ended", func(t *testing.T) {
		s := open(t, Options{})
		equal(t, "at first", len(paused(t, s)), 0)
		pause(t, s, "alerts", store.Pause{At: start.Add(999 * time.Microsecond).In(time.FixedZone("far", 3600)), Reason: "410 \xff"})
		pause(t, s, "alerts.b", store.Pause{At: start})
		pause(t, s, "alerts", store.Pause{At: start.Add(time.Hour), Reason: "again"})
		equal(t, "paused", paused(t, s), map[string]store.Pause{"alerts": {At: start, Reason: "410 \xff"}, "alerts.b": {At: start}})
		for range 2 {
			if err := s.Resume(t.Context(), "alerts"); err != nil {
				t.Errorf("Resume: %v", err)
			}
		}
		equal(t, "then", paused(t, s), map[string]store.Pause{"alerts.b": {At: start}})
	})
	t.Run("a reason is cut where a letter ends", func(t *testing.T) {
		s := open(t, Options{})
		pause(t, s, "a", store.Pause{At: start, Reason: strings.Repeat("x", store.MaxReason)})
		pause(t, s, "b", store.Pause{At: start, Reason: strings.Repeat("x", store.MaxReason-1) + "\u00e9"})
		got := paused(t, s)
		equal(t, "at the bound", got["a"].Reason, strings.Repeat("x", store.MaxReason))
		equal(t, "over it", got["b"].Reason, strings.Repeat("x", store.MaxReason-1))
	})
	t.Run("a name that no destination can have is refused", func(t *testing.T) {
		s := open(t, Options{})
		for _, name := range []string{"", strings.Repeat("x", 101), "a\x00b"} {
			if err := s.Pause(t.Context(), name, store.Pause{At: start}); err == nil {
				t.Errorf("Pause(%q): got no error", name)
			}
		}
	})
}
