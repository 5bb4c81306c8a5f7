package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

const (
	// maxSeveral bounds a request that brings several messages, in bytes.
	maxSeveral = 64 << 20

	// partSlop is what a part of such a request may have beyond the largest body: its other members.
	partSlop = 64 << 10

	// severalTimeout bounds reading and storing several messages together. The server's own bound for reading is
	// shorter as a rule.
	severalTimeout = 90 * time.Second
)

// parts reads a request that brings several messages, one after the other.
type parts interface {
	// next returns the next post and its place, counted in what place names. io.EOF ends it. The post's body may be
	// overwritten by the following call.
	next() (in incoming, place int, err error)
}

// several is a request whose messages are accepted together: the rest of it is read while the first are written.
type several struct {
	h     *Handler
	parts parts
	place string // what a place is called: line or event
	key   string // what the client calls its idempotency keys
	span  *acceptSpan

	caller Caller // who makes the request; nil for one without bounds

	places     []int32 // of the posts so far
	sizes      []int32 // of their bodies
	deliveries int
	spans      map[string]span // of the deliveries so far
}

// span is a stretch of the queue of one destination.
type span struct{ first, last store.Cursor }

// serve stores all messages of a request, or none, and answers.
func (s *several) serve(w http.ResponseWriter, r *http.Request) error {
	s.spans = make(map[string]span)
	extendDeadline(w, severalTimeout)
	// As for one message, a client that goes away ends nothing but the reading.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(r.Context()), severalTimeout, errAcceptTimeout)
	defer cancel()
	accepted, err := s.h.Acceptor.AcceptAll(ctx, s.posts)
	if err != nil {
		if ctx.Err() != nil {
			s.wakeSpans() // they may have been stored all the same
		}
		return s.refuse(err)
	}
	for n, a := range accepted {
		s.h.Metrics.accept(a.Existing, int(s.sizes[n]))
		if !a.Existing {
			s.h.wake(a.Message)
		}
	}
	if s.caller != nil && len(accepted) > 1 {
		s.caller.More(len(accepted) - 1)
	}
	s.span.acceptedAll(accepted, s.h.acceptedStatus())
	s.h.answerAll(w, accepted)
	return nil
}

// posts yields the messages of the request. Its errors are answers.
func (s *several) posts(yield func(store.Post, error) bool) {
	for {
		in, place, err := s.parts.next()
		if err == io.EOF {
			return
		}
		var post store.Post
		if err == nil {
			post, err = s.post(in)
		}
		if err != nil {
			yield(store.Post{}, s.at(place, err))
			return
		}
		s.places, s.sizes = append(s.places, int32(place)), append(s.sizes, int32(len(post.Body)))
		if !yield(post, nil) {
			return
		}
	}
}

func (s *several) post(in incoming) (store.Post, error) {
	if len(s.places) == store.MaxPosts {
		return store.Post{}, problem.New(http.StatusRequestEntityTooLarge, "there are more than %d messages; send several requests",
			store.MaxPosts)
	}
	routes, err := s.h.route(in.post)
	if err != nil {
		return store.Post{}, err
	}
	if s.deliveries += len(routes); s.deliveries > store.MaxPosts {
		return store.Post{}, problem.New(http.StatusRequestEntityTooLarge, "the messages up to here make more than %d deliveries; "+
			"send several requests", store.MaxPosts)
	}
	in.routes = routes
	m, err := s.h.message(in)
	if err != nil {
		return store.Post{}, err
	}
	for n, to := range m.Recipients {
		c := m.Delivery(n).Cursor()
		known, ok := s.spans[to.Destination]
		if !ok {
			known = span{c, c}
		}
		if c.Less(known.first) {
			known.first = c
		}
		if known.last.Less(c) {
			known.last = c
		}
		s.spans[to.Destination] = known
	}
	return store.Post{Message: m, Body: in.post.Body}, nil
}

func (s *several) wakeSpans() {
	if s.h.Wake == nil {
		return
	}
	for destination, span := range s.spans {
		s.h.Wake(destination, span.first)
		s.h.Wake(destination, span.last)
	}
}

// refuse turns an error of AcceptAll into an answer.
func (s *several) refuse(err error) error {
	if answer, ok := errors.AsType[*problem.Error](err); ok {
		return answer // one of ours, that posts has yielded
	}
	if one, ok := errors.AsType[*store.PostError](err); ok && one.Index < len(s.places) {
		return s.at(int(s.places[one.Index]), refuse(one.Err, s.key))
	}
	return refuse(err, s.key)
}

// at says where in the request an error is. place 0 is the request as a whole.
func (s *several) at(place int, err error) error {
	answer, ok := errors.AsType[*problem.Error](err)
	if !ok {
		return fmt.Errorf("%s %d: %w", s.place, place, err)
	}
	located := *answer
	if place > 0 {
		located.Detail = fmt.Sprintf("%s %d: %s", s.place, place, answer.Detail)
	}
	if located.Status < http.StatusInternalServerError {
		located.Detail += "; nothing was accepted"
	}
	return located.Closing() // the rest of the request has not been read
}

// share is the memory of one request, taken from BodyMemory.
type share struct {
	h     *Handler
	taken int64
}

// grow takes as much as is missing to need bytes, of which the first are free.
func (s *share) grow(need int64) error {
	if need <= freeBody || need <= s.taken {
		return nil
	}
	if !s.h.takeMemory(need - s.taken) {
		return noMemory()
	}
	s.taken = need
	return nil
}

func (s *share) release() {
	s.h.load().bodies.Add(-s.taken)
	s.taken = 0
}

// openSeveral prepares the body of a request that brings several messages for reading.
func openSeveral(w http.ResponseWriter, r *http.Request) (io.Reader, error) {
	// Judged before reading: net/http asks for the body of an "Expect: 100-continue" with the first read.
	if r.ContentLength > maxSeveral {
		return nil, tooMuch()
	}
	return severalBody{http.MaxBytesReader(w, r.Body, maxSeveral)}, nil
}

// severalBody is a body whose errors are answers.
type severalBody struct{ in io.Reader }

func (b severalBody) Read(p []byte) (int, error) {
	n, err := b.in.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return n, tooMuch()
	}
	return n, unreadable(err)
}

func tooMuch() error {
	return problem.New(http.StatusRequestEntityTooLarge, "the request is larger than %d bytes; send several", maxSeveral).Closing()
}
