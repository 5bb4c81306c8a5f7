package badgerstore

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func TestSweptSpaceIsGivenBack(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 40)
	options := Options{Path: t.TempDir(), free: func(string) (int64, error) { return free.Load(), nil }}
	reopen := func(s *Store) *Store { // what is in memory becomes a table
		mustDo(t, s.Close())
		return mustOpen(t, options)
	}
	s := mustOpen(t, options)
	ids := fill(t, s, 100, 20_000)
	s = reopen(s)
	if s.worthSettling(s.db.Tables()) {
		t.Error("a store of which nothing is deleted is worth a merge, want that it is not")
	}
	kept := fill(t, s, 1, 20_000)
	s = reopen(s)
	for range 1000 { // two tables are merged into the lowest level
		if s.db.Levels()[0].NumTables == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, id := range ids {
		d, err := s.Delivery(t.Context(), id.Delivery(0))
		mustDo(t, err)
		after := d
		after.State, after.EndedAt = store.Delivered, toMillis(time.Now())
		mustRecord(t, s, d, after, store.Attempt{})
	}
	for more := true; more; {
		var err error
		_, more, err = s.Sweep(t.Context(), time.Now().Add(time.Hour), 500)
		mustDo(t, err)
	}
	deleted := s.settling.deleted.Load()
	s = reopen(s)
	s.settling.deleted.Store(deleted) // as it would be had a memtable filled
	before := s.tableSize()
	if before < 2_000_000 {
		t.Fatalf("tables have %d bytes after the sweep, want still those of the bodies", before)
	}
	if !s.worthSettling(s.db.Tables()) {
		t.Error("a store of which nearly all is deleted is not worth a merge, want that it is")
	}
	free.Store(s.reserve/2 - 1)
	s.look()
	if s.worthSettling(s.db.Tables()) {
		t.Error("a store without room for a merge is worth one, want that it is not")
	}
	free.Store(1 << 40)
	s.look()
	mustDo(t, s.settle())
	if after := s.tableSize(); after > before/10 {
		t.Errorf("tables have %d bytes after the merge of %d, want a tenth at most", after, before)
	}
	if s.worthSettling(s.db.Tables()) {
		t.Error("a store that has been merged is worth a merge, want that it is not")
	}
	if _, body, err := s.Load(t.Context(), kept[0]); err != nil || len(body) != 20_000 {
		t.Errorf("what is pending: %d bytes, error %v; want 20,000", len(body), err)
	}
	fill(t, s, 3, 100)
	if got := pendingOf(t, s); got != 4 {
		t.Errorf("pending: got %d, want 4", got)
	}
}

func TestWhatAMergeLeaves(t *testing.T) {
	for _, tc := range []struct {
		name                    string
		size, keys, marks, want int64
	}{
		{"an empty store", 0, 0, 0, 0},
		{"nothing is deleted", 1 << 40, 1 << 32, 0, 1 << 40},
		{"half is left", 1000, 400, 100, 1000},
		{"a quarter is left, and may be long", 1000, 800, 300, 500},
		{"all is deleted", 1 << 31, 14_000_000, 7_000_000, 0},
		{"marks of what has gone already", 1000, 100, 80, 0},
	} {
		if got := mostLeft(tc.size, tc.keys, tc.marks); got != tc.want {
			t.Errorf("%s: got %d bytes, want %d", tc.name, got, tc.want)
		}
	}
}
