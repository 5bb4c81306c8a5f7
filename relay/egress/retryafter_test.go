package egress

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		name string
		v    string
		want time.Duration
		ok   bool
	}{
		{"absent", "", 0, false},
		{"zero seconds mean now", "0", 0, true},
		{"seconds", "120", 2 * time.Minute, true},
		{"leading zeros are digits", "0007", 7 * time.Second, true},
		{"just inside an hour", "3599", 3599 * time.Second, true},
		{"an hour", "3600", time.Hour, true},
		{"just over an hour is an hour", "3601", time.Hour, true},
		{"more digits than any number holds are an hour", "99999999999999999999999999", time.Hour, true},
		{"negative is neither", "-1", 0, false},
		{"a plus sign is no digit", "+5", 0, false},
		{"a fraction is neither", "1.5", 0, false},
		{"a unit is neither", "5s", 0, false},
		{"white space is neither", " 5", 0, false},
		{"full-width digits are neither", "\uff15", 0, false},
		{"an HTTP date", date(90 * time.Second), 90 * time.Second, true},
		{"a date that is now", date(0), 0, true},
		{"a date in the past means now", date(-time.Second), 0, true},
		{"a date in an hour", date(time.Hour), time.Hour, true},
		{"a date just after an hour is an hour", date(time.Hour + time.Second), time.Hour, true},
		{"a date centuries ahead is an hour", "Fri, 31 Dec 9999 23:59:59 GMT", time.Hour, true},
		{"a date long ago means now", "Mon, 01 Jan 0001 00:00:00 GMT", 0, true},
		{"the RFC 850 form", "Saturday, 21-Nov-26 12:01:00 GMT", time.Minute, true},
		{"the asctime form", "Sat Nov 21 12:01:00 2026", time.Minute, true},
		{"RFC 3339 is no HTTP date", "2026-11-21T12:01:00Z", 0, false},
		{"words", "soon", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, ok := retryAfter(c.v, now); got != c.want || ok != c.ok {
				t.Errorf("got %v, %v, want %v, %v", got, ok, c.want, c.ok)
			}
		})
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, v := range []string{"", "0", "120", "3601", "Sat, 21 Nov 2026 12:01:00 GMT", "-1", "1e3", "\x00"} {
		f.Add(v, int64(1_795_000_000))
	}
	f.Fuzz(func(t *testing.T, v string, unix int64) {
		got, ok := retryAfter(v, time.Unix(unix, 0))
		if got < 0 || got > time.Hour {
			t.Errorf("got %v for %q, want between 0 and an hour", got, v)
		}
		if !ok && got != 0 {
			t.Errorf("got %v for %q, which is no Retry-After, want 0", got, v)
		}
	})
}
