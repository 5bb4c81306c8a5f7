package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/postern-relay/postern/store"
)

// MemoryOptions shape a Memory. The zero value works.
type MemoryOptions struct {
	Now        func() time.Time // stamps messages that come without a time of acceptance; nil means time.Now
	MaxPending int64            // most pending deliveries; above it Accept returns store.ErrBacklog; 0 means 1,000,000
}

// Memory is a store.Store without a disk: the model that engines are compared with, and the engine for tests under
// testing/synctest, since it starts no goroutine and no timer. Its methods may be called from several goroutines.
type Memory struct {
	now        func() time.Time
	maxPending int64

	mu       sync.Mutex // guards the fields below
	messages map[store.MessageID]*memoryMessage
	keys     map[[32]byte]store.MessageID
	queues   map[string][]store.Delivery // of each destination, sorted by cursor; of a line only the head
	lines    map[lineName]*line
	pauses   map[string]store.Pause
	outages  map[string]store.Outage
	items    map[string]store.Item // of the vault
	pending  int64                 // those behind the head of a line included
	closed   bool
	err      error

	broken chan struct{} // closed by Break
}

// memoryMessage is a message with all that belongs to it.
type memoryMessage struct {
	message    store.Message
	body       []byte
	deliveries []store.Delivery
	attempts   [][]store.Attempt // of each delivery, oldest first
}

var _ store.Store = (*Memory)(nil)

// NewMemory returns an empty engine.
func NewMemory(o MemoryOptions) *Memory {
	m := &Memory{
		now: o.Now, maxPending: o.MaxPending, broken: make(chan struct{}),
		messages: make(map[store.MessageID]*memoryMessage),
		keys:     make(map[[32]byte]store.MessageID),
		queues:   make(map[string][]store.Delivery),
		lines:    make(map[lineName]*line),
		pauses:   make(map[string]store.Pause),
		outages:  make(map[string]store.Outage),
		items:    make(map[string]store.Item),
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.maxPending == 0 {
		m.maxPending = 1_000_000
	}
	return m
}

// Due implements store.Queue.
func (m *Memory) Due(ctx context.Context, destination string, after store.Cursor, limit int) ([]store.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return nil, err
	}
	queue := m.queues[destination]
	after.DueAt = toMillis(after.DueAt)
	first := sort.Search(len(queue), func(i int) bool { return after.Less(queue[i].Cursor()) })
	last := min(len(queue), first+max(limit, 0))
	return slices.Clone(queue[first:last]), nil
}

// Load implements store.Loader.
func (m *Memory) Load(ctx context.Context, id store.MessageID) (store.Message, []byte, error) {
	if err := ctx.Err(); err != nil {
		return store.Message{}, nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return store.Message{}, nil, err
	}
	kept, ok := m.messages[id]
	if !ok {
		return store.Message{}, nil, fmt.Errorf("load message %s: %w", id, store.ErrNotFound)
	}
	return cloneMessage(kept.message), append([]byte{}, kept.body...), nil
}

// Delivery implements store.History.
func (m *Memory) Delivery(ctx context.Context, id store.DeliveryID) (store.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return store.Delivery{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return store.Delivery{}, err
	}
	kept, ok := m.messages[id.Message()]
	if n := id.Index(); ok && n >= 0 && n < len(kept.deliveries) {
		return kept.deliveries[n], nil
	}
	return store.Delivery{}, fmt.Errorf("load delivery %s: %w", id, store.ErrNotFound)
}

// Attempts implements store.History.
func (m *Memory) Attempts(ctx context.Context, id store.DeliveryID, limit int) ([]store.Attempt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return nil, err
	}
	kept, ok := m.messages[id.Message()]
	if n := id.Index(); ok && n >= 0 && n < len(kept.deliveries) {
		all := kept.attempts[n]
		latest := all[len(all)-min(len(all), max(limit, 0)):]
		out := make([]store.Attempt, len(latest))
		for i, a := range latest {
			out[i] = normalAttempt(a)
		}
		return out, nil
	}
	return nil, fmt.Errorf("load attempts of %s: %w", id, store.ErrNotFound)
}

// Pending implements store.History.
func (m *Memory) Pending() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pending
}

// PendingDestinations implements store.History.
func (m *Memory) PendingDestinations(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for name := range m.queues {
		names[name] = true
	}
	for name, l := range m.lines {
		if len(l.behind) > 0 {
			names[name.destination] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// Sweep implements store.Sweeper.
func (m *Memory) Sweep(ctx context.Context, before time.Time, limit int) (deleted int, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	before = toMillis(before)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return 0, false, err
	}
	for id, kept := range m.messages {
		if !kept.endedBefore(before) {
			continue
		}
		if deleted == limit {
			return deleted, true, nil
		}
		delete(m.messages, id)
		if kept.message.Idempotency != nil {
			delete(m.keys, kept.message.Idempotency.Key)
		}
		deleted++
	}
	return deleted, false, nil
}

// Broken implements store.Store.
func (m *Memory) Broken() <-chan struct{} { return m.broken }

// Err implements store.Store.
func (m *Memory) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Break makes the engine fail for the given reason, as a failed sync does to one with a disk: every later call returns
// store.ErrBroken. A second call changes nothing.
func (m *Memory) Break(reason error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = fmt.Errorf("%w: %w", store.ErrBroken, reason)
		close(m.broken)
	}
}

// Close implements store.Store. What was stored is gone with the Memory.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (m *Memory) usableLocked() error {
	if m.closed {
		return store.ErrClosed
	}
	return m.err
}

func (k *memoryMessage) endedBefore(t time.Time) bool {
	for _, d := range k.deliveries {
		if !d.State.Ended() || d.Blocking || !d.EndedAt.Before(t) {
			return false
		}
	}
	return len(k.deliveries) > 0 || k.message.AcceptedAt.Before(t)
}

// insertAttempt puts a in its place by round and number, over one that has both.
func insertAttempt(all []store.Attempt, a store.Attempt) []store.Attempt {
	i, found := slices.BinarySearchFunc(all, a, func(x, y store.Attempt) int {
		if x.Round != y.Round {
			return x.Round - y.Round
		}
		return x.Number - y.Number
	})
	if found {
		all[i] = a
		return all
	}
	return slices.Insert(all, i, a)
}
