package lane

import (
	"math"
	"net/http"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/postern-relay/postern/store"
)

// burst is how much of the rate may be made up for at once, so that a timer that fires late costs nothing.
const burst = 20 * time.Millisecond

// never lies behind every time that counts from the beginning of Run.
const never = time.Duration(1 << 61)

// Batch releases due deliveries together, at ticks of a fixed grid that begins with Run. What is released goes out as
// fast as concurrency, rate and breaker allow; what falls due later, retries too, waits for the next tick, and so does
// what is beyond Max. The zero value releases each delivery when it is due.
type Batch struct {
	Every time.Duration // from tick to tick; 0 or less means no batches
	Max   int           // most attempts begun for each tick; 0 or less means no bound
}

// pace decides when the next attempt may begin: the sum of rate, batch, breaker, and of what receivers ask for. It is
// owned by one goroutine, and all its times count from the beginning of Run on the monotonic clock, so that a wall
// clock that jumps changes none of it.
type pace struct {
	rate    meter
	grid    grid
	breaker breaker

	most    int           // concurrency
	limit   int           // concurrency allowed now, 1 to most
	hold    time.Duration // nothing begins before: a receiver has asked for it
	resumed time.Duration // end of the last pause
	seq     uint64        // flights begun
	mark    uint64        // attempts up to this one were begun before the limit was lowered, and do not move it
}

// ending is what pace learns of an attempt that is over.
type ending struct {
	seq    uint64
	id     store.DeliveryID
	event  string // of its message
	class  store.Class
	status int
	hint   time.Duration // from Retry-After
}

// MarshalLogObject adds which attempt it was and how it ended.
func (e ending) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("delivery_id", e.id.String())
	enc.AddString("class", e.class.String())
	if e.status != 0 {
		enc.AddInt("status", e.status)
	}
	return nil
}

func newPace(l *Lane, concurrency int) *pace {
	return &pace{
		rate: newMeter(l.Rate), grid: grid{every: l.Batch.Every, max: l.Batch.Max, tick: -1}, breaker: newBreaker(l.Breaker),
		most: concurrency, limit: concurrency,
	}
}

// admit returns how long to wait before the next attempt may begin: 0 or less for not at all, and never when that
// depends on the end of another attempt. due is when its delivery is due, sending how many attempts are in flight.
func (p *pace) admit(due, at time.Duration, sending int) time.Duration {
	held := max(p.hold, p.resumed)
	switch p.breaker.state {
	case BreakerProbing:
		return never
	case BreakerOpen:
		held = max(held, p.breaker.probeAt)
	}
	if sending >= p.limit && p.breaker.state == BreakerClosed {
		return never
	}
	from := p.grid.release(max(due, held), at)
	return max(from, p.rate.free()) - at
}

// number returns the next number of a flight.
func (p *pace) number() uint64 {
	p.seq++
	return p.seq
}

// begin notes that an attempt begins, and returns its number. For a probe it also returns the time to the next one,
// which is 0 for any other attempt.
func (p *pace) begin(at time.Duration) (seq uint64, probe time.Duration) {
	p.number()
	p.rate.use(at)
	p.grid.left--
	if p.breaker.state == BreakerOpen {
		p.breaker.state, p.breaker.probe = BreakerProbing, p.seq
		return p.seq, p.breaker.every
	}
	return p.seq, 0
}

// end takes in the outcome of an attempt that is over.
func (p *pace) end(e ending, at time.Duration) {
	if e.class == store.ClassStatus && (e.status == http.StatusTooManyRequests || e.status == http.StatusServiceUnavailable) {
		p.slow(e, at)
	}
	if e.seq > p.mark && weigh(e.class, e.status) == healthUp {
		p.limit = min(2*p.limit, p.most)
		p.breaker.recovering = p.breaker.recovering && p.limit < p.most
	}
	before := p.breaker.state
	p.breaker.end(e, at, p.seq)
	if before != BreakerClosed && p.breaker.state == BreakerClosed {
		p.limit, p.mark = 1, p.seq
	}
}

// slow obeys a receiver that is asked for too much. Of the attempts in flight together only the first halves the
// limit: the others were begun before anyone knew.
func (p *pace) slow(e ending, at time.Duration) {
	switch {
	case e.hint > 0:
		p.hold = max(p.hold, at+min(e.hint, maxHint))
		p.limit, p.mark = 1, p.seq
	case e.seq > p.mark:
		p.limit, p.mark = max(1, p.limit/2), p.seq
	}
}

// meter spaces attempts by the rate. It is the generic cell rate algorithm: next is when an attempt would be on time,
// and it may come up to ahead earlier.
type meter struct {
	every, ahead time.Duration // every is 0 without a rate
	next         time.Duration
}

// newMeter returns a meter for a rate in attempts per second; 0 or less, or no number, means none. What is made up
// for is never there from the beginning: the rate holds in the first second too.
func newMeter(rate float64) meter {
	if !(rate > 0) {
		return meter{}
	}
	// Rounded up, so that the rate is not exceeded, and compared as a float: a low rate is longer than a Duration.
	every := time.Duration(min(math.Ceil(float64(time.Second)/rate), float64(never)))
	every = max(1, every)
	ahead := max(0, burst-every)
	return meter{every: every, ahead: ahead, next: ahead}
}

// free returns the time from which the next attempt may be made.
func (m *meter) free() time.Duration { return m.next - m.ahead }

func (m *meter) use(at time.Duration) {
	if m.every > 0 {
		m.next = min(max(m.next, at)+m.every, never)
	}
}

// grid releases deliveries at its ticks. A tick takes place when it is looked at, even if that is later: what was due
// at its time is released by it, up to max.
type grid struct {
	every time.Duration
	max   int
	tick  int64 // the latest; -1 before the first, which is at 0
	left  int   // what it may still release
}

// release returns the time at which a delivery that may be attempted from the given time on is released, which is not
// after at if that has happened.
func (g *grid) release(from, at time.Duration) time.Duration {
	if g.every <= 0 {
		return from
	}
	if tick := int64(at / g.every); tick > g.tick {
		g.tick, g.left = tick, g.max
		if g.max <= 0 {
			g.left = math.MaxInt
		}
	}
	if latest := time.Duration(g.tick) * g.every; g.left > 0 && from <= latest {
		return latest
	}
	next := int64(from / g.every)
	if from > time.Duration(next)*g.every {
		next++
	}
	return time.Duration(max(next, g.tick+1)) * g.every
}

// describe sets what pace has to say in s. now and at are the same moment.
func (p *pace) describe(s *Stats, now time.Time, at time.Duration) {
	wall := func(t time.Duration) time.Time { return now.Add(t - at).UTC().Round(time.Millisecond) }
	s.Limit, s.Breaker = p.limit, p.breaker.state
	s.OpenSince, s.NextProbe, s.HeldUntil = time.Time{}, time.Time{}, time.Time{}
	if s.Breaker != BreakerClosed {
		s.Limit, s.OpenSince = 1, wall(p.breaker.since)
	}
	if s.Breaker == BreakerOpen {
		s.NextProbe = wall(max(p.breaker.probeAt, p.hold))
	}
	if p.hold > at {
		s.HeldUntil = wall(p.hold)
	}
}
