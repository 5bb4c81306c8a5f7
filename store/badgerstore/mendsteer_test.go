package badgerstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// What steering and mending do to the same lines.

// loseHead damages the delivery that is the head of its line so that nothing tells what it was.
func loseHead(tb testing.TB, s *Store, d store.Delivery) {
	tb.Helper()
	spoil(tb, s, queueKey(d.Destination, d.Cursor()))
	spoil(tb, s, messageKey(d.ID.Message()))
	if there, err := hasOutside(s, deliveryKey(d.ID)); err != nil || there {
		mustDo(tb, err)
		spoil(tb, s, deliveryKey(d.ID))
	}
}

func hasOutside(s *Store, key []byte) (there bool, err error) {
	err = s.db.View(func(txn *view) error {
		there, err = has(txn, key)
		return err
	})
	return there, err
}

// checkBacklog compares what the store says is pending with the keys of what is.
func checkBacklog(tb testing.TB, s *Store, want int64) {
	tb.Helper()
	counts, total, err := countPending(s.db)
	mustDo(tb, err)
	backlog, err := s.Backlog(tb.Context())
	mustDo(tb, err)
	names, err := s.PendingDestinations(tb.Context())
	mustDo(tb, err)
	got := make(map[string]int64)
	for name, b := range backlog {
		if b.Pending != 0 { // else a line is held up, and nobody waits
			got[name] = b.Pending
		}
	}
	if !maps.Equal(got, counts) || !slices.Equal(names, slices.Sorted(maps.Keys(counts))) {
		tb.Errorf("backlog: got %v of %v, want %v as their keys say", got, names, counts)
	}
	if s.Pending() != total || want >= 0 && total != want {
		tb.Errorf("pending: got %d, keys of %d, want %d", s.Pending(), total, want)
	}
}

// wantDue wants exactly these to be due.
func wantDue(tb testing.TB, s *Store, want ...store.Delivery) {
	tb.Helper()
	if got := mustDueAll(tb, s); !slices.Equal(got, want) {
		tb.Fatalf("Due: got %+v, want %+v", got, want)
	}
}

func mustCancel(tb testing.TB, s *Store, d store.Delivery) (released store.Delivery) {
	tb.Helper()
	_, released, err := s.Cancel(tb.Context(), d.ID, time.Now(), "by hand")
	mustDo(tb, err)
	return released
}

// wantNoLines wants nothing of any line to be left.
func wantNoLines(tb testing.TB, s *Store) {
	tb.Helper()
	if keys := keysIn(tb, s); keys["t"]+keys["l"]+keys["k"] != 0 {
		tb.Errorf("keys: got %v, want none of a line", keys)
	}
}

// block ends the head of a line so that it holds the line up.
func block(tb testing.TB, s *Store, d store.Delivery) {
	tb.Helper()
	after := d
	after.State, after.EndedAt, after.DueAt, after.Blocking = store.Failed, time.Now(), time.Time{}, true
	mustRecord(tb, s, d, after, store.Attempt{})
}

func TestSteerAndMend(t *testing.T) {
	for name, c := range map[string]func(t *testing.T, s *Store, restart func() *Store){
		"a gap is no damage, and a damaged head is passed over beyond it": func(t *testing.T, s *Store, restart func() *Store) {
			all := acceptLine(t, s, "a", 6)
			mustCancel(t, s, all[1])
			loseHead(t, s, all[0])
			s = restart()
			wantDue(t, s, all[2])
			checkBacklog(t, s, 5)
			mustCancel(t, s, all[3])
			loseHead(t, s, all[2])
			s = restart()
			wantDue(t, s, all[4])
			checkBacklog(t, s, 4)
			if got := endDelivery(t, s, all[4]); got != all[5] {
				t.Errorf("released: got %+v, want the last", got)
			}
			endDelivery(t, s, all[5])
			wantNoLines(t, s)
			checkBacklog(t, s, 2)
		},
		"a gap and a damaged place side by side": func(t *testing.T, s *Store, restart func() *Store) {
			all := acceptLine(t, s, "a", 6)
			key := lineKey(kindLine, "alerts", "a")
			mustCancel(t, s, all[1])
			spoil(t, s, waitingKey(key, 3))
			mustCancel(t, s, all[3])
			s = restart()
			if got := endDelivery(t, s, all[0]); got != all[4] {
				t.Errorf("released: got %+v, want the one behind all of them", got)
			}
			s = restart()
			checkBacklog(t, s, 3)
			endDelivery(t, s, endDelivery(t, s, all[4]))
			s = restart()
			checkBacklog(t, s, 1)
			more := acceptLine(t, s, "a", 2)
			wantDue(t, s, more[0])
			endDelivery(t, s, endDelivery(t, s, more[0]))
			checkBacklog(t, s, 1)
			mustCancel(t, s, all[2])
			wantNoLines(t, s)
			checkBacklog(t, s, 0)
		},
		"when a head is canceled the next is known as the head": func(t *testing.T, s *Store, restart func() *Store) {
			all := acceptLine(t, s, "a", 4)
			mustCancel(t, s, all[1])
			if got := mustCancel(t, s, all[0]); got != all[2] {
				t.Errorf("released: got %+v, want the third", got)
			}
			s = restart()
			loseHead(t, s, all[2])
			s = restart()
			wantDue(t, s, all[3])
			checkBacklog(t, s, 2)
		},
		"a passed place is canceled, and the line goes on as it was": func(t *testing.T, s *Store, restart func() *Store) {
			all := acceptLine(t, s, "a", 4)
			spoil(t, s, waitingKey(lineKey(kindLine, "alerts", "a"), 2))
			endDelivery(t, s, all[0])
			s = restart()
			if got := mustCancel(t, s, all[1]); got != (store.Delivery{}) {
				t.Errorf("released: got %+v, want none", got)
			}
			wantDue(t, s, all[2])
			endDelivery(t, s, endDelivery(t, s, all[2]))
			wantNoLines(t, s)
			checkBacklog(t, s, 0)
		},
		"a line that is kept for a passed place ends when that is canceled": func(t *testing.T, s *Store, restart func() *Store) {
			all := acceptLine(t, s, "a", 3)
			spoil(t, s, waitingKey(lineKey(kindLine, "alerts", "a"), 3))
			endDelivery(t, s, endDelivery(t, s, all[0]))
			s = restart()
			checkBacklog(t, s, 1)
			mustCancel(t, s, all[2])
			wantNoLines(t, s)
			checkBacklog(t, s, 0)
		},
		"and when that is replayed, which then stands in no line": func(t *testing.T, s *Store, restart func() *Store) {
			all := acceptLine(t, s, "a", 2)
			spoil(t, s, waitingKey(lineKey(kindLine, "alerts", "a"), 2))
			endDelivery(t, s, all[0])
			s = restart()
			d, err := s.Replay(t.Context(), all[1].ID, all[1].DueAt)
			mustDo(t, err)
			s = restart()
			wantDue(t, s, d)
			wantNoLines(t, s)
			checkBacklog(t, s, 1)
		},
		"a blocking one is replayed in a line that was kept": func(t *testing.T, s *Store, restart func() *Store) {
			all := acceptLine(t, s, "a", 2)
			spoil(t, s, waitingKey(lineKey(kindLine, "alerts", "a"), 2))
			endDelivery(t, s, all[0])
			more := acceptLine(t, s, "a", 3)
			block(t, s, more[0])
			mustCancel(t, s, more[1])
			s = restart()
			d, err := s.Replay(t.Context(), more[0].ID, time.Now())
			mustDo(t, err)
			wantDue(t, s, d)
			checkBacklog(t, s, 3)
			loseHead(t, s, d)
			s = restart()
			wantDue(t, s, more[2])
			checkBacklog(t, s, 3)
		},
		"a blocking one is the head again though its line is damaged": func(t *testing.T, s *Store, restart func() *Store) {
			all := acceptLine(t, s, "a", 3)
			block(t, s, all[0])
			spoil(t, s, lineKey(kindLine, "alerts", "a"))
			s = restart()
			d, err := s.Replay(t.Context(), all[0].ID, time.Now())
			mustDo(t, err)
			s = restart()
			wantDue(t, s, d)
			checkBacklog(t, s, 3)
			loseHead(t, s, d)
			wantDue(t, s, all[1])
			checkBacklog(t, s, 3)
		},
		"a released line knows its head": func(t *testing.T, s *Store, restart func() *Store) {
			all := acceptLine(t, s, "a", 4)
			block(t, s, all[0])
			mustCancel(t, s, all[1])
			s = restart()
			if n, err := s.Release(t.Context(), "alerts", 10); n != 1 || err != nil {
				t.Errorf("Release: %d, error %v; want 1", n, err)
			}
			s = restart()
			loseHead(t, s, all[2])
			wantDue(t, s, all[3])
			checkBacklog(t, s, 2)
		},
		"one that was passed over and can be read again moves nobody when it goes": func(t *testing.T, s *Store, restart func() *Store) {
			all := acceptLine(t, s, "a", 3)
			loseHead(t, s, all[0])
			wantDue(t, s, all[1])
			loseHead(t, s, all[0]) // the same bits back
			s = restart()
			wantDue(t, s, all[0], all[1])
			if got := mustCancel(t, s, all[0]); got != (store.Delivery{}) {
				t.Errorf("released: got %+v, want none", got)
			}
			wantDue(t, s, all[1])
			checkBacklog(t, s, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Path: t.TempDir(), Log: zap.NewNop()}
			s := mustOpen(t, o)
			c(t, s, func() *Store { return s })
		})
		t.Run(name+", with restarts in between", func(t *testing.T) {
			o := Options{Path: t.TempDir(), Log: zap.NewNop()}
			s := mustOpen(t, o)
			c(t, s, func() *Store {
				mustDo(t, s.Close())
				s = mustOpen(t, o)
				return s
			})
		})
	}
}

func TestMendHeadBehind(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		t.Run("a head whose way into the queue was lost is counted once", func(t *testing.T) {
			o := Options{Path: t.TempDir(), Log: zap.NewNop()}
			s := mustOpen(t, o)
			all := acceptLine(t, s, "a", 3)
			endDelivery(t, s, all[0])
			removeKey(t, s, queueKey("alerts", all[1].Cursor()))
			place := waitingKey(lineKey(kindLine, "alerts", "a"), 2)
			mustDo(t, s.db.Update(func(txn *badger.Txn) error {
				return txn.Set(place, seal(place, all[1].ID[:], encodeDelivery(all[1])))
			}))
			if damaged {
				spoil(t, s, place)
			}
			mustDo(t, s.Close())
			s = mustOpen(t, o)
			wantDue(t, s, all[1])
			checkBacklog(t, s, 2)
			listed, _, err := s.Deliveries(t.Context(), store.Filter{Destination: "alerts", State: store.Pending}, store.Place{}, 10)
			if want := []store.Delivery{all[2], all[1]}; err != nil || !slices.Equal(listed, want) {
				t.Errorf("listed: got %+v, error %v; want %+v", listed, err, want)
			}
			endDelivery(t, s, endDelivery(t, s, all[1]))
			wantNoLines(t, s)
			checkBacklog(t, s, 0)
		})
	}
	t.Run("the place of a head that is lost is nobody else's", func(t *testing.T) {
		o := Options{Path: t.TempDir(), Log: zap.NewNop()}
		s := mustOpen(t, o)
		all := acceptLine(t, s, "a", 2)
		endDelivery(t, s, all[0])
		removeKey(t, s, queueKey("alerts", all[1].Cursor()))
		removeKey(t, s, messageKey(all[1].ID.Message()))
		place := waitingKey(lineKey(kindLine, "alerts", "a"), 2)
		mustDo(t, s.db.Update(func(txn *badger.Txn) error { return txn.Set(place, []byte("damaged")) }))
		mustDo(t, s.Close())
		s = mustOpen(t, o)
		more := acceptLine(t, s, "a", 3)
		wantDue(t, s, more[0])
		checkBacklog(t, s, 4)
		for i := range more {
			endDelivery(t, s, more[i])
		}
		checkBacklog(t, s, 1)
	})
}

// placeOf returns the key of a delivery's place behind the head of its line, or nil.
func placeOf(tb testing.TB, s *Store, d store.Delivery) (place []byte) {
	tb.Helper()
	mustDo(tb, s.db.View(func(txn *view) error {
		content, err := get(txn, destinationIndexKey(d.Destination, d.ID))
		if err != nil || len(content) != 8 {
			return nil //nolint:nilerr // the entry of one that stands behind nobody is empty
		}
		key := waitingKey(lineKey(kindLine, d.Destination, d.Order), binary.BigEndian.Uint64(content))
		if content, err = get(txn, key); err == nil && bytes.HasPrefix(content, d.ID[:]) {
			place = key
		}
		return nil
	}))
	return place
}

func TestRandomDamage(t *testing.T) {
	t.Run("whatever is steered, damaged and restarted, the backlog is what is pending, and lines go on", func(t *testing.T) {
		for seed := range uint64(4) {
			o := Options{Path: t.TempDir(), Log: zap.NewNop()}
			w := &damager{TB: t, s: mustOpen(t, o), random: rand.New(rand.NewPCG(seed, 7)), lost: make(map[store.DeliveryID]bool)}
			for range 150 {
				if n := w.random.IntN(100); n < 3 {
					mustDo(t, w.s.Close())
					w.s = mustOpen(t, o)
				} else {
					w.step(n)
				}
				checkBacklog(t, w.s, -1)
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
			w.drain()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	})
}

// damager steers and damages the deliveries of three lines.
type damager struct {
	testing.TB
	s      *Store
	random *rand.Rand
	all    []store.Delivery          // as accepted
	lost   map[store.DeliveryID]bool // nothing tells what they were
}

// step does one thing; n, from 0 to 99, says what.
func (w *damager) step(n int) {
	w.Helper()
	order := []string{"a", "b", "c"}[w.random.IntN(3)]
	if n < 30 || len(w.all) == 0 {
		w.all = append(w.all, acceptLine(w, w.s, order, 1+w.random.IntN(4))...)
		return
	}
	one := w.all[w.random.IntN(len(w.all))]
	due := mustDueAll(w, w.s)
	var head store.Delivery
	if len(due) > 0 {
		head = due[w.random.IntN(len(due))]
	}
	switch {
	case n < 40:
		if !w.lost[one.ID] {
			if _, _, err := w.s.Cancel(w.Context(), one.ID, time.Now(), ""); err != nil && !errors.Is(err, store.ErrStale) {
				w.Fatalf("Cancel: %v", err)
			}
		}
	case n < 50:
		if !w.lost[one.ID] {
			_, err := w.s.Replay(w.Context(), one.ID, time.Now())
			mustDo(w, err)
		}
	case n < 60:
		if place := placeOf(w, w.s, one); place != nil {
			spoil(w, w.s, place)
		}
	case n < 65:
		_, err := w.s.Release(w.Context(), "alerts", 1+w.random.IntN(3))
		mustDo(w, err)
	case head == store.Delivery{}:
	case n < 75:
		if head.Order != "" {
			loseHead(w, w.s, head)
			w.lost[head.ID] = true
		}
	case n < 85:
		block(w, w.s, head)
	default:
		endDelivery(w, w.s, head)
	}
}

// drain ends all that can be ended, and wants nothing to be pending then but what is lost.
func (w *damager) drain() {
	w.Helper()
	for range 10_000 {
		due := mustDueAll(w, w.s)
		heads := make(map[string]bool)
		for _, d := range due {
			if d.Order != "" && heads[d.Order] {
				w.Errorf("two of line %q are due", d.Order)
			}
			heads[d.Order] = true
			endDelivery(w, w.s, d)
		}
		n, err := w.s.Release(w.Context(), "alerts", 100)
		mustDo(w, err)
		if len(due)+n == 0 {
			break
		}
	}
	for _, d := range w.all { // those whose places are damaged are left
		if w.lost[d.ID] {
			continue
		}
		if _, _, err := w.s.Cancel(w.Context(), d.ID, time.Now(), ""); err != nil && !errors.Is(err, store.ErrStale) {
			w.Errorf("Cancel: %v", err)
		}
	}
	wantNoLines(w, w.s)
	checkBacklog(w, w.s, int64(len(w.lost)))
	for _, state := range []store.State{store.Pending, store.Delivered, store.Failed, store.Canceled} {
		listed, _, err := w.s.Deliveries(w.Context(), store.Filter{Destination: "alerts", State: state}, store.Place{}, len(w.all)+1)
		mustDo(w, err)
		var want []store.DeliveryID
		for _, d := range slices.Backward(w.all) {
			if w.lost[d.ID] {
				continue
			}
			if got, err := w.s.Delivery(w.Context(), d.ID); err == nil && got.State == state {
				want = append(want, d.ID)
			}
		}
		var got []store.DeliveryID
		for _, d := range listed {
			got = append(got, d.ID)
		}
		if !slices.Equal(got, want) {
			w.Errorf("%s: listed %d, want the %d that are", state, len(got), len(want))
		}
	}
}
