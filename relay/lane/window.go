package lane

import (
	"slices"
	"time"

	"github.com/postern-relay/postern/store"
)

// How many deliveries a window holds: what a lane takes in spanAhead, but at least four for each attempt that may be in
// flight, and at most mostWaiting. To read a few of them from the store takes about as long as to read hundreds.
const (
	minWindow   = 64
	mostWaiting = 512
	spanAhead   = 200 * time.Millisecond
)

// gapPage is how many deliveries are read at once to close a gap. It is small, because behind the one or two new
// deliveries there may be nothing but retries that are known already.
const gapPage = 32

// forever lies behind every due time.
var forever = time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC)

// window is what a lane knows of its queue: the earliest deliveries, and those in flight. The rest stays in the
// store, so that memory does not grow with the backlog.
//
// What it promises, between any two calls: each pending delivery at or before the horizon is waiting, in flight,
// inside the gap, or set aside; what is behind the horizon only the store knows.
//
//	queue  ──┬────────────┬──────────┬─────────────┬──────────────────►
//	         │  waiting   │   gap    │   waiting   │   in the store only
//	         └────────────┴──────────┴─────────────┴
//	                   gap.lo     gap.hi        horizon
//
// The gap exists because deliveries do not become visible in queue order: an accept that commits late may lie
// before others that have been read already. Each accept therefore wakes the lane with its own place, and what lies
// between the first and the last of these places is read again.
type window struct {
	least   int                                 // for size
	size    int                                 // most deliveries waiting
	taken   int                                 // since fitted
	fitted  time.Duration                       // when size was set, since the beginning of Run
	items   []store.Delivery                    // waiting, in queue order
	waiting map[store.DeliveryID]store.Cursor   // where in items
	flying  map[store.DeliveryID]*flight        // taken, and not landed
	aside   map[store.DeliveryID]store.Delivery // not to be taken again as they are
	horizon store.Cursor                        // see above
	all     bool                                // the horizon is behind everything
	gap     span                                // to be read again
}

// flight is a delivery whose attempt is being made or recorded.
type flight struct {
	before   store.Delivery // as it was taken
	settings *Lane          // by which the attempt is made
	seq      uint64         // number of the attempt in this run
	probe    time.Duration  // to the next probe if this is one, else 0
	due      time.Time      // there is no attempt, and the delivery becomes due at this time; zero for an attempt

	// seen is the delivery as the store last gave it out during the flight; its ID is zero if it did not. It is
	// older or newer than the record of this attempt, which nobody can tell before the flight has landed.
	seen store.Delivery
}

// span is a part of the queue: behind lo, up to hi and including it.
type span struct {
	open   bool
	lo, hi store.Cursor
}

func newWindow(size int) *window {
	return &window{
		least:   size,
		size:    size,
		waiting: make(map[store.DeliveryID]store.Cursor),
		flying:  make(map[store.DeliveryID]*flight),
		aside:   make(map[store.DeliveryID]store.Delivery),
	}
}

// knows reports whether c is at or before the horizon.
func (w *window) knows(c store.Cursor) bool { return w.all || !w.horizon.Less(c) }

// wake says that something may have appeared in the queue at the places from first to last.
func (w *window) wake(first, last store.Cursor) {
	if !w.knows(first) {
		return // it will be read when the horizon gets there
	}
	lo := justBefore(first)
	if w.gap.open {
		if w.gap.lo.Less(lo) {
			lo = w.gap.lo
		}
		if last.Less(w.gap.hi) {
			last = w.gap.hi
		}
	}
	w.gap = span{open: true, lo: lo, hi: last}
}

// wants says what to read from the store, if anything: first the gap, then what follows when half of the window has
// been used up. at counts from the beginning of Run.
func (w *window) wants(at time.Duration) (after store.Cursor, limit int, ok bool) {
	switch {
	case w.gap.open:
		return w.gap.lo, gapPage, true
	case !w.all && len(w.items) <= w.size/2:
		w.fit(at)
		return w.horizon, w.size - len(w.items), len(w.items) <= w.size/2
	}
	return store.Cursor{}, 0, false
}

// fit makes the size follow the pace since the last time.
func (w *window) fit(at time.Duration) {
	pace := float64(w.taken) * float64(spanAhead) / float64(max(at-w.fitted, time.Microsecond))
	w.size = max(w.least, int(min(pace, mostWaiting)))
	w.taken, w.fitted = 0, at
	w.trim()
}

// read takes what the store has for the place and limit that wants returned. The store must have been asked after
// the last land and wake, by the caller of these: then nothing that has landed can come back as it was before.
func (w *window) read(found []store.Delivery, limit int) {
	more := len(found) >= limit
	if w.gap.open {
		w.drop(w.gap.lo, found, more)
	}
	switch {
	case w.gap.open && more && found[len(found)-1].Cursor().Less(w.gap.hi):
		w.gap.lo = found[len(found)-1].Cursor()
	case w.gap.open:
		w.gap.open = false
	case more:
		w.horizon = found[len(found)-1].Cursor()
	default:
		w.all = true
	}
	for _, d := range found {
		w.merge(d)
	}
	w.trim()
}

// drop forgets what is waiting and not among what the store has behind lo: it has been canceled, for example, and
// whoever did that has woken the lane. found is all that there is, unless there is more behind it.
func (w *window) drop(lo store.Cursor, found []store.Delivery, more bool) {
	there := make(map[store.DeliveryID]bool, len(found))
	for _, d := range found {
		there[d.ID] = true
	}
	w.items = slices.DeleteFunc(w.items, func(d store.Delivery) bool {
		c := d.Cursor()
		if !lo.Less(c) || more && found[len(found)-1].Cursor().Less(c) || there[d.ID] {
			return false
		}
		delete(w.waiting, d.ID)
		return true
	})
}

func (w *window) merge(d store.Delivery) {
	c := d.Cursor()
	if f, ok := w.flying[d.ID]; ok {
		f.seen = d
		return
	}
	if old, ok := w.aside[d.ID]; ok {
		if same(old, d) {
			return
		}
		delete(w.aside, d.ID)
	}
	if old, ok := w.waiting[d.ID]; ok { // the store's is the same or a newer version
		if !old.Less(c) && !c.Less(old) {
			w.items[w.place(c)] = d
			return
		}
		w.remove(old)
	}
	if w.knows(c) {
		w.insert(d)
	}
}

// take removes the first delivery that is due at now and marks it as in flight.
func (w *window) take(now time.Time) (*flight, bool) {
	if len(w.items) == 0 || w.items[0].DueAt.After(now) {
		return nil, false
	}
	f := &flight{before: w.items[0]}
	w.items[0] = store.Delivery{}
	w.items = w.items[1:]
	w.taken++
	delete(w.waiting, f.before.ID)
	w.flying[f.before.ID] = f
	return f, true
}

// lift marks a delivery as in flight that the store has just given out, wherever it stands, and returns false if it is in
// flight already or set aside.
func (w *window) lift(d store.Delivery) (*flight, bool) {
	_, flying := w.flying[d.ID]
	if _, aside := w.aside[d.ID]; flying || aside {
		return nil, false
	}
	if at, ok := w.waiting[d.ID]; ok {
		w.remove(at)
	}
	f := &flight{before: d}
	w.flying[d.ID] = f
	return f, true
}

// land ends a flight. after is the delivery with the attempt's outcome; recorded says whether the store has taken
// it, and is false if the delivery had changed meanwhile.
func (w *window) land(f *flight, after store.Delivery, recorded bool) {
	delete(w.flying, f.before.ID)
	changed := f.seen.ID != (store.DeliveryID{}) && !same(f.seen, f.before) && !(recorded && same(f.seen, after))
	if changed { // by somebody else, a replay for example, and its wake has come and gone
		w.wake(f.seen.Cursor(), f.seen.Cursor())
	}
	switch c := after.Cursor(); {
	case after.State.Ended():
	case !recorded || changed:
		// Perhaps it is there all the same: the record may have been made by a try that ended with an error, or after
		// somebody else had only made the delivery due at another time.
		w.wake(c, c)
	case w.knows(c):
		w.insert(after)
		w.trim()
	}
}

// setAside ends a flight whose outcome can never be on record. The delivery is not taken again unless somebody else
// changes it, since its attempt would be made again and again.
func (w *window) setAside(f *flight) {
	delete(w.flying, f.before.ID)
	w.aside[f.before.ID] = f.before
	if f.seen.ID != (store.DeliveryID{}) && !same(f.seen, f.before) {
		w.wake(f.seen.Cursor(), f.seen.Cursor())
	}
}

// due returns how many of those waiting are due at now.
func (w *window) due(now time.Time) int {
	n, _ := slices.BinarySearchFunc(w.items, now, func(d store.Delivery, now time.Time) int {
		if d.DueAt.After(now) {
			return 1
		}
		return -1
	})
	return n
}

func (w *window) insert(d store.Delivery) {
	c := d.Cursor()
	w.waiting[d.ID] = c
	if n := len(w.items); n == 0 || w.items[n-1].Cursor().Less(c) { // the common case
		w.items = append(w.items, d)
		return
	}
	w.items = slices.Insert(w.items, w.place(c), d)
}

func (w *window) remove(c store.Cursor) {
	i := w.place(c)
	delete(w.waiting, w.items[i].ID)
	w.items = slices.Delete(w.items, i, i+1)
}

// place returns the index in items of the first delivery that is not before c.
func (w *window) place(c store.Cursor) int {
	i, _ := slices.BinarySearchFunc(w.items, c, func(d store.Delivery, c store.Cursor) int {
		if d.Cursor().Less(c) {
			return -1
		}
		return 1
	})
	return i
}

// trim forgets what the window is too small for, and moves the horizon to the last delivery that it keeps.
func (w *window) trim() {
	if len(w.items) > w.size {
		for _, d := range w.items[w.size:] {
			delete(w.waiting, d.ID)
		}
		clear(w.items[w.size:])
		w.items = w.items[:w.size]
		w.horizon, w.all = w.items[w.size-1].Cursor(), false
	}
	if w.gap.open && !w.all && !w.gap.lo.Less(w.horizon) {
		w.gap.open = false
	}
}

// same reports whether a and b, of one id, are the same version of the delivery.
func same(a, b store.Delivery) bool {
	return a.State == b.State && a.Round == b.Round && a.Made == b.Made && a.DueAt.Equal(b.DueAt)
}

// justBefore returns the place directly before c.
func justBefore(c store.Cursor) store.Cursor {
	if c.DueAt.IsZero() {
		return store.Cursor{}
	}
	for i := len(c.ID) - 1; i >= 0; i-- {
		c.ID[i]--
		if c.ID[i] != 0xff { // no borrow
			return c
		}
	}
	c.DueAt = c.DueAt.Add(-time.Millisecond)
	return c
}
