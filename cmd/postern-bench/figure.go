package main

import (
	"fmt"
	"slices"
	"time"
)

// figure is one row of the table.
type figure struct {
	Measurement string  `json:"measurement"`
	Name        string  `json:"figure"`
	Unit        string  `json:"unit"`
	Postern     float64 `json:"postern"`
	Bound       float64 `json:"bound,omitempty"`      // 0 if nothing stands beside it
	BoundName   string  `json:"bound_name,omitempty"` // what stands beside it
	Goal        goal    `json:"goal,omitzero"`
	Note        string  `json:"note,omitempty"`

	// Where a figure of the growth stands in the chart.
	Axis   string  `json:"axis,omitempty"`
	Series string  `json:"series,omitempty"`
	X      float64 `json:"x,omitempty"`
}

// goal is what a figure should be. The zero goal is none.
type goal struct {
	Ratio bool    `json:"ratio,omitempty"` // of the ratio to the bound, not of the figure itself
	Least float64 `json:"least,omitempty"` // at least
	Most  float64 `json:"most,omitempty"`  // at most, in the figure's unit
}

func ratioAtLeast(x float64) goal { return goal{Ratio: true, Least: x} }
func ratioAtMost(x float64) goal  { return goal{Ratio: true, Most: x} }
func atMost(x float64) goal       { return goal{Most: x} }

func (g goal) String() string {
	switch {
	case g.Ratio && g.Least > 0:
		return fmt.Sprintf("≥ %g ×", g.Least)
	case g.Ratio:
		return fmt.Sprintf("≤ %g ×", g.Most)
	case g.Most > 0:
		return fmt.Sprintf("≤ %g", g.Most)
	}
	return ""
}

// ratio returns 0 where there is no bound.
func (f figure) ratio() float64 {
	if f.Bound == 0 {
		return 0
	}
	return f.Postern / f.Bound
}

// met says whether the goal is met, and nothing where there is none.
func (f figure) met() string {
	x := f.Postern
	if f.Goal.Ratio {
		x = f.ratio()
	}
	switch {
	case f.Goal == goal{}:
		return ""
	case f.Goal.Least > 0 && x < f.Goal.Least, f.Goal.Most > 0 && x > f.Goal.Most:
		return "no"
	}
	return "yes"
}

// median returns the middle of xs, and the mean of both middles of an even number of them.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	xs = slices.Sorted(slices.Values(xs))
	if n := len(xs); n%2 == 0 {
		return (xs[n/2-1] + xs[n/2]) / 2
	}
	return xs[len(xs)/2]
}

// percentile returns the q-th part (0 to 1) of sorted times.
func percentile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func rate(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

const mebibyte = 1 << 20

func inMebibytes(bytes int64) float64 { return float64(bytes) / mebibyte }

// samples gathers figures of several rounds under names.
type samples map[string][]float64

func (s samples) add(name string, x float64) { s[name] = append(s[name], x) }

func (s samples) median(name string) float64 { return median(s[name]) }
