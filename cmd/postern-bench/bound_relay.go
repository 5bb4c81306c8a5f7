package main

import (
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// backlog is what the ideal relay has yet to deliver: keys in order, and the bodies of the first few, so that memory
// follows a window.
type backlog struct {
	mu     sync.Mutex // guards what follows
	more   sync.Cond
	keys   []uint64
	bodies map[uint64][]byte
}

const backlogBodies = 1000

func newBacklog() *backlog {
	b := &backlog{bodies: map[uint64][]byte{}}
	b.more.L = &b.mu
	return b
}

func (b *backlog) add(key uint64, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys = append(b.keys, key)
	if len(b.bodies) < backlogBodies {
		b.bodies[key] = body
	}
	b.more.Signal()
}

// take waits for the next one. Its body is nil if it has to be read.
func (b *backlog) take() (key uint64, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.keys) == 0 {
		b.more.Wait()
	}
	key, b.keys = b.keys[0], b.keys[1:]
	body = b.bodies[key]
	delete(b.bodies, key)
	return key, body
}

// serveRelay is bound (d): it accepts by group commit, posts from a pool, and deletes what has arrived by group
// commit. There are no signatures, no retries, no history.
func serveRelay(path, caFile, host string) error {
	g, err := openGroupBadger(path)
	if err != nil {
		return err
	}
	go g.run()
	client, err := bareClient(caFile)
	if err != nil {
		return err
	}
	waiting := newBacklog()
	for range inFlight {
		go func() {
			for {
				n, body := waiting.take()
				key := numberKey(n)
				if body == nil {
					var err error
					body, err = g.read(key)
					fatal(err)
				}
				fatal(postOnce(client, host, body))
				g.forget(key) // without a wait: a post that waits for the disk would make this a bound of nothing
			}
		}()
	}
	return serveAndSay(accepting(func(body []byte) error {
		n := g.numbers.Add(1)
		if err := g.do(numberKey(n), body); err != nil {
			return err
		}
		waiting.add(n, body)
		return nil
	}))
}

func (g *groupBadger) read(key []byte) (value []byte, err error) {
	err = g.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	return value, err
}

// postBare is bound (c): it posts so many bodies of a size to the receiver, with as many in flight as Postern has.
func postBare(caFile, host string, n, size int) error {
	client, err := bareClient(caFile)
	if err != nil {
		return err
	}
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for i := range inFlight {
		wg.Go(func() {
			bodies := newBodies(size, uint64(i))
			for left.Add(-1) >= 0 {
				fatal(postOnce(client, host, bodies.append(nil)))
			}
		})
	}
	wg.Wait()
	return nil
}
