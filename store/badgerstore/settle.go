package badgerstore

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

// What the sweep deletes stays on the disk until the marks of the deletions have come down to it through all levels, and
// a level passes on what it has beyond its size only: in a store that is swept and then left alone, marks of 70 MiB hold
// what takes 760 MiB. So a store that is quiet is merged into one level when that gives back much.

const (
	settleEvery = time.Minute
	settleMost  = 2 << 30 // bytes that a merge reads and writes in all: a few seconds, and on a slow disk far less than commitTimeout
	settleKeys  = 4       // the part of all keys that have to have been deleted
	markSize    = 40      // bytes of the mark of a deletion in a table, about

	// settleWait is how long a commit waits for a merge at most. It is far below commitTimeout.
	settleWait = 10 * time.Second
)

// settling is the merging of a store into one level.
type settling struct {
	deleted atomic.Int64 // keys, by sweeps since the last merge
	done    atomic.Pointer[chan struct{}]
}

// settleLoop merges the store into one level when it is quiet and that gives back much.
func (s *Store) settleLoop() {
	ticks := time.NewTicker(settleEvery)
	defer ticks.Stop()
	var before []uint64
	for {
		select {
		case <-ticks.C:
		case <-s.stop:
			return
		}
		tables := s.db.Tables()
		now := make([]uint64, len(tables))
		for i, t := range tables {
			now[i] = t.ID
		}
		// Without a new table in a minute, no more than a memtable was written.
		quiet := slices.Equal(now, before)
		before = now
		if !quiet || !s.worthSettling(tables) || s.Err() != nil {
			continue
		}
		begun, size := time.Now(), s.tableSize()
		if err := s.settle(); err != nil {
			s.log.Warn("what was deleted stays on the disk for now", zap.Error(err))
			continue
		}
		s.log.Info("space of what was deleted is given back", zap.Int64("bytes", size-s.tableSize()), zap.Duration("took_seconds", time.Since(begun)))
		before = nil
	}
}

// worthSettling reports whether much of the tables is deleted, and there is room to merge them.
func (s *Store) worthSettling(tables []badger.TableInfo) bool {
	var keys, stale int64
	levels := make(map[int]bool)
	for _, t := range tables {
		keys += int64(t.KeyCount)
		stale += int64(t.StaleDataSize)
		levels[t.Level] = true
	}
	marks := stale / markSize
	deleted := max(s.settling.deleted.Load(), marks) // the first is not known of earlier processes
	if len(levels) <= 1 || deleted*settleKeys < keys {
		return false
	}
	size := s.tableSize()
	rest := mostLeft(size, keys, marks)
	return size+rest <= settleMost && s.free.Load() >= s.reserve/2+rest
}

// mostLeft returns how many bytes a merge of tables leaves at most, which have so many bytes and keys, a part of them marks
// of deletions: with each of those goes what it deletes. What is left counts twice, since it may be longer than the others.
func mostLeft(size, keys, marks int64) int64 {
	part := 2 * float64(max(keys-2*marks, 0)) / float64(max(keys, 1))
	return int64(float64(size) * min(part, 1))
}

// tableSize returns how many bytes the tables have.
func (s *Store) tableSize() (size int64) {
	for _, l := range s.db.Levels() {
		size += l.Size
	}
	return size
}

// settle merges the store into one level. Badger ends that when there is nothing in the others, so not while new tables come:
// commits that would make more than one wait meanwhile.
func (s *Store) settle() error {
	done := make(chan struct{})
	s.settling.done.Store(&done)
	defer close(done)
	defer s.settling.done.Store(nil)
	s.settling.deleted.Store(0)
	return s.db.Flatten(1)
}

// commitSettled commits a group, after the merge in progress if it has to wait for that.
func (s *Store) commitSettled(txn *badger.Txn) error {
	if done := s.settling.done.Load(); done != nil && s.db.Levels()[0].NumTables > 0 {
		late := time.NewTimer(settleWait)
		defer late.Stop()
		select {
		case <-*done:
		case <-late.C:
		}
	}
	return txn.Commit()
}
