package storetest_test

import (
	"errors"
	"testing"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

func openMemory(tb testing.TB, o storetest.Options) store.Store {
	m := storetest.NewMemory(storetest.MemoryOptions(o))
	tb.Cleanup(func() {
		if err := m.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return m
}

func TestMemory(t *testing.T) { storetest.Run(t, openMemory) }

func TestBreak(t *testing.T) {
	t.Run("a broken engine says why and refuses", func(t *testing.T) {
		m := storetest.NewMemory(storetest.MemoryOptions{})
		reason := errors.New("sync failed")
		m.Break(reason)
		m.Break(errors.New("again"))
		select {
		case <-m.Broken():
		default:
			t.Error("Broken is open, want it closed")
		}
		if err := m.Err(); !errors.Is(err, store.ErrBroken) || !errors.Is(err, reason) {
			t.Errorf("Err: got %v, want ErrBroken with the first reason", err)
		}
		if _, err := m.PendingDestinations(t.Context()); !errors.Is(err, store.ErrBroken) {
			t.Errorf("PendingDestinations: got error %v, want ErrBroken", err)
		}
	})
}
