package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/postern-relay/postern/store"
)

var _ store.Importer = (*Store)(nil)

// CheckImport implements store.Importer.
func (*Store) CheckImport(x store.Exported) error { return CheckImport(x) }

// CheckImport is Store.CheckImport for who has no store open yet.
func CheckImport(x store.Exported) error {
	_, err := newIncoming(x)
	return err
}

// Import implements store.Importer. Messages gather until they fill a commit group, and one that is more than that is
// written ahead (importlong.go).
func (s *Store) Import(ctx context.Context, messages iter.Seq2[store.Exported, error]) (done store.Imported, err error) {
	i := &importing{store: s}
	for x, err := range messages {
		if err != nil {
			// What has come before is whole, and may as well be there.
			return i.done, errors.Join(err, i.flush(ctx))
		}
		if err := i.take(ctx, x); err != nil {
			return i.done, err
		}
	}
	err = i.flush(ctx)
	return i.done, err
}

// importing is one import at work.
type importing struct {
	store   *Store
	waiting []*incoming
	size    int64 // of waiting
	entries int64
	done    store.Imported
}

// incoming is a message that is to be imported, encoded.
type incoming struct {
	exported store.Exported
	message  []entry // its chunks, and last its record
	states   []incomingState
	size     int64 // of all that is written for it
	entries  int64
}

// incomingState is one delivery of an incoming message.
type incomingState struct {
	delivery store.Delivery
	to       store.Recipient
	raw      []byte // its encoding
	written  bool   // it has a record of its own: it is not as it was accepted
	attempts []entry
}

// newIncoming encodes a message. What it returns an error for can never be written.
func newIncoming(x store.Exported) (*incoming, error) {
	if err := store.CheckExported(x); err != nil {
		return nil, err
	}
	if n := len(x.Body); n > maxChunks*chunkSize {
		return nil, fmt.Errorf("body: of %d bytes, and %d are allowed: %w", n, maxChunks*chunkSize, store.ErrTooLarge)
	}
	in := &incoming{exported: x}
	if err := in.encode(storedMessage{Message: x.Message}); err != nil {
		return nil, err
	}
	in.size, in.entries = cost(in.message...)
	in.size, in.entries = in.size+identifyCost, in.entries+identifyCount
	for n, d := range x.Deliveries {
		if err := checkName(d.Destination); err != nil {
			return nil, fmt.Errorf("deliveries[%d].destination: %w: %w", n, store.ErrInvalid, err)
		}
		one, err := newIncomingState(x.Message, n, d)
		if err != nil {
			return nil, fmt.Errorf("deliveries[%d]: %w", n, err)
		}
		in.states = append(in.states, one)
		size, entries := one.cost()
		attemptSize, attempts := cost(one.attempts...)
		in.size, in.entries = in.size+size+attemptSize, in.entries+entries+attempts
	}
	return in, nil
}

// encode makes the entries of the message itself.
func (in *incoming) encode(m storedMessage) error {
	in.message = nil
	if m.Reduced {
		m.kept = len(in.exported.Body)
	}
	return encodeAccept(m, in.exported.Body, func(e entry) error {
		in.message = append(in.message, e)
		return nil
	})
}

func newIncomingState(m store.Message, n int, d store.ExportedDelivery) (one incomingState, err error) {
	one = incomingState{delivery: d.Delivery, to: m.Recipients[n]}
	if one.raw, err = encodePending(d.Delivery); err != nil {
		return one, err
	}
	first, err := encodePending(m.Delivery(n))
	if err != nil {
		return one, err
	}
	one.written = string(first) != string(one.raw)
	for i, a := range d.History {
		raw := encodeAttempt(a)
		if len(raw) > chunkSize {
			return one, fmt.Errorf("history[%d]: attempt of %d bytes: %w", i, len(raw), store.ErrTooLarge)
		}
		one.attempts = append(one.attempts, sealed(attemptKey(a.Delivery, a.Round, a.Number), raw))
	}
	return one, nil
}

// cost returns what put writes for a delivery, at most, with what makes it known: its record, its place in the queue or
// its note for the sweep, its line, and its entries in the indexes.
func (one incomingState) cost() (size, entries int64) {
	record := int64(1+16+valueOverhead+len(one.raw)) + entryOverhead
	return record + queueCost(one.to, one.raw) + reindexCost, 1 + queueCount + 2
}

// take adds one message.
func (i *importing) take(ctx context.Context, x store.Exported) error {
	in, err := newIncoming(x)
	if err != nil {
		return fmt.Errorf("import message %s: %w", x.Message.ID, err)
	}
	if !i.store.fits(in.size, in.entries) {
		if err := i.flush(ctx); err != nil {
			return err
		}
		return i.long(ctx, in)
	}
	if !i.store.fits(i.size+in.size, i.entries+in.entries) {
		if err := i.flush(ctx); err != nil {
			return err
		}
	}
	i.waiting = append(i.waiting, in)
	i.size, i.entries = i.size+in.size, i.entries+in.entries
	return nil
}

// flush writes the messages that have gathered, in one commit group.
func (i *importing) flush(ctx context.Context) error {
	if len(i.waiting) == 0 {
		return nil
	}
	if err := i.store.begin(ctx); err != nil {
		return err
	}
	defer i.store.use.RUnlock()
	waiting := i.waiting
	var done store.Imported // the committer's until it has answered
	err := i.store.submit(ctx, &request{size: i.size, entries: i.entries, stage: func(g *group) error {
		done = store.Imported{}
		if g.low {
			return i.store.noSpace(i.store.reserve)
		}
		for _, in := range waiting {
			if g.err != nil {
				return nil
			}
			g.importOne(in, &done)
		}
		return nil
	}})
	if err != nil {
		return fmt.Errorf("import messages: %w", err)
	}
	i.done.Add(done)
	i.waiting, i.size, i.entries = nil, 0, 0
	return nil
}

// importOne writes a message with all that belongs to it, unless it is there.
func (g *group) importOne(in *incoming, done *store.Imported) {
	m := in.exported.Message
	there, err := has(g.txn, messageKey(m.ID))
	if err != nil {
		g.fail(err)
		return
	}
	if there {
		done.Existing++
		return
	}
	if g.keyTaken(m) {
		done.KeysTaken++
		m.Idempotency = nil
		if err := in.encode(storedMessage{Message: m}); err != nil {
			g.fail(err)
			return
		}
	}
	for _, e := range in.message {
		g.put(e.key, e.value)
	}
	g.identify(m)
	for _, one := range in.states {
		g.putState(one, done)
		for _, e := range one.attempts {
			g.put(e.key, e.value)
		}
	}
	done.Count(in.exported)
}

// keyTaken reports whether another message has the idempotency key of m. One that cannot be read is taken.
func (g *group) keyTaken(m store.Message) bool {
	if m.Idempotency == nil {
		return false
	}
	taken, err := has(g.txn, idempotencyKey(m.Idempotency.Key))
	if err != nil {
		g.fail(err)
	}
	return taken
}

// putState writes a delivery, and where it stands.
func (g *group) putState(one incomingState, done *store.Imported) {
	d := one.delivery
	if d.State == store.Pending {
		if one.written {
			g.set(deliveryKey(d.ID), one.raw)
			g.reindex(store.Delivery{ID: d.ID, State: store.Pending}, d)
		}
		g.enqueue(d, one.raw)
		return
	}
	if d.Blocking && !g.block(d) {
		d.Blocking = false
		done.Unblocked++
	}
	entries, err := stateEntries(d)
	if err != nil {
		g.fail(err)
		return
	}
	for _, e := range entries {
		g.put(e.key, e.value)
	}
	g.reindex(store.Delivery{ID: d.ID, State: store.Pending}, d)
	g.put(destinationIndexKey(d.Destination, d.ID), nil)
}

// block makes a Blocking delivery the head of its line, and returns false if others stand in that.
func (g *group) block(d store.Delivery) bool {
	key := lineKey(kindLine, d.Destination, d.Order)
	l, ok, err := g.readLine(key)
	if err != nil {
		g.fail(err)
		return false
	}
	if ok && !l.empty() {
		return false
	}
	g.set(key, encodeLine(line{head: l.tail + 1, tail: l.tail + 1, first: d.ID, passed: l.passed}))
	return true
}
