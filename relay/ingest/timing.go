package ingest

import (
	"errors"
	"fmt"
	"time"
)

// maxDelay is how far ahead an app may put a delivery.
const maxDelay = 30 * 24 * time.Hour

// timing is when the app wants its message to be delivered. The zero value means at once.
type timing struct {
	delay time.Duration // from acceptance
	at    time.Time     // or a time of its own
}

// parseDelay reads a duration as Go writes it (1m30s) or as whole seconds (90). The error is fit for the client.
func parseDelay(s string) (timing, error) {
	text := s
	if s != "" && len(s) < 20 && onlyDigits(s) {
		text = s + "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return timing{}, fmt.Errorf("%.40q is no duration; write one such as 90s, 10m or 24h, or whole seconds", s)
	}
	if d < 0 {
		return timing{}, errors.New("it is negative; write how long to wait from now")
	}
	if d > maxDelay {
		return timing{}, errors.New("it is more than 30 days; wait at most 720h")
	}
	return timing{delay: d}, nil
}

// parseTime reads a time in RFC 3339. The error is fit for the client.
func parseTime(s string) (timing, error) {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return timing{}, fmt.Errorf("%.40q is no time of RFC 3339; write one such as 2026-12-24T18:00:00Z", s)
	}
	return timing{at: at}, nil
}

// from returns the delay that t means for a message accepted at a time: 0 to maxDelay, in whole milliseconds, rounded
// up so that nothing is early. The error is fit for the client.
func (t timing) from(accepted time.Time) (time.Duration, error) {
	d := t.delay
	if !t.at.IsZero() {
		d = max(t.at.Sub(accepted), 0)
		if d > maxDelay {
			return 0, fmt.Errorf("%s is more than 30 days ahead; choose an earlier time", t.at.UTC().Format(time.RFC3339))
		}
	}
	if rest := d % time.Millisecond; rest > 0 {
		d += time.Millisecond - rest
	}
	return d, nil
}

func onlyDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
