package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

// moved returns a message whose attempts alone are some times 100 KiB, with deliveries in all states, in lines too.
func moved(tb testing.TB, attempts int) store.Exported {
	tb.Helper()
	m := newMessage(tb, "alerts", "audit", "alerts", "alerts", "audit", "audit")
	m.AcceptedAt, m.Size = exportTime, 70_000
	m.Idempotency = &store.Idempotency{Key: [32]byte{9}, Content: [32]byte{9}}
	for _, n := range []int{1, 2, 3, 4, 5} {
		m.Recipients[n].Order = "=k"
	}
	x := store.Exported{Message: m, Body: bytes.Repeat([]byte("x"), m.Size)}
	for n := range m.Recipients {
		d := store.ExportedDelivery{Delivery: m.Delivery(n)}
		switch n {
		case 0:
			d.State, d.EndedAt, d.DueAt = store.Delivered, exportTime, time.Time{}
		case 1:
			d.State, d.EndedAt, d.DueAt, d.Blocking = store.Failed, exportTime, time.Time{}, true
		case 2:
			d.DueAt = exportTime.Add(time.Hour)
		case 4: // as it was accepted
			x.Deliveries = append(x.Deliveries, d)
			continue
		}
		for i := range attempts / len(m.Recipients) {
			d.History = append(d.History, store.Attempt{
				Delivery: d.ID, Round: 1, Number: i + 1, StartedAt: exportTime, Class: store.ClassStatus, Status: 500, Body: bytes.Repeat([]byte("y"), 100<<10),
			})
			d.Made, d.Last = i+1, d.History[i].Outcome()
		}
		x.Deliveries = append(x.Deliveries, d)
	}
	return x
}

// inLine is a message that stands in the same line as moved.
func inLine(tb testing.TB) store.Message {
	m := newMessage(tb, "alerts", "audit")
	m.Recipients[0].Order, m.Recipients[1].Order = "=k", "=k"
	return m
}

func one(x store.Exported) func(yield func(store.Exported, error) bool) {
	return func(yield func(store.Exported, error) bool) { yield(x, nil) }
}

func TestImportLong(t *testing.T) {
	t.Run("of a message of many groups a failure at any of them leaves nothing, and it can come again", func(t *testing.T) {
		x := moved(t, 36)
		ended := false
		for fail := 1; !ended; fail++ {
			// In a line of its own store, and not in one.
			for _, before := range []bool{false, true} {
				groups := 0
				var failing bool
				s := mustOpen(t, Options{Path: t.TempDir(), commit: func(txn *badger.Txn) error {
					if failing {
						if groups++; groups == fail {
							return errors.New("the disk is gone")
						}
					}
					return txn.Commit()
				}})
				if before {
					_, _, err := s.Accept(t.Context(), inLine(t), nil)
					mustDo(t, err)
				}
				want := contents(t, s)
				failing = true
				_, err := s.Import(t.Context(), one(x))
				ended = err == nil
				if ended {
					if groups < 5 {
						t.Fatalf("it took %d groups: this tests nothing", groups)
					}
					break
				}
				again := mustOpen(t, Options{Path: snapshot(t, s.path)})
				sameContents(t, contents(t, again), want)
				checkWhole(t, again)
				done, err := again.Import(t.Context(), one(x))
				if err != nil || done.Messages != 1 || before == (done.Unblocked == 0) {
					t.Fatalf("Import after a failure of group %d: %+v, error %v", fail, done, err)
				}
				checkWhole(t, again)
				m, body, err := again.Load(t.Context(), x.Message.ID)
				if err != nil || !bytes.Equal(body, x.Body) || m.Idempotency == nil {
					t.Fatalf("Load: %d bytes, error %v", len(body), err)
				}
				for _, d := range x.Deliveries {
					attempts, err := again.Attempts(t.Context(), d.ID, 100)
					if err != nil || len(attempts) != len(d.History) {
						t.Errorf("Attempts: %d, error %v; want %d", len(attempts), err, len(d.History))
					}
				}
				mustDo(t, again.Close())
			}
		}
	})
	t.Run("one in pieces has the records and entries of one in one piece", func(t *testing.T) {
		whole, pieces := mustOpen(t, Options{Path: t.TempDir()}), mustOpen(t, Options{Path: t.TempDir()})
		pieces.maxGroupSize = 96 << 10 // before the first request
		x := moved(t, 6)
		for _, s := range []*Store{whole, pieces} {
			if done, err := s.Import(t.Context(), one(x)); err != nil || done.Messages != 1 {
				t.Fatalf("Import: %+v, error %v", done, err)
			}
		}
		want := contents(t, whole)
		for n := range x.Deliveries { // in pieces each has a record of its own, also one as it was accepted
			key := string(deliveryKey(x.Message.ID.Delivery(n)))
			if _, ok := want[key]; !ok {
				want[key] = string(encodeDelivery(x.Deliveries[n].Delivery))
			}
		}
		sameContents(t, contents(t, pieces), want)
	})
	t.Run("an end of the context or a full disk in the middle leaves nothing of it", func(t *testing.T) {
		for _, full := range []bool{false, true} {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var free atomic.Int64
			free.Store(1 << 40)
			groups, importing := 0, false
			s := mustOpen(t, Options{
				Path: t.TempDir(), MinFree: 1 << 30, free: func(string) (int64, error) { return free.Load(), nil },
				commit: func(txn *badger.Txn) error {
					if groups++; importing && groups == 4 {
						if full {
							free.Store(700 << 20)
						} else {
							cancel()
							time.Sleep(20 * time.Millisecond) // the caller could have gone before it is written
						}
					}
					return txn.Commit()
				},
			})
			want := contents(t, s)
			groups, importing = 0, true
			_, err := s.Import(ctx, one(moved(t, 36)))
			if full && !errors.Is(err, store.ErrNoSpace) || !full && !errors.Is(err, context.Canceled) {
				t.Fatalf("Import: got error %v", err)
			}
			sameContents(t, contents(t, s), want)
			checkWhole(t, s)
		}
	})
}

func TestImport(t *testing.T) {
	t.Run("on a full disk what has come so far is whole, and it goes on when there is room", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		fillMoved(t, s)
		raw, counts := exportOf(t, s)
		var free atomic.Int64
		free.Store(1 << 40)
		groups := 0
		again := mustOpen(t, Options{
			Path: t.TempDir(), MinFree: 1 << 30, free: func(string) (int64, error) { return free.Load(), nil },
			commit: func(txn *badger.Txn) error {
				if groups++; groups == 2 {
					free.Store(700 << 20)
				}
				return txn.Commit()
			},
		})
		done, err := importFrom(again, raw)
		if !errors.Is(err, store.ErrNoSpace) || done.Messages == 0 || done.Messages == counts.Messages {
			t.Fatalf("Import: %+v, error %v; want some of %d messages and ErrNoSpace", done, err, counts.Messages)
		}
		checkWhole(t, again)
		free.Store(1 << 40)
		rest, err := importFrom(again, raw)
		if err != nil || rest.Existing != done.Messages || rest.Messages+done.Messages != counts.Messages {
			t.Errorf("again: %+v, error %v; want the rest of %d", rest, err, counts.Messages)
		}
		sameContents(t, contents(t, again), contents(t, s))
		checkWhole(t, again)
	})
	t.Run("what an engine cannot keep is told before", func(t *testing.T) {
		large := moved(t, 6)
		large.Body = make([]byte, maxChunks*chunkSize+1)
		large.Message.Size = len(large.Body)
		attempt := moved(t, 6)
		attempt.Deliveries[3].History[0].Body = make([]byte, chunkSize)
		reason := moved(t, 6)
		reason.Deliveries[0].Reason = string(make([]byte, maxDelivery))
		head := moved(t, 6)
		head.Message.Path = "/" + string(make([]byte, 1<<20))
		for name, x := range map[string]store.Exported{"a body": large, "an attempt": attempt, "a delivery": reason, "a message": head} {
			if err := CheckImport(x); !errors.Is(err, store.ErrTooLarge) {
				t.Errorf("%s: got error %v, want ErrTooLarge", name, err)
			}
		}
	})
	t.Run("a message with the most deliveries comes through", func(t *testing.T) {
		m := newMessage(t)
		m.AcceptedAt = exportTime
		x := store.Exported{}
		for range store.MaxDeliveries {
			m.Recipients = append(m.Recipients, store.Recipient{Destination: "alerts"})
		}
		for n := range store.MaxDeliveries {
			d := store.ExportedDelivery{Delivery: m.Delivery(n)}
			if n%2 == 0 {
				d.State, d.DueAt, d.EndedAt = store.Failed, time.Time{}, exportTime
			}
			x.Deliveries = append(x.Deliveries, d)
		}
		x.Message = m
		s := mustOpen(t, Options{Path: t.TempDir()})
		if done, err := s.Import(t.Context(), one(x)); err != nil || done.Pending != store.MaxDeliveries/2 {
			t.Fatalf("Import: %+v, error %v", done, err)
		}
		if got := pendingOf(t, s); got != store.MaxDeliveries/2 {
			t.Errorf("pending: got %d, want %d", got, store.MaxDeliveries/2)
		}
		checkWhole(t, s)
	})
}
