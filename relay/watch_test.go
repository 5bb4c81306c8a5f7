package relay

import (
	"testing"

	"github.com/postern-relay/postern/store"
)

func TestWatches(t *testing.T) {
	var w watches
	id, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	other, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	end := func(id store.MessageID, n int, state store.State) {
		w.observe(store.Delivery{}, store.Delivery{ID: id.Delivery(n), State: state}, store.Attempt{})
	}
	first, stopFirst := w.watch(id)
	second, stopSecond := w.watch(id)

	end(id, 0, store.Pending)
	end(other, 0, store.Delivered)
	if len(first) != 0 {
		t.Error("a retry, or another message, is reported as an end")
	}
	end(id, 1, store.Failed)
	if d := <-first; d.ID != id.Delivery(1) || d.State != store.Failed {
		t.Errorf("got %v, want the delivery that has failed", d)
	}
	if len(second) != 1 {
		t.Errorf("the second watcher was told %d times, want once", len(second))
	}
	stopFirst()
	for range 2 * watchBuffer { // a watcher that does not read holds up nobody
		end(id, 2, store.Delivered)
	}
	if len(first) != 0 || len(second) != watchBuffer {
		t.Errorf("after stop: got %d and %d ends, want none and a full buffer", len(first), len(second))
	}
	stopSecond()
	if len(w.byMessage) != 0 {
		t.Errorf("left behind: %v", w.byMessage)
	}
}
