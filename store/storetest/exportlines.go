package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// drainLine delivers what is due to a destination until nothing is, and returns the ids in that order.
func drainLine(tb testing.TB, s store.Store, destination string) (ids []store.DeliveryID) {
	tb.Helper()
	for range 1000 {
		all := due(tb, s, destination, store.Cursor{}, 1)
		if len(all) == 0 {
			return ids
		}
		after, a := end(all[0], store.Delivered, start)
		record(tb, s, all[0], after, a)
		ids = append(ids, all[0].ID)
	}
	tb.Fatal("the line does not end")
	return nil
}

func testExportLines(t *testing.T, open Open) {
	line := func(order string, destinations ...string) store.Message {
		m := message(t, destinations...)
		for n := range m.Recipients {
			m.Recipients[n].Order = order
		}
		return m
	}
	t.Run("lines keep their order where that of the ids is another", func(t *testing.T) {
		s := open(t, Options{})
		var all []store.Message
		for range 8 {
			all = append(all, line("=k", "a", "b"))
		}
		// As after a clock that was set back twice; b is another line of the same, so that one waits for another there.
		var want []store.DeliveryID
		for _, n := range []int{5, 6, 1, 7, 2, 3, 0, 4} {
			m := all[n]
			if n == 3 {
				m.Recipients = m.Recipients[1:]
			}
			accept(t, s, m, "")
			if n != 3 {
				want = append(want, m.ID.Delivery(0))
			}
		}
		again := moved(t, open, s, 0)
		equal(t, "order", drainLine(t, again, "a"), want)
		got := drainLine(t, again, "b")
		equal(t, "in the other", len(got), 8)
		for i, n := range []int{5, 6, 1, 7, 2, 3, 0, 4} {
			equal(t, fmt.Sprintf("place %d", i), got[i].Message(), all[n].ID)
		}
	})
	t.Run("so they do where very many wait for one in another line", func(t *testing.T) {
		var all []store.Message // in the order of acceptance
		for n := range 600 {
			m := line("=k", "a", "b")
			if n%2 != 0 { // between two that stand in both lines, one that stands in one of them
				m.Recipients = m.Recipients[n/2%2:][:1]
			}
			all = append(all, m)
		}
		slices.Reverse(all[1:])
		all[0], all[1] = all[1], all[0] // the clock was set back after the first
		s := open(t, Options{})
		for _, m := range all {
			accept(t, s, m, "")
		}
		raw, _ := export(t, s, store.Filter{})
		ids := exported(t, raw)
		last := make(map[string]int) // place in the export of the latest, by destination
		for _, m := range all {
			place := slices.Index(ids, m.ID) + 1
			for _, to := range m.Recipients {
				if place <= last[to.Destination] {
					t.Fatalf("message at place %d of the export: one that stands before it in a line is at %d", place, last[to.Destination])
				}
				last[to.Destination] = place
			}
		}
	})
	t.Run("those that come into a line stand behind those that are there", func(t *testing.T) {
		s := open(t, Options{})
		held, behind := line("=k", "a"), line("=k", "a")
		accept(t, s, held, "")
		accept(t, s, behind, "")
		after, a := end(held.Delivery(0), store.Failed, start)
		after.Blocking = true
		record(t, s, held.Delivery(0), after, a)
		raw, _ := export(t, s, store.Filter{})

		again := open(t, Options{})
		mine := line("=k", "a")
		accept(t, again, mine, "")
		done := mustImport(t, again, raw)
		equal(t, "imported", done, store.Imported{Messages: 2, Deliveries: 2, Pending: 1, Attempts: 1, Unblocked: 1})
		equal(t, "order", drainLine(t, again, "a"), []store.DeliveryID{mine.ID.Delivery(0), behind.ID.Delivery(0)})
		if d, err := again.Delivery(t.Context(), held.ID.Delivery(0)); err != nil || d.State != store.Failed || d.Blocking {
			t.Errorf("the one that blocked: got %+v, error %v; want it failed, and not blocking", d, err)
		}
		equal(t, "swept", sweepAll(t, again, start.Add(time.Hour), 10), 3)
	})
	t.Run("one with attempts that has to wait is as it was when its turn comes", func(t *testing.T) {
		s := open(t, Options{})
		tried := line("=k", "a")
		accept(t, s, tried, "")
		want, a := retry(tried.Delivery(0), start, start.Add(time.Hour))
		record(t, s, tried.Delivery(0), want, a)
		raw, _ := export(t, s, store.Filter{})
		again := open(t, Options{})
		mine := line("=k", "a")
		accept(t, again, mine, "")
		mustImport(t, again, raw)
		if _, err := again.Expedite(t.Context(), want.ID, start); !errors.Is(err, store.ErrStale) {
			t.Errorf("Expedite behind the head: got error %v, want ErrStale", err)
		}
		after, a := end(mine.Delivery(0), store.Delivered, start)
		record(t, again, mine.Delivery(0), after, a)
		equal(t, "due", due(t, again, "a", store.Cursor{}, 2), []store.Delivery{want})
		after, a = end(want, store.Delivered, start)
		record(t, again, want, after, a)
		attempts, err := again.Attempts(t.Context(), want.ID, 10)
		if err != nil || len(attempts) != 2 {
			t.Errorf("Attempts: %d, error %v; want 2", len(attempts), err)
		}
	})
	t.Run("a line that is held up is released by a replay", func(t *testing.T) {
		s := open(t, Options{})
		held, behind := line("=k", "a"), line("=k", "a")
		accept(t, s, held, "")
		accept(t, s, behind, "")
		after, a := end(held.Delivery(0), store.Failed, start)
		after.Blocking = true
		record(t, s, held.Delivery(0), after, a)
		again := moved(t, open, s, 0)
		if got := drainLine(t, again, "a"); len(got) > 0 {
			t.Errorf("%d came through, want the line held up", len(got))
		}
		if _, err := again.Replay(t.Context(), held.ID.Delivery(0), start); err != nil {
			t.Fatalf("Replay: %v", err)
		}
		equal(t, "order", drainLine(t, again, "a"), []store.DeliveryID{held.ID.Delivery(0), behind.ID.Delivery(0)})
	})
}
