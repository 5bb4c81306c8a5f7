package storetest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// Walks are several walks at the same time on one engine, each with destinations, messages and keys of its own and a
// Memory to compare with; see Model. They also set the clock back and forth by years, use the vault, import and export,
// and at the end of each round they sweep and compare what is of all of them.
type Walks struct {
	Seed    uint64
	Walkers int // at the same time, 1 to 255
	Rounds  int
	Steps   int // of each walker in a round

	// Reopen returns an engine with what s had stored, at the end of each round. It may call meanwhile, once, which begins
	// a change by each walker and returns while they are under way: the engine it returns then has what s had at any moment
	// after that, as after a kill. Each of these changes has to be there whole or not at all, and those that had ended
	// before meanwhile returned have to be there.
	Reopen func(s store.Store, meanwhile func()) store.Store
}

// WalkCounts are what Walks have done.
type WalkCounts struct {
	Steps, Messages int
	InFlight, Kept  int // changes under way at a kill, and those of them that were there afterwards
}

// Walk takes the steps. The engine's MaxPending must be more than they reach.
func (o Walks) Walk(t *testing.T, s store.Store) (counts WalkCounts) {
	t.Helper()
	walkers := make([]*walker, o.Walkers)
	for n := range walkers {
		w := &walker{
			TB: t, random: rand.New(rand.NewPCG(o.Seed, uint64(n+1))), engine: s, memory: NewMemory(MemoryOptions{MaxPending: 1 << 40}),
			now: start, number: byte(n + 1),
		}
		for _, name := range modelDestinations {
			w.names = append(w.names, fmt.Sprintf("w%d.%s", n+1, name))
		}
		walkers[n] = w
	}
	all := allWalkers{walkers, rand.New(rand.NewPCG(o.Seed, 0))}
	for round := range o.Rounds {
		all.together(func(w *walker) {
			for step := 0; step < o.Steps && !t.Failed(); step++ {
				w.step()
			}
		})
		counts.Steps += o.Walkers * o.Steps
		if !t.Failed() {
			all.sweep()
			all.totals()
		}
		if t.Failed() {
			t.Fatalf("seed %d differs in round %d", o.Seed, round)
		}
		all.reopen(o.Reopen, &counts)
		all.totals()
		if t.Failed() {
			t.Fatalf("seed %d differs after the reopening that ends round %d", o.Seed, round)
		}
	}
	all.together(func(w *walker) {
		for range 20 {
			w.list()
		}
	})
	for _, w := range walkers {
		counts.Messages += len(w.ids)
	}
	return counts
}

// step takes one step that touches nothing of others.
func (w *walker) step() {
	w.now = w.now.Add(time.Duration(w.random.IntN(5000)) * time.Millisecond)
	switch n := w.random.IntN(100); {
	case n < 22:
		w.accept()
	case n < 26:
		w.acceptAll()
	case n < 53:
		w.record()
	case n < 67:
		w.steer()
	case n < 71:
		w.release()
	case n < 73:
		w.pause()
	case n < 75:
		w.outage()
	case n < 79:
		w.vault()
	case n < 84:
		w.due()
	case n < 90:
		w.history()
	case n < 96:
		w.list()
	case n < 98:
		w.imports()
	default:
		w.setClock()
	}
}

// setClock sets the clock by up to ten years, back or forward, and now and then to where a machine without one begins.
func (w *walker) setClock() {
	if w.random.IntN(4) == 0 {
		w.now = time.Unix(w.random.Int64N(100), 0).UTC()
		return
	}
	w.now = start.Add(time.Duration(w.random.Int64N(int64(20*365*24*time.Hour))) - 10*365*24*time.Hour).Truncate(time.Millisecond)
}

// vault keeps, discards or looks up an item.
func (w *walker) vault() {
	w.Helper()
	names := []string{"a", "a/b", "a/c", "ab", "d/e/f"}
	name := fmt.Sprintf("w%d/%s", w.number, names[w.random.IntN(len(names))])
	switch w.random.IntN(4) {
	case 0, 1:
		value := bytes.Repeat([]byte{byte(w.random.IntN(256))}, []int{0, 10, 70_000, store.MaxItem + 1}[w.random.IntN(4)])
		w.same("Keep", nil, nil, w.engine.Keep(w.Context(), name, value), w.memory.Keep(w.Context(), name, value))
	case 2:
		w.same("Discard", nil, nil, w.engine.Discard(w.Context(), name), w.memory.Discard(w.Context(), name))
	}
	kept := func(s store.Store) ([]string, error) {
		items, err := s.KeptBelow(w.Context(), fmt.Sprintf("w%d", w.number))
		var all []string
		for _, item := range items {
			one, loadErr := s.Kept(w.Context(), item.Name)
			all, err = append(all, fmt.Sprintf("%s %d %x", one.Name, one.Size, one.Value)), errors.Join(err, loadErr)
		}
		return all, err
	}
	got, gotErr := kept(w.engine)
	want, wantErr := kept(w.memory)
	w.same("vault", got, want, gotErr, wantErr)
}

// imports takes in messages that another store has, some of whose keys and lines are those of this one.
func (w *walker) imports() {
	w.Helper()
	other := &walker{
		TB: w.TB, random: w.random, engine: NewMemory(MemoryOptions{}), memory: NewMemory(MemoryOptions{}), names: w.names,
		number: w.number, now: w.now,
	}
	for range 12 {
		if w.random.IntN(2) == 0 {
			other.accept()
		} else {
			other.record()
		}
	}
	w.ids = append(w.ids, other.ids...)
	got, gotErr := w.engine.(portable).Import(w.Context(), other.engine.(portable).Export(w.Context(), store.Filter{}, nil))
	want, wantErr := w.memory.(portable).Import(w.Context(), other.engine.(portable).Export(w.Context(), store.Filter{}, nil))
	w.same("Import", got, want, gotErr, wantErr)
}

// allWalkers are those on one engine, with chances for what they do together.
type allWalkers struct {
	walkers []*walker
	random  *rand.Rand
}

func (all allWalkers) together(do func(w *walker)) {
	var running sync.WaitGroup
	for _, w := range all.walkers {
		running.Go(func() { do(w) })
	}
	running.Wait()
}

// sweep deletes what has ended before some time, of all of them.
func (all allWalkers) sweep() {
	first := all.walkers[0]
	first.Helper()
	before := first.now.Add(-time.Duration(all.random.IntN(600)) * time.Second)
	limit := 1 + all.random.IntN(50)
	want := 0
	for _, w := range all.walkers {
		want += sweepAll(w, w.memory, before, limit)
	}
	first.same("Sweep", sweepAll(first, first.engine, before, limit), want, nil, nil)
}

// totals compares what is of all of them.
func (all allWalkers) totals() {
	first := all.walkers[0]
	first.Helper()
	engine, ctx := first.engine, first.Context()
	var pending int64
	var waiting []string
	backlog, paused, out := map[string]store.Backlog{}, map[string]store.Pause{}, map[string]store.Outage{}
	exported := map[store.MessageID]store.Exported{}
	for _, w := range all.walkers {
		pending += w.memory.Pending()
		names, err := w.memory.PendingDestinations(ctx)
		first.same("memory", nil, nil, nil, err)
		waiting = append(waiting, names...)
		b, err := w.memory.Backlog(ctx)
		first.same("memory", nil, nil, nil, err)
		maps.Copy(backlog, b)
		p, err := w.memory.Paused(ctx)
		first.same("memory", nil, nil, nil, err)
		maps.Copy(paused, p)
		o, err := w.memory.Outages(ctx)
		first.same("memory", nil, nil, nil, err)
		maps.Copy(out, o)
		maps.Copy(exported, w.exported(w.memory))
	}
	slices.Sort(waiting)
	first.same("Pending", engine.Pending(), pending, nil, nil)
	got, err := engine.PendingDestinations(ctx)
	first.same("PendingDestinations", cmp.Or(len(got), 0), len(waiting), err, nil)
	if len(waiting) > 0 {
		first.same("PendingDestinations", got, waiting, err, nil)
	}
	gotBacklog, err := engine.Backlog(ctx)
	first.same("Backlog", unnamed(gotBacklog), unnamed(backlog), err, nil)
	gotPaused, err := engine.Paused(ctx)
	first.same("Paused", gotPaused, paused, err, nil)
	gotOut, err := engine.Outages(ctx)
	first.same("Outages", gotOut, out, err, nil)
	first.same("Full", nil, nil, engine.Full(), nil)
	gotExported := first.exported(engine)
	for id, want := range exported {
		first.same("Export of "+id.String(), gotExported[id], want, nil, nil)
	}
	first.same("Export", len(gotExported), len(exported), nil, nil)
}

// unnamed takes away which Blocking delivery a backlog names: which of several that is, is an engine's own business.
func unnamed(all map[string]store.Backlog) map[string]store.Backlog {
	for name, b := range all {
		b.Blocking = store.DeliveryID{}
		all[name] = b
	}
	return all
}

// exported returns all that there is in a store, each record of it.
func (w *walker) exported(s store.Store) map[store.MessageID]store.Exported {
	w.Helper()
	found := map[store.MessageID]store.Exported{}
	for x, err := range s.(portable).Export(w.Context(), store.Filter{}, func(err error) { w.Errorf("Export: damaged: %v", err) }) {
		if err != nil {
			w.Errorf("Export: %v", err)
			return found
		}
		x.Body = bytes.Clone(x.Body)
		found[x.Message.ID] = x
	}
	return found
}

// inFlight is a change that is under way when the engine is killed.
type inFlight struct {
	run   func(s store.Store) error
	there func(s store.Store) bool // it has been made
	ended bool                     // before the kill, and without an error
}

// reopen has the engine reopened, perhaps with a change by each walker under way.
func (all allWalkers) reopen(reopen func(s store.Store, meanwhile func()) store.Store, counts *WalkCounts) {
	first := all.walkers[0]
	first.Helper()
	changes := make([]*inFlight, len(all.walkers))
	var mu sync.Mutex // guards ended of the changes, and dead
	var dead bool
	var running sync.WaitGroup
	before := first.engine
	engine := reopen(before, func() {
		for n, w := range all.walkers {
			one := w.change()
			changes[n] = one
			running.Go(func() {
				err := one.run(before)
				mu.Lock()
				defer mu.Unlock()
				one.ended = err == nil && !dead
			})
		}
		time.Sleep(time.Duration(all.random.IntN(3000)) * time.Microsecond)
		mu.Lock()
		defer mu.Unlock()
		dead = true
	})
	running.Wait()
	for n, w := range all.walkers {
		w.engine = engine
		one := changes[n]
		if one == nil {
			continue
		}
		counts.InFlight++
		switch there := one.there(engine); {
		case there:
			counts.Kept++
			if err := one.run(w.memory); err != nil {
				w.Errorf("a change that an engine has made before it was killed: %v", err)
			}
		case one.ended:
			w.Error("a change that had ended before the kill is not there")
		}
	}
}

// change makes up a change whose place in a store can be seen afterwards.
func (w *walker) change() *inFlight {
	switch n := w.random.IntN(3); {
	case n == 0:
		p := w.post()
		p.Message.Idempotency = nil
		return &inFlight{
			run: func(s store.Store) error {
				_, _, err := s.Accept(w.Context(), p.Message, p.Body)
				return err
			},
			there: w.loads(p.Message.ID),
		}
	case n == 1:
		all := []store.Post{w.post()}
		for range w.random.IntN(30) {
			all = append(all, w.post())
		}
		for i := range all {
			all[i].Message.Idempotency = nil
		}
		return &inFlight{
			run: func(s store.Store) error {
				_, err := s.AcceptAll(w.Context(), sequence(all, nil))
				return err
			},
			there: w.loads(all[0].Message.ID), // that the others are there too, the totals tell
		}
	}
	pending := due(w, w.memory, w.names[w.random.IntN(len(w.names))], store.Cursor{}, 5)
	if len(pending) == 0 {
		return nil
	}
	d := pending[w.random.IntN(len(pending))]
	after, a := end(d, store.Delivered, w.now)
	if w.random.IntN(2) == 0 {
		after, a = retry(d, w.now, w.now.Add(time.Minute))
	}
	return &inFlight{
		run: func(s store.Store) error {
			_, err := s.Record(w.Context(), d, after, a)
			return err
		},
		there: func(s store.Store) bool {
			now, err := s.Delivery(w.Context(), d.ID)
			return err == nil && now.Made == after.Made
		},
	}
}

// loads returns whether a message is there.
func (w *walker) loads(id store.MessageID) func(s store.Store) bool {
	return func(s store.Store) bool {
		_, _, err := s.Load(w.Context(), id)
		return err == nil
	}
}
