package badgerstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

// maxLooks is how many entries one call of Deliveries looks at. It is some ten milliseconds.
const maxLooks = 5000

// Deliveries implements store.History. It walks down the ids that stand in all indexes which the filter names: each
// index says in turn which is its next, and the lowest counts. So it takes about as many steps as the smallest of them
// has entries, wherever the walk begins. What no index knows (text, time to the millisecond) is checked on the records.
//
// A record that is damaged is logged and left out.
func (s *Store) Deliveries(ctx context.Context, f store.Filter, after store.Place, limit int) (found []store.Delivery, next store.Place, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, store.Place{}, err
	}
	defer s.use.RUnlock()
	if limit <= 0 {
		return nil, store.Place{}, nil
	}
	err = s.db.View(func(txn *view) error {
		l := &listing{store: s, txn: txn, filter: f}
		defer l.close()
		found, next, err = l.run(ctx, after, limit)
		return err
	})
	if err != nil {
		return nil, store.Place{}, fmt.Errorf("list deliveries: %w", err)
	}
	return found, next, nil
}

// listing is one call of Deliveries.
type listing struct {
	store   *Store
	txn     *view
	filter  store.Filter
	sources []source
	opened  []*badger.Iterator
	looks   int

	message storedMessage // the one read last, without its body
}

// source is a set of ids. Callers ask for lower and lower ones.
type source interface {
	// seek returns the largest id of the set that is not larger than at, and false if there is none.
	seek(at store.DeliveryID) (store.DeliveryID, bool, error)
}

func (l *listing) close() {
	for _, it := range l.opened {
		it.Close()
	}
}

func (l *listing) run(ctx context.Context, after store.Place, limit int) (found []store.Delivery, next store.Place, err error) {
	first, at := l.bounds()
	if after != (store.Place{}) {
		behind, ok := below(after.ID)
		if !ok {
			return nil, store.Place{}, nil
		}
		at = lower(at, behind)
	}
	if err := l.choose(); err != nil {
		return nil, store.Place{}, err
	}
	for l.looks < maxLooks {
		if err := ctx.Err(); err != nil {
			return nil, store.Place{}, err
		}
		id, ok, err := l.align(at)
		if err != nil || !ok || bytes.Compare(id[:], first[:]) < 0 {
			return found, store.Place{}, err
		}
		at = id
		if l.looks >= maxLooks {
			break
		}
		if len(found) == limit {
			return found, store.Place{ID: found[limit-1].ID}, nil
		}
		l.looks++
		d, wanted, err := l.read(id)
		if err != nil {
			return nil, store.Place{}, err
		}
		if wanted {
			found = append(found, d)
		}
		if at, ok = below(id); !ok {
			return found, store.Place{}, nil
		}
	}
	return found, store.Place{ID: above(at)}, nil
}

// bounds returns the first and the last id that can pass the filter.
func (l *listing) bounds() (first, last store.DeliveryID) {
	first, last = l.filter.Bounds()
	skew := timeSpan(l.store.skew.Load())
	if t := l.filter.Since; !t.IsZero() {
		early, _ := idsOf(t.Add(-skew))
		if bytes.Compare(first[:], early[:]) < 0 {
			first = early
		}
	}
	if t := l.filter.Until; !t.IsZero() {
		_, late := idsOf(t.Add(skew))
		last = lower(last, late)
	}
	return first, last
}

// align returns the largest id that is in all sources and not larger than at.
func (l *listing) align(at store.DeliveryID) (id store.DeliveryID, ok bool, err error) {
	for agreed := 0; agreed < len(l.sources) && l.looks < maxLooks; {
		agreed = 0
		for _, one := range l.sources {
			id, ok, err := one.seek(at)
			if err != nil || !ok {
				return id, false, err
			}
			if id != at {
				at = id
				break
			}
			agreed++
		}
		if len(l.sources) > 1 {
			l.looks++
		}
	}
	return at, true, nil
}

// read returns a delivery, and whether it passes the filter.
func (l *listing) read(id store.DeliveryID) (d store.Delivery, wanted bool, err error) {
	key := deliveryKey(id)
	content, err := get(l.txn, key)
	switch {
	case err != nil:
	case content != nil:
		if d, err = decodeDelivery(id, content); err != nil {
			err = fmt.Errorf("read %s: %w", describe(key), err)
		}
	default:
		if err = l.load(id.Message()); err != nil {
			break
		}
		n := id.Index()
		if n < 0 || n >= len(l.message.Recipients) {
			return d, false, nil
		}
		d = l.message.Delivery(n)
	}
	if err == nil && l.filter.Text != "" {
		err = l.load(id.Message())
	}
	switch {
	case errors.Is(err, errDatabase):
		return d, false, err
	case errors.Is(err, store.ErrNotFound):
		return d, false, nil // of a batch that is not decided
	case err != nil:
		l.store.warnOnce(key, err)
		return d, false, nil
	}
	return d, l.filter.Match(d, l.message.Message), nil
}

// load reads a message, unless it is the one read last.
func (l *listing) load(id store.MessageID) error {
	if l.message.ID == id {
		return nil
	}
	m, err := readMessage(l.txn, id)
	if err != nil {
		return err
	}
	m.body = nil
	l.message = m
	return nil
}

// below returns the id directly below, and false if there is none.
func below(id store.DeliveryID) (store.DeliveryID, bool) {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]--
		if id[i] != 0xff {
			return id, true
		}
	}
	return id, false
}

// above returns the id directly above, or the highest.
func above(id store.DeliveryID) store.DeliveryID {
	high, low := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	if low++; low == 0 {
		if high++; high == 0 {
			high, low = 1<<64-1, 1<<64-1
		}
	}
	binary.BigEndian.PutUint64(id[:8], high)
	binary.BigEndian.PutUint64(id[8:], low)
	return id
}

func lower(a, b store.DeliveryID) store.DeliveryID {
	if bytes.Compare(a[:], b[:]) < 0 {
		return a
	}
	return b
}
