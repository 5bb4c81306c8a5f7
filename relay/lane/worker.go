package lane

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// work makes attempts until there are no more jobs.
func (r *runner) work() {
	for f := range r.jobs {
		var res result
		if f.refits() {
			res = r.recordDue(f)
		} else {
			res = r.attempt(f)
		}
		r.results <- &res
	}
}

// attempt makes one attempt and records it. The request is never made again because its record is in doubt.
func (r *runner) attempt(f *flight) result {
	before := f.before
	a := r.sendOnce(f)
	var p store.Pause
	goneNow := gone(a) && r.lane.goesBy(f.settings)
	if goneNow {
		p = r.holdGone() // before anybody knows that a further attempt could begin
	}
	r.sent <- ending{seq: f.seq, id: before.ID, event: before.Event, class: a.Class, status: a.Status, hint: a.RetryHint}
	a.Delivery, a.Round, a.Number = before.ID, before.Round, before.Made+1
	after := r.next(f, a)
	a.Probe = f.probe > 0 && a.Class != store.ClassInterrupted && after.Attempts == before.Attempts
	if a.Probe { // of an outage there may be thousands
		dropBodies(&a)
	}
	after.Blocking = after.State == store.Failed && after.Order != "" && f.settings.BlockOnFailure

	if goneNow {
		if err := r.keepPause(p); err != nil {
			return result{flight: f, after: after, class: a.Class, err: err}
		}
	}
	var follow *FollowUp
	if r.lane.FollowUp != nil {
		follow = r.lane.FollowUp(before, after, a)
	}
	released, err := r.recordAttempt(before, &after, a, follow)
	overtaken, ok := errors.AsType[*store.OvertakenError](err)
	switch {
	case ok: // by a person, who has changed the delivery while the attempt was made
		after = overtaken.Now
		r.log.Info("attempt overtaken", zap.Inline(attemptFields(a)), zap.Stringer("state", after.State))
		if r.lane.Observe != nil {
			r.lane.Observe(before, after, a)
		}
	case errors.Is(err, store.ErrStale):
		r.log.Debug("attempt dropped", zap.Inline(attemptFields(a)), zap.String("reason", "the delivery has changed meanwhile"))
	case err == nil:
		r.logAttempt(after, a)
		if r.lane.Observe != nil {
			r.lane.Observe(before, after, a)
		}
	}
	return result{flight: f, after: after, class: a.Class, released: released, err: err}
}

// next returns the delivery of a flight as it is after attempt a. A clock that was set forward since its first attempt has
// not made it older.
func (r *runner) next(f *flight, a store.Attempt) store.Delivery {
	now, retry := r.now(), f.settings.Retry
	if a.Class != store.ClassOK && retry.maxAge > 0 {
		begun := f.before.BegunAt
		if begun.IsZero() {
			begun = a.StartedAt
		}
		r.steps.Look(now, time.Now())
		retry.spare = r.steps.Since(begun)
	}
	return next(f.before, a, retry, now, r.rand(), f.probe)
}

// sendOnce makes the attempt. A message that makes the sender panic must not end the process: it would be the first
// thing to be sent after each restart.
func (r *runner) sendOnce(f *flight) (a store.Attempt) {
	start := r.now()
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("attempt panicked", zap.Stringer("delivery_id", f.before.ID), zap.String("reason", problem.PanicReason(p)), zap.Stack("stack"))
			a = store.Attempt{
				Class: store.ClassRender, Error: "internal error",
				StartedAt: start.UTC().Truncate(time.Millisecond), Took: r.now().Sub(start),
			}
		}
	}()
	return f.settings.Sender.Send(r.sendCtx, f.before)
}

// recordAttempt writes the outcome, and tries again for as long as it is unknown whether it is on disk. It returns
// what the record has released, and nil, store.ErrStale, or the reason why it was given up: see unwritable. It changes
// after to what was written.
func (r *runner) recordAttempt(before store.Delivery, after *store.Delivery, a store.Attempt, follow *FollowUp) (store.Delivery, error) {
	kept := a
	for failures := 0; ; failures++ {
		released, err := r.record(before, *after, kept, follow)
		switch {
		case err == nil:
			after.Last = before.Last
			if kept.Number > 0 {
				after.Last = kept.Outcome()
			}
			return released, nil
		case errors.Is(err, store.ErrStale), final(err):
			return released, err
		case errors.Is(err, store.ErrNotFound):
			return store.Delivery{}, store.ErrStale // swept or canceled
		case unwritable(err):
			if !shrink(after, &kept) {
				return store.Delivery{}, err
			}
			r.log.Warn("attempt not kept whole", zap.Inline(attemptFields(a)), zap.NamedError("reason", err))
			continue
		case r.recordCtx.Err() != nil:
			return store.Delivery{}, errors.Join(context.Cause(r.recordCtx), err)
		}
		wait := pause(failures)
		r.log.Warn("attempt not recorded", zap.Inline(attemptFields(a)), zap.NamedError("reason", err), zap.Duration("again_in_seconds", wait))
		r.wait(wait)
	}
}

// record writes the outcome once, with what follows it.
func (r *runner) record(before, after store.Delivery, a store.Attempt, follow *FollowUp) (released store.Delivery, err error) {
	if follow == nil {
		return r.lane.Queue.Record(r.recordCtx, before, after, a)
	}
	recorded, err := r.lane.Queue.RecordAndAccept(r.recordCtx, before, after, a, follow.Post)
	if err == nil && follow.Done != nil {
		follow.Done(recorded)
	}
	return recorded.Released, err
}

// unwritable reports whether err means that the same record will never be written.
func unwritable(err error) bool {
	return errors.Is(err, store.ErrTooLarge) || errors.Is(err, store.ErrInvalid)
}

// maxText is how many bytes of each text are left of a record that the store has no room for.
const maxText = 200

// shrink takes from a record what the store may have no room for. What became of the delivery is worth more than what
// the receiver said, and that more than the attempt. What was sent is given up first: the message tells most of it. It
// reports whether there was something to take.
func shrink(after *store.Delivery, a *store.Attempt) bool {
	switch {
	case a.Request.Body != nil || a.Request.Header != nil:
		a.Request.Truncated = a.Request.Truncated || len(a.Request.Body) > 0
		a.Request.Body, a.Request.Header = nil, nil
	case a.Body != nil || a.Header != nil:
		a.Body, a.Header, a.Truncated = nil, nil, true
	case len(a.Error) > maxText || len(after.Reason) > maxText || len(a.Request.URL) > maxText:
		a.Error, after.Reason, a.Request.URL = clip(a.Error), clip(after.Reason), clip(a.Request.URL)
	case a.Number > 0:
		*a, after.Made = store.Attempt{}, after.Made-1
	default:
		return false
	}
	return true
}

// dropBodies takes what was sent and what came back from the record of an attempt.
func dropBodies(a *store.Attempt) {
	if len(a.Body) > 0 {
		a.Body, a.Truncated = nil, true
	}
	if len(a.Request.Body) > 0 {
		a.Request.Body, a.Request.Truncated = nil, true
	}
}

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "")
}

func (r *runner) logAttempt(after store.Delivery, a store.Attempt) {
	if e := r.log.Check(zap.DebugLevel, "attempt made"); e != nil {
		e.Write(zap.Inline(attemptFields(a)))
	}
	if !after.State.Ended() {
		return
	}
	level := zap.InfoLevel
	if after.State == store.Failed {
		level = zap.WarnLevel
	}
	if e := r.log.Check(level, "delivery ended"); e != nil {
		e.Write(zap.Inline(deliveryFields(after)), zap.Inline(attemptFields(a)))
	}
}

// attemptFields spells the log fields of an attempt.
type attemptFields store.Attempt

// MarshalLogObject adds what identifies the attempt and its outcome, and nothing that the receiver chose but status.
func (a attemptFields) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("delivery_id", a.Delivery.String())
	enc.AddInt("round", a.Round)
	enc.AddInt("attempt", a.Number)
	enc.AddString("class", a.Class.String())
	if a.Status != 0 {
		enc.AddInt("status", a.Status)
	}
	enc.AddDuration("took_seconds", a.Took)
	if a.Probe {
		enc.AddBool("probe", true)
	}
	if a.Peer != "" {
		enc.AddString("peer", a.Peer)
	}
	if gist := store.Attempt(a).Gist(); gist != "" {
		enc.AddString("error", gist)
	}
	return nil
}

// deliveryFields spells the log fields of a delivery that has ended, but for those that its last attempt has too.
type deliveryFields store.Delivery

// MarshalLogObject adds the message, the event and how the delivery ended.
func (d deliveryFields) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("message_id", d.ID.Message().String())
	if d.Event != "" {
		enc.AddString("event", d.Event)
	}
	enc.AddString("state", d.State.String())
	if d.Reason != "" {
		enc.AddString("reason", d.Reason)
	}
	if d.Blocking {
		enc.AddBool("blocking", true)
	}
	return nil
}
