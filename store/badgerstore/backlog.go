package badgerstore

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// backlog knows how many deliveries of each destination are pending. It is counted behind the opening of a store, which
// takes half a second for a million, and kept up by the committer meanwhile and after.
type backlog struct {
	counted chan struct{} // closed when counts is whole, or the store is closed

	mu     sync.Mutex       // guards the field below
	counts map[string]int64 // none is 0; before counted, what has changed since the store was opened
}

// add takes in what a group has changed.
func (b *backlog) add(changes map[string]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, n := range changes {
		if n += b.counts[name]; n == 0 {
			delete(b.counts, name)
		} else {
			b.counts[name] = n
		}
	}
}

// all returns a copy, and false as long as it is not counted.
func (b *backlog) all() (counts map[string]int64, ok bool) {
	select {
	case <-b.counted:
	default:
		return nil, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.counts), true
}

// countPending counts the pending deliveries of each destination, by keys alone, so that a damaged record counts too.
func countPending(db *database) (counts map[string]int64, total int64, err error) {
	if dbErr := db.View(func(txn *view) error {
		counts, total, err = countIn(txn, func() bool { return false })
		return err
	}); dbErr != nil {
		err = dbErr
	}
	return counts, total, err
}

// countIn is countPending of one state of the database. It ends early when it is told to stop.
func countIn(txn *view, stop func() bool) (counts map[string]int64, total int64, err error) {
	counts = make(map[string]int64)
	// The names are those between the kind and the last bytes of a key, which are a zero byte and tail more.
	count := func(kind byte, tail int) {
		scanKeys(txn, []byte{kind}, nil, func(key []byte) bool {
			if len(key) < 1+1+1+tail || key[len(key)-tail-1] != 0 {
				err = fmt.Errorf("read %s: %w", describe(key), errBadKey)
				return false
			}
			counts[string(key[1:len(key)-tail-1])]++
			total++
			return !stop()
		})
	}
	count(kindQueue, 8+16)
	if err == nil {
		count(kindWaiting, lineHash+8)
	}
	return counts, total, err
}

// beginCount begins to count the backlog. Nobody writes yet, so its total is what the commit groups say.
func (s *Store) beginCount() {
	s.backlog.mu.Lock()
	clear(s.backlog.counts) // what opening has changed is in the snapshot
	s.backlog.mu.Unlock()
	txn, noted := &view{Txn: s.db.NewTransaction(false), keys: s.keys}, s.pending.Load()
	s.counter.Go(func() {
		defer close(s.backlog.counted)
		defer txn.Discard()
		counts, total, err := countIn(txn, s.closed.Load)
		switch {
		case s.closed.Load():
			return
		case err != nil:
			_ = s.fail(fmt.Errorf("count pending deliveries: %w", err))
			return
		case total != noted:
			s.log.Error("pending deliveries are not as many as noted", zap.Int64("pending", total), zap.Int64("noted", noted))
			s.pending.Add(total - noted)
		}
		s.backlog.add(counts)
	})
}

// pendingByName waits until the backlog is counted, and returns a copy of the counts.
func (s *Store) pendingByName(ctx context.Context) (map[string]int64, error) {
	select {
	case <-s.backlog.counted:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.closed.Load() {
		return nil, store.ErrClosed
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	counts, _ := s.backlog.all()
	return counts, nil
}

// Backlog implements store.History.
func (s *Store) Backlog(ctx context.Context) (map[string]store.Backlog, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	all := make(map[string]store.Backlog)
	counts, err := s.pendingByName(ctx)
	if err != nil {
		return nil, fmt.Errorf("count pending deliveries: %w", err)
	}
	for name, n := range counts {
		b := store.Backlog{Pending: n}
		first, err := s.firstQueued(name)
		if err != nil {
			return nil, fmt.Errorf("read queue of %q: %w", name, err)
		}
		if first != nil {
			b.DueAt = timeOf(binary.BigEndian.Uint64(first[len(first)-24:]))
		}
		all[name] = b
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if err := s.addBlocked(all); err != nil {
		return nil, fmt.Errorf("read blocked lines: %w", err)
	}
	return all, nil
}

// addBlocked counts the lines that are held up. The delivery is left out where its note is damaged.
func (s *Store) addBlocked(all map[string]store.Backlog) error {
	return s.db.View(func(txn *view) (err error) {
		counted := 0
		scanKeys(txn, []byte{kindBlocked}, nil, func(key []byte) bool {
			var name string
			if name, err = parseLineKey(key); err != nil {
				err = fmt.Errorf("%s: %w", describe(key), err)
				return false
			}
			b := all[name]
			if b.Blocked++; b.Blocked == 1 {
				if id, err := get(txn, key); err == nil && len(id) == len(b.Blocking) {
					b.Blocking = store.DeliveryID(id)
				}
			}
			all[name] = b
			counted++
			return counted < store.MaxBlocked
		})
		return err
	})
}

// firstQueued returns the first key of a destination's queue, or nil.
func (s *Store) firstQueued(destination string) (first []byte, err error) {
	prefix := queuePrefix(destination)
	from, walk := s.heads.begin(prefix, prefix, true)
	if walk != nil {
		defer func() { s.heads.end(prefix, walk, first, err == nil) }()
	}
	err = s.db.View(func(txn *view) error {
		scanKeys(txn, prefix, from, func(key []byte) bool {
			first = slices.Clone(key)
			return false
		})
		return nil
	})
	return first, err
}

// PendingDestinations implements store.History.
func (s *Store) PendingDestinations(ctx context.Context) ([]string, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	if counts, ok := s.backlog.all(); ok {
		return slices.Sorted(maps.Keys(counts)), nil
	}
	var names []string
	if err := s.db.View(func(txn *view) (err error) {
		names, err = pendingNames(ctx, txn)
		return err
	}); err != nil {
		return nil, fmt.Errorf("list pending destinations: %w", err)
	}
	return names, nil
}

// pendingNames returns the names under which something is pending, sorted, by going from one to the next.
func pendingNames(ctx context.Context, txn *view) (names []string, err error) {
	for kind, tail := range map[byte]int{kindQueue: 8 + 16, kindWaiting: lineHash + 8} {
		for from := []byte{kind}; from != nil; {
			var next []byte
			scanKeys(txn, []byte{kind}, from, func(key []byte) bool {
				if len(key) < 1+1+1+tail || key[len(key)-tail-1] != 0 {
					err = fmt.Errorf("read %s: %w", describe(key), errBadKey)
					return false
				}
				names = append(names, string(key[1:len(key)-tail-1]))
				next = append(slices.Clone(key[:len(key)-tail-1]), 1) // behind all with this name and a zero byte
				return false
			})
			if err = cmp.Or(err, ctx.Err()); err != nil {
				return nil, err
			}
			from = next
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Pending implements store.History.
func (s *Store) Pending() int64 { return s.pending.Load() }
