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

// trimLoop trims when mapped files have grown in memory.
func (s *Store) trimLoop() {
	ticks := time.NewTicker(trimEvery)
	defer ticks.Stop()
	var left, least int64 // by the last trim, and by the best: the program itself, and logs
	for since := 1; ; since++ {
		select {
		case <-ticks.C:
		case <-s.stop:
			return
		}
		resident, err := mappedResident()
		// What a merge makes cannot be let go before its end.
		if err == nil && (resident >= left+trimFrom || since >= trimAgain && resident >= least+trimFrom) {
			if err = s.trim(); err == nil {
				left, err = mappedResident()
			}
			if least == 0 || left < least {
				least = left
			}
			since = 0
		}
		if err != nil {
			s.log.Warn("memory of tables is left to the kernel", zap.Error(err))
			return
		}
		left = min(left, resident)
	}
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
