package badgerstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// A line whose head is lost would be held up for ever, since the next comes with the end of the head. So a head that
// cannot be read is passed over when Due meets it, and each start compares the lines with what stands in the queue.

// countLine makes a line's record anew from the places behind its head.
func countLine(txn *view, key []byte) line {
	l := line{head: 1, tail: 1}
	first := true
	scanKeys(txn, waitingKey(key, 0)[:len(key)], nil, func(key []byte) bool {
		place := binary.BigEndian.Uint64(key[len(key)-8:])
		if first {
			l.head, first = max(place, 2)-1, false
		}
		l.tail = max(place, l.head)
		return true
	})
	return l
}

// passOver lets the lines of a destination go on whose heads are lost: entries of its queue that cannot be read. It
// reports whether there may be somebody new in the queue.
func (s *Store) passOver(ctx context.Context, destination string, lost []store.DeliveryID) bool {
	lost = slices.DeleteFunc(lost, func(id store.DeliveryID) bool { return !s.once("head " + string(id[:])) })
	if len(lost) == 0 {
		return false
	}
	keys, err := s.linesOf(destination, lost)
	for some := range slices.Chunk(keys, mendGroup) {
		if err != nil {
			break
		}
		err = s.submit(ctx, &request{size: mendGroup * releaseSize, entries: mendGroup * mendCount, stage: func(g *group) error {
			if g.short {
				return s.noSpace(s.reserve / 2)
			}
			for _, key := range some {
				l, ok, err := g.readLine(key)
				if err == nil && ok && slices.Contains(lost, l.first) {
					g.advance(key, l.first)
				}
			}
			return nil
		}})
	}
	if err != nil {
		for _, id := range lost {
			s.forget("head " + string(id[:])) // to be tried again
		}
		s.log.Warn("lines with a damaged head cannot go on yet", zap.String("destination", destination), zap.Error(err))
		return false
	}
	if len(keys) > 0 {
		s.log.Error("damaged heads of lines are passed over, those behind them go on",
			zap.String("destination", destination), zap.Int("lines", len(keys)))
	}
	return len(keys) > 0
}

// mendGroup is how many lines are mended in a group: their deliveries may be as large as a delivery can. mendCount is how
// many keys one of them takes, at most.
const (
	mendGroup = 8
	mendCount = 4
)

// linesOf returns the keys of the lines of a destination that have one of the given heads.
func (s *Store) linesOf(destination string, heads []store.DeliveryID) (keys [][]byte, err error) {
	err = s.db.View(func(txn *view) error {
		var dbErr error
		scanKeys(txn, destinationPrefix(kindLine, destination), nil, func(key []byte) bool {
			content, err := get(txn, key)
			if errors.Is(err, errDatabase) {
				dbErr = err
				return false
			}
			if err != nil {
				return true
			}
			if l, err := decodeLine(content); err == nil && !l.empty() && slices.Contains(heads, l.first) {
				keys = append(keys, bytes.Clone(key))
			}
			return true
		})
		return dbErr
	})
	return keys, err
}

// mendLines compares each line with the queue, and makes those go on whose head is in neither the queue nor Blocking.
func (s *Store) mendLines() error {
	var suspects [][]byte
	var heads map[string]store.DeliveryID
	err := s.db.View(func(txn *view) (err error) {
		if suspects, err = suspectLines(txn); err == nil && len(suspects) > 0 {
			heads, err = s.headsInQueue(txn)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("compare lines with the queue: %w", err)
	}
	for keys := range slices.Chunk(suspects, mendGroup) {
		err := s.submitAlways(&request{size: mendGroup * releaseSize, entries: mendGroup * mendCount, stage: func(g *group) error {
			for _, key := range keys {
				g.mendLine(key, heads[string(key)])
			}
			return nil
		}})
		if err != nil {
			return fmt.Errorf("mend lines: %w", err)
		}
	}
	return nil
}

// suspectLines returns the keys of the lines whose head is neither in the queue nor Blocking, or whose record is missing
// or damaged. It reads each kind of key in order, and looks up single ones only for a line that is suspect.
func suspectLines(txn *view) (keys [][]byte, err error) {
	missing := make(map[store.DeliveryID]bool) // heads that have not been found
	err = eachLine(txn, func(_ []byte, l line) {
		if !l.empty() {
			missing[l.first] = true
		}
	})
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		scanKeys(txn, []byte{kindQueue}, nil, func(key []byte) bool {
			if _, at, err := parseQueueKey(key); err == nil {
				delete(missing, at.ID)
			}
			return true
		})
	}
	if len(missing) > 0 {
		var damage error
		err = eachLine(txn, func(key []byte, l line) {
			if l.empty() || !missing[l.first] {
				return
			}
			blocked, err := isBlocked(txn, key)
			damage = errors.Join(damage, err)
			if !blocked {
				keys = append(keys, bytes.Clone(key))
			}
		})
		if err := errors.Join(err, damage); err != nil {
			return nil, err
		}
	}
	return withoutRecord(txn, keys)
}

// eachLine calls fn for each line. The head of one whose record is damaged is not known. key is only good until fn
// returns.
func eachLine(txn *view, fn func(key []byte, l line)) error {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = []byte{kindLine}
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		key := it.Item().Key()
		err := it.Item().Value(func(value []byte) error {
			content, err := txn.open(key, value)
			var l line
			if err == nil {
				l, err = decodeLine(content)
			}
			if err != nil {
				l = line{head: 1, tail: 1}
			}
			fn(key, l)
			return nil
		})
		if err != nil {
			return fmt.Errorf("read %s: %w: %w", describe(key), errDatabase, err)
		}
	}
	return nil
}

// withoutRecord appends the keys of the lines that have places and no record.
func withoutRecord(txn *view, keys [][]byte) ([][]byte, error) {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = []byte{kindWaiting}
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); {
		place := it.Item().Key()
		if len(place) < 1+8 {
			return nil, errBadKey
		}
		line := bytes.Clone(place[:len(place)-8])
		behind := append(bytes.Clone(line), bytes.Repeat([]byte{0xff}, 8+1)...)
		line[0] = kindLine
		there, err := has(txn, line)
		if err != nil {
			return nil, err
		}
		if !there {
			keys = append(keys, line)
		}
		it.Seek(behind)
	}
	return keys, nil
}

// isBlocked reports whether a Blocking delivery holds the line with the given key up.
func isBlocked(txn *view, key []byte) (bool, error) {
	blocked := bytes.Clone(key)
	blocked[0] = kindBlocked
	return has(txn, blocked)
}

// has reports whether there is something under a key, readable or not.
func has(txn *view, key []byte) (bool, error) {
	switch _, err := txn.Get(key); {
	case errors.Is(err, badger.ErrKeyNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read %s: %w: %w", describe(key), errDatabase, err)
	}
	return true, nil
}

// headsInQueue returns who stands in the queues, by the key of its line.
func (s *Store) headsInQueue(txn *view) (map[string]store.DeliveryID, error) {
	heads := make(map[string]store.DeliveryID)
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = []byte{kindQueue}
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		name, _, err := parseQueueKey(it.Item().Key())
		if err != nil {
			continue
		}
		d, ok, err := s.queued(txn, it.Item(), name)
		if err != nil {
			return nil, err
		}
		if ok && d.Order != "" {
			heads[string(lineKey(kindLine, name, d.Order))] = d.ID
		}
	}
	return heads, nil
}

// mendLine makes a line go on that suspectLines has found. head is who stands in the queue for it, or zero.
func (g *group) mendLine(key []byte, head store.DeliveryID) {
	l, ok, err := g.readLine(key)
	if err != nil {
		g.fail(err)
		return
	}
	if !ok {
		l = countLine(g.txn, key)
	}
	blocked, err := isBlocked(g.txn, key)
	if err != nil {
		g.fail(err)
		return
	}
	if blocked || head != (store.DeliveryID{}) {
		l.first = head
		g.set(key, encodeLine(l))
		return
	}
	d, err := readDelivery(g.txn, l.first)
	switch {
	case g.isDatabase(err):
		g.fail(err)
		return
	case err == nil && (d.State == store.Pending || d.Blocking) && bytes.Equal(lineKey(kindLine, d.Destination, d.Order), key):
		g.mendHead(d, waitingKey(key, l.head))
		return
	}
	g.log.Error("head of a line is lost and passed over", zap.Stringer("delivery_id", l.first), zap.Error(err))
	if kept, err := has(g.txn, waitingKey(key, l.head)); err != nil {
		g.fail(err)
		return
	} else if kept {
		l.passed = true // it was lost on its way from there into the queue
	}
	g.set(key, encodeLine(l)) // what advance goes by
	g.advance(key, l.first)
}

// mendHead puts the head of a line back to where it belongs. If its way from its place in the line into the queue was
// lost, it stands at that place still, and was counted there.
func (g *group) mendHead(d store.Delivery, place []byte) {
	g.log.Error("head of a line was not where it belongs and is put back", zap.Stringer("delivery_id", d.ID))
	content, err := g.get(place)
	switch {
	case g.isDatabase(err):
		g.fail(err)
		return
	case err != nil || bytes.HasPrefix(content, d.ID[:]):
		g.remove(place)
		g.count(d.Destination, -1)
	}
	if d.Blocking {
		g.set(lineKey(kindBlocked, d.Destination, d.Order), d.ID[:])
		return
	}
	g.set(queueKey(d.Destination, d.Cursor()), encodeDelivery(d))
	g.put(destinationIndexKey(d.Destination, d.ID), nil)
	g.count(d.Destination, 1)
}
