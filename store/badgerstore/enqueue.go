package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// enqueuing makes the messages of a decided batch visible, in as many groups as that takes. It notes in the batch's
// head how far it has come, in the same groups, so that a start can go on with it.
type enqueuing struct {
	store   *Store
	id      store.MessageID // of the batch
	list    []ahead
	parts   int                                          // 0: nothing is written ahead, and one group takes all
	message func(g *group, n int) (store.Message, error) // the n-th of list

	at   batchRecord
	part int // the next to delete
	done bool
}

// largestStep is what one step of enqueuing writes after it has looked whether the group is full, at most: one queue
// entry with its line, or the deletion of one message.
const (
	largestStep      = maxDelivery + 8<<10 + maxChunks*(32+entryOverhead)
	largestStepCount = maxChunks + 8
)

func (e *enqueuing) full(g *group) bool {
	return e.parts > 0 && (g.size+largestStep > e.store.maxGroupSize || g.writes+largestStepCount > e.store.maxGroupEntries)
}

// step writes as much as the group takes.
func (e *enqueuing) step(g *group) {
	e.at.decided = true
	for ; e.at.post < len(e.list) && !e.full(g); e.at.post, e.at.delivery = e.at.post+1, 0 {
		m, wanted, err := e.begin(g, e.list[e.at.post])
		switch {
		case errors.Is(err, errDatabase):
			g.fail(err)
			return
		case err != nil:
			e.store.log.Error("accepted message cannot be read and is not delivered",
				zap.Stringer("message_id", e.list[e.at.post].id), zap.Error(err))
			continue
		case !wanted:
			g.removeAll(e.list[e.at.post].keys())
			continue
		}
		if !e.enqueue(g, m) {
			break // the next group goes on with this message
		}
	}
	for e.at.post == len(e.list) && e.part < e.parts && !e.full(g) {
		g.remove(partKey(e.id, e.part))
		e.part++
	}
	e.done = e.at.post == len(e.list) && e.part == e.parts
	switch {
	case !e.done:
		g.set(batchKey(e.id), encodeBatch(e.at))
	case e.parts > 0:
		g.remove(batchKey(e.id))
	}
}

// begin returns the next message, and false if another has been accepted under its idempotency key.
func (e *enqueuing) begin(g *group, a ahead) (m store.Message, wanted bool, err error) {
	m, err = e.message(g, e.at.post)
	if err != nil || e.at.delivery > 0 {
		return m, err == nil, err
	}
	earlier, err := earlierID(g.txn, m)
	switch {
	case errors.Is(err, errDatabase):
		return m, false, err
	case errors.Is(err, store.ErrKeyConflict), err == nil && earlier != (store.MessageID{}) && earlier != a.id:
		return m, false, nil
	}
	g.identify(m)
	return m, true, nil
}

// enqueue writes the deliveries of a message from the next on, and reports whether it has come to the last.
func (e *enqueuing) enqueue(g *group, m store.Message) bool {
	for ; e.at.delivery < len(m.Recipients); e.at.delivery++ {
		if e.full(g) {
			return false
		}
		d := m.Delivery(e.at.delivery)
		g.enqueue(d, encodeDelivery(d))
	}
	return true
}

// finishBatches goes on with what a kill has cut off: a batch that is decided is brought into the queue, and another
// is deleted.
func (s *Store) finishBatches() error {
	ids, err := s.batches()
	if err != nil {
		return fmt.Errorf("list batches: %w", err)
	}
	for _, id := range ids {
		if err := s.finishBatch(id); err != nil {
			return fmt.Errorf("finish batch %s: %w", id, err)
		}
	}
	return nil
}

// batches returns the ids of all batches.
func (s *Store) batches() (ids []store.MessageID, err error) {
	err = s.db.View(func(txn *view) error {
		scanKeys(txn, []byte{kindBatch}, nil, func(key []byte) bool {
			if len(key) < 1+16 {
				err = errBadKey
				return false
			}
			if id := store.MessageID(key[1:17]); len(ids) == 0 || ids[len(ids)-1] != id {
				ids = append(ids, id)
			}
			return true
		})
		return err
	})
	return ids, err
}

func (s *Store) finishBatch(id store.MessageID) error {
	e := &enqueuing{store: s, id: id}
	err := s.db.View(func(txn *view) error { return e.load(txn) })
	switch {
	case errors.Is(err, errDatabase):
		return err
	case err != nil:
		// Without its head nobody knows whether it is accepted: it stays as it is.
		s.log.Error("batch cannot be read and stays unfinished", zap.Stringer("message_id", id), zap.Error(err))
		return nil
	case !e.at.decided:
		if err := s.undoImports(e.list); err != nil {
			return err
		}
		return s.discardBatch(id, e.list, e.parts)
	}
	return s.submitAlways(&request{
		size: s.maxGroupSize, entries: s.maxGroupEntries,
		stage: func(g *group) error {
			e.step(g)
			return nil
		},
		unfinished: func() bool { return !e.done },
	})
}

// load reads the head and the parts of a batch.
func (e *enqueuing) load(txn *view) error {
	content, err := get(txn, batchKey(e.id))
	if err == nil && content == nil {
		err = errors.New("its head is missing")
	}
	if err != nil {
		return err
	}
	if e.at, err = decodeBatch(content); err != nil {
		return err
	}
	var keys [][]byte
	scanKeys(txn, batchKey(e.id), nil, func(key []byte) bool {
		if len(key) == 1+16+4 {
			keys = append(keys, bytes.Clone(key))
		}
		return true
	})
	e.parts = 1
	for _, key := range keys {
		content, err := get(txn, key)
		if err != nil {
			return err
		}
		list, err := decodePart(content)
		if err != nil {
			return fmt.Errorf("read %s: %w", describe(key), err)
		}
		e.list = slices.Concat(e.list, list)
		e.parts = parsePart(key) + 1
	}
	if e.at.post > len(e.list) {
		e.at.post = len(e.list) // its first parts are deleted already
	}
	e.message = func(g *group, n int) (store.Message, error) {
		m, err := readStored(g.txn, e.list[n].id)
		return m.Message, err
	}
	return nil
}
