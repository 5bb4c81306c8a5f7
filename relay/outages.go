package relay

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/postern-relay/postern/store"
)

// outages is what keeps the outages of one lane and tells of them. One that a notice has shown is not told: of two
// destinations that hear about each other each would be out because of the other, without an end.
type outages struct {
	Store   store.OutageKeeper // required
	Notices *notices           // required

	quiet atomic.Bool // the latest was shown by a notice
}

// opened is for lane.Lane.Opened.
func (o *outages) opened(event string) { o.quiet.Store(isNotice(event)) }

// NoteOutage implements lane.Outages. The end of an outage is told before it is noted: if it is told only, the next start
// finds the outage noted and tells its end again, under the same key.
func (o *outages) NoteOutage(ctx context.Context, destination string, out store.Outage) error {
	if out.Since.IsZero() {
		o.Notices.outage(ctx, destination, time.Time{})
		return o.Store.NoteOutage(ctx, destination, out)
	}
	if err := o.Store.NoteOutage(ctx, destination, out); err != nil {
		return err
	}
	since := out.Since
	if o.quiet.Load() {
		since = time.Time{}
	}
	o.Notices.outage(ctx, destination, since)
	return nil
}

// outage tells that a destination is out since a time, or with the zero time that it is not any more, unless that has
// been told.
func (n *notices) outage(ctx context.Context, about string, since time.Time) {
	n.mu.Lock()
	t := n.ofLocked(about)
	if !t.out.Equal(since) {
		t.out, t.changedAt = since, n.Now()
	}
	fine := t.outageUntold() && t.outages.take(time.Now(), n.span())
	if t.outageUntold() && !fine {
		n.callLocked()
	}
	n.mu.Unlock()
	if fine {
		n.tellOutage(ctx, about)
	}
}

// outageUntold reports whether what is known of an outage differs from what has been told. Of several in a row that are
// too many to be told one by one, the first and the last make one.
func (t *tale) outageUntold() bool { return t.out.IsZero() != t.toldOut.IsZero() }

// tellOutage tells what is not told yet.
func (n *notices) tellOutage(ctx context.Context, about string) {
	n.mu.Lock()
	t := n.ofLocked(about)
	untold, out, toldOut, changedAt := t.outageUntold(), t.out, t.toldOut, t.changedAt
	t.toldOut = out
	n.mu.Unlock()
	switch {
	case !untold:
	case out.IsZero():
		n.tellRecovered(ctx, about, causeOutage, toldOut, changedAt)
	default:
		n.tellPaused(ctx, n.Plan(), about, causeOutage, outageReason, out)
	}
}

const outageReason = "the breaker opened after failures in a row; one attempt at a time tests whether the receiver is back"
