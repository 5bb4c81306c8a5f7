package ingest

import (
	"testing"
	"time"
)

func TestParseDelay(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"90s", 90 * time.Second, true},
		{"10m", 10 * time.Minute, true},
		{"1h30m", 90 * time.Minute, true},
		{"90", 90 * time.Second, true},
		{"0", 0, true},
		{"007", 7 * time.Second, true},
		{"1.5s", 1500 * time.Millisecond, true},
		{"720h", maxDelay, true},
		{"2592000", maxDelay, true},
		{"720h1ns", 0, false},
		{"2592001", 0, false},
		{"-1s", 0, false},
		{"-1", 0, false},
		{"+5", 0, false},
		{"1e3", 0, false},
		{"1.5", 0, false},
		{"", 0, false},
		{" 5s", 0, false},
		{"s", 0, false},
		{"5 s", 0, false},
		{"30d", 0, false},
		{"999999999999999999999999", 0, false},
	} {
		got, err := parseDelay(tc.in)
		if got.delay != tc.want || !got.at.IsZero() || (err == nil) != tc.ok {
			t.Errorf("parseDelay(%q): got %+v and %v, want %v and ok = %t", tc.in, got, err, tc.want, tc.ok)
		}
	}
}

func TestTimingFrom(t *testing.T) {
	now := time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name string
		in   timing
		want time.Duration
		ok   bool
	}{
		{"nothing is at once", timing{}, 0, true},
		{"a delay is kept", timing{delay: time.Minute}, time.Minute, true},
		{"a part of a millisecond is rounded up", timing{delay: time.Second + 1}, time.Second + time.Millisecond, true},
		{"a time ahead", timing{at: now.Add(time.Hour)}, time.Hour, true},
		{"a time in another zone", timing{at: now.Add(time.Hour).In(time.FixedZone("x", 7200))}, time.Hour, true},
		{"a time past is now", timing{at: now.Add(-time.Hour)}, 0, true},
		{"a time long past is now", timing{at: time.Time{}.Add(1)}, 0, true},
		{"30 days ahead", timing{at: now.Add(maxDelay)}, maxDelay, true},
		{"more than 30 days ahead", timing{at: now.Add(maxDelay + 1)}, 0, false},
		{"very far ahead", timing{at: now.AddDate(7000, 0, 0)}, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.in.from(now)
			if got != tc.want || (err == nil) != tc.ok {
				t.Errorf("got %v and %v, want %v and ok = %t", got, err, tc.want, tc.ok)
			}
		})
	}
}

func FuzzTiming(f *testing.F) {
	for _, seed := range []string{"90s", "90", "720h", "1ns", "-1", "2026-12-24T18:00:00Z", "2026-12-24T18:00:00.9999+14:00", "9999-12-31T23:59:59Z", ""} {
		f.Add(seed)
	}
	now := time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func(string) (timing, error){parseDelay, parseTime} {
			parsed, err := parse(s)
			if err != nil {
				if parsed != (timing{}) {
					t.Errorf("%q: got %+v beside an error", s, parsed)
				}
				continue
			}
			d, err := parsed.from(now)
			if err == nil && (d < 0 || d > maxDelay || d%time.Millisecond != 0 || now.Add(d).Before(parsed.at) || d < parsed.delay) {
				t.Errorf("%q: got a delay of %v, want whole milliseconds up to 30 days and not too early", s, d)
			}
		}
	})
}
