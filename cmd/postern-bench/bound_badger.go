package main

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// Badger's sizes, as store/badgerstore has them: a test compares both.
const (
	memTableSize   = 8 << 20
	memTables      = 2
	tableSize      = 4 << 20
	levelSize      = 16 << 20
	blockSize      = 64 << 10
	levelZero      = 2
	levelZeroStall = 3
	valueThreshold = 1 << 20
)

// badgerOptions are those of store/badgerstore.
func badgerOptions(path string) badger.Options {
	o := badger.DefaultOptions(path)
	o.TableSizeMultiplier = 1
	return o.
		WithSyncWrites(true).
		WithDetectConflicts(false).
		WithValueThreshold(valueThreshold).
		WithValueLogFileSize(16 << 20).
		WithMemTableSize(memTableSize).
		WithNumMemtables(memTables).
		WithBaseTableSize(tableSize).
		WithBaseLevelSize(levelSize).
		WithNumCompactors(2).
		WithNumLevelZeroTables(levelZero).
		WithNumLevelZeroTablesStall(levelZeroStall).
		WithCompression(options.None).
		WithBlockSize(blockSize).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithChecksumVerificationMode(options.NoVerification).
		WithVerifyValueChecksum(true).
		WithNumVersionsToKeep(1).
		WithCompactL0OnClose(false).
		WithMetricsEnabled(false)
}

// groupBadger commits keys with values, or their deletion, many in one transaction, and nothing else: no checks, no
// indexes, no counts.
type groupBadger struct {
	db      *badger.DB
	numbers atomic.Uint64 // of bodies
	waiting chan keyRecord
}

type keyRecord struct {
	key   []byte
	value []byte     // nil deletes the key
	done  chan error // nil if nobody waits; then an error ends the process
}

func openGroupBadger(path string) (*groupBadger, error) {
	db, err := badger.Open(badgerOptions(path).WithLogger(nil))
	if err != nil {
		return nil, err
	}
	return &groupBadger{db: db, waiting: make(chan keyRecord, 4096)}, nil
}

// groupBytes is less than what a transaction takes with memtables of this size.
const groupBytes = 1 << 20

func (g *groupBadger) run() {
	var held *keyRecord // did not fit into the group before
	for {
		var first keyRecord
		if held != nil {
			first, held = *held, nil
		} else {
			var open bool
			if first, open = <-g.waiting; !open {
				return
			}
		}
		group := []keyRecord{first}
		size := len(first.value)
		runtime.Gosched() // those who were just answered may join
		for more := true; more && len(group) < groupMost; {
			select {
			case r, open := <-g.waiting:
				if !open {
					more = false
					break
				}
				if size += len(r.value) + 64; size > groupBytes {
					held = &r
					more = false
					break
				}
				group = append(group, r)
			default:
				more = false
			}
		}
		err := g.commit(group)
		for _, r := range group {
			if r.done == nil {
				fatal(err)
				continue
			}
			r.done <- err
		}
	}
}

func (g *groupBadger) commit(group []keyRecord) error {
	txn := g.db.NewTransaction(true)
	defer txn.Discard()
	for _, r := range group {
		var err error
		if r.value == nil {
			err = txn.Delete(r.key)
		} else {
			err = txn.Set(r.key, r.value)
		}
		if err != nil {
			return err
		}
	}
	return txn.Commit()
}

// do commits one record, together with others that wait.
func (g *groupBadger) do(key, value []byte) error {
	done := make(chan error, 1)
	g.waiting <- keyRecord{key, value, done}
	return <-done
}

// forget deletes a key with one of the next groups, and waits for none, unless thousands wait already.
func (g *groupBadger) forget(key []byte) { g.waiting <- keyRecord{key: key} }

// accept returns when body is on disk, under the next number.
func (g *groupBadger) accept(body []byte) error { return g.do(numberKey(g.numbers.Add(1)), body) }

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// serveBadger is bound (b).
func serveBadger(path string) error {
	g, err := openGroupBadger(path)
	if err != nil {
		return err
	}
	go g.run()
	return serveAndSay(accepting(g.accept))
}
