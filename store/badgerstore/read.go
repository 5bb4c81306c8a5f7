package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// scanKeys calls fn for each key with the prefix, in order, from the given one on (nil means from the first), until it
// returns false. The key is only good until it returns.
func scanKeys(txn *view, prefix, from []byte, fn func(key []byte) (more bool)) {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = prefix
	it := txn.NewIterator(o)
	defer it.Close()
	if from == nil {
		from = prefix
	}
	for it.Seek(from); it.Valid() && fn(it.Item().Key()); it.Next() {
	}
}

// Due implements store.Queue. An entry of the queue that is damaged is made anew from the delivery's other records, and
// left out if that does not help: one bad record does not hold up a destination, nor the line that it is the head of.
func (s *Store) Due(ctx context.Context, destination string, after store.Cursor, limit int) (due []store.Delivery, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	if limit <= 0 {
		return nil, nil
	}
	due, lost, err := s.readQueue(ctx, destination, after, limit)
	if err == nil && len(lost) > 0 && s.passOver(ctx, destination, lost) {
		due, _, err = s.readQueue(ctx, destination, after, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("read queue of %q: %w", destination, err)
	}
	s.readAhead(due)
	return due, nil
}

// readQueue is Due, and returns the deliveries that it has left out too.
func (s *Store) readQueue(ctx context.Context, destination string, after store.Cursor, limit int) (due []store.Delivery, lost []store.DeliveryID, err error) {
	prefix := queuePrefix(destination)
	from, walk := s.heads.begin(prefix, append(queueKey(destination, after), 0), after == store.Cursor{})
	var first []byte
	if walk != nil {
		defer func() { s.heads.end(prefix, walk, first, err == nil) }()
	}
	err = s.db.View(func(txn *view) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false // values stand beside their keys anyway
		o.Prefix = prefix
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Seek(from); it.Valid() && len(due) < limit; it.Next() {
			key := it.Item().Key()
			if first == nil {
				first = bytes.Clone(key)
			}
			d, ok, err := s.queued(txn, it.Item(), destination)
			if err != nil {
				return err
			}
			if ok {
				due = append(due, d)
			} else if _, at, err := parseQueueKey(key); err == nil {
				lost = append(lost, at.ID)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	})
	return due, lost, err
}

// queued returns the delivery of an entry of a destination's queue, and false if it cannot be read.
func (s *Store) queued(txn *view, item *badger.Item, destination string) (d store.Delivery, ok bool, err error) {
	key := item.Key()
	name, at, err := parseQueueKey(key)
	if err != nil || name != destination {
		s.warnOnce(key, errBadKey)
		return store.Delivery{}, false, nil
	}
	damage := error(nil)
	err = item.Value(func(value []byte) error {
		content, err := txn.open(key, value)
		if err == nil {
			d, err = decodeDelivery(at.ID, content)
		}
		damage = err
		return nil
	})
	if err != nil {
		return store.Delivery{}, false, fmt.Errorf("read %s: %w: %w", describe(key), errDatabase, err)
	}
	if damage == nil {
		return d, true, nil
	}
	s.warnOnce(key, damage)
	d, ok, err = mend(txn, key)
	return d, ok, err
}

// mend returns the delivery that an entry of the queue is of, from its other records, and false if they do not tell.
func mend(txn *view, key []byte) (d store.Delivery, ok bool, err error) {
	name, at, err := parseQueueKey(key)
	if err != nil {
		return store.Delivery{}, false, nil
	}
	d, err = readDelivery(txn, at.ID)
	switch {
	case errors.Is(err, errDatabase):
		return store.Delivery{}, false, err
	case err != nil || d.State != store.Pending || d.Destination != name || d.Cursor() != at:
		return store.Delivery{}, false, nil
	}
	return d, true, nil
}

// warnOnce logs a damaged record of a queue, which is met again and again.
func (s *Store) warnOnce(key []byte, cause error) {
	if s.once(string(key)) {
		s.log.Error("record of a queue is damaged", zap.String("record", describe(key)), zap.Error(cause))
	}
}

// once reports whether it is asked for the first time about something damaged. Beyond a thousand of those it never is.
func (s *Store) once(what string) bool {
	const remembered = 1000
	s.failure.Lock()
	defer s.failure.Unlock()
	if s.damaged[what] || len(s.damaged) >= remembered {
		return false
	}
	s.damaged[what] = true
	return true
}

// forget makes once report it again.
func (s *Store) forget(what string) {
	s.failure.Lock()
	defer s.failure.Unlock()
	delete(s.damaged, what)
}

// Load implements store.Loader.
func (s *Store) Load(ctx context.Context, id store.MessageID) (store.Message, []byte, error) {
	if err := s.begin(ctx); err != nil {
		return store.Message{}, nil, err
	}
	defer s.use.RUnlock()
	if m, body, ok := s.kept(id); ok {
		return m, body, nil
	}
	return s.loadMessage(id)
}

func (s *Store) loadMessage(id store.MessageID) (m store.Message, body []byte, err error) {
	err = s.db.View(func(txn *view) error {
		stored, err := readMessage(txn, id)
		if err != nil {
			return err
		}
		m = stored.Message
		body, err = stored.load(txn)
		return err
	})
	if err != nil {
		return store.Message{}, nil, fmt.Errorf("load message %s: %w", id, err)
	}
	return m, body, nil
}

// load returns what is kept of the body.
func (m storedMessage) load(txn *view) (body []byte, err error) {
	if m.chunks == 0 {
		return m.body, nil
	}
	body = make([]byte, 0, m.length())
	for n := range m.chunks {
		key := chunkKey(m.ID, n)
		piece, err := get(txn, key)
		if err != nil {
			return nil, err
		}
		if piece == nil {
			return nil, fmt.Errorf("read %s: chunk %d is missing", describe(key), n)
		}
		body = append(body, piece...)
	}
	if len(body) != m.length() {
		return nil, fmt.Errorf("body has %d bytes instead of %d", len(body), m.length())
	}
	return body, nil
}

// readMessage returns a message that has been accepted. One that is written ahead is not there yet.
func readMessage(txn *view, id store.MessageID) (storedMessage, error) {
	m, err := readStored(txn, id)
	if err != nil || m.batch == (store.MessageID{}) {
		return m, err
	}
	content, err := get(txn, batchKey(m.batch))
	if err != nil || content == nil {
		return m, err // without a head the batch is done
	}
	b, err := decodeBatch(content)
	if err == nil && !b.decided {
		err = store.ErrNotFound
	}
	return m, err
}

// readStored returns a message that may only be written ahead.
func readStored(txn *view, id store.MessageID) (storedMessage, error) {
	key := messageKey(id)
	content, err := get(txn, key)
	if err != nil {
		return storedMessage{}, err
	}
	if content == nil {
		return storedMessage{}, store.ErrNotFound
	}
	m, err := decodeMessage(id, content)
	if err != nil {
		return storedMessage{}, fmt.Errorf("read %s: %w", describe(key), err)
	}
	return m, nil
}

// Delivery implements store.History.
func (s *Store) Delivery(ctx context.Context, id store.DeliveryID) (d store.Delivery, err error) {
	if err := s.begin(ctx); err != nil {
		return store.Delivery{}, err
	}
	defer s.use.RUnlock()
	err = s.db.View(func(txn *view) error {
		d, err = readDelivery(txn, id)
		return err
	})
	if err != nil {
		return store.Delivery{}, fmt.Errorf("load delivery %s: %w", id, err)
	}
	return d, nil
}

// readDelivery returns the state of a delivery: what was recorded last, or else what its message says.
func readDelivery(txn *view, id store.DeliveryID) (store.Delivery, error) {
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
	m, err := readMessage(txn, id.Message())
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
	err = s.db.View(func(txn *view) error {
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
