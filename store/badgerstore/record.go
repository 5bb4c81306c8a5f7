package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/postern-relay/postern/store"
)

// Record implements store.Queue. An attempt may take 512 KiB.
func (s *Store) Record(ctx context.Context, before, after store.Delivery, a store.Attempt) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.use.RUnlock()
	r, err := recordRequest(before, after, a)
	if err == nil {
		err = s.submit(ctx, r)
	}
	if err != nil {
		return fmt.Errorf("record attempt of %s: %w", before.ID, err)
	}
	return nil
}

func recordRequest(before, after store.Delivery, a store.Attempt) (*request, error) {
	switch {
	case before.ID != after.ID || before.Destination != after.Destination:
		return nil, errors.New("the state after it is of another delivery")
	case a.Number > 0 && a.Delivery != before.ID:
		return nil, errors.New("the attempt is of another delivery")
	case a.Number < 0 || a.Number > math.MaxUint16 || a.Round < 0 || a.Round > math.MaxUint16:
		return nil, errors.New("round or number of the attempt is out of range")
	}
	was, err := encodeDelivery(before)
	if err != nil {
		return nil, err
	}
	is, err := encodeDelivery(after)
	if err != nil {
		return nil, err
	}
	entries := []entry{sealed(deliveryKey(after.ID), is)}
	ended := after.State.Ended()
	if ended {
		entries = append(entries, sealed(endedKey(after.EndedAt, after.ID)))
	} else {
		entries = append(entries, sealed(queueKey(after.Destination, after.Cursor()), is))
	}
	if a.Number > 0 {
		raw, err := encodeAttempt(a)
		if err != nil {
			return nil, err
		}
		if len(raw) > chunkSize {
			return nil, fmt.Errorf("attempt of %d bytes: %w", len(raw), store.ErrTooLarge)
		}
		entries = append(entries, sealed(attemptKey(a.Delivery, a.Round, a.Number), raw))
	}
	place := queueKey(before.Destination, before.Cursor())
	size, count := cost(append(entries, entry{key: place})...)
	return &request{size: size, entries: count, stage: func(g *group) error {
		stored, err := g.get(place)
		if err != nil {
			return err
		}
		if stored == nil || !bytes.Equal(stored, was) {
			return store.ErrStale
		}
		g.remove(place)
		for _, e := range entries {
			g.put(e.key, e.value)
		}
		if ended {
			g.pending--
		}
		return nil
	}}, nil
}
