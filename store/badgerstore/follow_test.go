package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

// failedWith returns the state of a delivery after an attempt that has failed it, the attempt, and what follows that.
func failedWith(d store.Delivery, recipients int) (after store.Delivery, a store.Attempt, p store.Post) {
	after = d
	after.Attempts, after.Made, after.State, after.DueAt, after.EndedAt = 1, 1, store.Failed, time.Time{}, d.AcceptedAt
	a = store.Attempt{Delivery: d.ID, Round: 1, Number: 1, StartedAt: d.AcceptedAt, Class: store.ClassConnect, Error: "refused"}
	id, err := store.NewMessageID()
	if err != nil {
		panic(err)
	}
	p = store.Post{Message: store.Message{ID: id, Event: "told"}, Body: []byte(d.ID.String())}
	for n := range recipients {
		name := "chat"
		if n > 2 {
			name = strings.Repeat("c", 100)
		}
		p.Message.Recipients = append(p.Message.Recipients, store.Recipient{Destination: name})
	}
	return after, a, p
}

func acceptFor(ctx context.Context, s *Store, destination string) (store.Delivery, error) {
	id, err := store.NewMessageID()
	if err != nil {
		return store.Delivery{}, err
	}
	m, _, err := s.Accept(ctx, store.Message{ID: id, Recipients: []store.Recipient{{Destination: destination}}}, []byte("x"))
	return m.Delivery(0), err
}

// failUntilKilled accepts messages and records that they have failed, each with a message that tells so, and prints the
// id of each delivery whose record is acknowledged.
func failUntilKilled(path string) int {
	s, err := Open(Options{Path: path})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	var out sync.Mutex
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 100_000 {
				d, err := acceptFor(context.Background(), s, "alerts")
				if err != nil {
					return
				}
				after, a, p := failedWith(d, 1+random.IntN(3))
				a.Body = make([]byte, random.IntN(200_000))
				p.Body = append(p.Body, make([]byte, random.IntN(store.MaxFollowUp-100))...)
				if r, err := s.RecordAndAccept(context.Background(), d, after, a, p); err != nil || r.Refused != nil {
					return
				}
				out.Lock()
				fmt.Println(d.ID)
				out.Unlock()
			}
		})
	}
	all.Wait()
	return 0
}

func TestFaultKillFollowing(t *testing.T) {
	t.Run("after a kill a delivery has failed with the message that tells so, or neither", func(t *testing.T) {
		path := t.TempDir()
		var acknowledged []string
		for round := range 4 {
			acknowledged = append(acknowledged, runAndKill(t, "BADGERSTORE_TEST_FOLLOWING="+path, 40+round*30)...)
			s := mustOpen(t, Options{Path: path})
			told := make(map[string]bool)
			due, err := s.Due(t.Context(), "chat", store.Cursor{}, 1_000_000)
			mustDo(t, err)
			for _, d := range due {
				m, body, err := s.Load(t.Context(), d.ID.Message())
				if err != nil || len(body) != m.Size {
					t.Fatalf("round %d: Load: %d bytes of %d, error %v", round, len(body), m.Size, err)
				}
				told[string(body[:len(d.ID.String())])] = true
			}
			failed := 0
			for place := (store.Place{}); ; {
				found, next, err := s.Deliveries(t.Context(), store.Filter{Destination: "alerts"}, place, 500)
				mustDo(t, err)
				for _, d := range found {
					if d.State == store.Failed {
						failed++
					}
					if (d.State == store.Failed) != told[d.ID.String()] {
						t.Errorf("round %d: a delivery is %s, and told is %t", round, d.State, told[d.ID.String()])
					}
				}
				if place = next; next == (store.Place{}) {
					break
				}
			}
			if failed != len(told) {
				t.Errorf("round %d: got %d failed and %d told of, want as many", round, failed, len(told))
			}
			for _, id := range acknowledged {
				if !told[id] {
					t.Errorf("round %d: delivery %s has been acknowledged as failed, and nothing tells so", round, id)
				}
			}
			if _, n, err := countPending(s.db); err != nil || n != s.Pending() {
				t.Errorf("round %d: in the queues: %d, error %v; want %d", round, n, err, s.Pending())
			}
			mustDo(t, s.Close())
		}
		t.Attr("fault", fmt.Sprintf("kill: 4 times while failures are recorded with the message that tells of them: %d acknowledged; there are both or "+
			"neither", len(acknowledged)))
	})
}

func TestFollowingIsRefusedAlone(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 40)
	s := mustOpen(t, Options{Path: t.TempDir(), MinFree: 1 << 30, free: func(string) (int64, error) { return free.Load(), nil }})
	try := func(t *testing.T, recipients int) (store.Delivery, store.Recorded, error) {
		t.Helper()
		space := free.Swap(1 << 40)
		d, err := acceptFor(t.Context(), s, "alerts")
		mustDo(t, err)
		free.Store(space)
		after, a, p := failedWith(d, recipients)
		got, err := s.RecordAndAccept(t.Context(), d, after, a, p)
		now, loadErr := s.Delivery(t.Context(), d.ID)
		mustDo(t, loadErr)
		return now, got, err
	}
	t.Run("below the reserve", func(t *testing.T) {
		free.Store(1<<30 - 1)
		if d, got, err := try(t, 1); err != nil || !errors.Is(got.Refused, store.ErrNoSpace) || d.State != store.Failed {
			t.Errorf("got %s, refused for %v, error %v; want it failed, and the message refused", d.State, got.Refused, err)
		}
	})
	t.Run("below half of it neither is written", func(t *testing.T) {
		free.Store(1<<29 - 1)
		if d, _, err := try(t, 1); !errors.Is(err, store.ErrNoSpace) || d.State != store.Pending {
			t.Errorf("got %s, error %v; want ErrNoSpace", d.State, err)
		}
		free.Store(1 << 40)
	})
	t.Run("with more recipients than one transaction takes", func(t *testing.T) {
		if d, got, err := try(t, store.MaxDeliveries); err != nil || !errors.Is(got.Refused, store.ErrTooLarge) || d.State != store.Failed {
			t.Errorf("got %s, refused for %v, error %v; want it failed, and the message refused", d.State, got.Refused, err)
		}
	})
	t.Run("if the two turn out to be too large together", func(t *testing.T) {
		var tooBig atomic.Bool
		s := mustOpen(t, Options{Path: t.TempDir(), commit: func(txn *badger.Txn) error {
			if tooBig.Swap(false) {
				return badger.ErrTxnTooBig
			}
			return txn.Commit()
		}})
		d, err := acceptFor(t.Context(), s, "alerts")
		mustDo(t, err)
		after, a, p := failedWith(d, 1)
		tooBig.Store(true)
		got, err := s.RecordAndAccept(t.Context(), d, after, a, p)
		if err != nil || !errors.Is(got.Refused, store.ErrTooLarge) || s.Pending() != 0 {
			t.Errorf("got refused for %v, error %v, %d pending; want the record alone", got.Refused, err, s.Pending())
		}
	})
}
