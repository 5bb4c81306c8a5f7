package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func testVault(t *testing.T, open Open) {
	keep := func(t *testing.T, s store.Store, name, value string) {
		t.Helper()
		if err := s.Keep(t.Context(), name, []byte(value)); err != nil {
			t.Fatalf("Keep(%q): %v", name, err)
		}
	}
	below := func(t *testing.T, s store.Store, name string) (names []string) {
		t.Helper()
		items, err := s.KeptBelow(t.Context(), name)
		if err != nil {
			t.Fatalf("KeptBelow(%q): %v", name, err)
		}
		for _, item := range items {
			if item.Value != nil {
				t.Errorf("KeptBelow(%q): %q comes with its value", name, item.Name)
			}
			names = append(names, fmt.Sprintf("%s %d", item.Name, item.Size))
		}
		return names
	}
	t.Run("what is kept last comes back", func(t *testing.T) {
		now := start
		s := open(t, Options{Now: func() time.Time { return now }})
		value := []byte("first")
		if err := s.Keep(t.Context(), "a/b.key", value); err != nil {
			t.Fatalf("Keep: %v", err)
		}
		copy(value, "xxxxx")
		for _, text := range []string{"first", "second"} {
			item, err := s.Kept(t.Context(), "a/b.key")
			if err != nil {
				t.Fatalf("Kept: %v", err)
			}
			equal(t, "item", item, store.Item{Name: "a/b.key", Value: []byte(text), Size: len(text), ModifiedAt: now})
			copy(item.Value, "yyyyyy")
			now = start.Add(time.Hour)
			keep(t, s, "a/b.key", "second")
		}
	})
	t.Run("an empty item is an item", func(t *testing.T) {
		s := open(t, Options{})
		keep(t, s, "a", "")
		item, err := s.Kept(t.Context(), "a")
		if err != nil || len(item.Value) != 0 {
			t.Errorf("got %+v, error %v; want one without bytes", item, err)
		}
	})
	t.Run("the largest item is kept, and no larger one", func(t *testing.T) {
		s := open(t, Options{})
		name, value := strings.Repeat("n", store.MaxItemName), bytes.Repeat([]byte("v"), store.MaxItem)
		if err := s.Keep(t.Context(), name, value); err != nil {
			t.Fatalf("Keep: %v", err)
		}
		item, err := s.Kept(t.Context(), name)
		if err != nil || !bytes.Equal(item.Value, value) {
			t.Errorf("Kept: %d bytes, error %v; want the %d", len(item.Value), err, len(value))
		}
		if err := s.Keep(t.Context(), name, append(value, 'v')); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("Keep of a larger one: got %v, want ErrTooLarge", err)
		}
		if err := s.Keep(t.Context(), name+"n", nil); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("Keep under a longer name: got %v, want ErrTooLarge", err)
		}
		if err := s.Keep(t.Context(), "a/../b", nil); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("Keep under no name: got %v, want ErrInvalid", err)
		}
	})
	t.Run("what is not there is not found", func(t *testing.T) {
		s := open(t, Options{})
		keep(t, s, "a/b", "x")
		for _, name := range []string{"", "a", "a/", "a/b/c", "b", "a/bb"} {
			if item, err := s.Kept(t.Context(), name); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("Kept(%q): got %+v, error %v; want ErrNotFound", name, item, err)
			}
		}
	})
	t.Run("a name has below it what follows a slash", func(t *testing.T) {
		s := open(t, Options{})
		equal(t, "at first", len(below(t, s, "")), 0)
		for _, name := range []string{"a/c/d", "a", "ab", "a/b", "a.b", "b"} {
			keep(t, s, name, name)
		}
		equal(t, "all", below(t, s, ""), []string{"a 1", "a.b 3", "a/b 3", "a/c/d 5", "ab 2", "b 1"})
		equal(t, "below a", below(t, s, "a"), []string{"a/b 3", "a/c/d 5"})
		equal(t, "below a/c", below(t, s, "a/c"), []string{"a/c/d 5"})
		equal(t, "below ab", len(below(t, s, "ab")), 0)
	})
	t.Run("discarding takes what is below, and nothing else", func(t *testing.T) {
		s := open(t, Options{})
		for _, name := range []string{"a", "a/b", "a/c/d", "ab", "a.b"} {
			keep(t, s, name, "x")
		}
		discard := func(name string) {
			t.Helper()
			if err := s.Discard(t.Context(), name); err != nil {
				t.Fatalf("Discard(%q): %v", name, err)
			}
		}
		discard("nothing")
		discard("a/c")
		equal(t, "without a/c", below(t, s, ""), []string{"a 1", "a.b 1", "a/b 1", "ab 1"})
		discard("a")
		discard("a")
		equal(t, "without a", below(t, s, ""), []string{"a.b 1", "ab 1"})
		discard("")
		equal(t, "without all", len(below(t, s, "")), 0)
	})
	t.Run("many are discarded together", func(t *testing.T) {
		s := open(t, Options{})
		for n := range 250 {
			keep(t, s, fmt.Sprintf("many/%d", n), "x")
		}
		keep(t, s, "other", "x")
		if err := s.Discard(t.Context(), "many"); err != nil {
			t.Fatalf("Discard: %v", err)
		}
		equal(t, "left", below(t, s, ""), []string{"other 1"})
	})
	t.Run("it is no part of what messages have", func(t *testing.T) {
		s := open(t, Options{})
		keep(t, s, "q", "x")
		equal(t, "pending", s.Pending(), int64(0))
		equal(t, "deleted", sweepAll(t, s, start.AddDate(10, 0, 0), 100), 0)
		equal(t, "still there", below(t, s, ""), []string{"q 1"})
	})
	t.Run("a closed engine keeps nothing", func(t *testing.T) {
		s := open(t, Options{})
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		_, keptErr := s.Kept(t.Context(), "a")
		_, belowErr := s.KeptBelow(t.Context(), "a")
		for what, err := range map[string]error{
			"Keep": s.Keep(t.Context(), "a", nil), "Kept": keptErr, "KeptBelow": belowErr, "Discard": s.Discard(t.Context(), "a"),
		} {
			if !errors.Is(err, store.ErrClosed) {
				t.Errorf("%s: got error %v, want ErrClosed", what, err)
			}
		}
	})
}
