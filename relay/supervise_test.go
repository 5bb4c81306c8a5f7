package relay

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/postern-relay/postern/store"
)

func TestPhases(t *testing.T) {
	var (
		mu   sync.Mutex
		seen []Phase
	)
	told := func() []Phase {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
	r := newRig(t, `destinations: {a: {url: "https://a.test/"}}`, func(r *rig) {
		r.OnPhase = func(p Phase) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, p)
		}
	})
	until(t, "it serves", func() bool { return len(told()) > 0 })
	if err := r.Alive(t.Context()); err != nil {
		t.Errorf("alive: %v", err)
	}
	r.reloadWith(t, `destinations: {a: {url: "https://a.test/"}, b: {url: "https://b.test/"}}`)
	r.write(t, `destinations: {a: {uri: x}}`)
	if err := r.Reload(t.Context()); err == nil {
		t.Error("a wrong config: got no error")
	}
	r.stop()
	if err := r.Reload(t.Context()); err == nil {
		t.Error("a reload after the stop: got no error")
	}
	want := []Phase{Serving, Reloading, Serving, Reloading, Serving, Stopping}
	if got := told(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: nothing is told of after the stop", got, want)
	}
}

func TestAliveWithABrokenStore(t *testing.T) {
	broken := errors.New("input/output error")
	r := &Relay{Store: failedStore{err: broken}}
	if err := r.Alive(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v, want what the store says", err)
	}
}

// failedStore is a store that cannot go on.
type failedStore struct {
	store.Store
	err error
}

func (s failedStore) Err() error { return s.err }
