package relay

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/relay/listen"
	"github.com/postern-relay/postern/relay/match"
)

// token is one of the tokens of a listener, with what its holder may post.
type token struct {
	name   string // in log and metrics: its own, or its place in the list
	digest listen.Digest
	bounds bounds
}

// bounds are what the holder of a token may post. The zero value has none.
//
//	destinations  events   may post to              may post events
//	none          none     all                      all
//	some          none     those                    those that go to no other destination
//	none          some     none by name             those that match, wherever they go
//	some          some     those                    those that match, and go to no other destination
type bounds struct {
	destinations []string // sorted; nil for no such bound
	events       []match.Pattern
	rate         pace
}

// pace is so many messages at once, and as many again in each span of time. The zero value bounds nothing.
type pace struct {
	count int
	per   time.Duration
}

func (p pace) limit() rate.Limit { return rate.Limit(float64(p.count) / p.per.Seconds()) }

func (b bounds) any() bool { return b.destinations != nil || b.events != nil || b.rate != pace{} }

// ingestTokens compiles listen.tokens.
func (c *compiler) ingestTokens() []token {
	var all []token
	for i, t := range c.cfg.Listen.Tokens {
		key := fmt.Sprintf("listen.tokens[%d]", i)
		one, ok := c.token(key, fmt.Sprintf("tokens[%d]", i), t.Name, t.Token)
		if len(t.Destinations) > 0 {
			one.bounds.destinations = slices.Sorted(slices.Values(t.Destinations))
		}
		for j, text := range t.Events {
			pattern, err := match.ParsePattern(text)
			if c.fault(fmt.Sprintf("%s.events[%d]", key, j), err) {
				one.bounds.events = append(one.bounds.events, pattern)
			}
		}
		if t.Rate != nil {
			one.bounds.rate = pace{t.Rate.Count, t.Rate.Per}
		}
		if ok {
			all = append(all, one)
		}
	}
	return all
}

// adminTokens compiles listen.admin_tokens.
func (c *compiler) adminTokens() []token {
	var all []token
	for i, t := range c.cfg.Listen.AdminTokens {
		if one, ok := c.token(fmt.Sprintf("listen.admin_tokens[%d]", i), fmt.Sprintf("admin_tokens[%d]", i), t.Name, t.Token); ok {
			all = append(all, one)
		}
	}
	return all
}

// token compiles what both lists have in common. A token without a name is called by its place.
func (c *compiler) token(key, place, name string, text config.Secret) (token, bool) {
	if name != "" {
		key += ".token"
	} else {
		name = place
	}
	digest, err := listen.ParseToken(text.Reveal())
	return token{name: name, digest: digest}, c.fault(key, err)
}

// caller is who posts with a token that has bounds. Its methods may be called from several goroutines.
type caller struct {
	name   string // of the token
	bounds bounds
	pace   *rate.Limiter // nil for none
	now    func() time.Time
}

// callerOf returns who makes a request, by its context; see ingest.Handler.Caller.
func callerOf(ctx context.Context) ingest.Caller {
	if c, ok := listen.HolderOf(ctx).(*caller); ok {
		return c
	}
	return nil
}

// May implements ingest.Caller.
func (c *caller) May(p ingest.Post, routes []ingest.Route) *ingest.RouteError {
	refuse := func(format string, args ...any) *ingest.RouteError {
		return &ingest.RouteError{Fault: ingest.NotAllowed, Err: fmt.Errorf(format, args...)}
	}
	if p.Destination != "" {
		switch {
		case c.bounds.mayPostTo(p.Destination):
			return nil
		case c.bounds.destinations == nil:
			return refuse("the token %q may post events only; post to /events/{type}, or use another token", c.name)
		default:
			return refuse("the token %q may not post to destination %.100q; add that to its destinations in listen.tokens, "+
				"or use another token", c.name, p.Destination)
		}
	}
	if !c.bounds.mayPost(p.Event) {
		return refuse("the token %q may not post the event %.100q; add that to its events in listen.tokens, "+
			"or use another token", c.name, p.Event)
	}
	for _, r := range routes {
		if to := r.To.Destination; !c.bounds.mayReach(to) {
			return refuse("the event %.100q goes to destination %q too, to which the token %q may not post; add that to its "+
				"destinations in listen.tokens, or use another token", p.Event, to, c.name)
		}
	}
	return nil
}

// Bounded implements ingest.Caller.
func (c *caller) Bounded() bool { return c.bounds.destinations != nil || c.bounds.events != nil }

// mayPostTo reports whether posts may name a destination.
func (b bounds) mayPostTo(destination string) bool {
	if b.destinations == nil {
		return b.events == nil
	}
	return b.mayReach(destination)
}

// mayReach reports whether events may go to a destination.
func (b bounds) mayReach(destination string) bool {
	if b.destinations == nil {
		return true
	}
	_, ok := slices.BinarySearch(b.destinations, destination)
	return ok
}

// mayPost reports whether an event may be posted.
func (b bounds) mayPost(event string) bool {
	return b.events == nil || slices.ContainsFunc(b.events, func(m match.Pattern) bool { return m.Match(event) })
}

// Begin implements ingest.Caller.
func (c *caller) Begin() time.Duration {
	now := c.now()
	if c.pace == nil || c.pace.AllowN(now, 1) {
		return 0
	}
	missing := 1 - c.pace.TokensAt(now)
	wait := math.Ceil(missing / float64(c.pace.Limit()) * float64(time.Second))
	return max(time.Duration(min(wait, float64(longestPause))), 1)
}

// longestPause is the longest time that Begin tells. Batches that have begun together can take more than a duration holds.
const longestPause = 24 * time.Hour

// More implements ingest.Caller.
func (c *caller) More(messages int) {
	if c.pace == nil {
		return
	}
	now := c.now()
	for messages > 0 { // a reservation is for no more than may be posted at once
		n := min(messages, c.pace.Burst())
		c.pace.ReserveN(now, n)
		messages -= n
	}
}

// paces are how much of its rate the holder of each token has used, by the token's name. Reloads keep them.
type paces map[string]*rate.Limiter

// listenTokens returns the tokens for a listener of ingest, and the paces of them all. The holder of a token keeps the pace
// that its name has in before, also when the token itself or the rate has changed: what counts is who posts.
func listenTokens(list []token, before paces, now func() time.Time) ([]listen.Token, paces) {
	after := paces{}
	out := make([]listen.Token, len(list))
	for i, t := range list {
		out[i] = listen.Token{Name: t.name, Digest: t.digest}
		if !t.bounds.any() {
			continue
		}
		c := &caller{name: t.name, bounds: t.bounds, now: now}
		if p := t.bounds.rate; p != (pace{}) {
			c.pace = before[t.name]
			if c.pace == nil {
				c.pace = rate.NewLimiter(p.limit(), p.count)
			} else if c.pace.Limit() != p.limit() || c.pace.Burst() != p.count {
				c.pace.SetLimitAt(now(), p.limit())
				c.pace.SetBurstAt(now(), p.count)
			}
			after[t.name] = c.pace
		}
		out[i].Holder = c
	}
	return out, after
}

// adminTokens returns the tokens for the admin listener.
func adminTokens(list []token) []listen.Token {
	out := make([]listen.Token, len(list))
	for i, t := range list {
		out[i] = listen.Token{Name: t.name, Digest: t.digest}
	}
	return out
}

// adoptTokens puts the tokens of a plan in force. It returns the keys for which that cannot be: an address in force needs a
// token, and the one in the config does not. The listeners of ingest have the same tokens at any time.
func (r *Relay) adoptTokens(p *Plan) (refused []string) {
	list, paces := listenTokens(p.tokens, r.paces, r.Now)
	if setTokens(list, r.front, r.secure) == nil {
		r.paces = paces
	} else {
		refused = append(refused, "listen.tokens")
	}
	if setTokens(adminTokens(p.adminTokens), r.back) != nil {
		refused = append(refused, "listen.admin_tokens")
	}
	return refused
}

// setTokens gives listeners, of which some may be nil, a list of tokens: all of them, or none after an error.
func setTokens(list []listen.Token, servers ...*listen.Server) error {
	open := slices.DeleteFunc(servers, func(s *listen.Server) bool { return s == nil })
	for _, s := range open {
		if err := s.CheckTokens(list); err != nil {
			return err
		}
	}
	for _, s := range open {
		if err := s.SetTokens(list); err != nil {
			return err
		}
	}
	return nil
}

// PostToken returns the first token of a config that may post to a destination, or the event if that is empty; one that
// is not set if there is none. For an event that is one that may post to every destination whose events match, even if
// their filters would let a narrower one do.
func PostToken(cfg *config.Config, destination, event string) config.Secret {
	c := &compiler{cfg: cfg, faulty: map[string]bool{}}
	values := map[string]config.Secret{}
	for i, t := range cfg.Listen.Tokens {
		values[fmt.Sprintf("tokens[%d]", i)] = t.Token
		values[t.Name] = t.Token
	}
	var reached []string // by the event
	for name, d := range cfg.Destinations {
		if destination == "" && d.Enabled && slices.ContainsFunc(d.Events, func(text string) bool {
			pattern, err := match.ParsePattern(text)
			return err == nil && pattern.Match(event)
		}) {
			reached = append(reached, name)
		}
	}
	for _, t := range c.ingestTokens() {
		may := t.bounds.mayPostTo(destination)
		if destination == "" {
			may = t.bounds.mayPost(event) && !slices.ContainsFunc(reached, func(name string) bool { return !t.bounds.mayReach(name) })
		}
		if may {
			return values[t.name]
		}
	}
	return config.Secret{}
}
