package badgerstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// TestFaultModel takes random steps on a store and on the one in memory, several walks at a time, and compares all that
// they answer. Between rounds the store is closed and opened, killed with changes under way, or restored from a backup.
func TestFaultModel(t *testing.T) {
	seeds, rounds, steps := uint64(1), 3, 25
	if os.Getenv("POSTERN_FAULTS") == "full" {
		seeds, rounds, steps = 12, 10, 200
	}
	var first uint64 = 2
	if text := os.Getenv("POSTERN_FAULTS_SEED"); text != "" {
		var err error
		if first, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("POSTERN_FAULTS_SEED: %q is not a number", text)
		}
		seeds = 1
	}
	var total storetest.WalkCounts
	var ends [3]int
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			o := Options{Path: t.TempDir(), MaxPending: 1 << 40, Log: zap.NewNop()}
			if seed%2 == 0 {
				o.Keys = manyKeys(1)
			}
			round := 0
			n := storetest.Walks{Seed: seed, Walkers: 4, Rounds: rounds, Steps: steps, Reopen: func(s store.Store, meanwhile func()) store.Store {
				round++
				ends[round%len(ends)]++
				return reopenFor(t, &o, s.(*Store), round%len(ends), meanwhile)
			}}.Walk(t, mustOpen(t, o))
			total.Steps, total.Messages = total.Steps+n.Steps, total.Messages+n.Messages
			total.InFlight, total.Kept = total.InFlight+n.InFlight, total.Kept+n.Kept
		})
	}
	t.Attr("fault", fmt.Sprintf("kill: the store against a model, %d seeds: %d random steps by 4 at a time on %d messages, clocks set by "+
		"years, %d closes, %d kills with %d changes under way (%d there afterwards, each whole), %d restores, 0 differences",
		seeds, total.Steps, total.Messages, ends[0], ends[1], total.InFlight, total.Kept, ends[2]))
}

// reopenFor ends a store in a way of three, and opens what is left of it. o.Path is where that is.
func reopenFor(t *testing.T, o *Options, s *Store, way int, meanwhile func()) store.Store {
	t.Helper()
	path := s.path
	switch way {
	case 1:
		meanwhile()
		path = snapshotBusy(t, path)
	case 2:
		b, err := s.Backup(context.Background(), store.BackupOptions{IncludeKeys: true})
		mustDo(t, err)
		raw, err := io.ReadAll(b)
		mustDo(t, err)
		mustDo(t, b.Close())
		path = filepath.Join(t.TempDir(), "restored")
		mustDo(t, restoreTo(path, bytes.NewReader(raw), o.Keys, o.Keys))
	}
	mustDo(t, s.Close())
	o.Path = path
	return mustOpen(t, *o)
}

// snapshotBusy is snapshot for a store in which something is being written. The side file is copied first, since what it
// says is in the database before: a kill leaves it like that as well.
func snapshotBusy(tb testing.TB, path string) string {
	tb.Helper()
	for range 50 {
		before := fileSet(tb, path)
		to := tb.TempDir()
		side, err := os.ReadFile(filepath.Join(path, "hwm"))
		mustDo(tb, err)
		mustDo(tb, copyTree(path, to))
		mustDo(tb, os.WriteFile(filepath.Join(to, "hwm"), side, 0o600))
		if fileSet(tb, path) == before {
			return to
		}
	}
	tb.Fatal("the set of files does not come to rest")
	return ""
}
