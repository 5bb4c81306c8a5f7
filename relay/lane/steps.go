package lane

import (
	"slices"
	"sync"
	"time"
)

const (
	// leastStep is what the wall clock may go forward or back beyond the time that has passed and still count as adjusted,
	// not as set.
	leastStep = time.Minute

	// mostSteps is how many steps are remembered. The two oldest become one beyond it, which is never too strict.
	mostSteps = 16
)

// Steps notices that the wall clock is set, and says by how much a time that it showed before seems longer ago than it is.
// The zero value is ready, and its methods may be called from several goroutines. Look has to be called about once a
// minute, and a step of less than a minute is none.
//
// What goes by it: whatever would end or delete something because of its age. A clock that is set forward, by mistake or
// because it was wrong before, must not do that.
type Steps struct {
	mu         sync.Mutex // guards the fields below
	wall, real time.Time  // at the last Look
	forward    []stepped  // oldest first
}

// stepped is a step forward.
type stepped struct {
	at time.Time // what the clock showed afterwards
	by time.Duration
}

// Look takes in what the wall clock shows, and returns by how much it was set since the last call: forward, back if that
// is negative, and 0 for the first call. real is the same moment with a monotonic reading, as time.Now returns it; that of
// wall is not looked at, for with it a step does not show.
//
// A step back takes back the latest steps forward: then the mistake is mended.
func (s *Steps) Look(wall, real time.Time) time.Duration {
	wall = wall.Round(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	var by time.Duration
	if !s.wall.IsZero() {
		by = wall.Sub(s.wall) - real.Sub(s.real)
	}
	s.wall, s.real = wall, real
	switch {
	case by >= leastStep:
		s.forward = append(s.forward, stepped{wall, by})
	case by <= -leastStep:
		s.takeBackLocked(-by)
	default:
		return 0
	}
	if len(s.forward) > mostSteps {
		s.forward[1].by += s.forward[0].by
		s.forward = slices.Delete(s.forward, 0, 1)
	}
	return by
}

func (s *Steps) takeBackLocked(by time.Duration) {
	for n := len(s.forward) - 1; n >= 0; n-- {
		if s.forward[n].by > by {
			s.forward[n].by -= by
			return
		}
		by -= s.forward[n].by
		s.forward = s.forward[:n]
	}
}

// Since returns by how much the clock was set forward since it showed t. It is never less than what it is for a later t.
func (s *Steps) Since(t time.Time) (by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.forward {
		if f.at.After(t) {
			by += f.by
		}
	}
	return by
}
