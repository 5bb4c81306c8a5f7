package relay

import (
	"cmp"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/guard"
)

// How the descriptors that a process may have are shared (threat T45).
const (
	spareFiles   = 256  // at least for the store and its files, look-ups of names and logs, which get a quarter of the limit if that is more
	fewestConns  = 16   // that a listener takes, however few there are
	mostConns    = 4096 // that one takes, however many: each connection costs some 20 KiB
	tokenConns   = 2    // of a destination with OAuth 2.0, to the token endpoint: one request at a time, and one that is given up
	lookForConns = 100 * time.Millisecond
)

// Connections is how many connections a relay has at most at a time, so that its store never goes without descriptors: the
// limit on open files, less 256 or a quarter of it, since the store holds one for each 4 MiB. Half of them are for the
// listeners, in equal shares; the other half, and what the listeners need not, is for the destinations. Below 304 descriptors,
// or 320 with listen.https, it is a little more than that.
type Connections struct {
	Files uint64 // the limit on open files

	Each int // that each listener takes: 16 to 4096
	Out  int // that there are to receivers and token endpoints together, at least 16

	Wanted int      // Out, if each destination that is enabled has as many as its concurrency
	Cut    []string // names of the destinations that have fewer, sorted
}

// connectionsFor shares a limit on open files between so many listeners and what goes out.
func connectionsFor(files uint64, listeners int) Connections {
	limit := int(min(files, 1<<30))
	all := max(limit-max(spareFiles, limit/4), 0)
	each := min(max(all/2/listeners, fewestConns), mostConns)
	return Connections{Files: files, Each: each, Out: max(all-each*listeners, fewestConns)}
}

// openFiles is the limit of this process; 0 if the system does not say.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return uint64(limit.Cur) //nolint:unconvert // the type differs between systems
}

// ShareConnections returns how a relay with this limit on open files shares its connections by a config.
func ShareConnections(files uint64, cfg *config.Config) Connections {
	p, _ := newPlan(cfg, LoadOptions{OpenFiles: max(files, 1)}) // faults are told elsewhere
	return p.connections
}

// shareConnections gives each destination its share of the connections that go out: as many as its concurrency if that is
// possible for all, and otherwise those that want little all of it, and the others the same, at least one.
func (p *Plan) shareConnections(files uint64) {
	listeners := 2
	if p.https != nil {
		listeners++
	}
	p.connections = connectionsFor(files, listeners)
	left, waiting := p.connections.Out, make([]*destination, 0, len(p.names))
	for _, name := range p.names {
		d := p.destinations[name]
		if !d.enabled {
			d.conns = d.concurrency // it makes none
			continue
		}
		waiting = append(waiting, d)
		p.connections.Wanted += d.concurrency
		if d.egress.Auth.OAuth2 != nil {
			p.connections.Wanted += tokenConns
			left -= tokenConns
		}
	}
	slices.SortStableFunc(waiting, func(a, b *destination) int { return cmp.Compare(a.concurrency, b.concurrency) })
	for i, d := range waiting {
		d.conns = max(min(d.concurrency, left/(len(waiting)-i)), 1)
		left -= d.conns
	}
	for _, name := range p.names {
		if d := p.destinations[name]; d.conns < d.concurrency {
			p.connections.Cut = append(p.connections.Cut, name)
		}
	}
}

// maxNamed is how many destinations a line of the log names.
const maxNamed = 10

// logCut warns of a plan whose destinations have fewer connections than the config says.
func (r *Relay) logCut(p *Plan) {
	c := p.connections
	if len(c.Cut) == 0 {
		return
	}
	r.Log.Warn("concurrency cut", zap.Int("destinations", len(c.Cut)), zap.Strings("first", c.Cut[:min(len(c.Cut), maxNamed)]),
		zap.Int("wanted_connections", c.Wanted), zap.Int("connections", c.Out), zap.Uint64("open_files", c.Files),
		zap.String("reason", "the limit on open files is too low for the concurrency of all destinations; raise it (LimitNOFILE= in systemd, "+
			"ulimit -n elsewhere), or lower concurrency"))
}

// roomOutside bounds the connections to the outside while the shares of one plan give way to those of the next, and where
// there are more destinations than connections: then idle ones make room.
func (r *Relay) roomOutside() *guard.Room {
	return guard.NewRoom(r.Plan.connections.Out, lookForConns, func() {
		r.lanes.mu.RLock()
		defer r.lanes.mu.RUnlock()
		for _, l := range r.lanes.running {
			l.out.closeIdle()
		}
	})
}
