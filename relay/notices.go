package relay

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/store"
)

const (
	// maxNotices is how many notices of failed deliveries, and how many of outages, there are about one destination in
	// each noticeSpan. What is beyond is told in one when that is over.
	maxNotices = 20
	noticeSpan = time.Minute

	// maxNoticeBacklog is how many deliveries may wait for a destination that wants notices: one that takes none must
	// not fill the store with them, which has the messages of the app to keep.
	maxNoticeBacklog = 10_000

	noticeTimeout = 5 * time.Second // to have one accepted
)

var (
	errNobody  = errors.New("nobody wants it")
	errCrowded = errors.New("too many deliveries wait for those who want it")
)

// notices tells of deliveries that failed and of destinations that are held, see noticeBody. What it cannot tell is
// logged, and disturbs nobody. Its methods may be called from several goroutines, once Run has begun or before.
//
// A delivery's end and its notice are one transaction of the store. A destination's pause or outage is noted first, and
// the notice of it made up at the next start if a kill came between; that of its end can be lost to one.
type notices struct {
	Store    store.Store                              // required
	Plan     func() *Plan                             // the one in force; required
	Accepted func(destination string, c store.Cursor) // is told of each delivery; required
	Now      func() time.Time                         // wall clock; required
	Log      *zap.Logger                              // required
	Span     time.Duration                            // in which there are at most maxNotices; 0 means noticeSpan

	mu     sync.Mutex       // guards the fields below
	tales  map[string]*tale // by the destination that they are about
	signal chan struct{}    // of capacity 1: Run has to look again
}

// tale is what has been told of a destination, and what is still to be. Its times but failedAt and those that notices
// hold are monotonic.
type tale struct {
	failures   budget
	suppressed int        // failed deliveries that are not told yet
	latest     failedData // of these
	failedAt   time.Time  // of latest
	due        time.Time  // when they are told

	outages   budget
	out       time.Time // since when the destination is out; zero if it is not
	changedAt time.Time // when that became so
	toldOut   time.Time // out as it was told last
}

// budget is how much may be told in each span.
type budget struct {
	began time.Time
	used  int
}

func (b *budget) take(now time.Time, span time.Duration) bool {
	if now.Sub(b.began) >= span {
		*b = budget{began: now}
	}
	if b.used >= maxNotices {
		return false
	}
	b.used++
	return true
}

func (n *notices) span() time.Duration {
	if n.Span > 0 {
		return n.Span
	}
	return noticeSpan
}

// ofLocked returns the tale of a destination.
func (n *notices) ofLocked(about string) *tale {
	if n.tales == nil {
		n.tales = map[string]*tale{}
	}
	t := n.tales[about]
	if t == nil {
		t = &tale{}
		n.tales[about] = t
	}
	return t
}

// failed returns what is to be accepted with the record of an attempt: the notice of a delivery that it has failed, if
// somebody wants it.
func (n *notices) failed(ctx context.Context, after store.Delivery, a store.Attempt) *lane.FollowUp {
	plan, about := n.Plan(), after.Destination
	if after.State != store.Failed || isNotice(after.Event) || !plan.tells(noticeFailed, about) {
		return nil
	}
	data := failedOf(after, a)
	m, body, err := n.write(plan, noticeBody{Type: noticeFailed, Timestamp: after.EndedAt, Data: data}, about)
	if err != nil {
		n.drop(noticeFailed, about, err)
		return nil
	}
	n.mu.Lock()
	t := n.ofLocked(about)
	fine := t.failures.take(time.Now(), n.span())
	if !fine {
		n.suppressLocked(t, data, after.EndedAt, t.failures.began.Add(n.span()))
	}
	n.mu.Unlock()
	if !fine {
		return nil
	}
	later := func(err error) {
		n.drop(noticeFailed, about, err)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.suppressLocked(t, data, after.EndedAt, time.Now().Add(n.span()))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noticeTimeout)
	defer cancel()
	backlog, err := n.Store.Backlog(ctx)
	if err == nil {
		m, err = admit(m, backlog)
	}
	if err != nil {
		later(err)
		return nil
	}
	return &lane.FollowUp{Post: store.Post{Message: m, Body: body}, Done: func(r store.Recorded) {
		if r.Refused != nil {
			later(r.Refused)
			return
		}
		n.wake(r.Accepted.Message)
	}}
}

// suppressLocked notes a failed delivery that is to be told at a time. It may count one too many: its record is dropped
// if somebody else changes the delivery meanwhile.
func (n *notices) suppressLocked(t *tale, data failedData, at, due time.Time) {
	if t.suppressed == 0 {
		t.due = due
		n.callLocked()
	}
	t.suppressed++
	t.latest, t.failedAt = data, at
}

// paused tells that a destination is held by a pause, which is on disk.
func (n *notices) paused(ctx context.Context, about string, p store.Pause) {
	n.tellPaused(ctx, n.Plan(), about, causeOf(p), p.Reason, p.At)
}

// resumed tells that a pause is over.
func (n *notices) resumed(ctx context.Context, about string, p store.Pause) {
	n.tellRecovered(ctx, about, causeOf(p), p.At, n.Now())
}

// remind tells at a start what a kill may have left untold. What is noted and younger than the retention has been told
// under a key that is still known, or not at all.
func (n *notices) remind(ctx context.Context, p *Plan, paused map[string]store.Pause, outages map[string]store.Outage) {
	young := func(at time.Time) bool { return !at.IsZero() && n.Now().Sub(at) < p.retention }
	for _, name := range p.names {
		if pause, ok := paused[name]; ok && young(pause.At) {
			n.tellPaused(ctx, p, name, causeOf(pause), pause.Reason, pause.At)
		}
		if since := outages[name].Since; !since.IsZero() {
			n.mu.Lock()
			t := n.ofLocked(name)
			t.out, t.toldOut = since, since
			n.mu.Unlock()
			if young(since) {
				n.tellPaused(ctx, p, name, causeOutage, outageReason, since)
			}
		}
	}
}

func (n *notices) tellPaused(ctx context.Context, p *Plan, about string, why cause, reason string, since time.Time) {
	n.tell(ctx, p, noticePaused, about, since, noticeKey(noticePaused, about, since), func(pending int64) any {
		return pausedData{Destination: about, Cause: why, Reason: store.CutReason(reason), Since: noticeTime(since), Pending: pending}
	})
}

func (n *notices) tellRecovered(ctx context.Context, about string, why cause, since, at time.Time) {
	n.tell(ctx, n.Plan(), noticeRecovered, about, at, noticeKey(noticeRecovered, about, since), func(pending int64) any {
		lasted := max(at.Sub(since), 0).Truncate(time.Millisecond)
		return recoveredData{
			Destination: about, Cause: why, Since: noticeTime(since), LastedSeconds: lasted.Seconds(), Pending: pending,
		}
	})
}

// tell has a notice accepted, or logs why it was not. data is given how many deliveries wait for the destination.
func (n *notices) tell(
	ctx context.Context, p *Plan, event, about string, at time.Time, key *store.Idempotency, data func(pending int64) any,
) bool {
	if !p.tells(event, about) {
		return true
	}
	// It is not for the one who has caused it, and may have gone, to say how long it takes.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noticeTimeout)
	defer cancel()
	err := func() error {
		backlog, err := n.Store.Backlog(ctx)
		if err != nil {
			return err
		}
		m, body, err := n.write(p, noticeBody{Type: event, Timestamp: at, Data: data(backlog[about].Pending)}, about)
		if err != nil {
			return err
		}
		m.Idempotency = key
		if m, err = admit(m, backlog); err != nil {
			return err
		}
		stored, existing, err := n.Store.Accept(ctx, m, body)
		switch {
		case err == nil && !existing:
			n.wake(stored)
		case err != nil && ctx.Err() != nil:
			n.wake(m) // it may have been stored all the same
		}
		return err
	}()
	n.drop(event, about, err)
	return err == nil || errors.Is(err, errNobody)
}

// write makes the message of a notice.
func (n *notices) write(p *Plan, b noticeBody, about string) (m store.Message, body []byte, err error) {
	if body, err = b.encode(); err != nil {
		return store.Message{}, nil, err
	}
	to, faults := p.noticeRoutes(b.Type, about, body)
	for _, fault := range faults {
		n.Log.Warn("notice not routed", zap.String("event", b.Type), zap.String("destination", about), zap.Error(fault))
	}
	if len(to) == 0 {
		return store.Message{}, nil, errNobody
	}
	id, err := store.NewMessageID()
	if err != nil {
		return store.Message{}, nil, err
	}
	return store.Message{
		ID: id, Event: b.Type, ContentType: "application/json", AcceptedAt: noticeTime(n.Now()),
		Size: len(body), Key: about, Recipients: to,
	}, body, nil
}

// admit takes from a notice those who have too much to do already.
func admit(m store.Message, backlog map[string]store.Backlog) (store.Message, error) {
	m.Recipients = slices.DeleteFunc(m.Recipients, func(to store.Recipient) bool {
		return backlog[to.Destination].Pending >= maxNoticeBacklog
	})
	if len(m.Recipients) == 0 {
		return store.Message{}, errCrowded
	}
	return m, nil
}

func (n *notices) wake(m store.Message) {
	for i, to := range m.Recipients {
		n.Accepted(to.Destination, m.Delivery(i).Cursor())
	}
}

// drop logs why a notice has not been accepted, if that is worth a line.
func (n *notices) drop(event, about string, err error) {
	if err == nil || errors.Is(err, errNobody) || errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrBroken) {
		return
	}
	n.Log.Warn("notice dropped", zap.String("event", event), zap.String("destination", about), zap.Error(err))
}

// Run tells later what was too much at once, until ctx ends.
func (n *notices) Run(ctx context.Context) error {
	n.mu.Lock()
	signal := n.signalLocked()
	n.mu.Unlock()
	for {
		var due <-chan time.Time
		if wait, ok := n.tellDue(ctx, time.Now()); ok {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-signal:
		case <-due:
		}
	}
}

// finish tells what is left to be told, when nothing is added any more.
func (n *notices) finish(ctx context.Context) {
	n.tellDue(ctx, time.Now().Add(2*n.span()))
}

// tellDue tells what is due at a time, and returns how long it is to the next, if there is something.
func (n *notices) tellDue(ctx context.Context, now time.Time) (wait time.Duration, ok bool) {
	var failures, outages []string
	isDue := func(at time.Time) bool {
		left := at.Sub(now)
		if left > 0 && (!ok || left < wait) {
			wait, ok = left, true
		}
		return left <= 0
	}
	n.mu.Lock()
	for about, t := range n.tales {
		if t.suppressed > 0 && isDue(t.due) {
			failures = append(failures, about)
		}
		if t.outageUntold() && isDue(t.outages.began.Add(n.span())) {
			t.outages = budget{began: time.Now(), used: 1}
			outages = append(outages, about)
		}
	}
	if len(failures)+len(outages) > 0 {
		n.callLocked() // there may be more then
	}
	n.mu.Unlock()
	slices.Sort(failures)
	slices.Sort(outages)
	for _, about := range outages {
		n.tellOutage(ctx, about)
	}
	for _, about := range failures {
		n.tellSuppressed(ctx, about)
	}
	return wait, ok
}

// tellSuppressed tells of the failed deliveries that have not been told yet, in one notice about the latest. If that is
// refused, they are told later.
func (n *notices) tellSuppressed(ctx context.Context, about string) {
	n.mu.Lock()
	t := n.ofLocked(about)
	told, data, at := t.suppressed, t.latest, t.failedAt
	n.mu.Unlock()
	data.Suppressed = told - 1
	fine := n.tell(ctx, n.Plan(), noticeFailed, about, at, nil, func(int64) any { return data })
	n.mu.Lock()
	defer n.mu.Unlock()
	if fine {
		t.suppressed -= told
		t.failures = budget{began: time.Now(), used: 1}
	}
	t.due = time.Now().Add(n.span())
}

// callLocked has Run look at what there is to tell.
func (n *notices) callLocked() {
	select {
	case n.signalLocked() <- struct{}{}:
	default:
	}
}

func (n *notices) signalLocked() chan struct{} {
	if n.signal == nil {
		n.signal = make(chan struct{}, 1)
	}
	return n.signal
}
