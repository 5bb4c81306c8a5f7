package admin

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

func TestReadTime(t *testing.T) {
	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"2026-03-14T15:09:26Z":      time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC),
		"2026-03-14T15:09:26+01:00": time.Date(2026, 3, 14, 14, 9, 26, 0, time.UTC),
		"0s":                        now,
		"90m":                       now.Add(-90 * time.Minute),
		"1h30m":                     now.Add(-90 * time.Minute),
		"2d":                        now.Add(-48 * time.Hour),
		"1d12h":                     now.Add(-36 * time.Hour),
		"36500d":                    now.Add(-maxAge),
	} {
		if got, err := readTime("since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("readTime(%q): got %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"-1h", "+1h", "1", "d", "1d-1h", "1d+1h", "36501d", "36500d1ns", "36500d2562047h", "65535d", "200000d", "-1d", "+1d", "99999999999999999999d", "yesterday", "2026-03-14", "1h "} {
		_, err := readTime("since", text, now)
		if p, ok := errors.AsType[*problem.Error](err); !ok || p.Status != 400 || !strings.Contains(p.Detail, "since is") {
			t.Errorf("readTime(%q): got %v, want a problem", text, err)
		}
	}
}

func FuzzReadTime(f *testing.F) {
	for _, seed := range []string{"1h", "2d", "1d12h", "2026-03-14T15:09:26Z", "d", "200000d", "99999999999999999999d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
		if d, ok := readAge(text); ok && (d < 0 || d > maxAge) {
			t.Errorf("readAge(%q): got %v, out of range", text, d)
		}
		if got, err := readTime("since", text, now); err != nil && !got.IsZero() {
			t.Errorf("readTime(%q): got %v beside an error", text, got)
		}
	})
}

func FuzzCursor(f *testing.F) {
	filter := DeliveryFilter{Destination: "alerts", Since: "1h"}
	f.Add(filter.cursor(store.Place{ID: store.DeliveryID{1, 2, 3}}))
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := filter.place(text)
		if err == nil && text != "" && filter.cursor(p) != text {
			t.Errorf("place(%q): got %v, which reads back as %q", text, p, filter.cursor(p))
		}
		if err != nil && p != (store.Place{}) {
			t.Errorf("place(%q): got %v beside an error", text, p)
		}
	})
}

func TestMarkTellsFiltersApart(t *testing.T) {
	seen := map[[filterMark]byte]DeliveryFilter{}
	for _, f := range []DeliveryFilter{
		{}, {Destination: "a"}, {State: "a"}, {Event: "a"}, {Class: "a"}, {Since: "a"}, {Until: "a"}, {Q: "a"},
		{Destination: "a", State: "b"}, {Destination: "ab"}, {Event: "a\x01\x00b"}, {Event: "a", Class: "b"},
	} {
		if other, ok := seen[f.mark()]; ok {
			t.Errorf("got the same mark for %+v and %+v", f, other)
		}
		seen[f.mark()] = f
	}
}

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern, path, segment string
		want                   bool
	}{
		{"/api/v1/a", "/api/v1/a", "", true},
		{"/api/v1/a", "/api/v1/a/", "", false},
		{"/api/v1/a", "/api/v1", "", false},
		{"/api/v1/a", "/api/v1/b", "", false},
		{"/api/v1/a/{id}", "/api/v1/a/x", "x", true},
		{"/api/v1/a/{id}", "/api/v1/a/x%2Fy%20z", "x/y z", true},
		{"/api/v1/a/{id}", "/api/v1/a/", "", false},
		{"/api/v1/a/{id}", "/api/v1/a", "", false},
		{"/api/v1/a/{id}", "/api/v1/a/x/y", "", false},
		{"/api/v1/a/{id}/b", "/api/v1/a/x/b", "x", true},
		{"/api/v1/a/{id}/b", "/api/v1/a//b", "", false},
		{"/api/v1/a/{id}/b", "/api/v1/a/%/b", "", false},
	} {
		op := operation{path: tc.pattern}
		segment, ok := op.matches(tc.path)
		if ok != tc.want || ok && segment != tc.segment {
			t.Errorf("%s matches %s: got %q, %t; want %q, %t", tc.pattern, tc.path, segment, ok, tc.segment, tc.want)
		}
	}
}

func TestCredentialName(t *testing.T) {
	for name, want := range map[string]bool{
		"Authorization": true, "Proxy-Authorization": true, "Cookie": true, "Set-Cookie": true, "X-Api-Key": true, "X-Auth-Token": true,
		"X-Client-Secret": true, "X-Amz-Security-Token": true, "Content-Type": false, "Webhook-Id": false, "Webhook-Signature": false,
		"X-Request-Id": false, "Idempotency-Key": false, "Traceparent": false,
	} {
		if got := credentialName(name); got != want {
			t.Errorf("credentialName(%q): got %t, want %t", name, got, want)
		}
	}
}

func TestPostedHeadersAreMaskedAsRecordedOnes(t *testing.T) {
	for name, want := range map[string]string{
		"X-Session": masked, "X-Auth": masked, "X-Signing-Key": masked, "X-Hub-Signature": masked, "Authorization": masked,
		"X-Request-Id": "v", "Traceparent": "v", "Content-Type": "v",
	} {
		if got := postedHeaders([]store.Field{{Name: name, Value: "v"}}); got[0] != (Header{Name: name, Value: want}) {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
}

func TestMaskQuery(t *testing.T) {
	for path, want := range map[string]string{
		"": "", "/a/b": "/a/b", "?a=b": "?a=***", "/a?b=c&d=&e": "/a?b=***&d=***&***", "/a?": "/a?", "/a?x=1?y=2": "/a?x=***",
	} {
		if got := MaskQuery(path); got != want {
			t.Errorf("MaskQuery(%q): got %q, want %q", path, got, want)
		}
	}
}

func TestActivity(t *testing.T) {
	start := time.Date(2026, 3, 14, 12, 0, 30, 0, time.UTC)
	now := start
	a := &Activity{Now: func() time.Time { return now }}
	observe := func(state store.State, class store.Class, round int, took time.Duration) {
		a.Observe(store.Delivery{}, store.Delivery{
			Destination: "alerts", State: state, Round: round, AcceptedAt: now.Add(-took), EndedAt: now,
		}, store.Attempt{Class: class})
	}
	observe(store.Delivered, store.ClassOK, 1, 100*time.Millisecond)
	observe(store.Delivered, store.ClassOK, 2, 72*time.Hour) // a replay says nothing about latency
	observe(store.Pending, store.ClassStatus, 1, time.Second)
	observe(store.Failed, store.ClassStatus, 1, time.Second)
	observe(store.Pending, store.ClassInterrupted, 1, time.Second)
	now = now.Add(59 * time.Minute)
	observe(store.Delivered, store.ClassOK, 1, 100*time.Millisecond)

	got, _ := a.lastHour("alerts", now)
	if got.Delivered != 3 || got.Failed != 1 || got.Attempts != 5 || got.SuccessRate == nil || *got.SuccessRate != 0.6 {
		t.Errorf("got %d delivered, %d failed, %d attempts; want 3, 1 and 5 without the one that was interrupted", got.Delivered, got.Failed, got.Attempts)
	}
	if len(got.Series) != 60 || !got.Series[0].At.Equal(start.Truncate(time.Minute)) || got.Series[0].Delivered != 2 || got.Series[59].Delivered != 1 {
		t.Errorf("got %d minutes, the first %+v, the last %+v", len(got.Series), got.Series[0], got.Series[59])
	}
	if p := got.Series[0].P99Seconds; p == nil || *p < 0.05 || *p > 0.1 {
		t.Errorf("got p99 %v, want one near 100 ms without that of a replay", p)
	}
	if got.Series[30].P50Seconds != nil || got.Series[30].Attempts != 0 {
		t.Errorf("got %+v, want a minute without anything", got.Series[30])
	}

	t.Run("a minute later the first minute is gone", func(t *testing.T) {
		if got, _ := a.lastHour("alerts", now.Add(time.Minute)); got.Delivered != 1 {
			t.Errorf("got %d delivered, want 1", got.Delivered)
		}
	})
	t.Run("an hour later a slot is used anew", func(t *testing.T) {
		now = start.Add(time.Hour)
		observe(store.Failed, store.ClassStatus, 1, 0)
		if got, _ := a.lastHour("alerts", now); got.Delivered != 1 || got.Failed != 1 {
			t.Errorf("got %d delivered and %d failed, want 1 and 1", got.Delivered, got.Failed)
		}
	})
	t.Run("a destination that is not kept is forgotten", func(t *testing.T) {
		a.Keep(func(name string) bool { return name != "alerts" })
		if got, _ := a.lastHour("alerts", now); got.Attempts != 0 || got.SuccessRate != nil || len(got.Series) != 60 {
			t.Errorf("got %+v, want an hour without anything", got)
		}
	})
	t.Run("a machine whose clock begins at 1970, or before, counts too", func(t *testing.T) {
		for _, seconds := range []int64{10, 0, -1, -61, -86400 * 365} {
			now = time.Unix(seconds, 0)
			observe(store.Delivered, store.ClassOK, 1, 0)
			if got, _ := a.lastHour("alerts", now); got.Delivered < 1 || got.Series[59].Delivered < 1 || len(got.Series) != 60 {
				t.Errorf("%d s: got %d delivered in %d minutes, want one in the last", seconds, got.Delivered, len(got.Series))
			}
		}
		now = start.Add(time.Hour)
	})
	t.Run("none at all is an hour without anything", func(t *testing.T) {
		var a *Activity
		a.Observe(store.Delivery{}, store.Delivery{}, store.Attempt{})
		a.Keep(func(string) bool { return false })
		if got, _ := a.lastHour("alerts", now); len(got.Series) != 60 || got.Attempts != 0 {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("an hour is bounded", func(t *testing.T) {
		if got := unsafe.Sizeof(hour{}); got >= 8<<10 {
			t.Errorf("got %d bytes for a destination, want less than 8 KiB", got)
		}
	})
}

func TestPercentile(t *testing.T) {
	count := func(times ...time.Duration) (counts [latencyClasses]uint32) {
		for _, d := range times {
			counts[latencyClass(d)]++
		}
		return counts
	}
	for _, tc := range []struct {
		name      string
		counts    [latencyClasses]uint32
		part      float64
		low, high float64
	}{
		{"one", count(700 * time.Millisecond), 0.5, 0.5, 0.75},
		{"a time below zero, as by a clock that was set", count(-time.Second), 0.5, 0, 0.002},
		{"the median of two", count(time.Millisecond, 9*time.Hour), 0.5, 0, 0.002},
		{"the last of two", count(time.Millisecond, 9*time.Hour), 0.99, 4 * 3600, 12 * 3600},
		{"beyond all bounds", count(1000 * time.Hour), 0.99, 48 * 3600, 48 * 3600},
	} {
		got := percentile(tc.counts, tc.part)
		if got == nil || *got < tc.low || *got > tc.high || math.IsNaN(*got) {
			t.Errorf("%s: got %v, want %v to %v", tc.name, got, tc.low, tc.high)
		}
	}
	if got := percentile(count(), 0.5); got != nil {
		t.Errorf("got %v of nothing, want nil", *got)
	}
}
