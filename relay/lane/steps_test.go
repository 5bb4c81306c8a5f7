package lane

import (
	"testing"
	"time"
)

func TestSteps(t *testing.T) {
	const h = time.Hour
	start := time.Now()
	for name, c := range map[string]struct {
		steps []time.Duration       // an hour before each
		want  []time.Duration       // what Look returns for each
		since map[int]time.Duration // by hours from the start, as the clock showed them then
	}{
		"a clock that is only read":        {[]time.Duration{0, 0}, []time.Duration{0, 0}, map[int]time.Duration{-1: 0, 0: 0, 2: 0}},
		"one that is adjusted":             {[]time.Duration{59 * time.Second, -59 * time.Second}, []time.Duration{0, 0}, map[int]time.Duration{0: 0}},
		"one that is set forward":          {[]time.Duration{100 * h}, []time.Duration{100 * h}, map[int]time.Duration{-9: 100 * h, 1: 100 * h, 100: 100 * h, 101: 0, 200: 0}},
		"forward twice":                    {[]time.Duration{100 * h, 50 * h}, []time.Duration{100 * h, 50 * h}, map[int]time.Duration{0: 150 * h, 101: 50 * h, 151: 50 * h, 152: 0}},
		"forward by mistake, and back":     {[]time.Duration{100 * h, -100 * h}, []time.Duration{100 * h, -100 * h}, map[int]time.Duration{0: 0, 101: 0}},
		"forward, and not all of it back":  {[]time.Duration{100 * h, -40 * h}, []time.Duration{100 * h, -40 * h}, map[int]time.Duration{0: 60 * h, 100: 60 * h, 101: 0}},
		"forward twice, and further back":  {[]time.Duration{10 * h, 10 * h, -15 * h}, []time.Duration{10 * h, 10 * h, -15 * h}, map[int]time.Duration{0: 5 * h, 11: 0}},
		"back by mistake, and forward":     {[]time.Duration{-100 * h, 100 * h}, []time.Duration{-100 * h, 100 * h}, map[int]time.Duration{-99: 100 * h, 1: 100 * h, 2: 0}},
		"from 1970 to now":                 {[]time.Duration{500_000 * h}, []time.Duration{500_000 * h}, map[int]time.Duration{0: 500_000 * h}},
		"forward by a minute counts":       {[]time.Duration{time.Minute}, []time.Duration{time.Minute}, map[int]time.Duration{0: time.Minute}},
		"set anew each hour, all is added": {make20(h), make20(h), map[int]time.Duration{0: 20 * h}},
	} {
		t.Run(name, func(t *testing.T) {
			var s Steps
			if got := s.Look(start, start); got != 0 {
				t.Errorf("the first look: got %s, want 0", got)
			}
			wall, real := start.Round(0), start
			for n, by := range c.steps {
				wall, real = wall.Add(h+by), real.Add(h)
				if got := s.Look(wall, real); got != c.want[n] {
					t.Errorf("look %d: got %s, want %s", n, got, c.want[n])
				}
			}
			for at, want := range c.since {
				if got := s.Since(start.Add(time.Duration(at) * h)); got != want {
					t.Errorf("since %d h: got %s, want %s", at, got, want)
				}
			}
			if len(s.forward) > mostSteps {
				t.Errorf("got %d steps remembered, want at most %d", len(s.forward), mostSteps)
			}
		})
	}
	t.Run("a step shows though both clocks have a monotonic reading", func(t *testing.T) {
		var s Steps
		s.Look(start, start)
		if got := s.Look(start.Add(100*h), start); got != 100*h {
			t.Errorf("got %s, want 100h", got)
		}
	})
}

func make20(d time.Duration) []time.Duration {
	all := make([]time.Duration, 20)
	for n := range all {
		all[n] = d
	}
	return all
}
