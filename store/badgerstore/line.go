package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// A line is the pending deliveries of a destination with the same Order. Its head stands in the queue, or has ended
// and is Blocking; the others stand under l, at places without a gap, until they become the head. So the next is found
// by its key, however many have gone before. A line without any delivery has no record, unless damaged places of it
// have been passed over.

// readLine returns the line with the given key, and false if there is none. A damaged record is made anew from what
// stands behind the head.
func (g *group) readLine(key []byte) (l line, ok bool, err error) {
	content, err := g.get(key)
	if err == nil && content == nil {
		return line{}, false, nil
	}
	if err == nil {
		l, err = decodeLine(content)
	}
	if err == nil || g.isDatabase(err) {
		return l, true, err
	}
	g.log.Error("line cannot be read, its places are counted again", zap.Error(err))
	return countLine(g.txn, key), true, nil
}

// isDatabase reports whether an error is not about one record.
func (g *group) isDatabase(err error) bool {
	return errors.Is(err, errDatabase)
}

// enqueue puts a pending delivery into the queue, or behind the others of its line. raw is its encoding.
func (g *group) enqueue(d store.Delivery, raw []byte) {
	if d.Order == "" {
		g.set(queueKey(d.Destination, d.Cursor()), raw)
		return
	}
	key := lineKey(kindLine, d.Destination, d.Order)
	l, ok, err := g.readLine(key)
	switch {
	case err != nil:
		g.fail(err)
		return
	case ok && !l.empty():
		l.tail++
		g.set(waitingKey(key, l.tail), d.ID[:], raw)
	default:
		l = line{head: l.tail + 1, tail: l.tail + 1, first: d.ID, passed: l.passed}
		g.set(queueKey(d.Destination, d.Cursor()), raw)
	}
	g.set(key, encodeLine(l))
}

// advance makes the next of a line its head, and returns it; or ends the line, and returns the zero Delivery. key is
// that of the line.
func (g *group) advance(key []byte) store.Delivery {
	l, ok, err := g.readLine(key)
	if err != nil {
		g.fail(err)
		return store.Delivery{}
	}
	for place := l.head + 1; ok && place <= l.tail; place++ {
		at := waitingKey(key, place)
		content, err := g.get(at)
		if err == nil && content == nil {
			err = fmt.Errorf("read %s: it is missing", describe(at))
		}
		var next store.Delivery
		var raw []byte
		if err == nil {
			next, raw, err = decodeWaiting(content)
		}
		if err != nil {
			if g.isDatabase(err) {
				g.fail(err)
				return store.Delivery{}
			}
			// It stays where it is, pending: the line goes on without it.
			g.log.Error("delivery in a line cannot be read and is passed over", zap.Error(err))
			l.passed = true
			continue
		}
		g.remove(at)
		g.set(queueKey(next.Destination, next.Cursor()), raw)
		l.head, l.first = place, next.ID
		g.set(key, encodeLine(l))
		return next
	}
	switch {
	case l.passed:
		g.set(key, encodeLine(line{head: l.tail + 1, tail: l.tail, passed: true}))
	case ok:
		g.remove(key)
	}
	return store.Delivery{}
}

// releaseGroup is how many lines Release lets go in one group.
const releaseGroup = 500

// Release implements store.Queue.
func (s *Store) Release(ctx context.Context, destination string, limit int) (released int, err error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	defer s.use.RUnlock()
	var from []byte // not from the first again: what has been deleted costs time too
	for released < limit {
		keys := s.blockedLines(destination, from, min(limit-released, releaseGroup))
		if len(keys) == 0 {
			return released, nil
		}
		done := 0
		err := s.submit(ctx, &request{
			size: int64(len(keys)) * releaseSize, entries: int64(len(keys)) * 6,
			stage: func(g *group) error {
				if g.short {
					return s.noSpace(s.reserve / 2)
				}
				done = 0
				for n, key := range keys {
					if g.size+releaseMost > s.maxGroupSize {
						keys = keys[:n]
						break
					}
					if g.release(key) {
						done++
					}
				}
				return nil
			},
		})
		if err != nil {
			return released, fmt.Errorf("release lines of %q: %w", destination, err)
		}
		released += done
		if len(keys) == 0 {
			continue // others have filled the group
		}
		from = append(keys[len(keys)-1], 0)
	}
	return released, nil
}

// releaseSize is what letting one line go writes as a rule: two deliveries, each under two keys, and the line. With
// releaseMost it writes as much as it can at most.
const (
	releaseSize = 3 << 10
	releaseMost = 2*maxDelivery + releaseSize
)

// blockedLines returns up to limit k keys of a destination, from the given one on; nil means from the first.
func (s *Store) blockedLines(destination string, from []byte, limit int) (keys [][]byte) {
	_ = s.db.View(func(txn *badger.Txn) error {
		scanKeys(txn, destinationPrefix(kindBlocked, destination), from, func(key []byte) bool {
			keys = append(keys, bytes.Clone(key))
			return len(keys) < limit
		})
		return nil
	})
	return keys
}

// release lets the line go that a k key is of, and reports whether it was blocked still.
func (g *group) release(blocked []byte) bool {
	content, err := g.get(blocked)
	if err == nil && content == nil {
		return false
	}
	if err == nil {
		err = g.unblock(content)
	}
	switch {
	case g.isDatabase(err):
		g.fail(err)
		return false
	case err != nil:
		g.log.Error("delivery that blocks a line cannot be read and stays as it is", zap.Error(err))
	}
	g.remove(blocked)
	line := bytes.Clone(blocked)
	line[0] = kindLine
	g.advance(line)
	return true
}

// unblock makes the delivery with the given id an ended one like others.
func (g *group) unblock(id []byte) error {
	if len(id) != len(store.DeliveryID{}) {
		return errors.New("read note of a blocked line: wrong size")
	}
	d, err := readDelivery(g.txn, store.DeliveryID(id))
	if err != nil {
		return err
	}
	d.Blocking = false
	raw, err := encodeDelivery(d)
	if err != nil {
		return err
	}
	g.set(deliveryKey(d.ID), raw)
	g.set(endedKey(d.EndedAt, d.ID))
	return nil
}
