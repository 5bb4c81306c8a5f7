package badgerstore

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// filled is what a history holds that fillHistory has written.
type filled struct {
	first, last store.MessageID
	start, end  time.Time
}

// rareEvery is how many deliveries there are for one of each rare kind, in a history of n: 200 of each.
func rareEvery(n int) int { return n / 200 }

// fillHistory writes a history of n ended deliveries directly, a thousand a second from start on, as accepting and
// recording them would have left it. The oldest 200 are pending. One in rareEvery(n) has the rare destination, the
// next the rare event, and so on.
func fillHistory(tb testing.TB, s *Store, n int) (f filled) {
	tb.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	f.start = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	body := []byte(`{"severity":"high"}`)
	const perGroup = 1000
	for from := 0; from < n; from += perGroup {
		err := s.submitAlways(&request{size: s.maxGroupSize, entries: s.maxGroupEntries, stage: func(g *group) error {
			for i := from; i < min(from+perGroup, n); i++ {
				m, d := historyEntry(f.start, i, n, random)
				if i == 0 {
					f.first = m.ID
				}
				f.last, f.end = m.ID, m.AcceptedAt
				if err := fillOne(g, m, d, body); err != nil {
					return err
				}
			}
			return nil
		}})
		mustDo(tb, err)
	}
	return f
}

// historyEntry is the i-th message of a history of n, with the state of its only delivery.
func historyEntry(start time.Time, i, n int, random *rand.Rand) (store.Message, store.Delivery) {
	m := store.Message{
		AcceptedAt: start.Add(time.Duration(i) * time.Millisecond), Size: 19, Event: fmt.Sprintf("event.%d", i%7),
		Recipients: []store.Recipient{{Destination: fmt.Sprintf("destination-%d", i%10)}},
	}
	_, last := idsOf(m.AcceptedAt)
	m.ID = store.MessageID(last)
	for j := 6; j < 14; j++ {
		m.ID[j] = byte(random.Uint32())
	}
	m.ID = store.DeliveryID(m.ID).Message()
	kind := i % rareEvery(n)
	switch kind {
	case 1:
		m.Recipients[0].Destination = "rare"
	case 2:
		m.Event = "rare.event"
	}
	d := m.Delivery(0)
	if i < 200 {
		return m, d
	}
	d.State, d.Attempts, d.Made = store.Delivered, 1, 1
	d.DueAt, d.EndedAt = time.Time{}, m.AcceptedAt.Add(time.Second)
	d.Last = store.Outcome{At: m.AcceptedAt, Class: store.ClassOK, Status: 200}
	switch kind {
	case 3:
		d.State, d.Reason = store.Failed, "used up"
		d.Last = store.Outcome{At: m.AcceptedAt, Class: store.ClassStatus, Status: 500}
	case 4:
		d.State, d.Reason = store.Canceled, "by hand"
	case 5:
		d.State, d.Reason = store.Failed, "used up"
		d.Last = store.Outcome{At: m.AcceptedAt, Class: store.ClassTimeout, Error: "no answer within 30 s"}
	}
	return m, d
}

func fillOne(g *group, m store.Message, d store.Delivery, body []byte) error {
	err := encodeAccept(storedMessage{Message: m}, body, func(e entry) error {
		g.put(e.key, e.value)
		return nil
	})
	if err != nil {
		return err
	}
	g.identify(m)
	if d.State == store.Pending {
		raw, err := encodePending(d)
		if err == nil {
			g.enqueue(d, raw)
		}
		return err
	}
	entries, err := stateEntries(d)
	if err != nil {
		return err
	}
	g.put(destinationIndexKey(d.Destination, d.ID), nil)
	g.become(store.Delivery{State: store.Pending}, d, entries)
	raw := encodeAttempt(store.Attempt{StartedAt: d.Last.At, Took: time.Second, Class: d.Last.Class, Status: d.Last.Status})
	g.set(attemptKey(d.ID, 1, 1), raw)
	return nil
}

// singleFilters are the filters that a person has, one by one. Each finds at least 50 of a history.
func singleFilters(f filled) map[string]store.Filter {
	middle := f.start.Add(f.end.Sub(f.start) / 2)
	return map[string]store.Filter{
		"none":               {},
		"destination":        {Destination: "destination-3"},
		"rare destination":   {Destination: "rare"},
		"state delivered":    {State: store.Delivered},
		"state failed":       {State: store.Failed},
		"state canceled":     {State: store.Canceled},
		"state pending":      {State: store.Pending},
		"event":              {Event: "event.3"},
		"rare event":         {Event: "rare.event"},
		"class ok":           {Class: store.ClassOK},
		"class timeout":      {Class: store.ClassTimeout},
		"since":              {Since: middle},
		"until":              {Until: middle},
		"beginning of an id": {Text: f.first.String()[:8]},
	}
}

// pairFilters name two things each, of which one is rare.
var pairFilters = map[string]store.Filter{
	"failed of a destination":       {Destination: "destination-3", State: store.Failed},
	"timeout of an event":           {Event: "event.3", Class: store.ClassTimeout},
	"delivered of the rare event":   {Event: "rare.event", State: store.Delivered},
	"delivered to the rare one":     {Destination: "rare", State: store.Delivered},
	"rare event to a destination":   {Destination: "destination-2", Event: "rare.event"},
	"pending of a destination":      {Destination: "destination-3", State: store.Pending},
	"canceled after an ok answer":   {State: store.Canceled, Class: store.ClassOK},
	"pending of an event":           {Event: "event.3", State: store.Pending},
	"failed by status, of an event": {Event: "event.1", State: store.Failed, Class: store.ClassStatus},
}

// looksFor returns how many entries a page takes to read.
func looksFor(tb testing.TB, s *Store, f store.Filter, after store.Place, limit int) (looks int, found []store.Delivery, next store.Place) {
	tb.Helper()
	mustDo(tb, s.db.View(func(txn *view) (err error) {
		l := &listing{store: s, txn: txn, filter: f}
		defer l.close()
		found, next, err = l.run(tb.Context(), after, limit)
		looks = l.looks
		return err
	}))
	return looks, found, next
}

func TestLooks(t *testing.T) {
	s := mustOpen(t, Options{Path: t.TempDir()})
	const n = 20_000
	f := fillHistory(t, s, n)
	t.Run("a page of each filter takes as many looks as it has entries, wherever it begins", func(t *testing.T) {
		for name, filter := range singleFilters(f) {
			var after store.Place
			found := 0
			for pages := 0; ; pages++ {
				looks, page, next := looksFor(t, s, filter, after, 50)
				// A second of a search by time is before its bound, and one entry is looked at to see that there is more.
				most := 51
				if name == "until" {
					most += 2 * int(leastSkew/time.Millisecond)
				}
				if name == "since" && next == (store.Place{}) {
					most += int(leastSkew / time.Millisecond)
				}
				if name == "state delivered" || name == "class ok" {
					most += 210 // the few that are not, and at the end what is pending
				}
				if looks > most || len(page) < 50 && next != (store.Place{}) {
					t.Errorf("%s, page %d: %d looks for %d deliveries, want %d at most", name, pages, looks, len(page), most)
				}
				found += len(page)
				if after = next; after == (store.Place{}) {
					break
				}
			}
			if found < 50 {
				t.Errorf("%s: found %d, want 50 at least", name, found)
			}
		}
	})
	t.Run("two filters take as many as the rarer has entries", func(t *testing.T) {
		for name, filter := range pairFilters {
			looks, page, next := looksFor(t, s, filter, store.Place{}, 50)
			if looks > 2000 || len(page) == 0 {
				t.Errorf("%s: %d looks for %d deliveries, next %v", name, looks, len(page), next)
			}
		}
	})
	t.Run("a search that finds nothing stops, says where, and comes to its end", func(t *testing.T) {
		total := 0
		var after store.Place
		for range n {
			looks, page, next := looksFor(t, s, store.Filter{Text: "not there"}, after, 50)
			if looks > maxLooks || len(page) != 0 {
				t.Fatalf("%d looks for %d deliveries, want %d at most for none", looks, len(page), maxLooks)
			}
			total += looks
			if after = next; after == (store.Place{}) {
				break
			}
		}
		if total < n || total > n+n/maxLooks+1 {
			t.Errorf("got %d looks, want one for each of %d", total, n)
		}
	})
}

func TestListDamaged(t *testing.T) {
	s := mustOpen(t, Options{Path: t.TempDir()})
	ids := fill(t, s, 4, 100)
	now := time.Now()
	for _, d := range mustDueAll(t, s)[:2] {
		after := d
		after.State, after.EndedAt = store.Delivered, now
		mustRecord(t, s, d, after, store.Attempt{Delivery: d.ID, Round: 1, Number: 1, Class: store.ClassOK})
	}
	spoil(t, s, deliveryKey(ids[0].Delivery(0)))
	spoil(t, s, messageKey(ids[2]))
	for name, c := range map[string]struct {
		filter store.Filter
		want   []int
	}{
		"all":         {store.Filter{}, []int{3, 1}},
		"destination": {store.Filter{Destination: "alerts"}, []int{3, 1}},
		"delivered":   {store.Filter{State: store.Delivered}, []int{1}},
		"pending":     {store.Filter{State: store.Pending}, []int{3}},
	} {
		t.Run("what cannot be read is left out of "+name, func(t *testing.T) {
			found, next, err := s.Deliveries(t.Context(), c.filter, store.Place{}, 10)
			mustDo(t, err)
			var got []int
			for _, d := range found {
				got = append(got, slices.Index(ids, d.ID.Message()))
			}
			if !slices.Equal(got, c.want) || next != (store.Place{}) {
				t.Errorf("got %v, next %v; want %v and the end", got, next, c.want)
			}
		})
	}
}

// BenchmarkDeliveries lists 50 of a million by each filter and by pairs of them: the first page, and the one that is
// reached after 999 others, or the last that has any if there are fewer. A search for a text looks at a bounded number of
// records and may find less.
func BenchmarkDeliveries(b *testing.B) {
	const n, limit, deep = 1_000_000, 50, 1000
	s, err := Open(Options{Path: b.TempDir(), MaxPending: 1 << 40})
	mustDo(b, err)
	f := fillHistory(b, s, n)
	middle := f.start.Add(f.end.Sub(f.start) / 2)
	filters := singleFilters(f)
	filters["time range"] = store.Filter{Since: middle, Until: middle.Add(100 * time.Second)}
	filters["whole id"] = store.Filter{Text: f.first.String()}
	filters["text in an event"] = store.Filter{Text: "Event.3"}
	filters["text in few errors"] = store.Filter{Text: "no answer"}
	for name, filter := range pairFilters {
		filters[name] = filter
	}
	for _, name := range sortedNames(filters) {
		page, after := 1, store.Place{}
		for _, want := range []int{1, deep} {
			last := page
			for n, at := page, after; n <= want; n++ {
				found, next, err := s.Deliveries(b.Context(), filters[name], at, limit)
				mustDo(b, err)
				if len(found) > 0 {
					page, after = n, at
				}
				if at = next; at == (store.Place{}) {
					break
				}
			}
			if want > 1 && page == last {
				continue // there is no other
			}
			b.Run(fmt.Sprintf("%s/page %d", name, page), func(b *testing.B) {
				found := 0
				for b.Loop() {
					got, _, err := s.Deliveries(b.Context(), filters[name], after, limit)
					mustDo(b, err)
					found = len(got)
				}
				b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/page")
				b.ReportMetric(float64(found), "found")
				b.ReportMetric(0, "ns/op") // not shown
			})
		}
	}
	mustDo(b, s.Close())
}

func sortedNames(filters map[string]store.Filter) []string {
	names := make([]string, 0, len(filters))
	for name := range filters {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
