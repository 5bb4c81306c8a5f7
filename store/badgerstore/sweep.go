package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// Sweep implements store.Sweeper. It goes through the index of ended deliveries, oldest first. A message with a
// delivery that is pending or Blocking is left to the entry which that will get, and one whose last delivery has not
// ended long enough to the entry of that; the entry looked at goes. A message that cannot be read is logged, kept, and
// looked at again lookAgain later.
func (s *Store) Sweep(ctx context.Context, before time.Time, limit int) (deleted int, more bool, err error) {
	if err := s.begin(ctx); err != nil {
		return 0, false, err
	}
	defer s.use.RUnlock()
	before = toMillis(before)
	keys, more, err := s.endedBefore(before, limit)
	if err != nil {
		return 0, false, fmt.Errorf("sweep: %w", err)
	}
	w := sweeping{store: s, before: before, seen: make(map[store.MessageID]bool)}
	for _, key := range keys {
		if err := w.add(ctx, key); err != nil {
			return w.deleted, more, fmt.Errorf("sweep: %w", err)
		}
	}
	if err := w.flush(ctx); err != nil {
		return w.deleted, more, fmt.Errorf("sweep: %w", err)
	}
	return w.deleted, more, nil
}

// lookAgain is how long the sweep leaves a message alone that it could not read.
const lookAgain = 24 * time.Hour

// endedBefore returns up to limit e keys of before the given time, and whether there are more.
func (s *Store) endedBefore(before time.Time, limit int) (keys [][]byte, more bool, err error) {
	prefix := []byte{kindEnded}
	from, walk := s.ended.begin(prefix, prefix, true)
	var first []byte
	if walk != nil {
		defer func() { s.ended.end(prefix, walk, first, err == nil) }()
	}
	err = s.db.View(func(txn *view) error {
		scanKeys(txn, prefix, from, func(key []byte) bool {
			key = slices.Clone(key)
			if first == nil {
				first = key
			}
			ended, _, err := parseEndedKey(key)
			if err != nil {
				s.warnOnce(key, err)
				return true
			}
			if !ended.Before(before) {
				return false
			}
			if len(keys) >= limit {
				more = true
				return false
			}
			keys = append(keys, key)
			return true
		})
		return nil
	})
	return keys, more, err
}

// sweeping gathers the keys of several messages, to delete them in one group.
type sweeping struct {
	store  *Store
	before time.Time

	waiting []swept
	keys    int                      // in waiting
	later   []entry                  // to write
	seen    map[store.MessageID]bool // messages that have been looked at: their other entries are of no use
	deleted int
}

// swept is what is to be deleted of one message.
type swept struct {
	first  [][]byte // what may go before the rest, if all of it is more than a transaction takes
	rest   [][]byte // goes at one moment
	states []entry  // of its deliveries, with their content: it stays if one has changed, for then it was replayed
	whole  bool     // nothing of it is left then
}

// sweepKeys is how many keys are deleted in a group; only what has to go at one moment may be more. Of the largest
// message that is two keys for each of its deliveries, which are fewer than a transaction takes.
const sweepKeys = 3000

// add takes in the message that an e key belongs to, or the key alone.
func (w *sweeping) add(ctx context.Context, endKey []byte) error {
	_, id, err := parseEndedKey(endKey)
	if err != nil {
		return err
	}
	message := id.Message()
	var one swept
	var attempts [][]byte
	var later []byte
	if !w.seen[message] {
		err = w.store.db.View(func(txn *view) error {
			m, err := readMessage(txn, message)
			if errors.Is(err, store.ErrNotFound) {
				return nil // another entry of it came first
			}
			if err != nil {
				return err
			}
			if later, err = nextLook(txn, m.Message, w.before); err != nil || later != nil {
				return err
			}
			one, attempts, err = sweptOf(txn, m)
			return err
		})
	}
	if errors.Is(err, errDatabase) {
		return err
	}
	if err != nil {
		w.store.log.Error("message cannot be read and is kept", zap.Stringer("message_id", message), zap.Error(err))
		later, one, attempts = endedKey(w.before.Add(lookAgain), id), swept{}, nil
	}
	if w.keys > 0 && w.keys+len(attempts)+len(one.first)+len(one.rest) > sweepKeys {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	// Attempts may be very many, so others may write between. If this ends before the rest, the message is still there,
	// and so is its entry in the index.
	for len(attempts) > sweepKeys {
		w.put(swept{rest: attempts[:sweepKeys], states: one.states})
		attempts = attempts[sweepKeys:]
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	if len(later) > 0 && later[0] == kindEnded {
		w.later = append(w.later, sealed(later))
	}
	w.seen[message] = true
	one.first, one.rest = append(attempts, one.first...), append(one.rest, endKey)
	w.put(one)
	if w.keys < sweepKeys {
		return nil
	}
	return w.flush(ctx)
}

func (w *sweeping) put(one swept) {
	w.waiting = append(w.waiting, one)
	w.keys += len(one.first) + len(one.rest)
}

// flush deletes what has been gathered: in one group, or one message that is more than that in several without another
// writer between, since a replay would find it without its indexes.
func (w *sweeping) flush(ctx context.Context) error {
	if len(w.waiting) == 0 {
		return nil
	}
	size, count := cost(w.later...)
	for _, one := range w.waiting {
		for _, key := range slices.Concat(one.first, one.rest) {
			size += int64(len(key)) + entryOverhead
			count++
		}
	}
	waiting, later, gone := w.waiting, w.later, 0
	var left [][][]byte // of a large message: what the next groups are to delete
	r := &request{size: size, entries: count}
	large := len(waiting) == 1 && (size > w.store.maxGroupSize || count > w.store.maxGroupEntries)
	if large {
		r.size, r.entries = w.store.maxGroupSize, w.store.maxGroupEntries
		r.unfinished = func() bool { return len(left) > 0 }
	}
	r.stage = func(g *group) error {
		if len(left) > 0 {
			g.removeAll(left[0])
			left = left[1:]
			return nil
		}
		if g.none {
			return w.store.noSpace(bottom)
		}
		gone = 0
		for _, e := range later {
			g.put(e.key, e.value)
		}
		for _, one := range waiting {
			same, err := g.unchanged(one.states)
			if g.isDatabase(err) {
				g.fail(err)
				return nil
			}
			if err != nil || !same {
				continue // its entry in the index is left, for another look
			}
			if one.whole {
				gone++
			}
			if large {
				left = append(slices.Collect(slices.Chunk(one.first, sweepKeys)), one.rest)
				g.removeAll(left[0])
				left = left[1:]
				continue
			}
			g.removeAll(one.first)
			g.removeAll(one.rest)
		}
		return nil
	}
	if err := w.store.submit(ctx, r); err != nil {
		return err
	}
	w.deleted += gone
	w.store.settling.deleted.Add(count)
	w.waiting, w.later, w.keys = nil, nil, 0
	return nil
}

// unchanged reports whether each entry has the given content still.
func (g *group) unchanged(entries []entry) (bool, error) {
	for _, e := range entries {
		content, err := g.get(e.key)
		if err != nil || content == nil || !bytes.Equal(content, e.value) {
			return false, err
		}
	}
	return true, nil
}

// stillPending is what nextLook returns for a message that needs no entry in the index now.
var stillPending = []byte{kindQueue}

// nextLook returns nil if all deliveries of a message have ended before the given time. Otherwise it returns the key
// of the entry at which to look again, or stillPending if the end of a delivery or its release is to write that.
func nextLook(txn *view, m store.Message, before time.Time) ([]byte, error) {
	var latest store.Delivery
	for n := range m.Recipients {
		d, err := readDelivery(txn, m.ID.Delivery(n))
		if err != nil {
			return nil, err
		}
		if !d.State.Ended() || d.Blocking {
			return stillPending, nil
		}
		if latest.EndedAt.Before(d.EndedAt) {
			latest = d
		}
	}
	if len(m.Recipients) == 0 || latest.EndedAt.Before(before) {
		return nil, nil
	}
	return endedKey(latest.EndedAt, latest.ID), nil
}

// sweptOf returns what is to be deleted of a message all of whose deliveries have ended, without its attempts, and those.
func sweptOf(txn *view, m storedMessage) (one swept, attempts [][]byte, err error) {
	one.whole, one.rest = true, append(one.rest, messageKey(m.ID))
	for n := range m.chunks {
		one.rest = append(one.rest, chunkKey(m.ID, n))
	}
	if m.Idempotency != nil {
		one.rest = append(one.rest, idempotencyKey(m.Idempotency.Key))
	}
	if m.Event != "" && len(m.Recipients) > 0 {
		one.rest = append(one.rest, eventIndexKey(m.Event, m.ID))
	}
	for n := range m.Recipients {
		id := m.ID.Delivery(n)
		key := deliveryKey(id)
		content, err := get(txn, key)
		if err != nil {
			return swept{}, nil, err
		}
		d, err := decodeDelivery(id, content)
		if err != nil {
			return swept{}, nil, fmt.Errorf("read %s: %w", describe(key), err)
		}
		one.states = append(one.states, entry{key, content})
		one.rest = append(one.rest, key, endedKey(d.EndedAt, id))
		one.first = append(one.first, destinationIndexKey(d.Destination, id))
		if key := stateIndexKey(d); key != nil {
			one.first = append(one.first, key)
		}
		scanKeys(txn, attemptPrefix(id), nil, func(key []byte) bool {
			attempts = append(attempts, slices.Clone(key))
			return true
		})
	}
	return one, attempts, nil
}
