// Package receiver is an HTTPS receiver of webhooks that verifies what it gets and can misbehave, for the demo and
// for tests. It keeps count by webhook-id, so that whoever sent knows what was lost, doubled or altered.
//
// Its main types are [Receiver], [Fault], which is switched at run time, and [CA], which makes its certificates.
// [Pipe] is a listener in memory, for receivers that need no socket. Nothing in it is meant to face a network.
package receiver

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	MaxMessages int              // most messages that are remembered; 0 means 1,000,000
	MaxBytes    int              // most bytes of bodies that are remembered; 0 means 256 MiB
	Now         func() time.Time // wall clock; nil means time.Now
	Log         *zap.Logger      // nil logs nothing

	mu       sync.Mutex // guards the fields below
	fault    Fault
	outage   bool
	bytes    int
	stats    Stats
	messages map[string]*Message
	order    []string // the ids in messages, by arrival
}

// Stats are the counts of a receiver since its start.
type Stats struct {
	Requests   int // all that arrived
	Distinct   int // messages taken
	Duplicates int // requests taken whose id was taken before, with the same body
	Altered    int // the same with another body
	Unverified int // requests refused for their signature
	Faulted    int // requests not taken because of a fault or an outage
	Forgotten  int // requests taken and not remembered, for want of MaxMessages
}

// Message is what a receiver remembers under one webhook-id.
type Message struct {
	ID     string
	Count  int       // requests taken under this id
	At     time.Time // of the first request, as are the following
	Method string
	Target string      // path and query
	Proto  string      // such as HTTP/2.0
	Header http.Header // with Host, which net/http keeps elsewhere
	Body   []byte      // nil when MaxBytes was used up
	Digest [sha256.Size]byte
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
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{r.Certificate}, MinVersion: tls.VersionTLS12},
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
	fault := r.arrived()
	conn, _ := req.Context().Value(connKey{}).(net.Conn)
	if conn == nil && (fault.Kind == ResetBefore || fault.Kind == ResetAfter) {
		panic(http.ErrAbortHandler) // the server of someone else: the next best thing to a reset
	}
	if fault.Kind == ResetBefore {
		fault.answer(w, req, conn)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		http.Error(w, "read body", http.StatusBadRequest)
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
	m := &Message{
		ID: id, Count: 1, At: r.now(), Method: req.Method, Target: req.URL.RequestURI(), Proto: req.Proto,
		Header: req.Header.Clone(), Digest: digest,
	}
	m.Header.Set("Host", req.Host)
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

func (r *Receiver) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}
