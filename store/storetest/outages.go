package storetest

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func testOutages(t *testing.T, open Open) {
	noted := func(t *testing.T, s store.Store) map[string]store.Outage {
		t.Helper()
		all, err := s.Outages(t.Context())
		if err != nil {
			t.Fatalf("Outages: %v", err)
		}
		return all
	}
	note := func(t *testing.T, s store.Store, name string, o store.Outage) {
		t.Helper()
		if err := s.NoteOutage(t.Context(), name, o); err != nil {
			t.Fatalf("NoteOutage: %v", err)
		}
	}
	t.Run("the latest note of an outage is kept until it is removed", func(t *testing.T) {
		s := open(t, Options{})
		equal(t, "at first", len(noted(t, s)), 0)
		note(t, s, "alerts", store.Outage{Since: start})
		note(t, s, "alerts.b", store.Outage{HeldUntil: start})
		far := start.Add(999 * time.Microsecond).In(time.FixedZone("far", 3600))
		note(t, s, "alerts", store.Outage{Since: far, HeldUntil: far.Add(time.Hour)})
		equal(t, "noted", noted(t, s), map[string]store.Outage{
			"alerts": {Since: start, HeldUntil: start.Add(time.Hour)}, "alerts.b": {HeldUntil: start},
		})
		for range 2 {
			note(t, s, "alerts", store.Outage{})
		}
		equal(t, "then", noted(t, s), map[string]store.Outage{"alerts.b": {HeldUntil: start}})
	})
	t.Run("an outage is no pause", func(t *testing.T) {
		s := open(t, Options{})
		note(t, s, "alerts", store.Outage{Since: start})
		paused, err := s.Paused(t.Context())
		if err != nil || len(paused) != 0 {
			t.Errorf("Paused: got %v, error %v; want none", paused, err)
		}
		if err := s.Pause(t.Context(), "audit", store.Pause{At: start}); err != nil {
			t.Fatalf("Pause: %v", err)
		}
		equal(t, "noted", noted(t, s), map[string]store.Outage{"alerts": {Since: start}})
	})
	t.Run("a name that no destination can have is refused", func(t *testing.T) {
		s := open(t, Options{})
		for _, name := range []string{"", strings.Repeat("x", 101), "a\x00b"} {
			if err := s.NoteOutage(t.Context(), name, store.Outage{Since: start}); err == nil {
				t.Errorf("NoteOutage(%q): got no error", name)
			}
		}
	})
}
