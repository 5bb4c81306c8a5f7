package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// Model takes random steps on an engine and on a Memory, and compares what they answer. The same seed takes the same
// steps. Every now and then it calls reopen, which returns an engine with what s had stored; nil means never.
func Model(t *testing.T, seed uint64, steps int, s store.Store, reopen func(s store.Store) store.Store) {
	t.Helper()
	w := &walker{
		TB: t, random: rand.New(rand.NewPCG(seed, 1)), engine: s, memory: NewMemory(MemoryOptions{MaxPending: MaxModelPending}),
		now: start, names: modelDestinations,
	}
	for step := range steps {
		w.now = w.now.Add(time.Duration(w.random.IntN(5000)) * time.Millisecond)
		switch n := w.random.IntN(100); {
		case n < 22:
			w.accept()
		case n < 26:
			w.acceptAll()
		case n < 52:
			w.record()
		case n < 66:
			w.steer()
		case n < 70:
			w.release()
		case n < 72:
			w.pause()
		case n < 74:
			w.outage()
		case n < 78:
			w.due()
		case n < 83:
			w.history()
		case n < 90:
			w.list()
		case n < 92:
			w.sweep()
		case n < 94 && reopen != nil:
			w.engine = reopen(w.engine)
		default:
			w.totals()
		}
		if t.Failed() {
			t.Fatalf("seed %d differs at step %d", seed, step)
		}
	}
	w.totals()
	for range len(w.ids) {
		w.history()
	}
	for range 50 {
		w.list()
	}
}

// MaxModelPending is the MaxPending that an engine given to Model has to have.
const MaxModelPending = 200

type walker struct {
	testing.TB
	random         *rand.Rand
	engine, memory store.Store
	number         byte     // of those on one engine
	names          []string // of its destinations
	now            time.Time
	ids            []store.MessageID
	old            []store.Delivery // states that were once current
}

var (
	modelDestinations = []string{"alerts", "alerts.b", "audit", "z"}
	modelEvents       = []string{"", "alert.fired", "alert.closed"}
	modelClasses      = []store.Class{store.ClassStatus, store.ClassTimeout, store.ClassInterrupted}
)

// same compares two answers, and two errors by their sentinel.
func (w *walker) same(what string, got, want any, gotErr, wantErr error) {
	w.Helper()
	for _, kind := range []error{store.ErrNotFound, store.ErrKeyConflict, store.ErrBacklog, store.ErrStale, store.ErrTooLarge} {
		if errors.Is(gotErr, kind) != errors.Is(wantErr, kind) {
			w.Errorf("%s: got error %v, want %v", what, gotErr, wantErr)
			return
		}
	}
	if (gotErr == nil) != (wantErr == nil) {
		w.Errorf("%s: got error %v, want %v", what, gotErr, wantErr)
		return
	}
	if !reflect.DeepEqual(got, want) {
		w.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// post makes a random message and its body.
func (w *walker) post() store.Post {
	m := message(w)
	m.AcceptedAt = w.now
	m.Event = modelEvents[w.random.IntN(len(modelEvents))]
	m.Key = []string{"", "k1", "k2"}[w.random.IntN(3)]
	if w.random.IntN(4) == 0 {
		m.AcceptedAt = w.now.Add(-time.Hour) // the clock has gone back
	}
	for range w.random.IntN(4) {
		to := store.Recipient{
			Destination: w.names[w.random.IntN(len(w.names))],
			Delay:       time.Duration(w.random.IntN(3)) * 10 * time.Second,
		}
		if w.random.IntN(2) == 0 {
			to.Order = []string{"a", "k1", "k2"}[w.random.IntN(3)]
		}
		m.Recipients = append(m.Recipients, to)
	}
	if w.random.IntN(3) == 0 {
		m.Idempotency = &store.Idempotency{Key: [32]byte{byte(w.random.IntN(20)), w.number}, Content: [32]byte{byte(w.random.IntN(5) / 4)}}
	}
	size := []int{0, 10, 1000, 70_000}[w.random.IntN(4)]
	if w.random.IntN(100) == 0 {
		size = 3 << 20
	}
	w.ids = append(w.ids, m.ID) // refused ones too: they must not be found
	return store.Post{Message: m, Body: bytes.Repeat([]byte{byte(w.random.IntN(256))}, size)}
}

func (w *walker) accept() {
	w.Helper()
	p := w.post()
	got, gotExisting, gotErr := w.engine.Accept(w.Context(), p.Message, p.Body)
	want, wantExisting, wantErr := w.memory.Accept(w.Context(), p.Message, p.Body)
	w.same("Accept", got, want, gotErr, wantErr)
	if gotExisting != wantExisting {
		w.Errorf("Accept: existing %t, want %t", gotExisting, wantExisting)
	}
}

// acceptAll posts several messages, now and then with an error at their end. Keys and bounds may refuse them too, but
// which of several reasons an engine meets first is its own business.
func (w *walker) acceptAll() {
	w.Helper()
	var all []store.Post
	for range w.random.IntN(20) {
		all = append(all, w.post())
	}
	var end error
	if w.random.IntN(5) == 0 {
		end = errors.New("the reader has failed")
	}
	got, gotErr := w.engine.AcceptAll(w.Context(), sequence(all, end))
	want, wantErr := w.memory.AcceptAll(w.Context(), sequence(all, end))
	if gotErr != nil && wantErr != nil {
		return
	}
	w.same("AcceptAll", got, want, gotErr, wantErr)
}

// release releases until there is no more: which lines come first is an engine's own business.
func (w *walker) release() {
	w.Helper()
	name := w.names[w.random.IntN(len(w.names))]
	limit := 1 + w.random.IntN(3)
	all := func(s store.Store) (n int) {
		for range 1000 {
			m := release(w, s, name, limit)
			if m == 0 {
				return n
			}
			n += m
		}
		w.Fatal("Release does not end")
		return n
	}
	w.same("Release", all(w.engine), all(w.memory), nil, nil)
}

func (w *walker) pause() {
	w.Helper()
	name := w.names[w.random.IntN(len(w.names))]
	if w.random.IntN(2) == 0 {
		p := store.Pause{At: w.now, Reason: fmt.Sprint(w.random.IntN(100))}
		w.same("Pause", nil, nil, w.engine.Pause(w.Context(), name, p), w.memory.Pause(w.Context(), name, p))
		return
	}
	w.same("Resume", nil, nil, w.engine.Resume(w.Context(), name), w.memory.Resume(w.Context(), name))
}

func (w *walker) outage() {
	w.Helper()
	name := w.names[w.random.IntN(len(w.names))]
	var o store.Outage
	if w.random.IntN(2) == 0 {
		o.Since = w.now
	}
	if w.random.IntN(2) == 0 {
		o.HeldUntil = w.now.Add(time.Minute)
	}
	w.same("NoteOutage", nil, nil, w.engine.NoteOutage(w.Context(), name, o), w.memory.NoteOutage(w.Context(), name, o))
}

func (w *walker) record() {
	w.Helper()
	pending := due(w, w.memory, w.names[w.random.IntN(len(w.names))], store.Cursor{}, 5)
	if len(pending) == 0 {
		return
	}
	d := pending[w.random.IntN(len(pending))]
	if len(w.old) > 0 && w.random.IntN(10) == 0 {
		d = w.old[w.random.IntN(len(w.old))]
	}
	var after store.Delivery
	var a store.Attempt
	switch w.random.IntN(4) {
	case 0:
		after, a = retry(d, w.now, w.now.Add(time.Duration(w.random.IntN(60))*time.Second))
		a.Class = modelClasses[w.random.IntN(len(modelClasses))]
	case 1:
		after, a = end(d, store.Failed, w.now.Add(-time.Duration(w.random.IntN(60))*time.Second))
		after.Reason = "used up"
		after.Blocking = w.random.IntN(2) == 0
	default:
		after, a = end(d, store.Delivered, w.now)
	}
	if w.random.IntN(10) == 0 {
		a = store.Attempt{}
	}
	w.old = append(w.old, d)
	if w.random.IntN(4) == 0 {
		p := w.post()
		p.Body = p.Body[:min(len(p.Body), store.MaxFollowUp+1)]
		got, gotErr := w.engine.RecordAndAccept(w.Context(), d, after, a, p)
		want, wantErr := w.memory.RecordAndAccept(w.Context(), d, after, a, p)
		w.same("refusal of a post", nil, nil, got.Refused, want.Refused)
		got.Refused, want.Refused = nil, nil
		w.same("RecordAndAccept", got, want, gotErr, wantErr)
		return
	}
	got, gotErr := w.engine.Record(w.Context(), d, after, a)
	want, wantErr := w.memory.Record(w.Context(), d, after, a)
	w.same("Record", got, want, gotErr, wantErr)
}

// steer does what a person may ask for, to any delivery or message that there has been.
func (w *walker) steer() {
	w.Helper()
	if len(w.ids) == 0 {
		return
	}
	id := w.ids[len(w.ids)-1-w.random.IntN(min(len(w.ids), 60))]
	one, at := id.Delivery(w.random.IntN(3)), w.now.Add(time.Duration(w.random.IntN(60))*time.Second)
	switch w.random.IntN(4) {
	case 0:
		got, gotErr := w.engine.Replay(w.Context(), one, at)
		want, wantErr := w.memory.Replay(w.Context(), one, at)
		w.same("Replay", got, want, gotErr, wantErr)
	case 1:
		type answer struct{ canceled, released store.Delivery }
		var got, want answer
		var gotErr, wantErr error
		got.canceled, got.released, gotErr = w.engine.Cancel(w.Context(), one, w.now, "by hand")
		want.canceled, want.released, wantErr = w.memory.Cancel(w.Context(), one, w.now, "by hand")
		w.same("Cancel", got, want, gotErr, wantErr)
	case 2:
		got, gotErr := w.engine.Expedite(w.Context(), one, at)
		want, wantErr := w.memory.Expedite(w.Context(), one, at)
		w.same("Expedite", got, want, gotErr, wantErr)
	default:
		body := make([]byte, []int{0, 10, 80_000, store.MaxReduced + 1}[w.random.IntN(4)])
		w.same("Reduce", nil, nil, w.engine.Reduce(w.Context(), id, body), w.memory.Reduce(w.Context(), id, body))
	}
}

// list reads a whole list through random pages.
func (w *walker) list() {
	w.Helper()
	var f store.Filter
	if w.number > 0 || w.random.IntN(2) == 0 { // of those that others make at the same time it knows nothing
		f.Destination = w.names[w.random.IntN(len(w.names))]
	}
	if w.random.IntN(2) == 0 {
		f.State = store.State(1 + w.random.IntN(4))
	}
	if w.random.IntN(3) == 0 {
		f.Event = modelEvents[w.random.IntN(len(modelEvents))]
	}
	if w.random.IntN(3) == 0 {
		f.Class = append(modelClasses, store.ClassOK)[w.random.IntN(len(modelClasses)+1)]
	}
	if w.random.IntN(4) == 0 {
		f.Since = w.now.Add(-time.Duration(w.random.IntN(600)) * time.Second)
	}
	if w.random.IntN(4) == 0 {
		f.Until = w.now.Add(-time.Duration(w.random.IntN(600)) * time.Second)
	}
	if n := w.random.IntN(6); n == 0 && len(w.ids) > 0 {
		f.Text = w.ids[w.random.IntN(len(w.ids))].String()[:6+w.random.IntN(31)]
	} else if n < 3 {
		f.Text = []string{"K1", "Used", "500"}[w.random.IntN(3)]
	}
	limit := 1 + w.random.IntN(50)
	w.same(fmt.Sprintf("Deliveries(%+v)", f), listAll(w, w.engine, f, limit), listAll(w, w.memory, f, limit), nil, nil)
}

func (w *walker) due() {
	w.Helper()
	name := w.names[w.random.IntN(len(w.names))]
	var after store.Cursor
	if w.random.IntN(2) == 0 {
		after.DueAt = start.Add(time.Duration(w.random.Int64N(int64(max(w.now.Sub(start), 0)) + 1)))
	}
	limit := 1 + w.random.IntN(20)
	what := fmt.Sprintf("Due(%q, %v, %d)", name, after.DueAt, limit)
	w.same(what, due(w, w.engine, name, after, limit), due(w, w.memory, name, after, limit), nil, nil)
}

func (w *walker) history() {
	w.Helper()
	if len(w.ids) == 0 {
		return
	}
	id := w.ids[w.random.IntN(len(w.ids))]
	type loaded struct {
		message store.Message
		body    string
	}
	load := func(s store.Store) (loaded, error) {
		m, body, err := s.Load(w.Context(), id)
		return loaded{m, string(body)}, err
	}
	got, gotErr := load(w.engine)
	want, wantErr := load(w.memory)
	if got.body != want.body {
		w.Errorf("Load: body of %d bytes, want %d", len(got.body), len(want.body))
	}
	w.same("Load", got.message, want.message, gotErr, wantErr)
	for n := range 4 {
		got, gotErr := w.engine.Delivery(w.Context(), id.Delivery(n))
		want, wantErr := w.memory.Delivery(w.Context(), id.Delivery(n))
		w.same("Delivery", got, want, gotErr, wantErr)
		gotAll, gotErr := w.engine.Attempts(w.Context(), id.Delivery(n), 3)
		wantAll, wantErr := w.memory.Attempts(w.Context(), id.Delivery(n), 3)
		if len(gotAll)+len(wantAll) > 0 {
			w.same("Attempts", gotAll, wantAll, gotErr, wantErr)
		}
	}
}

func (w *walker) sweep() {
	w.Helper()
	before := w.now.Add(-time.Duration(w.random.IntN(600)) * time.Second)
	limit := 1 + w.random.IntN(10)
	w.same("Sweep", sweepAll(w, w.engine, before, limit), sweepAll(w, w.memory, before, limit), nil, nil)
}

func (w *walker) totals() {
	w.Helper()
	gotPaused, gotErr := w.engine.Paused(w.Context())
	wantPaused, wantErr := w.memory.Paused(w.Context())
	w.same("Paused", gotPaused, wantPaused, gotErr, wantErr)
	gotOut, gotErr := w.engine.Outages(w.Context())
	wantOut, wantErr := w.memory.Outages(w.Context())
	w.same("Outages", gotOut, wantOut, gotErr, wantErr)
	w.same("Full", nil, nil, w.engine.Full(), w.memory.Full())
	w.same("Pending", w.engine.Pending(), w.memory.Pending(), nil, nil)
	gotBacklog, gotErr := w.engine.Backlog(w.Context())
	wantBacklog, wantErr := w.memory.Backlog(w.Context())
	w.same("Backlog", w.blocking(gotBacklog), w.blocking(wantBacklog), gotErr, wantErr)
	got, gotErr := w.engine.PendingDestinations(w.Context())
	want, wantErr := w.memory.PendingDestinations(w.Context())
	if len(got)+len(want) > 0 {
		w.same("PendingDestinations", got, want, gotErr, wantErr)
	}
}

// blocking checks the Blocking delivery that a backlog names for each destination, and takes it away: which of several
// that is, is an engine's own business.
func (w *walker) blocking(all map[string]store.Backlog) map[string]store.Backlog {
	w.Helper()
	for name, b := range all {
		if b.Blocked > 0 {
			d, err := w.memory.Delivery(w.Context(), b.Blocking)
			if err != nil || !d.Blocking || d.Destination != name {
				w.Errorf("Backlog of %q: blocking %s is %+v, error %v; want a delivery that is Blocking", name, b.Blocking, d, err)
			}
			b.Blocking = store.DeliveryID{}
		}
		all[name] = b
	}
	return all
}
