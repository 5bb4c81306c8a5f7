package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/postern-relay/postern/store"
)

// Record implements store.Queue. An attempt may take 512 KiB.
func (s *Store) Record(ctx context.Context, before, after store.Delivery, a store.Attempt) (released store.Delivery, err error) {
	if err := s.begin(ctx); err != nil {
		return store.Delivery{}, err
	}
	defer s.use.RUnlock()
	r, outcome, err := s.recordRequest(before, after, a)
	if err == nil {
		err = s.submit(ctx, r)
	}
	if err == nil {
		err = outcome.err()
	}
	if err != nil {
		return store.Delivery{}, fmt.Errorf("record attempt of %s: %w", before.ID, err)
	}
	return outcome.released, nil
}

// recorded is what the committer has made of a record.
type recorded struct {
	released  store.Delivery
	overtaken *store.OvertakenError // nil if nobody else has changed the delivery
}

func (r *recorded) err() error {
	if r.overtaken != nil {
		return r.overtaken
	}
	return nil
}

// recordRequest returns what Record asks of the committer, and where that puts what came of it.
func (s *Store) recordRequest(before, after store.Delivery, a store.Attempt) (r *request, outcome *recorded, err error) {
	switch {
	case before.ID != after.ID || before.Destination != after.Destination || before.Order != after.Order:
		return nil, nil, fmt.Errorf("the state after it is of another delivery: %w", store.ErrInvalid)
	case a.Number > 0 && a.Delivery != before.ID:
		return nil, nil, fmt.Errorf("the attempt is of another delivery: %w", store.ErrInvalid)
	case a.Number < 0 || a.Number > store.MaxAttempts || a.Number > 0 && (a.Round < 1 || a.Round > store.MaxRound):
		return nil, nil, fmt.Errorf("attempt %d of round %d: %w", a.Number, a.Round, store.ErrInvalid)
	}
	after.Blocking = after.Blocking && after.State == store.Failed && after.Order != ""
	after.Last = before.Last
	if a.Number > 0 {
		after.Last = a.Outcome()
	}
	was, err := encodePending(before)
	if err != nil {
		return nil, nil, err
	}
	entries, err := stateEntries(after)
	if err != nil {
		return nil, nil, err
	}
	var made []entry
	if a.Number > 0 {
		raw := encodeAttempt(a)
		if len(raw) > chunkSize {
			return nil, nil, fmt.Errorf("attempt of %d bytes: %w", len(raw), store.ErrTooLarge)
		}
		made = []entry{sealed(attemptKey(a.Delivery, a.Round, a.Number), raw)}
	}
	place := queueKey(before.Destination, before.Cursor())
	size, count := cost(append(append(made, entries...), entry{key: place})...)
	size, count = size+reindexCost, count+2
	if after.Order != "" {
		size, count = size+releaseSize, count+3
	}
	outcome = new(recorded)
	return &request{size: size, entries: count, patient: after.Order == "", stage: func(g *group) error {
		*outcome = recorded{} // of a group that was too large before
		before, after, place, entries := before, after, place, entries
		last, err := g.checkQueued(place, before, was)
		if errors.Is(err, store.ErrStale) && a.Number > 0 && a.Round == before.Round {
			now, moved := g.moved(before, was)
			if !moved {
				outcome.overtaken, err = s.recordLate(g, now, before, after, a, made)
				return err
			}
			before, place, last, err = now, queueKey(now.Destination, now.Cursor()), now.Last, nil
			after.Last = a.Outcome()
		}
		if err != nil {
			return err
		}
		if g.short {
			return s.noSpace(s.reserve / 2)
		}
		if before.Last != last {
			before.Last = last
			if a.Number == 0 {
				after.Last = last
				if entries, err = stateEntries(after); err != nil {
					return err
				}
			}
		}
		g.remove(place)
		for _, e := range append(made, entries...) {
			g.put(e.key, e.value)
		}
		g.reindex(before, after)
		if !after.State.Ended() {
			return nil
		}
		g.count(after.Destination, -1)
		if after.Order != "" && !after.Blocking {
			outcome.released = g.advance(lineKey(kindLine, after.Destination, after.Order), after.ID)
		}
		return nil
	}}, outcome, nil
}

// moved returns a delivery that does not stand in the queue as it was, and whether it stands there at another time and
// is else as before. was is the encoding of before. A delivery that cannot be read has no ID.
func (g *group) moved(before store.Delivery, was []byte) (now store.Delivery, moved bool) {
	now, err := readDelivery(g.txn, before.ID)
	if err != nil {
		if g.isDatabase(err) {
			g.fail(err)
		}
		return store.Delivery{}, false
	}
	if now.State != store.Pending || now.DueAt.Equal(before.DueAt) {
		return now, false
	}
	same := now
	same.DueAt, same.Last = before.DueAt, before.Last
	raw, err := encodePending(same)
	if err != nil || !bytes.Equal(raw, was) {
		return now, false
	}
	queued, err := has(g.txn, queueKey(now.Destination, now.Cursor()))
	if err != nil {
		g.fail(err)
	}
	return now, queued
}

// recordLate writes an attempt of a delivery that was canceled or has begun another round since, unless it is on record
// already: a try that ended with an error may have made it.
func (s *Store) recordLate(g *group, now, before, after store.Delivery, a store.Attempt, made []entry) (*store.OvertakenError, error) {
	canceled := now.State == store.Canceled && now.Round == before.Round && now.Made == before.Made
	if now.ID == (store.DeliveryID{}) || !canceled && now.Round <= before.Round {
		return nil, store.ErrStale
	}
	switch there, err := has(g.txn, attemptKey(a.Delivery, a.Round, a.Number)); {
	case err != nil:
		g.fail(err)
		return nil, err
	case there:
		return nil, store.ErrStale
	case g.short:
		return nil, s.noSpace(s.reserve / 2)
	}
	if canceled {
		was := now
		now.Attempts, now.Made, now.Last = after.Attempts, after.Made, a.Outcome()
		raw, err := encodePending(now)
		if err != nil {
			return nil, err
		}
		made = append(made[:len(made):len(made)], sealed(deliveryKey(now.ID), raw))
		g.reindex(was, now)
	}
	for _, e := range made {
		g.put(e.key, e.value)
	}
	return &store.OvertakenError{Now: now}, nil
}

// reindexCost is what reindex writes, at most.
const reindexCost = 2 * (4 + 16 + entryOverhead)

// stateEntries returns what a delivery stands under besides its indexes: its record, and its place in the queue or what
// tells the sweep of its end.
func stateEntries(d store.Delivery) ([]entry, error) {
	raw, err := encodePending(d)
	if err != nil {
		return nil, err
	}
	entries := []entry{sealed(deliveryKey(d.ID), raw)}
	switch {
	case d.Blocking:
		// Its entry for the sweep comes with its release: it is not swept before.
		return append(entries, sealed(lineKey(kindBlocked, d.Destination, d.Order), d.ID[:])), nil
	case d.State.Ended():
		return append(entries, sealed(endedKey(d.EndedAt, d.ID))), nil
	default:
		return append(entries, sealed(queueKey(d.Destination, d.Cursor()), raw)), nil
	}
}

// checkQueued returns ErrStale if not this state of a delivery stands in the given place of a queue, and otherwise the
// Last of what does, in which alone it may differ. was is its encoding. If what stands there is damaged, the delivery's
// other records tell, as they do for Due.
func (g *group) checkQueued(place []byte, before store.Delivery, was []byte) (last store.Outcome, err error) {
	content, err := g.get(place)
	if err == nil && bytes.Equal(content, was) {
		return before.Last, nil
	}
	if err == nil && content == nil {
		return last, store.ErrStale
	}
	var stored store.Delivery
	if err == nil {
		stored, err = decodeDelivery(before.ID, content)
	}
	if err != nil && !g.isDatabase(err) {
		d, ok, mendErr := mend(g.txn, place)
		if mendErr != nil || !ok {
			return last, errors.Join(err, mendErr)
		}
		stored, err = d, nil
	}
	if err != nil {
		return last, err
	}
	before.Last = stored.Last
	again, err := encodePending(before)
	if err == nil {
		content, err = encodePending(stored)
	}
	if err == nil && !bytes.Equal(content, again) {
		err = store.ErrStale
	}
	return stored.Last, err
}
