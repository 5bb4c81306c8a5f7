package storetest

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sort"

	"github.com/postern-relay/postern/store"
)

// lineName says which line a delivery stands in.
type lineName struct{ destination, order string }

// line is the deliveries with one Order that have not ended, in the order of acceptance. Only its head is in the queue.
type line struct {
	head    store.DeliveryID
	behind  []store.DeliveryID
	blocked bool // head has ended and is Blocking
}

// Accept implements store.Acceptor.
func (m *Memory) Accept(ctx context.Context, msg store.Message, body []byte) (store.Message, bool, error) {
	if err := ctx.Err(); err != nil {
		return store.Message{}, false, err
	}
	msg, err := normal(msg, body, m.now)
	if err != nil {
		return store.Message{}, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return store.Message{}, false, err
	}
	first, err := m.earlierLocked(msg)
	if err != nil {
		return store.Message{}, false, err
	}
	if first != nil {
		return cloneMessage(*first), true, nil
	}
	n := int64(len(msg.Recipients))
	if n > 0 && m.pending+n > m.maxPending {
		return store.Message{}, false, store.ErrBacklog
	}
	m.addLocked(msg, append([]byte{}, body...))
	return cloneMessage(msg), false, nil
}

// AcceptAll implements store.Acceptor. It gathers all posts before it stores the first.
func (m *Memory) AcceptAll(ctx context.Context, posts iter.Seq2[store.Post, error]) ([]store.Accepted, error) {
	var all []store.Post
	deliveries := 0
	for p, err := range posts {
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		msg, err := normal(p.Message, p.Body, m.now)
		if err != nil {
			return nil, &store.PostError{Index: len(all), Err: err}
		}
		if deliveries += len(msg.Recipients); len(all) == store.MaxPosts || deliveries > store.MaxPosts {
			return nil, fmt.Errorf("accept %d posts with %d deliveries: %w", len(all)+1, deliveries, store.ErrTooLarge)
		}
		all = append(all, store.Post{Message: msg, Body: append([]byte{}, p.Body...)})
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return nil, err
	}
	return m.addAllLocked(all)
}

// addAllLocked stores posts in the form of normal, all or none.
func (m *Memory) addAllLocked(all []store.Post) ([]store.Accepted, error) {
	accepted := make([]store.Accepted, len(all))
	sameAs := make(map[[32]byte]int) // the first post under each key
	var n int64
	for i, p := range all {
		msg := p.Message
		if key := msg.Idempotency; key != nil {
			if j, ok := sameAs[key.Key]; ok {
				if *all[j].Message.Idempotency != *key {
					return nil, &store.PostError{Index: i, Err: store.ErrKeyConflict}
				}
				accepted[i] = store.Accepted{Message: cloneMessage(accepted[j].Message), Existing: true}
				continue
			}
			sameAs[key.Key] = i
		}
		first, err := m.earlierLocked(msg)
		if err != nil {
			return nil, &store.PostError{Index: i, Err: err}
		}
		if first != nil {
			accepted[i] = store.Accepted{Message: cloneMessage(first.Brief()), Existing: true}
			continue
		}
		accepted[i] = store.Accepted{Message: cloneMessage(msg.Brief())}
		n += int64(len(msg.Recipients))
	}
	if n > 0 && m.pending+n > m.maxPending {
		return nil, store.ErrBacklog
	}
	for i, p := range all {
		if !accepted[i].Existing {
			m.addLocked(p.Message, p.Body)
		}
	}
	return accepted, nil
}

// earlierLocked returns the message that was stored under msg's idempotency key, or nil.
func (m *Memory) earlierLocked(msg store.Message) (*store.Message, error) {
	if msg.Idempotency != nil {
		if id, ok := m.keys[msg.Idempotency.Key]; ok {
			first := &m.messages[id].message
			if first.Idempotency.Content != msg.Idempotency.Content {
				return nil, store.ErrKeyConflict
			}
			return first, nil
		}
	}
	if _, ok := m.messages[msg.ID]; ok {
		return nil, fmt.Errorf("accept message %s: id is taken", msg.ID)
	}
	return nil, nil
}

// addLocked stores a new message, and keeps body.
func (m *Memory) addLocked(msg store.Message, body []byte) {
	n := len(msg.Recipients)
	kept := &memoryMessage{
		message: msg, body: body, deliveries: make([]store.Delivery, n), attempts: make([][]store.Attempt, n),
	}
	m.messages[msg.ID] = kept
	if msg.Idempotency != nil {
		m.keys[msg.Idempotency.Key] = msg.ID
	}
	for i := range msg.Recipients {
		d := msg.Delivery(i)
		kept.deliveries[i] = d
		m.pending++
		if d.Order == "" {
			m.enqueueLocked(d)
			continue
		}
		name := lineName{d.Destination, d.Order}
		if l := m.lines[name]; l != nil {
			l.behind = append(l.behind, d.ID)
			continue
		}
		m.lines[name] = &line{head: d.ID}
		m.enqueueLocked(d)
	}
}

// Full implements store.Acceptor.
func (m *Memory) Full() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return err
	}
	if m.pending >= m.maxPending {
		return store.ErrBacklog
	}
	return nil
}

// Record implements store.Queue.
func (m *Memory) Record(ctx context.Context, before, after store.Delivery, a store.Attempt) (released store.Delivery, err error) {
	if err := ctx.Err(); err != nil {
		return store.Delivery{}, err
	}
	if err := checkRecord(before, after, a); err != nil {
		return store.Delivery{}, err
	}
	before, after = normalDelivery(before), normalDelivery(after)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.recordLocked(before, after, a)
}

// RecordAndAccept implements store.Queue.
func (m *Memory) RecordAndAccept(ctx context.Context, before, after store.Delivery, a store.Attempt, p store.Post) (store.Recorded, error) {
	if err := ctx.Err(); err != nil {
		return store.Recorded{}, err
	}
	if err := checkRecord(before, after, a); err != nil {
		return store.Recorded{}, err
	}
	before, after = normalDelivery(before), normalDelivery(after)
	msg, refused := normal(p.Message, p.Body, m.now)
	if len(p.Body) > store.MaxFollowUp {
		refused = fmt.Errorf("body of %d bytes: %w", len(p.Body), store.ErrTooLarge)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	released, err := m.recordLocked(before, after, a)
	if err != nil {
		return store.Recorded{}, err
	}
	var accepted store.Accepted
	if refused == nil {
		var all []store.Accepted
		all, refused = m.addAllLocked([]store.Post{{Message: msg, Body: append([]byte{}, p.Body...)}})
		if refused == nil {
			accepted = all[0]
		}
	}
	if post, ok := refused.(*store.PostError); ok { //nolint:errorlint // it is made here, and not wrapped
		refused = post.Err
	}
	return store.Recorded{Released: released, Accepted: accepted, Refused: refused}, nil
}

// recordLate writes an attempt of the n-th delivery, which has changed since, and returns why nothing else is written.
func (kept *memoryMessage) recordLate(n int, before, after store.Delivery, a store.Attempt) error {
	now := &kept.deliveries[n]
	canceled := now.State == store.Canceled && now.Round == before.Round && now.Made == before.Made
	made := slices.ContainsFunc(kept.attempts[n], func(b store.Attempt) bool { return b.Round == a.Round && b.Number == a.Number })
	if a.Number == 0 || a.Round != before.Round || made || !canceled && now.Round <= before.Round {
		return store.ErrStale
	}
	if canceled {
		now.Attempts, now.Made, now.Last = after.Attempts, after.Made, a.Outcome()
	}
	kept.attempts[n] = insertAttempt(kept.attempts[n], normalAttempt(a))
	return &store.OvertakenError{Now: *now}
}

// recordLocked is Record for deliveries in the form of normalDelivery.
func (m *Memory) recordLocked(before, after store.Delivery, a store.Attempt) (released store.Delivery, err error) {
	if err := m.usableLocked(); err != nil {
		return store.Delivery{}, err
	}
	kept, ok := m.messages[before.ID.Message()]
	if !ok || before.ID.Index() >= len(kept.deliveries) {
		return store.Delivery{}, store.ErrStale
	}
	n := before.ID.Index()
	now := kept.deliveries[n]
	if a.Number > 0 && a.Round == before.Round && now.State == store.Pending {
		before.DueAt = now.DueAt // Expedite changes nothing else
	}
	before.Last = now.Last
	switch {
	case now != before && before.State == store.Pending:
		return store.Delivery{}, kept.recordLate(n, before, after, a)
	case now != before || before.State != store.Pending:
		return store.Delivery{}, store.ErrStale
	}
	after.Last = before.Last
	if a.Number > 0 {
		after.Last = a.Outcome()
	}
	l := m.lines[lineName{before.Destination, before.Order}]
	if before.Order != "" && l.head != before.ID {
		return store.Delivery{}, store.ErrStale // it stands behind the head, where Due has not shown it
	}
	m.dequeueLocked(before)
	kept.deliveries[n] = after
	if a.Number > 0 {
		kept.attempts[n] = insertAttempt(kept.attempts[n], normalAttempt(a))
	}
	if after.State == store.Pending {
		m.enqueueLocked(after)
		return store.Delivery{}, nil
	}
	m.pending--
	if before.Order == "" {
		return store.Delivery{}, nil
	}
	if after.Blocking {
		l.blocked = true
		return store.Delivery{}, nil
	}
	return m.advanceLocked(lineName{before.Destination, before.Order}), nil
}

// advanceLocked lets the next of a line go, and returns it, or the zero Delivery.
func (m *Memory) advanceLocked(name lineName) store.Delivery {
	l := m.lines[name]
	if len(l.behind) == 0 {
		delete(m.lines, name)
		return store.Delivery{}
	}
	l.head, l.behind, l.blocked = l.behind[0], l.behind[1:], false
	d := m.messages[l.head.Message()].deliveries[l.head.Index()]
	m.enqueueLocked(d)
	return d
}

// Release implements store.Queue.
func (m *Memory) Release(ctx context.Context, destination string, limit int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return 0, err
	}
	released := 0
	for name, l := range m.lines {
		if released >= limit {
			break
		}
		if name.destination != destination || !l.blocked {
			continue
		}
		m.messages[l.head.Message()].deliveries[l.head.Index()].Blocking = false
		m.advanceLocked(name)
		released++
	}
	return released, nil
}

func (m *Memory) enqueueLocked(d store.Delivery) {
	queue := m.queues[d.Destination]
	m.queues[d.Destination] = slices.Insert(queue, place(queue, d), d)
}

func (m *Memory) dequeueLocked(d store.Delivery) {
	queue := m.queues[d.Destination]
	// Deliveries leave near the front, so it is the front that moves: a long queue is emptied in linear time.
	i := place(queue, d)
	copy(queue[1:i+1], queue[:i])
	queue[0] = store.Delivery{}
	queue = queue[1:]
	if len(queue) == 0 {
		delete(m.queues, d.Destination)
	} else {
		m.queues[d.Destination] = queue
	}
}

// place returns where d stands in the queue, or would.
func place(queue []store.Delivery, d store.Delivery) int {
	return sort.Search(len(queue), func(i int) bool { return !queue[i].Cursor().Less(d.Cursor()) })
}

// Pause implements store.Pauser.
func (m *Memory) Pause(ctx context.Context, destination string, p store.Pause) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkName(destination); err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return err
	}
	if _, ok := m.pauses[destination]; !ok {
		m.pauses[destination] = normalPause(p)
	}
	return nil
}

// Resume implements store.Pauser.
func (m *Memory) Resume(ctx context.Context, destination string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return err
	}
	delete(m.pauses, destination)
	return nil
}

// Paused implements store.Pauser.
func (m *Memory) Paused(ctx context.Context) (map[string]store.Pause, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return nil, err
	}
	return maps.Clone(m.pauses), nil
}
