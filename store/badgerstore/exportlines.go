package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

// lineOrder says in which order an export yields messages: of those before which nothing stands in any line, the one with
// the lowest id is next. As a rule that is the order of the ids, which one walk over the lines tells. It is not where a
// message stands behind one with a higher id, since the clock was set back between two starts, or two posts came at once:
// then all that stands in lines is held in memory, some 200 bytes for each message.
type lineOrder struct {
	first, last store.MessageID                 // those that are exported at most
	places      map[store.MessageID]*orderPlace // of messages that stand in lines; empty if their ids are in order
}

// orderPlace is what is known of one message.
type orderPlace struct {
	waits  int               // for so many, one for each line that somebody stands before it in
	behind []store.MessageID // those that wait for it
	passed bool              // the walk over the ids has come by
}

func newLineOrder(ctx context.Context, txn *view, first, last store.MessageID) (*lineOrder, error) {
	o := &lineOrder{first: first, last: last, places: make(map[store.MessageID]*orderPlace)}
	inOrder := true
	err := eachPair(ctx, txn, func(ahead, id store.MessageID) bool {
		inOrder = bytes.Compare(ahead[:], id[:]) < 0
		return inOrder
	})
	if err != nil || inOrder {
		return o, err
	}
	err = eachPair(ctx, txn, func(ahead, id store.MessageID) bool {
		o.place(id).waits++
		p := o.place(ahead)
		p.behind = append(p.behind, id)
		return true
	})
	// What is not exported keeps nobody waiting.
	var outside []store.MessageID
	for id, p := range o.places {
		if o.isOutside(id) {
			p.passed = true
			if p.waits == 0 {
				outside = append(outside, id)
			}
		}
	}
	for _, id := range outside {
		o.release(id)
	}
	return o, err
}

func (o *lineOrder) place(id store.MessageID) *orderPlace {
	p := o.places[id]
	if p == nil {
		p = &orderPlace{}
		o.places[id] = p
	}
	return p
}

func (o *lineOrder) isOutside(id store.MessageID) bool {
	return bytes.Compare(id[:], o.first[:]) < 0 || bytes.Compare(id[:], o.last[:]) > 0
}

// turn returns what comes when the walk over the ids has come to this one: itself and those that have waited for it; or
// nothing, if it has to wait.
func (o *lineOrder) turn(id store.MessageID) []store.MessageID {
	p := o.places[id]
	if p == nil {
		return []store.MessageID{id}
	}
	p.passed = true
	if p.waits > 0 {
		return nil
	}
	return o.release(id)
}

// release returns a message that waits for nobody, and those that have waited for it and have been passed.
func (o *lineOrder) release(id store.MessageID) (all []store.MessageID) {
	for ready := []store.MessageID{id}; len(ready) > 0; {
		next := ready[0]
		ready = ready[1:]
		if !o.isOutside(next) {
			all = append(all, next)
		}
		for _, id := range o.places[next].behind {
			p := o.places[id]
			if p.waits--; p.waits == 0 && p.passed {
				at, _ := slices.BinarySearchFunc(ready, id, compareIDs)
				ready = slices.Insert(ready, at, id)
			}
		}
		delete(o.places, next)
	}
	return all
}

// rest returns what is left at the end. There is something only after damage: behind a message whose record is missing.
func (o *lineOrder) rest() (all []store.MessageID) {
	ids := slices.SortedFunc(maps.Keys(o.places), compareIDs)
	for _, p := range o.places {
		p.passed = true
	}
	for _, id := range ids {
		if p := o.places[id]; p != nil && p.waits == 0 {
			all = append(all, o.release(id)...)
		}
	}
	return append(all, slices.SortedFunc(maps.Keys(o.places), compareIDs)...)
}

func compareIDs(a, b store.MessageID) int { return bytes.Compare(a[:], b[:]) }

// eachPair calls fn for each two messages that stand one directly behind the other in a line, until it returns false.
func eachPair(ctx context.Context, txn *view, fn func(ahead, id store.MessageID) bool) error {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = []byte{kindWaiting}
	it := txn.NewIterator(o)
	defer it.Close()
	var line []byte // the one that ahead is in
	var ahead store.MessageID
	for it.Rewind(); it.Valid(); it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		key := it.Item().Key()
		if len(key) < 1+1+1+lineHash+8 {
			return fmt.Errorf("read %s: %w", describe(key), errBadKey)
		}
		if name := key[:len(key)-8]; !bytes.Equal(name, line) {
			line = append(line[:0], name...)
			head, err := headOf(txn, line)
			if err != nil {
				return err
			}
			ahead = head
		}
		content, err := get(txn, key)
		if errors.Is(err, errDatabase) {
			return err
		}
		if err != nil || len(content) < 16 {
			continue // damaged: the line goes on without it
		}
		id := store.DeliveryID(content[:16]).Message()
		if id != ahead && ahead != (store.MessageID{}) && !fn(ahead, id) {
			return nil
		}
		ahead = id
	}
	return nil
}

// headOf returns the message of a line's head, or the zero id if that is not known. waiting is what the keys of the line's
// places begin with.
func headOf(txn *view, waiting []byte) (id store.MessageID, err error) {
	key := bytes.Clone(waiting)
	key[0] = kindLine
	content, err := get(txn, key)
	if errors.Is(err, errDatabase) {
		return id, err
	}
	if err != nil || content == nil {
		return id, nil
	}
	l, err := decodeLine(content)
	if err != nil || l.empty() {
		return id, nil
	}
	return l.first.Message(), nil
}
