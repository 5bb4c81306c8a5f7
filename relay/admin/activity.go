package admin

import (
	"sync"
	"time"

	"github.com/postern-relay/postern/store"
)

const (
	hourMinutes = 60

	// Of 4 bytes each: a minute takes 120 bytes then, and the hour of a destination less than 8 KiB, whatever happens.
	latencyClasses = 24
)

// latencyBounds returns the upper bounds of the classes of latency but the last, which has none. Each is about twice
// the one before, so a percentile is within a factor of two, and mostly nearer: within a class it is interpolated.
func latencyBounds() [latencyClasses - 1]time.Duration {
	return [...]time.Duration{
		2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
		100 * time.Millisecond, 200 * time.Millisecond, 350 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond,
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, time.Minute, 2 * time.Minute,
		5 * time.Minute, 15 * time.Minute, time.Hour, 4 * time.Hour, 12 * time.Hour, 48 * time.Hour,
	}
}

// Activity counts what each destination does, by minute, for the last hour. The zero value is ready; its methods may
// be called from several goroutines. It holds less than 8 KiB for each destination.
type Activity struct {
	Now func() time.Time // wall clock; nil means time.Now

	mu     sync.Mutex // guards the field below
	byName map[string]*hour
}

// hour is what one destination has done.
type hour struct {
	minutes     [hourMinutes]minute // by the minute's number modulo 60
	certExpires time.Time           // as last seen
}

// minute is what happened in one minute.
type minute struct {
	number    int64 // since 1970; a slot of another number is empty
	delivered uint32
	failed    uint32
	attempts  uint32
	latency   [latencyClasses]uint32 // of those delivered in their first round, from acceptance
}

// LastHour is what a destination has done in the last 60 minutes.
type LastHour struct {
	// Delivered deliveries.
	Delivered int64 `json:"delivered"`
	// Failed deliveries.
	Failed int64 `json:"failed"`
	// Attempts that came to an end; interrupted ones are not counted.
	Attempts int64 `json:"attempts"`
	// SuccessRate of the attempts, 0 to 1; null without any.
	SuccessRate *float64 `json:"success_rate" jsonschema:"nullable"`
	// Series by minute, the oldest first; the last one is the minute that is not over.
	Series []Minute `json:"series"`
}

// Minute is what a destination has done in one minute.
type Minute struct {
	// At is when the minute began.
	At time.Time `json:"at"`
	// Delivered deliveries.
	Delivered int64 `json:"delivered"`
	// Failed deliveries.
	Failed int64 `json:"failed"`
	// Attempts that came to an end.
	Attempts int64 `json:"attempts"`
	// P50Seconds is the median time from acceptance to delivery; null if nothing was delivered in its first round.
	P50Seconds *float64 `json:"p50_seconds" jsonschema:"nullable"`
	// P99Seconds is the same for 99 of 100.
	P99Seconds *float64 `json:"p99_seconds" jsonschema:"nullable"`
}

// Observe counts an attempt that is on record; its arguments are those of lane.Lane.Observe. A nil Activity counts
// nothing.
func (a *Activity) Observe(_, after store.Delivery, at store.Attempt) {
	if a == nil || at.Class == store.ClassInterrupted {
		return
	}
	now := time.Now
	if a.Now != nil {
		now = a.Now
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.byName[after.Destination]
	if h == nil {
		if a.byName == nil {
			a.byName = map[string]*hour{}
		}
		h = new(hour)
		a.byName[after.Destination] = h
	}
	if !at.CertExpires.IsZero() {
		h.certExpires = at.CertExpires
	}
	m := h.at(now())
	m.attempts++
	switch after.State {
	case store.Delivered:
		m.delivered++
		if after.Round == 1 {
			m.latency[latencyClass(after.EndedAt.Sub(after.AcceptedAt))]++
		}
	case store.Failed:
		m.failed++
	}
}

// Keep forgets the destinations that keep does not want, as after a reload. A nil Activity has none.
func (a *Activity) Keep(keep func(name string) bool) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range a.byName {
		if !keep(name) {
			delete(a.byName, name)
		}
	}
}

func minuteNumber(t time.Time) int64 { return t.Unix() / 60 }

// slot returns where in hour.minutes a minute is, also one before 1970: a machine without a clock begins there.
func slot(number int64) int64 { return (number%hourMinutes + hourMinutes) % hourMinutes }

func (h *hour) at(now time.Time) *minute {
	number := minuteNumber(now)
	m := &h.minutes[slot(number)]
	if m.number != number {
		*m = minute{number: number}
	}
	return m
}

// lastHour returns what a destination has done in the hour before now, and its certificate's end of validity.
func (a *Activity) lastHour(name string, now time.Time) (LastHour, time.Time) {
	var known hour
	if a != nil {
		a.mu.Lock()
		if h := a.byName[name]; h != nil {
			known = *h
		}
		a.mu.Unlock()
	}
	out := LastHour{Series: make([]Minute, 0, hourMinutes)}
	var succeeded int64
	for number := minuteNumber(now) - hourMinutes + 1; number <= minuteNumber(now); number++ {
		m := known.minutes[slot(number)]
		if m.number != number {
			m = minute{}
		}
		out.Delivered += int64(m.delivered)
		out.Failed += int64(m.failed)
		out.Attempts += int64(m.attempts)
		succeeded += int64(m.delivered)
		out.Series = append(out.Series, Minute{
			At: time.Unix(number*60, 0).UTC(), Delivered: int64(m.delivered), Failed: int64(m.failed), Attempts: int64(m.attempts),
			P50Seconds: percentile(m.latency, 0.5), P99Seconds: percentile(m.latency, 0.99),
		})
	}
	if out.Attempts > 0 {
		rate := float64(succeeded) / float64(out.Attempts)
		out.SuccessRate = &rate
	}
	return out, instant(known.certExpires)
}

func latencyClass(d time.Duration) int {
	for i, bound := range latencyBounds() {
		if d <= bound {
			return i
		}
	}
	return latencyClasses - 1
}

// percentile returns the time in seconds that the given part of what was counted did not exceed, interpolated within
// its class, or nil if nothing was counted. The last class has no upper bound: its lower one is returned.
func percentile(counts [latencyClasses]uint32, part float64) *float64 {
	var total float64
	for _, n := range counts {
		total += float64(n)
	}
	if total == 0 {
		return nil
	}
	rank, before := part*total, 0.0
	bounds := latencyBounds()
	lower := 0.0
	for i, n := range counts {
		if i == len(bounds) {
			break
		}
		upper := bounds[i].Seconds()
		if before+float64(n) >= rank && n > 0 {
			at := lower + (upper-lower)*(rank-before)/float64(n)
			return &at
		}
		before, lower = before+float64(n), upper
	}
	return &lower
}
