package badgerstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

// steerSize is what steering one delivery writes, at most: its own two records and the next of its line.
const (
	steerSize  = 3*maxDelivery + releaseSize
	steerCount = 16
)

// steer changes the stored state of a delivery in one transaction. change is called with the state as it is, and
// returns it as it is to be; it checks everything before it writes anything.
func (s *Store) steer(ctx context.Context, what string, id store.DeliveryID, change func(g *group, d store.Delivery) (store.Delivery, error)) (store.Delivery, error) {
	if err := s.begin(ctx); err != nil {
		return store.Delivery{}, err
	}
	defer s.use.RUnlock()
	var after store.Delivery // the committer's until it has answered
	err := s.submit(ctx, &request{size: steerSize, entries: steerCount, stage: func(g *group) error {
		before, err := readDelivery(g.txn, id)
		if err == nil {
			after, err = change(g, before)
		}
		return err
	}})
	if err != nil {
		return store.Delivery{}, fmt.Errorf("%s %s: %w", what, id, err)
	}
	return after, nil
}

// become writes the new state of a delivery that has left its old place.
func (g *group) become(before, after store.Delivery, entries []entry) {
	for _, e := range entries {
		g.put(e.key, e.value)
	}
	g.reindex(before, after)
}

// where returns the key of the queue or of the line under which a pending delivery stands. inQueue tells which.
func (g *group) where(d store.Delivery) (place []byte, inQueue bool, err error) {
	place = queueKey(d.Destination, d.Cursor())
	_, err = g.txn.Get(place)
	if err == nil {
		return place, true, nil
	}
	if !errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, fmt.Errorf("read %s: %w: %w", describe(place), errDatabase, err)
	}
	index := destinationIndexKey(d.Destination, d.ID)
	content, err := g.get(index)
	if err != nil {
		return nil, false, err
	}
	if len(content) != 8 {
		return nil, false, fmt.Errorf("read %s: it has no place in a line", describe(index))
	}
	place = waitingKey(lineKey(kindLine, d.Destination, d.Order), binary.BigEndian.Uint64(content))
	// What stands there may be damaged. That it is this delivery, the index has told.
	content, err = g.get(place)
	switch {
	case errors.Is(err, errDatabase):
		return nil, false, err
	case err == nil && !bytes.HasPrefix(content, d.ID[:]):
		return nil, false, fmt.Errorf("read %s: another delivery stands in its place", describe(place))
	}
	return place, false, nil
}

// leave takes a pending delivery from its place, and returns what that has released.
func (g *group) leave(d store.Delivery, place []byte, inQueue bool) (released store.Delivery) {
	g.remove(place)
	if d.Order == "" {
		return store.Delivery{}
	}
	key := lineKey(kindLine, d.Destination, d.Order)
	if inQueue {
		return g.advance(key, d.ID)
	}
	// The line may have been kept for this place alone.
	switch l, ok, err := g.readLine(key); {
	case err != nil:
		g.fail(err)
	case ok && l.empty():
		g.endLine(key, l)
	}
	return store.Delivery{}
}

// Replay implements store.Steerer.
func (s *Store) Replay(ctx context.Context, id store.DeliveryID, due time.Time) (store.Delivery, error) {
	return s.steer(ctx, "replay", id, func(g *group, d store.Delivery) (store.Delivery, error) {
		if g.low {
			return d, s.noSpace(s.reserve)
		}
		if d.Round >= store.MaxRound {
			return d, fmt.Errorf("round %d: %w", d.Round+1, store.ErrTooLarge)
		}
		after := d
		after.State, after.Blocking, after.Reason = store.Pending, false, ""
		after.Round, after.Attempts, after.Made = d.Round+1, 0, 0
		after.BegunAt, after.DueAt, after.EndedAt = time.Time{}, toMillis(due), time.Time{}
		if !d.Blocking {
			after.Order = ""
		}
		entries, err := stateEntries(after)
		if err != nil {
			return d, err
		}
		if d.State.Ended() {
			if err := s.checkBacklog(g, 1); err != nil {
				return d, err
			}
			if d.Blocking {
				if err := g.lead(lineKey(kindLine, d.Destination, d.Order), d.ID); err != nil {
					return d, err
				}
				g.remove(lineKey(kindBlocked, d.Destination, d.Order))
			} else {
				g.remove(endedKey(d.EndedAt, d.ID))
			}
			g.count(d.Destination, 1)
		} else {
			place, inQueue, err := g.where(d)
			if err != nil {
				return d, err
			}
			g.leave(d, place, inQueue)
		}
		g.become(d, after, entries)
		// It stands behind nobody now. And a sweep that a kill has cut off may have taken the entry.
		g.put(destinationIndexKey(d.Destination, d.ID), nil)
		return after, nil
	})
}

// Cancel implements store.Steerer.
func (s *Store) Cancel(ctx context.Context, id store.DeliveryID, at time.Time, reason string) (canceled, released store.Delivery, err error) {
	var next store.Delivery // the committer's until it has answered
	canceled, err = s.steer(ctx, "cancel", id, func(g *group, d store.Delivery) (store.Delivery, error) {
		next = store.Delivery{}
		if d.State.Ended() && !d.Blocking {
			return d, store.ErrStale
		}
		if g.short {
			return d, s.noSpace(s.reserve / 2)
		}
		after := d
		if d.Blocking {
			after.Blocking = false
		} else {
			after.State, after.Reason = store.Canceled, store.CutReason(reason)
			after.DueAt, after.EndedAt = time.Time{}, toMillis(at)
		}
		entries, err := stateEntries(after)
		if err != nil {
			return d, err
		}
		if d.Blocking {
			g.remove(lineKey(kindBlocked, d.Destination, d.Order))
			next = g.advance(lineKey(kindLine, d.Destination, d.Order), d.ID)
		} else {
			place, inQueue, err := g.where(d)
			if err != nil {
				return d, err
			}
			next = g.leave(d, place, inQueue)
			g.count(d.Destination, -1)
		}
		g.become(d, after, entries)
		return after, nil
	})
	if err != nil {
		return store.Delivery{}, store.Delivery{}, err
	}
	return canceled, next, nil
}

// Expedite implements store.Steerer.
func (s *Store) Expedite(ctx context.Context, id store.DeliveryID, due time.Time) (store.Delivery, error) {
	return s.steer(ctx, "expedite", id, func(g *group, d store.Delivery) (store.Delivery, error) {
		if d.State.Ended() {
			return d, store.ErrStale
		}
		if g.short {
			return d, s.noSpace(s.reserve / 2)
		}
		place, inQueue, err := g.where(d)
		if err != nil {
			return d, err
		}
		if !inQueue {
			return d, store.ErrStale
		}
		after := d
		after.DueAt = toMillis(due)
		entries, err := stateEntries(after)
		if err != nil {
			return d, err
		}
		g.remove(place)
		g.become(d, after, entries)
		return after, nil
	})
}

// Reduce implements store.Steerer.
func (s *Store) Reduce(ctx context.Context, id store.MessageID, body []byte) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.use.RUnlock()
	if len(body) > store.MaxReduced {
		return fmt.Errorf("reduce message %s to %d bytes: %w", id, len(body), store.ErrTooLarge)
	}
	err := s.submit(ctx, &request{
		size:    int64(len(body)) + valueThreshold/2 + maxChunks*(32+entryOverhead),
		entries: maxChunks + 4,
		stage:   func(g *group) error { return s.reduce(g, id, body) },
	})
	if err != nil {
		return fmt.Errorf("reduce message %s: %w", id, err)
	}
	return nil
}

func (s *Store) reduce(g *group, id store.MessageID, body []byte) error {
	m, err := readMessage(g.txn, id)
	if err != nil {
		return err
	}
	for n := range m.Recipients {
		d, err := readDelivery(g.txn, id.Delivery(n))
		if err != nil {
			return err
		}
		if !d.State.Ended() {
			return store.ErrStale
		}
	}
	if g.short {
		return s.noSpace(s.reserve / 2)
	}
	was := m.chunks
	m.Reduced, m.kept = true, len(body)
	var entries []entry
	put := func(e entry) error {
		entries = append(entries, e)
		return nil
	}
	if err := encodeAccept(m, body, put); err != nil {
		return err
	}
	if size, _ := cost(entries...); size > s.db.MaxBatchSize()*9/10 {
		body, m.kept, entries = nil, 0, nil // rather none of it than the one that was posted
		if err := encodeAccept(m, nil, put); err != nil {
			return err
		}
	}
	for n := chunksOf(body); n < was; n++ {
		g.remove(chunkKey(id, n))
	}
	for _, e := range entries {
		g.put(e.key, e.value)
	}
	return nil
}
