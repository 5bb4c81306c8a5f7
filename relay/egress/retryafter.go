package egress

import (
	"net/http"
	"time"
)

// maxRetryAfter bounds what a receiver may ask for.
const maxRetryAfter = time.Hour

// retryAfter reads a Retry-After value (RFC 9110, section 10.2.3), either seconds or an HTTP date.
// It returns how long to wait from now, at least 0 and at most an hour, and false if v is neither.
func retryAfter(v string, now time.Time) (time.Duration, bool) {
	if v == "" {
		return 0, false
	}
	if seconds, ok := parseSeconds(v); ok {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter), true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	// Sub saturates, so a date in any year is safe.
	return min(max(at.Sub(now), 0), maxRetryAfter), true
}

// parseSeconds takes digits only, and as many as a receiver likes: all above the bound are the same.
func parseSeconds(v string) (int64, bool) {
	const enough = int64(maxRetryAfter / time.Second)
	var n int64
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' {
			return 0, false
		}
		n = min(n*10+int64(v[i]-'0'), enough)
	}
	return n, true
}
