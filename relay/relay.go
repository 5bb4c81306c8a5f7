// Package relay is one running relay. [Load] turns a config file into a [Plan], the compiled config that never
// changes; [Relay.Run] opens the listeners, runs a lane for each destination and the sweep, and stops them all,
// from the outside in, when its context ends.
//
// It is the one place where the parts (listen, ingest, lane, egress, admin) meet: none of them knows another.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/relay/listen"
	"github.com/postern-relay/postern/store"
)

// adminDrain is how long admin requests may go on when all the rest has stopped.
const adminDrain = time.Second

// Relay is one running relay. Set its fields, then call Run once.
type Relay struct {
	Plan  *Plan            // required
	Store store.Store      // required; the caller opens and closes it
	Log   *zap.Logger      // nil logs nothing
	Drain time.Duration    // how long requests and attempts in flight may go on after a stop; 0 means 10 s
	Now   func() time.Time // wall clock; nil means time.Now

	lanes    map[string]*lane.Lane
	pauses   *pauses
	watches  watches
	draining atomic.Bool
	stopping chan struct{} // closed when draining begins
}

// Run serves until ctx ends or the store breaks, and returns when nothing of it is left: nil after a stop that was
// asked for, an error that wraps store.ErrBroken when the store cannot go on, or the reason why a listener did
// not open. What is pending then stays in the store and is delivered by the next run.
func (r *Relay) Run(ctx context.Context) error {
	if r.Plan == nil || r.Store == nil {
		return errors.New("relay: Plan and Store are required")
	}
	r.setDefaults()

	ingestServer, adminServer, err := r.open()
	if err != nil {
		return err
	}

	r.release(ctx)
	closeIdle, err := r.makeLanes(ctx, ingestServer.Addr(), adminServer.Addr())
	if err != nil {
		return errors.Join(err, ingestServer.Close(), adminServer.Close())
	}
	defer closeIdle()

	// The lanes stop first, and meanwhile ingest answers 503: an accepted message needs no lane to be safe. The admin
	// listener goes on until the rest is over, to tell how it goes. A part that cannot go on ends the whole.
	base := context.WithoutCancel(ctx)
	stopCtx, stop := context.WithCancel(ctx)
	defer stop()
	lanes, stopLanes := newPart(base, stop)
	defer stopLanes()
	front, stopFront := newPart(base, stop)
	defer stopFront()
	back, stopBack := newPart(base, stop)
	defer stopBack()
	back.start("admin listener", adminServer.Run)
	front.start("ingest listener", ingestServer.Run)
	for _, name := range r.Plan.Destinations() {
		if l := r.lanes[name]; l != nil {
			lanes.start("lane "+name, l.Run)
		}
	}
	sweep := &sweeper{Store: r.Store, Retention: r.Plan.retention, Now: r.Now, Log: r.Log.Named("sweep")}
	lanes.start("sweep", sweep.Run)
	r.logStart(ctx, ingestServer, adminServer)

	select {
	case <-stopCtx.Done():
	case <-r.Store.Broken():
	}
	r.draining.Store(true)
	close(r.stopping)
	r.Log.Info("stopping", zap.Duration("drain_seconds", r.Drain), zap.Int64("pending", r.Store.Pending()))
	// One time bounds requests and attempts alike.
	cut := time.AfterFunc(r.Drain, func() { _ = ingestServer.Close() }) // its error is that of Run as well
	defer cut.Stop()
	stopLanes()
	err = lanes.group.Wait()
	stopFront()
	err = errors.Join(err, front.group.Wait())
	stopBack()
	err = errors.Join(err, back.group.Wait())
	if broken := r.Store.Err(); broken != nil {
		return fmt.Errorf("store: %w", broken)
	}
	return err
}

// part is what stops together.
type part struct {
	ctx   context.Context
	group errgroup.Group
	ended func()
}

// newPart returns a part and the func that stops it. ended is called as soon as something of it has ended.
func newPart(ctx context.Context, ended func()) (*part, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	return &part{ctx: ctx, ended: ended}, stop
}

func (p *part) start(name string, run func(context.Context) error) {
	p.group.Go(func() error {
		defer p.ended()
		return wrap(name, run(p.ctx))
	})
}

func (r *Relay) setDefaults() {
	if r.Log == nil {
		r.Log = zap.NewNop()
	}
	if r.Drain <= 0 {
		r.Drain = 10 * time.Second
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	r.stopping = make(chan struct{})
}

// open binds both listeners, so that a port in use is an error before anything has started.
func (r *Relay) open() (ingestServer, adminServer *listen.Server, err error) {
	ingestServer, err = listen.Open(listen.Options{
		Address: r.Plan.ingestAddress, Tokens: r.Plan.tokens, Drain: r.Drain, Log: r.Log.Named("listen.ingest"),
		Handler: &ingest.Handler{
			Acceptor: r.Store, Router: r.Plan, Wake: r.wake, Watch: r.watches.watch, Deliveries: r.Store,
			MaxBody: r.Plan.maxBody, AcceptedStatus: r.Plan.acceptedStatus, Draining: r.draining.Load, Stopping: r.stopping,
			Now: r.Now, Log: r.Log.Named("ingest"),
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open ingest listener: %w", err)
	}
	adminServer, err = listen.Open(listen.Options{
		Address: r.Plan.adminAddress, Drain: adminDrain, Log: r.Log.Named("listen.admin"),
		Handler: &admin.Handler{Ready: r.unready, Steering: steering{r}, Log: r.Log.Named("admin")},
	})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open admin listener: %w", err), ingestServer.Close())
	}
	return ingestServer, adminServer, nil
}

// makeLanes makes the lanes of the destinations that are enabled. Their dialers learn our own addresses, so that a
// destination can never be the relay itself. The returned func closes their idle connections.
func (r *Relay) makeLanes(ctx context.Context, own ...net.Addr) (closeIdle func(), err error) {
	var listening []netip.AddrPort
	for _, a := range own {
		if tcp, ok := a.(*net.TCPAddr); ok {
			listening = append(listening, tcp.AddrPort())
		}
	}
	paused, err := r.Store.Paused(ctx)
	if err != nil {
		return nil, fmt.Errorf("read pauses: %w", err)
	}
	outages, err := r.Store.Outages(ctx)
	if err != nil {
		return nil, fmt.Errorf("read outages: %w", err)
	}
	r.pauses = &pauses{Store: r.Store, Lane: func(name string) *lane.Lane { return r.lanes[name] }}
	r.lanes = make(map[string]*lane.Lane)
	var closers []func()
	for _, name := range r.Plan.Destinations() {
		d := r.Plan.destinations[name]
		if !d.enabled {
			continue
		}
		sender, closeIdle, err := d.sender(r, name, func() []netip.AddrPort { return listening })
		if err != nil {
			return nil, fmt.Errorf("destination %q: %w", name, err)
		}
		closers = append(closers, closeIdle)
		l := &lane.Lane{
			Name: name, Queue: r.Store, Sender: sender, Retry: d.retry, Concurrency: d.concurrency, Rate: d.rate, Batch: d.batch,
			Breaker: d.breaker, BlockOnFailure: d.blockOnFailure, Outage: outages[name], Outages: r.Store, Observe: r.watches.observe,
			Drain: r.Drain, Now: r.Now, Log: r.Log.Named("lane"),
		}
		l.Pauses = r.pauses.keeper(l)
		if p, ok := paused[name]; ok {
			l.Paused = &p
			r.Log.Warn("destination is paused", zap.String("destination", name), zap.Time("since", p.At), zap.String("reason", p.Reason))
		}
		r.lanes[name] = l
	}
	return func() {
		for _, closeIdle := range closers {
			closeIdle()
		}
	}, nil
}

// wake tells the lane of a destination that something pending may have appeared at c.
func (r *Relay) wake(destination string, c store.Cursor) {
	if l := r.lanes[destination]; l != nil {
		l.Wake(c)
	}
}

// unready lists why new messages should not be sent here now.
func (r *Relay) unready() []string {
	var reasons []string
	if r.draining.Load() {
		reasons = append(reasons, "stopping")
	}
	switch err := r.Store.Full(); {
	case err == nil:
	case errors.Is(err, store.ErrNoSpace):
		reasons = append(reasons, "free disk space is below the reserve")
	case errors.Is(err, store.ErrBacklog):
		reasons = append(reasons, "too many deliveries are pending (store.max_pending)")
	default:
		reasons = append(reasons, "the store has failed")
	}
	return reasons
}

// logStart says where the relay listens and what is waiting, and warns of deliveries that nothing will send.
func (r *Relay) logStart(ctx context.Context, ingestServer, adminServer *listen.Server) {
	r.Log.Info("listening", zap.String("ingest", addrText(ingestServer.Addr())), zap.String("admin", addrText(adminServer.Addr())),
		zap.Int64("pending", r.Store.Pending()))
	waiting, err := r.Store.PendingDestinations(ctx)
	if err != nil {
		r.Log.Warn("pending destinations unknown", zap.Error(err))
		return
	}
	for _, name := range waiting {
		switch d, ok := r.Plan.destinations[name]; {
		case !ok:
			r.Log.Warn("deliveries held", zap.String("destination", name), zap.String("reason", "not in the config"))
		case !d.enabled:
			r.Log.Warn("deliveries held", zap.String("destination", name), zap.String("reason", "not enabled"))
		}
	}
}

func addrText(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix://" + a.String()
	}
	return a.String()
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
