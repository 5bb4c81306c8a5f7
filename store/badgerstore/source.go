package badgerstore

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

const (
	// fewPending is up to how many pending deliveries are read from the queues for a list of them: some milliseconds.
	fewPending = 10_000
	// mostIndexes is how many indexes of destinations a list of pending deliveries merges.
	mostIndexes = 32
	// lastClass is the last of the classes.
	lastClass = store.ClassInterrupted
)

// choose opens the sources that a filter names.
func (l *listing) choose() error {
	f := l.filter
	if err := l.chooseState(); err != nil {
		return err
	}
	if f.Destination != "" {
		l.sources = append(l.sources, l.keys(destinationIndex(f.Destination)))
	}
	prefix := []byte{kindMessage}
	if f.Event != "" {
		prefix = eventIndex(f.Event)
	}
	switch {
	case len(l.sources) == 0:
		l.sources = []source{&recipients{list: l, messages: messages{keys: l.keys(prefix)}}}
	case f.Event != "":
		l.sources = append(l.sources, &messages{keys: l.keys(prefix)})
	}
	return nil
}

// chooseState opens the sources for the state and the class of a filter.
func (l *listing) chooseState() error {
	f := l.filter
	if (f.State == 0 || f.State == store.Delivered) && (f.Class == 0 || f.Class == store.ClassOK) {
		return nil // it is in no index
	}
	var either union
	known := true
	for _, state := range []store.State{store.Pending, store.Delivered, store.Failed, store.Canceled} {
		switch {
		case f.State != 0 && f.State != state:
		case state == store.Pending:
			some, ok, err := l.pending()
			if err != nil {
				return err
			}
			either, known = append(either, some...), known && ok
		case f.Class != 0:
			either = append(either, l.keys(stateIndex(state, f.Class)))
		default:
			for class := store.Class(0); class <= lastClass; class++ {
				either = append(either, l.keys(stateIndex(state, class)))
			}
		}
	}
	if known {
		l.sources = append(l.sources, either)
	}
	return nil
}

// pending returns sources that together have all pending deliveries that the filter can want, and false if they would
// be no help. The queue is in another order than lists are, so what it has is read whole if that is little. Else the
// entries of a destination with much pending are walked over: most of the latest are pending then. The index by state
// alone would not do, since it has none that were never attempted, and many marks of deletion.
func (l *listing) pending() (sources []source, known bool, err error) {
	counts, ok := l.store.backlog.all()
	if !ok {
		return nil, false, nil
	}
	if name := l.filter.Destination; name != "" {
		counts = map[string]int64{name: counts[name]}
	}
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[a], counts[b]), cmp.Compare(a, b))
	})
	var few idList
	for i, name := range names {
		if counts[name] == 0 {
			continue // perhaps no destination's name at all
		}
		if int64(len(few))+counts[name] <= fewPending {
			if few, err = l.queued(few, name); err != nil {
				return nil, false, err
			}
			continue
		}
		if l.filter.Class != 0 {
			return []source{l.keys(stateIndex(store.Pending, l.filter.Class))}, true, nil
		}
		if len(names)-i > mostIndexes {
			return nil, false, nil
		}
		sources = append(sources, l.keys(destinationIndex(name)))
	}
	if class := l.filter.Class; class != 0 {
		few = slices.DeleteFunc(few, func(id store.DeliveryID) bool {
			_, err := l.txn.Get(append(stateIndex(store.Pending, class), id[:]...))
			return errors.Is(err, badger.ErrKeyNotFound) // any other error shows when it is read
		})
	}
	slices.SortFunc(few, func(a, b store.DeliveryID) int { return bytes.Compare(b[:], a[:]) })
	return append(sources, few), true, nil
}

// queued adds the ids of the pending deliveries of a destination.
func (l *listing) queued(ids idList, destination string) (idList, error) {
	prefix := queuePrefix(destination)
	from, reading := l.store.heads.begin(prefix, prefix, false)
	if reading != nil {
		l.store.heads.end(prefix, reading, nil, false)
	}
	scanKeys(l.txn, prefix, from, func(key []byte) bool {
		ids = append(ids, store.DeliveryID(key[len(key)-16:]))
		return true
	})
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = destinationPrefix(kindWaiting, destination)
	it := l.txn.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		err := it.Item().Value(func(value []byte) error {
			content, err := l.txn.open(it.Item().Key(), value)
			if err == nil && len(content) < len(store.DeliveryID{}) {
				err = errBadKey
			}
			if err != nil {
				l.store.warnOnce(it.Item().Key(), err)
				return nil
			}
			ids = append(ids, store.DeliveryID(content))
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read %s: %w: %w", describe(it.Item().Key()), errDatabase, err)
		}
	}
	return ids, nil
}

// keys is the ids behind a prefix.
type keys struct {
	it     *badger.Iterator
	prefix []byte

	begun bool
	last  store.DeliveryID // where the iterator stands, if it is valid
}

func (l *listing) keys(prefix []byte) *keys {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Reverse = true
	o.Prefix = prefix
	it := l.txn.NewIterator(o)
	l.opened = append(l.opened, it)
	return &keys{it: it, prefix: prefix}
}

func (k *keys) seek(at store.DeliveryID) (store.DeliveryID, bool, error) {
	for tries := 0; ; tries++ {
		switch {
		case k.begun && !k.it.Valid(), k.begun && bytes.Compare(k.last[:], at[:]) <= 0:
			return k.last, k.it.Valid(), nil
		case k.begun && tries == 0:
			k.it.Next() // most often it is the next
		default:
			k.it.Seek(append(k.prefix[:len(k.prefix):len(k.prefix)], at[:]...))
			k.begun = true
		}
		if !k.it.Valid() {
			continue
		}
		key := k.it.Item().Key()
		if len(key) != len(k.prefix)+len(k.last) {
			return k.last, false, fmt.Errorf("read %s: %w", describe(key), errBadKey)
		}
		copy(k.last[:], key[len(k.prefix):])
	}
}

// messages is all ids that a delivery of some messages may have.
type messages struct{ *keys }

func (m *messages) seek(at store.DeliveryID) (store.DeliveryID, bool, error) {
	want := at.Message()
	id, ok, err := m.keys.seek(store.DeliveryID(want))
	if err != nil || !ok || id == store.DeliveryID(want) {
		return at, ok, err
	}
	return lastOf(store.MessageID(id)), true, nil
}

// lastOf returns the highest id that a delivery of a message can have.
func lastOf(id store.MessageID) store.DeliveryID { return id.Delivery(store.MaxDeliveries - 1) }

// recipients is the deliveries of some messages.
type recipients struct {
	messages
	list *listing
}

func (r *recipients) seek(at store.DeliveryID) (store.DeliveryID, bool, error) {
	for {
		if at.Index() < 0 { // the id of a message: its last delivery has been asked for
			lower, ok := below(at)
			if !ok {
				return at, false, nil
			}
			at = lower
		}
		id, ok, err := r.messages.seek(at)
		if err != nil || !ok {
			return id, ok, err
		}
		message := id.Message()
		err = r.list.load(message)
		switch {
		case errors.Is(err, errDatabase):
			return id, false, err
		case errors.Is(err, store.ErrNotFound): // of a batch that is not decided
		case err != nil:
			r.list.store.warnOnce(messageKey(message), err)
		default:
			if n := min(id.Index(), len(r.list.message.Recipients)-1); n >= 0 {
				return message.Delivery(n), true, nil
			}
		}
		// Nobody gets it.
		at = store.DeliveryID(message)
		if r.list.looks++; r.list.looks >= maxLooks {
			return at, true, nil
		}
	}
}

// union is what is in at least one of several sources.
type union []source

func (u union) seek(at store.DeliveryID) (highest store.DeliveryID, ok bool, err error) {
	for _, one := range u {
		id, found, err := one.seek(at)
		if err != nil {
			return id, false, err
		}
		if found && (!ok || bytes.Compare(highest[:], id[:]) < 0) {
			highest, ok = id, true
		}
	}
	return highest, ok, nil
}

// idList is ids from the highest to the lowest.
type idList []store.DeliveryID

func (l idList) seek(at store.DeliveryID) (store.DeliveryID, bool, error) {
	i := sort.Search(len(l), func(i int) bool { return bytes.Compare(l[i][:], at[:]) <= 0 })
	if i == len(l) {
		return at, false, nil
	}
	return l[i], true, nil
}

// timeSpan is a number of milliseconds, or as much of it as a Duration can hold.
func timeSpan(ms int64) time.Duration {
	return time.Duration(min(ms, int64(1<<62/time.Millisecond))) * time.Millisecond
}
