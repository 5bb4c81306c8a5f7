package relay

import (
	"slices"
	"sync"

	"github.com/postern-relay/postern/store"
)

// watchBuffer is how many ends of deliveries a watcher may be behind. More are dropped, and looked up by it at the end.
const watchBuffer = 64

// watches tells the requests that wait for the deliveries of their message when one ends. The zero value is ready.
type watches struct {
	mu        sync.Mutex // guards the field below
	byMessage map[store.MessageID][]chan store.Delivery
}

// watch begins to report the ends of a message's deliveries, until stop.
func (w *watches) watch(id store.MessageID) (ended <-chan store.Delivery, stop func()) {
	c := make(chan store.Delivery, watchBuffer)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byMessage == nil {
		w.byMessage = map[store.MessageID][]chan store.Delivery{}
	}
	w.byMessage[id] = append(w.byMessage[id], c)
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		left := slices.DeleteFunc(w.byMessage[id], func(other chan store.Delivery) bool { return other == c })
		if len(left) == 0 {
			delete(w.byMessage, id)
		} else {
			w.byMessage[id] = left
		}
	}
}

// observe is told of each attempt that is on record.
func (w *watches) observe(_, after store.Delivery, _ store.Attempt) {
	if !after.State.Ended() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.byMessage[after.ID.Message()] {
		select {
		case c <- after:
		default:
		}
	}
}
