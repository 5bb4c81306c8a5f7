package relay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
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
	names          []string // of destinations, sorted
}

// destination is one target: what routes to it, when attempts are made, and what they look like.
type destination struct {
	enabled     bool
	patterns    []match.Pattern
	retry       lane.Schedule
	concurrency int
	dialer      *guard.Dialer
	transport   guard.TransportOptions
	egress      egress.Options
}

// compiler collects the faults of one compilation.
type compiler struct {
	cfg    *config.Config
	inject LoadOptions
	faults config.ErrorList
}

// newPlan compiles cfg, which may have faults of its own: keys that have one are left alone.
func newPlan(cfg *config.Config, o LoadOptions) (*Plan, config.ErrorList) {
	c := &compiler{cfg: cfg, inject: o}
	p := &Plan{
		ingestAddress:  cfg.Listen.Ingest,
		adminAddress:   cfg.Listen.Admin,
		acceptedStatus: cfg.Listen.AcceptedStatus,
		maxBody:        int64(cfg.Listen.MaxBody),
		retention:      time.Duration(cfg.Store.Retention),
		destinations:   make(map[string]*destination, len(cfg.Destinations)),
	}
	for _, t := range cfg.Listen.Tokens {
		p.tokens = append(p.tokens, t.Reveal())
	}
	for name, d := range cfg.Destinations {
		p.destinations[name] = c.destination("destinations."+name, d)
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
	if !c.cfg.Faulty(key) {
		c.faults = append(c.faults, c.cfg.Errorf(key, "%v", err))
	}
	return false
}

func (c *compiler) destination(key string, d *config.Destination) *destination {
	before := len(c.faults)
	out := &destination{enabled: d.Enabled, concurrency: d.Concurrency}
	for i, text := range d.Events {
		pattern, err := match.ParsePattern(text)
		if c.fault(fmt.Sprintf("%s.events[%d]", key, i), err) {
			out.patterns = append(out.patterns, pattern)
		}
	}
	out.retry = c.schedule(key+".retry", d.Retry)
	out.dialer = &guard.Dialer{
		Allow: d.AllowNetworks, Deny: c.cfg.Egress.DenyNetworks, Resolve: lowerKeys(c.cfg.Egress.Resolve),
		Inject: c.inject.Inject,
	}
	out.transport = guard.TransportOptions{
		RootCAs: c.roots(key+".tls.ca_file", d.TLS.CAFile), MinVersion: tlsVersion(d.TLS.MinVersion),
		MaxConnsPerHost: d.Concurrency,
	}
	out.egress = c.request(key, d)
	// The rules that concern several keys at once, such as a header that is set twice, are checked on the whole;
	// they would only repeat what is wrong with a part.
	if len(c.faults) == before && !c.cfg.Faulty(key) {
		_, err := egress.New(out.egress)
		c.optionFaults(key, err)
	}
	return out
}

// request turns the keys that shape requests into the options of egress.
func (c *compiler) request(key string, d *config.Destination) egress.Options {
	o := egress.Options{
		Method: d.Method, ContentType: d.ContentType, UserAgent: c.cfg.Egress.UserAgent,
		Timeout: time.Duration(d.Timeout), KeepResponse: int(d.Keep.Response), Auth: auth(d.Auth),
	}
	if o.KeepResponse == 0 {
		o.KeepResponse = -1 // egress takes 0 for its default
	}
	if d.URL == "" {
		c.fault(key+".url", errors.New("missing; write url: https://…"))
	} else if u, err := guard.ParseURL(d.URL, d.AllowNetworks); c.fault(key+".url", err) {
		o.URL = u
	}
	success, err := egress.ParseSuccess(d.Success)
	if c.fault(key+".success", err) {
		o.Success = success
	}
	for _, name := range sortedKeys(d.Headers) {
		value := d.Headers[name].Reveal()
		at := key + ".headers." + name
		if strings.Contains(value, "{{") {
			c.fault(at, errors.New("a template in a header is not supported yet; write a fixed value"))
			continue
		}
		if c.fault(at, egress.CheckHeader(name, value)) {
			o.Header = append(o.Header, egress.Header{Name: name, Value: value})
		}
	}
	for i, s := range d.Sign {
		if signer := c.signer(fmt.Sprintf("%s.sign[%d]", key, i), s); signer != nil {
			o.Signers = append(o.Signers, signer)
		}
	}
	return o
}

// optionFaults notes the errors of egress.New at the keys that its options come from.
func (c *compiler) optionFaults(key string, err error) {
	if err == nil {
		return
	}
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	for _, err := range list {
		var option *egress.OptionError
		if errors.As(err, &option) {
			c.fault(key+"."+option.Option, option.Err)
		} else {
			c.fault(key, err)
		}
	}
}

func (c *compiler) signer(key string, s config.Sign) sign.Signer {
	switch {
	case s.Standard != nil:
		secrets := make([]string, len(s.Standard.Secrets))
		for i, secret := range s.Standard.Secrets {
			secrets[i] = secret.Reveal()
		}
		signer, err := sign.NewStandard(secrets)
		if c.fault(key+".standard.secrets", err) {
			return signer
		}
	case s.HMAC != nil:
		signer, err := sign.NewHMAC(sign.HMACOptions{
			Header: s.HMAC.Header, Secret: s.HMAC.Secret.Reveal(), Algorithm: s.HMAC.Algorithm,
			Encoding: s.HMAC.Encoding, Prefix: s.HMAC.Prefix,
		})
		if c.fault(key+".hmac", err) {
			return signer
		}
	}
	return nil // the kinds that are to come have a fault from the config already
}

func auth(a *config.Auth) egress.Auth {
	switch {
	case a == nil:
	case a.Bearer != nil:
		return egress.Auth{Bearer: &egress.Bearer{Token: a.Bearer.Token.Reveal()}}
	case a.Basic != nil:
		return egress.Auth{Basic: &egress.Basic{Username: a.Basic.Username, Password: a.Basic.Password.Reveal()}}
	case a.APIKey != nil:
		return egress.Auth{APIKey: &egress.APIKey{Header: a.APIKey.Header, Value: a.APIKey.Value.Reveal()}}
	}
	return egress.Auth{}
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
	case r.None:
		return lane.Schedule{}
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

// maxCAFile is more than any bundle of roots has.
const maxCAFile = 4 << 20

// roots reads a PEM file of certificates; without a path it is nil, the system's roots.
func (c *compiler) roots(key, path string) *x509.CertPool {
	if path == "" {
		return nil
	}
	pool, err := readRoots(path)
	c.fault(key, err)
	return pool
}

func readRoots(path string) (*x509.CertPool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxCAFile {
		return nil, fmt.Errorf("%q is not a file of certificates; name a PEM file of at most 4MiB", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%q holds no certificate; it must hold PEM blocks of type CERTIFICATE", path)
	}
	return pool, nil
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

// sender makes the sender of a running relay. own returns the addresses that the relay listens on.
func (d *destination) sender(messages store.Loader, own func() []netip.AddrPort) (*egress.Sender, *http.Transport, error) {
	dialer := *d.dialer
	dialer.Own = own
	transport := d.transport
	transport.Dialer = &dialer
	t := guard.NewTransport(transport)
	o := d.egress
	o.Transport, o.Messages = t, messages
	s, err := egress.New(o)
	return s, t, err
}

// ToDestination returns how a message for a named destination goes there. For an unknown name it returns the most
// similar one that there is, or nothing.
func (p *Plan) ToDestination(name string) (to store.Recipient, known bool, nearest string) {
	d, ok := p.destinations[name]
	if !ok {
		return store.Recipient{}, false, config.Nearest(name, p.names)
	}
	return store.Recipient{Destination: name, Delay: d.retry.First()}, true, ""
}

// ForEvent returns the enabled destinations that the event goes to, sorted by name.
func (p *Plan) ForEvent(event string) []store.Recipient {
	var to []store.Recipient
	for _, name := range p.names {
		d := p.destinations[name]
		if d.enabled && slices.ContainsFunc(d.patterns, func(m match.Pattern) bool { return m.Match(event) }) {
			to = append(to, store.Recipient{Destination: name, Delay: d.retry.First()})
		}
	}
	return to
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
