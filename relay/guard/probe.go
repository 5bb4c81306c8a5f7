package guard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Stage is how far a Probe came. Later ones are larger.
type Stage uint8

// The stages of a Probe, in their order.
const (
	StageLookUp    Stage = iota // finding the addresses of the host
	StageJudge                  // applying the address rule to all of them
	StageConnect                // opening a connection to one of them, through the proxy if there is one
	StageHandshake              // shaking hands by TLS
	StageDone                   // nothing was left to do
)

// lateAlert is how long a Probe waits for a receiver to refuse the client certificate. In TLS 1.3 the refusal comes when
// the handshake is over on our side (RFC 8446, section 4.4.2.4).
const lateAlert = time.Second

// Probe is what is to be seen on the way to a host without asking it for anything.
type Probe struct {
	Host  string
	Stage Stage // where it ended; StageDone without an error
	Err   error // as of Dialer.DialContext or of crypto/tls; nil if the way is free

	Addrs []netip.Addr // of the host, in the order of the look-up; none if there were none
	Fixed bool         // Addrs come from Dialer.Resolve or are the host itself: nothing was looked up
	Proxy string       // the URL of the proxy without user and password; empty without one
	Peer  string       // address and port that took the connection

	LookUp, Connect, Handshake time.Duration // how long each stage took; 0 if it was not reached

	// Certificates are those that the host has shown, its own first, also if they were not accepted.
	Certificates []*x509.Certificate
	// Chain is the verified chain from the host's certificate to a root; empty if there is none.
	Chain []*x509.Certificate

	Version  uint16 // of TLS, such as tls.VersionTLS13; 0 without a handshake
	Protocol string // agreed on by ALPN: h2, http/1.1, or empty if the host does not take part in it

	AsksForCertificate bool              // the host wants to know who we are (mTLS)
	Certificate        *x509.Certificate // the one of ours that was, or would be, shown; nil without one
}

// Probe goes the way of a request to host, a name or an address as url.URL.Hostname returns it, up to where the request
// would be written, and closes the connection: look-up, address rule, proxy, connection and TLS are those of every
// request by t, the certificates those that its files hold now. It makes one connection, sends nothing over it but the
// handshake, and takes until ctx ends at most. It may be called from several goroutines.
func (t *Transport) Probe(ctx context.Context, host string) Probe {
	t.follow()
	t.mu.Lock()
	g := t.current
	t.mu.Unlock()
	d := t.options.dialer()
	p := Probe{Host: host}
	if d.Proxy != nil {
		p.Proxy = d.Proxy.String()
	}
	conn, err := p.dial(ctx, d)
	if err != nil {
		p.Err = err
		return p
	}
	defer conn.Close()
	p.Stage = StageHandshake
	begin := time.Now()
	p.Err = p.shakeHands(ctx, conn, g.transport.TLSClientConfig.Clone())
	p.Handshake = time.Since(begin)
	if p.Err == nil {
		p.Stage = StageDone
	}
	return p
}

// dial makes the connection and notes what comes to light meanwhile.
func (p *Probe) dial(ctx context.Context, d *Dialer) (net.Conn, error) {
	host := strings.ToLower(p.Host)
	if addr, err := netip.ParseAddr(host); err == nil {
		p.Addrs, p.Fixed = []netip.Addr{addr}, true
	} else if addr, ok := d.Resolve[host]; ok {
		p.Addrs, p.Fixed = []netip.Addr{addr.Unmap()}, true
	}
	var (
		mu       sync.Mutex // guards the following; dials go on in goroutines of their own
		found    []netip.Addr
		lookedUp time.Duration
		dialling bool
		peer     string
	)
	begin := time.Now()
	trace := &httptrace.ClientTrace{
		DNSDone: func(info httptrace.DNSDoneInfo) {
			mu.Lock()
			defer mu.Unlock()
			lookedUp = time.Since(begin)
			for _, a := range info.Addrs {
				if addr, ok := netip.AddrFromSlice(a.IP); ok && len(found) <= maxAddresses {
					found = append(found, addr.Unmap().WithZone(a.Zone))
				}
			}
		},
		// Go's resolver tells of its connections to name servers, too.
		ConnectStart: func(_, address string) {
			mu.Lock()
			defer mu.Unlock()
			dialling = dialling || strings.HasSuffix(address, ":443")
		},
		ConnectDone: func(_, address string, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err == nil && peer == "" && strings.HasSuffix(address, ":443") {
				peer = address
			}
		},
	}
	conn, err := d.DialContext(httptrace.WithClientTrace(ctx, trace), "tcp", net.JoinHostPort(p.Host, "443"))
	mu.Lock()
	defer mu.Unlock()
	if !p.Fixed {
		p.Addrs, p.LookUp = found, lookedUp
	}
	// A proxy may fail before any dial to the target is begun.
	_, viaProxy := errors.AsType[*ProxyError](err)
	_, blocked := errors.AsType[*BlockedError](err)
	switch {
	case err == nil, dialling && !blocked, viaProxy:
		p.Stage, p.Peer, p.Connect = StageConnect, peer, time.Since(begin)-p.LookUp
	case blocked:
		p.Stage = StageJudge
	}
	if err == nil && peer == "" { // made by Dialer.Inject
		p.Peer = conn.RemoteAddr().String()
	}
	return conn, err
}

// shakeHands does the handshake with the config of the transport.
func (p *Probe) shakeHands(ctx context.Context, conn net.Conn, config *tls.Config) error {
	ctx, cancel := context.WithTimeoutCause(ctx, tlsTimeout, errors.New("no TLS handshake in time"))
	defer cancel()
	config.ServerName = strings.TrimSuffix(p.Host, ".")
	config.NextProtos = []string{"h2", "http/1.1"} // what net/http offers
	own := config.GetClientCertificate
	if own != nil {
		if shown, err := own(nil); err == nil {
			p.Certificate = shown.Leaf
		}
	}
	config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		p.AsksForCertificate = true
		if own == nil {
			return &tls.Certificate{}, nil // which is to show none
		}
		return own(info)
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		if failed, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			p.Certificates = failed.UnverifiedCertificates
		}
		return err
	}
	state := secure.ConnectionState()
	p.Version, p.Protocol, p.Certificates = state.Version, state.NegotiatedProtocol, state.PeerCertificates
	if len(state.VerifiedChains) > 0 {
		p.Chain = state.VerifiedChains[0]
	}
	if p.AsksForCertificate && p.Version >= tls.VersionTLS13 {
		return awaitAlert(ctx, secure)
	}
	return nil
}

// awaitAlert returns the alert by which the other end refuses our certificate, or nil if it has something else to say or
// says nothing for a while.
func awaitAlert(ctx context.Context, conn *tls.Conn) error {
	until := time.Now().Add(lateAlert)
	if end, ok := ctx.Deadline(); ok && end.Before(until) {
		until = end
	}
	if err := conn.SetReadDeadline(until); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	if timeout, ok := errors.AsType[net.Error](err); err == nil || ok && timeout.Timeout() {
		return nil
	}
	return err
}

// LookUp returns the addresses that DNS has for a name, whatever Resolve says, unmapped and at most 32 of them. None is
// judged or dialled: it is for telling people. It takes 5 s at most, and may be called from several goroutines.
func (d *Dialer) LookUp(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errDialTimeout)
	defer cancel()
	return (&Dialer{Resolver: d.Resolver}).lookUp(ctx, strings.ToLower(name))
}
