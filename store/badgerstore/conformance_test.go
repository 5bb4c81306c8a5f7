package badgerstore

import (
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// mustOpen opens a store and closes it with the test.
func mustOpen(tb testing.TB, o Options) *Store {
	tb.Helper()
	if o.Log == nil {
		o.Log = zaptest.NewLogger(tb)
	}
	s, err := Open(o)
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(tb testing.TB, o storetest.Options) store.Store {
		return mustOpen(tb, Options{Path: tb.TempDir(), Now: o.Now, MaxPending: o.MaxPending})
	})
}
