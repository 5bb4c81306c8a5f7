package badgerstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// faultLength is full with POSTERN_FAULTS=full, and quick without.
func faultLength[T any](quick, full T) T {
	if os.Getenv("POSTERN_FAULTS") == "full" {
		return full
	}
	return quick
}

// faultRandom is what a fault test draws from: the same each time, or by POSTERN_FAULTS_SEED another.
func faultRandom(tb testing.TB) *rand.Rand {
	tb.Helper()
	seed := uint64(1)
	if text := os.Getenv("POSTERN_FAULTS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			tb.Fatalf("POSTERN_FAULTS_SEED: %v", err)
		}
	}
	tb.Logf("POSTERN_FAULTS_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 6))
}

// specimen is the folder of a store, and all that is stored in it.
type specimen struct {
	name    string
	path    string
	older   string // an earlier copy of the folder
	keys    []store.Key
	sums    map[string][32]byte // of its files
	content map[string]string   // of all records but the notes of commit groups
	pending int64
	ledger  *ledger
	damaged bool // a start has found that something is missing
	blurred bool // the ledger does not know which commit group has what
}

// ledger is what has been acknowledged, by the caller's own account and not by what the store says.
type ledger struct {
	bodies     map[store.MessageID][32]byte
	accepted   map[store.MessageID]uint64    // by which commit group
	deliveries map[store.DeliveryID]expected // of all messages
}

type expected struct {
	delivery store.Delivery
	attempts int
	changed  uint64 // by which commit group, at the latest
}

func newLedger() *ledger {
	return &ledger{
		bodies: make(map[store.MessageID][32]byte), accepted: make(map[store.MessageID]uint64),
		deliveries: make(map[store.DeliveryID]expected),
	}
}

// accept posts a message and takes it down.
func (l *ledger) accept(tb testing.TB, s *Store, m store.Message, body []byte) store.Message {
	tb.Helper()
	m, _, err := s.Accept(tb.Context(), m, body)
	mustDo(tb, err)
	l.note(m, body, s.seq)
	return m
}

func (l *ledger) note(m store.Message, body []byte, seq uint64) {
	l.bodies[m.ID], l.accepted[m.ID] = sha256.Sum256(body), seq
	for n := range m.Recipients {
		l.deliveries[m.ID.Delivery(n)] = expected{delivery: m.Delivery(n), changed: seq}
	}
}

// attempt records an attempt and what the delivery is after it.
func (l *ledger) attempt(tb testing.TB, s *Store, id store.DeliveryID, change func(*store.Delivery), class store.Class) {
	tb.Helper()
	before := l.deliveries[id].delivery
	after := before
	after.Made, after.Attempts = before.Made+1, before.Attempts+1
	change(&after)
	a := store.Attempt{
		Delivery: id, Round: before.Round, Number: after.Made, StartedAt: time.Now(), Class: class, Status: 500,
		Error: "answered " + id.String(), Header: map[string][]string{"X-Answer": {id.String()}}, Body: bytes.Repeat(id[:], 40),
	}
	released := mustRecord(tb, s, before, after, a)
	after.Last = a.Outcome()
	l.deliveries[id] = expected{delivery: after, attempts: l.deliveries[id].attempts + 1, changed: s.seq}
	if e, ok := l.deliveries[released.ID]; ok {
		e.changed = s.seq
		l.deliveries[released.ID] = e
	}
}

func endedAs(state store.State) func(*store.Delivery) {
	return func(d *store.Delivery) { d.State, d.EndedAt = state, toMillis(time.Now()) }
}

func later(d *store.Delivery) { d.DueAt = toMillis(d.DueAt.Add(time.Hour)) }

// work does a bit of everything that a store can do, n times.
func (l *ledger) work(tb testing.TB, s *Store, random *rand.Rand, n, longest int) {
	tb.Helper()
	ctx := tb.Context()
	for i := range n {
		m := newMessage(tb, "alerts", "audit")
		m.Event, m.Key = fmt.Sprintf("order.%d", i%7), fmt.Sprint("key", i%5)
		m.Recipients[1].Order = m.Key
		m.Idempotency = &store.Idempotency{Key: sha256.Sum256(m.ID[:]), Content: [32]byte{1}}
		size := random.IntN(2000)
		if i%10 == 9 {
			size = inlineBody + random.IntN(longest)
		}
		body := make([]byte, size)
		for j := range body {
			body[j] = byte(random.Uint32())
		}
		m = l.accept(tb, s, m, body)
		switch id := m.ID.Delivery(0); i % 4 {
		case 0:
			l.attempt(tb, s, id, endedAs(store.Delivered), store.ClassOK)
		case 1:
			l.attempt(tb, s, id, later, store.ClassStatus)
			l.attempt(tb, s, id, endedAs(store.Failed), store.ClassTimeout)
		case 2:
			l.attempt(tb, s, id, later, store.ClassConnect)
		}
	}
	var ids []store.MessageID
	body := []byte("one of a batch")
	accepted, err := s.AcceptAll(ctx, func(yield func(store.Post, error) bool) {
		for range 40 {
			m := newMessage(tb, "alerts")
			if ids = append(ids, m.ID); !yield(store.Post{Message: m, Body: body}, nil) {
				return
			}
		}
	})
	mustDo(tb, err)
	for i, a := range accepted {
		m := a.Message
		m.ID = ids[i]
		l.note(m, body, s.seq)
	}
	mustDo(tb, s.Pause(ctx, "audit", store.Pause{At: time.Now(), Reason: "by a test"}))
	mustDo(tb, s.NoteOutage(ctx, "alerts", store.Outage{Since: time.Now()}))
	mustDo(tb, s.Keep(ctx, fmt.Sprint("certificates/", n, ".key"), bytes.Repeat([]byte("k"), 3000)))
}

// check compares what a store has with the ledger, leaving out what has changed in the given range of commit groups.
func (l *ledger) check(tb testing.TB, s *Store, from, to uint64) (missing int) {
	tb.Helper()
	out := func(seq uint64) bool { return from > 0 && seq >= from && seq <= to }
	for id, sum := range l.bodies {
		_, body, err := s.Load(context.Background(), id)
		switch {
		case out(l.accepted[id]) && err != nil: // it is not there, or a piece of it
			missing++
		case err != nil:
			tb.Errorf("message %s of commit %d: %v", id, l.accepted[id], err)
		case sha256.Sum256(body) != sum:
			tb.Errorf("message %s of commit %d: its body has changed", id, l.accepted[id])
		}
	}
	for id, want := range l.deliveries {
		if out(want.changed) || out(l.accepted[id.Message()]) {
			continue
		}
		d, err := s.Delivery(context.Background(), id)
		if err != nil || d != want.delivery {
			tb.Errorf("delivery %s of commit %d: got %+v, error %v; want %+v", id, want.changed, d, err, want.delivery)
		}
		attempts, err := s.Attempts(context.Background(), id, 100)
		if err != nil || len(attempts) != want.attempts {
			tb.Errorf("attempts of %s: got %d, error %v; want %d", id, len(attempts), err, want.attempts)
		}
	}
	return missing
}

// recordsOf returns all records of a store but the notes of commit groups.
func recordsOf(tb testing.TB, s *Store) map[string]string {
	tb.Helper()
	all := make(map[string]string)
	mustDo(tb, s.db.View(func(txn *view) error {
		return txn.each(context.Background(), func(key, value []byte) error {
			if key[0] == kindCommit {
				return nil
			}
			if len(value) == 0 {
				all[string(key)] = ""
				return nil
			}
			content, err := txn.open(key, value)
			if err != nil {
				return fmt.Errorf("%s: %w", describe(key), err)
			}
			sum := sha256.Sum256(content)
			all[string(key)] = string(sum[:])
			return nil
		})
	}))
	return all
}

// compareContent names up to three records that differ.
func compareContent(tb testing.TB, got, want map[string]string) {
	tb.Helper()
	if maps.Equal(got, want) {
		return
	}
	var differ []string
	for key, value := range want {
		if other, ok := got[key]; !ok {
			differ = append(differ, describe([]byte(key))+" is missing")
		} else if other != value {
			differ = append(differ, describe([]byte(key))+" has changed")
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			differ = append(differ, describe([]byte(key))+" is new")
		}
	}
	tb.Errorf("%d of %d records differ: %s", len(differ), len(want), strings.Join(differ[:min(3, len(differ))], ", "))
}

// take opens a copy of the folder as it is, holds it against the ledger, and keeps what is in it.
func (sp *specimen) take(tb testing.TB) *specimen {
	tb.Helper()
	s, err := Open(Options{Path: cloned(tb, sp.path), Keys: sp.keys, Log: zap.NewNop()})
	if err != nil {
		tb.Fatalf("%s: open undamaged: %v", sp.name, err)
	}
	sp.ledger.check(tb, s, 0, 0)
	sp.content, sp.pending = recordsOf(tb, s), s.Pending()
	mustDo(tb, s.Close())
	if len(sp.content) < 100 {
		tb.Fatalf("%s: %d records, want some", sp.name, len(sp.content))
	}
	return sp
}

// cloned copies a store's folder. Nothing is linked, since Badger cuts a table before it deletes it.
func cloned(tb testing.TB, path string) string {
	tb.Helper()
	to, err := os.MkdirTemp(tb.TempDir(), "store")
	mustDo(tb, errors.Join(err, copyTree(path, to)))
	return to
}
