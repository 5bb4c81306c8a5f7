package badgerstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

// scan calls fn for each key with the prefix, in order, from the given one on (nil means from the first), until it
// returns false. Key and content are only good until it returns.
func scan(txn *badger.Txn, prefix, from []byte, fn func(key, content []byte) (more bool, err error)) error {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false // values stand beside their keys anyway
	o.Prefix = prefix
	it := txn.NewIterator(o)
	defer it.Close()
	if from == nil {
		from = prefix
	}
	for it.Seek(from); it.Valid(); it.Next() {
		more := false
		item := it.Item()
		err := item.Value(func(value []byte) error {
			content, err := unseal(item.Key(), value)
			if err != nil {
				return fmt.Errorf("read %s: %w", describe(item.Key()), err)
			}
			more, err = fn(item.Key(), content)
			return err
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// Due implements store.Queue.
func (s *Store) Due(ctx context.Context, destination string, after store.Cursor, limit int) (due []store.Delivery, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	if limit <= 0 {
		return nil, nil
	}
	prefix := queuePrefix(destination)
	from, walk := s.heads.begin(prefix, append(queueKey(destination, after), 0), after == store.Cursor{})
	var first []byte
	if walk != nil {
		defer func() { s.heads.end(prefix, walk, first, err == nil) }()
	}
	err = s.db.View(func(txn *badger.Txn) error {
		return scan(txn, prefix, from, func(key, content []byte) (bool, error) {
			if first == nil {
				first = bytes.Clone(key)
			}
			name, at, err := parseQueueKey(key)
			if err != nil || name != destination {
				return false, fmt.Errorf("read %s: %w", describe(key), errBadKey)
			}
			d, err := decodeDelivery(at.ID, content)
			if err != nil {
				return false, fmt.Errorf("read %s: %w", describe(key), err)
			}
			due = append(due, d)
			return len(due) < limit, ctx.Err()
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read queue of %q: %w", destination, err)
	}
	return due, nil
}

// PendingDestinations implements store.History.
func (s *Store) PendingDestinations(ctx context.Context) ([]string, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	var names []string
	err := s.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		o.Prefix = []byte{kindQueue}
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); {
			name, _, err := parseQueueKey(it.Item().Key())
			if err != nil {
				return fmt.Errorf("read %s: %w", describe(it.Item().Key()), err)
			}
			names = append(names, name)
			if err := ctx.Err(); err != nil {
				return err
			}
			// To the first key behind all of this destination: the byte after its name is 0.
			it.Seek(append(append([]byte{kindQueue}, name...), 1))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list destinations: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// Pending implements store.History.
func (s *Store) Pending() int64 { return s.pending.Load() }

// Load implements store.Loader.
func (s *Store) Load(ctx context.Context, id store.MessageID) (store.Message, []byte, error) {
	if err := s.begin(ctx); err != nil {
		return store.Message{}, nil, err
	}
	defer s.use.RUnlock()
	return s.loadMessage(id)
}

func (s *Store) loadMessage(id store.MessageID) (m store.Message, body []byte, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		var chunks int
		m, chunks, body, err = readMessage(txn, id)
		if err != nil || chunks == 0 {
			return err
		}
		body = make([]byte, 0, m.Size)
		for n := range chunks {
			key := chunkKey(id, n)
			piece, err := get(txn, key)
			if err != nil {
				return err
			}
			if piece == nil {
				return fmt.Errorf("read %s: chunk %d is missing", describe(key), n)
			}
			body = append(body, piece...)
		}
		if len(body) != m.Size {
			return fmt.Errorf("body has %d bytes instead of %d", len(body), m.Size)
		}
		return nil
	})
	if err != nil {
		return store.Message{}, nil, fmt.Errorf("load message %s: %w", id, err)
	}
	return m, body, nil
}

// readMessage returns a message, and its body if that is not in chunks.
func readMessage(txn *badger.Txn, id store.MessageID) (m store.Message, chunks int, body []byte, err error) {
	key := messageKey(id)
	content, err := get(txn, key)
	if err != nil {
		return store.Message{}, 0, nil, err
	}
	if content == nil {
		return store.Message{}, 0, nil, store.ErrNotFound
	}
	m, chunks, body, err = decodeMessage(id, content)
	if err != nil {
		return store.Message{}, 0, nil, fmt.Errorf("read %s: %w", describe(key), err)
	}
	return m, chunks, body, nil
}

// Delivery implements store.History.
func (s *Store) Delivery(ctx context.Context, id store.DeliveryID) (d store.Delivery, err error) {
	if err := s.begin(ctx); err != nil {
		return store.Delivery{}, err
	}
	defer s.use.RUnlock()
	err = s.db.View(func(txn *badger.Txn) error {
		d, err = readDelivery(txn, id)
		return err
	})
	if err != nil {
		return store.Delivery{}, fmt.Errorf("load delivery %s: %w", id, err)
	}
	return d, nil
}

// readDelivery returns the state of a delivery: what was recorded last, or else what its message says.
func readDelivery(txn *badger.Txn, id store.DeliveryID) (store.Delivery, error) {
	key := deliveryKey(id)
	content, err := get(txn, key)
	if err != nil {
		return store.Delivery{}, err
	}
	if content != nil {
		d, err := decodeDelivery(id, content)
		if err != nil {
			return store.Delivery{}, fmt.Errorf("read %s: %w", describe(key), err)
		}
		return d, nil
	}
	m, _, _, err := readMessage(txn, id.Message())
	if err != nil {
		return store.Delivery{}, err
	}
	if n := id.Index(); n >= 0 && n < len(m.Recipients) {
		return m.Delivery(n), nil
	}
	return store.Delivery{}, store.ErrNotFound
}

// Attempts implements store.History.
func (s *Store) Attempts(ctx context.Context, id store.DeliveryID, limit int) (attempts []store.Attempt, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	err = s.db.View(func(txn *badger.Txn) error {
		if _, err := readDelivery(txn, id); err != nil {
			return err
		}
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		o.Reverse = true
		o.Prefix = attemptPrefix(id)
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Seek(append(attemptPrefix(id), 0xff, 0xff, 0xff, 0xff, 0xff)); it.Valid() && len(attempts) < limit; it.Next() {
			key := it.Item().KeyCopy(nil)
			content, err := get(txn, key)
			if err != nil {
				return err
			}
			a, err := decodeAttempt(key, content)
			if err != nil {
				return fmt.Errorf("read %s: %w", describe(key), err)
			}
			attempts = append(attempts, a)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load attempts of %s: %w", id, err)
	}
	slices.Reverse(attempts)
	return attempts, nil
}
