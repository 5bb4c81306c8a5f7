package guard

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"time"
)

const (
	tlsTimeout     = 5 * time.Second
	idleTimeout    = 50 * time.Second // below the 60 s after which most servers close, so that we close first
	pingAfter      = 15 * time.Second // silence on an HTTP/2 connection with requests in flight
	pingTimeout    = 5 * time.Second
	maxHeaderBytes = 64 << 10
	defaultIdle    = 16 // idle connections kept if MaxConnsPerHost says nothing
)

// TransportOptions says what differs between the clients of two destinations.
type TransportOptions struct {
	Dialer          *Dialer        // nil means the zero Dialer: public addresses only
	RootCAs         *x509.CertPool // who may have signed the receiver's certificate; nil means the system's
	MinVersion      uint16         // tls.VersionTLS12 or tls.VersionTLS13; what is lower, 0 too, means TLS 1.2
	MaxConnsPerHost int            // most connections at a time, HTTP/2 or not; 0 means no bound
}

// NewTransport makes the transport of one destination. With NewClient it is the only factory of what speaks HTTP
// to the outside (T8). It offers HTTP/2, follows the guard's rules on every connection, refuses plain http with a
// *BlockedError, uses no proxy, always verifies certificates, unpacks nothing, and bounds the answer's header to
// 64 KiB. The whole request has no time limit of its own: bound its context. CloseIdleConnections it when the
// destination goes.
func NewTransport(o TransportOptions) *http.Transport {
	dialer := o.Dialer
	if dialer == nil {
		dialer = &Dialer{}
	}
	idle := o.MaxConnsPerHost
	if idle == 0 {
		idle = defaultIdle
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	t := &http.Transport{
		Proxy:       nil, // neither the environment's (T7)
		DialContext: dialer.DialContext,
		TLSClientConfig: &tls.Config{
			RootCAs:    o.RootCAs,
			MinVersion: max(o.MinVersion, tls.VersionTLS12),
		},
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
		},
	}
	// The dialer cannot see whether TLS follows: http://host:443 would leave in the clear.
	t.RegisterProtocol("http", plain{})
	return t
}

// NewClient makes a client over NewTransport that follows no redirect: the answer is the redirect (T6).
func NewClient(o TransportOptions) *http.Client {
	return &http.Client{
		Transport: NewTransport(o),
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
