package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

// request is one thing to be written. Callers prepare it; the committer stages it.
type request struct {
	size    int64 // bytes that stage may write, at most
	entries int64 // keys that stage may write, at most
	accepts bool  // takes in a message, so stage looks at group.low

	// stage checks whether the request may be written now, and writes it into the group. An error refuses this
	// request alone: then it has written nothing.
	stage func(*group) error
	done  chan error // receives once; has room for it
}

const (
	groupSize     = 2 << 20 // bytes of a commit group, before Badger's own bound
	groupRequests = 1000
	entryOverhead = 64 // bytes that Badger counts for an entry beside key and value, generously
)

// group is a commit group while it is put together: one transaction, which costs one sync.
type group struct {
	txn     *badger.Txn
	seq     uint64
	pending int64 // change of the number of pending deliveries
	base    int64 // pending before the group
	low     bool  // free disk is below the reserve; known if a request accepts

	queued [][]byte // q keys written
	ended  [][]byte // e keys written
	writes int
	err    error // of Badger, while staging
}

// get returns the content under key as it will be after the group, and nil if there is none.
func (g *group) get(key []byte) ([]byte, error) { return get(g.txn, key) }

// put stages a value. What can go wrong is the group's business, not the request's.
func (g *group) put(key, value []byte) {
	if g.err != nil {
		return
	}
	if len(value) >= valueThreshold {
		g.err = fmt.Errorf("value of %d bytes: %w", len(value), store.ErrTooLarge)
		return
	}
	switch key[0] {
	case kindQueue:
		g.queued = append(g.queued, key)
	case kindEnded:
		g.ended = append(g.ended, key)
	}
	g.writes++
	g.err = g.txn.Set(key, value)
}

// remove stages a deletion.
func (g *group) remove(key []byte) {
	if g.err != nil {
		return
	}
	g.writes++
	g.err = g.txn.Delete(key)
}

// submit hands r to the committer and waits for its end, or for that of ctx; then r may be written all the same.
// The caller holds s.use.
func (s *Store) submit(ctx context.Context, r *request) error {
	r.done = make(chan error, 1)
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commitLoop is the committer: the only writer. It takes what is waiting, commits it as one group, and answers. It
// waits for nothing: a lone request is committed at once, and while a group is synced the next one gathers.
func (s *Store) commitLoop() {
	var held *request // did not fit into the group before
	for {
		first := held
		held = nil
		if first == nil {
			r, ok := <-s.requests
			if !ok {
				return
			}
			first = r
		}
		reqs := []*request{first}
		size, entries := first.size, first.entries
		// Those answered by the last group are runnable and about to ask again; let them join this one.
		runtime.Gosched()
	gather:
		for len(reqs) < groupRequests {
			select {
			case r, ok := <-s.requests:
				if !ok {
					break gather
				}
				if size+r.size > s.maxGroupSize || entries+r.entries > s.maxGroupEntries {
					held = r
					break gather
				}
				reqs = append(reqs, r)
				size, entries = size+r.size, entries+r.entries
			default:
				break gather
			}
		}
		s.commit(reqs)
	}
}

// commit writes reqs as one group and answers them.
func (s *Store) commit(reqs []*request) {
	errs, err := s.tryCommit(reqs)
	if errors.Is(err, badger.ErrTxnTooBig) && len(reqs) > 1 {
		// The estimate of some request was too low. Nothing has been written: each gets a group of its own.
		for _, r := range reqs {
			s.commit([]*request{r})
		}
		return
	}
	for i, r := range reqs {
		switch {
		case err == nil || errs[i] != nil:
			r.done <- errs[i]
		case errors.Is(err, badger.ErrTxnTooBig):
			r.done <- fmt.Errorf("commit: %w", store.ErrTooLarge)
		default:
			r.done <- err
		}
	}
}

// tryCommit returns the refusals of single requests, and an error that concerns all the others.
func (s *Store) tryCommit(reqs []*request) (refused []error, err error) {
	refused = make([]error, len(reqs))
	if err := s.Err(); err != nil {
		return refused, err
	}
	g := &group{txn: s.db.NewTransaction(true), seq: s.seq + 1, base: s.pending.Load()}
	defer g.txn.Discard()
	g.low = s.belowReserve(reqs)
	for i, r := range reqs {
		refused[i] = r.stage(g)
		if g.err != nil {
			return refused, g.err
		}
	}
	if g.writes == 0 {
		return refused, nil
	}
	key := commitKey(g.seq)
	g.put(key, seal(key, encodeCommit(commitRecord{seq: g.seq, pending: g.base + g.pending})))
	if g.err != nil {
		return refused, g.err
	}
	if err := s.commitTxn(g.txn); err != nil {
		if errors.Is(err, badger.ErrTxnTooBig) {
			return refused, err
		}
		return refused, s.fail(fmt.Errorf("commit: %w", err))
	}
	// Badger does not sync the folder when it begins a new log (docs/badger.md, "Syncing").
	if err := s.dir.Sync(); err != nil {
		return refused, s.fail(fmt.Errorf("sync folder: %w", err))
	}
	if err := s.side.write(g.seq); err != nil {
		return refused, s.fail(err)
	}
	s.seq = g.seq
	s.pending.Add(g.pending)
	s.heads.inserted(g.queued)
	s.ended.inserted(g.ended)
	return refused, nil
}

// belowReserve reports whether requests that take in messages are to be refused. Not knowing the free space is
// treated as having none: a write to a full disk would kill the process.
func (s *Store) belowReserve(reqs []*request) bool {
	accepts := false
	for _, r := range reqs {
		accepts = accepts || r.accepts
	}
	if !accepts {
		return false
	}
	free, err := s.free(s.path)
	return err != nil || free < s.reserve
}

// fail ends the engine: after a failed sync nobody knows what is on disk, and a later sync that succeeds says nothing
// about the data of the failed one. It returns what callers get.
func (s *Store) fail(cause error) error {
	s.failure.Lock()
	defer s.failure.Unlock()
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", store.ErrBroken, cause)
		close(s.broken)
	}
	return s.err
}
