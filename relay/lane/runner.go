package lane

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

const (
	// maxSleep is how long the lane sleeps at most before it looks at the wall clock again.
	maxSleep = time.Minute

	// recheckSpan is how far back the lane reads the queue again, once in maxSleep: an Accept whose caller went
	// away may have stored its message, and then nobody woke the lane for it.
	recheckSpan = 2 * time.Minute

	// recordGrace is how long, after the attempts in flight have been cut off, their records may take.
	recordGrace = 5 * time.Second

	// recording is how many outcomes may wait for their sync while further attempts are made: a receiver that
	// answers faster than the disk syncs is then limited by neither, and their records share a sync.
	recording = 128

	firstPause, longestPause = 50 * time.Millisecond, 30 * time.Second // between tries at a store that has trouble
)

var (
	errCut    = errors.New("stopping: the time for attempts in flight is over")
	errGiveUp = errors.New("stopping: the time to record attempts is over")
)

// runner is one Run of a lane. Its goroutine owns the window; the workers make attempts and record them, so that the
// records of many attempts share a sync, and hand the outcomes back to it.
type runner struct {
	lane        *Lane
	settings    *Lane // the lane's own, or those of the latest Change
	concurrency int
	drain       time.Duration
	now         func() time.Time
	rand        func() float64
	log         *zap.Logger

	window    *window
	pace      *pace
	began     time.Time // by the monotonic clock
	paused    bool      // as of the last dispatch
	signal    <-chan struct{}
	jobs      chan *flight
	sent      chan ending       // an attempt is over, and its outcome not yet on record
	results   chan *result      // pointers: a lane has room for all of them from its start on
	noted     store.Outage      // the latest of notes
	notes     chan store.Outage // what is to be kept of an outage; of capacity 1
	sending   int               // attempts begun since the latest change, and not known to be over
	workers   sync.WaitGroup
	started   int // workers
	sendCtx   context.Context
	recordCtx context.Context

	retired        bool   // nothing is begun
	earlier        uint64 // attempts up to this one were begun before the latest change
	earlierSending int    // of these, how many are not known to be over
	earlierFlying  int    // and how many are in flight

	readTrouble int              // reads of the queue that failed, one after the other
	readAgain   <-chan time.Time // when to try again; nil when there is no trouble
	rechecked   time.Time        // when recheckSpan was read last

	steps Steps     // of the wall clock
	ahead aheadScan // for what a clock that was set back has left in the future
}

// result is the end of a flight.
type result struct {
	flight   *flight
	after    store.Delivery
	class    store.Class
	released store.Delivery // behind it in its line, and pending from now on; zero if none
	err      error          // from the record; nil, store.ErrStale, unwritable, or why the lane cannot go on
}

// loop makes attempts until ctx ends, and then returns nil, or until the store cannot go on.
func (r *runner) loop(ctx context.Context) error {
	timer := time.NewTimer(maxSleep)
	defer timer.Stop()
	r.rechecked = r.now()
	r.steps.Look(r.rechecked, time.Now())
	for ctx.Err() == nil {
		if r.takeChange() {
			return nil
		}
		r.takeWoken()
		r.recheck()
		if err := r.fill(ctx); err != nil {
			return err
		}
		more, err := r.refit(ctx)
		if err != nil {
			return err
		}
		sleep := r.dispatch()
		if more {
			sleep = 0
		}
		timer.Reset(sleep)
		r.publish()

		select {
		case <-ctx.Done():
		case <-r.signal:
		case <-r.readAgain:
			r.readAgain = nil
		case <-timer.C:
		case e := <-r.sent:
			r.takeEnding(e)
		case res := <-r.results:
			if err := r.landAll(*res); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *runner) takeWoken() {
	r.lane.mu.Lock()
	woken := r.lane.woken
	r.lane.woken = nil
	r.lane.mu.Unlock()
	if woken != nil {
		r.window.wake(woken.lo, woken.hi)
	}
}

// fill reads from the store what the window wants. It runs in the goroutine that owns the window: an outcome that
// was recorded while the store was read lands afterwards, so its delivery still counts as in flight, and the older
// copy of it that may have been read is not sent again.
func (r *runner) fill(ctx context.Context) error {
	for r.readAgain == nil && ctx.Err() == nil {
		after, limit, ok := r.window.wants(time.Since(r.began))
		if !ok {
			return nil
		}
		found, ok, err := r.read(ctx, after, limit)
		if err != nil || !ok {
			return err
		}
		r.window.read(found, limit)
		if r.ahead.notice(found, r.now()) {
			r.log.Warn("clock was set back, deliveries from a time in the future get another due time")
		}
	}
	return nil
}

// read asks the store for deliveries behind a place, and returns false if that has to be tried again, or ctx has ended. The
// error is that the store cannot go on.
func (r *runner) read(ctx context.Context, after store.Cursor, limit int) (found []store.Delivery, ok bool, err error) {
	found, err = r.lane.Queue.Due(ctx, r.lane.Name, after, limit)
	if err == nil && len(found) > 0 && !after.Less(found[len(found)-1].Cursor()) {
		err = errors.New("the store returned deliveries from before the place asked for")
	}
	switch {
	case err == nil:
		r.readTrouble = 0
		return found, true, nil
	case ctx.Err() != nil:
		return nil, false, nil
	case final(err):
		return nil, false, fmt.Errorf("read queue of %q: %w", r.lane.Name, err)
	}
	wait := pause(r.readTrouble)
	r.readTrouble++
	r.readAgain = time.After(wait)
	r.log.Warn("queue not read", zap.Error(err), zap.Duration("again_in_seconds", wait))
	return nil, false, nil
}

// dispatch starts what is due and may pass, and returns how long to sleep unless something happens.
func (r *runner) dispatch() time.Duration {
	r.takeSent()
	at, now := time.Since(r.began), r.now()
	for !r.retired && !r.busy() && len(r.window.items) > 0 && !r.holds(at) {
		wait := r.window.items[0].DueAt.Sub(now)
		if wait < maxSleep { // the due time may be years away
			wait = r.pace.admit(at+wait, at, r.sending)
		}
		if wait > 0 {
			return min(wait, maxSleep)
		}
		f, ok := r.window.take(now)
		if !ok {
			break
		}
		f.settings = r.settings
		f.seq, f.probe = r.pace.begin(at)
		r.sending++
		r.hand(f)
	}
	return maxSleep
}

// hand gives a flight to a worker.
func (r *runner) hand(f *flight) {
	if r.started < len(r.window.flying) {
		r.started++
		r.workers.Go(r.work)
	}
	r.jobs <- f
}

// holds reports whether the lane is paused.
func (r *runner) holds(at time.Duration) bool {
	was := r.paused
	r.paused = r.lane.isPaused()
	if was && !r.paused {
		r.pace.resumed = at
	}
	return r.paused
}

// busy reports whether nothing more may be begun now.
func (r *runner) busy() bool {
	return r.sending >= r.concurrency || len(r.window.flying)-r.earlierFlying >= r.concurrency+recording ||
		r.earlierSending > maxEarlier
}

// takeEnding takes in that an attempt is over, before the next one begins.
func (r *runner) takeEnding(e ending) {
	if e.seq <= r.earlier {
		r.earlierSending--
		return
	}
	r.sending--
	at := time.Since(r.began)
	before, held := r.pace.breaker.state, r.pace.hold
	r.pace.end(e, at)
	switch after := r.pace.breaker.state; {
	case before == BreakerClosed && after == BreakerOpen:
		r.log.Warn("breaker opened", zap.Inline(e), zap.Duration("probe_in_seconds", r.pace.breaker.every))
		if r.lane.Opened != nil {
			r.lane.Opened(e.event)
		}
	case before == BreakerProbing && after == BreakerClosed:
		r.log.Info("breaker closed", zap.Inline(e))
	}
	if r.pace.hold > held {
		r.log.Debug("destination held", zap.Inline(e), zap.Duration("for_seconds", r.pace.hold-at))
	}
	r.noteOutage(at)
}

func (r *runner) takeSent() {
	for {
		select {
		case e := <-r.sent:
			r.takeEnding(e)
		default:
			return
		}
	}
}

// recheck has the recent part of the queue read again, if it has not been for a while.
func (r *runner) recheck() {
	now := r.now()
	if since := now.Sub(r.rechecked); since >= 0 && since < maxSleep {
		return
	}
	r.rechecked = now
	r.steps.Look(now, time.Now())
	r.ahead.follow(&r.steps)
	r.window.fit(time.Since(r.began)) // a lane that is held now gives memory back
	r.window.wake(store.Cursor{DueAt: now.Add(-recheckSpan).Truncate(time.Millisecond)}, store.Cursor{DueAt: forever})
}

// landAll takes in res and the other results that are there.
func (r *runner) landAll(res result) error {
	for {
		if err := r.land(res); err != nil {
			return err
		}
		select {
		case more := <-r.results:
			res = *more
		default:
			return nil
		}
	}
}

// land takes the outcome of a flight into the window. It returns an error if the outcome is not on record.
func (r *runner) land(res result) error {
	if res.flight.seq <= r.earlier {
		r.earlierFlying--
	}
	if res.flight.refits() {
		r.ahead.flights--
	}
	if unwritable(res.err) {
		r.window.setAside(res.flight)
		r.log.Error("delivery set aside", zap.Stringer("delivery_id", res.after.ID), zap.Error(res.err),
			zap.String("reason", "the store cannot keep what came of it; it stays pending until the next start"))
		return nil
	}
	stale := errors.Is(res.err, store.ErrStale)
	r.window.land(res.flight, res.after, res.err == nil)
	switch {
	case stale && res.after.Order != "":
		// Perhaps its record was made by a try that ended with an error, and then nobody knows what it has released.
		r.window.wake(store.Cursor{}, store.Cursor{DueAt: forever})
		return nil
	case stale:
		return nil
	case res.err != nil:
		return fmt.Errorf("record attempt of %q: %w", res.after.ID, res.err)
	}
	if res.flight.refits() {
		return nil
	}
	if res.released.ID != (store.DeliveryID{}) && !r.refitOne(res.released) {
		// Not taken as it is: it may have been read, attempted and ended since.
		r.window.wake(res.released.Cursor(), res.released.Cursor())
	}
	r.lane.mu.Lock()
	defer r.lane.mu.Unlock()
	s := &r.lane.stats
	s.Attempts[res.class]++
	switch res.after.State {
	case store.Delivered:
		s.Delivered++
	case store.Failed:
		s.Failed++
	}
	return nil
}

// finish waits for all flights to land. When drain is over it cuts off the attempts, and recordGrace later their
// records too. It returns the first error of a flight that could not be recorded.
func (r *runner) finish(drain time.Duration, cut, giveUp context.CancelCauseFunc) error {
	var first error
	bound := time.NewTimer(drain)
	defer bound.Stop()
	for isCut := false; len(r.window.flying) > 0; {
		select {
		case e := <-r.sent: // an outage that shows itself now is worth a note
			r.takeEnding(e)
		case res := <-r.results:
			if err := r.land(*res); first == nil {
				first = err
			}
		case <-bound.C:
			if isCut {
				giveUp(errGiveUp)
				continue
			}
			isCut = true
			cut(errCut)
			r.log.Info("attempts cut off", zap.Int("in_flight", len(r.window.flying)))
			bound.Reset(recordGrace)
		}
	}
	r.takeSent()
	return first
}

// publish makes the state of the window visible to Stats.
func (r *runner) publish() {
	now := r.now()
	due := r.window.due(now)
	r.lane.mu.Lock()
	defer r.lane.mu.Unlock()
	s := &r.lane.stats
	s.InFlight, s.Waiting, s.Due, s.More = len(r.window.flying), len(r.window.items), due, !r.window.all
	r.pace.describe(s, now, time.Since(r.began))
}

// final reports whether err means that the store will do nothing more.
func final(err error) bool { return errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrBroken) }

// pause returns how long to wait after so many failures before this one.
func pause(failures int) time.Duration {
	return min(longestPause, firstPause<<min(failures, 20))
}
