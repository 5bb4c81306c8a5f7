package lane

import (
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// FuzzNext holds each outcome of an attempt to: a delivery that goes on is due in time and uses up what it should, one that
// ends says when and why, and no clock ends one that has attempts left but by the maximum age of the schedule.
func FuzzNext(f *testing.F) {
	for class := store.ClassOK; class <= store.ClassInterrupted; class++ {
		f.Add(uint8(class), 500, uint16(1), int64(time.Minute), int64(0), int64(time.Hour), int64(0), 0.5, int64(0))
		f.Add(uint8(class), 410, uint16(9), int64(-time.Hour), int64(time.Hour), int64(0), int64(30*time.Second), 1.0, int64(0))
		f.Add(uint8(class), 503, uint16(0), int64(365*24*time.Hour), int64(2*time.Hour), int64(96*time.Hour), int64(0), 0.0, int64(365*24*time.Hour))
	}
	f.Fuzz(func(t *testing.T, class uint8, status int, made uint16, age, hint, maxAge, probe int64, rnd float64, spare int64) {
		c := store.Class(class)
		if c < store.ClassOK || c > store.ClassInterrupted || !(rnd >= 0 && rnd <= 1) || maxAge < 0 || probe < 0 || probe > int64(MaxDelay) || hint < 0 || spare < 0 {
			return
		}
		schedule, err := NewSchedule([]time.Duration{0, time.Second, time.Minute, time.Hour}, 0.2, time.Duration(maxAge))
		if err != nil {
			t.Fatal(err)
		}
		schedule.spare = time.Duration(spare)
		now := time.Date(2026, 3, 14, 15, 9, 26, 535_000_000, time.UTC)
		before := store.Delivery{ID: store.DeliveryID{1}, State: store.Pending, Round: 1, Made: int(made), Attempts: min(int(made), 3), DueAt: now, AcceptedAt: now}
		if made > 0 {
			before.BegunAt = now.Add(-time.Duration(age)).Truncate(time.Millisecond)
		}
		a := store.Attempt{Class: c, Status: status, RetryHint: time.Duration(hint), StartedAt: now.Add(-time.Second)}
		after := next(before, a, schedule, now, rnd, time.Duration(probe))
		if again := next(before, a, schedule, now, rnd, time.Duration(probe)); again != after {
			t.Errorf("got %+v, and then %+v", after, again)
		}
		if after.ID != before.ID || after.Round != before.Round || after.Made != before.Made+1 || after.Attempts < before.Attempts || after.Attempts > before.Attempts+1 {
			t.Fatalf("got %+v after %+v", after, before)
		}
		if c == store.ClassInterrupted && (after.Attempts != before.Attempts || after.Made < maxMade && after.State != store.Pending) {
			t.Errorf("interrupted: got %+v, want it pending and no attempt used up", after)
		}
		switch after.State {
		case store.Pending:
			longest := max(time.Duration(1.2*float64(time.Hour)), time.Duration(probe), maxProbeDelay) + time.Millisecond
			if wait := after.DueAt.Sub(now.Truncate(time.Millisecond)); wait < 0 || wait > longest || !after.DueAt.Equal(after.DueAt.Truncate(time.Millisecond)) {
				t.Errorf("got due %s after the attempt, want within %s, to the millisecond", wait, longest)
			}
			if !after.EndedAt.IsZero() || after.Attempts >= schedule.Attempts() && c != store.ClassInterrupted {
				t.Errorf("got %+v, want attempts left", after)
			}
			if old := after.DueAt.Sub(after.BegunAt) - schedule.spare; maxAge > 0 && c != store.ClassInterrupted && old > time.Duration(maxAge) {
				t.Errorf("got %+v, which is too old by %s", after, old-time.Duration(maxAge))
			}
		case store.Delivered:
			if c != store.ClassOK || after.Reason != "" || after.EndedAt.IsZero() || !after.DueAt.IsZero() {
				t.Errorf("%s: got %+v", c, after)
			}
		case store.Failed:
			if c == store.ClassOK || after.Reason == "" || after.EndedAt.IsZero() || !after.DueAt.IsZero() {
				t.Errorf("%s: got %+v, want a reason", c, after)
			}
			left := after.Attempts < schedule.Attempts() && c != store.ClassBlocked && c != store.ClassRender && !gone(a) && after.Made < maxMade
			if left && maxAge == 0 {
				t.Errorf("got %+v, which has attempts left and no maximum age", after)
			}
		default:
			t.Errorf("got %+v", after)
		}
	})
}

// FuzzSteps holds a clock that is set again and again to: what has not been set makes nothing older, no time seems less
// long ago than a later one, and none by more than all steps forward together.
func FuzzSteps(f *testing.F) {
	f.Add([]byte{1, 200, 3, 100, 255, 0, 7, 129}, int64(time.Hour))
	f.Add([]byte{127, 127, 127}, int64(24*time.Hour))
	f.Fuzz(func(t *testing.T, moves []byte, unit int64) {
		if len(moves) > 1000 || unit <= 0 || unit > int64(24*time.Hour) {
			return
		}
		var s Steps
		start := time.Now()
		wall, real := start.Round(0), start
		s.Look(wall, real)
		var forward time.Duration
		for _, m := range moves {
			by := time.Duration(int8(m)) * time.Duration(unit)
			wall, real = wall.Add(time.Minute+by), real.Add(time.Minute)
			got := s.Look(wall, real)
			if want := by; (by.Abs() >= leastStep) != (got == want && got != 0) {
				t.Fatalf("set by %s: got %s", by, got)
			}
			forward += max(got, 0)
			if len(s.forward) > mostSteps {
				t.Fatalf("got %d steps remembered", len(s.forward))
			}
		}
		last := s.Since(start.Add(-10 * 365 * 24 * time.Hour))
		if last > forward {
			t.Errorf("got %s, and the clock was set forward by %s", last, forward)
		}
		for at := start.Add(-time.Duration(unit) * 200); len(moves) > 0 && at.Before(wall); at = at.Add(max(wall.Sub(start).Abs()/50, time.Hour)) {
			by := s.Since(at)
			if by < 0 || by > last {
				t.Fatalf("got %s since %s, and %s since before", by, at, last)
			}
			last = by
		}
		if got := s.Since(wall.Add(time.Nanosecond)); len(s.forward) == 0 && got != 0 {
			t.Errorf("got %s, want none", got)
		}
	})
}
