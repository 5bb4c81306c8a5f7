package main

import (
	"fmt"
	"math"

	"charm.land/lipgloss/v2"

	"github.com/postern-relay/postern/relay/admin"
)

// failingRate is the share of successful attempts below which a destination is called failing, as on the dashboard.
const failingRate = 0.9

// condition is the state of a destination in a word or two, by the same rule as on the dashboard.
func (s *screen) condition(d admin.Destination) (string, lipgloss.Style) {
	rate := d.LastHour.SuccessRate
	switch {
	case !d.InConfig:
		return "not in config", s.warn
	case !d.Enabled:
		return "disabled", s.faint
	case d.Pause != nil:
		return "paused", s.warn
	case d.Breaker == "open":
		return "outage", s.bad
	case d.Breaker == "probing":
		return "probing", s.warn
	case d.HeldUntil.After(s.now):
		return "slowed", s.warn
	case rate == nil:
		return "idle", s.faint
	case *rate < failingRate:
		return "failing", s.bad
	}
	return "healthy", s.good
}

// next says what a destination waits for.
func (s *screen) next(d admin.Destination) string {
	switch {
	case d.Pause != nil:
		return "postern resume; " + clean(d.Pause.Reason)
	case !d.NextProbeAt.IsZero():
		return "probe " + s.age(d.NextProbeAt)
	case d.HeldUntil.After(s.now):
		return "goes on " + s.age(d.HeldUntil)
	case d.Pending > 0 && !d.NextRetryAt.IsZero():
		return "attempt " + s.age(d.NextRetryAt)
	}
	return ""
}

// latency returns the times from acceptance to delivery of the latest minute that has any.
func latency(series []admin.Minute) (p50, p99 string) {
	for i := len(series) - 1; i >= 0; i-- {
		if m := series[i]; m.P50Seconds != nil && m.P99Seconds != nil {
			return took(*m.P50Seconds), took(*m.P99Seconds)
		}
	}
	return "-", "-"
}

// percent writes a share; only all is 100 %, and only none is 0 %.
func percent(share float64) string {
	p := math.Round(share*1000) / 10
	if share < 1 {
		p = min(p, 99.9)
	}
	if share > 0 {
		p = max(p, 0.1)
	}
	if p == math.Trunc(p) {
		return fmt.Sprintf("%.0f%%", p)
	}
	return fmt.Sprintf("%.1f%%", p)
}
