package storetest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/postern-relay/postern/store"
)

// findLocked returns where the state of a delivery is kept, or store.ErrNotFound.
func (m *Memory) findLocked(id store.DeliveryID) (*store.Delivery, error) {
	if err := m.usableLocked(); err != nil {
		return nil, err
	}
	kept, ok := m.messages[id.Message()]
	if n := id.Index(); ok && n >= 0 && n < len(kept.deliveries) {
		return &kept.deliveries[n], nil
	}
	return nil, store.ErrNotFound
}

// leaveLocked takes a pending delivery out of its queue, or from behind the head of its line, and returns what that has
// released.
func (m *Memory) leaveLocked(d store.Delivery) (released store.Delivery) {
	name := lineName{d.Destination, d.Order}
	if d.Order != "" && m.lines[name].head != d.ID {
		l := m.lines[name]
		i := slices.Index(l.behind, d.ID)
		l.behind = slices.Delete(l.behind, i, i+1)
		return store.Delivery{}
	}
	m.dequeueLocked(d)
	if d.Order == "" {
		return store.Delivery{}
	}
	return m.advanceLocked(name)
}

// Replay implements store.Steerer.
func (m *Memory) Replay(ctx context.Context, id store.DeliveryID, due time.Time) (store.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return store.Delivery{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.findLocked(id)
	switch {
	case err != nil:
		return store.Delivery{}, fmt.Errorf("replay %s: %w", id, err)
	case d.Round >= store.MaxRound:
		return store.Delivery{}, fmt.Errorf("replay %s: round %d: %w", id, d.Round+1, store.ErrTooLarge)
	case d.State.Ended() && m.pending >= m.maxPending:
		return store.Delivery{}, fmt.Errorf("replay %s: %w", id, store.ErrBacklog)
	case !d.State.Ended():
		m.leaveLocked(*d)
	default:
		m.pending++
	}
	if d.Blocking {
		m.lines[lineName{d.Destination, d.Order}].blocked = false
	} else {
		d.Order = ""
	}
	d.State, d.Blocking, d.Reason = store.Pending, false, ""
	d.Round, d.Attempts, d.Made = d.Round+1, 0, 0
	d.BegunAt, d.DueAt, d.EndedAt = time.Time{}, toMillis(due), time.Time{}
	m.enqueueLocked(*d)
	return *d, nil
}

// Cancel implements store.Steerer.
func (m *Memory) Cancel(ctx context.Context, id store.DeliveryID, at time.Time, reason string) (canceled, released store.Delivery, err error) {
	if err := ctx.Err(); err != nil {
		return store.Delivery{}, store.Delivery{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.findLocked(id)
	switch {
	case err == nil && d.Blocking:
		d.Blocking = false
		return *d, m.advanceLocked(lineName{d.Destination, d.Order}), nil
	case err == nil && d.State.Ended():
		err = store.ErrStale
	}
	if err != nil {
		return store.Delivery{}, store.Delivery{}, fmt.Errorf("cancel %s: %w", id, err)
	}
	released = m.leaveLocked(*d)
	m.pending--
	d.State, d.Reason = store.Canceled, store.CutReason(reason)
	d.DueAt, d.EndedAt = time.Time{}, toMillis(at)
	return *d, released, nil
}

// Expedite implements store.Steerer.
func (m *Memory) Expedite(ctx context.Context, id store.DeliveryID, due time.Time) (store.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return store.Delivery{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.findLocked(id)
	if err == nil && (d.State.Ended() || d.Order != "" && m.lines[lineName{d.Destination, d.Order}].head != id) {
		err = store.ErrStale
	}
	if err != nil {
		return store.Delivery{}, fmt.Errorf("expedite %s: %w", id, err)
	}
	m.dequeueLocked(*d)
	d.DueAt = toMillis(due)
	m.enqueueLocked(*d)
	return *d, nil
}

// Reduce implements store.Steerer.
func (m *Memory) Reduce(ctx context.Context, id store.MessageID, body []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return err
	}
	kept, ok := m.messages[id]
	switch {
	case len(body) > store.MaxReduced:
		return fmt.Errorf("reduce message %s to %d bytes: %w", id, len(body), store.ErrTooLarge)
	case !ok:
		return fmt.Errorf("reduce message %s: %w", id, store.ErrNotFound)
	}
	for _, d := range kept.deliveries {
		if !d.State.Ended() {
			return fmt.Errorf("reduce message %s: %w", id, store.ErrStale)
		}
	}
	kept.message.Reduced, kept.body = true, append([]byte{}, body...)
	return nil
}
