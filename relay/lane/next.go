package lane

import (
	"fmt"
	"time"

	"github.com/postern-relay/postern/store"
)

const (
	// maxMade is how many attempts of a round a pending delivery has at most on record. It is well below what the store
	// can number, so that no outcome is ever lost to that bound.
	maxMade = 50_000

	// maxProbeDelay bounds how long a delivery that failed as a probe waits before it is one again.
	maxProbeDelay = 10 * time.Minute
)

// next returns the delivery as it is after attempt a, which ended at now. It is the table of what follows what:
//
//	ok                  delivered
//	410                 failed: the receiver has said that this address is gone for good
//	blocked, render     failed: the same request would be refused or impossible again
//	interrupted         pending, due at once, and no attempt is used up
//	failed probe        pending until probe is over, twofold with each probe of the delivery that failed before, up to
//	                    maxProbeDelay, which a Retry-After can lengthen, and no attempt is used up; failed when the age is
//	anything else       pending until the schedule's next delay is over, which jitter (rnd, from 0 to 1) and a
//	                    Retry-After can lengthen; failed when the attempts or the age are used up
//
// What would be pending with maxMade attempts on record is failed instead.
//
// probe is the time to the next probe if the attempt was one, else 0. Failed is a probe that does not show the receiver
// to be up. One that does, but with an answer that is no success, is an attempt like any other; and so is each one by
// a schedule of one attempt, which means one request.
//
// A pending delivery is never ended by the clock alone: whatever the time is, an attempt comes first. The age counts
// from the first attempt of the round, so that neither a delay, nor a line, a pause or an outage before it take any.
func next(d store.Delivery, a store.Attempt, s Schedule, now time.Time, rnd float64, probe time.Duration) store.Delivery {
	now = now.UTC()
	d.Made++
	d.Reason = ""
	if a.Class == store.ClassInterrupted {
		d.DueAt = now.Truncate(time.Millisecond)
		return within(d, a, now)
	}
	if d.BegunAt.IsZero() {
		d.BegunAt = began(a, now)
	}
	spared := probe > 0 && s.Attempts() > 1 && !hopeless(a) && weigh(a.Class, a.Status) != healthUp
	if !spared {
		d.Attempts++
	}

	var delay time.Duration
	switch {
	case a.Class == store.ClassOK:
		return ended(d, store.Delivered, now, "")
	case gone(a):
		return ended(d, store.Failed, now, "receiver answered 410 Gone")
	case a.Class == store.ClassBlocked:
		return ended(d, store.Failed, now, "refused by the guard: "+describe(a))
	case a.Class == store.ClassRender:
		return ended(d, store.Failed, now, "request could not be built: "+describe(a))
	case spared:
		delay = max(probeDelay(probe, d.Made-d.Attempts), min(a.RetryHint, maxHint))
	case d.Attempts >= s.Attempts():
		return ended(d, store.Failed, now, fmt.Sprintf("no success in %d of %d attempts; last: %s", d.Attempts, s.Attempts(), describe(a)))
	default:
		delay = s.delay(d.Attempts, a.RetryHint, rnd)
	}

	due := ceil(now.Add(delay))
	if s.maxAge > 0 && due.Sub(d.BegunAt)-s.spare > s.maxAge {
		return ended(d, store.Failed, now, fmt.Sprintf("the next attempt would come more than %s after the first; last: %s", s.maxAge, describe(a)))
	}
	d.DueAt = due
	return within(d, a, now)
}

// within ends a pending delivery that has too many attempts on record for many more.
func within(d store.Delivery, a store.Attempt, now time.Time) store.Delivery {
	if d.Made < maxMade {
		return d
	}
	return ended(d, store.Failed, now, fmt.Sprintf("no success, and %d attempts on record, the most there can be; last: %s", d.Made, describe(a)))
}

// began returns when attempt a, which ended at now, began, to the millisecond.
func began(a store.Attempt, now time.Time) time.Time {
	if a.StartedAt.IsZero() || a.StartedAt.After(now) {
		return now.Truncate(time.Millisecond)
	}
	return a.StartedAt.UTC().Truncate(time.Millisecond)
}

// probeDelay returns the time from a failed probe to the next one with the same delivery, if that has been a probe n
// times in vain: every at first, then twofold each time, but not above maxProbeDelay, unless every is.
func probeDelay(every time.Duration, n int) time.Duration {
	longest := max(every, maxProbeDelay)
	for ; n > 1 && every < longest; n-- {
		every *= 2
	}
	return min(every, longest)
}

// hopeless reports whether the same request would be refused or impossible again.
func hopeless(a store.Attempt) bool {
	return a.Class == store.ClassBlocked || a.Class == store.ClassRender
}

func ended(d store.Delivery, s store.State, now time.Time, reason string) store.Delivery {
	d.State, d.Reason = s, reason
	d.DueAt, d.EndedAt = time.Time{}, now.Truncate(time.Millisecond)
	return d
}

// describe says in a few words what came of an attempt that is not ok, without a piece of what the receiver answered.
func describe(a store.Attempt) string {
	switch gist := a.Gist(); {
	case gist != "":
		return gist
	case a.Status != 0:
		return fmt.Sprintf("%s %d", a.Class, a.Status)
	default:
		return a.Class.String()
	}
}

// ceil rounds up to the millisecond, the precision of the store, so that nothing is due too early.
func ceil(t time.Time) time.Time {
	if r := t.Truncate(time.Millisecond); r.Before(t) {
		return r.Add(time.Millisecond)
	}
	return t
}
