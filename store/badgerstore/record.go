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
	r, next, err := s.recordRequest(before, after, a)
	if err == nil {
		err = s.submit(ctx, r)
	}
	if err != nil {
		return store.Delivery{}, fmt.Errorf("record attempt of %s: %w", before.ID, err)
	}
	return *next, nil
}

// recordRequest returns what Record asks of the committer, and where that puts the delivery it has released.
func (s *Store) recordRequest(before, after store.Delivery, a store.Attempt) (r *request, released *store.Delivery, err error) {
	switch {
	case before.ID != after.ID || before.Destination != after.Destination || before.Order != after.Order:
		return nil, nil, fmt.Errorf("the state after it is of another delivery: %w", store.ErrInvalid)
	case a.Number > 0 && a.Delivery != before.ID:
		return nil, nil, fmt.Errorf("the attempt is of another delivery: %w", store.ErrInvalid)
	case a.Number < 0 || a.Number > store.MaxAttempts || a.Number > 0 && (a.Round < 1 || a.Round > store.MaxRound):
		return nil, nil, fmt.Errorf("attempt %d of round %d: %w", a.Number, a.Round, store.ErrInvalid)
	}
	after.Blocking = after.Blocking && after.State == store.Failed && after.Order != ""
	was, err := encodePending(before)
	if err != nil {
		return nil, nil, err
	}
	is, err := encodePending(after)
	if err != nil {
		return nil, nil, err
	}
	entries := []entry{sealed(deliveryKey(after.ID), is)}
	line := lineKey(kindLine, after.Destination, after.Order)
	ended := after.State.Ended()
	switch {
	case after.Blocking:
		// Its entry for the sweep comes with its release: it is not swept before.
		entries = append(entries, sealed(lineKey(kindBlocked, after.Destination, after.Order), after.ID[:]))
	case ended:
		entries = append(entries, sealed(endedKey(after.EndedAt, after.ID)))
	default:
		entries = append(entries, sealed(queueKey(after.Destination, after.Cursor()), is))
	}
	if a.Number > 0 {
		raw, err := encodeAttempt(a)
		if err != nil {
			return nil, nil, err
		}
		if len(raw) > chunkSize {
			return nil, nil, fmt.Errorf("attempt of %d bytes: %w", len(raw), store.ErrTooLarge)
		}
		entries = append(entries, sealed(attemptKey(a.Delivery, a.Round, a.Number), raw))
	}
	place := queueKey(before.Destination, before.Cursor())
	size, count := cost(append(entries, entry{key: place})...)
	if after.Order != "" {
		size, count = size+releaseSize, count+3
	}
	released = new(store.Delivery)
	return &request{size: size, entries: count, stage: func(g *group) error {
		if err := g.checkQueued(place, was); err != nil {
			return err
		}
		if g.short {
			return s.noSpace(s.reserve / 2)
		}
		g.remove(place)
		for _, e := range entries {
			g.put(e.key, e.value)
		}
		if !ended {
			return nil
		}
		g.pending--
		if after.Order != "" && !after.Blocking {
			*released = g.advance(line)
		}
		return nil
	}}, released, nil
}

// checkQueued returns ErrStale if not this state of a delivery stands in the given place of a queue. If what stands
// there is damaged, the delivery's other records tell, as they do for Due.
func (g *group) checkQueued(place, was []byte) error {
	stored, err := g.get(place)
	if err != nil && !g.isDatabase(err) {
		d, ok, mendErr := mend(g.txn, place)
		if mendErr != nil || !ok {
			return errors.Join(err, mendErr)
		}
		stored, err = encodePending(d)
	}
	if err != nil {
		return err
	}
	if stored == nil || !bytes.Equal(stored, was) {
		return store.ErrStale
	}
	return nil
}
