package badgerstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// A message that is more than a commit group is imported as a batch of one (batch.go) that is never decided: the head of
// the batch is written with the message's record, then its body, attempts and deliveries, each group whole in itself.
// The last group takes the head away, and the message is accepted. Until then no reader takes it for that, and after a
// crash the next start takes all of it back.

// long imports a message that does not fit into one group.
func (i *importing) long(ctx context.Context, in *incoming) (err error) {
	s := i.store
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.use.RUnlock()
	m := in.exported.Message
	var done store.Imported
	there, err := i.beginLong(ctx, in, &done)
	if err != nil {
		return fmt.Errorf("import message %s: %w", m.ID, err)
	}
	if there {
		i.done.Existing++
		return nil
	}
	if err := i.fillLong(ctx, in, &done); err != nil {
		if undoErr := s.undoImport(m.ID); undoErr != nil && s.Err() == nil {
			s.log.Warn("message that was imported in part is taken back by the next start", zap.Stringer("message_id", m.ID), zap.Error(undoErr))
		}
		return fmt.Errorf("import message %s: %w", m.ID, err)
	}
	done.Count(in.exported)
	i.done.Add(done)
	return nil
}

// beginLong writes the record of a message and the head of its batch, and reports whether it was there already.
func (i *importing) beginLong(ctx context.Context, in *incoming, done *store.Imported) (there bool, err error) {
	m := in.exported.Message
	err = in.encode(storedMessage{Message: m, batch: m.ID})
	if err != nil {
		return false, err
	}
	record := in.message[len(in.message)-1]
	size, entries := cost(record)
	size, entries = size+2*identifyCost, entries+2
	var taken bool
	err = i.store.submitBefore(ctx, &request{size: size, entries: entries, stage: func(g *group) error {
		var err error
		if there, err = has(g.txn, messageKey(m.ID)); err != nil || there {
			return err
		}
		if g.low {
			return i.store.noSpace(i.store.reserve)
		}
		if taken = g.keyTaken(m); taken {
			without := m
			without.Idempotency = nil
			if err := in.encode(storedMessage{Message: without, batch: m.ID}); err != nil {
				return err
			}
			record = in.message[len(in.message)-1]
		}
		g.set(batchKey(m.ID), encodeBatch(batchRecord{}))
		g.set(partKey(m.ID, 0), encodePart([]ahead{{id: m.ID, chunks: len(in.message) - 1}}))
		g.put(record.key, record.value)
		return nil
	}})
	if err != nil {
		return false, err
	}
	if taken {
		in.exported.Message.Idempotency = nil
		done.KeysTaken++
	}
	return there, nil
}

// fillLong writes the rest, and in the end makes the message one that is accepted.
func (i *importing) fillLong(ctx context.Context, in *incoming, done *store.Imported) error {
	s, m := i.store, in.exported.Message
	w := &pieces{store: s, ctx: ctx}
	for _, e := range in.message[:len(in.message)-1] {
		if err := w.put(e); err != nil {
			return err
		}
	}
	for _, one := range in.states {
		for _, e := range one.attempts {
			if err := w.put(e); err != nil {
				return err
			}
		}
		// All of them have a record of their own, by which undoImport knows what has been written.
		one.written = true
		size, entries := one.cost()
		if err := w.add(size, entries, func(g *group) { g.putState(one, done) }); err != nil {
			return err
		}
	}
	return w.last(func(g *group) {
		g.identify(m)
		g.remove(partKey(m.ID, 0))
		g.remove(batchKey(m.ID))
	})
}

// pieces writes what does not fit into one group in several.
type pieces struct {
	store   *Store
	ctx     context.Context //nolint:containedctx // it lives as long as the call that made it
	steps   []func(*group)
	size    int64
	entries int64
}

func (w *pieces) put(e entry) error {
	size, entries := cost(e)
	return w.add(size, entries, func(g *group) { g.put(e.key, e.value) })
}

func (w *pieces) add(size, entries int64, step func(*group)) error {
	if len(w.steps) > 0 && !w.store.fits(w.size+size, w.entries+entries) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.steps = append(w.steps, step)
	w.size, w.entries = w.size+size, w.entries+entries
	return nil
}

func (w *pieces) last(step func(*group)) error {
	if err := w.add(identifyCost, identifyCount+2, step); err != nil {
		return err
	}
	return w.flush()
}

func (w *pieces) flush() error {
	steps := w.steps
	r := &request{size: w.size, entries: w.entries, stage: func(g *group) error {
		if g.low {
			return w.store.noSpace(w.store.reserve)
		}
		for _, step := range steps {
			step(g)
		}
		return nil
	}}
	w.steps, w.size, w.entries = nil, 0, 0
	return w.store.submitBefore(w.ctx, r)
}

// submitBefore is submit before an end of ctx: what is handed over is waited for, since what is taken back afterwards has to
// be there to be seen.
func (s *Store) submitBefore(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.submitAlways(r)
}

// undoImports takes back what has been imported of messages in part, but for their records and bodies, which
// discardBatch deletes like those of any other batch. Of such another there is nothing to take back.
func (s *Store) undoImports(list []ahead) error {
	for _, a := range list {
		if err := s.undoDeliveries(a.id); err != nil {
			return fmt.Errorf("take back message %s: %w", a.id, err)
		}
	}
	return nil
}

// undoImport takes back all that has been imported of a message in part.
func (s *Store) undoImport(id store.MessageID) error {
	e := &enqueuing{store: s, id: id}
	if err := s.db.View(func(txn *view) error { return e.load(txn) }); err != nil {
		return err
	}
	if e.at.decided {
		return nil
	}
	if err := s.undoImports(e.list); err != nil {
		return err
	}
	return s.discardBatch(id, e.list, e.parts)
}

func (s *Store) undoDeliveries(id store.MessageID) error {
	states, attempts, err := s.belongingTo(id)
	if err != nil {
		return err
	}
	for _, key := range states {
		delivery := store.DeliveryID(key[1:])
		err := s.submitAlways(&request{size: steerSize, entries: steerCount, stage: func(g *group) error {
			d, err := readDelivery(g.txn, delivery)
			if err == nil {
				err = g.undo(d)
			}
			switch {
			case g.isDatabase(err):
				g.fail(err)
			case err != nil:
				s.log.Error("delivery of a message that was imported in part cannot be read", zap.Stringer("delivery_id", delivery), zap.Error(err))
				g.remove(key)
			}
			return nil
		}})
		if err != nil {
			return err
		}
	}
	for some := range slices.Chunk(attempts, sweepKeys) {
		if err := s.removeKeys(s.submitAlways, some, func(*group) (bool, error) { return true, nil }); err != nil {
			return err
		}
	}
	return nil
}

// undo takes a delivery away with its indexes.
func (g *group) undo(d store.Delivery) error {
	switch {
	case d.State == store.Pending:
		place, inQueue, err := g.where(d)
		if err != nil {
			return err
		}
		g.leave(d, place, inQueue)
		g.count(d.Destination, -1)
	case d.Blocking:
		g.remove(lineKey(kindBlocked, d.Destination, d.Order))
		g.advance(lineKey(kindLine, d.Destination, d.Order), d.ID)
	default:
		g.remove(endedKey(d.EndedAt, d.ID))
	}
	if key := stateIndexKey(d); key != nil {
		g.remove(key)
	}
	g.remove(destinationIndexKey(d.Destination, d.ID))
	g.remove(deliveryKey(d.ID))
	return nil
}

// belongingTo returns the keys of the states and attempts of a message's deliveries.
func (s *Store) belongingTo(id store.MessageID) (states, attempts [][]byte, err error) {
	err = s.db.View(func(txn *view) error {
		for _, kind := range []byte{kindDelivery, kindAttempt} {
			prefix := append([]byte{kind}, id[:14]...) // the rest has the number of the delivery in it
			scanKeys(txn, prefix, nil, func(key []byte) bool {
				if len(key) < 1+16 || store.DeliveryID(key[1:17]).Message() != id {
					return true
				}
				if kind == kindDelivery && len(key) == 1+16 {
					states = append(states, bytes.Clone(key))
				} else if kind == kindAttempt {
					attempts = append(attempts, bytes.Clone(key))
				}
				return true
			})
		}
		return nil
	})
	return states, attempts, err
}
