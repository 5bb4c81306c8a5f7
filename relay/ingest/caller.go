package ingest

import (
	"errors"
	"net/http"
	"time"

	"github.com/postern-relay/postern/relay/problem"
)

// Caller is who makes a request, where the config bounds what it may post. Its methods may be called from several
// goroutines, and do not block.
type Caller interface {
	// May returns nil if the caller may make a post that goes to these routes, and else why not: a RouteError whose Fault
	// is NotAllowed. It is asked with nil routes before they are known, and then again with them.
	May(p Post, routes []Route) *RouteError

	// Bounded reports whether there are posts that May refuses.
	Bounded() bool

	// Begin takes one message from the caller's rate and returns 0; or it takes none, and returns how long to wait for
	// the next one.
	Begin() time.Duration

	// More takes the further messages of a request that has begun and was accepted. The rate makes up for them before
	// the next one may begin.
	More(messages int)
}

// errRate tells the refusals for a caller's rate from others of the same status.
var errRate = errors.New("the caller's rate is used up")

// callerOf returns who makes a request, nil for one without bounds.
func (h *Handler) callerOf(r *http.Request) Caller {
	if h.Caller == nil {
		return nil
	}
	return h.Caller(r.Context())
}

// begin takes the first message of a request from the caller's rate. A nil caller has none.
func begin(caller Caller) error {
	if caller == nil {
		return nil
	}
	wait := caller.Begin()
	if wait <= 0 {
		return nil
	}
	e := problem.New(http.StatusTooManyRequests, "this token may post no more for now (rate in listen.tokens); post again after "+
		"the time in Retry-After").RetryAfter(int((wait + time.Second - 1) / time.Second))
	e.Cause = errRate
	return e
}

// bounded reports whether a caller may not post everything.
func bounded(caller Caller) bool { return caller != nil && caller.Bounded() }

// may asks whether the caller of a post may make it.
func may(p Post, routes []Route) error {
	if p.Caller == nil {
		return nil
	}
	if fault := p.Caller.May(p, routes); fault != nil {
		return fault
	}
	return nil
}
