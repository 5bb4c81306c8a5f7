// Package listen is the sockets of Postern: it accepts connections on TCP or a Unix socket, within limits, and lets
// in the requests that may come in. What a request means is the business of its Handler.
//
// Each request passes these doors in this order, and the first one closed answers (threats T19 to T27):
//
//	framing   what a proxy in between could read otherwise than we do: absolute targets, HTTP/1.0 without a
//	          length, CONNECT, TRACE and other methods that mean a proxy; a connection ends after such a request
//	size      414 and 431; the size of the body is for the Handler, which knows what it is for
//	host      on a loopback address only loopback names, so that a page on the web cannot rebind its name to us; with
//	          TLS, on any address, only names of the certificate
//	client    where client certificates are asked for, only one that would be let in now
//	origin    nothing that a browser sends on behalf of another site; no CORS header is ever answered
//	token     on any path but /livez, /readyz and what Options.Public names, if there are tokens
//
// Its main type is [Server].
package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// headerSlop is what net/http allows beyond Server.MaxHeaderBytes (its initialReadLimitSize).
const headerSlop = 4096

const (
	defaultConns = 1024
	minHeaderMax = 2 * headerSlop
)

// Options says how a Server listens. Times that are 0 mean their default; there is no value for "never".
type Options struct {
	Address  string           // host:port, or unix:///path/of/socket; required. Port 0 picks a free one
	Listener net.Listener     // open already, as a service manager hands it over; takes the place of Address. nil binds that
	Handler  http.Handler     // required; gets the requests that were let in
	Log      *zap.Logger      // nil logs nothing
	Now      func() time.Time // wall clock; nil means time.Now

	// TLS makes it a listener for https; nil serves plain HTTP. The Host of a request must be a name that the certificate
	// is for.
	TLS *TLS

	// Tokens are those any of which lets a request in. Without any, requests need none: Open refuses that on an address
	// that is neither loopback nor a Unix socket.
	Tokens []Token

	// TokensKey is what Tokens are called where they are configured, for errors; empty means "tokens".
	TokensKey string

	// Public reports whether a path needs no token, besides /livez and /readyz, which never do; nil means that all
	// others do. It sees the path as it is in the request, not cleaned.
	Public func(path string) bool

	// Metrics counts the use of tokens and what is refused, for this listener under Name, which is from a fixed list; nil
	// counts nothing.
	Metrics *Metrics
	Name    string

	// Of a Unix socket: the mode of its file, whose write bits say who may connect, and the group of the file, a name or
	// a number. 0 means 0600, and an empty group is that of the process. The process must be in another one, or root.
	SocketMode  fs.FileMode
	SocketGroup string

	// MaxConns is the largest number of connections at a time. A further one takes the place of the one that has been idle
	// longest, if that is for a second at least, or waits in the kernel's queue. 0 means 1024.
	MaxConns int

	ReadHeaderTimeout time.Duration // until the headers are there; 0 means 5 s
	ReadTimeout       time.Duration // until the body is there, headers included; 0 means 30 s
	WriteTimeout      time.Duration // from the headers to the end of the answer; 0 means ReadTimeout and 30 s more
	IdleTimeout       time.Duration // until the next request of a connection; 0 means 60 s
	MaxHeaderBytes    int           // request line and headers; 0 means 16 KiB, less than 8 KiB means 8 KiB. HTTP/1.1 over TLS allows 4 KiB more
	Drain             time.Duration // how long Run lets requests finish after a stop; 0 means 10 s
}

// Server is one listener. Open makes it; Run serves until its context ends. Its methods may be called from several
// goroutines.
type Server struct {
	listener net.Listener
	door     *door
	secure   *secure // nil without TLS
	http     *http.Server
	log      *zap.Logger
	drain    time.Duration
}

// ConfigError is an error of Open that the next call would have as well: what Options say does not go together, or not with
// the socket or the machine. Others, such as a port in use, may be gone by then.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

func (e *ConfigError) Unwrap() error { return e.Err }

// Open binds the address and serves nothing yet: the kernel keeps connections waiting until Run. The caller ends it
// by Run or by Close. A socket file that nobody serves any more is replaced. Errors: a *ConfigError, or why it could not be
// bound.
func Open(o Options) (*Server, error) {
	if o.Handler == nil {
		return nil, errors.New("listen: Handler is required")
	}
	o.setDefaults()
	door, err := newDoor(o)
	if err != nil {
		return nil, err
	}
	secure, err := newSecure(o)
	if err != nil {
		return nil, err
	}
	door.secure = secure
	listener, err := o.Listener, error(nil)
	if listener == nil {
		listener, err = bind(o.Address, o.SocketMode, o.SocketGroup)
	}
	if err != nil {
		return nil, err
	}
	if err := door.bound(listener.Addr()); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	limited := limit(listener, o.MaxConns)
	s := &Server{
		listener: limited,
		door:     door,
		secure:   secure,
		log:      o.Log,
		drain:    o.Drain,
	}
	s.http = &http.Server{
		Handler:                      door,
		ReadHeaderTimeout:            o.ReadHeaderTimeout,
		ReadTimeout:                  o.ReadTimeout,
		WriteTimeout:                 o.WriteTimeout,
		IdleTimeout:                  o.IdleTimeout,
		MaxHeaderBytes:               o.MaxHeaderBytes - headerSlop,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" meets the doors too
		ErrorLog:                     log.New(lineLog{o.Log}, "", 0),
		ConnState:                    limited.state,
	}
	if secure != nil {
		s.http.TLSConfig, s.http.ConnContext = secure.config(), withProof
		s.http.MaxHeaderBytes = o.MaxHeaderBytes // HTTP/2 allows for no slop, so HTTP/1.1 has some here
		s.http.HTTP2 = &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: receiveBuffer, MaxReceiveBufferPerStream: receiveBuffer,
			WriteByteTimeout: writeStall,
		}
	}
	return s, nil
}

func (o *Options) setDefaults() {
	orDefault := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	orDefault(&o.ReadHeaderTimeout, 5*time.Second)
	orDefault(&o.ReadTimeout, 30*time.Second)
	orDefault(&o.WriteTimeout, o.ReadTimeout+30*time.Second)
	orDefault(&o.IdleTimeout, 60*time.Second)
	orDefault(&o.Drain, 10*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.TokensKey == "" {
		o.TokensKey = "tokens"
	}
	if o.MaxHeaderBytes <= 0 {
		o.MaxHeaderBytes = 16 << 10
	}
	o.MaxHeaderBytes = max(o.MaxHeaderBytes, minHeaderMax)
	if o.MaxConns <= 0 {
		o.MaxConns = defaultConns
	}
}

// Addr returns the address that is bound, with the port that was picked for port 0. The path of a Unix socket comes
// without the scheme.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// SetTokens replaces the tokens, for this and later requests; also those of connections that are open. The context of a
// request in progress ends if its token is gone, which ends a stream. Without any, requests need none, which is an error
// on an address that other hosts can reach; so is a list with two tokens that are the same, or of the same name. After an
// error the tokens are as before.
func (s *Server) SetTokens(list []Token) error { return s.door.setTokens(list) }

// CheckTokens returns the error that SetTokens would, and changes nothing.
func (s *Server) CheckTokens(list []Token) error { return s.door.checkTokens(list) }

// Certificates returns what the listener shows for its names, in the order of the config; nil without TLS.
func (s *Server) Certificates() []Certificate {
	if s.secure == nil {
		return nil
	}
	return s.secure.certificates()
}

// Trouble says for each name why clients cannot connect: there is no certificate, or one that is not valid now. It is for
// a person, and empty if all is well.
func (s *Server) Trouble() []string {
	if s.secure == nil {
		return nil
	}
	return s.secure.trouble()
}

// Run serves until ctx ends, then lets requests in progress finish within Drain, cuts off the rest, and returns nil.
// An error means that the listener failed. When Run has returned, all connections are closed and a Unix socket's file
// is gone; the handler of a request that was cut off may take a moment longer to notice. It is called once.
func (s *Server) Run(ctx context.Context) error {
	base := context.WithoutCancel(ctx)
	s.http.BaseContext = func(net.Listener) context.Context { return base }
	served := make(chan error, 1)
	looking, stopLooking := context.WithCancel(ctx)
	var looker errgroup.Group
	defer func() {
		stopLooking()
		_ = looker.Wait() // returns none
	}()
	if s.secure == nil {
		go func() { served <- s.http.Serve(s.listener) }()
	} else {
		go func() { served <- s.http.ServeTLS(s.listener, "", "") }()
		looker.Go(func() error { return s.secure.run(looking) })
	}

	var failure error
	select {
	case failure = <-served:
		served <- nil
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeoutCause(base, s.drain, errors.New("time to drain is over"))
	defer cancel()
	err := s.http.Shutdown(drain)
	if err != nil && drain.Err() != nil {
		s.log.Warn("requests cut off", zap.Duration("drain_seconds", s.drain))
		err = s.http.Close()
	}
	<-served
	if failure != nil && !errors.Is(failure, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.Addr(), failure)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close %s: %w", s.Addr(), err)
	}
	return nil
}

// Close ends a Server at once, whether it runs or not. Further calls return nil.
func (s *Server) Close() error {
	err := errors.Join(s.http.Close(), s.listener.Close()) // the first knows the listener only while it serves
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close %s: %w", s.Addr(), err)
	}
	return nil
}

// lineLog passes what net/http has to say, about broken handshakes and the like, on to the log. Outsiders can cause
// any number of these lines, so they are for debugging only.
type lineLog struct{ log *zap.Logger }

func (l lineLog) Write(b []byte) (int, error) {
	l.log.Debug("http server", zap.String("reason", strings.TrimSpace(string(b))))
	return len(b), nil
}
