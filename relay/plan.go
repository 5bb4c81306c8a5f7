package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
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
	"github.com/postern-relay/postern/relay/listen"
	"github.com/postern-relay/postern/relay/match"
)

// Plan is the compiled config: each key in the form of the part that obeys it. It never changes and may be used
// from several goroutines. This file is the one place where a key gets its meaning.
type Plan struct {
	ingestAddress  string
	adminAddress   string
	tokens         []string
	acceptedStatus int
	maxBody        int64
	retention      time.Duration
	destinations   map[string]*destination
	names          []string      // of destinations, sorted
	parsing        chan struct{} // turns to parse a large body for filters
	reduces        bool          // there is a destination whose messages are not kept as they are
	tracing        tracing

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
	concurrency    int
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
		acceptedStatus: cfg.Listen.AcceptedStatus,
		maxBody:        int64(cfg.Listen.MaxBody),
		retention:      time.Duration(cfg.Store.Retention),
		destinations:   make(map[string]*destination, len(cfg.Destinations)),
		parsing:        make(chan struct{}, runtime.GOMAXPROCS(0)),
		config:         cfg,
	}
	for i, t := range cfg.Listen.Tokens {
		if c.fault(fmt.Sprintf("listen.tokens[%d]", i), listen.CheckToken(t.Reveal())) {
			p.tokens = append(p.tokens, t.Reveal())
		}
	}
	if text := cfg.Egress.Proxy; text != "" {
		proxy, err := guard.ParseProxy(text)
		c.fault("egress.proxy", err)
		c.proxy = proxy
	}
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
		Inject: c.inject.Inject,
	}
	out.transport = guard.TransportOptions{MinVersion: tlsVersion(d.TLS.MinVersion), MaxConnsPerHost: d.Concurrency}
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
	dialer := *d.dialer
	dialer.Own = func() []netip.AddrPort { return r.own }
	transport, files := d.transport, d.files
	transport.Dialer = &dialer
	files.Log, files.Now = r.Log.Named("guard").With(zap.String("destination", name)), r.Now
	receiver, err := guard.LoadTransport(transport, files)
	if err != nil {
		return nil, nil, err
	}
	closeIdle := receiver.CloseIdleConnections
	o := d.egress
	o.Transport, o.Messages, o.Now, o.Log = receiver, r.Store, r.Now, r.Log.Named("egress")
	o.Tracer = r.traces.tracer
	if o.Auth.OAuth2 != nil {
		// The token endpoint is often a public one beside a private receiver, and who we are there is told by the secret.
		files.Cert, files.Key, files.BesideSystem = "", "", true
		server, err := guard.LoadTransport(transport, files)
		if err != nil {
			return nil, nil, err
		}
		closeIdle = func() {
			receiver.CloseIdleConnections()
			server.CloseIdleConnections()
		}
		client := *o.Auth.OAuth2
		client.Client = server.Client()
		o.Auth.OAuth2 = &client
	}
	s, err := egress.New(o)
	return s, closeIdle, err
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
