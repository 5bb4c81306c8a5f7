package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/postern-relay/postern/store"
)

func mustKeyring(tb testing.TB, keys ...store.Key) *keyring {
	tb.Helper()
	r, err := newKeyring(keys, forValues)
	mustDo(tb, err)
	return r
}

func TestKeyring(t *testing.T) {
	first, second := store.NewKey(), store.NewKey()
	r := mustKeyring(t, first)
	key := messageKey(store.MessageID{1})
	plain := seal(key, []byte("some content"))
	value := r.lock(key, plain)
	t.Run("a value comes back, and is as much longer as is counted for it", func(t *testing.T) {
		got, err := r.unlock(key, value)
		if err != nil || string(got) != "some content" {
			t.Errorf("got %q, error %v", got, err)
		}
		if len(value) != len(plain)+lockedOverhead || bytes.Contains(value, []byte("content")) {
			t.Errorf("got %d bytes %q, want %d that do not show it", len(value), value, len(plain)+lockedOverhead)
		}
		if lockedOverhead+12 > entryOverhead {
			t.Errorf("lockedOverhead and the 12 bytes that Badger counts are %d, more than entryOverhead", lockedOverhead+12)
		}
	})
	t.Run("an empty content comes back as that, and not as none", func(t *testing.T) {
		for name, ring := range map[string]*keyring{"encrypted": r, "plain": mustKeyring(t)} {
			got, err := ring.unlock(key, ring.lock(key, seal(key)))
			if err != nil || got == nil || len(got) != 0 {
				t.Errorf("%s: got %#v, error %v", name, got, err)
			}
		}
	})
	t.Run("no two values look alike", func(t *testing.T) {
		seen := make(map[string]bool)
		for _, ring := range []*keyring{r, mustKeyring(t, first), mustKeyring(t, first)} {
			for range 1000 {
				nonce := string(ring.lock(key, plain)[1+len(keyID{}) : lockedHead])
				if seen[nonce] {
					t.Fatal("a nonce came twice")
				}
				seen[nonce] = true
			}
		}
	})
	t.Run("a changed byte anywhere is noticed", func(t *testing.T) {
		for i := range value {
			bad := bytes.Clone(value)
			bad[i] ^= 1
			if got, err := r.unlock(key, bad); err == nil {
				t.Errorf("byte %d: got %q", i, got)
			}
		}
	})
	t.Run("so is a cut one", func(t *testing.T) {
		for n := range value {
			if _, err := r.unlock(key, value[:n]); err == nil {
				t.Errorf("%d bytes: no error", n)
			}
		}
	})
	t.Run("so is one of another key of the database", func(t *testing.T) {
		if _, err := r.unlock(messageKey(store.MessageID{2}), value); !errors.Is(err, errAltered) {
			t.Errorf("got error %v", err)
		}
	})
	t.Run("a value without encryption is no value of an encrypted store", func(t *testing.T) {
		if _, err := r.unlock(key, plain); !errors.Is(err, errPlain) {
			t.Errorf("got error %v", err)
		}
	})
	t.Run("but notes of commit groups are", func(t *testing.T) {
		note := commitKey(7)
		value := seal(note, encodeCommit(commitRecord{seq: 7}))
		if got := r.lock(note, value); !bytes.Equal(got, value) {
			t.Errorf("got %x, want it as it was", got)
		}
		if _, err := r.unlock(note, value); err != nil {
			t.Error(err)
		}
	})
	t.Run("another key does not open it, and an earlier one does", func(t *testing.T) {
		if _, err := mustKeyring(t, second).unlock(key, value); !errors.Is(err, errNoKey) {
			t.Errorf("another: got error %v", err)
		}
		both := mustKeyring(t, second, first)
		if got, err := both.unlock(key, value); err != nil || string(got) != "some content" {
			t.Errorf("an earlier one: got %q, error %v", got, err)
		}
		if got := lockedBy(both.lock(key, plain)); got.String() != second.Fingerprint() {
			t.Errorf("a new value has the key %s, want the first, %s", got, second.Fingerprint())
		}
		if _, err := mustKeyring(t).unlock(key, value); !errors.Is(err, errNoKey) {
			t.Errorf("none: got error %v", err)
		}
	})
	t.Run("a key is for one purpose", func(t *testing.T) {
		other, err := newKeyring([]store.Key{first}, forBackup)
		mustDo(t, err)
		if _, err := other.unlock(key, value); !errors.Is(err, errAltered) {
			t.Errorf("got error %v", err)
		}
	})
	t.Run("without a key nothing changes", func(t *testing.T) {
		none := mustKeyring(t)
		if got := none.lock(key, plain); !bytes.Equal(got, plain) {
			t.Errorf("got %x", got)
		}
	})
	t.Run("of many processes only some keys are remembered", func(t *testing.T) {
		for n := range 3 * mostReaders {
			other := mustKeyring(t, first)
			if got, err := r.unlock(key, other.lock(key, plain)); err != nil || string(got) != "some content" {
				t.Fatalf("process %d: got %q, error %v", n, got, err)
			}
		}
		if len(r.readers) > mostReaders {
			t.Errorf("got %d, want at most %d", len(r.readers), mostReaders)
		}
	})
	for name, keys := range map[string][]store.Key{
		"one twice":       {first, second, first},
		"an empty one":    {first, {}},
		"more than bound": manyKeys(mostKeys + 1),
	} {
		t.Run("a list with "+name+" is refused", func(t *testing.T) {
			if _, err := newKeyring(keys, forValues); err == nil {
				t.Error("no error")
			}
		})
	}
}

func manyKeys(n int) (keys []store.Key) {
	for range n {
		keys = append(keys, store.NewKey())
	}
	return keys
}

func FuzzUnlock(f *testing.F) {
	r := mustKeyring(f, store.NewKey(), store.NewKey())
	key := messageKey(store.MessageID{1})
	f.Add(r.lock(key, seal(key, []byte("x"))))
	f.Add(seal(key, []byte("x")))
	f.Add([]byte{lockedFormat})
	f.Fuzz(func(t *testing.T, value []byte) {
		if got, err := r.unlock(key, value); err == nil && string(got) != "x" {
			t.Errorf("got %q of a value that nobody has made", got)
		}
		_, _ = mustKeyring(t).unlock(key, value)
	})
}

func FuzzKeysFile(f *testing.F) {
	f.Add([]byte(keysHeader + "\n0123456789abcdef\n"))
	f.Add([]byte(keysHeader + "\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, raw []byte) {
		ids, err := parseKeys(raw)
		if err != nil {
			return
		}
		text := keysHeader + "\n"
		for _, id := range ids {
			text += fmt.Sprintln(id)
		}
		if len(ids) == 0 || text != string(raw) {
			t.Errorf("%q was read as %q", raw, text)
		}
	})
}
