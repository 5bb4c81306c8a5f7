package badgerstore

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/postern-relay/postern/store"
)

// A batch is one or more messages that become visible at one moment, and are too much for one transaction.
//
// First the messages and bodies are written ahead, in groups. The batch's head says that it is undecided, and its parts
// list what has been written; each message names the batch, so that no reader takes it for accepted (readMessage).
// Then one group checks all of them and makes the head say that the batch is decided: that is the moment. The queue
// entries, lines and idempotency keys follow in the same group and, as far as they do not fit, in those directly behind
// it (enqueue.go). A crash before the moment leaves what the next start deletes, and one after it what the next start
// goes on with.
//
// What fits into one group is written at once, without a head and parts.
type batch struct {
	store *Store
	brief bool // an item keeps the Brief of an earlier message, not all of it
	items []item
	byKey map[[32]byte]int // the first item under each idempotency key
	id    store.MessageID  // of the first message that is not an earlier one
	fresh int64            // deliveries of those

	waiting []entry // to be written ahead
	size    int64   // of waiting
	listed  []ahead // messages that begin in waiting
	parts   int     // groups that have been asked for; those after the first may be without a part

	toQueue, toQueueCount int64 // cost of what makes all of it visible
}

// item is one message of a batch.
type item struct {
	message store.Message // its Brief, once the rest has been encoded
	chunks  int
	earlier *store.Message // the one that was accepted under its key before
	same    int            // place, from 1, of the item in this batch with the same key; 0 for none
	written bool           // as a part of the batch, or about to be
}

// aheadSize is how many bytes are gathered until they are written ahead.
const aheadSize = 768 << 10

func (s *Store) newBatch() *batch { return &batch{store: s, byKey: make(map[[32]byte]int)} }

// AcceptAll implements store.Acceptor. The bounds of each post are those of Accept.
func (s *Store) AcceptAll(ctx context.Context, posts iter.Seq2[store.Post, error]) (accepted []store.Accepted, err error) {
	b := s.newBatch()
	b.brief = true
	done := false
	defer func() {
		if !done { // also when posts panics
			s.use.RLock()
			defer s.use.RUnlock()
			b.discard()
		}
	}()
	deliveries := 0
	for p, err := range posts {
		if err != nil {
			return nil, err
		}
		deliveries += len(p.Message.Recipients)
		if len(b.items) == store.MaxPosts || deliveries > store.MaxPosts {
			return nil, fmt.Errorf("accept %d posts with %d deliveries: %w", len(b.items)+1, deliveries, store.ErrTooLarge)
		}
		if err := b.take(ctx, p); err != nil {
			return nil, err
		}
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	if err := b.decide(ctx); err != nil {
		return nil, err
	}
	done = true
	accepted = make([]store.Accepted, len(b.items))
	for i, it := range b.items {
		accepted[i] = store.Accepted{Message: it.message, Existing: it.earlier != nil || it.same > 0}
		if it.same > 0 {
			accepted[i].Message = accepted[it.same-1].Message
		} else if it.earlier != nil {
			accepted[i].Message = *it.earlier
		}
	}
	return accepted, nil
}

// take adds one post. The store is not held while the next is waited for, so that it can be closed meanwhile.
func (b *batch) take(ctx context.Context, p store.Post) error {
	if err := b.store.begin(ctx); err != nil {
		return err
	}
	defer b.store.use.RUnlock()
	m, err := b.store.normal(p.Message, p.Body)
	if err != nil {
		return &store.PostError{Index: len(b.items), Err: err}
	}
	return b.add(ctx, m, p.Body)
}

// acceptLong is acceptOne for what does not fit into one group.
func (s *Store) acceptLong(ctx context.Context, m store.Message, body []byte) (earlier *store.Message, err error) {
	b := s.newBatch()
	defer func() {
		if err != nil {
			b.discard()
		}
	}()
	err = b.add(ctx, m, body)
	if err == nil {
		err = b.decide(ctx)
	}
	if err != nil {
		if post, ok := err.(*store.PostError); ok { //nolint:errorlint // it is made here, and not wrapped
			err = post.Err
		}
		return nil, err
	}
	return b.items[0].earlier, nil
}

// add takes in a message in the form of normal, and writes ahead if enough has come together. body is not kept.
func (b *batch) add(ctx context.Context, m store.Message, body []byte) error {
	it := item{message: m, chunks: chunksOf(body)}
	if err := b.findEarlier(&it); err != nil {
		return &store.PostError{Index: len(b.items), Err: err}
	}
	if it.earlier != nil || it.same > 0 {
		it.message = m.Brief()
		b.items = append(b.items, it)
		return nil
	}
	if n := int64(len(m.Recipients)); n > 0 && b.store.pending.Load()+b.fresh+n > b.store.maxPending {
		return store.ErrBacklog // decide counts again
	}
	raws, err := encodeDeliveries(m)
	if err != nil {
		return &store.PostError{Index: len(b.items), Err: err}
	}
	it.message = m.Brief()
	b.toQueue, b.toQueueCount = b.toQueue+identifyCost, b.toQueueCount+identifyCount
	for n, raw := range raws {
		b.toQueue, b.toQueueCount = b.toQueue+queueCost(m.Recipients[n], raw), b.toQueueCount+queueCount
	}
	it.written = true
	if b.id == (store.MessageID{}) {
		b.id = m.ID
	}
	b.items = append(b.items, it)
	b.fresh += int64(len(m.Recipients))
	b.listed = append(b.listed, ahead{id: m.ID, chunks: it.chunks})
	var full error // of the group
	err = encodeAccept(storedMessage{Message: m, batch: b.id}, body, func(e entry) error {
		size, _ := cost(e)
		if b.size+size > aheadSize && len(b.waiting) > 0 {
			if full = b.writeAhead(ctx); full != nil {
				return full
			}
		}
		b.waiting = append(b.waiting, e)
		b.size += size
		return nil
	})
	if full == nil && err != nil {
		return &store.PostError{Index: len(b.items) - 1, Err: err}
	}
	return err
}

// findEarlier looks for another message under the same idempotency key: of the batch, or accepted before.
func (b *batch) findEarlier(it *item) error {
	pair := it.message.Idempotency
	if pair == nil {
		return nil
	}
	if first, ok := b.byKey[pair.Key]; ok {
		if b.items[first].message.Idempotency.Content != pair.Content {
			return store.ErrKeyConflict
		}
		it.same = first + 1
		return nil
	}
	b.byKey[pair.Key] = len(b.items)
	return b.store.db.View(func(txn *view) error {
		id, err := earlierID(txn, it.message)
		if err != nil || id == (store.MessageID{}) {
			return err
		}
		earlier, err := readMessage(txn, id)
		if err != nil {
			return fmt.Errorf("read message %s of the same key: %w", id, err)
		}
		it.earlier = b.keep(&earlier.Message)
		return nil
	})
}

// keep returns what is kept of an earlier message.
func (b *batch) keep(earlier *store.Message) *store.Message {
	if earlier == nil || !b.brief {
		return earlier
	}
	brief := earlier.Brief()
	return &brief
}

// writeAhead writes what has come together, with what tells the next start of it.
func (b *batch) writeAhead(ctx context.Context) error {
	entries := b.waiting
	if len(b.listed) > 0 {
		entries = append(entries, sealed(partKey(b.id, b.parts), encodePart(b.listed)))
	}
	if b.parts == 0 {
		entries = append(entries, sealed(batchKey(b.id), encodeBatch(batchRecord{})))
	}
	size, count := cost(entries...)
	b.waiting, b.listed, b.size = nil, nil, 0
	b.parts++
	return b.store.submit(ctx, &request{size: size, entries: count, stage: func(g *group) error {
		if g.low {
			return b.store.noSpace(b.store.reserve)
		}
		for _, e := range entries {
			g.put(e.key, e.value)
		}
		return nil
	}})
}

// decide makes all visible, or nothing.
func (b *batch) decide(ctx context.Context) error {
	if b.id == (store.MessageID{}) {
		return nil // all were accepted before
	}
	size, count := cost(b.waiting...)
	whole := b.parts == 0 && size+b.toQueue <= b.store.maxGroupSize && count+b.toQueueCount <= b.store.maxGroupEntries
	if !whole && len(b.waiting) > 0 {
		if err := b.writeAhead(ctx); err != nil {
			return err
		}
	}
	var e *enqueuing // the committer's until it has answered
	return b.store.submit(ctx, &request{
		size: b.store.maxGroupSize, entries: b.store.maxGroupEntries,
		stage: func(g *group) error {
			if e != nil {
				e.step(g)
				return nil
			}
			if err := b.check(g); err != nil {
				return err
			}
			for _, one := range b.waiting {
				g.put(one.key, one.value)
			}
			e = b.enqueuing()
			e.step(g)
			return nil
		},
		unfinished: func() bool { return !e.done },
	})
}

// check looks for what stands against the batch at the moment of its decision, and notes messages that have been
// accepted under one of its keys since add looked.
func (b *batch) check(g *group) error {
	var n int64
	for i := range b.items {
		it := &b.items[i]
		if it.earlier != nil || it.same > 0 {
			continue
		}
		earlier, err := findEarlier(g, it.message)
		if err == nil && earlier == nil {
			err = g.checkLines(it.message)
		}
		if err != nil {
			return &store.PostError{Index: i, Err: err}
		}
		if it.earlier = b.keep(earlier); earlier == nil {
			n += int64(len(it.message.Recipients))
		}
	}
	if g.low {
		return b.store.noSpace(b.store.reserve)
	}
	return b.store.checkBacklog(g, n)
}

// enqueuing returns what is to be done for the batch from its decision on.
func (b *batch) enqueuing() *enqueuing {
	e := &enqueuing{store: b.store, id: b.id, parts: b.parts}
	var messages []store.Message
	for i := range b.items {
		if it := &b.items[i]; it.written {
			e.list = append(e.list, ahead{id: it.message.ID, chunks: it.chunks})
			messages = append(messages, it.message)
		}
	}
	e.message = func(_ *group, n int) (store.Message, error) { return messages[n], nil }
	return e
}

// discard deletes what has been written ahead, unless the batch is decided: the one who asks may not know. If it fails,
// the next start does it. The caller holds s.use.
func (b *batch) discard() {
	if b.parts == 0 || b.store.closed.Load() {
		return
	}
	var list []ahead
	for i := range b.items { // not of its earlier: that may be the committer's still
		if it := &b.items[i]; it.written {
			list = append(list, ahead{id: it.message.ID, chunks: it.chunks})
		}
	}
	_ = b.store.discardBatch(b.id, list, b.parts)
}

// discardBatch deletes a batch that is not decided.
func (s *Store) discardBatch(id store.MessageID, list []ahead, parts int) error {
	var keys [][]byte
	for _, a := range list {
		keys = append(keys, a.keys()...)
	}
	for n := range parts {
		keys = append(keys, partKey(id, n))
	}
	head := batchKey(id)
	keys = append(keys, head) // the last, so that the next start goes on with the others
	for some := range slices.Chunk(keys, sweepKeys) {
		err := s.removeKeys(s.submitAlways, some, func(g *group) (bool, error) {
			content, err := g.get(head)
			if err != nil || content == nil {
				return false, err
			}
			b, err := decodeBatch(content)
			return !b.decided && err == nil, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// keys returns those of a message that is written ahead.
func (a ahead) keys() [][]byte {
	keys := [][]byte{messageKey(a.id)}
	for n := range a.chunks {
		keys = append(keys, chunkKey(a.id, n))
	}
	return keys
}
