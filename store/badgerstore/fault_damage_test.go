package badgerstore

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
)

// TestFaultDamage hurts each kind of file in the folders of several stores in each of several ways, and starts. The
// start refuses, says why and changes nothing that it has not set aside, or it serves all that was stored.
func TestFaultDamage(t *testing.T) {
	random := faultRandom(t)
	var total results
	for _, sp := range specimens(t, random) {
		t.Run(sp.name, func(t *testing.T) {
			var r results
			for _, one := range sp.cases(t, random) {
				t.Run(one.file+" "+one.hurt.name, func(t *testing.T) { r.add(sp.try(t, one.file, one.hurt)) })
			}
			t.Logf("%s: %s", sp.name, &r)
			total.add(r)
		})
	}
	if total.refused == 0 || total.losable == 0 || total.served == 0 {
		t.Errorf("got %+v, want refusals, losses that were accepted, and stores that serve all", total)
	}
	t.Attr("fault", "damage: "+total.String())
}

// damageCase is one file of a specimen, and how it is hurt.
type damageCase struct {
	file string
	hurt hurt
}

// cases returns all files hurt in all ways, or a few kinds of files hurt in one way each.
func (sp *specimen) cases(t *testing.T, random *rand.Rand) (all []damageCase) {
	t.Helper()
	for _, file := range sp.files(t) {
		for _, h := range hurts(random, file) {
			all = append(all, damageCase{file, h})
		}
	}
	if faultLength(false, true) {
		return all
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	kinds := []string{".mem", ".sst", badger.ManifestFilename, "hwm", "keys", "damage"}
	all = slices.DeleteFunc(all, func(c damageCase) bool {
		kind := cmp.Or(filepath.Ext(c.file), filepath.Base(c.file))
		n := len(kinds)
		kinds = slices.DeleteFunc(kinds, func(k string) bool { return k == kind })
		return len(kinds) == n
	})
	return all[:min(4, len(all))]
}

// results counts what came of damage.
type results struct {
	cases, served, refused, losable, lost int
}

func (r *results) add(other results) {
	r.cases += other.cases
	r.served += other.served
	r.refused += other.refused
	r.losable += other.losable
	r.lost += other.lost
}

func (r *results) String() string {
	return fmt.Sprintf("%d files hurt: %d times all was served, %d times the start refused, of which %d went on by "+
		"--accept-loss without %d messages, each in the range that was named; 0 lost in silence",
		r.cases, r.served, r.refused, r.losable, r.lost)
}

// specimens makes stores as they are found: closed in good order or killed, small or with several tables and logs, with
// and without encryption, and after a start that has found damage.
func specimens(t *testing.T, random *rand.Rand) (all []*specimen) {
	t.Helper()
	make := func(name string, keys []store.Key, n, longest int, stop bool) *specimen {
		sp := &specimen{name: name, keys: keys, ledger: newLedger()}
		s := mustOpen(t, Options{Path: t.TempDir(), Keys: keys, Log: zap.NewNop()})
		sp.ledger.work(t, s, random, n, longest)
		sp.older = snapshot(t, s.path)
		sp.ledger.work(t, s, random, n, longest)
		if sp.path = s.path; stop {
			mustDo(t, s.Close())
		} else {
			sp.path = snapshot(t, s.path)
		}
		return sp.take(t)
	}
	n, large := faultLength(20, 60), faultLength(40, 120)
	several := make("a store with several tables and logs, killed", nil, large, 1<<20, false)
	small := make("a small store, killed", nil, n, 1, false)
	all = append(all, several, small.refused(t), several.restored(t), make("an encrypted store, killed", manyKeys(1), n, 1, false))
	if faultLength(true, false) {
		return all
	}
	return append(all, small, make("a store with several tables and logs, stopped", nil, large, 1<<20, true),
		make("a small store, stopped", nil, n, 1, true), make("an encrypted store, stopped", manyKeys(1), n, 1, true))
}

// refused makes a specimen of which a start has found that commit groups are missing.
func (sp *specimen) refused(t *testing.T) *specimen {
	t.Helper()
	path := cloned(t, sp.path)
	log := only(t, path, "*.mem")
	info, err := os.Stat(log)
	mustDo(t, err)
	flip(t, log, dataSize(info)/2)
	openDamaged(t, path)
	out := *sp
	out.name, out.path, out.damaged = "a store that a start has refused", path, true
	return &out
}

// restored makes a specimen from a backup of another. Only the last of its tables holds the note of a commit group.
func (sp *specimen) restored(t *testing.T) *specimen {
	t.Helper()
	s := mustOpen(t, Options{Path: cloned(t, sp.path), Log: zap.NewNop()})
	var backup bytes.Buffer
	_, err := s.WriteBackup(t.Context(), &backup, store.BackupOptions{IncludeKeys: true})
	mustDo(t, err)
	out := &specimen{name: "a store that was restored", blurred: true, path: filepath.Join(t.TempDir(), "restored"), ledger: newLedger()}
	maps.Copy(out.ledger.bodies, sp.ledger.bodies)
	for id := range sp.ledger.accepted {
		out.ledger.accepted[id] = 1
	}
	for id, e := range sp.ledger.deliveries {
		e.changed = 1
		out.ledger.deliveries[id] = e
	}
	_, err = Restore(t.Context(), RestoreOptions{From: &backup, Path: out.path})
	mustDo(t, err)
	out.older = out.path
	return out.take(t)
}

// files returns the files of a specimen, by their paths in its folder.
func (sp *specimen) files(tb testing.TB) (names []string) {
	tb.Helper()
	mustDo(tb, filepath.WalkDir(sp.path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		rel, err := filepath.Rel(sp.path, name)
		names = append(names, rel)
		return err
	}))
	return names
}

// try hurts one file of a copy and starts with it.
func (sp *specimen) try(t *testing.T, file string, h hurt) (r results) {
	t.Helper()
	path := cloned(t, sp.path)
	defer os.RemoveAll(path)
	if sp.sums == nil {
		sp.sums = digests(t, sp.path)
	}
	if !h.do(t, sp, path, filepath.Join(path, file)) {
		return r
	}
	r.cases = 1
	found := digests(t, path)
	s, err := sp.open(t, path, false)
	if err == nil {
		r.served = 1
		sp.checkAll(t, s)
		mustDo(t, s.Close())
		return r
	}
	r.refused = 1
	can := checkRefusal(t, err)
	sp.checkKept(t, path, found)
	if _, err := sp.open(t, path, false); err == nil {
		t.Error("a second start served")
	} else {
		checkRefusal(t, err)
	}
	sp.checkKept(t, path, found)
	if can == nil {
		return r
	}
	r.losable = 1
	s, err = sp.open(t, path, true)
	if err != nil && h.two {
		checkRefusal(t, err) // of the other file
		return r
	}
	if err != nil {
		t.Errorf("a start that accepts the loss: %v", err)
		return r
	}
	from, to := can.From, can.To
	if from == 0 && (h.two || sp.damaged || !strings.Contains(can.Reason, "would not be noticed")) {
		from, to = 1, math.MaxUint64 // nobody knows which
	}
	if sp.blurred {
		from = min(from, 1)
	}
	r.lost = sp.ledger.check(t, s, from, to)
	if _, _, err := s.Accept(t.Context(), newMessage(t, "alerts"), nil); err != nil {
		t.Errorf("accept after the loss: %v", err)
	}
	mustDo(t, s.Close())
	sp.checkKept(t, path, found)
	return r
}

// open starts. A panic is a finding, and must not hide which one it was.
func (sp *specimen) open(t *testing.T, path string, acceptLoss bool) (s *Store, err error) {
	t.Helper()
	core, logs := observer.New(zap.ErrorLevel)
	defer func() {
		if r := recover(); r != nil {
			t.Fatalf("Open: panic: %v\n%s", r, debug.Stack())
		}
	}()
	s, err = Open(Options{Path: path, Keys: sp.keys, AcceptLoss: acceptLoss, Log: zap.New(core)})
	if acceptLoss && err == nil && logs.FilterMessageSnippet("loss accepted").Len() != 1 {
		t.Errorf("the log does not say once that a loss was accepted: %v", logs.All())
	}
	return s, err
}

// checkAll wants a store to hold all that it held.
func (sp *specimen) checkAll(t *testing.T, s *Store) {
	t.Helper()
	compareContent(t, recordsOf(t, s), sp.content)
	if s.Pending() != sp.pending {
		t.Errorf("pending: got %d, want %d", s.Pending(), sp.pending)
	}
}

// checkRefusal wants an error with the exit code of damage or of a wrong key, and returns it if the loss can be accepted.
func checkRefusal(t *testing.T, err error) *DamageError {
	t.Helper()
	var damage *DamageError
	var key *KeyError
	switch {
	case errors.As(err, &damage):
		if damage.CanLose != strings.Contains(err.Error(), "--accept-loss") {
			t.Errorf("got %q, want it to say whether the loss can be accepted", err)
		}
		if damage.CanLose {
			return damage
		}
	case errors.As(err, &key), errors.Is(err, ErrRestoring):
	default:
		t.Errorf("got error %v, want one of a damaged store", err)
	}
	return nil
}

// digests returns the SHA-256 of what is in each file below a folder by its path there. Zeros count as a hole does, and
// those of Badger's files are left out that hold nothing and never do, which it makes anew.
func digests(tb testing.TB, path string) map[string][32]byte {
	tb.Helper()
	all := make(map[string][32]byte)
	mustDo(tb, filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		switch ext := filepath.Ext(name); {
		case ext == ".vlog", entry.Name() == discardName, entry.Name() == badger.KeyRegistryFileName:
			if empty, err := idle(name); err != nil || empty {
				return err
			}
		}
		rel, err := filepath.Rel(path, name)
		if err == nil {
			all[rel], err = digest(name)
		}
		return err
	}))
	return all
}

func digest(name string) (sum [32]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return sum, err
	}
	hash, block := sha256.New(), make([]byte, 4096)
	fmt.Fprintln(hash, info.Size())
	err = eachData(f, 0, info.Size(), func(start, end int64) error {
		for at := start; at < end; at += int64(len(block)) {
			n, err := f.ReadAt(block[:min(int64(len(block)), end-at)], at)
			if err != nil {
				return err
			}
			if !zero(block[:n]) {
				fmt.Fprintf(hash, "%d %x\n", at, block[:n])
			}
		}
		return nil
	})
	return [32]byte(hash.Sum(nil)), err
}

// checkKept wants each file that a start has found to be as it was, or a copy of it to be set aside. Tables that are whole
// may be merged, as ever; that their records are still there, is seen when the loss is accepted.
func (sp *specimen) checkKept(t *testing.T, path string, found map[string][32]byte) {
	t.Helper()
	now := digests(t, path)
	for name, sum := range found {
		if now[name] == sum || name == "lock" || name == "badger/LOCK" || name == "damage" {
			continue // hints for people, and the note of an earlier start
		}
		kept := filepath.Ext(name) == ".sst" && slices.Contains(slices.Collect(maps.Values(sp.sums)), sum)
		for other, otherSum := range now {
			if strings.HasPrefix(other, "set-aside/") && otherSum == sum &&
				(filepath.Base(other) == filepath.Base(name) || strings.TrimSuffix(filepath.Base(other), ".later") == filepath.Base(name)) {
				kept = true
			}
		}
		if !kept {
			t.Errorf("%s is neither as it was nor set aside", name)
		}
	}
}
