package lane

import (
	"time"

	"github.com/postern-relay/postern/store"
)

// maxEarlier is how many attempts begun before a change may be in flight while others begin: what hangs under the
// former settings must not keep the new ones from being used, and yet a lane that is changed again and again while its
// receiver hangs must not use up all descriptors (threat T45).
const maxEarlier = 1024

// Receiver says whether a Change brings another receiver.
type Receiver uint8

// What a Receiver can be.
const (
	SameReceiver Receiver = iota
	AnotherReceiver
)

// Change has the lane go on as next would: from now on attempts are begun with next's Sender, Retry, Concurrency, Rate,
// Batch, Breaker and BlockOnFailure; the other fields of next are not looked at. next is never run, and must not be
// changed any more. It never blocks, and undoes Retire.
//
// Attempts in flight end by the settings that they were begun with, each in its own time. Until then their deliveries
// are not attempted again, nor what stands behind them in a line. They count neither against the new Concurrency (unless
// there are more than 1024 of them) nor for the new Breaker, and an answer 410 to one of them does not pause the lane,
// for who answered may not be the receiver any more.
//
// receiver says who is there now. The same one is treated as after a restart: a breaker that is open stays open, but its
// first probe may be made at once; what the receiver has asked for holds; and recovery goes on. With another one all that
// begins anew. A Rate and a Batch that stay the same go on as they are.
//
// It returns false, and has done nothing, if the lane is over: Run has returned, or is about to with nothing in flight.
// Another Lane can take its place then.
func (l *Lane) Change(next *Lane, receiver Receiver) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	if l.next != nil && l.anew == AnotherReceiver {
		receiver = AnotherReceiver // of two changes that Run has not seen, either may bring it
	}
	l.next, l.anew, l.retired = next, receiver, false
	l.callLocked()
	return true
}

// Retire has the lane begin no further attempt. Run returns nil when those in flight have ended, each in its own time,
// or as ever when its context ends. It never blocks.
func (l *Lane) Retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = true
	l.callLocked()
}

// WakeAll says that pending deliveries may have appeared anywhere, as after store.Queue.Release. It never blocks, and
// the lane reads its window again.
func (l *Lane) WakeAll() {
	l.Wake(store.Cursor{})
	l.Wake(store.Cursor{DueAt: forever})
}

// goesBy reports whether attempts are still begun with the settings of a Lane.
func (l *Lane) goesBy(settings *Lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil {
		return l.next == settings
	}
	return l.current == settings
}

// takeChange goes on with the settings of a Change, and notes a Retire. It reports whether the lane is over.
func (r *runner) takeChange() (over bool) {
	r.lane.mu.Lock()
	next, receiver := r.lane.next, r.lane.anew
	if next != nil {
		r.lane.current, r.lane.next = next, nil
	}
	r.retired = r.lane.retired
	over = r.retired && len(r.window.flying) == 0
	r.lane.over = over // from here on Change does nothing
	r.lane.mu.Unlock()
	if next != nil {
		r.settle(next, receiver)
	}
	return over
}

// settle makes next the settings of all attempts to come.
func (r *runner) settle(next *Lane, receiver Receiver) {
	before, at := r.pace, time.Since(r.began)
	r.settings, r.concurrency = next, next.concurrency()
	r.window.least = windowSize(r.concurrency)
	r.window.size = max(r.window.size, r.window.least)
	r.pace = newPace(next, r.concurrency)
	r.pace.follow(before, at)
	if receiver == SameReceiver {
		r.pace.remember(before, at)
	}
	r.earlier = before.seq
	r.earlierSending += r.sending
	r.sending = 0
	r.earlierFlying = len(r.window.flying)
	r.noteOutage(at)
}

// follow has p go on after another pace at the given time: with what is the same, and such that nothing comes sooner
// because of the change than by either.
func (p *pace) follow(before *pace, at time.Duration) {
	p.seq, p.mark, p.breaker.mark = before.seq, before.seq, before.seq
	p.resumed = before.resumed
	if p.rate.every == before.rate.every {
		p.rate = before.rate
	}
	switch {
	case p.grid.every <= 0:
	case p.grid.every == before.grid.every:
		p.grid.tick, p.grid.left = before.grid.tick, before.grid.left
		if p.grid.max > 0 {
			p.grid.left = min(p.grid.left, p.grid.max)
		}
	default: // the tick that lies behind has released nothing, and does not make up for it
		p.grid.tick = int64(at / p.grid.every)
	}
}

// remember has p treat the receiver as another pace would at the given time, but that a probe may be made at once.
func (p *pace) remember(before *pace, at time.Duration) {
	if before.limit < before.most {
		p.limit = min(before.limit, p.most)
	}
	if p.hold = before.hold; p.hold > at {
		p.limit = 1
	}
	if p.breaker.failures <= 0 {
		return
	}
	p.breaker.recovering = before.breaker.recovering && p.limit < p.most
	if before.breaker.state != BreakerClosed {
		p.breaker.state, p.breaker.since, p.breaker.probeAt = BreakerOpen, before.breaker.since, at
	}
}
