package guard

import (
	"context"
	"errors"
	"time"
)

// ErrNoRoom is why a connection was not made: the Room of its transport stayed full.
var ErrNoRoom = errors.New("as many connections as the limit on open files allows are in use")

// Room bounds how many connections several transports have at a time, all together. Its methods may be called from several
// goroutines.
type Room struct {
	taken  chan struct{} // one entry for each connection
	again  time.Duration
	closer func()
}

// NewRoom returns room for n connections, at least one. Whoever waits calls makeRoom at once and again after each such
// time; it is to close connections that carry nothing, and must not wait for any.
func NewRoom(n int, again time.Duration, makeRoom func()) *Room {
	return &Room{taken: make(chan struct{}, n), again: again, closer: makeRoom}
}

// enter waits until there is room for one more connection, for as long as a dial may take or until ctx ends. Its error
// is ErrNoRoom, or the cause of ctx's end. A nil Room has no bound.
func (r *Room) enter(ctx context.Context) error {
	if r == nil {
		return nil
	}
	select {
	case r.taken <- struct{}{}:
		return nil
	default:
	}
	look, end := time.NewTicker(r.again), time.NewTimer(dialTimeout)
	defer look.Stop()
	defer end.Stop()
	for {
		r.closer()
		select {
		case r.taken <- struct{}{}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-end.C:
			return ErrNoRoom
		case <-look.C:
		}
	}
}

// leave gives back what enter has taken.
func (r *Room) leave() {
	if r != nil {
		<-r.taken
	}
}
