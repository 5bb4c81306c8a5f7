package badgerstore

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// written returns what a request writes.
func written(tb testing.TB, s *Store, stage func(g *group)) (size, entries int64) {
	tb.Helper()
	mustDo(tb, s.submitAlways(&request{size: 1, entries: 1, stage: func(g *group) error {
		stage(g)
		size, entries = g.size, g.writes
		return nil
	}}))
	return size, entries
}

func TestCosts(t *testing.T) {
	s := mustOpen(t, Options{Path: t.TempDir()})
	for name, c := range map[string]struct {
		order  string
		before int // others in its line
		exact  bool
	}{
		"one without a line":        {"", 0, true},
		"the head of a line":        {"a", 0, false},
		"one behind it":             {"b", 1, true},
		"one behind many":           {"c", 3, true},
		"one of the longest orders": {strings.Repeat("d", store.MaxKey+1), 1, true},
	} {
		t.Run(name+" costs what is counted for it", func(t *testing.T) {
			m := newMessage(t, longNames(1)...)
			m.Recipients[0].Order = c.order
			for range c.before {
				other := newMessage(t, longNames(1)...)
				other.Recipients[0].Order = c.order
				_, _, err := s.Accept(t.Context(), other, nil)
				mustDo(t, err)
			}
			raw, err := encodePending(m.Delivery(0))
			mustDo(t, err)
			size, entries := written(t, s, func(g *group) { g.enqueue(m.Delivery(0), raw) })
			want := queueCost(m.Recipients[0], raw)
			if size > want || c.exact && size != want || entries > queueCount {
				t.Errorf("got %d bytes in %d keys, want the %d in %d that are counted", size, entries, want, queueCount)
			}
		})
	}
	t.Run("so does what a message stands under", func(t *testing.T) {
		m := newMessage(t, "alerts")
		m.Idempotency, m.AcceptedAt = &store.Idempotency{}, time.Now().Add(-time.Hour)
		size, entries := written(t, s, func(g *group) { g.identify(m) })
		nobodys := newMessage(t)
		nobodys.Idempotency = &store.Idempotency{Key: [32]byte{1}}
		less, fewer := written(t, s, func(g *group) { g.identify(nobodys) })
		if max(size, less) > identifyCost || max(entries, fewer) > identifyCount {
			t.Errorf("got %d bytes in %d keys, and %d in %d; want %d in %d at most", size, entries, less, fewer, identifyCost, identifyCount)
		}
	})
	t.Run("the largest message is swept in groups that fit", func(t *testing.T) {
		m := largestMessage(t)
		rest := 1 + maxChunks + 2 + 2*len(m.Recipients) + 1
		size := int64(len(m.Recipients)) * (int64(len(deliveryKey(m.ID.Delivery(0)))+len(endedKey(time.Time{}, m.ID.Delivery(0)))) + 2*entryOverhead)
		if int64(rest) > s.maxGroupEntries || size+256*entryOverhead > s.maxGroupSize || 2*sweepKeys > s.maxGroupEntries {
			t.Errorf("got %d keys and about %d bytes, want less than %d and %d", rest, size, s.maxGroupEntries, s.maxGroupSize)
		}
	})
}
