package ingest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/postern-relay/postern/store"
)

const goodTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestTraceContext(t *testing.T) {
	long := "v=" + strings.Repeat("x", 198)
	for _, tc := range []struct {
		name    string
		parents []string
		states  []string
		want    []string // values that are kept
	}{
		{"none", nil, nil, nil},
		{"a parent", []string{goodTrace}, nil, []string{goodTrace}},
		{"a parent with state", []string{goodTrace}, []string{"a=1,b=2"}, []string{goodTrace, "a=1,b=2"}},
		{"state in several headers", []string{goodTrace}, []string{"a=1 , b=2", "", "c=3"}, []string{goodTrace, "a=1,b=2,c=3"}},
		{"state alone", nil, []string{"a=1"}, nil},
		{"state without a good parent", []string{"x"}, []string{"a=1"}, nil},
		{"two parents", []string{goodTrace, goodTrace}, nil, nil},
		{"capital letters", []string{strings.ToUpper(goodTrace)}, nil, nil},
		{"no trace id", []string{"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01"}, nil, nil},
		{"no parent id", []string{"00-4bf92f3577b34da6a3ce929d0e0e4736-" + strings.Repeat("0", 16) + "-01"}, nil, nil},
		{"version ff", []string{"ff" + goodTrace[2:]}, nil, nil},
		{"version 00 with more", []string{goodTrace + "-x"}, nil, nil},
		{"a later version", []string{"01" + goodTrace[2:]}, nil, []string{"01" + goodTrace[2:]}},
		{"a later version with more", []string{"01" + goodTrace[2:] + "-more"}, nil, []string{"01" + goodTrace[2:] + "-more"}},
		{"a later version with more that is glued on", []string{"01" + goodTrace[2:] + "more"}, nil, nil},
		{"too short", []string{goodTrace[:54]}, nil, nil},
		{"dashes at the wrong place", []string{strings.Replace(goodTrace, "-", "0", 1)}, nil, nil},
		{"state with a member that is none", []string{goodTrace}, []string{"a=1,b"}, []string{goodTrace}},
		{"state with a control character", []string{goodTrace}, []string{"a=\x01"}, []string{goodTrace}},
		{"state of 512 bytes", []string{goodTrace}, []string{"a=" + strings.Repeat("x", 510)}, []string{goodTrace, "a=" + strings.Repeat("x", 510)}},
		{"state of 513 bytes", []string{goodTrace}, []string{"a=" + strings.Repeat("x", 511)}, []string{goodTrace}},
		{"long members go first, from the end", []string{goodTrace}, []string{long + "," + long + ",b=2," + long + ",c=3"},
			[]string{goodTrace, long + "," + long + ",b=2,c=3"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, f := range traceContext(http.Header{"Traceparent": tc.parents, "Tracestate": tc.states}) {
				got = append(got, f.Value)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	t.Run("more members than 32 lose the last", func(t *testing.T) {
		got := boundTraceState([]string{strings.Repeat("a=1,", 40)})
		if n := strings.Count(got, "="); n != maxTraceMembers {
			t.Errorf("got %d members, want %d", n, maxTraceMembers)
		}
	})
}

func FuzzTraceContext(f *testing.F) {
	f.Add(goodTrace, "a=1,b=2")
	f.Add("01"+goodTrace[2:]+"-x", strings.Repeat("k=v,", 200))
	f.Add("", "=")
	f.Fuzz(func(t *testing.T, parent, state string) {
		kept := traceContext(http.Header{"Traceparent": {parent}, "Tracestate": {state}})
		if len(kept) == 0 {
			return
		}
		h := http.Header{"Traceparent": {kept[0].Value}}
		if kept[0].Value != parent || !printable(parent) {
			t.Errorf("got traceparent %q, want %q", kept[0].Value, parent)
		}
		if len(kept) > 1 {
			if len(kept[1].Value) > maxTraceState || !printable(kept[1].Value) {
				t.Errorf("got tracestate %q, want at most %d printable bytes", kept[1].Value, maxTraceState)
			}
			h["Tracestate"] = []string{kept[1].Value}
		}
		if again := traceContext(h); !slices.Equal(again, kept) {
			t.Errorf("got %q from what was kept, want %q", again, kept)
		}
	})
}

func TestTravels(t *testing.T) {
	for name, want := range map[string]bool{
		"X-Request-Id": true, "User-Agent": true, "Accept": true, "Ce-Id": true, "Origin": true,
		"Authorization": false, "Cookie": false, "Host": false, "Connection": false, "Te": false, "Upgrade": false,
		"Transfer-Encoding": false, "Content-Length": false, "Content-Type": false, "Proxy-Authorization": false,
		"Webhook-Id": false, "Webhook-Signature": false, "Postern-Key": false, "Postern-Hops": false,
	} {
		if got := travels(name); got != want {
			t.Errorf("travels(%q): got %t, want %t", name, got, want)
		}
	}
}

func TestKeep(t *testing.T) {
	always := []store.Field{{Name: "Traceparent", Value: goodTrace}}
	h := http.Header{
		"X-A": {"1", "2"}, "X-B": {"b"}, "X-Hop": {"h"}, "Authorization": {"secret"}, "Traceparent": {"bad"},
		"Connection": {"close, x-hop"},
	}
	routes := []Route{{Header: []string{"X-B", "X-Missing"}}, {Header: []string{"X-A", "X-B", "X-Hop", "Authorization", "Traceparent"}}}
	t.Run("what routes ask for is kept once, in their order, but for what never travels", func(t *testing.T) {
		got, err := keep(always, h, routes)
		want := "[{Traceparent " + goodTrace + "} {X-B b} {X-A 1} {X-A 2}]"
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("got %v and %v, want %s", got, err, want)
		}
	})
	t.Run("nothing asked for is nothing kept", func(t *testing.T) {
		if got, err := keep(nil, h, []Route{{}}); err != nil || len(got) != 0 {
			t.Errorf("got %v and %v, want nothing", got, err)
		}
	})
	for _, tc := range []struct {
		name   string
		values []string
		ok     bool
	}{
		{"16 KiB are kept", []string{strings.Repeat("x", maxHeaderValue), strings.Repeat("x", maxKeptHeader-maxHeaderValue-6)}, true},
		{"a byte more is refused", []string{strings.Repeat("x", maxHeaderValue), strings.Repeat("x", maxKeptHeader-maxHeaderValue-5)}, false},
		{"a value of 8 KiB is kept", []string{strings.Repeat("x", 8192)}, true},
		{"a value of a byte more is refused", []string{strings.Repeat("x", 8193)}, false},
		{"128 fields are kept", slices.Repeat([]string{"x"}, maxKeptFields), true},
		{"129 fields are refused", slices.Repeat([]string{"x"}, maxKeptFields+1), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := keep(nil, http.Header{"X-A": tc.values}, routes); (err == nil) != tc.ok {
				t.Errorf("got %v, want ok = %t", err, tc.ok)
			}
		})
	}
}

func TestNearestName(t *testing.T) {
	for name, want := range map[string]string{
		"Postern-Dely": "Postern-Delay", "Postern-Delayed": "Postern-Delay", "Postern-Deliver_at": "Postern-Deliver-At", "Postern-Deliverat": "Postern-Deliver-At",
		"Postern-Deliver": "Postern-Deliver-At", "Postern-Keys": "Postern-Key", "Postern-Hop": "Postern-Hops", "Postern-": "", "Postern-Foo": "",
		"Postern-Ordering-Key": "", "Postern-" + strings.Repeat("Delay", 1000): "",
	} {
		if got := nearestName(name); got != want {
			t.Errorf("nearestName(%.40q): got %q, want %q", name, got, want)
		}
	}
}

func TestIsTimestamp(t *testing.T) {
	for s, want := range map[string]bool{
		"2026-12-24T18:00:00Z": true, "2026-12-24T18:00:00.123456789+05:30": true, "2026-12-24t18:00:00z": true, "2016-12-31T23:59:60Z": true,
		"": false, "2026-12-24": false, "2026-12-24T18:00Z": false, "2026-12-24T18:00:00": false, "2026-12-24 18:00:00Z": false,
		"2026-12-24T18:00:00,5Z": false, "2026-12-24T8:00:00Z": false, "2026-02-30T18:00:00Z": false, "2026-12-24T18:00:61Z": false,
		"2026-12-24T18:00:00+24:00": false, "1766599200": false, "2026-12-24T18:00:60": false, "2026-12-24T18:00:00Z ": false,
	} {
		if got := isTimestamp(s); got != want {
			t.Errorf("isTimestamp(%q): got %t, want %t", s, got, want)
		}
	}
}

// FuzzCheckBase64: what is taken is what encoding/base64 reads, line breaks aside, and so is what is refused.
func FuzzCheckBase64(f *testing.F) {
	for _, seed := range []string{"", "AA==", "AAA=", "AAAA", "AA", "A===", "====", "=AAA", "AA=A", "+/==", "-_==", "AAAA\nAAAA", "AA=", "QUJD/w=="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		_, err = base64.StdEncoding.DecodeString(s)
		want := err == nil && !strings.ContainsAny(s, "\r\n")
		for _, form := range []string{string(raw), strings.ReplaceAll(string(raw), "/", `\/`)} {
			if err := checkBase64(jsontext.Value(form)); (err == nil) != want {
				t.Errorf("checkBase64(%s): got %v, want ok = %t", form, err, want)
			}
		}
	})
}

func TestFingerprintKeepsItsPartsApart(t *testing.T) {
	base := repeat{target: "/to/a", path: "/b", contentType: "c", order: "d"}
	seen := map[[32]byte]string{}
	for name, r := range map[string]repeat{
		"base":                  base,
		"a path in the name":    {target: "/to/a/b", contentType: "c", order: "d"},
		"another ordering key":  {target: "/to/a", path: "/b", contentType: "c", order: "e"},
		"no ordering key":       {target: "/to/a", path: "/b", contentType: "cd"},
		"a type that took over": {target: "/to/a", path: "/bc", order: "d"},
	} {
		sum := r.fingerprint([]byte("body")).Content
		if other, ok := seen[sum]; ok {
			t.Errorf("%s: got the digest of %s, want another", name, other)
		}
		seen[sum] = name
	}
	if got := seen[base.fingerprint([]byte("body")).Content]; got != "base" {
		t.Errorf("got the digest of %q for the same post again, want that of base", got)
	}
}
