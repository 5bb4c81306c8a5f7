package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

// Plan is the compiled config: each key in the form of the part that obeys it. It never changes and may be used
// from several goroutines. This file is the one place where a key gets its meaning.
type Plan struct {
	ingestAddress  string
	adminAddress   string
	socketMode     fs.FileMode
	socketGroup    string
	tokens         []token
	https          *https // nil without that listener
	adminTokens    []token
	acceptedStatus int
	maxBody        int64
	retention      time.Duration
	destinations   map[string]*destination
	names          []string      // of destinations, sorted
	parsing        chan struct{} // turns to parse a large body for filters
	reduces        bool          // there is a destination whose messages are not kept as they are
	tracing        tracing
	storeKeys      []store.Key // the first encrypts

	connections Connections

	config *config.Config   // that all of the above comes from
	shown  map[string]shown // of each destination; of a plan that was loaded
	origin origin
}

// destination is one target: what routes to it, when attempts are made, and what they look like.
type destination struct {
	enabled  bool
	patterns []match.Pattern // of events of the app
	notices  []match.Pattern // of Postern's own
	when     *match.Filter   // nil lets every message pass

	order          order
	blockOnFailure bool
	retry          lane.Schedule
	concurrency    int     // by the config
	conns          int     // its share of all connections, at most concurrency: the attempts that are in flight at a time
	rate           float64 // attempts per second; 0 means no bound
	batch          lane.Batch
	breaker        lane.Breaker

	dialer    *guard.Dialer
	transport guard.TransportOptions
	files     guard.TLSFiles
	egress    egress.Options
}

// compiler collects the faults of one compilation.
type compiler struct {
	cfg    *config.Config
	inject LoadOptions
	proxy  *guard.Proxy // nil without one
	faults config.ErrorList
	faulty map[string]bool // keys that have one
}

// newPlan compiles cfg, which may have faults of its own: keys that have one are left alone.
func newPlan(cfg *config.Config, o LoadOptions) (*Plan, config.ErrorList) {
	c := &compiler{cfg: cfg, inject: o, faulty: map[string]bool{}}
	p := &Plan{
		ingestAddress:  cfg.Listen.Ingest,
		adminAddress:   cfg.Listen.Admin,
		socketMode:     fs.FileMode(cfg.Listen.SocketMode),
		socketGroup:    cfg.Listen.SocketGroup,
		acceptedStatus: cfg.Listen.AcceptedStatus,
		maxBody:        int64(cfg.Listen.MaxBody),
		retention:      time.Duration(cfg.Store.Retention),
		destinations:   make(map[string]*destination, len(cfg.Destinations)),
		parsing:        make(chan struct{}, runtime.GOMAXPROCS(0)),
		config:         cfg,
	}
	p.tokens, p.adminTokens = c.ingestTokens(), c.adminTokens()
	p.storeKeys = c.storeKeys()
	if text := cfg.Egress.Proxy; text != "" {
		proxy, err := guard.ParseProxy(text)
		c.fault("egress.proxy", err)
		c.proxy = proxy
	}
	p.https = c.https()
	p.tracing = c.tracing()
	for _, name := range sortedKeys(cfg.Egress.Resolve) {
		if strings.ContainsAny(name, ":/") {
			c.fault("egress.resolve."+name, errors.New("not the name of a host; write it without a port and a path"))
		}
	}
	for name, d := range cfg.Destinations {
		p.destinations[name] = c.destination("destinations."+name, d)
		p.reduces = p.reduces || p.destinations[name].reduces()
		p.names = append(p.names, name)
	}
	slices.Sort(p.names)
	files := o.OpenFiles
	if files == 0 {
		files = openFiles()
	}
	p.shareConnections(files)
	return p, c.faults
}

// fault notes err at the key, unless the key has a fault already or err is nil. It reports whether err is nil. An
// error may repeat its value, so where that comes from a reference it is replaced.
func (c *compiler) fault(key string, err error) bool {
	if err == nil {
		return true
	}
	if c.cfg.Referenced(key) {
		err = errors.New("the value that the reference stands for is not allowed here; write the value itself to see why")
	}
	if c.cfg.Faulty(key) || c.faulty[key] {
		return false
	}
	c.faulty[key] = true
	fault := c.cfg.Errorf(key, "%v", err)
	// What stands under defaults is compiled for each destination, and told once.
	if !slices.ContainsFunc(c.faults, func(other *config.Error) bool {
		return other.File == fault.File && other.Line == fault.Line && other.Col == fault.Col && other.Msg == fault.Msg
	}) {
		c.faults = append(c.faults, fault)
	}
	return false
}

// StoreKeys returns the keys that the store is to be encrypted with, the first of which encrypts; none for a store that
// is not encrypted.
func (p *Plan) StoreKeys() []store.Key { return slices.Clone(p.storeKeys) }

// storeKeys reads the keys that the store is encrypted with. No error holds anything of them.
func (c *compiler) storeKeys() (keys []store.Key) {
	const key = "store.encryption_key"
	seen := map[string]bool{}
	for i, text := range c.cfg.Store.EncryptionKey {
		k, err := store.ParseKey(text.Reveal())
		if err == nil && seen[k.Fingerprint()] {
			err = errors.New("the same key as one before it; write each once")
		}
		if err != nil {
			if !c.cfg.Faulty(key) && !c.faulty[key] {
				c.faulty[key] = true
				c.faults = append(c.faults, c.cfg.Errorf(key, "entry %d is %v", i+1, err))
			}
			continue
		}
		seen[k.Fingerprint()] = true
		keys = append(keys, k)
	}
	return keys
}

func (c *compiler) destination(key string, d *config.Destination) *destination {
	out := &destination{
		enabled: d.Enabled, order: order(d.Order), blockOnFailure: d.Order != "none" && d.OrderOnFailure == "block",
		concurrency: d.Concurrency, retry: c.schedule(key+".retry", d.Retry),
	}
	for i, text := range d.Events {
		pattern, err := match.ParsePattern(text)
		own := err == nil && isNotice(text)
		if own {
			err = checkNoticePattern(text, pattern)
		}
		switch fine := c.fault(fmt.Sprintf("%s.events[%d]", key, i), err); {
		case fine && own:
			out.notices = append(out.notices, pattern)
		case fine:
			out.patterns = append(out.patterns, pattern)
		}
	}
	if d.When != "" {
		filter, err := match.ParseFilter(d.When)
		c.fault(key+".when", err)
		out.when = filter
	}
	if d.Rate != nil {
		out.rate = float64(d.Rate.Count) / d.Rate.Per.Seconds()
	}
	if d.Batch != nil {
		out.batch = lane.Batch{Every: time.Duration(d.Batch.Every), Max: d.Batch.Max}
	}
	if !d.Breaker.None {
		out.breaker = lane.Breaker{Failures: d.Breaker.Failures, ProbeEvery: time.Duration(d.Breaker.ProbeEvery)}
	}
	for i, network := range d.AllowNetworks {
		c.fault(fmt.Sprintf("%s.allow_networks[%d]", key, i), guard.CheckAllow(network))
	}
	out.dialer = &guard.Dialer{
		Allow: d.AllowNetworks, Deny: c.cfg.Egress.DenyNetworks, Resolve: lowerKeys(c.cfg.Egress.Resolve), Proxy: c.proxy,
		Inject: c.inject.Inject, Resolver: guard.NewResolver(),
	}
	out.transport = guard.TransportOptions{MinVersion: tlsVersion(d.TLS.MinVersion)}
	out.files = guard.TLSFiles{CA: d.TLS.CAFile, Cert: d.TLS.CertFile, Key: d.TLS.KeyFile}
	c.optionFaults(key+".tls", out.files.Check())
	out.egress = c.request(key, d)
	_, err := egress.New(withPlaceholders(out.egress))
	c.optionFaults(key, err)
	return out
}

// withPlaceholders completes options whose URLs have a fault of their own, so that the rest can be checked.
func withPlaceholders(o egress.Options) egress.Options {
	placeholder := &url.URL{Scheme: "https", Host: "placeholder.invalid", Path: "/"}
	if o.URL == nil {
		o.URL = placeholder
	}
	if o.Auth.OAuth2 != nil && o.Auth.OAuth2.TokenURL == nil {
		own := *o.Auth.OAuth2
		own.TokenURL = placeholder
		o.Auth.OAuth2 = &own
	}
	return o
}

// optionFaults notes the errors of a part at the keys that its options come from.
func (c *compiler) optionFaults(key string, err error) {
	if err == nil {
		return
	}
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	for _, err := range list {
		if option, ok := errors.AsType[*egress.OptionError](err); ok {
			c.fault(key+"."+option.Option, option.Err)
		} else if file, ok := errors.AsType[*guard.FileError](err); ok {
			c.fault(key+"."+file.Option, file.Err)
		} else {
			c.fault(key, err)
		}
	}
}

// What the exponential form of retry means where it is silent.
const (
	defaultFirst  = 5 * time.Second
	defaultMax    = time.Hour
	defaultFactor = 2
)

// standardSchedule is the delay before each attempt that Standard Webhooks recommends, the first at once
// (spec/standard-webhooks.md, "Deliverability and reliability"): ten attempts in 75 hours and 35 minutes.
func standardSchedule() []time.Duration {
	return []time.Duration{
		0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour,
		14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

func (c *compiler) schedule(key string, r config.Retry) lane.Schedule {
	var delays []time.Duration
	switch {
	case r.None: // no delays are one attempt at once
	case r.Attempts > 0:
		first, longest, factor := time.Duration(r.First), time.Duration(r.Max), r.Factor
		if first == 0 {
			first = defaultFirst
		}
		if longest == 0 {
			longest = max(defaultMax, first)
		}
		if factor == 0 {
			factor = defaultFactor
		}
		var err error
		if delays, err = lane.Exponential(r.Attempts, first, longest, factor); !c.fault(key, err) {
			return lane.Schedule{}
		}
	case len(r.Schedule) > 0:
		for _, d := range r.Schedule {
			delays = append(delays, time.Duration(d))
		}
	default:
		delays = standardSchedule()
	}
	s, err := lane.NewSchedule(delays, r.Jitter, time.Duration(r.MaxAge))
	c.fault(key, err)
	return s
}

func tlsVersion(text string) uint16 {
	if text == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

// lowerKeys copies a table of host names to the form that the dialer looks them up in.
func lowerKeys(m map[string]netip.Addr) map[string]netip.Addr {
	out := make(map[string]netip.Addr, len(m))
	for name, addr := range m {
		out[strings.ToLower(name)] = addr
	}
	return out
}

// sender makes the sender of a running relay, and the func that closes its idle connections.
func (d *destination) sender(r *Relay, name string) (*egress.Sender, func(), error) {
	out, err := d.wayOut(r.room, func() []netip.AddrPort { return r.own }, r.Log.Named("guard").With(zap.String("destination", name)), r.Now)
	if err != nil {
		return nil, nil, err
	}
	o := out.options(d.egress)
	o.Messages, o.Now, o.Log = r.Store, r.Now, r.Log.Named("egress").With(zap.String("destination", name))
	if o.Auth.OAuth2 != nil { // a copy
		o.Auth.OAuth2.Refused = func() { r.metrics.destination(name).secretRefused() }
	}
	o.Tracer = r.traces.tracer
	s, err := egress.New(o)
	return s, out.closeIdle, err
}

// wayOut is how one destination reaches the outside.
type wayOut struct {
	receiver *guard.Transport
	server   *guard.Transport // of the token endpoint; nil without one
}

// wayOut loads the certificates of d, and connects to nothing. Its connections are among those of the room, if there is
// one; own returns the addresses that this process listens on.
func (d *destination) wayOut(room *guard.Room, own func() []netip.AddrPort, log *zap.Logger, now func() time.Time) (wayOut, error) {
	dialer := *d.dialer
	dialer.Own = own
	transport, files := d.transport, d.files
	transport.Dialer, transport.MaxConnsPerHost, transport.Room = &dialer, d.conns, room
	files.Log, files.Now = log, now
	receiver, err := guard.LoadTransport(transport, files)
	if err != nil || d.egress.Auth.OAuth2 == nil {
		return wayOut{receiver: receiver}, err
	}
	// The token endpoint is often a public one beside a private receiver, and who we are there is told by the secret.
	files.Cert, files.Key, files.BesideSystem = "", "", true
	transport.MaxConnsPerHost = tokenConns
	server, err := guard.LoadTransport(transport, files)
	return wayOut{receiver, server}, err
}

// options returns o with the transports of w.
func (w wayOut) options(o egress.Options) egress.Options {
	o.Transport = w.receiver
	if w.server != nil {
		client := *o.Auth.OAuth2
		client.Client = w.server.Client()
		o.Auth.OAuth2 = &client
	}
	return o
}

func (w wayOut) closeIdle() {
	w.receiver.CloseIdleConnections()
	if w.server != nil {
		w.server.CloseIdleConnections()
	}
}

// Destinations returns the names of all destinations, sorted.
func (p *Plan) Destinations() []string { return slices.Clone(p.names) }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
