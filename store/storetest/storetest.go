// Package storetest is the contract of a store in the form of tests: Run is what every engine passes, Model compares an
// engine with the one in memory, and Memory is that engine. Only tests import it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// Options are what a test asks of the engine it opens.
type Options struct {
	Now        func() time.Time // wall clock; nil means time.Now
	MaxPending int64            // most pending deliveries; 0 means the engine's default
}

// Open makes an empty engine. It closes it by tb.Cleanup, and fails tb if it cannot; a test may close it before.
type Open func(tb testing.TB, o Options) store.Store

// Run runs the whole suite.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"accept": testAccept, "all": func(t *testing.T, open Open) {
			testAcceptAll(t, open)
			testAcceptAllKeys(t, open)
		},
		"full": testFull, "lines": testLines, "blocking": testBlocking, "pauses": testPauses, "outages": testOutages,
		"vault": testVault, "idempotency": testIdempotency, "queue": testQueue, "record": testRecord,
		"record and accept": testRecordAndAccept, "history": testHistory, "deliveries": testDeliveries,
		"backlog": testBacklog, "replay": testReplay, "cancel": testCancel, "expedite": testExpedite,
		"overtaken": testOvertaken, "reduce": testReduce, "sweep": testSweep, "life": testLife, "export": testExport,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait for syncs more than they work
			test(t, open)
		})
	}
}

var start = time.Date(2026, 3, 14, 15, 9, 26, 535_000_000, time.UTC)

// message makes a message for some destinations, accepted at start.
func message(tb testing.TB, destinations ...string) store.Message {
	tb.Helper()
	id, err := store.NewMessageID()
	if err != nil {
		tb.Fatalf("NewMessageID: %v", err)
	}
	m := store.Message{ID: id, Event: "alert.fired", ContentType: "application/json", AcceptedAt: start, Hops: 1}
	for _, name := range destinations {
		m.Recipients = append(m.Recipients, store.Recipient{Destination: name})
	}
	return m
}

func accept(tb testing.TB, s store.Store, m store.Message, body string) store.Message {
	tb.Helper()
	stored, existing, err := s.Accept(tb.Context(), m, []byte(body))
	if err != nil || existing {
		tb.Fatalf("Accept: existing %t, error %v; want a new message", existing, err)
	}
	return stored
}

func due(tb testing.TB, s store.Store, destination string, after store.Cursor, limit int) []store.Delivery {
	tb.Helper()
	all, err := s.Due(tb.Context(), destination, after, limit)
	if err != nil {
		tb.Fatalf("Due(%q): %v", destination, err)
	}
	if len(all) == 0 {
		return nil // an engine may return either
	}
	return all
}

// end returns the state of d after an attempt that ended it, and the attempt.
func end(d store.Delivery, state store.State, at time.Time) (store.Delivery, store.Attempt) {
	d, a := begin(d, at)
	d.State, d.EndedAt, d.DueAt = state, at, time.Time{}
	d.Last = a.Outcome()
	return d, a
}

// retry returns the state of d after an attempt that failed, and the attempt.
func retry(d store.Delivery, at, next time.Time) (store.Delivery, store.Attempt) {
	d, a := begin(d, at)
	a.Class, a.Status, a.Error = store.ClassStatus, 500, "server says 500"
	d.DueAt, d.Last = next, a.Outcome()
	return d, a
}

// begin returns d with one attempt more, and the attempt.
func begin(d store.Delivery, at time.Time) (store.Delivery, store.Attempt) {
	d.Attempts++
	d.Made++
	if d.BegunAt.IsZero() {
		d.BegunAt = at
	}
	return d, store.Attempt{
		Delivery: d.ID, Round: d.Round, Number: d.Made, StartedAt: at, Took: 12345 * time.Microsecond,
		Class: store.ClassOK, Status: 204,
	}
}

func record(tb testing.TB, s store.Store, before, after store.Delivery, a store.Attempt) {
	tb.Helper()
	if _, err := s.Record(tb.Context(), before, after, a); err != nil {
		tb.Fatalf("Record: %v", err)
	}
}

func equal(tb testing.TB, what string, got, want any) {
	tb.Helper()
	if !reflect.DeepEqual(got, want) {
		tb.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func testAccept(t *testing.T, open Open) {
	t.Run("what was accepted is loaded as it was", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts", "audit")
		m.Recipients[1].Delay = 90 * time.Second
		m.Idempotency = &store.Idempotency{Key: [32]byte{1}, Content: [32]byte{2}}
		m.ContentType = "text/plain; x=\xff\x00" // bytes of a header need not be UTF-8
		m.Key, m.Recipients[0].Order = "k\xff", "kk\xff"
		m.Path = "/a%2fb/\xff?c=d"
		m.Header = []store.Field{{Name: "X-B", Value: "2"}, {Name: "X-A", Value: "1\xfe"}, {Name: "X-B"}}
		stored := accept(t, s, m, "hello")
		m.Size = 5
		equal(t, "stored", stored, m)
		got, body, err := s.Load(t.Context(), m.ID)
		if err != nil || string(body) != "hello" {
			t.Fatalf("Load: body %q, error %v; want %q", body, err, "hello")
		}
		equal(t, "loaded", got, m)
	})
	t.Run("times are kept to the millisecond, in UTC", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts")
		m.AcceptedAt = start.Add(999 * time.Microsecond).In(time.FixedZone("far", 3600))
		m.Recipients[0].Delay = 1500 * time.Microsecond
		equal(t, "accepted at", accept(t, s, m, "").AcceptedAt, start)
		equal(t, "due at", due(t, s, "alerts", store.Cursor{}, 1)[0].DueAt, start.Add(time.Millisecond))
	})
	t.Run("a message without a time gets the clock's", func(t *testing.T) {
		s := open(t, Options{Now: func() time.Time { return start }})
		m := message(t, "alerts")
		m.AcceptedAt = time.Time{}
		equal(t, "accepted at", accept(t, s, m, "").AcceptedAt, start)
	})
	for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 512<<10 - 1, 512 << 10, 512<<10 + 1, 1 << 20,
		1<<20 + 1, 2_400_000, 2_600_000, 16 << 20} {
		t.Run(fmt.Sprintf("a body of %d bytes comes back", size), func(t *testing.T) {
			s := open(t, Options{})
			body := bytes.Repeat([]byte("0123456789abcdef\x00\xff\n"), size/19+1)[:size]
			m := message(t, "alerts")
			if _, _, err := s.Accept(t.Context(), m, body); err != nil {
				t.Fatalf("Accept: %v", err)
			}
			want := bytes.Clone(body)
			clear(body) // the engine keeps nothing of it
			got, loaded, err := s.Load(t.Context(), m.ID)
			if err != nil || got.Size != size || !bytes.Equal(loaded, want) {
				t.Fatalf("Load: size %d, %d bytes, error %v; want the %d bytes that were accepted", got.Size, len(loaded), err, size)
			}
			if n := len(due(t, s, "alerts", store.Cursor{}, 10)); n != 1 {
				t.Errorf("%d deliveries pending, want 1", n)
			}
		})
	}
	t.Run("a message may have the most deliveries", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t)
		for n := range store.MaxDeliveries {
			m.Recipients = append(m.Recipients, store.Recipient{Destination: fmt.Sprintf("%0100d", n)})
		}
		accept(t, s, m, strings.Repeat("x", 64<<10))
		equal(t, "pending", s.Pending(), int64(store.MaxDeliveries))
		last := due(t, s, m.Recipients[store.MaxDeliveries-1].Destination, store.Cursor{}, 2)
		equal(t, "last", last, []store.Delivery{m.Delivery(store.MaxDeliveries - 1)})
	})
	t.Run("what cannot be kept is refused whole", func(t *testing.T) {
		s := open(t, Options{})
		bad := map[string]func(*store.Message){
			"no id":               func(m *store.Message) { m.ID = store.MessageID{} },
			"id of a delivery":    func(m *store.Message) { m.ID = store.MessageID(m.ID.Delivery(0)) },
			"no destination name": func(m *store.Message) { m.Recipients[0].Destination = "" },
			"long name":           func(m *store.Message) { m.Recipients[0].Destination = strings.Repeat("x", 101) },
			"name with zero byte": func(m *store.Message) { m.Recipients[0].Destination = "a\x00b" },
			"too many recipients": func(m *store.Message) {
				m.Recipients = make([]store.Recipient, store.MaxDeliveries+1)
				for i := range m.Recipients {
					m.Recipients[i].Destination = "alerts"
				}
			},
		}
		for name, spoil := range bad {
			m := message(t, "alerts")
			spoil(&m)
			if _, _, err := s.Accept(t.Context(), m, nil); err == nil {
				t.Errorf("%s: accepted, want an error", name)
			}
		}
		equal(t, "pending", s.Pending(), int64(0))
	})
	t.Run("a full backlog refuses messages with deliveries", func(t *testing.T) {
		s := open(t, Options{MaxPending: 3})
		accept(t, s, message(t, "a", "b"), "")
		if _, _, err := s.Accept(t.Context(), message(t, "a", "b"), nil); !errors.Is(err, store.ErrBacklog) {
			t.Errorf("4 of 3: got error %v, want ErrBacklog", err)
		}
		accept(t, s, message(t, "a"), "")
		if _, _, err := s.Accept(t.Context(), message(t, "a"), bytes.Repeat([]byte("x"), 4<<20)); !errors.Is(err, store.ErrBacklog) {
			t.Errorf("long body: got error %v, want ErrBacklog", err)
		}
		accept(t, s, message(t), "for nobody")
		d := due(t, s, "b", store.Cursor{}, 1)[0]
		after, a := end(d, store.Delivered, start)
		record(t, s, d, after, a)
		accept(t, s, message(t, "a"), "")
		equal(t, "pending", s.Pending(), int64(3))
	})
	t.Run("many at once are all stored", func(t *testing.T) {
		s := open(t, Options{})
		var all sync.WaitGroup
		var mu sync.Mutex
		want := make(map[store.DeliveryID]bool)
		for range 16 {
			all.Go(func() {
				for range 25 {
					m := message(t, "alerts")
					if _, _, err := s.Accept(context.Background(), m, []byte("x")); err != nil {
						t.Errorf("Accept: %v", err)
						return
					}
					mu.Lock()
					want[m.ID.Delivery(0)] = true
					mu.Unlock()
				}
			})
		}
		all.Wait()
		for _, d := range due(t, s, "alerts", store.Cursor{}, 1000) {
			delete(want, d.ID)
		}
		equal(t, "missing", len(want), 0)
		equal(t, "pending", s.Pending(), int64(400))
	})
}

func testIdempotency(t *testing.T, open Open) {
	pair := func(key, content byte) *store.Idempotency {
		return &store.Idempotency{Key: [32]byte{key}, Content: [32]byte{content}}
	}
	t.Run("the same post again gets the first message", func(t *testing.T) {
		s := open(t, Options{MaxPending: 1})
		m := message(t, "alerts")
		m.Idempotency = pair(1, 1)
		first := accept(t, s, m, "x")
		for _, body := range []string{"x", strings.Repeat("x", 4<<20)} {
			again := message(t, "audit")
			again.Idempotency = pair(1, 1)
			got, existing, err := s.Accept(t.Context(), again, []byte(body))
			if err != nil || !existing {
				t.Fatalf("Accept: existing %t, error %v; want the earlier message", existing, err)
			}
			equal(t, "message", got, first)
			if _, _, err := s.Load(t.Context(), again.ID); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("load the second: got error %v, want ErrNotFound", err)
			}
		}
		equal(t, "pending", s.Pending(), int64(1))
	})
	t.Run("another post under the key is refused", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t, "alerts")
		m.Idempotency = pair(1, 1)
		accept(t, s, m, "x")
		for _, body := range []string{"y", strings.Repeat("y", 4<<20)} {
			again := message(t, "alerts")
			again.Idempotency = pair(1, 2)
			if _, _, err := s.Accept(t.Context(), again, []byte(body)); !errors.Is(err, store.ErrKeyConflict) {
				t.Errorf("got error %v, want ErrKeyConflict", err)
			}
		}
		equal(t, "pending", s.Pending(), int64(1))
	})
	t.Run("of posts that race under one key one is stored", func(t *testing.T) {
		s := open(t, Options{})
		var all sync.WaitGroup
		results := make([]store.MessageID, 32)
		fresh := make([]bool, len(results))
		for i := range results {
			all.Go(func() {
				m := message(t, "alerts")
				m.Idempotency = pair(7, 7)
				got, existing, err := s.Accept(context.Background(), m, []byte("x"))
				if err != nil {
					t.Errorf("Accept: %v", err)
				}
				results[i], fresh[i] = got.ID, !existing
			})
		}
		all.Wait()
		stored := 0
		for i := range results {
			if results[i] != results[0] {
				t.Errorf("post %d got %s, another %s; want one message", i, results[i], results[0])
			}
			if fresh[i] {
				stored++
			}
		}
		equal(t, "stored", stored, 1)
		equal(t, "pending", s.Pending(), int64(1))
	})
	t.Run("the key is free again when its message is swept", func(t *testing.T) {
		s := open(t, Options{})
		m := message(t)
		m.Idempotency = pair(1, 1)
		accept(t, s, m, "x")
		sweepAll(t, s, start.Add(time.Second), 1)
		again := message(t)
		again.Idempotency = pair(1, 2)
		accept(t, s, again, "y")
	})
}
