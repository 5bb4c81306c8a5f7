package storetest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func testQueue(t *testing.T, open Open) {
	t.Run("deliveries come in order of due time, then id", func(t *testing.T) {
		s := open(t, Options{})
		var want []store.Delivery
		for _, delay := range []time.Duration{2 * time.Hour, 0, time.Hour, 0, time.Millisecond} {
			m := message(t, "alerts", "audit")
			m.Recipients[0].Delay = delay
			accept(t, s, m, "")
			want = append(want, m.Delivery(0))
		}
		want = []store.Delivery{want[1], want[3], want[4], want[2], want[0]}
		equal(t, "all", due(t, s, "alerts", store.Cursor{}, 100), want)
		for i, d := range want {
			equal(t, "behind a cursor", due(t, s, "alerts", d.Cursor(), 2), append([]store.Delivery(nil), want[i+1:min(i+3, 5)]...))
		}
		between := store.Cursor{DueAt: start.Add(time.Minute)}
		equal(t, "behind a place between", due(t, s, "alerts", between, 1), want[3:4])
	})
	t.Run("destinations whose names begin alike are apart", func(t *testing.T) {
		s := open(t, Options{})
		names := []string{"a", "a.b", "aa", "a\x01", "b", "\xff"}
		for _, name := range names {
			accept(t, s, message(t, name), "")
		}
		for _, name := range names {
			got := due(t, s, name, store.Cursor{}, 10)
			if len(got) != 1 || got[0].Destination != name {
				t.Errorf("Due(%q): got %+v, want its one delivery", name, got)
			}
		}
		equal(t, "of nobody", len(due(t, s, "a.", store.Cursor{}, 10)), 0)
		got, err := s.PendingDestinations(t.Context())
		if err != nil {
			t.Fatalf("PendingDestinations: %v", err)
		}
		equal(t, "destinations", got, []string{"a", "a\x01", "a.b", "aa", "b", "\xff"})
	})
	t.Run("one recipient twice has two deliveries", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts", "alerts")
		accept(t, s, m, "")
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{m.Delivery(0), m.Delivery(1)})
	})
	t.Run("what comes in before the head is seen", func(t *testing.T) {
		s := open(t, Options{})
		late := message(t, "alerts")
		late.Recipients[0].Delay = time.Hour
		accept(t, s, late, "")
		equal(t, "late", due(t, s, "alerts", store.Cursor{}, 1), []store.Delivery{late.Delivery(0)})
		early := message(t, "alerts")
		accept(t, s, early, "")
		equal(t, "early", due(t, s, "alerts", store.Cursor{}, 1), []store.Delivery{early.Delivery(0)})
		after, a := end(early.Delivery(0), store.Delivered, start)
		record(t, s, early.Delivery(0), after, a)
		equal(t, "late again", due(t, s, "alerts", store.Cursor{}, 2), []store.Delivery{late.Delivery(0)})
		earliest := message(t, "alerts")
		earliest.AcceptedAt = start.Add(-time.Hour)
		accept(t, s, earliest, "")
		equal(t, "earliest", due(t, s, "alerts", store.Cursor{}, 2), []store.Delivery{earliest.Delivery(0), late.Delivery(0)})
	})
	t.Run("an emptied queue fills again", func(t *testing.T) {
		s := open(t, Options{})
		for range 3 {
			m := message(t, "alerts")
			accept(t, s, m, "")
			d := due(t, s, "alerts", store.Cursor{}, 1)[0]
			after, a := end(d, store.Delivered, start)
			record(t, s, d, after, a)
			equal(t, "left", len(due(t, s, "alerts", store.Cursor{}, 1)), 0)
		}
	})
	t.Run("a limit of nothing gives nothing", func(t *testing.T) {
		s := open(t, Options{})
		accept(t, s, message(t, "alerts"), "")
		equal(t, "due", len(due(t, s, "alerts", store.Cursor{}, 0)), 0)
	})
	t.Run("readers of a queue that is written to miss nothing", func(t *testing.T) {
		s := open(t, Options{})
		const writers, each = 4, 40
		var writing, reading sync.WaitGroup
		stop := make(chan struct{})
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := s.Due(context.Background(), "alerts", store.Cursor{}, 2); err != nil {
						t.Errorf("Due: %v", err)
						return
					}
				}
			}
		})
		for range writers {
			writing.Go(func() {
				for n := range each {
					m := message(t, "alerts")
					m.Recipients[0].Delay = time.Duration(each-n) * time.Second // each before the one before
					if _, _, err := s.Accept(context.Background(), m, nil); err != nil {
						t.Errorf("Accept: %v", err)
						return
					}
					first, err := s.Due(context.Background(), "alerts", store.Cursor{}, 1)
					if err != nil || len(first) == 0 || m.Delivery(0).Cursor().Less(first[0].Cursor()) {
						t.Errorf("Due: %+v, error %v; want nothing behind %v", first, err, m.Delivery(0).Cursor())
						return
					}
				}
			})
		}
		writing.Wait()
		close(stop)
		reading.Wait()
		equal(t, "due", len(due(t, s, "alerts", store.Cursor{}, 1000)), writers*each)
	})
}

func testRecord(t *testing.T, open Open) {
	setup := func(t *testing.T) (store.Store, store.Delivery) {
		s := open(t, Options{})
		m := message(t, "alerts")
		accept(t, s, m, "x")
		return s, m.Delivery(0)
	}
	t.Run("a retry moves in the queue", func(t *testing.T) {
		s, d := setup(t)
		other := message(t, "alerts")
		other.Recipients[0].Delay = time.Minute
		accept(t, s, other, "")
		after, a := retry(d, start, start.Add(time.Hour))
		record(t, s, d, after, a)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{other.Delivery(0), after})
		equal(t, "pending", s.Pending(), int64(2))
	})
	t.Run("a retry may keep its place", func(t *testing.T) {
		s, d := setup(t)
		after, a := retry(d, start, d.DueAt)
		record(t, s, d, after, a)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{after})
		equal(t, "pending", s.Pending(), int64(1))
	})
	for _, state := range []store.State{store.Delivered, store.Failed, store.Canceled} {
		t.Run(state.String()+" leaves the queue", func(t *testing.T) {
			s, d := setup(t)
			after, a := end(d, state, start.Add(time.Second))
			after.Reason = "because \xff"
			record(t, s, d, after, a)
			equal(t, "due", len(due(t, s, "alerts", store.Cursor{}, 10)), 0)
			equal(t, "pending", s.Pending(), int64(0))
			got, err := s.Delivery(t.Context(), d.ID)
			if err != nil {
				t.Fatalf("Delivery: %v", err)
			}
			equal(t, "delivery", got, after)
			names, err := s.PendingDestinations(t.Context())
			if err != nil || len(names) != 0 {
				t.Errorf("PendingDestinations: %q, error %v; want none", names, err)
			}
		})
	}
	t.Run("a state that is no longer the stored one is stale", func(t *testing.T) {
		s, d := setup(t)
		second, a := retry(d, start, start.Add(time.Minute))
		record(t, s, d, second, a)
		wrongMade := second
		wrongMade.Made++
		ended, b := end(second, store.Delivered, start)
		unknown := message(t, "alerts").Delivery(0)
		for name, before := range map[string]store.Delivery{"first": d, "never stored": wrongMade, "unknown": unknown} {
			after, a := end(before, store.Failed, start)
			if _, err := s.Record(t.Context(), before, after, a); !errors.Is(err, store.ErrStale) {
				t.Errorf("%s: got error %v, want ErrStale", name, err)
			}
		}
		record(t, s, second, ended, b)
		if _, err := s.Record(t.Context(), second, ended, b); !errors.Is(err, store.ErrStale) {
			t.Errorf("twice: got error %v, want ErrStale", err)
		}
		if _, err := s.Record(t.Context(), ended, ended, b); !errors.Is(err, store.ErrStale) {
			t.Errorf("ended: got error %v, want ErrStale", err)
		}
		attempts, err := s.Attempts(t.Context(), d.ID, 10)
		if err != nil || len(attempts) != 2 {
			t.Errorf("Attempts: %d, error %v; want the 2 that were recorded", len(attempts), err)
		}
	})
	t.Run("of recorders that race one wins", func(t *testing.T) {
		s, d := setup(t)
		after, a := end(d, store.Delivered, start)
		var all sync.WaitGroup
		results := make([]error, 16)
		for i := range results {
			all.Go(func() { _, results[i] = s.Record(context.Background(), d, after, a) })
		}
		all.Wait()
		won := 0
		for _, err := range results {
			if err == nil {
				won++
			} else if !errors.Is(err, store.ErrStale) {
				t.Errorf("got error %v, want ErrStale", err)
			}
		}
		equal(t, "won", won, 1)
		equal(t, "pending", s.Pending(), int64(0))
	})
	t.Run("a state without an attempt adds none", func(t *testing.T) {
		s, d := setup(t)
		after, _ := end(d, store.Failed, start)
		record(t, s, d, after, store.Attempt{})
		attempts, err := s.Attempts(t.Context(), d.ID, 10)
		if err != nil || len(attempts) != 0 {
			t.Errorf("Attempts: %d, error %v; want none", len(attempts), err)
		}
	})
	t.Run("records of another delivery are refused", func(t *testing.T) {
		s, d := setup(t)
		after, a := end(d, store.Failed, start)
		elsewhere, stranger := after, a
		elsewhere.Destination = "audit"
		stranger.Delivery = message(t).ID.Delivery(0)
		if _, err := s.Record(t.Context(), d, elsewhere, a); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("another destination: got error %v, want ErrInvalid", err)
		}
		if _, err := s.Record(t.Context(), d, after, stranger); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("attempt of another delivery: got error %v, want ErrInvalid", err)
		}
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{d})
	})
	t.Run("round and number of an attempt have bounds, and what lies beyond is never written", func(t *testing.T) {
		s, d := setup(t)
		after, a := retry(d, start, start.Add(time.Minute))
		for _, c := range []struct{ round, number int }{
			{1, -1}, {1, store.MaxAttempts + 1}, {0, 1}, {store.MaxRound + 1, 1}, {-1, 1},
		} {
			bad := a
			bad.Round, bad.Number = c.round, c.number
			if _, err := s.Record(t.Context(), d, after, bad); !errors.Is(err, store.ErrInvalid) {
				t.Errorf("attempt %d of round %d: got error %v, want ErrInvalid", c.number, c.round, err)
			}
		}
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{d})
		a.Round, a.Number = store.MaxRound, store.MaxAttempts
		after.Round, after.Made = a.Round, a.Number
		record(t, s, d, after, a)
		equal(t, "due then", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{after})
		all, err := s.Attempts(t.Context(), d.ID, 10)
		if err != nil {
			t.Fatalf("Attempts: %v", err)
		}
		equal(t, "attempts", all, []store.Attempt{a})
	})
	t.Run("the beginning of a round is kept to the millisecond", func(t *testing.T) {
		s, d := setup(t)
		after, a := retry(d, start, start.Add(time.Minute))
		after.BegunAt = start.Add(999 * time.Microsecond).In(time.FixedZone("far", 3600))
		record(t, s, d, after, a)
		after.BegunAt = start
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 10), []store.Delivery{after})
		other := after
		other.BegunAt = time.Time{}
		ended, b := end(other, store.Failed, start)
		if _, err := s.Record(t.Context(), other, ended, b); !errors.Is(err, store.ErrStale) {
			t.Errorf("another beginning: got error %v, want ErrStale", err)
		}
		ended, b = end(after, store.Delivered, start.Add(time.Hour))
		record(t, s, after, ended, b)
		if got, err := s.Delivery(t.Context(), d.ID); err != nil || got != ended || !got.BegunAt.Equal(start) {
			t.Errorf("Delivery: got %+v, error %v; want %+v", got, err, ended)
		}
	})
}

func testHistory(t *testing.T, open Open) {
	t.Run("unknown ids are not found", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts")
		accept(t, s, m, "")
		if _, _, err := s.Load(t.Context(), message(t).ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Load: got error %v, want ErrNotFound", err)
		}
		for _, id := range []store.DeliveryID{message(t).ID.Delivery(0), m.ID.Delivery(1), store.DeliveryID(m.ID)} {
			if _, err := s.Delivery(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("Delivery: got error %v, want ErrNotFound", err)
			}
			if _, err := s.Attempts(t.Context(), id, 1); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("Attempts: got error %v, want ErrNotFound", err)
			}
		}
	})
	t.Run("an attempt comes back as it was", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts")
		accept(t, s, m, "")
		after, a := end(m.Delivery(0), store.Delivered, start)
		a.Error, a.Probe = "no \xff", true
		a.Header = http.Header{"X-A": {"1", "\xfe"}, "Date": {"today"}}
		a.Body, a.Truncated = []byte("answer\x00\xff"), true
		a.RetryHint = 7 * time.Second
		a.Timing = store.Timing{DNS: 1, Connect: 2, TLS: 3, FirstByte: 4}
		a.Peer, a.Reused = "192.0.2.1:443", true
		a.CertExpires = start.AddDate(1, 0, 0)
		a.Request = store.Sent{
			Method: "POST", URL: "https://hooks.example.com/\xff?k=***", Header: []store.Field{{Name: "A", Value: "\xfe"}, {Name: "A"}},
			Body: []byte("sent\x00\xff"), Rendered: true, Truncated: true,
		}
		after.Last = store.Outcome{}
		record(t, s, m.Delivery(0), after, a)
		got, err := s.Attempts(t.Context(), m.ID.Delivery(0), 1)
		if err != nil {
			t.Fatalf("Attempts: %v", err)
		}
		equal(t, "attempts", got, []store.Attempt{a})
	})
	t.Run("a request of an attempt that was sent as posted, and one that was not sent", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "").Delivery(0)
		var want []store.Attempt
		for _, sent := range []store.Sent{{}, {Method: "GET"}, {Rendered: true}, {Header: []store.Field{{Name: "A"}}}} {
			after, a := retry(d, start, start)
			a.Request = sent
			record(t, s, d, after, a)
			want, d = append(want, a), after
		}
		got, err := s.Attempts(t.Context(), d.ID, 10)
		if err != nil {
			t.Fatalf("Attempts: %v", err)
		}
		equal(t, "attempts", got, want)
	})
	t.Run("the latest outcome is kept with the delivery, whatever the caller says of it", func(t *testing.T) {
		s := open(t, Options{})
		d := accept(t, s, message(t, "alerts"), "").Delivery(0)
		after, a := retry(d, start.Add(999*time.Microsecond), start.Add(time.Minute))
		a.Class, a.Status, a.Error = store.ClassTimeout, 0, strings.Repeat("x", store.MaxReason-1)+"\u00e9"
		after.Last = store.Outcome{Status: 7}
		record(t, s, d, after, a)
		want := after
		want.BegunAt = start
		want.Last = store.Outcome{At: start, Class: store.ClassTimeout, Error: strings.Repeat("x", store.MaxReason-1)}
		stored(t, s, "after an attempt", want)
		equal(t, "due", due(t, s, "alerts", store.Cursor{}, 2), []store.Delivery{want})
		want.State, want.DueAt, want.EndedAt = store.Failed, time.Time{}, start
		last := want
		last.Last = store.Outcome{}
		record(t, s, after, last, store.Attempt{})
		stored(t, s, "after a state without an attempt", want)
		equal(t, "listed", listAll(t, s, store.Filter{State: store.Failed, Class: store.ClassTimeout}, 2), []store.Delivery{want})
	})
	t.Run("the latest attempts come, oldest first", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts", "audit")
		accept(t, s, m, "")
		other, b := end(m.Delivery(1), store.Delivered, start)
		record(t, s, m.Delivery(1), other, b)
		d := m.Delivery(0)
		const made = 300 // more than a byte counts
		for n := range made {
			after, a := retry(d, start.Add(time.Duration(n)*time.Second), start.Add(time.Hour))
			record(t, s, d, after, a)
			d = after
		}
		for _, limit := range []int{0, 1, 3, made, made + 1} {
			got, err := s.Attempts(t.Context(), d.ID, limit)
			if err != nil || len(got) != min(limit, made) {
				t.Fatalf("Attempts(%d): %d, error %v; want %d", limit, len(got), err, min(limit, made))
			}
			for i, a := range got {
				if want := made - len(got) + i + 1; a.Number != want {
					t.Errorf("Attempts(%d)[%d]: number %d, want %d", limit, i, a.Number, want)
				}
			}
		}
	})
}
