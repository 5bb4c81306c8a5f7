package lane

import (
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	// MaxAttempts is the largest number of attempts that a schedule can have.
	MaxAttempts = 1000

	// MaxDelay is the longest delay that a schedule can have before one attempt, jitter not counted.
	MaxDelay = 30 * 24 * time.Hour

	// maxHint bounds what a receiver can ask for with Retry-After.
	maxHint = time.Hour
)

// Schedule says when the attempts of a delivery are made. The zero value means one attempt, at once. A Schedule
// never changes and may be used by several goroutines.
type Schedule struct {
	delays []time.Duration // before each attempt, the first included
	jitter float64
	maxAge time.Duration
	spare  time.Duration // by how much a delivery's first attempt seems longer ago than it is, see Steps
}

// NewSchedule makes a schedule of the delay before each attempt, the first included: five delays are five attempts.
// The first counts from acceptance, the others from the end of the attempt before. An empty list means one attempt,
// at once.
//
// jitter, from 0 to 1, lengthens each delay but the first by up to that share of it, never shortens it. maxAge ends
// a delivery whose next attempt would come later than that after the first one of its round (see
// store.Delivery.BegunAt); 0 means no such bound. So the first attempt is made at any age, and what a delivery has
// waited for before it does not count.
func NewSchedule(delays []time.Duration, jitter float64, maxAge time.Duration) (Schedule, error) {
	if len(delays) > MaxAttempts {
		return Schedule{}, fmt.Errorf("%d attempts are too many; give at most %d", len(delays), MaxAttempts)
	}
	for i, d := range delays {
		if d < 0 || d > MaxDelay {
			return Schedule{}, fmt.Errorf("delay %s before attempt %d is out of range; give 0s to %s", d, i+1, MaxDelay)
		}
	}
	if !(jitter >= 0 && jitter <= 1) { // written so that it holds for NaN too
		return Schedule{}, fmt.Errorf("jitter %v is out of range; give 0 to 1", jitter)
	}
	if maxAge < 0 {
		return Schedule{}, fmt.Errorf("maximum age %s is negative; give 0s for none", maxAge)
	}
	return Schedule{delays: slices.Clone(delays), jitter: jitter, maxAge: maxAge}, nil
}

// Exponential returns the delays, for NewSchedule, of a number of attempts from 1 to MaxAttempts: the first is made
// at once, the second after first, and each delay from there on is factor times the one before, but never above
// longest. first and longest are from 0 to MaxDelay, first not above longest; factor is 1 or more.
func Exponential(attempts int, first, longest time.Duration, factor float64) ([]time.Duration, error) {
	switch {
	case attempts < 1 || attempts > MaxAttempts:
		return nil, fmt.Errorf("%d attempts are out of range; give 1 to %d", attempts, MaxAttempts)
	case first < 0 || first > MaxDelay:
		return nil, fmt.Errorf("first delay %s is out of range; give 0s to %s", first, MaxDelay)
	case longest < first || longest > MaxDelay:
		return nil, fmt.Errorf("longest delay %s is out of range; give %s (the first) to %s", longest, first, MaxDelay)
	case !(factor >= 1) || math.IsInf(factor, 1):
		return nil, fmt.Errorf("factor %v is out of range; give 1 or more", factor)
	}
	delays := make([]time.Duration, attempts)
	next := first
	for i := 1; i < attempts; i++ {
		delays[i] = next
		// Compared as floats: the product may be larger than a Duration can be.
		if grown := float64(next) * factor; grown < float64(longest) {
			next = time.Duration(grown)
		} else {
			next = longest
		}
	}
	return delays, nil
}

// First returns the delay between acceptance and the first attempt. It has no jitter.
func (s Schedule) First() time.Duration {
	if len(s.delays) == 0 {
		return 0
	}
	return s.delays[0]
}

// Attempts returns how many attempts a round has at most, at least 1.
func (s Schedule) Attempts() int { return max(1, len(s.delays)) }

// MaxAge returns how long after the first attempt of a round a further one may still be planned, or 0 for ever.
func (s Schedule) MaxAge() time.Duration { return s.maxAge }

// delay returns how long to wait after a failed attempt when made attempts have been used up, made being below
// Attempts. hint is what the receiver asked for, 0 if nothing; rnd is from 0 to 1.
func (s Schedule) delay(made int, hint time.Duration, rnd float64) time.Duration {
	d := max(s.delays[made], min(hint, maxHint))
	return d + time.Duration(float64(d)*s.jitter*rnd)
}
