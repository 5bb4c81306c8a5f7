// Package relay is one running relay. [Load] turns a config file into a [Plan], the compiled config that never
// changes; [Relay.Run] opens the listeners, runs a lane for each destination and the sweep, and stops them all,
// from the outside in, when its context ends. [Relay.Reload] puts another plan in force while it runs.
//
// It is the one place where the parts (listen, ingest, lane, egress, admin) meet: none of them knows another.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/relay/listen"
	"github.com/postern-relay/postern/store"
)

const (
	// adminDrain is how long admin requests may go on when all the rest has stopped.
	adminDrain = time.Second

	// The export of traces gets what is left of the drain time, within these bounds.
	leastTraceDrain = time.Second
	maxTraceDrain   = 5 * time.Second
)

// Relay is one running relay. Set its fields, then call Run once.
type Relay struct {
	Plan  *Plan       // required: the one to begin with
	Store store.Store // required; the caller opens and closes it

	// Backups copies Store when the admin API is asked to; nil means that its engine has another way of copying.
	Backups store.Backuper

	Log   *zap.Logger      // nil logs nothing
	Drain time.Duration    // how long requests and attempts in flight may go on after a stop; 0 means 10 s
	Now   func() time.Time // wall clock; nil means time.Now

	// Hangups causes a reload with each value, as of SIGHUP, while Run serves; one that comes before is to be kept in
	// its buffer. nil causes none.
	Hangups <-chan os.Signal

	// Follow has Run reload by itself when the config file or a file that it refers to has changed.
	Follow bool

	// Level is set to log.level by each reload; nil makes that a key whose change needs a restart.
	Level *zap.AtomicLevel

	Version string // of Postern, for the admin API to tell; empty tells none

	// Metrics is where all metrics are registered, for /metrics; those of the store may be there already. It is for one
	// Relay alone. nil makes one.
	Metrics *prometheus.Registry

	Sockets Sockets // opened by whoever started this process; the zero value means that there are none

	// OnPhase is told when a phase begins, by Run or by the goroutine of a reload, and must not block for long: a reload
	// and a stop wait for it. nil means that nobody wants to know.
	OnPhase func(Phase)

	phases  phases
	plan    atomic.Pointer[Plan] // in force; nil before Run has begun
	ingest  atomic.Pointer[ingest.Handler]
	load    ingest.Load // of all its handlers
	front   *listen.Server
	secure  *listen.Server // for other hosts, with the tokens of front; nil if there is none
	back    *listen.Server
	paces   paces // of the tokens of front in force; changed by reloads only
	own     []netip.AddrPort
	room    *guard.Room // for connections to the outside
	lanes   lanes
	pauses  pauses
	watches watches
	traces  traces
	notices notices

	metrics  *metrics        // nil before Run
	activity *admin.Activity // of the last hour
	changes  *admin.Changes  // for those who watch

	reloads struct {
		turn sync.Mutex // held by the one in progress

		mu    sync.Mutex // guards the fields below
		last  Reloaded
		files []string // that the latest outcome depends on
	}
	draining atomic.Bool
	stopping chan struct{} // closed when draining begins
}

// Run serves until ctx ends or the store breaks, and returns when nothing of it is left: nil after a stop that was
// asked for, an error that wraps store.ErrBroken when the store cannot go on, or the reason why a listener did
// not open, which is a *ConfigError if no other start would open it either. What is pending then stays in the store and is
// delivered by the next run.
func (r *Relay) Run(ctx context.Context) error {
	if r.Plan == nil || r.Store == nil {
		return errors.New("relay: Plan and Store are required")
	}
	r.setDefaults()
	if err := r.measure(ctx); err != nil {
		return err
	}

	closeIdle, err := r.open()
	if err != nil {
		return err
	}
	defer closeIdle()

	for _, s := range r.servers() {
		r.ownAddress(s.Addr())
	}
	r.room = r.roomOutside()
	first, err := r.prepare(ctx, r.Plan)
	if err != nil {
		return errors.Join(err, r.closeServers())
	}

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
	exports, stopExports := newPart(base, stop)
	defer stopExports()
	r.traces.begin(exports)
	r.traces.use(r.Plan.tracing)
	r.beginHandovers(lanes)
	r.notices.remind(ctx, r.Plan, first.paused, first.outages)
	if err := r.handOver(first); err != nil {
		stopExports()
		return errors.Join(err, exports.group.Wait(), r.closeServers())
	}
	for _, name := range r.Plan.names {
		r.release(ctx, name)
	}
	back.start("admin listener", r.back.Run)
	front.start("ingest listener", r.front.Run)
	if r.secure != nil {
		front.start("https listener", r.secure.Run)
	}
	sweep := &sweeper{
		Store: r.Store, Retention: func() time.Duration { return r.plan.Load().retention }, Now: r.Now, Log: r.Log.Named("sweep"),
	}
	lanes.start("sweep", sweep.Run)
	lanes.start("notices", r.notices.Run)
	r.logStart(ctx)
	r.enter(Serving)
	lanes.start("reload by signal", r.obey)
	if r.Follow {
		f := &follower{
			Files: r.files, Changed: func(ctx context.Context) { _ = r.reload(ctx, byFile) }, // the log says what came of it
			Log: r.Log.Named("reload"),
		}
		lanes.start("reload by file", f.Run)
	}

	select {
	case <-stopCtx.Done():
	case <-r.Store.Broken():
	}
	r.draining.Store(true)
	r.enter(Stopping)
	close(r.stopping)
	r.Log.Info("stopping", zap.Duration("drain_seconds", r.Drain), zap.Int64("pending", r.Store.Pending()))
	begun := time.Now()
	// One time bounds requests and attempts alike.
	cut := time.AfterFunc(r.Drain, func() { // what goes wrong with it is the error of Run as well
		_ = r.front.Close()
		if r.secure != nil {
			_ = r.secure.Close()
		}
	})
	defer cut.Stop()
	r.endHandovers()
	stopLanes()
	err = lanes.group.Wait()
	r.notices.finish(ctx)
	stopFront()
	err = errors.Join(err, front.group.Wait())
	r.traces.end()
	cutExports := time.AfterFunc(min(max(r.Drain-time.Since(begun), leastTraceDrain), maxTraceDrain), stopExports)
	defer cutExports.Stop()
	err = errors.Join(err, exports.group.Wait())
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
	r.traces.Log, r.traces.Version = r.Log.Named("tracing"), r.Version
	r.stopping = make(chan struct{})
	r.activity, r.changes = &admin.Activity{Now: r.Now}, &admin.Changes{}
	r.pauses.Store, r.pauses.Lane, r.pauses.Notices = r.Store, r.lane, &r.notices
	r.notices.Store, r.notices.Plan, r.notices.Accepted = r.Store, r.plan.Load, r.accepted
	r.notices.Now, r.notices.Log = r.Now, r.Log.Named("notices")
}

// open binds the listeners, so that a port in use is an error before anything has started. It returns the func that closes
// idle connections which one of them has made.
func (r *Relay) open() (closeIdle func(), err error) {
	ingestTokens, paces := listenTokens(r.Plan.tokens, nil, r.Now)
	r.paces = paces
	r.front, err = listen.Open(listen.Options{
		Address: r.Plan.ingestAddress, Listener: r.Sockets.Ingest, Tokens: ingestTokens, TokensKey: "listen.tokens", Drain: r.Drain, Now: r.Now,
		MaxConns: r.Plan.connections.Each,
		Log:      r.Log.Named("listen.ingest"), Metrics: r.metrics.forListeners(), Name: "ingest",
		SocketMode: r.Plan.socketMode, SocketGroup: r.Plan.socketGroup,
		// Each request by one plan, from its beginning to its end.
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.ingest.Load().ServeHTTP(w, req) }),
	})
	if err != nil {
		return nil, fmt.Errorf("open ingest listener: %w", err)
	}
	if r.secure, closeIdle, err = r.openHTTPS(ingestTokens); err != nil {
		return nil, errors.Join(err, r.front.Close())
	}
	r.back, err = listen.Open(listen.Options{
		Address: r.Plan.adminAddress, Listener: r.Sockets.Admin, Tokens: adminTokens(r.Plan.adminTokens), TokensKey: "listen.admin_tokens",
		Drain: adminDrain, Now: r.Now, MaxConns: r.Plan.connections.Each,
		Log: r.Log.Named("listen.admin"), Metrics: r.metrics.forListeners(), Name: "admin",
		SocketMode: r.Plan.socketMode, SocketGroup: r.Plan.socketGroup,
		Handler: api{steering{r}}.handler(), Public: admin.Public,
	})
	if err != nil {
		r.back = nil
		return nil, errors.Join(fmt.Errorf("open admin listener: %w", err), r.closeServers())
	}
	return closeIdle, nil
}

// servers returns the listeners that are open.
func (r *Relay) servers() []*listen.Server {
	return slices.DeleteFunc([]*listen.Server{r.front, r.secure, r.back}, func(s *listen.Server) bool { return s == nil })
}

func (r *Relay) closeServers() error {
	var errs []error
	for _, s := range r.servers() {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// ingestHandler makes what takes messages by a plan.
func (r *Relay) ingestHandler(p *Plan) *ingest.Handler {
	return &ingest.Handler{
		Acceptor: r.Store, Router: p, Caller: callerOf, Wake: r.accepted, Watch: r.watches.watch, Deliveries: r.Store, Load: &r.load,
		MaxBody: p.maxBody, AcceptedStatus: p.acceptedStatus, Draining: r.draining.Load, Stopping: r.stopping,
		Now: r.Now, Log: r.Log.Named("ingest"), Metrics: r.metrics.forIngest(),
		Tracer: r.traces.tracer,
	}
}

// ownAddress notes where the relay listens, so that a destination can never be the relay itself.
func (r *Relay) ownAddress(a net.Addr) {
	if tcp, ok := a.(*net.TCPAddr); ok {
		r.own = append(r.own, tcp.AddrPort())
	}
}

// full lists why no messages are taken now.
func (r *Relay) full() (reasons []string) {
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

// httpsTrouble lists what keeps apps on other hosts from posting.
func (r *Relay) httpsTrouble() []string {
	if r.secure == nil {
		return nil
	}
	return r.secure.Trouble()
}

// logStart says where the relay listens and what is waiting, and warns of deliveries that nothing will send.
func (r *Relay) logStart(ctx context.Context) {
	where := []zap.Field{zap.String("ingest", addrText(r.front.Addr())), zap.String("admin", addrText(r.back.Addr()))}
	if r.secure != nil {
		where = append(where, zap.String("https", addrText(r.secure.Addr())))
	}
	r.Log.Info("listening", append(where, zap.Int64("pending", r.Store.Pending()))...)
	r.logCut(r.Plan)
	r.logHeld(ctx, r.Plan, func(string) bool { return true })
}

// logHeld warns of the deliveries to some destinations that a plan does not attempt.
func (r *Relay) logHeld(ctx context.Context, p *Plan, of func(name string) bool) {
	waiting, err := r.Store.PendingDestinations(ctx)
	if err != nil {
		r.Log.Warn("pending destinations unknown", zap.Error(err))
		return
	}
	for _, name := range waiting {
		if !of(name) {
			continue
		}
		switch d, ok := p.destinations[name]; {
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
