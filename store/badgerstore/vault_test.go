package badgerstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

func TestVault(t *testing.T) {
	t.Run("items are there after a kill", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		for _, name := range []string{"a/b", "a/c"} {
			if err := s.Keep(t.Context(), name, []byte("value of "+name)); err != nil {
				t.Fatalf("Keep: %v", err)
			}
		}
		if err := s.Discard(t.Context(), "a/c"); err != nil {
			t.Fatalf("Discard: %v", err)
		}
		again := mustOpen(t, Options{Path: snapshot(t, s.path)})
		item, err := again.Kept(t.Context(), "a/b")
		if err != nil || string(item.Value) != "value of a/b" {
			t.Errorf("Kept: got %q, error %v", item.Value, err)
		}
		items, err := again.KeptBelow(t.Context(), "")
		if err != nil || len(items) != 1 {
			t.Errorf("KeptBelow: got %+v, error %v; want one item", items, err)
		}
	})
	t.Run("it works below the reserve, and not on a disk that is full", func(t *testing.T) {
		free := int64(1 << 40)
		s := mustOpen(t, Options{Path: t.TempDir(), MinFree: 1 << 30, free: func(string) (int64, error) { return free, nil }})
		if err := s.Keep(t.Context(), "a", []byte("x")); err != nil {
			t.Fatalf("Keep: %v", err)
		}
		free = 1<<30 - 1
		if err := s.Keep(t.Context(), "b", []byte("x")); err != nil {
			t.Errorf("Keep below the reserve: %v", err)
		}
		free = 1<<29 - 1
		if err := s.Keep(t.Context(), "c", []byte("x")); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("Keep below half of it: got %v, want ErrNoSpace", err)
		}
		if err := s.Discard(t.Context(), "a"); err != nil {
			t.Errorf("Discard: %v", err)
		}
	})
	t.Run("a damaged item is an error, is left out of lists, and can be discarded", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		for _, name := range []string{"a", "a/b", "b"} {
			if err := s.Keep(t.Context(), name, []byte("x")); err != nil {
				t.Fatalf("Keep: %v", err)
			}
		}
		for _, name := range []string{"a", "a/b"} {
			err := s.db.Update(func(txn *badger.Txn) error { return txn.Set(vaultKey(name), []byte("what is this")) })
			if err != nil {
				t.Fatal(err)
			}
		}
		if item, err := s.Kept(t.Context(), "a"); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("Kept: got %+v, error %v; want another error than ErrNotFound", item, err)
		}
		if items, err := s.KeptBelow(t.Context(), ""); err != nil || len(items) != 1 || items[0].Name != "b" {
			t.Errorf("KeptBelow: got %+v, error %v; want b alone", items, err)
		}
		if err := s.Discard(t.Context(), "a"); err != nil {
			t.Errorf("Discard: %v", err)
		}
		for _, name := range []string{"a", "a/b"} {
			if _, err := s.Kept(t.Context(), name); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("Kept(%q): got error %v, want ErrNotFound", name, err)
			}
		}
	})
	t.Run("an item counts as secret, and its key says so in errors without its name", func(t *testing.T) {
		if inBackup(kindVault, false) || !inBackup(kindVault, true) {
			t.Error("in a backup without being asked for, or not when asked for")
		}
		if got, want := describe(vaultKey("x")), "item of the vault"; got != want {
			t.Errorf("describe: got %q, want %q", got, want)
		}
	})
}

func FuzzDecodeItem(f *testing.F) {
	f.Add("a/b", binary.BigEndian.AppendUint64(nil, stampOf(time.Unix(1, 0))))
	f.Add("", []byte("1234567"))
	f.Add(strings.Repeat("x", 600), []byte("12345678value"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		item, err := decodeItem(vaultKey(name), content)
		if err != nil {
			return
		}
		if item.Name != name || item.Size != len(item.Value) || item.Name == "" {
			t.Fatalf("got %+v", item)
		}
		if again := append(binary.BigEndian.AppendUint64(nil, stampOf(item.ModifiedAt)), item.Value...); binary.BigEndian.Uint64(content) < 1<<62 && !bytes.Equal(again, content) {
			t.Errorf("back as %x, want %x", again, content)
		}
	})
}
