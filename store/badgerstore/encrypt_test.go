package badgerstore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func TestConformanceEncrypted(t *testing.T) {
	keys := manyKeys(1)
	storetest.Run(t, func(tb testing.TB, o storetest.Options) store.Store {
		return mustOpen(tb, Options{Path: tb.TempDir(), Now: o.Now, MaxPending: o.MaxPending, Keys: keys})
	})
}

func TestModelEncrypted(t *testing.T) {
	t.Run("each start with a new key, from a copy as after a kill", func(t *testing.T) {
		o := Options{Path: t.TempDir(), MaxPending: storetest.MaxModelPending, Keys: manyKeys(1)}
		storetest.Model(t, 7, 400, mustOpen(t, o), func(s store.Store) store.Store {
			engine := s.(*Store)
			engine.use.Lock() // a rotation may be at work, and a copy is only one of a moment if nothing is written meanwhile
			killed := snapshot(t, engine.path)
			engine.use.Unlock()
			if err := s.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			_, _, ok, err := readKeys(filepath.Join(killed, "keys"))
			if err != nil || !ok {
				t.Fatalf("read keys: ok %t, error %v", ok, err)
			}
			o.Path, o.Keys = killed, append([]store.Key{store.NewKey()}, o.Keys...)
			o.Keys = o.Keys[:min(len(o.Keys), mostKeys)]
			return mustOpen(t, o)
		})
	})
}

// canary is a text that is nowhere but where it was put.
func canary(where string) string { return "CANARY-" + where + "-7f3a" }

// fillCanaries puts canaries wherever a record has room for a secret.
func fillCanaries(tb testing.TB, s *Store) (places []string) {
	tb.Helper()
	place := func(where string) string {
		places = append(places, canary(where))
		return canary(where)
	}
	m := newMessage(tb, "alerts", "audit")
	m.Event, m.ContentType, m.Key, m.Path = place("event"), place("type"), place("key"), "/"+place("path")
	m.Header = []store.Field{{Name: "X-Secret", Value: place("header")}}
	m.Recipients[1].Order = place("order")
	_, _, err := s.Accept(tb.Context(), m, []byte(place("body")))
	mustDo(tb, err)
	long := newMessage(tb, "alerts")
	_, _, err = s.Accept(tb.Context(), long, bytes.Repeat([]byte(place("long")), 100_000))
	mustDo(tb, err)
	d, err := s.Delivery(tb.Context(), m.ID.Delivery(0))
	mustDo(tb, err)
	after := d
	after.State, after.Made, after.Attempts, after.EndedAt, after.Reason = store.Failed, 1, 1, time.Now(), place("reason")
	_, err = s.Record(tb.Context(), d, after, store.Attempt{
		Delivery: d.ID, Round: 1, Number: 1, StartedAt: time.Now(), Class: store.ClassStatus, Status: 500, Error: place("error"),
		Request: store.Sent{Method: "POST", URL: "https://" + place("url"), Body: []byte(place("sent")), Rendered: true},
		Header:  map[string][]string{"X-Answer": {place("answer header")}}, Body: []byte(place("answer")), Peer: place("peer"),
	})
	mustDo(tb, err)
	mustDo(tb, s.Keep(tb.Context(), "certificates/a.key", []byte(place("certificate key"))))
	mustDo(tb, s.Pause(tb.Context(), "audit", store.Pause{At: time.Now(), Reason: place("pause")}))
	return places
}

// eachFile calls fn for each file below a folder.
func eachFile(tb testing.TB, path string, fn func(name string, content []byte)) {
	tb.Helper()
	mustDo(tb, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		fn(name, content)
		return err
	}))
}

// found returns which of some texts stand in a file below a folder.
func found(tb testing.TB, path string, texts []string) (in []string) {
	tb.Helper()
	eachFile(tb, path, func(name string, content []byte) {
		for _, text := range texts {
			if bytes.Contains(content, []byte(text)) {
				in = append(in, filepath.Base(name)+": "+text)
			}
		}
	})
	return in
}

func TestEncryption(t *testing.T) {
	t.Run("no file of the folder shows what is stored, at work, after a kill, in copies and in tables", func(t *testing.T) {
		for _, encrypted := range []bool{false, true} {
			o := Options{Path: t.TempDir()}
			if encrypted {
				o.Keys = manyKeys(1)
			}
			s := mustOpen(t, o)
			places := fillCanaries(t, s)
			killed := snapshot(t, o.Path)
			mustDo(t, s.Close())
			mustDo(t, createSide(filepath.Join(killed, "hwm"), 1<<40)) // so that the start finds a gap, and keeps its copies
			if _, err := Open(Options{Path: killed, Keys: o.Keys}); err == nil {
				t.Fatal("Open: no error")
			}
			copies, err := filepath.Glob(filepath.Join(killed, "set-aside", "*", "*.mem"))
			if err != nil || len(copies) == 0 {
				t.Fatalf("set-aside copies: %q, error %v; want some", copies, err)
			}
			tables, err := filepath.Glob(filepath.Join(o.Path, "badger", "*.sst"))
			if err != nil || len(tables) == 0 {
				t.Fatalf("tables: %q, error %v; want some", tables, err)
			}
			in := append(found(t, o.Path, places), found(t, killed, places)...)
			if encrypted && len(in) > 0 {
				t.Errorf("got %q", in)
			}
			if !encrypted && len(in) < 2*len(places)-2 { // but for what is stored as a hash alone
				t.Errorf("the same search finds only %q in a store without encryption", in)
			}
		}
	})
	t.Run("all of it comes back with the key", func(t *testing.T) {
		o := Options{Path: t.TempDir(), Keys: manyKeys(1)}
		s := mustOpen(t, o)
		ids := fill(t, s, 50, 100_000)
		mustDo(t, s.Close())
		s = mustOpen(t, o)
		for _, id := range ids {
			if m, body, err := s.Load(t.Context(), id); err != nil || len(body) != m.Size || len(body) != 100_000 {
				t.Fatalf("Load: %d bytes, error %v", len(body), err)
			}
		}
		if got := pendingOf(t, s); got != 50 {
			t.Errorf("pending: got %d, want 50", got)
		}
	})
	t.Run("a value that was changed or moved on disk is damage, and not served", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir(), Keys: manyKeys(1), Log: zap.NewNop()})
		ids := fill(t, s, 2, 10)
		txn := s.db.NewTransaction(true)
		item, err := txn.Get(messageKey(ids[0]))
		mustDo(t, err)
		value, err := item.ValueCopy(nil)
		mustDo(t, err)
		mustDo(t, txn.Set(messageKey(ids[1]), value))
		plain := messageKey(ids[0])
		mustDo(t, txn.Set(plain, seal(plain, []byte("forged"))))
		mustDo(t, txn.Commit())
		s.recent = newRecent() // which nobody has told of it
		for _, id := range ids {
			if _, body, err := s.Load(t.Context(), id); err == nil {
				t.Errorf("Load: got %q", body)
			}
		}
	})
}

// state tells whether anything of a store's folder has changed, but for who has locked it.
func state(tb testing.TB, path string) string {
	tb.Helper()
	var all []string
	eachFile(tb, path, func(name string, content []byte) {
		if filepath.Base(name) != "lock" {
			all = append(all, fmt.Sprintf("%s %x", name, sha256.Sum256(content)))
		}
	})
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func TestKeysAtStart(t *testing.T) {
	right, other := store.NewKey(), store.NewKey()
	filled := func(t *testing.T, keys ...store.Key) string {
		path := t.TempDir()
		s := mustOpen(t, Options{Path: path, Keys: keys})
		fill(t, s, 3, 100)
		mustDo(t, s.Close())
		return path
	}
	for name, c := range map[string]struct {
		with, given []store.Key
		says        string
	}{
		"a wrong key":                           {[]store.Key{right}, []store.Key{other}, right.Fingerprint()},
		"no key":                                {[]store.Key{right}, nil, "store.encryption_key is not set"},
		"a key for a store without encryption":  {nil, []store.Key{right}, "postern backup"},
		"several keys for one without":          {nil, []store.Key{right, other}, "not encrypted"},
		"several keys without the one it needs": {[]store.Key{right}, manyKeys(3), right.Fingerprint()},
	} {
		t.Run(name+" is refused, and nothing is touched", func(t *testing.T) {
			path := filled(t, c.with...)
			before := state(t, path)
			s, err := Open(Options{Path: path, Keys: c.given})
			var wrong *KeyError
			if !errors.As(err, &wrong) {
				t.Fatalf("Open: got error %v, store %v; want a KeyError", err, s)
			}
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), right.Text()) || strings.Contains(err.Error(), other.Text()) {
				t.Errorf("got %q, want it to say %q and no key", err, c.says)
			}
			if state(t, path) != before {
				t.Error("files have changed")
			}
			if got := pendingOf(t, mustOpen(t, Options{Path: path, Keys: c.with})); got != 3 {
				t.Errorf("then with its own: %d pending, want 3", got)
			}
		})
	}
	t.Run("a lost file of ids can be replaced by an empty one", func(t *testing.T) {
		path := filled(t, right)
		name := filepath.Join(path, "keys")
		was, err := os.ReadFile(name)
		mustDo(t, err)
		mustDo(t, os.Remove(name))
		var wrong *KeyError
		_, err = Open(Options{Path: path, Keys: []store.Key{right}})
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "empty file") {
			t.Fatalf("without the file: got error %v", err)
		}
		mustDo(t, os.WriteFile(name, nil, 0o600))
		if _, err := Open(Options{Path: path, Keys: []store.Key{other}}); !errors.As(err, &wrong) {
			t.Fatalf("an empty file and a wrong key: got error %v", err)
		}
		if _, err := Open(Options{Path: path}); !errors.As(err, &wrong) {
			t.Fatalf("an empty file and no key: got error %v", err)
		}
		s := mustOpen(t, Options{Path: path, Keys: []store.Key{right}})
		if got := pendingOf(t, s); got != 3 {
			t.Errorf("pending: got %d, want 3", got)
		}
		if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, was) {
			t.Errorf("the file is %q, error %v; want %q", now, err, was)
		}
	})
	t.Run("with an empty one, all keys that any value needs have to be given", func(t *testing.T) {
		path := filled(t, other)
		s := stalled(t, path, 0, right, other)
		fill(t, s, 2, 100)
		mustDo(t, s.Close())
		name := filepath.Join(path, "keys")
		mustDo(t, os.WriteFile(name, nil, 0o600))
		for key, says := range map[store.Key]string{right: other.Fingerprint(), other: "--accept-loss"} {
			var wrong *KeyError
			_, err := Open(Options{Path: path, Keys: []store.Key{key}})
			if !errors.As(err, &wrong) || len(wrong.Needed) != 1 || wrong.Needed[0] == key.Fingerprint() || !strings.Contains(err.Error(), says) {
				t.Fatalf("with one of two: got error %v, want a KeyError that names the other and says %q", err, says)
			}
		}
		s = stalled(t, path, 0, right, store.NewKey(), other)
		if got := s.Keys(); !slices.Equal(got, []string{right.Fingerprint(), other.Fingerprint()}) {
			t.Errorf("with all of them: needed are %q, want the two that have been used", got)
		}
		mustDo(t, s.Close())
		mustDo(t, os.WriteFile(name, nil, 0o600))
		s = mustOpen(t, Options{Path: path, Keys: []store.Key{other}, AcceptLoss: true, Log: zap.NewNop()})
		if got := s.Keys(); !slices.Equal(got, []string{other.Fingerprint()}) {
			t.Errorf("with a loss that is accepted: needed are %q, want the one that is there", got)
		}
		if found, err := s.Check(t.Context()); err != nil || found.Counts.Damaged == 0 {
			t.Errorf("Check: got %+v, error %v; want what is lost to count as damaged", found, err)
		}
	})
	t.Run("an empty file in a store without encryption is told from a wrong key", func(t *testing.T) {
		path := filled(t)
		mustDo(t, os.WriteFile(filepath.Join(path, "keys"), nil, 0o600))
		var wrong *KeyError
		_, err := Open(Options{Path: path, Keys: []store.Key{right}})
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "remove the file") {
			t.Fatalf("got error %v", err)
		}
	})
	t.Run("a start that was killed before its first record goes on with the key", func(t *testing.T) {
		path := t.TempDir()
		mustDo(t, writeKeys(filepath.Join(path, "keys"), mustKeyring(t, right).ids))
		s := mustOpen(t, Options{Path: path, Keys: []store.Key{right}})
		if got := s.Keys(); !slices.Equal(got, []string{right.Fingerprint()}) {
			t.Errorf("got %q", got)
		}
	})
}
