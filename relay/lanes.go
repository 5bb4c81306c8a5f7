package relay

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/store"
)

// errStopping refuses a reload.
var errStopping = errors.New("postern is stopping")

// lanes are the lanes that run now.
type lanes struct {
	mu      sync.RWMutex // guards the fields below
	running map[string]*running
	part    *part // that they are of; nil before a run, and as soon as its stop has begun
}

// running is one lane, from its beginning until nothing of it is left. Its fields but lane change under lanes.mu.
type running struct {
	lane    *lane.Lane
	config  laneConfig // that it goes by
	out     *outlet    // through which it sends
	retired bool       // it begins nothing
}

// laneConfig is all of a config that the lane of a destination goes by, and nothing else: a lane goes on untouched by a
// reload that leaves this as it is.
type laneConfig struct {
	destination config.Destination // without the keys that only routing reads
	block       bool
	conns       int      // a reload elsewhere may change its share
	secrets     []string // texts that are secrets because of how they are written
	egress      config.Egress
}

func (p *Plan) laneConfig(name string) laneConfig {
	d := *p.config.Destinations[name]
	d.Events, d.When, d.Enabled, d.Order, d.OrderOnFailure = nil, "", true, "", ""
	compiled := p.destinations[name]
	return laneConfig{destination: d, block: compiled.blockOnFailure, conns: compiled.conns, secrets: compiled.egress.Secrets, egress: p.config.Egress}
}

// lane returns the lane of a destination, also one that only ends what it has in flight, or nil.
func (r *Relay) lane(name string) *lane.Lane {
	r.lanes.mu.RLock()
	defer r.lanes.mu.RUnlock()
	if l := r.lanes.running[name]; l != nil {
		return l.lane
	}
	return nil
}

// outlet returns what the attempts of a destination go through, or nil if none may be begun.
func (r *Relay) outlet(name string) *outlet {
	r.lanes.mu.RLock()
	defer r.lanes.mu.RUnlock()
	if l := r.lanes.running[name]; l != nil && !l.retired {
		return l.out
	}
	return nil
}

// handover is what is to become of the lanes with a plan. It is made beforehand, so that nothing can fail in the middle.
type handover struct {
	plan  *Plan
	begin map[string]*outlet // for each lane that is new, or goes by something else
	end   func()             // lets pauses change again; to be called once

	// What is noted of those that are new.
	paused  map[string]store.Pause
	outages map[string]store.Outage
}

// prepare makes the handover to a plan. Until its end is called, nobody pauses or resumes the destinations whose lanes
// will be new.
func (r *Relay) prepare(ctx context.Context, p *Plan) (*handover, error) {
	h := &handover{plan: p, begin: map[string]*outlet{}}
	var ends []func()
	h.end = func() {
		for _, end := range ends {
			end()
		}
	}
	for _, name := range p.names {
		if !p.destinations[name].enabled {
			continue
		}
		r.lanes.mu.RLock()
		now := r.lanes.running[name]
		live := now != nil && !now.retired
		same := live && reflect.DeepEqual(now.config, p.laneConfig(name))
		r.lanes.mu.RUnlock()
		if same {
			continue
		}
		sender, closeIdle, err := p.destinations[name].sender(r, name)
		if err != nil {
			h.end()
			return nil, fmt.Errorf("destination %q: %w", name, err)
		}
		h.begin[name] = &outlet{sender: sender, closeIdle: closeIdle}
		if live {
			continue
		}
		end, err := r.pauses.turn(ctx, name)
		if err != nil {
			h.end()
			return nil, err
		}
		ends = append(ends, end)
	}
	if len(ends) == 0 {
		return h, nil
	}
	var err error
	if h.paused, err = r.Store.Paused(ctx); err != nil {
		h.end()
		return nil, fmt.Errorf("read pauses: %w", err)
	}
	if h.outages, err = r.Store.Outages(ctx); err != nil {
		h.end()
		return nil, fmt.Errorf("read outages: %w", err)
	}
	return h, nil
}

// handOver puts a handover's plan in force: from now on messages are routed, and attempts begun, by it.
func (r *Relay) handOver(h *handover) error {
	defer h.end()
	r.lanes.mu.Lock()
	defer r.lanes.mu.Unlock()
	if r.lanes.part == nil {
		return errStopping
	}
	r.plan.Store(h.plan) // before any lane begins: what its attempts come to is judged by it
	for _, name := range h.plan.names {
		if out := h.begin[name]; out != nil {
			r.begin(name, h, out)
		}
	}
	r.ingest.Store(r.ingestHandler(h.plan))
	for name, l := range r.lanes.running {
		if d := h.plan.destinations[name]; l.retired || d != nil && d.enabled {
			continue
		}
		l.lane.Retire()
		l.retired = true
		l.out.retire()
	}
	return nil
}

// begin has the lane of a destination go by a plan, a new one if none runs. The caller holds lanes.mu.
func (r *Relay) begin(name string, h *handover, out *outlet) {
	d, cfg, part := h.plan.destinations[name], h.plan.laneConfig(name), r.lanes.part
	counted := r.metrics.destination(name)
	next := &lane.Lane{
		Name: name, Queue: r.Store, Sender: out, Retry: d.retry, Concurrency: d.conns, Rate: d.rate, Batch: d.batch,
		Breaker: d.breaker, BlockOnFailure: d.blockOnFailure,
		Observe: func(before, after store.Delivery, a store.Attempt) {
			counted.observe(after, a)
			r.observe(part.ctx, before, after, a)
		},
		FollowUp: func(_, after store.Delivery, a store.Attempt) *lane.FollowUp {
			return r.notices.failed(part.ctx, after, a)
		},
		Drain: r.Drain, Now: r.Now, Log: r.Log.Named("lane"),
	}
	if l := r.lanes.running[name]; l != nil {
		receiver := lane.AnotherReceiver
		if l.config.destination.URL == cfg.destination.URL {
			receiver = lane.SameReceiver
		}
		if l.lane.Change(next, receiver) {
			l.out.retire()
			l.config, l.out, l.retired = cfg, out, false
			return
		}
	}
	told := &outages{Store: r.Store, Notices: &r.notices}
	next.Pauses, next.Outage, next.Outages, next.Opened = r.pauses.keeper(next), h.outages[name], told, told.opened
	if p, ok := h.paused[name]; ok {
		next.Paused = &p
		r.Log.Warn("destination is paused", zap.String("destination", name), zap.Time("since", p.At), zap.String("reason", p.Reason))
	}
	l := &running{lane: next, config: cfg, out: out}
	r.lanes.running[name] = l
	part.group.Go(func() error {
		err := next.Run(part.ctx)
		r.over(name, l)
		if err != nil {
			part.ended() // a lane that cannot go on ends the whole; one that has been retired does not
		}
		return wrap("lane "+name, err)
	})
}

// over forgets a lane of which nothing is left.
func (r *Relay) over(name string, l *running) {
	r.lanes.mu.Lock()
	defer r.lanes.mu.Unlock()
	if r.lanes.running[name] == l {
		delete(r.lanes.running, name)
	}
	l.out.retire()
}

// beginHandovers lets the first one come, and those after it, for the lanes of a part.
func (r *Relay) beginHandovers(p *part) {
	r.lanes.mu.Lock()
	defer r.lanes.mu.Unlock()
	r.lanes.part, r.lanes.running = p, map[string]*running{}
}

// endHandovers refuses those to come.
func (r *Relay) endHandovers() {
	r.lanes.mu.Lock()
	defer r.lanes.mu.Unlock()
	r.lanes.part = nil
}

// accepted tells of a delivery that has been accepted, and stands at c.
func (r *Relay) accepted(destination string, c store.Cursor) {
	r.wake(destination, c)
	r.changes.Accepted(destination, c.ID)
}

// wake tells the lane of a destination that something pending may have appeared at c.
func (r *Relay) wake(destination string, c store.Cursor) {
	if l := r.lane(destination); l != nil {
		l.Wake(c)
	}
}

// outlet is a sender with its connections: once it is retired they are closed as soon as they carry nothing.
type outlet struct {
	sender    lane.Sender
	closeIdle func()

	mu      sync.Mutex // guards the fields below
	sending int        // attempts being made
	retired bool
}

// Send implements lane.Sender.
func (o *outlet) Send(ctx context.Context, d store.Delivery) store.Attempt {
	o.begin()
	defer o.sent()
	return o.sender.Send(ctx, d)
}

// begin says that a request may be made, until sent.
func (o *outlet) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sending++
}

func (o *outlet) sent() {
	o.mu.Lock()
	o.sending--
	over := o.retired && o.sending == 0
	o.mu.Unlock()
	if over {
		o.closeIdle()
	}
}

// retire says that no attempt is begun any more, but for a few that may be about to.
func (o *outlet) retire() {
	o.mu.Lock()
	o.retired = true
	o.mu.Unlock()
	o.closeIdle()
}
