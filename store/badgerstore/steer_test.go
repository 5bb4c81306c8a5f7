package badgerstore

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func deliver(d store.Delivery, at time.Time) store.Delivery {
	d.State, d.DueAt, d.EndedAt = store.Delivered, time.Time{}, at
	return d
}

func TestSweepAndReplay(t *testing.T) {
	t.Run("a delivery that is replayed while its message is about to be swept stays, with all that it has", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		ids := fill(t, s, 2, 100)
		now := time.Now()
		for _, d := range mustDueAll(t, s) {
			mustRecord(t, s, d, deliver(d, now), store.Attempt{Delivery: d.ID, Round: 1, Number: 1, Class: store.ClassOK})
		}
		before := toMillis(now.Add(time.Hour))
		keys, _, err := s.endedBefore(before, 10)
		mustDo(t, err)
		w := sweeping{store: s, before: before, seen: make(map[store.MessageID]bool)}
		for _, key := range keys {
			mustDo(t, w.add(t.Context(), key))
		}
		d, err := s.Replay(t.Context(), ids[0].Delivery(0), now)
		mustDo(t, err)
		mustDo(t, w.flush(t.Context()))
		if w.deleted != 1 {
			t.Errorf("deleted: got %d, want the other message", w.deleted)
		}
		if _, _, err := s.Load(t.Context(), ids[0]); err != nil {
			t.Errorf("Load: %v", err)
		}
		if a, err := s.Attempts(t.Context(), d.ID, 10); err != nil || len(a) != 1 {
			t.Errorf("Attempts: %d, error %v; want 1", len(a), err)
		}
		mustRecord(t, s, d, deliver(d, now), store.Attempt{})
		if n, _, err := s.Sweep(t.Context(), before, 10); n != 1 || err != nil {
			t.Errorf("Sweep: %d, error %v; want 1", n, err)
		}
		if got := keysIn(t, s); len(got) != 0 {
			t.Errorf("keys: %v, want none", got)
		}
	})
	t.Run("whatever was steered, a sweep leaves nothing", func(t *testing.T) {
		for seed := range uint64(5) {
			s := mustOpen(t, Options{Path: t.TempDir()})
			random := rand.New(rand.NewPCG(seed, 1))
			now := time.Now()
			var all []store.DeliveryID
			for range 30 {
				m := newMessage(t, "alerts", "audit")
				m.Recipients[0].Order = []string{"", "a", "b"}[random.IntN(3)]
				_, _, err := s.Accept(t.Context(), m, nil)
				mustDo(t, err)
				all = append(all, m.ID.Delivery(0), m.ID.Delivery(1))
			}
			for range 200 {
				id := all[random.IntN(len(all))]
				var err error
				switch random.IntN(4) {
				case 0:
					_, err = s.Replay(t.Context(), id, now)
				case 1:
					_, _, err = s.Cancel(t.Context(), id, now, "by hand")
				case 2:
					err = s.Reduce(t.Context(), id.Message(), []byte("less"))
				default:
					due := mustDueAll(t, s)
					if len(due) == 0 {
						continue
					}
					d := due[random.IntN(len(due))]
					after := deliver(d, now)
					after.State, after.Blocking, after.Made = store.Failed, random.IntN(2) == 0, d.Made+1
					_, err = s.Record(t.Context(), d, after, store.Attempt{Delivery: d.ID, Round: d.Round, Number: d.Made + 1, Class: store.ClassDNS})
				}
				if err != nil && !errors.Is(err, store.ErrStale) {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			for range 10_000 { // a Blocking one lets its line go, others end
				left := 0
				for _, id := range all {
					if _, _, err := s.Cancel(t.Context(), id, now, ""); err == nil {
						left++
					}
				}
				if left == 0 {
					break
				}
			}
			for range 100 {
				_, more, err := s.Sweep(t.Context(), now.Add(time.Hour), 10)
				mustDo(t, err)
				if !more {
					break
				}
			}
			if got := keysIn(t, s); len(got) != 0 || s.Pending() != 0 {
				t.Errorf("seed %d: keys %v, %d pending; want none", seed, got, s.Pending())
			}
		}
	})
}

func TestSteerReserve(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 40)
	s := mustOpen(t, Options{Path: t.TempDir(), MinFree: 1 << 30, free: func(string) (int64, error) { return free.Load(), nil }})
	ids := fill(t, s, 3, 100)
	d := mustDue(t, s)
	mustRecord(t, s, d, deliver(d, time.Now()), store.Attempt{})
	free.Store(1<<30 - 1)
	t.Run("below the reserve nothing is replayed, and other steering goes on", func(t *testing.T) {
		if _, err := s.Replay(t.Context(), d.ID, time.Now()); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("Replay: got error %v, want ErrNoSpace", err)
		}
		_, err := s.Expedite(t.Context(), ids[1].Delivery(0), time.Now())
		mustDo(t, err)
		_, _, err = s.Cancel(t.Context(), ids[1].Delivery(0), time.Now(), "")
		mustDo(t, err)
		mustDo(t, s.Reduce(t.Context(), ids[0], nil))
	})
	free.Store(1<<29 - 1)
	t.Run("below half of it nothing is", func(t *testing.T) {
		_, expediteErr := s.Expedite(t.Context(), ids[2].Delivery(0), time.Now())
		_, _, cancelErr := s.Cancel(t.Context(), ids[2].Delivery(0), time.Now(), "")
		for _, err := range []error{expediteErr, cancelErr, s.Reduce(t.Context(), ids[0], nil)} {
			if !errors.Is(err, store.ErrNoSpace) {
				t.Errorf("got error %v, want ErrNoSpace", err)
			}
		}
	})
}

func TestReduceLarge(t *testing.T) {
	t.Run("where a message leaves no room for it, nothing of its body is kept", func(t *testing.T) {
		for headers, want := range map[int]int{16 << 10: store.MaxReduced, 900 << 10: 0} {
			s := mustOpen(t, Options{Path: t.TempDir()})
			m := newMessage(t)
			m.Header = []store.Field{{Name: "X-A", Value: string(make([]byte, headers))}}
			_, _, err := s.Accept(t.Context(), m, make([]byte, 3<<20))
			mustDo(t, err)
			mustDo(t, s.Reduce(t.Context(), m.ID, make([]byte, store.MaxReduced)))
			got, body, err := s.Load(t.Context(), m.ID)
			if err != nil || !got.Reduced || got.Size != 3<<20 || len(body) != want {
				t.Errorf("%d KiB of headers: body of %d bytes, reduced %t, error %v; want %d", headers>>10, len(body), got.Reduced, err, want)
			}
			if n := keysIn(t, s)["b"]; n != want/chunkSize {
				t.Errorf("%d KiB of headers: got %d chunks, want %d", headers>>10, n, want/chunkSize)
			}
		}
	})
}

func TestSteerDamaged(t *testing.T) {
	setup := func(t *testing.T) (s *Store, ids []store.MessageID, line []byte) {
		t.Helper()
		s = mustOpen(t, Options{Path: t.TempDir()})
		for range 3 {
			m := newMessage(t, "alerts")
			m.Recipients[0].Order = "a"
			_, _, err := s.Accept(t.Context(), m, nil)
			mustDo(t, err)
			ids = append(ids, m.ID)
		}
		return s, ids, lineKey(kindLine, "alerts", "a")
	}
	t.Run("one whose place in a line is damaged can be canceled, and the line goes on", func(t *testing.T) {
		s, ids, line := setup(t)
		spoil(t, s, waitingKey(line, 2))
		_, _, err := s.Cancel(t.Context(), ids[1].Delivery(0), time.Now(), "")
		mustDo(t, err)
		head := mustDue(t, s)
		if released := mustRecord(t, s, head, deliver(head, time.Now()), store.Attempt{}); released.ID != ids[2].Delivery(0) {
			t.Errorf("released: got %s, want the third", released.ID)
		}
	})
	t.Run("one whose place is not known is left as it is", func(t *testing.T) {
		s, ids, _ := setup(t)
		spoil(t, s, destinationIndexKey("alerts", ids[1].Delivery(0)))
		if _, _, err := s.Cancel(t.Context(), ids[1].Delivery(0), time.Now(), ""); !errors.Is(err, errChecksum) {
			t.Errorf("got error %v, want one of the checksum", err)
		}
		if got := s.Pending(); got != 3 {
			t.Errorf("pending: got %d, want 3", got)
		}
	})
}

func TestSkew(t *testing.T) {
	t.Run("a message whose time is not that of its id is found by its time, after a restart too", func(t *testing.T) {
		o := Options{Path: t.TempDir()}
		s := mustOpen(t, o)
		m := newMessage(t, "alerts")
		m.AcceptedAt = time.Now().Add(-90 * time.Minute)
		_, _, err := s.Accept(t.Context(), m, nil)
		mustDo(t, err)
		fill(t, s, 1, 1)
		for range 2 {
			if skew := timeSpan(s.skew.Load()); skew < 90*time.Minute || skew > 4*time.Hour {
				t.Errorf("skew: got %s, want it to cover 90 minutes", skew)
			}
			found, _, err := s.Deliveries(t.Context(), store.Filter{Until: time.Now().Add(-time.Hour)}, store.Place{}, 10)
			if err != nil || len(found) != 1 || found[0].ID != m.ID.Delivery(0) {
				t.Errorf("found %d, error %v; want the one that came late", len(found), err)
			}
			mustDo(t, s.Close())
			s = mustOpen(t, o)
		}
	})
}
