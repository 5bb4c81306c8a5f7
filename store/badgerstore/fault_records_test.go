package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// TestFaultRecords changes a byte of one record of each kind, below its checksum, in a store that is running. All that is
// not of that record's message goes on: the queues of its destinations, lists, new messages, the sweep, a backup, the
// next start.
func TestFaultRecords(t *testing.T) {
	random := faultRandom(t)
	whole := wholeStore(t, random)
	kinds := []byte{
		kindMessage, kindChunk, kindBatch, kindQueue, kindLine, kindWaiting, kindBlocked, kindDelivery, kindAttempt, kindEnded,
		kindIdempotency, kindPause, kindOutage, kindVault, kindIndex, kindSkew, kindCommit, kindFormat,
	}
	tried, ended, refused := 0, 0, 0
	try := func(t *testing.T, kinds ...byte) {
		one := spoiled{specimen: whole, kinds: kinds, own: make(map[store.MessageID]bool)}
		one.run(t, random)
		tried, ended, refused = tried+len(kinds), ended+one.ended, refused+one.refused
	}
	t.Run("all at once", func(t *testing.T) { try(t, kinds...) })
	for _, kind := range faultLength(nil, kinds) {
		t.Run(kindNames[kind], func(t *testing.T) {
			for range 12 {
				try(t, kind)
			}
		})
	}
	t.Attr("fault", fmt.Sprintf("damage: a byte of %d records of %d kinds changed below the checksum while running: %d other "+
		"deliveries ended, each sweep, backup, list and start went on; %d starts refused, for a note of a commit group or the format",
		tried, len(kinds), ended, refused))
}

// wholeStore makes a store with records of every kind.
func wholeStore(t *testing.T, random *rand.Rand) *specimen {
	t.Helper()
	sp := &specimen{name: "a store with all kinds of records", ledger: newLedger()}
	s := mustOpen(t, Options{Path: t.TempDir(), Log: zap.NewNop()})
	sp.ledger.work(t, s, random, 12, 1<<20)
	early := newMessage(t, "alerts")
	early.AcceptedAt = time.Now().Add(-48 * time.Hour) // which is noted
	sp.ledger.accept(t, s, early, nil)
	for _, state := range []store.State{store.Failed, store.Delivered} {
		all := acceptLine(t, s, "blocked and not"+state.String(), 3)
		after := all[0]
		after.State, after.EndedAt, after.Blocking = state, time.Now(), state == store.Failed
		mustRecord(t, s, all[0], after, store.Attempt{})
	}
	// A batch of which only the first step has been done, and is not decided.
	b := s.newBatch()
	m, err := s.normal(newMessage(t, "alerts"), nil)
	mustDo(t, err)
	s.use.RLock()
	defer s.use.RUnlock()
	mustDo(t, b.take(t.Context(), store.Post{Message: m, Body: make([]byte, 2<<20)}))
	sp.path = snapshot(t, s.path)
	return sp
}

// spoiled is one store in which a record was changed.
type spoiled struct {
	*specimen
	kinds          []byte
	names          []string
	own            map[store.MessageID]bool // whose records were changed
	s              *Store
	ended, refused int
}

func (x *spoiled) run(t *testing.T, random *rand.Rand) {
	t.Helper()
	o := Options{Path: cloned(t, x.path), Log: zap.NewNop()}
	var err error
	x.s, err = Open(o)
	mustDo(t, err)
	if x.has(kindBatch) {
		x.beginBatch(t)
	}
	for _, kind := range x.kinds {
		x.spoil(t, random, kind)
	}
	x.use(t)
	mustDo(t, x.s.Close())
	x.s, err = Open(o)
	var damage *DamageError
	if errors.As(err, &damage) && damage.CanLose && (x.has(kindCommit) || x.has(kindFormat)) {
		x.refused++
		o.AcceptLoss = true
		x.s, err = Open(o)
	}
	if err != nil {
		t.Fatalf("start with a damaged %q: %v", x.names, err)
	}
	defer func() { mustDo(t, x.s.Close()) }()
	x.use(t)
	x.sweep(t)
}

func (x *spoiled) has(kind byte) bool { return slices.Contains(x.kinds, kind) }

// beginBatch writes messages ahead, as a batch does.
func (x *spoiled) beginBatch(t *testing.T) {
	t.Helper()
	b := x.s.newBatch()
	x.s.use.RLock()
	defer x.s.use.RUnlock()
	for range 3 {
		m, err := x.s.normal(newMessage(t, "alerts"), nil)
		mustDo(t, err)
		mustDo(t, b.take(t.Context(), store.Post{Message: m, Body: make([]byte, 1<<20)}))
	}
}

// spoil changes a byte of one of the records of the kind.
func (x *spoiled) spoil(t *testing.T, random *rand.Rand, kind byte) {
	t.Helper()
	var keys, values [][]byte
	mustDo(t, x.s.db.View(func(txn *view) error {
		return txn.each(t.Context(), func(key, value []byte) error {
			if key[0] == kind && len(value) > 0 {
				keys, values = append(keys, bytes.Clone(key)), append(values, bytes.Clone(value))
			}
			return nil
		})
	}))
	if len(keys) == 0 {
		t.Fatalf("no record of the kind %q", kind)
	}
	n := random.IntN(len(keys))
	x.names = append(x.names, describe(keys[n]))
	switch key := keys[n]; kind {
	case kindMessage, kindChunk:
		x.own[store.MessageID(key[1:17])] = true
	case kindDelivery, kindAttempt:
		x.own[store.DeliveryID(key[1:17]).Message()] = true
	case kindQueue, kindEnded:
		x.own[store.DeliveryID(key[len(key)-16:]).Message()] = true
	}
	values[n][random.IntN(len(values[n]))] ^= 1 << random.IntN(8)
	mustDo(t, x.s.db.Update(func(txn *badger.Txn) error { return txn.Set(keys[n], values[n]) }))
}

// use does what a relay and a person do.
func (x *spoiled) use(t *testing.T) {
	t.Helper()
	ctx, s := t.Context(), x.s
	for _, name := range []string{"alerts", "audit"} {
		// A few at a time, as lanes do, and not all: the rest is for the next start.
		for range 8 {
			due, err := s.Due(ctx, name, store.Cursor{}, 2)
			if err != nil {
				t.Errorf("Due of %q: %v", name, err)
			}
			for _, d := range due {
				_, _, err := s.Load(ctx, d.ID.Message())
				if err != nil && !x.own[d.ID.Message()] {
					t.Errorf("Load of %s: %v", d.ID, err)
				}
				if _, err := s.Record(ctx, d, deliver(d, time.Now()), store.Attempt{
					Delivery: d.ID, Round: d.Round, Number: d.Made + 1, StartedAt: time.Now(), Class: store.ClassOK,
				}); err != nil {
					t.Errorf("Record of %s with damaged %q: %v", d.ID, x.names, err)
				}
				x.ended++
			}
		}
	}
	for _, f := range []store.Filter{{}, {Destination: "alerts"}, {State: store.Pending}, {State: store.Failed}, {Event: "order.3"}, {Text: "order"}} {
		for place, more := (store.Place{}), true; more; more = place != (store.Place{}) {
			var err error
			if _, place, err = s.Deliveries(ctx, f, place, 50); err != nil {
				t.Errorf("Deliveries by %+v: %v", f, err)
				break
			}
		}
	}
	for id := range x.ledger.deliveries {
		if x.own[id.Message()] {
			continue
		}
		_, err := s.Delivery(ctx, id)
		_, attemptsErr := s.Attempts(ctx, id, 100)
		if err := errors.Join(err, attemptsErr); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, order := range []string{"", "key1", "new"} {
		m := newMessage(t, "alerts", "audit")
		m.Recipients[1].Order = order
		if _, _, err := s.Accept(ctx, m, []byte("new")); err != nil {
			t.Errorf("Accept: %v", err)
		}
	}
	_, backlogErr := s.Backlog(ctx)
	_, pausedErr := s.Paused(ctx)
	_, outagesErr := s.Outages(ctx)
	_, itemsErr := s.KeptBelow(ctx, "certificates/")
	if x.has(kindVault) {
		itemsErr = nil // it says which
	}
	if err := errors.Join(backlogErr, pausedErr, outagesErr, itemsErr); err != nil {
		t.Errorf("of the rest: %v", err)
	}
	var copied bytes.Buffer
	counts, err := s.WriteBackup(ctx, &copied, store.BackupOptions{IncludeKeys: true})
	if err != nil || counts.Damaged > int64(len(x.kinds)) || counts.Messages < int64(len(x.ledger.bodies)/2) {
		t.Errorf("backup: %+v, error %v; want those damaged at most", counts, err)
	}
	checked, err := s.Check(ctx)
	if err != nil || checked.Counts.Damaged > int64(len(x.kinds)+3) {
		t.Errorf("check: %+v, error %v", checked, err)
	}
}

// sweep ends what can be ended and deletes it.
func (x *spoiled) sweep(t *testing.T) {
	t.Helper()
	ctx, s := t.Context(), x.s
	for _, name := range []string{"alerts", "audit"} {
		if _, err := s.Release(ctx, name, 100); err != nil {
			t.Errorf("Release: %v", err)
		}
		for range 1000 {
			due, err := s.Due(ctx, name, store.Cursor{}, 10)
			if err != nil {
				t.Errorf("Due: %v", err)
			}
			if len(due) == 0 {
				break
			}
			for _, d := range due {
				if _, err := s.Record(ctx, d, deliver(d, time.Now()), store.Attempt{}); err != nil {
					t.Fatalf("Record of %s with damaged %q: %v", d.ID, x.names, err)
				}
				x.ended++
			}
		}
	}
	for calls := 0; ; calls++ {
		_, more, err := s.Sweep(ctx, time.Now().Add(time.Hour), 50)
		if err != nil || calls > 100 {
			t.Fatalf("Sweep: %v after %d calls", err, calls)
		}
		if !more {
			break
		}
	}
	if got, most := keysIn(t, s)["m"], len(x.own)+3; got > most { // 3 of a batch that nobody knows to be decided
		t.Errorf("%d messages are left with damaged %q, want %d at most", got, x.names, most)
	}
}
