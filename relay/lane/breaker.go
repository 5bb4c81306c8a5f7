package lane

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/postern-relay/postern/store"
)

const defaultProbeEvery = 30 * time.Second

// Breaker holds a destination while its receiver is out, so that an outage uses up no attempts beyond those that
// showed it: no further one begins but a probe now and then. The zero value is no breaker.
//
//	        Failures outages in a row           ProbeEvery is over, a delivery is due
//	closed ───────────────────────────► open ─────────────────────────────────────────► probing
//	  ▲                                  ▲                                               │   │
//	  │                                  └──────── the probe does not show that ─────────┘   │
//	  └────────────────────────────────────────── the receiver is up ────────────────────────┘
//
// After a probe has closed it, one attempt at a time is allowed, and twice as many with each one that shows the receiver
// up, until it is Concurrency again; an outage before that opens the breaker at once. Attempts that were in flight when
// it opened end as usual, and neither close it nor open it again.
//
// An outage is an attempt of the class timeout, dns, connect, tls or auth (no attempt for any message gets past those),
// or one answered with 429 or 5xx. An answer from 200 to 499 other than 429 shows that the receiver is up, whatever
// becomes of the delivery, and ends the row. The classes protocol, blocked, render and interrupted say nothing about
// the receiver: they neither lengthen the row nor end it.
//
// A few messages must not hold all others. So an outage that the receiver itself has answered (other than 429, 502, 503
// and 504, which speak of its load or of what stands before it) counts once for a delivery, until the receiver is up
// again and recovery is over: it takes such answers to Failures different deliveries, without a success between, to
// open the breaker. And a probe that fails is due again only after ProbeEvery, twofold each time up to 10 minutes, so
// that the next probe is another delivery if there is one.
//
// A failed probe uses up no attempt of its delivery, but the schedule's maximum age ends it. With a schedule of one
// attempt it is that attempt.
//
// An open breaker survives a restart, see Lane.Outage: the lane begins with it open, and the first probe may be made at
// once. The row of one that is closed, and recovery, are lost: with a restart an outage has to show itself again.
type Breaker struct {
	Failures   int           // outages in a row that open it; 0 or less means no breaker
	ProbeEvery time.Duration // from opening to probe, and from the end of a failed probe to the next; 0 or less means 30 s
}

// BreakerState is what a breaker lets pass.
type BreakerState uint8

// The states of a breaker.
const (
	BreakerClosed  BreakerState = iota // all attempts, or as many as recovery allows
	BreakerOpen                        // none until the next probe
	BreakerProbing                     // none until the probe in flight has ended
)

func (s BreakerState) String() string {
	switch s {
	case BreakerClosed:
		return "closed"
	case BreakerOpen:
		return "open"
	case BreakerProbing:
		return "probing"
	}
	return fmt.Sprintf("BreakerState(%d)", uint8(s))
}

// health is what the outcome of an attempt says about the receiver.
type health uint8

const (
	healthUnknown health = iota
	healthUp
	healthDown
)

// weigh returns what an outcome says about the receiver. See Breaker for the rule.
func weigh(c store.Class, status int) health {
	switch c {
	case store.ClassOK:
		return healthUp
	case store.ClassTimeout, store.ClassDNS, store.ClassConnect, store.ClassTLS, store.ClassAuth:
		return healthDown
	case store.ClassStatus, store.ClassExpect:
		switch {
		case status >= 500 || status == http.StatusTooManyRequests:
			return healthDown
		case status >= 200:
			return healthUp
		}
	}
	return healthUnknown
}

// perhapsPoison reports whether an outage may be the fault of the one message: the receiver has answered it, and not
// with a status that speaks of its load or that of whoever stands before it.
func perhapsPoison(c store.Class, status int) bool {
	if c != store.ClassStatus && c != store.ClassExpect {
		return false
	}
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return true
}

// breaker is the state of a Breaker. Its times count from the beginning of Run, on the monotonic clock.
type breaker struct {
	failures int
	every    time.Duration

	state      BreakerState
	row        int                // outages counted since the receiver was last up
	counted    []store.DeliveryID // whose outages these were, and those during recovery: the latest, at most failures
	recovering bool               // closed, and not yet at full concurrency: the next outage opens it
	since      time.Duration      // open, probing: when it opened
	probeAt    time.Duration      // open: when the next probe may be made
	probe      uint64             // probing: the attempt
	mark       uint64             // attempts up to this one were begun before the last change, and say nothing any more
}

func newBreaker(o Breaker) breaker {
	b := breaker{failures: o.Failures, every: o.ProbeEvery}
	if b.every <= 0 {
		b.every = defaultProbeEvery
	}
	return b
}

// end takes in the outcome of an attempt that was over at the given time. seq is the latest attempt begun.
func (b *breaker) end(e ending, at time.Duration, seq uint64) {
	h := weigh(e.class, e.status)
	switch {
	case b.failures <= 0:
	case b.state == BreakerProbing && e.seq == b.probe:
		b.endProbe(e, h, at, seq)
	case b.state != BreakerClosed || e.seq <= b.mark: // begun before the breaker opened
	case h == healthUp:
		b.row = 0
		if !b.recovering { // else a message that failed as a probe could open it again
			b.counted = b.counted[:0]
		}
	case h == healthDown:
		if slices.Contains(b.counted, e.id) && perhapsPoison(e.class, e.status) {
			return
		}
		b.count(e.id)
		if b.row++; b.row >= b.failures || b.recovering {
			b.state, b.since, b.probeAt = BreakerOpen, at, at+b.every
		}
	}
}

// count notes whose outage was counted.
func (b *breaker) count(id store.DeliveryID) {
	if slices.Contains(b.counted, id) {
		return
	}
	if len(b.counted) >= b.failures {
		b.counted = slices.Delete(b.counted, 0, 1)
	}
	b.counted = append(b.counted, id)
}

func (b *breaker) endProbe(e ending, h health, at time.Duration, seq uint64) {
	if h == healthUp {
		b.state, b.row, b.recovering, b.mark = BreakerClosed, 0, true, seq
		return
	}
	b.state, b.probeAt = BreakerOpen, at+b.every
	if h == healthDown {
		b.count(e.id)
	}
	if e.class == store.ClassRender {
		b.probeAt = at // it was the message's own fault, and nothing was sent
	}
}
