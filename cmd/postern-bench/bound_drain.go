package main

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// drainRelay is bound (d) with a backlog: of so many bodies of a size, which it puts into a folder first. It opens that
// anew, reads them by one iterator, posts them from a pool, and deletes what has arrived by group commit.
func drainRelay(path, caFile, host, number, size string) error {
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return err
	}
	bytes, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	if err := fillBadger(path, n, bytes); err != nil {
		return err
	}
	g, err := openGroupBadger(path)
	if err != nil {
		return err
	}
	go g.run()
	client, err := bareClient(caFile)
	if err != nil {
		return err
	}
	pending := make(chan keyRecord, backlogBodies)
	var workers sync.WaitGroup
	for range inFlight {
		workers.Go(func() {
			for r := range pending {
				fatal(postOnce(client, host, r.value))
				g.forget(r.key)
			}
		})
	}
	err = g.each(func(key, value []byte) { pending <- keyRecord{key: key, value: value} })
	close(pending)
	workers.Wait()
	return err
}

// fillBadger puts so many bodies of a size into a folder, and closes it.
func fillBadger(path string, n uint64, size int) error {
	g, err := openGroupBadger(path)
	if err != nil {
		return err
	}
	go g.run()
	var (
		last    atomic.Uint64
		writers sync.WaitGroup
	)
	for i := range groupMost {
		writers.Go(func() {
			bodies := newBodies(size, uint64(i))
			for number := last.Add(1); number <= n; number = last.Add(1) {
				fatal(g.do(numberKey(number), bodies.append(nil)))
			}
		})
	}
	writers.Wait()
	close(g.waiting)
	return g.db.Close()
}

// each calls do with copies of all keys and values, in order.
func (g *groupBadger) each(do func(key, value []byte)) error {
	return g.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			do(it.Item().KeyCopy(nil), value)
		}
		return nil
	})
}
