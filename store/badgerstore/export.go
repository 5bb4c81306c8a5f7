package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

var _ store.Exporter = (*Store)(nil)

// Export implements store.Exporter. It holds one snapshot as long as it takes.
func (s *Store) Export(ctx context.Context, f store.Filter, damaged func(error)) iter.Seq2[store.Exported, error] {
	return func(yield func(store.Exported, error) bool) {
		if err := s.begin(ctx); err != nil {
			yield(store.Exported{}, err)
			return
		}
		defer s.use.RUnlock()
		stopped := false
		err := s.db.View(func(txn *view) error {
			e := &exporting{store: s, txn: txn, filter: f, damaged: damaged}
			return e.run(ctx, func(x store.Exported) bool {
				stopped = !yield(x, nil)
				return !stopped
			})
		})
		if err != nil && !stopped {
			yield(store.Exported{}, fmt.Errorf("read store: %w", err))
		}
	}
}

// exporting is one export at work. It walks over the messages in the order of their ids, but for what lineOrder says.
type exporting struct {
	store    *Store
	txn      *view
	filter   store.Filter
	damaged  func(error)
	attempts *badger.Iterator
}

func (e *exporting) run(ctx context.Context, yield func(store.Exported) bool) error {
	first, last := e.bounds()
	order, err := newLineOrder(ctx, e.txn, first, last)
	if err != nil {
		return err
	}
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = []byte{kindAttempt}
	e.attempts = e.txn.NewIterator(o)
	defer e.attempts.Close()

	o.Prefix = []byte{kindMessage}
	it := e.txn.NewIterator(o)
	defer it.Close()
	for it.Seek(messageKey(first)); it.Valid(); it.Next() {
		key := it.Item().Key()
		if len(key) != 1+16 {
			return fmt.Errorf("read %s: %w", describe(key), errBadKey)
		}
		id := store.MessageID(key[1:])
		if order.isOutside(id) {
			break
		}
		for _, id := range order.turn(id) {
			if more, err := e.message(ctx, id, yield); err != nil || !more {
				return err
			}
		}
	}
	for _, id := range order.rest() {
		if more, err := e.message(ctx, id, yield); err != nil || !more {
			return err
		}
	}
	return nil
}

// bounds returns the first and the last id that can pass the filter.
func (e *exporting) bounds() (first, last store.MessageID) {
	skew := timeSpan(e.store.skew.Load())
	for i := range last {
		last[i] = 0xff
	}
	if t := e.filter.Since; !t.IsZero() {
		early, _ := idsOf(t.Add(-skew))
		first = early.Message()
	}
	if t := e.filter.Until; !t.IsZero() {
		_, late := idsOf(t.Add(skew))
		last = store.MessageID(late)
	}
	return first, last
}

// message hands one message on, if it passes the filter and can be read, and reports whether to go on.
func (e *exporting) message(ctx context.Context, id store.MessageID, yield func(store.Exported) bool) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if e.store.closed.Load() {
		return false, store.ErrClosed
	}
	x, ok, err := e.read(id)
	switch {
	case errors.Is(err, errDatabase):
		return false, err
	case errors.Is(err, store.ErrNotFound): // of a batch that is not decided
		return true, nil
	case err != nil:
		e.lost(fmt.Errorf("message %s is left out: %w", id, err))
		return true, nil
	case !ok:
		return true, nil
	}
	return yield(x), nil
}

func (e *exporting) lost(err error) {
	e.store.log.Error("damaged record left out of an export", zap.Error(err))
	e.damaged(err)
}

// read returns a message with all that belongs to it, and false if it does not pass the filter.
func (e *exporting) read(id store.MessageID) (x store.Exported, ok bool, err error) {
	stored, err := readMessage(e.txn, id)
	if err != nil {
		return x, false, err
	}
	x.Message = stored.Message
	recorded := make([]bool, len(x.Message.Recipients)) // no longer as it was accepted
	for n := range x.Message.Recipients {
		d := store.ExportedDelivery{Delivery: x.Message.Delivery(n)}
		key := deliveryKey(d.ID)
		content, err := get(e.txn, key)
		if err == nil && content != nil {
			recorded[n] = true
			d.Delivery, err = decodeDelivery(d.ID, content)
		}
		if err != nil {
			return x, false, fmt.Errorf("read %s: %w", describe(key), err)
		}
		x.Deliveries = append(x.Deliveries, d)
	}
	if !x.Passes(e.filter) {
		return x, false, nil
	}
	if x.Body, err = stored.load(e.txn); err != nil {
		return x, false, err
	}
	room := store.NewHistoryRoom()
	for n := range x.Deliveries {
		d := &x.Deliveries[n]
		if !recorded[n] {
			continue
		}
		if d.History, d.Omitted, err = room.Take(e.history(d.ID)); err != nil {
			return x, false, err
		}
	}
	return x, true, nil
}

// history yields the attempts of a delivery, oldest first, without those that are damaged.
func (e *exporting) history(id store.DeliveryID) iter.Seq2[store.Attempt, error] {
	return func(yield func(store.Attempt, error) bool) {
		prefix := attemptPrefix(id)
		for e.attempts.Seek(prefix); e.attempts.ValidForPrefix(prefix); e.attempts.Next() {
			key := e.attempts.Item().KeyCopy(nil)
			content, err := get(e.txn, key)
			var a store.Attempt
			if err == nil {
				if a, err = decodeAttempt(key, content); err != nil {
					err = fmt.Errorf("read %s: %w", describe(key), err)
				}
			}
			if err != nil && !errors.Is(err, errDatabase) {
				e.lost(fmt.Errorf("an attempt is left out: %w", err))
				continue
			}
			if !yield(a, err) || err != nil {
				return
			}
		}
	}
}
