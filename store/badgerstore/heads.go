package badgerstore

import (
	"bytes"
	"sync"
)

// heads remembers where each queue begins, so that reading one from its start does not walk over the deletion marks
// of all that has left it (500,000 of them take half a second; docs/badger.md, "Scans"). A queue is named by the prefix of its
// keys. A head may be too early, never too late: no key of the queue that is committed and known to inserted lies
// before it.
type heads struct {
	prefixLen func(key []byte) int // of the name of the queue that key is in

	mu     sync.Mutex // guards the fields below
	queues map[string]*head
}

type head struct {
	first []byte // no key before it; nil means unknown
	walks map[*walk]struct{}
}

// walk is one reading of a queue from its head.
type walk struct {
	earliest []byte // of the keys inserted meanwhile; nil means none
}

func newHeads(prefixLen func(key []byte) int) *heads {
	return &heads{prefixLen: prefixLen, queues: make(map[string]*head)}
}

// begin starts a reading of a queue from the given key on, before its snapshot is taken, and returns where to seek
// instead; start says that nothing of the queue can lie before from. The walk is nil if the reading tells nothing
// about the head. Otherwise the caller ends it.
func (h *heads) begin(prefix, from []byte, start bool) (seek []byte, w *walk) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queues[string(prefix)]
	if q == nil {
		q = &head{walks: make(map[*walk]struct{})}
		h.queues[string(prefix)] = q
	}
	switch {
	case q.first == nil && !start, q.first != nil && bytes.Compare(from, q.first) > 0:
		return from, nil
	case q.first != nil:
		from = q.first
	}
	w = &walk{}
	q.walks[w] = struct{}{}
	return from, w
}

// end finishes a walk that found found to be the first key, or nil if the queue was empty to its end. A walk that
// did not get as far is ended with known false.
func (h *heads) end(prefix []byte, w *walk, found []byte, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queues[string(prefix)]
	delete(q.walks, w)
	if !known {
		return
	}
	if found == nil {
		found = append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, 8+16+1)...)
	}
	if w.earliest != nil && bytes.Compare(w.earliest, found) < 0 {
		found = w.earliest
	}
	if q.first == nil || bytes.Compare(q.first, found) < 0 {
		q.first = found
	}
}

// inserted tells of keys that have just become visible to new snapshots, before their writers are answered.
func (h *heads) inserted(keys [][]byte) {
	if len(keys) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		q := h.queues[string(key[:h.prefixLen(key)])]
		if q == nil {
			continue
		}
		if q.first != nil && bytes.Compare(key, q.first) < 0 {
			q.first = key
		}
		for w := range q.walks {
			if w.earliest == nil || bytes.Compare(key, w.earliest) < 0 {
				w.earliest = key
			}
		}
	}
}
