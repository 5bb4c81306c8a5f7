// Package receiver is an HTTPS receiver of webhooks that verifies what it gets and can misbehave, for the demo and
// for tests. It keeps count by webhook-id, so that whoever sent knows what was lost, doubled or altered.
//
// Its main types are [Receiver], [Fault], which is switched at run time, and [CA], which makes its certificates.
// [TokenServer] issues the tokens that a receiver may require, and [Pipe] is a listener in memory, for receivers that
// need no socket. Nothing in it is meant to face a network.
package receiver

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/sign"
)

// Receiver is one receiver. Set its fields, then call Run once. The other methods may be called at any time and
// from several goroutines.
type Receiver struct {
	Listener    net.Listener     // required; Run closes it
	Certificate tls.Certificate  // required
	Secret      string           // of the Standard Webhooks signatures (whsec_…); empty verifies none
	HTTP1       bool             // offer HTTP/1.1 only; otherwise HTTP/2 as well
	ClientCAs   *x509.CertPool   // Run requires a client certificate that one of them has signed (mTLS); nil requires none
	Tokens      *TokenServer     // issues tokens, and each request must carry one; nil requires none
	MaxMessages int              // most messages that are remembered; 0 means 1,000,000
	MaxBytes    int              // most bytes of bodies that are remembered; 0 means 256 MiB
	KeepLatest  int              // how many of the latest requests Latest returns; 0 keeps none
	Taken       func(Request)    // called for each request taken, one at a time and in the order in which they count; nil is none
	Now         func() time.Time // wall clock; nil means time.Now
	Log         *zap.Logger      // nil logs nothing

	mu       sync.Mutex // guards the fields below
	fault    Fault
	outage   bool
	bytes    int
	stats    Stats
	messages map[string]*Message
	order    []string  // the ids in messages, by arrival
	latest   []Request // oldest first, at most KeepLatest
}

// Stats are the counts of a receiver since its start.
type Stats struct {
	Requests     int // all that arrived, except for those that asked for a token
	Distinct     int // messages taken
	Duplicates   int // requests taken whose id was taken before, with the same body
	Altered      int // the same with another body
	Unverified   int // requests refused for their signature
	Unauthorized int // requests refused for their token
	Faulted      int // requests not taken because of a fault or an outage
	Forgotten    int // requests taken and not remembered, for want of MaxMessages
}

// Message is what a receiver remembers under one webhook-id.
type Message struct {
	ID      string
	Count   int // requests taken under this id
	Request     // the first of them; its Body is nil when MaxBytes was used up
	Digest  [sha256.Size]byte
}

// Request is one request as it arrived.
type Request struct {
	At     time.Time
	Method string
	Target string      // path and query
	Proto  string      // such as HTTP/2.0
	Header http.Header // with Host, which net/http keeps elsewhere
	Body   []byte      // nil if it was not read
	Peer   string      // subject of the client's certificate, such as CN=relay; empty without one
}

const (
	defaultMaxMessages = 1_000_000
	defaultMaxBytes    = 256 << 20
	maxBody            = 64 << 20
	stopTime           = 250 * time.Millisecond // for requests in progress at the end of Run
)

// connKey is where a request's context holds its connection.
type connKey struct{}

// Run serves until ctx ends, and returns when nothing of it is left: nil after ctx has ended, or the reason why it
// could not serve.
func (r *Receiver) Run(ctx context.Context) error {
	if r.Listener == nil || len(r.Certificate.Certificate) == 0 {
		return errors.New("receiver: Listener and Certificate are required")
	}
	handler, err := r.Handler()
	if err != nil {
		return errors.Join(err, r.Listener.Close())
	}
	log := r.Log
	if log == nil {
		log = zap.NewNop()
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(!r.HTTP1)
	requests, cut := context.WithCancel(ctx)
	defer cut()
	server := &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		TLSConfig:         r.tlsConfig(),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          zap.NewStdLog(log),
		BaseContext:       func(net.Listener) context.Context { return requests }, // so that a stop ends what hangs
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(r.Listener, "", "") }()
	select {
	case err = <-served:
		return errors.Join(fmt.Errorf("serve: %w", err), server.Close())
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if server.Shutdown(stop) != nil {
		err = server.Close()
	}
	<-served
	return err
}

func (r *Receiver) tlsConfig() *tls.Config {
	c := &tls.Config{Certificates: []tls.Certificate{r.Certificate}, MinVersion: tls.VersionTLS12}
	if r.ClientCAs != nil {
		c.ClientCAs, c.ClientAuth = r.ClientCAs, tls.RequireAndVerifyClientCert
	}
	return c
}

// Handler returns what Run serves, for a server of the caller's own. Run need not be called then.
func (r *Receiver) Handler() (http.Handler, error) {
	var verifier *sign.Standard
	if r.Secret != "" {
		var err error
		if verifier, err = sign.NewStandard([]string{r.Secret}); err != nil {
			return nil, fmt.Errorf("receiver secret: %w", err)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.serve(w, req, verifier) }), nil
}

func (r *Receiver) serve(w http.ResponseWriter, req *http.Request, verifier *sign.Standard) {
	if r.Tokens != nil && req.URL.Path == r.Tokens.path() {
		r.Tokens.ServeHTTP(w, req)
		return
	}
	fault := r.arrived()
	conn, _ := req.Context().Value(connKey{}).(net.Conn)
	if conn == nil && (fault.Kind == ResetBefore || fault.Kind == ResetAfter) {
		panic(http.ErrAbortHandler) // the server of someone else: the next best thing to a reset
	}
	if fault.Kind == ResetBefore {
		r.keep(req, nil)
		fault.answer(w, req, conn)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		http.Error(w, "read body", http.StatusBadRequest)
		return
	}
	r.keep(req, body)
	if r.Tokens != nil && !r.Tokens.admits(req) {
		r.count(func(s *Stats) { s.Unauthorized++ })
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`) // RFC 6750, section 3
		http.Error(w, "no valid token", http.StatusUnauthorized)
		return
	}
	if verifier != nil {
		if err := verifier.Verify(req.Header, body, r.now()); err != nil {
			r.count(func(s *Stats) { s.Unverified++ })
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
	}
	if fault.Kind.taken() {
		r.take(req, body)
	}
	if fault.Kind == None {
		w.WriteHeader(http.StatusOK)
		return
	}
	fault.answer(w, req, conn)
}

// arrived counts a request and returns the fault that it meets.
func (r *Receiver) arrived() Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Requests++
	met := Fault{}
	switch {
	case r.outage:
		met = Fault{Kind: Status, Status: http.StatusServiceUnavailable}
	case r.fault.hits():
		met = r.fault
	}
	if !met.Kind.taken() {
		r.stats.Faulted++
	}
	return met
}

// take records a request that the receiver accepts.
func (r *Receiver) take(req *http.Request, body []byte) {
	id, digest := req.Header.Get("Webhook-Id"), sha256.Sum256(body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Taken != nil {
		r.Taken(r.request(req, body))
	}
	if m := r.messages[id]; m != nil {
		m.Count++
		if m.Digest == digest {
			r.stats.Duplicates++
		} else {
			r.stats.Altered++
		}
		return
	}
	if len(r.order) >= orDefault(r.MaxMessages, defaultMaxMessages) {
		r.stats.Forgotten++
		return
	}
	m := &Message{ID: id, Count: 1, Request: r.request(req, nil), Digest: digest}
	if r.bytes+len(body) <= orDefault(r.MaxBytes, defaultMaxBytes) {
		m.Body = body
		r.bytes += len(body)
	}
	if r.messages == nil {
		r.messages = make(map[string]*Message)
	}
	r.messages[id] = m
	r.order = append(r.order, id)
	r.stats.Distinct++
}

// keep holds a request, taken or not, for Latest.
func (r *Receiver) keep(req *http.Request, body []byte) {
	if r.KeepLatest <= 0 {
		return
	}
	kept := r.request(req, body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if over := len(r.latest) + 1 - r.KeepLatest; over > 0 {
		r.latest = slices.Delete(r.latest, 0, over)
	}
	r.latest = append(r.latest, kept)
}

func (r *Receiver) request(req *http.Request, body []byte) Request {
	kept := Request{
		At: r.now(), Method: req.Method, Target: req.URL.RequestURI(), Proto: req.Proto, Header: req.Header.Clone(), Body: body,
	}
	kept.Header.Set("Host", req.Host)
	if req.TLS != nil && len(req.TLS.PeerCertificates) > 0 {
		kept.Peer = req.TLS.PeerCertificates[0].Subject.String()
	}
	return kept
}

func (r *Receiver) count(f func(*Stats)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.stats)
}

// SetFault changes how requests that arrive from now on are answered. The zero Fault ends it.
func (r *Receiver) SetFault(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// Outage begins or ends an outage: meanwhile each request is answered with 503, whatever the fault is.
func (r *Receiver) Outage(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outage = on
}

// Stats returns the counts up to now.
func (r *Receiver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Message returns what arrived under an id. Header and Body are shared and must not be changed.
func (r *Receiver) Message(id string) (Message, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.messages[id]
	if m == nil {
		return Message{}, false
	}
	return *m, true
}

// IDs returns the ids of the messages that are remembered, in the order of their arrival.
func (r *Receiver) IDs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.order...)
}

// Latest returns the latest KeepLatest requests that arrived, oldest first, whether they were taken or refused. Headers
// and bodies are shared and must not be changed.
func (r *Receiver) Latest() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.latest)
}

func (r *Receiver) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

func orDefault[N ~int | ~int64](n, def N) N {
	if n == 0 {
		return def
	}
	return n
}
