package badgerstore

import (
	"errors"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

func TestCheck(t *testing.T) {
	s := mustOpen(t, Options{Path: t.TempDir(), Keys: manyKeys(1), Log: zap.NewNop()})
	ids := fill(t, s, 5, 100_000)
	fillCanaries(t, s)
	t.Run("finds nothing wrong where nothing is", func(t *testing.T) {
		got, err := s.Check(t.Context())
		if err != nil || got.Counts.Messages != 7 || got.Counts.Damaged != 0 || len(got.Faults) != 0 || got.Counts.Keys != 1 {
			t.Errorf("got %+v, error %v", got, err)
		}
	})
	t.Run("names what is damaged or missing", func(t *testing.T) {
		mustDo(t, s.db.Update(func(txn *badger.Txn) error {
			return errors.Join(txn.Set(deliveryKey(ids[0].Delivery(0)), []byte("x")),
				txn.Delete(chunkKey(ids[1], 0)), txn.Delete(messageKey(ids[2])))
		}))
		got, err := s.Check(t.Context())
		text := strings.Join(got.Faults, "\n")
		if err != nil || got.Counts.Damaged != 3 {
			t.Errorf("got %+v, error %v; want 3 faults", got, err)
		}
		for _, want := range []string{
			"state of delivery " + ids[0].Delivery(0).String(), ids[1].String() + ": piece 1", "message " + ids[2].String() + " is missing",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("got %q, want it to say %q", text, want)
			}
		}
	})
}
