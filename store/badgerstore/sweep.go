package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
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
	err = s.db.View(func(txn *badger.Txn) error {
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

	keys    [][]byte                 // to delete
	later   []entry                  // to write
	gone    int                      // messages among the keys
	seen    map[store.MessageID]bool // messages that are
	deleted int
}

// sweepKeys is the number of keys from which on a group is written. With those of the largest message, two for each of
// its deliveries, they are fewer than a transaction takes.
const sweepKeys = 3000

// add takes in the message that an e key belongs to, or the key alone.
func (w *sweeping) add(ctx context.Context, endKey []byte) error {
	_, id, err := parseEndedKey(endKey)
	if err != nil {
		return err
	}
	message := id.Message()
	var last, attempts [][]byte
	var later []byte
	if !w.seen[message] {
		err = w.store.db.View(func(txn *badger.Txn) error {
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
			last, attempts, err = keysOf(txn, m)
			return err
		})
	}
	if errors.Is(err, errDatabase) {
		return err
	}
	if err != nil {
		w.store.log.Error("message cannot be read and is kept", zap.Stringer("message_id", message), zap.Error(err))
		later, last, attempts = endedKey(w.before.Add(lookAgain), id), nil, nil
	}
	// Attempts may be too many for one transaction. If this ends between two, the message is still there, and so is
	// its entry in the index.
	for len(attempts) > sweepKeys {
		w.keys = append(w.keys, attempts[:sweepKeys]...)
		attempts = attempts[sweepKeys:]
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	if n := len(w.keys); n > 0 && n+len(attempts)+len(last) > sweepKeys {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	w.keys = slices.Concat(w.keys, attempts, last, [][]byte{endKey})
	if len(later) > 0 && later[0] == kindEnded {
		w.later = append(w.later, sealed(later))
	}
	if len(last) > 0 {
		w.seen[message] = true
		w.gone++
	}
	if len(w.keys) < sweepKeys {
		return nil
	}
	return w.flush(ctx)
}

func (w *sweeping) flush(ctx context.Context) error {
	if len(w.keys) == 0 {
		return nil
	}
	keys, later := w.keys, w.later
	submit := func(r *request) error { return w.store.submit(ctx, r) }
	err := w.store.removeKeys(submit, keys, func(g *group) (bool, error) {
		for _, e := range later {
			g.put(e.key, e.value)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	w.deleted += w.gone
	w.keys, w.later, w.gone = nil, nil, 0
	return nil
}

// stillPending is what nextLook returns for a message that needs no entry in the index now.
var stillPending = []byte{kindQueue}

// nextLook returns nil if all deliveries of a message have ended before the given time. Otherwise it returns the key
// of the entry at which to look again, or stillPending if the end of a delivery or its release is to write that.
func nextLook(txn *badger.Txn, m store.Message, before time.Time) ([]byte, error) {
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

// keysOf returns the keys of a message all of whose deliveries have ended: those of its attempts, and the others.
func keysOf(txn *badger.Txn, m storedMessage) (last, attempts [][]byte, err error) {
	last = append(last, messageKey(m.ID))
	for n := range m.chunks {
		last = append(last, chunkKey(m.ID, n))
	}
	if m.Idempotency != nil {
		last = append(last, idempotencyKey(m.Idempotency.Key))
	}
	for n := range m.Recipients {
		d, err := readDelivery(txn, m.ID.Delivery(n))
		if err != nil {
			return nil, nil, err
		}
		last = append(last, deliveryKey(d.ID), endedKey(d.EndedAt, d.ID))
		scanKeys(txn, attemptPrefix(d.ID), nil, func(key []byte) bool {
			attempts = append(attempts, slices.Clone(key))
			return true
		})
	}
	return last, attempts, nil
}
