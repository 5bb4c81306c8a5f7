package lane

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// notedHold is by how much a receiver has to lengthen what it asked for until that is noted again: what is over in a few
// seconds needs to survive no restart, and the answers of a crowd of attempts are worth one note.
const notedHold = 5 * time.Second

// Outages keeps which destinations are out, across restarts. A store.OutageKeeper will do.
type Outages interface {
	// NoteOutage notes what is known of a destination's outage, in place of what was noted before; the zero Outage
	// removes the note.
	NoteOutage(ctx context.Context, destination string, o store.Outage) error
}

// restore makes the breaker and the hold what they were when the outage was noted. The first probe may be made at once,
// or when the hold is over. Neither clock nor note is trusted beyond what a lane would hold by itself.
func (p *pace) restore(o store.Outage, now time.Time) {
	if left := min(o.HeldUntil.Sub(now), maxHint); !o.HeldUntil.IsZero() && left > 0 {
		p.hold, p.limit = left, 1
	}
	if !o.Since.IsZero() && p.breaker.failures > 0 {
		p.breaker.state, p.breaker.since = BreakerOpen, min(max(-never, o.Since.Sub(now)), 0)
	}
}

// outage returns what is worth a note, at a time that is the same moment as now. noted is the latest note.
func (p *pace) outage(noted store.Outage, now time.Time, at time.Duration) store.Outage {
	wall := func(t time.Duration) time.Time { return ceil(now.Add(t - at).UTC()) }
	var o store.Outage
	switch {
	case p.breaker.state == BreakerClosed:
	case noted.Since.IsZero():
		o.Since = wall(p.breaker.since)
	default:
		o.Since = noted.Since
	}
	if p.hold <= at {
		return o
	}
	o.HeldUntil = noted.HeldUntil
	known := now // until when the hold is noted, or needs no note
	if known.Before(noted.HeldUntil) {
		known = noted.HeldUntil
	}
	if until := wall(p.hold); until.Sub(known) > notedHold {
		o.HeldUntil = until
	}
	return o
}

// beginOutage begins as the lane's Outage says.
func (r *runner) beginOutage() {
	now := r.now()
	r.noted = r.lane.Outage
	r.pace.restore(r.lane.Outage, now)
	if s := r.pace.breaker; s.state == BreakerOpen {
		r.log.Warn("breaker still open", zap.Time("since", r.noted.Since.UTC()))
	}
	if r.pace.hold > 0 {
		r.log.Info("destination still held", zap.Duration("for_seconds", r.pace.hold))
	}
	r.noteOutage(0)
}

// noteOutage has kept what has changed of the outage. It waits for nothing: what is not kept in time costs what a
// restart costs without a note.
func (r *runner) noteOutage(at time.Duration) {
	o := r.pace.outage(r.noted, r.now(), at)
	if o.Since.Equal(r.noted.Since) && o.HeldUntil.Equal(r.noted.HeldUntil) {
		return
	}
	r.noted = o
	select { // this goroutine alone puts something in, so that there is room afterwards
	case <-r.notes:
	default:
	}
	r.notes <- o
}

// keepOutages has the latest of r.notes kept, until there are no more.
func (r *runner) keepOutages() {
	for o := range r.notes {
		again := r.lane.Outages != nil
		for failures := 0; again; failures++ {
			o, again = r.keepOutage(o, failures)
		}
	}
}

// keepOutage tries to have o kept, and returns what to try next, if anything.
func (r *runner) keepOutage(o store.Outage, failures int) (next store.Outage, again bool) {
	err := r.lane.Outages.NoteOutage(r.recordCtx, r.lane.Name, o)
	if err == nil || final(err) || r.recordCtx.Err() != nil {
		return o, false
	}
	wait := pause(failures)
	r.log.Warn("outage not noted", zap.NamedError("reason", err), zap.Duration("again_in_seconds", wait))
	select {
	case <-time.After(wait):
		return o, true
	case <-r.recordCtx.Done():
		return o, false
	case next, again = <-r.notes: // closed at the end
		return next, again
	}
}
