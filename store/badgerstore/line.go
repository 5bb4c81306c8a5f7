package badgerstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// A line is the pending deliveries of a destination with the same Order. Its head stands in the queue, or has ended
// and is Blocking; the others stand under l, at places in their order, until they become the head. So the next is found
// by its key, however many have gone before; only one that was canceled leaves a gap. The place of one that is to be
// canceled stands in its index entry. A line without any delivery has no record, unless damaged places of it have been
// passed over and are still there.

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
	index := destinationIndexKey(d.Destination, d.ID)
	if d.Order == "" {
		g.set(queueKey(d.Destination, d.Cursor()), raw)
		g.put(index, nil)
		g.count(d.Destination, 1)
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
		g.set(index, binary.BigEndian.AppendUint64(nil, l.tail))
	default:
		l = line{head: l.tail + 1, tail: l.tail + 1, first: d.ID, passed: l.passed}
		g.set(queueKey(d.Destination, d.Cursor()), raw)
		g.put(index, nil)
	}
	g.set(key, encodeLine(l))
	g.count(d.Destination, 1)
}

// advance makes the next of a line its head, and returns it; or ends the line, and returns the zero Delivery. key is
// that of the line. from is who leaves it, or zero: one that is not the head, for it was passed over, moves nobody.
func (g *group) advance(key []byte, from store.DeliveryID) store.Delivery {
	l, ok, err := g.readLine(key)
	if err != nil {
		g.fail(err)
		return store.Delivery{}
	}
	none := store.DeliveryID{}
	if !ok || from != none && l.first != none && from != l.first {
		return store.Delivery{}
	}
	for place, more := l.head+1, true; place <= l.tail; place++ {
		at := waitingKey(key, place)
		content, err := g.get(at)
		if err == nil && content == nil {
			// Canceled, which is no damage. So may be all the others: they are passed over in one go.
			if place, more = g.nextPlace(key, place); !more {
				break
			}
			at = waitingKey(key, place)
			content, err = g.get(at)
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
		l.head, l.tail, l.first = place, max(l.tail, place), next.ID
		g.set(key, encodeLine(l))
		return next
	}
	g.endLine(key, l)
	return store.Delivery{}
}

// endLine removes the record of a line that nobody is in any more, or keeps it for the places that were passed over.
func (g *group) endLine(key []byte, l line) {
	if l.passed {
		if _, kept := g.nextPlace(key, 0); kept {
			g.set(key, encodeLine(line{head: l.tail + 1, tail: l.tail, passed: true}))
			return
		}
	}
	g.remove(key)
}

// lead makes a delivery the head of the line that it blocks, if the line does not know it as that.
func (g *group) lead(key []byte, id store.DeliveryID) error {
	l, ok, err := g.readLine(key)
	if err != nil || ok && l.first != (store.DeliveryID{}) {
		return err
	}
	if !ok {
		l = countLine(g.txn, key)
	}
	l.first = id
	g.set(key, encodeLine(l))
	return nil
}

// nextPlace returns the first place of a line behind the given one where somebody stands.
func (g *group) nextPlace(key []byte, place uint64) (next uint64, ok bool) {
	scanKeys(g.txn, waitingKey(key, 0)[:len(key)], waitingKey(key, place+1), func(key []byte) bool {
		next, ok = binary.BigEndian.Uint64(key[len(key)-8:]), true
		return false
	})
	return next, ok
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
	releaseSize = 5 << 10
	releaseMost = 2*maxDelivery + releaseSize
)

// blockedLines returns up to limit k keys of a destination, from the given one on; nil means from the first.
func (s *Store) blockedLines(destination string, from []byte, limit int) (keys [][]byte) {
	_ = s.db.View(func(txn *view) error {
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
	var head store.DeliveryID
	if err == nil && len(content) != len(head) {
		err = errors.New("read note of a blocked line: wrong size")
	}
	if err == nil {
		head = store.DeliveryID(content)
		err = g.unblock(head)
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
	g.advance(line, head)
	return true
}

// unblock makes the delivery with the given id an ended one like others.
func (g *group) unblock(id store.DeliveryID) error {
	d, err := readDelivery(g.txn, id)
	if err != nil {
		return err
	}
	d.Blocking = false
	g.set(deliveryKey(d.ID), encodeDelivery(d))
	g.set(endedKey(d.EndedAt, d.ID))
	return nil
}
