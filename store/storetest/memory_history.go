package storetest

import (
	"bytes"
	"context"
	"slices"

	"github.com/postern-relay/postern/store"
)

// MaxLooks is how many deliveries a Memory looks at in one call of Deliveries. It is small, so that those who call it
// meet pages that are not full.
const MaxLooks = 500

// Deliveries implements store.History. It sorts all that there is: a Memory is small.
func (m *Memory) Deliveries(ctx context.Context, f store.Filter, after store.Place, limit int) (found []store.Delivery, next store.Place, err error) {
	if err := ctx.Err(); err != nil {
		return nil, store.Place{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return nil, store.Place{}, err
	}
	if limit <= 0 {
		return nil, store.Place{}, nil
	}
	first, last := f.Bounds()
	var ids []store.DeliveryID
	for _, kept := range m.messages {
		for _, d := range kept.deliveries {
			behind := after == store.Place{} || bytes.Compare(d.ID[:], after.ID[:]) < 0
			if behind && bytes.Compare(first[:], d.ID[:]) <= 0 && bytes.Compare(d.ID[:], last[:]) <= 0 {
				ids = append(ids, d.ID)
			}
		}
	}
	slices.SortFunc(ids, func(a, b store.DeliveryID) int { return bytes.Compare(b[:], a[:]) })
	for i, id := range ids {
		kept := m.messages[id.Message()]
		if d := kept.deliveries[id.Index()]; f.Match(d, kept.message) {
			found = append(found, d)
		}
		if i+1 < len(ids) && (len(found) == limit || i+1 == MaxLooks) {
			return found, store.Place{ID: id}, nil
		}
	}
	return found, store.Place{}, nil
}

// Backlog implements store.History.
func (m *Memory) Backlog(ctx context.Context) (map[string]store.Backlog, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return nil, err
	}
	all := make(map[string]store.Backlog)
	for name, queue := range m.queues {
		all[name] = store.Backlog{Pending: int64(len(queue)), DueAt: queue[0].DueAt}
	}
	for name, l := range m.lines {
		if n := len(l.behind); n > 0 {
			b := all[name.destination]
			b.Pending += int64(n)
			all[name.destination] = b
		}
		if l.blocked {
			b := all[name.destination]
			b.Blocked, b.Blocking = b.Blocked+1, l.head
			all[name.destination] = b
		}
	}
	return all, nil
}
