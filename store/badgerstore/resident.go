package badgerstore

import (
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

// Tables are mapped files, and what has been read or written of them counts as memory of the process until the kernel
// needs it: as much as the store has, where there is room. Nobody can tell that from what the process needs, so now and
// then it lets go of them. They stay in the page cache, and come back by a page fault where they are used.

const (
	trimEvery = 100 * time.Millisecond
	trimFrom  = 8 << 20 // bytes of mapped files that have come in since the last time
	trimAgain = 10      // ticks after which a trim that has left much is tried again
)

// trimming decides when to trim by how many bytes of mapped files are in memory.
type trimming struct {
	left, least int64 // by the last trim, or less by itself since; and by the best: the program itself, and logs
	since       int   // ticks since the last trim
}

// due takes what is in memory at a tick, and reports whether to trim. A trim may leave much, since what a merge makes
// cannot be let go before its end, so it is tried again later though nothing has come in.
func (t *trimming) due(resident int64) bool {
	t.since++
	if resident >= t.left+trimFrom || t.since >= trimAgain && resident >= t.least+trimFrom {
		return true
	}
	t.left = min(t.left, resident)
	return false
}

// done takes what a trim has left in memory.
func (t *trimming) done(left int64) {
	if t.least == 0 || left < t.least {
		t.least = left
	}
	t.left, t.since = left, 0
}

// trimLoop trims when mapped files have grown in memory.
func (s *Store) trimLoop() {
	ticks := time.NewTicker(trimEvery)
	defer ticks.Stop()
	var t trimming
	for {
		select {
		case <-ticks.C:
		case <-s.stop:
			return
		}
		if err := s.trimIfDue(&t); err != nil {
			s.log.Warn("memory of tables is left to the kernel", zap.Error(err))
			return
		}
	}
}

func (s *Store) trimIfDue(t *trimming) error {
	resident, err := mappedResident()
	if err != nil || !t.due(resident) {
		return err
	}
	if err := s.trim(); err != nil {
		return err
	}
	left, err := mappedResident()
	if err != nil {
		return err
	}
	t.done(left)
	return nil
}

// trim takes the tables out of the memory of the process. Their addresses are read from the kernel, so none of them may
// be unmapped meanwhile: others would be there then, which do not survive this. An iterator holds all that are in use when it
// begins, and those are the ones that are in use before and after, since no table comes back.
func (s *Store) trim() error {
	before := make(map[uint64]bool)
	for _, t := range s.db.Tables() {
		before[t.ID] = true
	}
	txn := s.db.NewTransaction(false)
	defer txn.Discard()
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	it := txn.NewIterator(o)
	defer it.Close()
	held := make(map[uint64]bool, len(before))
	for _, t := range s.db.Tables() {
		held[t.ID] = before[t.ID]
	}
	return unmapTables(s.db.Opts().Dir, held)
}
