package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	port        = 443
	dialTimeout = 5 * time.Second

	// maxAddresses bounds what one look-up may make us judge and dial: a hostile zone can hold thousands.
	maxAddresses = 32
)

// Resolver looks names up; *net.Resolver is one.
type Resolver interface {
	// LookupNetIP returns the addresses of host; network is "ip". Its errors are passed on.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// NewResolver returns Go's own resolver, which reads no odd spelling of an address as one. It makes one look-up of those of
// the same name that are asked for at the same time, for all Dialers that have it.
func NewResolver() Resolver { return &net.Resolver{PreferGo: true} }

// Dialer makes connections to the outside, and only those that the guard allows. The zero Dialer is ready for use
// and reaches public addresses. Set its fields before the first DialContext and leave them alone then; it may be
// used from several goroutines.
type Dialer struct {
	Allow []netip.Prefix // networks that this destination opens, beyond the public ones; see Judge
	Deny  []netip.Prefix // networks that stay closed whatever else is said

	// Resolve gives names an address like a hosts file, instead of a look-up. Keys are lower case. The address is
	// judged as any other.
	Resolve map[string]netip.Addr

	Resolver Resolver      // nil means Go's own resolver, which reads no odd spelling of an address as one
	Timeout  time.Duration // for look-up and connecting together; 0 means 5 s

	// Own returns the addresses that this process listens on. They are refused, for what is sent there would come
	// back (T13). A listener on all addresses (0.0.0.0 or ::) stands for every address of this machine. Called
	// for each address dialled, from several goroutines; nil means none.
	Own func() []netip.AddrPort

	// Proxy makes the connections; nil means that they are made directly. Targets are looked up and judged here
	// all the same, and the proxy is asked for the address. Its own name is found in Resolve or looked up, and may
	// have any address but the sealed ones and ours.
	Proxy *Proxy

	// Inject connects the named hosts by the functions given, to a listener in memory for example, without any
	// look-up and without the address rule, since no address is involved. Keys are lower case. It is meant for
	// code such as the demo, and no config key may ever fill it: the rules for URL and port hold, and TLS
	// verifies the host's certificate, but what is at the other end is up to the function. The proxy is not asked.
	Inject map[string]func(ctx context.Context) (net.Conn, error)

	// only is the port that is dialled; 0 means 443. Nothing but NewAuthorityClient sets another.
	only uint16
}

// targetPort is the only port that is dialled.
func (d *Dialer) targetPort() uint16 {
	if d.only == 0 {
		return port
	}
	return d.only
}

// DialContext connects to address, a host and the port 443, by TCP. All addresses of the host are judged, and if
// one is refused, none is dialled: a name with a private address among public ones is an attack or a mistake
// (T5). What is really dialled is judged once more when its socket is made. Both address families are tried, the
// second after 300 ms (RFC 8305, section 5).
//
// A *ProxyError in the chain means that the proxy failed, or what it was asked for; a *BlockedError that the guard
// refused; a *net.DNSError without a *ProxyError that the look-up failed; otherwise connecting did. Phases are
// reported to the context's httptrace.ClientTrace: DNSStart and DNSDone once and by the caller's goroutine or the
// resolver's, ConnectStart and ConnectDone for each address that is tried, by several goroutines when both families
// are. With a proxy they tell of the target as well, and the connection's RemoteAddr is the target's: connecting is
// then all that it takes to have the tunnel.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" {
		return nil, &BlockedError{Reason: fmt.Sprintf("network %q is not allowed; only tcp is", network)}
	}
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &BlockedError{Reason: "the address is not a host and a port"}
	}
	host = strings.ToLower(host)
	if portText != strconv.Itoa(int(d.targetPort())) {
		return nil, &BlockedError{Host: host, Reason: fmt.Sprintf("port %s is not %d", printable(portText), d.targetPort())}
	}
	literal, err := parseHost(host)
	if err != nil {
		return nil, &BlockedError{Host: printable(host), Reason: err.Error()}
	}
	timeout := d.Timeout
	if timeout == 0 {
		timeout = dialTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errDialTimeout)
	defer cancel()
	if connect, ok := d.Inject[host]; ok {
		return connect(ctx)
	}
	addrs := []netip.Addr{literal}
	if !literal.IsValid() {
		if addrs, err = d.lookUp(ctx, host); err != nil {
			return nil, err
		}
	}
	for _, addr := range addrs {
		if err := d.judge(host, addr); err != nil {
			return nil, err
		}
	}
	var conn net.Conn
	if d.Proxy != nil {
		conn, err = d.dialThrough(ctx, addrs)
	} else {
		conn, err = race(ctx, addrs, func(ctx context.Context, addr netip.Addr) (net.Conn, error) {
			return d.dial(ctx, host, addr)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %q: %w", host, err)
	}
	return conn, nil
}

var errDialTimeout = errors.New("no connection in time")

// judge applies the address rule and the rule against loops.
func (d *Dialer) judge(host string, addr netip.Addr) error {
	addr = addr.Unmap()
	reason := judge(addr, d.Allow, d.Deny)
	if reason == "" && d.Own != nil && isOwn(netip.AddrPortFrom(addr, d.targetPort()), d.Own()) {
		reason = "Postern itself listens there"
	}
	if reason == "" {
		return nil
	}
	return &BlockedError{Host: host, Addr: addr, Reason: reason}
}

func isOwn(target netip.AddrPort, listeners []netip.AddrPort) bool {
	for _, l := range listeners {
		if l.Port() != target.Port() {
			continue
		}
		if own := l.Addr().Unmap(); own == target.Addr() || own.IsUnspecified() && isLocal(target.Addr()) {
			return true
		}
	}
	return false
}

// isLocal reports whether addr is one of this machine's. If the system does not tell, it is not: the loop is then
// ended by the count of hops.
func isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	locals, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, l := range locals {
		if p, err := netip.ParsePrefix(l.String()); err == nil && p.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}

// lookUp returns the addresses of a name, unmapped and in the resolver's order.
func (d *Dialer) lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, ok := d.Resolve[host]; ok {
		return []netip.Addr{addr.Unmap()}, nil
	}
	addrs, err := d.ask(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("look up %q: %w", host, err)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("look up %q: %w", host, &net.DNSError{Err: "no address", Name: host, IsNotFound: true})
	}
	if len(addrs) > maxAddresses {
		return nil, &BlockedError{Host: host, Reason: fmt.Sprintf("it has %d addresses; at most %d are looked at",
			len(addrs), maxAddresses)}
	}
	unmapped := make([]netip.Addr, len(addrs))
	for i, addr := range addrs {
		unmapped[i] = addr.Unmap()
	}
	return unmapped, nil
}

func (d *Dialer) ask(ctx context.Context, host string) ([]netip.Addr, error) {
	// Go's resolver calls the trace by itself; any other does not know of it.
	switch r := d.Resolver.(type) {
	case nil:
		return NewResolver().LookupNetIP(ctx, "ip", host)
	case *net.Resolver:
		return r.LookupNetIP(ctx, "ip", host)
	}
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.DNSStart != nil {
		trace.DNSStart(httptrace.DNSStartInfo{Host: host})
	}
	addrs, err := d.Resolver.LookupNetIP(ctx, "ip", host)
	if trace != nil && trace.DNSDone != nil {
		done := httptrace.DNSDoneInfo{Err: err}
		for _, addr := range addrs {
			done.Addrs = append(done.Addrs, net.IPAddr{IP: addr.AsSlice(), Zone: addr.Zone()})
		}
		trace.DNSDone(done)
	}
	return addrs, err
}

// dial connects to one address. ControlContext sees what the kernel will be given, whatever happened before.
func (d *Dialer) dial(ctx context.Context, host string, addr netip.Addr) (net.Conn, error) {
	dialer := net.Dialer{
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			return d.control(host, network, address)
		},
	}
	return dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, d.targetPort()).String())
}

func (d *Dialer) control(host, network, address string) error {
	if network != "tcp4" && network != "tcp6" {
		return &BlockedError{Host: host, Reason: fmt.Sprintf("network %q is not allowed; only tcp is", network)}
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return &BlockedError{Host: host, Reason: "what is dialled is not an address and a port"}
	}
	if target.Port() != d.targetPort() {
		return &BlockedError{Host: host, Addr: target.Addr(), Reason: fmt.Sprintf("port %d is not %d", target.Port(), d.targetPort())}
	}
	return d.judge(host, target.Addr())
}
