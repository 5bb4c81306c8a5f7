package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// Router says where posts go. Route is called from several goroutines, once for each post (so once for each line of a
// batch), and does not block.
type Router interface {
	// Route returns one Route for each destination of a post, at most store.MaxDeliveries; for an event that nobody
	// wants it returns none and no error. An error that is the post's fault is a *RouteError; any other is ours and
	// becomes a 500.
	Route(p Post) ([]Route, error)
}

// Post is what a Router is asked about. Just one of Destination and Event is set.
type Post struct {
	Destination string // name of the one destination that the post is for
	Event       string // dotted type, one that match.CheckEvent accepts
	Key         string // ordering key; empty for none, at most store.MaxKey bytes
	Path        string // as in store.Message; empty for nothing. Only with a Destination
	ContentType string // of the body; empty if the app sent none

	// Caller is who posts, if that is bounded in what it may post; nil if not. A Router need not look at it.
	Caller Caller

	// Body is the message's body, for filters on events. It is nil with a Destination, whose posts no filter concerns,
	// and is the caller's again when Route has returned.
	Body []byte
}

// Route is one destination of a post.
type Route struct {
	// To is the recipient. Its Delay counts from acceptance, and what the app asks for by Postern-Delay or
	// Postern-Deliver-At, at most 30 days, is added to it.
	To store.Recipient

	// Header names the headers of the app's request that the destination sends on, in canonical form (see
	// http.CanonicalHeaderKey). Those that never travel, such as Authorization, are left out of the message anyway.
	Header []string
}

// RouteFault is why a post goes nowhere.
type RouteFault uint8

// The faults of a post. The comment tells the status that it is answered with.
const (
	UnknownDestination RouteFault = iota + 1 // no destination has that name: 404
	PathNotForwarded                         // the post has a Path, and the destination does not send it on: 404, for a query alone 400
	BodyNotJSON                              // a filter has to look into the body, which is no JSON: 400
	FilterTooCostly                          // a filter takes too many steps on the body: 422
	ReservedEvent                            // the Event is one that only Postern's own messages have: 400
	TooManyRoutes                            // more than store.MaxDeliveries destinations want the event: 500
	NotAllowed                               // the caller may not make the post: 403
)

// RouteError says why a post goes nowhere, in a form that becomes an answer.
type RouteError struct {
	Fault       RouteFault
	Destination string // UnknownDestination, PathNotForwarded: its name as posted; BodyNotJSON, FilterTooCostly: whose filter it is
	Event       string // ReservedEvent: as posted
	Nearest     string // UnknownDestination: the name most like it; empty for none
	Err         error  // BodyNotJSON: what is wrong with the body; NotAllowed: why; fit for the client. nil otherwise
}

func (e *RouteError) Error() string {
	switch e.Fault {
	case UnknownDestination:
		text := fmt.Sprintf("there is no destination %.100q in the config", e.Destination)
		if e.Nearest != "" {
			text += fmt.Sprintf("; did you mean %q?", e.Nearest)
		}
		return text
	case PathNotForwarded:
		return fmt.Sprintf("destination %.100q does not forward a path or a query (forward_path); post to %s%.100s",
			e.Destination, toPath, e.Destination)
	case BodyNotJSON:
		return fmt.Sprintf("the filter (when) of destination %.100q needs a JSON body: %v", e.Destination, e.Err)
	case FilterTooCostly:
		return fmt.Sprintf("the filter (when) of destination %.100q takes too many steps on this body; make the body smaller, or the filter simpler", e.Destination)
	case ReservedEvent:
		return fmt.Sprintf("the event %.100q begins like those of Postern itself; use a name with another first segment", e.Event)
	case NotAllowed:
		return e.Err.Error()
	case TooManyRoutes:
		return fmt.Sprintf("more than %d destinations want this event; narrow their events in the config", store.MaxDeliveries)
	default:
		return fmt.Sprintf("route fault %d", e.Fault)
	}
}

func (e *RouteError) Unwrap() error { return e.Err }

// route asks the Router where a post goes, and its caller whether it may. Its errors are answers, if they are the post's
// fault.
func (h *Handler) route(p Post) ([]Route, error) {
	if p.Destination != "" {
		p.Body = nil
	}
	// In this order, so that a caller learns nothing of destinations that it may not post to.
	if err := may(p, nil); err != nil {
		return nil, refuseRoute(p, err)
	}
	routes, err := h.Router.Route(p)
	if err == nil && len(routes) > store.MaxDeliveries {
		err = &RouteError{Fault: TooManyRoutes}
	}
	if err == nil {
		err = may(p, routes)
	}
	if err != nil {
		return nil, refuseRoute(p, err)
	}
	return routes, nil
}

// refuseRoute turns an error that is a post's fault into an answer, and leaves others as they are.
func refuseRoute(p Post, err error) error {
	fault, ok := errors.AsType[*RouteError](err)
	if !ok {
		return err
	}
	status := http.StatusInternalServerError
	switch fault.Fault {
	case NotAllowed:
		status = http.StatusForbidden
	case UnknownDestination:
		status = http.StatusNotFound
	case PathNotForwarded:
		status = http.StatusNotFound
		if strings.HasPrefix(p.Path, "?") {
			status = http.StatusBadRequest
		}
	case BodyNotJSON, ReservedEvent:
		status = http.StatusBadRequest
	case FilterTooCostly:
		status = http.StatusUnprocessableEntity
	}
	return &problem.Error{Status: status, Detail: fault.Error()}
}
