// Package lane decides when: it is the queue of one destination. A [Lane] keeps a small window of the earliest
// pending deliveries, sleeps until the first is due, lets its Sender make the attempt, turns the outcome into the
// following state by a pure function, and records both in one transaction.
//
// What it promises:
//
//   - Each pending delivery is attempted when it is due, as soon as fewer than Concurrency attempts are in flight, and
//     as soon as Rate, Batch and Breaker, a pause and what the receiver asked for let it pass. It is never attempted
//     early, and the lane sleeps until the first of these can change.
//   - No delivery is attempted twice at the same time, nor again before its last attempt is on record. Only a crash
//     between an attempt and its record repeats one. Should the store refuse each form of a record for good, the
//     delivery stays pending and is set aside until the next run, with an error in the log.
//   - Memory follows the window, never the backlog: there is no goroutine and no timer for a delivery that waits.
//   - Time that passes ends no pending delivery, and neither does a wall clock that jumps: an attempt always comes
//     first, and after it nothing but the schedule's maximum age looks at the clock, which by as much as it was set
//     forward during Run makes nothing older. A lane follows a clock that was set within a minute; one that was set
//     back, by however much, makes no delivery wait more than three times as long as it should, and ten minutes. Rate,
//     Batch and Breaker do not look at the wall clock.
//   - Of the deliveries of one line (see store.Delivery.Order) never two are in flight: the store gives out only the
//     first, and the one behind it when that has ended on record.
//
// Lanes share nothing but the store: one that is slow, or whose receiver hangs, does not delay another.
package lane

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

const (
	defaultConcurrency = 16
	defaultDrain       = 10 * time.Second
)

// Lane is the queue of one destination. Set its fields, then call Run once. Wake and Stats may be called at any
// time, before Run and after it too, and from several goroutines; so may Pause, Resume, Change and Retire.
type Lane struct {
	Name   string      // the destination; required
	Queue  store.Queue // required
	Sender Sender      // required
	Retry  Schedule    // the zero value means one attempt, at once

	Concurrency int              // most attempts in flight; 0 or less means 16
	Rate        float64          // most attempts per second; 0 or less means no bound
	Batch       Batch            // the zero value releases each delivery when it is due
	Breaker     Breaker          // the zero value means none
	Drain       time.Duration    // how long attempts in flight may go on after a stop; 0 or less means 10 s
	Now         func() time.Time // wall clock; nil means time.Now
	Rand        func() float64   // for jitter, from 0 to 1; called by several goroutines; nil means math/rand/v2
	Log         *zap.Logger      // nil logs nothing

	// BlockOnFailure makes a delivery that has failed hold those behind it in its line, until store.Queue.Release.
	BlockOnFailure bool

	Paused *store.Pause // why the lane begins with a pause; nil if it does not
	Pauses Pauses       // keeps the pause that a 410 causes; nil means that it ends with this Lane

	Outage  store.Outage // what was noted of an outage before; the lane begins in it, see Breaker. Zero for none
	Outages Outages      // keeps what is known of an outage, as well as it can; nil means that it ends with this Lane

	// Observe is told of each attempt after it is on record, probes too, with the delivery before and after it. It is
	// called by several goroutines and holds up one of them while it runs; nil means nobody is told.
	Observe func(before, after store.Delivery, a store.Attempt)

	// FollowUp returns a message that is accepted in the transaction that records an attempt, and is asked before that.
	// It is called by several goroutines and holds up one of them while it runs; nil, and a nil *FollowUp, mean none.
	FollowUp func(before, after store.Delivery, a store.Attempt) *FollowUp

	// Opened is told the event of the delivery whose attempt has opened the breaker, before Outages is told of that. It
	// must not block; nil means nobody is told.
	Opened func(event string)

	mu     sync.Mutex    // guards the fields below
	signal chan struct{} // of capacity 1: woken is set
	woken  *span         // where something may have appeared, lo included; nil if nowhere
	stats  Stats

	pauseKnown bool         // Pause or Resume was called: pause counts now, and Paused no longer
	pause      *store.Pause // never changed; nil if not paused

	current *Lane    // whose settings attempts are begun with; nil before Run
	next    *Lane    // whose settings come next; nil without a Change that Run has not seen
	anew    Receiver // of that Change
	retired bool     // no attempt is begun
	over    bool     // and none is in flight, nor ever will be
}

// Sender makes one attempt. Send returns when the attempt is over, or soon after ctx has ended; an attempt that was
// cut off by the end of ctx has the class store.ClassInterrupted. Send is called by several goroutines.
//
// It fills the attempt but for Delivery, Round and Number, which the lane sets.
type Sender interface {
	Send(ctx context.Context, d store.Delivery) store.Attempt
}

// FollowUp is a message that is accepted together with the record of an attempt.
type FollowUp struct {
	Post store.Post // as for store.Queue.RecordAndAccept

	// Done is told what came of it when the attempt is on record, and is not called if it never is. The lanes of the
	// message's recipients are its to wake. nil means nobody is told.
	Done func(store.Recorded)
}

// Stats is what a lane is doing and has done since Run began.
type Stats struct {
	InFlight  int                   // attempts being made or recorded
	Waiting   int                   // deliveries in the window; those in flight are not among them
	Due       int                   // of those waiting, how many could be attempted now
	More      bool                  // the store may hold more than the window
	Attempts  map[store.Class]int64 // attempts on record, by class; never nil, the caller's own
	Delivered int64                 // deliveries that ended with success
	Failed    int64                 // deliveries that ended without

	Limit     int          // attempts that may be in flight now, 1 to Concurrency; 1 too while the breaker is not closed
	Breaker   BreakerState // closed without a breaker
	OpenSince time.Time    // when the breaker opened; zero while it is closed
	NextProbe time.Time    // from when the next probe may be made; zero unless the breaker is open
	HeldUntil time.Time    // the receiver has asked for no attempt before; zero when that is over
	Paused    *store.Pause // why nothing is begun, nil if the lane is not paused; the caller's own
}

// Stats returns a snapshot as of the last step of the lane.
func (l *Lane) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Attempts = make(map[store.Class]int64, len(l.stats.Attempts))
	maps.Copy(s.Attempts, l.stats.Attempts)
	if p := l.pauseLocked(); p != nil {
		own := *p
		s.Paused = &own
	}
	return s
}

// Wake says that a pending delivery may have appeared at c. It is to be called after each accept for the
// destination, with the place of that delivery, and costs little; it never blocks. A wake for something that is
// not there does no harm.
func (l *Lane) Wake(c store.Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.woken == nil {
		l.woken = &span{lo: c, hi: c}
	}
	if c.Less(l.woken.lo) {
		l.woken.lo = c
	}
	if l.woken.hi.Less(c) {
		l.woken.hi = c
	}
	l.callLocked()
}

// callLocked has Run look at what has changed.
func (l *Lane) callLocked() {
	select {
	case l.signalLocked() <- struct{}{}:
	default:
	}
}

func (l *Lane) signalLocked() chan struct{} {
	if l.signal == nil {
		l.signal = make(chan struct{}, 1)
	}
	return l.signal
}

// Run makes the attempts that fall due until ctx ends. Then it begins no further one and gives those in flight the
// time of Drain to end. What is still in flight after that is interrupted, which is recorded, uses up no attempt,
// and leaves the delivery due at once for the next run. When Run returns, nothing of it is left.
//
// It returns nil after a stop, and an error when the store cannot go on (store.ErrClosed, store.ErrBroken) or when
// an outcome could not be recorded before the end, so that its attempt will be made again.
func (l *Lane) Run(ctx context.Context) error {
	if l.Name == "" || l.Queue == nil || l.Sender == nil {
		return errors.New("lane: Name, Queue and Sender are required")
	}
	r := newRunner(l)

	// Attempts and records go on after ctx has ended, each until a bound of its own.
	base := context.WithoutCancel(ctx)
	sendCtx, cut := context.WithCancelCause(base)
	defer cut(nil)
	recordCtx, giveUp := context.WithCancelCause(base)
	defer giveUp(nil)
	r.sendCtx, r.recordCtx = sendCtx, recordCtx

	var keeper sync.WaitGroup
	keeper.Go(r.keepOutages)
	r.beginOutage()
	err := r.loop(ctx)
	drain := r.drain
	if err != nil {
		drain = 0 // no outcome can be recorded any more
	}
	if landErr := r.finish(drain, cut, giveUp); err == nil {
		err = landErr
	}
	close(r.jobs)
	r.workers.Wait()
	bound := time.AfterFunc(recordGrace, func() { giveUp(errGiveUp) })
	defer bound.Stop()
	close(r.notes)
	keeper.Wait()
	r.publish()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	return err
}

// newRunner resolves the defaults.
func newRunner(l *Lane) *runner {
	r := &runner{
		lane: l, settings: l, concurrency: l.concurrency(), drain: l.Drain, now: l.Now, rand: l.Rand, log: l.Log,
	}
	if r.drain <= 0 {
		r.drain = defaultDrain
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.rand == nil {
		r.rand = rand.Float64
	}
	if r.log == nil {
		r.log = zap.NewNop()
	}
	r.log = r.log.With(zap.String("destination", l.Name))
	r.window = newWindow(windowSize(r.concurrency))
	r.pace = newPace(l, r.concurrency)
	r.began = time.Now()
	// By the capacity of these channels neither the runner nor a worker waits for the other, unless a change has left
	// more in flight; and then for a moment only, since each flight has a worker and the runner always listens.
	r.jobs = make(chan *flight, r.concurrency+recording)
	r.sent = make(chan ending, r.concurrency)
	r.results = make(chan *result, r.concurrency+recording)
	r.notes = make(chan store.Outage, 1)
	l.mu.Lock()
	r.signal = l.signalLocked()
	l.current = l
	l.stats = Stats{Attempts: make(map[store.Class]int64)}
	l.mu.Unlock()
	return r
}

func (l *Lane) concurrency() int {
	if l.Concurrency <= 0 {
		return defaultConcurrency
	}
	return l.Concurrency
}

func windowSize(concurrency int) int { return max(minWindow, 4*concurrency) }
