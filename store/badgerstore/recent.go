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
	readAhead    = 64       // messages that are read ahead at most
	readAheadMin = 4        // fewer are found as fast one by one
	skipAhead    = 4        // messages of others that are passed over rather than sought past
)

// recent keeps the records of messages that will be asked for soon: those just accepted, and those whose deliveries have
// just been given out. One by one they would be looked for in each table of the database; read ahead they are neighbours.
// What it holds is what the database holds: it follows each group, and forgets the older half when it is full.
type recent struct {
	mu         sync.Mutex // guards the fields below
	young, old map[store.MessageID][]byte
	size       int // bytes that were added to young
	previews   map[*preview]struct{}
}

// preview is one reading ahead. Its snapshot may be older than what recent knows of a message by its end.
type preview struct{ changed map[store.MessageID]bool }

// changedMessage is what a group has made of the record of a message; nil if it was deleted.
type changedMessage struct {
	id      store.MessageID
	content []byte
}

func newRecent() *recent {
	return &recent{young: make(map[store.MessageID][]byte), previews: make(map[*preview]struct{})}
}

// get returns the content of a record, which nobody changes, or nil.
func (r *recent) get(id store.MessageID) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if content, ok := r.young[id]; ok {
		return content
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
		r.addLocked(c.id, c.content)
		for p := range r.previews {
			p.changed[c.id] = true
		}
	}
}

func (r *recent) addLocked(id store.MessageID, content []byte) {
	if content == nil || len(content) > recentRecord {
		return
	}
	if r.size += len(content); r.size > recentSize {
		r.young, r.old, r.size = make(map[store.MessageID][]byte, len(r.young)), r.young, len(content)
	}
	r.young[id] = content
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
			r.addLocked(m.id, m.content)
		}
	}
}

// missing returns the messages of deliveries due at now that are not kept, in the order of their ids.
func (r *recent) missing(due []store.Delivery, now time.Time) []store.MessageID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []store.MessageID
	for _, d := range due[:min(len(due), readAhead)] {
		id := d.ID.Message()
		if d.DueAt.After(now) || r.young[id] != nil || r.old[id] != nil {
			continue
		}
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b store.MessageID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids)
}

// readAhead has the messages of what was given out at hand for Load. What cannot be read is left to that.
func (s *Store) readAhead(due []store.Delivery) {
	ids := s.recent.missing(due, s.now())
	if len(ids) < readAheadMin {
		return
	}
	var found []changedMessage
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
				found = append(found, changedMessage{id, content})
			}
		}
		return nil
	})
}

// kept returns a message whose record is kept, with its body, and false if Load has to read it.
func (s *Store) kept(id store.MessageID) (m store.Message, body []byte, ok bool) {
	content := s.recent.get(id)
	if content == nil {
		return store.Message{}, nil, false
	}
	stored, err := decodeMessage(id, content)
	if err != nil || stored.chunks > 0 || stored.batch != (store.MessageID{}) {
		return store.Message{}, nil, false // part of it stands elsewhere
	}
	return stored.Message, bytes.Clone(stored.body), true
}
