package relay

import (
	"errors"
	"slices"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

// order is which deliveries of a destination wait for one another.
type order string

const (
	orderKey order = "key"
	orderAll order = "all"
)

// line returns the line that a post with an ordering key stands in, as store.Recipient.Order. The line of all differs
// from that of every key.
func (o order) line(key string) string {
	switch {
	case o == orderAll:
		return "*"
	case o == orderKey && key != "":
		return "=" + key
	}
	return ""
}

// Route implements ingest.Router.
func (p *Plan) Route(post ingest.Post) ([]ingest.Route, error) {
	if post.Destination != "" {
		d, ok := p.destinations[post.Destination]
		switch {
		case !ok:
			return nil, &ingest.RouteError{
				Fault: ingest.UnknownDestination, Destination: post.Destination, Nearest: config.Nearest(post.Destination, p.names),
			}
		case post.Path != "" && !d.egress.ForwardPath:
			return nil, &ingest.RouteError{Fault: ingest.PathNotForwarded, Destination: post.Destination}
		}
		return []ingest.Route{d.route(post.Destination, post.Key)}, nil
	}
	if isNotice(post.Event) {
		return nil, &ingest.RouteError{Fault: ingest.ReservedEvent, Event: post.Event}
	}
	var routes []ingest.Route
	body := filtered{raw: post.Body}
	for _, name := range p.names {
		d := p.destinations[name]
		if !d.wants(post.Event) {
			continue
		}
		wanted, err := body.passes(d.when, p.parsing)
		if errors.Is(err, match.ErrBudget) {
			return nil, &ingest.RouteError{Fault: ingest.FilterTooCostly, Destination: name, Err: err}
		}
		if err != nil {
			return nil, &ingest.RouteError{Fault: ingest.BodyNotJSON, Destination: name, Err: err}
		}
		if wanted {
			routes = append(routes, d.route(name, post.Key))
		}
	}
	return routes, nil
}

// wants reports whether messages with an event go to a destination, if its filter lets them. What it gets of ours it has
// asked for by name: a pattern that every event matches is about those of the app.
func (d *destination) wants(event string) bool {
	patterns := d.patterns
	if isNotice(event) {
		patterns = d.notices
	}
	return d.enabled && slices.ContainsFunc(patterns, func(m match.Pattern) bool { return m.Match(event) })
}

func (d *destination) route(name, key string) ingest.Route {
	return ingest.Route{
		To:     store.Recipient{Destination: name, Delay: d.retry.First(), Order: d.order.line(key)},
		Header: d.egress.ForwardHeader,
	}
}

// filtered is a body that filters look into. It is parsed once, and only if there is a filter.
type filtered struct {
	raw    []byte
	parsed bool
	doc    match.Doc
	err    error
}

// smallBody is up to how many bytes a body is parsed without waiting for a turn.
const smallBody = 64 << 10

// passes asks a filter. The turns bound how many large bodies are parsed, and so how much memory their trees take, at a
// time; it is work for the processor alone, so that waiting for a turn takes nothing away.
func (f *filtered) passes(filter *match.Filter, turns chan struct{}) (bool, error) {
	if filter == nil {
		return true, nil
	}
	if len(f.raw) > smallBody {
		turns <- struct{}{}
		defer func() { <-turns }()
	}
	if !f.parsed {
		f.doc, f.err = match.ParseJSON(f.raw)
		f.parsed = true
	}
	if f.err != nil {
		return false, f.err
	}
	return filter.Match(f.doc)
}
