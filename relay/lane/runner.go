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
	concurrency int
	drain       time.Duration
	now         func() time.Time
	rand        func() float64
	log         *zap.Logger

	window    *window
	signal    <-chan struct{}
	jobs      chan *flight
	sent      chan struct{} // an attempt is over, and its outcome not yet on record
	results   chan result
	sending   int // attempts begun and not known to be over
	workers   sync.WaitGroup
	started   int // workers
	sendCtx   context.Context
	recordCtx context.Context

	readTrouble int              // reads of the queue that failed, one after the other
	readAgain   <-chan time.Time // when to try again; nil when there is no trouble
	rechecked   time.Time        // when recheckSpan was read last
}

// result is the end of a flight.
type result struct {
	flight *flight
	after  store.Delivery
	class  store.Class
	err    error // from the record; nil, store.ErrStale, or the reason why the lane cannot go on
}

// loop makes attempts until ctx ends, and then returns nil, or until the store cannot go on.
func (r *runner) loop(ctx context.Context) error {
	timer := time.NewTimer(maxSleep)
	defer timer.Stop()
	r.rechecked = r.now()
	for ctx.Err() == nil {
		r.takeWoken()
		r.recheck()
		if err := r.fill(ctx); err != nil {
			return err
		}
		timer.Reset(r.dispatch())
		r.publish()

		select {
		case <-ctx.Done():
		case <-r.signal:
		case <-r.readAgain:
			r.readAgain = nil
		case <-timer.C:
		case <-r.sent:
			r.sending--
		case res := <-r.results:
			if err := r.landAll(res); err != nil {
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
		after, limit, ok := r.window.wants()
		if !ok {
			return nil
		}
		found, err := r.lane.Queue.Due(ctx, r.lane.Name, after, limit)
		if err == nil && len(found) > 0 && !after.Less(found[len(found)-1].Cursor()) {
			err = errors.New("the store returned deliveries from before the place asked for")
		}
		switch {
		case err == nil:
			r.readTrouble = 0
			r.window.read(found, limit)
		case ctx.Err() != nil:
			return nil
		case final(err):
			return fmt.Errorf("read queue of %q: %w", r.lane.Name, err)
		default:
			wait := pause(r.readTrouble)
			r.readTrouble++
			r.readAgain = time.After(wait)
			r.log.Warn("queue not read", zap.Error(err), zap.Duration("again_in_seconds", wait))
		}
	}
	return nil
}

// dispatch starts what is due, and returns how long to sleep unless something happens.
func (r *runner) dispatch() time.Duration {
	now := r.now()
	r.takeSent()
	for !r.busy() {
		f, ok := r.window.take(now)
		if !ok {
			break
		}
		if r.started < len(r.window.flying) {
			r.started++
			r.workers.Go(r.work)
		}
		r.sending++
		r.jobs <- f
	}
	if len(r.window.items) == 0 || r.busy() {
		return maxSleep
	}
	return min(maxSleep, max(0, r.window.items[0].DueAt.Sub(now)))
}

// busy reports whether nothing more may be begun now.
func (r *runner) busy() bool {
	return r.sending >= r.concurrency || len(r.window.flying) >= r.concurrency+recording
}

func (r *runner) takeSent() {
	for {
		select {
		case <-r.sent:
			r.sending--
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
	r.window.wake(store.Cursor{DueAt: now.Add(-recheckSpan).Truncate(time.Millisecond)}, store.Cursor{DueAt: forever})
}

// landAll takes in res and the other results that are there.
func (r *runner) landAll(res result) error {
	for {
		if err := r.land(res); err != nil {
			return err
		}
		select {
		case res = <-r.results:
		default:
			return nil
		}
	}
}

// land takes the outcome of a flight into the window. It returns an error if the outcome is not on record.
func (r *runner) land(res result) error {
	stale := errors.Is(res.err, store.ErrStale)
	r.window.land(res.flight, res.after, res.err == nil)
	switch {
	case stale:
		return nil
	case res.err != nil:
		return fmt.Errorf("record attempt of %q: %w", res.after.ID, res.err)
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
		case res := <-r.results:
			if err := r.land(res); first == nil {
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
	return first
}

// publish makes the state of the window visible to Stats.
func (r *runner) publish() {
	due := r.window.due(r.now())
	r.lane.mu.Lock()
	defer r.lane.mu.Unlock()
	s := &r.lane.stats
	s.InFlight, s.Waiting, s.Due, s.More = len(r.window.flying), len(r.window.items), due, !r.window.all
}

// final reports whether err means that the store will do nothing more.
func final(err error) bool { return errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrBroken) }

// pause returns how long to wait after so many failures before this one.
func pause(failures int) time.Duration {
	return min(longestPause, firstPause<<min(failures, 20))
}
