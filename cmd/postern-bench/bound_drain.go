package main

import (
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// drainRelay is bound (d) with a backlog: of so many bodies of a size, which it puts into a folder first. It opens that
// anew, reads them by one iterator, posts them from a pool, and deletes what has arrived by group commit.
func drainRelay(path, caFile, host string, n, size int) error {
	if err := fillBadger(path, n, size); err != nil {
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
func fillBadger(path string, n, size int) error {
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
			for number := last.Add(1); number <= uint64(n); number = last.Add(1) {
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
