package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// request is one thing to be written. Callers prepare it; the committer stages it.
type request struct {
	size    int64 // bytes that stage may write, at most
	entries int64 // keys that stage may write, at most

	// stage checks whether the request may be written now, and writes it into the group. An error refuses this
	// request alone: then it has written nothing.
	stage func(*group) error

	// unfinished reports, when a group has been committed, whether stage has more to write. Then the next group is
	// this request's too, so that no other comes between. nil means that one group is enough. Such a request fills
	// its groups alone.
	unfinished func() bool

	// patient says that nobody is waiting for the end of this request: it may linger, so that more of its kind share a
	// sync.
	patient bool

	done chan error // receives once; has room for it
}

const (
	groupSize     = 1 << 20 // bytes of a commit group; Badger's own bound is 15 % of a memtable
	groupRequests = 1000
	entryOverhead = 64 // bytes that Badger counts for an entry beside key and value, generously; with lockedOverhead

	// A group of patient requests alone lingers until there are lingerTo of them, or for that time, if there are
	// lingerFrom to begin with: where that many come at once, more are about to.
	lingerFrom, lingerTo = 4, 64
	linger               = 5 * time.Millisecond

	// commitTimeout is how long a group may take until the disk counts as failed.
	commitTimeout = time.Minute
)

// group is a commit group while it is put together: one transaction, which costs one sync.
type group struct {
	txn     *view
	seq     uint64
	base    int64            // pending before the group
	pending int64            // change of the number of pending deliveries
	counts  map[string]int64 // the same, by destination
	skew    int64            // of the clock, in milliseconds (index.go)
	low     bool             // free disk is below the reserve: nothing is accepted
	short   bool             // free disk is below half of it: what can wait is not written
	none    bool             // free disk is below bottom: not even what makes room is written
	log     *zap.Logger

	queued   [][]byte         // q keys written
	messages []changedMessage // m keys written or deleted
	ended    [][]byte         // e keys written
	writes   int64
	size     int64 // of all writes, as cost counts it
	err      error // of Badger, while staging
}

// get returns the content under key as it will be after the group, and nil if there is none.
func (g *group) get(key []byte) ([]byte, error) { return get(g.txn, key) }

// put stages a value. What can go wrong is the group's business, not the request's.
func (g *group) put(key, value []byte) {
	if g.err != nil {
		return
	}
	if len(value)+lockedOverhead >= valueThreshold {
		g.err = fmt.Errorf("value of %d bytes: %w", len(value), store.ErrTooLarge)
		return
	}
	switch key[0] {
	case kindQueue:
		g.queued = append(g.queued, key)
	case kindEnded:
		g.ended = append(g.ended, key)
	case kindMessage:
		g.messages = append(g.messages, changedMessage{id: store.MessageID(key[1:]), content: value[1 : len(value)-crc32.Size]})
	}
	g.writes++
	g.size += int64(len(key)+len(value)) + entryOverhead
	g.err = g.txn.put(key, value)
}

// set stages content under a key.
func (g *group) set(key []byte, content ...[]byte) { g.put(key, seal(key, content...)) }

// fail gives the group up for an error of the database.
func (g *group) fail(err error) {
	if g.err == nil {
		g.err = err
	}
}

// count notes that n more deliveries of a destination are pending.
func (g *group) count(destination string, n int64) {
	g.pending += n
	if g.counts == nil {
		g.counts = make(map[string]int64)
	}
	g.counts[destination] += n
}

// remove stages a deletion.
func (g *group) remove(key []byte) {
	if g.err != nil {
		return
	}
	if key[0] == kindMessage {
		g.messages = append(g.messages, changedMessage{id: store.MessageID(key[1:])})
	}
	g.writes++
	g.size += int64(len(key)) + entryOverhead
	g.err = g.txn.Delete(key)
}

// removeAll stages deletions.
func (g *group) removeAll(keys [][]byte) {
	for _, key := range keys {
		g.remove(key)
	}
}

// submit hands r to the committer and waits for its end, or for that of ctx; then r may be written all the same.
// The caller holds s.use.
func (s *Store) submit(ctx context.Context, r *request) error {
	err, answered := s.hand(ctx.Done(), r)
	if !answered {
		return ctx.Err()
	}
	return err
}

// submitAlways is submit for what no caller's end may stop. A commit that hangs ends it, see commitTimeout.
func (s *Store) submitAlways(r *request) error {
	err, _ := s.hand(nil, r)
	return err
}

// hand gives r to the committer and waits for the answer. It returns false if gone is closed before.
func (s *Store) hand(gone <-chan struct{}, r *request) (err error, answered bool) {
	r.done = make(chan error, 1)
	select {
	case s.requests <- r:
	case <-s.broken:
		return s.Err(), true
	case <-gone:
		return nil, false
	}
	select {
	case err := <-r.done:
		return err, true
	case <-s.broken:
		return s.Err(), true
	case <-gone:
		return nil, false
	}
}

// commitLoop is the committer: the only writer. It takes what is waiting, commits it as one group, and answers. A lone
// request is committed at once, and while a group is synced the next one gathers.
func (s *Store) commitLoop() {
	timer := time.NewTimer(linger)
	defer timer.Stop()
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
		g := &gathering{store: s, reqs: []*request{first}, size: first.size, entries: first.entries, patient: first.patient}
		// Those answered by the last group are runnable and about to ask again; let them join this one.
		runtime.Gosched()
		g.takeAll()
		g.lingerOn(timer)
		held = g.held
		s.commit(g.reqs)
	}
}

// gathering is what the next commit group will be made of.
type gathering struct {
	store         *Store
	reqs          []*request
	size, entries int64    // of reqs
	patient       bool     // all of reqs are
	full          bool     // nothing more goes in, or nothing more comes
	held          *request // did not go in
}

// take adds a request; ok is false when none will come any more.
func (g *gathering) take(r *request, ok bool) {
	switch {
	case !ok:
		g.full = true
	case g.size+r.size > g.store.maxGroupSize || g.entries+r.entries > g.store.maxGroupEntries:
		g.held, g.full = r, true
	default:
		g.reqs = append(g.reqs, r)
		g.size, g.entries = g.size+r.size, g.entries+r.entries
		g.patient = g.patient && r.patient
		g.full = len(g.reqs) >= groupRequests
	}
}

// takeAll adds what is waiting now.
func (g *gathering) takeAll() {
	for !g.full {
		select {
		case r, ok := <-g.store.requests:
			g.take(r, ok)
		default:
			return
		}
	}
}

// lingerOn waits for more while nobody is waiting for what there is.
func (g *gathering) lingerOn(timer *time.Timer) {
	if !g.patient || len(g.reqs) < lingerFrom {
		return
	}
	timer.Reset(linger)
	for !g.full && g.patient && len(g.reqs) < lingerTo {
		select {
		case r, ok := <-g.store.requests:
			g.take(r, ok)
		case <-timer.C:
			return
		}
	}
	g.takeAll()
}

// commit writes reqs as one group and answers them.
func (s *Store) commit(reqs []*request) {
	errs, err := s.tryCommit(reqs)
	for len(reqs) == 1 && err == nil && errs[0] == nil && reqs[0].unfinished != nil && reqs[0].unfinished() {
		if errs, err = s.tryCommit(reqs); err == nil {
			err = errs[0]
		}
		if err != nil {
			// Half of what others must see whole or not at all has been written. The next start goes on with it.
			err = s.fail(err)
		}
	}
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
	// Before anything that asks the system: even a look at the free space hangs where the disk is one of the network.
	watchdog := time.AfterFunc(commitTimeout, func() {
		_ = s.fail(fmt.Errorf("commit: not done after %s", commitTimeout))
	})
	defer watchdog.Stop()
	g := &group{txn: s.db.begin(), seq: s.seq + 1, base: s.pending.Load(), skew: s.skew.Load(), log: s.log}
	defer g.txn.Discard()
	free := s.look()
	g.low, g.short, g.none = free < s.reserve, free < s.reserve/2, free < bottom
	for i, r := range reqs {
		refused[i] = r.stage(g)
		if g.err != nil {
			return refused, g.err
		}
	}
	if g.writes == 0 {
		return refused, nil
	}
	begun := time.Now()
	key := commitKey(g.seq)
	g.put(key, seal(key, encodeCommit(commitRecord{seq: g.seq, pending: g.base + g.pending})))
	if g.err != nil {
		return refused, g.err
	}
	if err := s.commitTxn(g.txn.Txn); err != nil {
		if errors.Is(err, badger.ErrTxnTooBig) {
			return refused, err
		}
		return refused, s.fail(fmt.Errorf("commit: %w", err))
	}
	if err := s.syncFolder(); err != nil {
		return refused, s.fail(fmt.Errorf("sync folder: %w", err))
	}
	if err := s.side.write(g.seq); err != nil {
		return refused, s.fail(err)
	}
	s.metrics.committed(len(reqs), begun)
	s.seq = g.seq
	s.pending.Add(g.pending)
	s.backlog.add(g.counts)
	s.skew.Store(g.skew)
	s.recent.update(g.messages)
	s.heads.inserted(g.queued)
	s.ended.inserted(g.ended)
	return refused, nil
}

// stampAge is how old the time of a folder's latest change has to be so that the next one has another: file systems take it
// from a clock that ticks every few milliseconds.
const stampAge = 100 * time.Millisecond

// syncFolder syncs the entries of new files, which Badger does not when it begins a new log (docs/badger.md, "Syncing").
// A folder in which nothing has come or gone since is left alone: that is another flush of the disk for each group.
func (s *Store) syncFolder() error {
	info, err := s.dir.Stat()
	if err != nil {
		return err
	}
	changed := info.ModTime()
	if changed.Equal(s.folderSynced) {
		return nil
	}
	settled := time.Since(changed) > stampAge
	if err := s.dir.Sync(); err != nil {
		return err
	}
	if settled {
		s.folderSynced = changed
	}
	return nil
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
