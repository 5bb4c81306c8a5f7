package badgerstore

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/postern-relay/postern/store"
)

// The indexes are written in the same transaction as what they point to. Accepting a message writes an entry for each
// delivery and one for its event; an entry by state and class comes with the first attempt that fails, or another end
// than the usual, and moves with the delivery. Those that are pending and were never attempted are found by the queue.
// What was delivered has no entry, since it is most of all: it is found by walking over what there is, which takes long
// only where nearly everything fails.

// reindex moves the entry by state and class of a delivery that goes from one state to another.
func (g *group) reindex(from, to store.Delivery) {
	was, is := stateIndexKey(from), stateIndexKey(to)
	if string(was) == string(is) {
		return
	}
	if was != nil {
		g.remove(was)
	}
	if is != nil {
		g.put(is, nil)
	}
}

// Lists are in the order of ids, which hold the time at which they were made. A search by time of acceptance begins
// and ends by them, and therefore has to know how far the two are apart at most: usually by nothing, but a clock may be
// set, and a message may come with a time of its own. This is the skew. It only grows, by doubling.

// leastSkew is the skew of a new store.
const leastSkew = 100 * time.Millisecond

// noteSkew takes in how far the times of a message are apart.
func (g *group) noteSkew(m store.Message) {
	skew := idTime(store.DeliveryID(m.ID)).Sub(m.AcceptedAt).Abs().Milliseconds()
	if skew <= g.skew {
		return
	}
	for g.skew < skew {
		g.skew *= 2
	}
	g.set([]byte{kindSkew}, binary.BigEndian.AppendUint64(nil, uint64(g.skew)))
}

// readSkew returns the skew in milliseconds.
func readSkew(db *database) (skew int64, err error) {
	err = db.View(func(txn *view) error {
		content, err := get(txn, []byte{kindSkew})
		switch {
		case err != nil:
			return err
		case content == nil:
			skew = leastSkew.Milliseconds()
			return nil
		case len(content) != 8:
			return errors.New("read note of the clock: wrong size")
		}
		skew = int64(binary.BigEndian.Uint64(content))
		if skew < leastSkew.Milliseconds() {
			return errors.New("read note of the clock: out of range")
		}
		return nil
	})
	return skew, err
}

// idTime returns when an id was made (RFC 9562, section 5.7).
func idTime(id store.DeliveryID) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// idsOf returns the first and the last id that can have been made in the millisecond of t.
func idsOf(t time.Time) (first, last store.DeliveryID) {
	const most = 1<<48 - 1
	ms := uint64(min(max(t.UnixMilli(), 0), most))
	binary.BigEndian.PutUint64(first[:8], ms<<16)
	last = first
	for i := 6; i < len(last); i++ {
		last[i] = 0xff
	}
	return first, last
}
