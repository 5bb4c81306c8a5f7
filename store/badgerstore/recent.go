package badgerstore

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

const (
	recentSize   = 2 << 20  // bytes of records in one of two generations
	recentRecord = 16 << 10 // bytes of the longest record that is kept
	readAhead    = 1 << 20  // bytes of records that are read ahead at once, about
	readAheadMin = 4        // fewer are found as fast one by one
	skipAhead    = 4        // messages of others that are passed over rather than sought past
)

// recent keeps the records of messages that will be asked for soon: those just accepted, and those whose deliveries have
// just been given out. One by one they would be looked for in each table of the database; read ahead they are neighbours.
// What it holds is what the database holds: it follows each group, and forgets the older half when it is full.
type recent struct {
	mu         sync.Mutex // guards the fields below
	young, old map[store.MessageID]changedMessage
	size       int // bytes that were added to young
	previews   map[*preview]struct{}
}

// preview is one reading ahead. Its snapshot may be older than what recent knows of a message by its end.
type preview struct{ changed map[store.MessageID]bool }

// changedMessage is the record of a message as a group has made it, or as it was read ahead.
type changedMessage struct {
	id      store.MessageID
	content []byte // nil if it was deleted; nobody changes it
	queued  bool   // one of its deliveries was in the queue: so the batch that it came with is decided
}

func newRecent() *recent {
	return &recent{young: make(map[store.MessageID]changedMessage), previews: make(map[*preview]struct{})}
}

// get returns what is kept of a message; its content is nil if that is nothing.
func (r *recent) get(id store.MessageID) changedMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m, ok := r.young[id]; ok {
		return m
	}
	return r.old[id]
}

// update takes in what a group has committed, before its writers are answered.
func (r *recent) update(changes []changedMessage) {
	if len(changes) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		delete(r.young, c.id)
		delete(r.old, c.id)
		r.addLocked(c)
		for p := range r.previews {
			p.changed[c.id] = true
		}
	}
}

func (r *recent) addLocked(m changedMessage) {
	if m.content == nil || len(m.content) > recentRecord {
		return
	}
	if r.size += len(m.content); r.size > recentSize {
		r.young, r.old, r.size = make(map[store.MessageID]changedMessage, len(r.young)), r.young, len(m.content)
	}
	r.young[m.id] = m
}

// begin begins a reading ahead, before its snapshot is taken. The caller ends it.
func (r *recent) begin() *preview {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &preview{changed: make(map[store.MessageID]bool)}
	r.previews[p] = struct{}{}
	return p
}

// end keeps what a reading ahead has found, but for what has changed meanwhile.
func (r *recent) end(p *preview, found []changedMessage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.previews, p)
	for _, m := range found {
		if !p.changed[m.id] {
			r.addLocked(m)
		}
	}
}

// missing returns the messages of deliveries due at now that are not kept, in the order of their ids. Of those that are kept
// it notes that they were in the queue.
func (r *recent) missing(due []store.Delivery, now time.Time) []store.MessageID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []store.MessageID
	for _, d := range due {
		id := d.ID.Message()
		if d.DueAt.After(now) {
			continue
		}
		if !queuedIn(r.young, id) && !queuedIn(r.old, id) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b store.MessageID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids)
}

// queuedIn notes that a message was in the queue, and reports whether it is kept in a generation.
func queuedIn(generation map[store.MessageID]changedMessage, id store.MessageID) bool {
	m, ok := generation[id]
	if ok && !m.queued {
		m.queued = true
		generation[id] = m
	}
	return ok
}

// readAhead has the messages of what was given out at hand for Load. What cannot be read is left to that.
func (s *Store) readAhead(due []store.Delivery) {
	ids := s.recent.missing(due, s.now())
	if len(ids) < readAheadMin {
		return
	}
	var found []changedMessage
	size := 0
	p := s.recent.begin()
	defer func() { s.recent.end(p, found) }()
	_ = s.db.View(func(txn *view) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false // values stand beside their keys anyway
		o.Prefix = []byte{kindMessage}
		it := txn.NewIterator(o)
		defer it.Close()
		it.Seek(messageKey(ids[0]))
		for _, id := range ids {
			key := messageKey(id)
			for range skipAhead {
				if !it.Valid() || bytes.Compare(it.Item().Key(), key) >= 0 {
					break
				}
				it.Next()
			}
			if it.Valid() && bytes.Compare(it.Item().Key(), key) < 0 {
				it.Seek(key)
			}
			if !it.Valid() {
				return nil
			}
			if !bytes.Equal(it.Item().Key(), key) || it.Item().ValueSize() > recentRecord {
				continue
			}
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			if content, err := txn.open(key, value); err == nil {
				found = append(found, changedMessage{id: id, content: content, queued: true})
				size += len(content)
			}
			if size > readAhead {
				return nil // more of them would push each other out before they are asked for
			}
		}
		return nil
	})
}

// kept returns a message whose record is kept, with its body, and false if Load has to read it.
func (s *Store) kept(id store.MessageID) (m store.Message, body []byte, ok bool) {
	recent := s.recent.get(id)
	if recent.content == nil {
		return store.Message{}, nil, false
	}
	stored, err := decodeMessage(id, recent.content)
	if err != nil || stored.chunks > 0 || stored.batch != (store.MessageID{}) && !recent.queued {
		return store.Message{}, nil, false // part of it stands elsewhere, or it is not accepted yet
	}
	return stored.Message, bytes.Clone(stored.body), true
}
