package lane

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func TestJustBefore(t *testing.T) {
	id := func(first, last byte) (id store.DeliveryID) {
		id[0], id[15] = first, last
		return id
	}
	var highest store.DeliveryID
	for i := range highest {
		highest[i] = 0xff
	}
	borrowed := id(1, 0xff)
	for i := 1; i < 15; i++ {
		borrowed[i] = 0xff
	}
	borrowed[0] = 0
	for _, tt := range []struct {
		name    string
		c, want store.Cursor
	}{
		{"the id counts down", store.Cursor{DueAt: epoch, ID: id(1, 2)}, store.Cursor{DueAt: epoch, ID: id(1, 1)}},
		{"the id borrows", store.Cursor{DueAt: epoch, ID: id(1, 0)}, store.Cursor{DueAt: epoch, ID: borrowed}},
		{"no id borrows from the time", store.Cursor{DueAt: epoch}, store.Cursor{DueAt: epoch.Add(-time.Millisecond), ID: highest}},
		{"nothing is before the beginning", store.Cursor{}, store.Cursor{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := justBefore(tt.c); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWakesAreJoined(t *testing.T) {
	at := func(ms int) store.Cursor { return store.Cursor{DueAt: epoch.Add(time.Duration(ms) * time.Millisecond)} }
	var l Lane
	for _, ms := range []int{5, 3, 9, 4} {
		l.Wake(at(ms))
	}
	if l.woken == nil || l.woken.lo != at(3) || l.woken.hi != at(9) {
		t.Errorf("got wakes joined to %v, want %v to %v", l.woken, at(3), at(9))
	}
}

func TestAReplayThatCameBetweenRecordAndLandingReplacesTheRetry(t *testing.T) {
	w := newWindow(2)
	d := pending(0)
	w.read([]store.Delivery{d}, 2)
	f, ok := w.take(d.DueAt)
	if !ok {
		t.Fatal("nothing to take")
	}
	retry := next(d, store.Attempt{Class: store.ClassTLS}, schedule(t, 0, 0, 0, time.Minute), epoch, 0, 0)
	replay := retry
	replay.Round, replay.DueAt = 2, epoch.Add(time.Hour)
	w.wake(replay.Cursor(), replay.Cursor())
	w.read([]store.Delivery{replay}, gapPage)

	w.land(f, retry, true)
	if got, ok := w.take(retry.DueAt); ok {
		t.Errorf("took %+v, which the replay has replaced", got.before)
	}
	if _, _, ok := w.wants(0); !ok {
		t.Error("got nothing to read, want the replay")
	}
}

// model drives a window and a plain map, which plays the store, by the same steps.
type model struct {
	t      *testing.T
	w      *window
	stored map[store.DeliveryID]store.Delivery
	quiet  map[store.DeliveryID]bool // stored, and the window has not been woken yet
	landed []*flight                 // taken, in the order of taking
	now    time.Time
	serial uint16
}

func (m *model) after(c store.Cursor, limit int) []store.Delivery {
	var ds []store.Delivery
	for _, d := range m.stored {
		if d.State == store.Pending && c.Less(d.Cursor()) {
			ds = append(ds, d)
		}
	}
	slices.SortFunc(ds, func(a, b store.Delivery) int {
		if a.Cursor().Less(b.Cursor()) {
			return -1
		}
		return 1
	})
	return ds[:min(limit, len(ds))]
}

func (m *model) fill() {
	for range 1000 {
		after, limit, ok := m.w.wants(m.now.Sub(epoch))
		if !ok {
			return
		}
		m.w.read(m.after(after, limit), limit)
	}
	m.t.Fatal("the window never stops reading")
}

// step does what the next bytes of the script say.
func (m *model) step(op, x byte) {
	switch op % 8 {
	case 0, 1: // a message is stored, some time ago or for later
		m.serial++
		id := store.DeliveryID{0: byte(m.serial >> 8), 1: byte(m.serial), 15: 1}
		m.stored[id] = store.Delivery{ID: id, State: store.Pending, Round: 1, DueAt: m.now.Add(time.Duration(int(x)-64) * time.Millisecond)}
		m.quiet[id] = true
	case 2: // what was stored is told, all at once
		for id := range m.quiet {
			m.w.wake(m.stored[id].Cursor(), m.stored[id].Cursor())
		}
		clear(m.quiet)
		m.fill()
	case 3: // time goes by
		m.now = m.now.Add(time.Duration(x%32) * time.Millisecond)
		if x >= 0xe0 {
			m.w.fit(m.now.Sub(epoch))
		}
	case 4: // something is taken
		m.fill()
		if f, ok := m.w.take(m.now); ok {
			for _, d := range m.stored {
				if !d.State.Ended() && !m.quiet[d.ID] && m.w.flying[d.ID] == nil && d.Cursor().Less(f.before.Cursor()) {
					m.t.Fatalf("took %v before %v", f.before, d)
				}
			}
			m.landed = append(m.landed, f)
		}
	case 5: // an attempt ends: with success, or to be made again
		if len(m.landed) == 0 {
			return
		}
		i := int(x) % len(m.landed)
		f := m.landed[i]
		m.landed = slices.Delete(m.landed, i, i+1)
		after := f.before
		after.Made++
		if x%3 == 0 {
			after.State, after.DueAt = store.Delivered, time.Time{}
		} else {
			after.DueAt = m.now.Add(time.Duration(x) * time.Millisecond)
		}
		recorded := m.stored[f.before.ID] == f.before
		if recorded {
			m.stored[f.before.ID] = after
		}
		if x%2 == 0 && m.w.gap.open {
			m.fill() // between the record and the landing
		}
		m.w.land(f, after, recorded)
	case 6: // somebody replays what is waiting or in flight
		for _, d := range m.stored {
			if !d.State.Ended() {
				m.w.wake(d.Cursor(), d.Cursor()) // where it is no more
			}
			d.Round, d.State, d.DueAt = d.Round+1, store.Pending, m.now.Add(time.Duration(x)*time.Millisecond)
			m.stored[d.ID] = d
			m.w.wake(d.Cursor(), d.Cursor())
			break
		}
		m.fill()
	case 7: // somebody cancels what is waiting or in flight
		for id, d := range m.stored {
			c := d.Cursor()
			if d.State.Ended() {
				continue
			}
			d.State, d.DueAt = store.Canceled, time.Time{}
			m.stored[id] = d
			delete(m.quiet, id)
			m.w.wake(c, c)
			m.fill()
			if _, ok := m.w.waiting[id]; ok {
				m.t.Fatalf("%v waits though it has been canceled", d)
			}
			break
		}
	}
	m.check()
}

// check compares the window with what it promises.
func (m *model) check() {
	w := m.w
	if len(w.items) > w.size || len(w.items) != len(w.waiting) {
		m.t.Fatalf("got %d waiting and %d places of them, want the same and at most %d", len(w.items), len(w.waiting), w.size)
	}
	for i, d := range w.items {
		c := d.Cursor()
		if i > 0 && !w.items[i-1].Cursor().Less(c) {
			m.t.Fatalf("items %d and %d are out of order", i-1, i)
		}
		if w.waiting[d.ID] != c || w.flying[d.ID] != nil || !w.knows(c) {
			m.t.Fatalf("%v is in flight, behind the horizon, or not where it should be", d)
		}
	}
	for id, d := range m.stored {
		c := d.Cursor()
		if d.State.Ended() || m.quiet[id] || !w.knows(c) || w.flying[id] != nil {
			continue
		}
		if w.gap.open && w.gap.lo.Less(c) && !w.gap.hi.Less(c) {
			continue
		}
		if got, ok := w.waiting[id]; !ok || got != c {
			m.t.Fatalf("%v is forgotten", d)
		}
	}
}

func newModel(t *testing.T, size int) *model {
	return &model{
		t: t, w: newWindow(size), now: epoch,
		stored: make(map[store.DeliveryID]store.Delivery), quiet: make(map[store.DeliveryID]bool),
	}
}

func TestWindowKeepsItsPromise(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := newModel(t, 1+rng.IntN(12))
		for range 300 {
			m.step(byte(rng.IntN(256)), byte(rng.IntN(256)))
		}
	}
}

func FuzzWindow(f *testing.F) {
	f.Add([]byte{3, 0, 10, 0, 20, 2, 0, 4, 0, 5, 1, 3, 31, 4, 0, 6, 9, 5, 3})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) < 3 || len(script) > 2000 {
			return
		}
		m := newModel(t, 1+int(script[0])%12)
		for i := 1; i+1 < len(script); i += 2 {
			m.step(script[i], script[i+1])
		}
	})
}
