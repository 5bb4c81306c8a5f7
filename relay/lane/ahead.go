package lane

import (
	"context"
	"slices"
	"time"

	"github.com/postern-relay/postern/store"
)

const (
	// aheadPage is how many deliveries are looked at and recorded at once, beside the attempts.
	aheadPage = 64

	// aheadGrace is how long a clock that was set back may be wrong before it is taken for right. That of a machine which has
	// just started may show 1970 until somebody tells it the time.
	aheadGrace = 10 * time.Minute
)

// aheadScan goes over the queue for deliveries whose times the clock has been set back from. They stand in the future, some
// behind the window. The zero value has seen none.
type aheadScan struct {
	seen    time.Time    // when the first was seen, by the wall clock; zero for never
	sure    bool         // the clock is taken for right
	on      bool         // the scan is not at its end
	after   store.Cursor // where it goes on
	flights int          // that are in flight
}

// refitted returns when a delivery is due by a clock that was set back after the delivery got its times, and false for any
// other. It shows by what came last, its accept, an attempt or a replay, which lies in the future. What the delivery was to
// wait from there on, it waits from now on; and since it is then due before what came last, it does not show again.
//
// A clock that was set back by no more than that wait, or than has passed since then, has the delivery wait by so much longer.
// So no delivery waits more than three times what it should, and aheadGrace, whatever the clock does.
func refitted(d store.Delivery, now time.Time) (due time.Time, ok bool) {
	last := d.AcceptedAt
	if d.Last.At.After(last) {
		last = d.Last.At
	}
	if d.Round > 1 && d.Made == 0 {
		last = d.DueAt // which is when the replay was asked for
	}
	wait := d.DueAt.Sub(last)
	if wait < 0 || last.Sub(now) < wait+leastStep {
		return time.Time{}, false
	}
	return ceil(now.UTC().Add(wait)), true
}

// notice looks for such deliveries in what was read, and begins a scan if there are any and the clock is taken for right. It
// reports whether that is new.
func (s *aheadScan) notice(found []store.Delivery, now time.Time) (begun bool) {
	if s.on || !slices.ContainsFunc(found, func(d store.Delivery) bool { _, ok := refitted(d, now); return ok }) {
		return false
	}
	if s.seen.IsZero() || now.Before(s.seen) {
		s.seen = now
	}
	begun = !s.sure && now.Sub(s.seen) >= aheadGrace
	s.sure = s.sure || begun
	s.on, s.after = s.sure, store.Cursor{DueAt: now.Add(leastStep).Truncate(time.Millisecond)}
	return begun
}

// follow ends the scan if the clock was set forward since it was begun: then it was wrong before.
func (s *aheadScan) follow(steps *Steps) {
	if steps.Since(s.seen) > 0 {
		s.seen, s.sure, s.on = time.Time{}, false, false
	}
}

// refits reports whether a flight is there to record another due time.
func (f *flight) refits() bool { return !f.due.IsZero() }

// refit takes the next step of a scan when the step before is on record. It reports whether there is another one to take at
// once.
func (r *runner) refit(ctx context.Context) (more bool, err error) {
	s := &r.ahead
	if !s.on || s.flights > 0 || r.retired || r.readAgain != nil {
		return false, nil
	}
	found, ok, err := r.read(ctx, s.after, aheadPage)
	if err != nil || !ok {
		return false, err
	}
	if s.on = len(found) == aheadPage; s.on {
		s.after = found[len(found)-1].Cursor()
	}
	for _, d := range found {
		r.refitOne(d)
	}
	return s.on && s.flights == 0, nil
}

// refitOne has another due time recorded for a delivery as the store has given it out, and returns false if it needs none.
func (r *runner) refitOne(d store.Delivery) bool {
	due, ok := refitted(d, r.now())
	if !ok || !r.ahead.sure {
		return false
	}
	if f, ok := r.window.lift(d); ok {
		f.settings, f.due, f.seq = r.settings, due, r.pace.number()
		r.ahead.flights++
		r.hand(f)
	}
	return true
}

// recordDue records that a delivery is due at another time. Nothing else changes, and no attempt is made.
func (r *runner) recordDue(f *flight) result {
	after := f.before
	after.DueAt = f.due
	_, err := r.recordAttempt(f.before, &after, store.Attempt{Delivery: f.before.ID}, nil)
	return result{flight: f, after: after, err: err}
}
