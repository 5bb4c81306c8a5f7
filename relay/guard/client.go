package guard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"
)

const (
	tlsTimeout     = 5 * time.Second
	idleTimeout    = 50 * time.Second // below the 60 s after which most servers close, so that we close first
	pingAfter      = 15 * time.Second // silence on an HTTP/2 connection with requests in flight
	pingTimeout    = 5 * time.Second
	maxHeaderBytes = 64 << 10
	streamWindow   = 256 << 10 // what may be on the way of an answer of HTTP/2; at most 64 KiB are read
	defaultIdle    = 16        // idle connections kept if MaxConnsPerHost says nothing
)

// TransportOptions says what differs between the clients of two destinations.
type TransportOptions struct {
	Dialer          *Dialer        // nil means the zero Dialer: public addresses only
	RootCAs         *x509.CertPool // who may have signed the receiver's certificate; nil means the system's
	MinVersion      uint16         // tls.VersionTLS12 or tls.VersionTLS13; what is lower, 0 too, means TLS 1.2
	MaxConnsPerHost int            // most connections at a time, HTTP/2 or not; 0 means no bound

	// Room bounds the connections of several transports of LoadTransport together; nil means no such bound.
	Room *Room

	// Certificate is shown to a receiver that asks who we are (mTLS), whatever authorities it names; nil means
	// none. It is not written to.
	Certificate *tls.Certificate
}

// NewTransport makes the transport of one destination, with certificates that stay as they are; LoadTransport makes
// one that follows files. These two and the clients over them are the only factory of what speaks HTTP to the
// outside (T8). It offers HTTP/2, follows the guard's rules on every connection, refuses plain http with a
// *BlockedError, uses no proxy but the Dialer's, always verifies certificates, unpacks nothing, and bounds the
// answer's header to 64 KiB. The whole request has no time limit of its own: bound its context. No two destinations
// share a transport, so a connection that one has opened with its certificate never carries another's requests.
// CloseIdleConnections it when the destination goes.
func NewTransport(o TransportOptions) *http.Transport {
	return newTransport(o, o.dialer().DialContext)
}

func (o TransportOptions) dialer() *Dialer {
	if o.Dialer == nil {
		return &Dialer{}
	}
	return o.Dialer
}

// newTransport is NewTransport with connections made by dial, which goes through the Dialer of o.
func newTransport(o TransportOptions, dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	t := o.transport(dial)
	// The dialer cannot see whether TLS follows: http://host:443 would leave in the clear.
	t.RegisterProtocol("http", plain{})
	return t
}

// transport is newTransport but that it speaks plain http as well.
func (o TransportOptions) transport(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	idle := o.MaxConnsPerHost
	if idle == 0 {
		idle = defaultIdle
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Transport{
		Proxy:                  nil, // neither the environment's (T7): the dialer knows ours
		DialContext:            dial,
		TLSClientConfig:        o.tlsConfig(),
		Protocols:              protocols,
		ForceAttemptHTTP2:      true, // a DialContext of one's own turns it off
		TLSHandshakeTimeout:    tlsTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxConnsPerHost:        o.MaxConnsPerHost,
		MaxIdleConnsPerHost:    idle,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // no bombs (T15)
		HTTP2: &http.HTTP2Config{
			// A connection whose other end has vanished would otherwise swallow attempts until TCP gives up.
			SendPingTimeout: pingAfter,
			PingTimeout:     pingTimeout,

			MaxReceiveBufferPerStream: streamWindow,

			// Each request has an id, a time and a signature of its own. To keep them in the table of RFC 7541, section 2.3.2,
			// took more time than all that it saves, so it holds nothing: 0 would mean the default.
			MaxEncoderHeaderTableSize: 1,
		},
	}
}

func (o TransportOptions) tlsConfig() *tls.Config {
	c := &tls.Config{RootCAs: o.RootCAs, MinVersion: max(o.MinVersion, tls.VersionTLS12)}
	if o.Certificate != nil {
		// With Certificates, crypto/tls sends none if the receiver's list of authorities misses ours, and lists
		// are often wrong. Who configured a certificate for this destination wants it shown.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return o.Certificate, nil }
	}
	return c
}

// NewClient makes a client over NewTransport that follows no redirect: the answer is the redirect (T6).
func NewClient(o TransportOptions) *http.Client { return newClient(NewTransport(o)) }

func newClient(t http.RoundTripper) *http.Client {
	return &http.Client{
		Transport: t,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// plain refuses requests without TLS.
type plain struct{}

func (plain) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r.Body.Close()
	}
	return nil, &BlockedError{Host: r.URL.Hostname(), Reason: "only https is allowed"}
}
