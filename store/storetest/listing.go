package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// listAll reads all pages of a list, each of at most limit deliveries.
func listAll(tb testing.TB, s store.Store, f store.Filter, limit int) (all []store.Delivery) {
	tb.Helper()
	var after store.Place
	for range 10_000 {
		found, next, err := s.Deliveries(tb.Context(), f, after, limit)
		if err != nil {
			tb.Fatalf("Deliveries(%+v): %v", f, err)
		}
		if len(found) > limit {
			tb.Fatalf("Deliveries(%+v): got %d, limit %d", f, len(found), limit)
		}
		all = append(all, found...)
		if next == (store.Place{}) {
			return all
		}
		if after != (store.Place{}) && string(next.ID[:]) >= string(after.ID[:]) {
			tb.Fatalf("Deliveries(%+v): the next place %s is not behind %s", f, next.ID, after.ID)
		}
		after = next
	}
	tb.Fatalf("Deliveries(%+v) does not end", f)
	return nil
}

// newestFirst returns deliveries in the order of lists, those alone that keep picks.
func newestFirst(all []store.Delivery, keep func(store.Delivery) bool) (out []store.Delivery) {
	for _, d := range all {
		if keep(d) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b store.Delivery) int { return strings.Compare(string(b.ID[:]), string(a.ID[:])) })
	return out
}

// history fills s with deliveries of all kinds, and returns their states.
func history(tb testing.TB, s store.Store) (all []store.Delivery) {
	tb.Helper()
	for n := range 60 {
		m := message(tb, []string{"alerts", "alerts.b", "audit"}[n%3], "audit")
		m.Event = []string{"alert.fired", "alert.closed", "order.PAID", ""}[n%4]
		m.AcceptedAt = start.Add(time.Duration(n) * time.Minute)
		m.Key = fmt.Sprintf("customer-%d", n)
		if n%5 == 0 {
			m.Recipients[1].Order = "line"
		}
		if n == 30 {
			accept(tb, s, message(tb), "for nobody")
		}
		m = accept(tb, s, m, "x")
		all = append(all, m.Delivery(0), m.Delivery(1))
	}
	for i, d := range all {
		if d.Order != "" {
			continue
		}
		at := d.AcceptedAt.Add(time.Minute)
		after, a := retry(d, at, at.Add(time.Hour))
		switch i % 7 {
		case 0:
			continue
		case 1:
			after, a = end(d, store.Delivered, at)
		case 2:
			after, a = end(d, store.Failed, at)
			a.Class, a.Error = store.ClassTimeout, "No answer within 30 s"
			after.Reason = "used up"
		case 3:
			after.State, after.DueAt, after.EndedAt = store.Failed, time.Time{}, at
		case 4:
			after, _ = end(d, store.Canceled, at)
			after.Reason, a = "by hand", store.Attempt{}
		}
		record(tb, s, d, after, a)
		after.Last = store.Outcome{}
		if a.Number > 0 {
			after.Last = a.Outcome()
		}
		all[i] = after
	}
	return all
}

func testDeliveries(t *testing.T, open Open) {
	every := func(store.Delivery) bool { return true }
	t.Run("an empty store lists nothing", func(t *testing.T) {
		s := open(t, Options{})
		for _, f := range []store.Filter{{}, {Destination: "alerts"}, {State: store.Pending}, {State: store.Failed}, {Class: store.ClassOK}, {Event: "a"}, {Text: "a"}} {
			equal(t, fmt.Sprintf("%+v", f), len(listAll(t, s, f, 10)), 0)
		}
	})
	t.Run("each filter, and any two, list what passes, newest first, in pages of any size", func(t *testing.T) {
		s := open(t, Options{})
		all := history(t, s)
		one := all[41]
		filters := map[string]struct {
			filter store.Filter
			keep   func(store.Delivery) bool
		}{
			"all":         {store.Filter{}, every},
			"destination": {store.Filter{Destination: "alerts"}, func(d store.Delivery) bool { return d.Destination == "alerts" }},
			"unknown":     {store.Filter{Destination: "alert"}, func(store.Delivery) bool { return false }},
			"pending":     {store.Filter{State: store.Pending}, func(d store.Delivery) bool { return d.State == store.Pending }},
			"delivered":   {store.Filter{State: store.Delivered}, func(d store.Delivery) bool { return d.State == store.Delivered }},
			"failed":      {store.Filter{State: store.Failed}, func(d store.Delivery) bool { return d.State == store.Failed }},
			"canceled":    {store.Filter{State: store.Canceled}, func(d store.Delivery) bool { return d.State == store.Canceled }},
			"event":       {store.Filter{Event: "alert.closed"}, func(d store.Delivery) bool { return d.Event == "alert.closed" }},
			"ok":          {store.Filter{Class: store.ClassOK}, func(d store.Delivery) bool { return d.Last.Class == store.ClassOK }},
			"status":      {store.Filter{Class: store.ClassStatus}, func(d store.Delivery) bool { return d.Last.Class == store.ClassStatus }},
			"interrupted": {store.Filter{Class: store.ClassInterrupted}, func(store.Delivery) bool { return false }},
			"since": {store.Filter{Since: start.Add(20 * time.Minute)},
				func(d store.Delivery) bool { return !d.AcceptedAt.Before(start.Add(20 * time.Minute)) }},
			"until": {store.Filter{Until: start.Add(20 * time.Minute)},
				func(d store.Delivery) bool { return d.AcceptedAt.Before(start.Add(20 * time.Minute)) }},
			"event text": {store.Filter{Text: "order.p"}, func(d store.Delivery) bool { return d.Event == "order.PAID" }},
			"error text": {store.Filter{Text: "no ANSWER"}, func(d store.Delivery) bool { return d.Last.Class == store.ClassTimeout }},
			"reason":     {store.Filter{Text: "By Hand"}, func(d store.Delivery) bool { return d.State == store.Canceled }},
			"key":        {store.Filter{Text: "Customer-20"}, func(d store.Delivery) bool { return d.AcceptedAt.Equal(start.Add(20 * time.Minute)) }},
			"part of an id": {store.Filter{Text: strings.ToUpper(one.ID.String()[20:34])},
				func(d store.Delivery) bool { return d.ID.Message() == one.ID.Message() }},
			"message id":  {store.Filter{Text: one.ID.Message().String()}, func(d store.Delivery) bool { return d.ID.Message() == one.ID.Message() }},
			"delivery id": {store.Filter{Text: one.ID.String()}, func(d store.Delivery) bool { return d.ID == one.ID }},
			"beginning of an id": {store.Filter{Text: strings.ToUpper(one.ID.String()[:33])},
				func(d store.Delivery) bool { return d.ID.Message() == one.ID.Message() }},
			"what only looks like an id": {store.Filter{Text: "msg_alert"}, func(store.Delivery) bool { return false }},
		}
		for name, a := range filters {
			equal(t, name, listAll(t, s, a.filter, 7), newestFirst(all, a.keep))
			for other, b := range filters {
				f := merge(a.filter, b.filter)
				keep := func(d store.Delivery) bool { return a.keep(d) && b.keep(d) }
				if f == nil {
					continue // both say something about the same
				}
				equal(t, name+" and "+other, listAll(t, s, *f, 1+len(name)), newestFirst(all, keep))
			}
		}
	})
	t.Run("a page begins behind a place, and the last says that it is", func(t *testing.T) {
		s := open(t, Options{})
		all := newestFirst(history(t, s), every)
		for i, d := range all {
			found, next, err := s.Deliveries(t.Context(), store.Filter{}, store.Place{ID: d.ID}, 3)
			if err != nil {
				t.Fatalf("Deliveries: %v", err)
			}
			equal(t, "page", append([]store.Delivery{}, found...), append([]store.Delivery{}, all[i+1:min(i+4, len(all))]...))
			equal(t, "last", next == store.Place{}, i+4 >= len(all))
		}
		found, next, err := s.Deliveries(t.Context(), store.Filter{}, store.Place{}, 0)
		if err != nil || len(found) != 0 || next != (store.Place{}) {
			t.Errorf("a limit of nothing: got %d, next %v, error %v; want nothing", len(found), next, err)
		}
	})
	t.Run("a page behind the place of one that is gone goes on where that was", func(t *testing.T) {
		s := open(t, Options{})
		all := newestFirst(history(t, s), every)
		ended := all[slices.IndexFunc(all, func(d store.Delivery) bool { return d.State == store.Delivered })]
		place := store.Place{ID: ended.ID}
		place.ID[15]++ // no delivery's
		found, _, err := s.Deliveries(t.Context(), store.Filter{State: store.Delivered}, place, 1)
		if err != nil {
			t.Fatalf("Deliveries: %v", err)
		}
		equal(t, "first behind", found, []store.Delivery{ended})
	})
	t.Run("what changes moves between lists", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "").Delivery(0)
		lists := func(want store.Delivery) {
			t.Helper()
			for _, state := range []store.State{store.Pending, store.Delivered, store.Failed, store.Canceled} {
				for class := store.ClassOK; class <= store.ClassInterrupted; class++ {
					var in []store.Delivery
					if want.State == state && want.Last.Class == class {
						in = []store.Delivery{want}
					}
					equal(t, fmt.Sprint(state, " ", class), listAll(t, s, store.Filter{State: state, Class: class}, 2), in)
				}
				var in []store.Delivery
				if want.State == state {
					in = []store.Delivery{want}
				}
				equal(t, state.String(), listAll(t, s, store.Filter{State: state}, 2), in)
			}
		}
		lists(d)
		for _, class := range []store.Class{store.ClassTimeout, store.ClassTimeout, store.ClassDNS} {
			after, a := retry(d, start, start)
			a.Class = class
			after.Last = a.Outcome()
			record(t, s, d, after, a)
			d = after
			lists(d)
		}
		after, a := end(d, store.Delivered, start)
		record(t, s, d, after, a)
		lists(after)
		again, err := s.Replay(t.Context(), d.ID, start)
		if err != nil {
			t.Fatalf("Replay: %v", err)
		}
		lists(again)
		canceled, _, err := s.Cancel(t.Context(), d.ID, start, "")
		if err != nil {
			t.Fatalf("Cancel: %v", err)
		}
		lists(canceled)
		sweepAll(t, s, start.Add(time.Hour), 10)
		lists(store.Delivery{})
	})
	t.Run("the end of a context stops a list", func(t *testing.T) {
		s := open(t, Options{})
		accept(t, s, message(t, "alerts"), "")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := s.Deliveries(ctx, store.Filter{}, store.Place{}, 1); err == nil {
			t.Error("got no error")
		}
	})
}

// merge returns a filter that wants what both want, or nil if both say something about the same field.
func merge(a, b store.Filter) *store.Filter {
	for _, both := range []bool{
		a.Destination != "" && b.Destination != "", a.State != 0 && b.State != 0, a.Event != "" && b.Event != "",
		a.Class != 0 && b.Class != 0, !a.Since.IsZero() && !b.Since.IsZero(), !a.Until.IsZero() && !b.Until.IsZero(),
		a.Text != "" && b.Text != "",
	} {
		if both {
			return nil
		}
	}
	f := store.Filter{
		Destination: a.Destination + b.Destination, State: a.State + b.State, Event: a.Event + b.Event,
		Class: a.Class + b.Class, Since: a.Since, Until: a.Until, Text: a.Text + b.Text,
	}
	if f.Since.IsZero() {
		f.Since = b.Since
	}
	if f.Until.IsZero() {
		f.Until = b.Until
	}
	return &f
}

func testBacklog(t *testing.T, open Open) {
	backlog := func(t *testing.T, s store.Store) map[string]store.Backlog {
		t.Helper()
		all, err := s.Backlog(t.Context())
		if err != nil {
			t.Fatalf("Backlog: %v", err)
		}
		return all
	}
	t.Run("it counts what is pending, with the first that is due", func(t *testing.T) {
		s := open(t, Options{})
		equal(t, "at first", len(backlog(t, s)), 0)
		late := message(t, "alerts", "audit")
		late.Recipients[0].Delay = time.Hour
		accept(t, s, late, "")
		d := accept(t, s, message(t, "alerts"), "").Delivery(0)
		equal(t, "then", backlog(t, s), map[string]store.Backlog{"alerts": {Pending: 2, DueAt: start}, "audit": {Pending: 1, DueAt: start}})
		finish(t, s, d, store.Failed)
		finish(t, s, late.Delivery(1), store.Delivered)
		equal(t, "after", backlog(t, s), map[string]store.Backlog{"alerts": {Pending: 1, DueAt: start.Add(time.Hour)}})
		if _, err := s.Replay(t.Context(), d.ID, start.Add(time.Minute)); err != nil {
			t.Fatalf("Replay: %v", err)
		}
		equal(t, "replayed", backlog(t, s), map[string]store.Backlog{"alerts": {Pending: 2, DueAt: start.Add(time.Minute)}})
		if _, _, err := s.Cancel(t.Context(), d.ID, start, ""); err != nil {
			t.Fatalf("Cancel: %v", err)
		}
		equal(t, "canceled", backlog(t, s), map[string]store.Backlog{"alerts": {Pending: 1, DueAt: start.Add(time.Hour)}})
	})
	t.Run("those behind the head of a line count, and have no time while it blocks", func(t *testing.T) {
		s := open(t, Options{})
		all := acceptLine(t, s, "alerts", "a", 3)
		equal(t, "waiting", backlog(t, s), map[string]store.Backlog{"alerts": {Pending: 3, DueAt: all[0].DueAt}})
		block(t, s, all[0], start)
		equal(t, "blocked", backlog(t, s), map[string]store.Backlog{"alerts": {Pending: 2, Blocked: 1, Blocking: all[0].ID}})
		release(t, s, "alerts", 1)
		equal(t, "released", backlog(t, s), map[string]store.Backlog{"alerts": {Pending: 2, DueAt: all[1].DueAt}})
		finish(t, s, all[1], store.Delivered)
		block(t, s, all[2], start)
		equal(t, "with nobody behind", backlog(t, s), map[string]store.Backlog{"alerts": {Blocked: 1, Blocking: all[2].ID}})
		if _, err := s.Replay(t.Context(), all[2].ID, start); err != nil {
			t.Fatalf("Replay: %v", err)
		}
		equal(t, "replayed", backlog(t, s), map[string]store.Backlog{"alerts": {Pending: 1, DueAt: start}})
	})
}
