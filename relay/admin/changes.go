package admin

import (
	"sync"

	"github.com/postern-relay/postern/store"
)

const (
	maxStreams = 100 // that listen at a time
	maxQueued  = 256 // deliveries and destinations that a stream may be behind
)

// Changes tells streams what has changed. The zero value is ready, and a nil one tells nobody. Its methods may be
// called from several goroutines; they never block and cost next to nothing while nobody listens.
//
// A stream that does not keep up costs a bounded amount: what changes twice before it is told is told once, and one
// that is behind by more than 256 deliveries and destinations is ended.
type Changes struct {
	mu      sync.Mutex // guards the fields below
	streams map[*stream]struct{}
}

// changeKey is what has changed: one of the two, or the config if it is zero.
type changeKey struct {
	delivery    store.DeliveryID
	destination string
}

// change is what a stream will be told. Of a delivery that is not known, its state is read when it is told.
type change struct {
	key      changeKey
	delivery *store.Delivery // nil if not known
}

// Delivery tells that a delivery has changed, and its destination with it.
func (c *Changes) Delivery(d store.Delivery) {
	c.tell(d.Destination, change{changeKey{delivery: d.ID}, &d}, change{key: changeKey{destination: d.Destination}})
}

// Observe tells of an attempt that is on record; its arguments are those of lane.Lane.Observe.
func (c *Changes) Observe(_, after store.Delivery, _ store.Attempt) { c.Delivery(after) }

// Accepted tells that there is a new delivery for a destination.
func (c *Changes) Accepted(destination string, id store.DeliveryID) {
	c.tell(destination, change{key: changeKey{delivery: id}}, change{key: changeKey{destination: destination}})
}

// Destination tells that the state of a destination has changed.
func (c *Changes) Destination(name string) {
	c.tell(name, change{key: changeKey{destination: name}})
}

// Reload tells that the config was loaded again, or refused.
func (c *Changes) Reload() { c.tell("", change{}) }

// tell gives changes to the streams that want those of the destination; an empty one is for all.
func (c *Changes) tell(destination string, list ...change) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		if destination == "" || s.destination == "" || s.destination == destination {
			s.add(list)
		}
	}
}

// listen begins a stream of the changes of a destination, or of all if it is empty. It returns nil if there are too
// many already. The caller ends it.
func (c *Changes) listen(destination string) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) >= maxStreams {
		return nil
	}
	if c.streams == nil {
		c.streams = map[*stream]struct{}{}
	}
	s := &stream{destination: destination, signal: make(chan struct{}, 1), queued: map[changeKey]int{}}
	c.streams[s] = struct{}{}
	return s
}

func (c *Changes) end(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s)
}

// stream is what one listener has not been told yet.
type stream struct {
	destination string
	signal      chan struct{} // of capacity 1: there is something to take

	mu      sync.Mutex // guards the fields below
	queue   []change
	queued  map[changeKey]int // place in queue
	lagging bool              // more came than fits; nothing is added any more
}

func (s *stream) add(list []change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range list {
		if s.lagging {
			break
		}
		if at, ok := s.queued[c.key]; ok {
			s.queue[at] = c
			continue
		}
		if len(s.queue) == maxQueued {
			s.lagging, s.queue, s.queued = true, nil, nil
			break
		}
		s.queued[c.key] = len(s.queue)
		s.queue = append(s.queue, c)
	}
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// take returns what is queued, in order, and whether the stream lags.
func (s *stream) take() (list []change, lagging bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list = s.queue
	if !s.lagging {
		s.queue, s.queued = nil, map[changeKey]int{}
	}
	return list, s.lagging
}
