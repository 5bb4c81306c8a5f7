package badgerstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/postern-relay/postern/store"
)

// backlog knows how many deliveries of each destination are pending. It is counted when a store opens, and kept up by
// the committer.
type backlog struct {
	mu     sync.Mutex       // guards the field below
	counts map[string]int64 // none is 0
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

// all returns a copy.
func (b *backlog) all() map[string]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.counts)
}

// countPending counts the pending deliveries of each destination, by keys alone, so that a damaged record counts too.
func countPending(db *database) (counts map[string]int64, total int64, err error) {
	counts = make(map[string]int64)
	// The names are those between the kind and the last bytes of a key, which are a zero byte and tail more.
	count := func(txn *view, kind byte, tail int) {
		scanKeys(txn, []byte{kind}, nil, func(key []byte) bool {
			if len(key) < 1+1+1+tail || key[len(key)-tail-1] != 0 {
				err = fmt.Errorf("read %s: %w", describe(key), errBadKey)
				return false
			}
			counts[string(key[1:len(key)-tail-1])]++
			total++
			return true
		})
	}
	if dbErr := db.View(func(txn *view) error {
		count(txn, kindQueue, 8+16)
		if err == nil {
			count(txn, kindWaiting, lineHash+8)
		}
		return nil
	}); dbErr != nil {
		err = dbErr
	}
	return counts, total, err
}

// Backlog implements store.History.
func (s *Store) Backlog(ctx context.Context) (map[string]store.Backlog, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	all := make(map[string]store.Backlog)
	for name, n := range s.backlog.all() {
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
	return slices.Sorted(maps.Keys(s.backlog.all())), nil
}

// Pending implements store.History.
func (s *Store) Pending() int64 { return s.pending.Load() }
