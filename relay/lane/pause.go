package lane

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// GoneReason is the reason of a pause by a receiver.
const GoneReason = "the receiver answered 410 Gone"

// Pauses keeps which destinations are paused, across restarts. A store.Pauser is one that will do where nobody else
// pauses and resumes. Otherwise a Resume may come while the lane has its pause kept; so that store and lane agree in the
// end, Pauses then writes to the store, and whoever calls Pause and Resume of the Lane does so together with its change
// to the store, under one lock; and Pauses writes nothing if Stats says under that lock that the lane is not paused.
type Pauses interface {
	// Pause notes that a destination is paused. One that is paused already keeps its note.
	Pause(ctx context.Context, destination string, p store.Pause) error
}

// Pause holds the lane: from now on it begins no attempt. Those in flight end as usual, and what arrives stays
// pending. A lane that is paused already keeps its reason. It is to be kept in the store by the caller.
func (l *Lane) Pause(p store.Pause) { l.hold(p) }

// hold is Pause. It reports whether the lane was not paused before.
func (l *Lane) hold(p store.Pause) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pauseLocked() != nil {
		return false
	}
	l.pause, l.pauseKnown = &p, true
	return true
}

// Resume ends a pause, if there is one. Its end is to be kept in the store by the caller.
func (l *Lane) Resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pause, l.pauseKnown = nil, true
	l.callLocked()
}

func (l *Lane) pauseLocked() *store.Pause {
	if l.pauseKnown {
		return l.pause
	}
	return l.Paused
}

func (l *Lane) isPaused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pauseLocked() != nil
}

// gone reports whether the receiver has said that it is gone for good.
func gone(a store.Attempt) bool {
	return a.Class == store.ClassStatus && a.Status == http.StatusGone
}

// holdGone pauses the lane because its receiver is gone.
func (r *runner) holdGone() store.Pause {
	p := store.Pause{At: r.now().UTC().Truncate(time.Millisecond), Reason: GoneReason}
	if r.lane.hold(p) {
		r.log.Warn("destination paused", zap.String("reason", GoneReason))
	}
	return p
}

// keepPause has the pause of a gone receiver kept, and tries again for as long as it takes, or until somebody has
// ended the pause: the delivery must not be on record as failed while those behind it would go on after a restart.
func (r *runner) keepPause(p store.Pause) error {
	if r.lane.Pauses == nil {
		return nil
	}
	for failures := 0; r.lane.isPaused(); failures++ {
		err := r.lane.Pauses.Pause(r.recordCtx, r.lane.Name, p)
		switch {
		case err == nil, final(err):
			return err
		case r.recordCtx.Err() != nil:
			return errors.Join(context.Cause(r.recordCtx), err)
		}
		wait := pause(failures)
		r.log.Warn("pause not kept", zap.NamedError("reason", err), zap.Duration("again_in_seconds", wait))
		r.wait(wait)
	}
	return nil
}

// wait waits for d, or less when records are given up.
func (r *runner) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.recordCtx.Done():
	}
}
