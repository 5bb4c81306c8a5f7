package egress

import (
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/postern-relay/postern/store"
)

// phase is how far an attempt came. Later ones are larger.
type phase uint8

const (
	phaseLoad    phase = iota // reading the message, or waiting for a connection to be free
	phaseDNS                  // resolving the name
	phaseConnect              // opening the connection
	phaseTLS                  // shaking hands
	phaseSend                 // writing the request
	phaseWait                 // waiting for the answer
	phaseAnswer               // reading the answer's header
)

var phaseNames = [...]string{
	phaseLoad: "while waiting for a connection", phaseDNS: "while resolving the name", phaseConnect: "while connecting",
	phaseTLS: "during the TLS handshake", phaseSend: "while sending the request",
	phaseWait: "while waiting for the answer", phaseAnswer: "while reading the answer",
}

func (p phase) String() string { return phaseNames[p] }

// trace is what net/http tells about one request. Its hooks run in goroutines of the transport, also after the
// request has ended: the transport goes on with a dial that no longer has anyone waiting.
type trace struct {
	begin time.Time

	// refuse ends a request that net/http is about to send a second time by itself; nil if it cannot.
	refuse func()

	mu                               sync.Mutex // guards the fields below
	over                             bool
	begun                            bool // the request may be on the wire in part; only noted with refuse
	seen                             seen
	dnsStart, connectStart, tlsStart time.Time
}

// seen is what a trace has seen.
type seen struct {
	phase  phase
	timing store.Timing
	peer   string
	reused bool
	again  bool    // the request was to be sent a second time, and has been refused
	secure secured // nil without a connection
}

// secured is a connection with TLS.
type secured interface{ ConnectionState() tls.ConnectionState }

// certExpires is when the certificate ends with which the receiver has proved who it is. It is zero without a connection.
func (s *seen) certExpires() time.Time {
	if s.secure == nil {
		return time.Time{}
	}
	certificates := s.secure.ConnectionState().PeerCertificates
	if len(certificates) == 0 {
		return time.Time{}
	}
	return certificates[0].NotAfter
}

// end returns what was seen and ignores what follows.
func (t *trace) end() seen {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	return t.seen
}

// note runs f under the lock, unless the attempt is over.
func (t *trace) note(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		f()
	}
}

// reach moves on to p. Dials to several addresses overlap, so a phase is never left for an earlier one.
func (t *trace) reachLocked(p phase) { t.seen.phase = max(t.seen.phase, p) }

// hooks must not set Got1xxResponse: without it the transport bounds the bytes of all 1xx answers together.
func (t *trace) hooks() *httptrace.ClientTrace {
	hooks := &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) {
			t.note(func() { t.reachLocked(phaseDNS); t.dnsStart = time.Now() })
		},
		DNSDone: func(httptrace.DNSDoneInfo) {
			t.note(func() { t.seen.timing.DNS = since(t.dnsStart) })
		},
		ConnectStart: func(_, _ string) {
			t.note(func() {
				t.reachLocked(phaseConnect)
				if t.connectStart.IsZero() { // later ones are further addresses of the same name
					t.connectStart = time.Now()
				}
			})
		},
		ConnectDone: func(_, addr string, err error) {
			t.note(func() {
				t.seen.timing.Connect = since(t.connectStart)
				if err == nil {
					t.seen.peer = addr
				}
			})
		},
		TLSHandshakeStart: func() {
			t.note(func() { t.reachLocked(phaseTLS); t.tlsStart = time.Now() })
		},
		TLSHandshakeDone: func(tls.ConnectionState, error) {
			t.note(func() { t.seen.timing.TLS = since(t.tlsStart) })
		},
		GotConn: func(info httptrace.GotConnInfo) {
			t.note(func() {
				if t.begun {
					t.seen.again = true
					t.refuse()
					return
				}
				t.reachLocked(phaseSend)
				t.seen.peer, t.seen.reused = info.Conn.RemoteAddr().String(), info.Reused
				t.seen.secure, _ = info.Conn.(secured)
				if info.Reused { // a dial of ours may still have begun, and goes to someone else
					t.seen.timing = store.Timing{}
				}
			})
		},
		WroteRequest: func(httptrace.WroteRequestInfo) {
			t.note(func() { t.reachLocked(phaseWait) })
		},
		GotFirstResponseByte: func() {
			t.note(func() { t.reachLocked(phaseAnswer); t.seen.timing.FirstByte = since(t.begin) })
		},
	}
	if t.refuse != nil {
		// This one is called before anything is written, and WroteHeaders only behind that: too late for a receiver that
		// is quick to refuse.
		hooks.WroteHeaderField = func(string, []string) { t.note(func() { t.begun = true }) }
	}
	return hooks
}

// since is the time from start, and 0 if that never came.
func since(start time.Time) time.Duration {
	if start.IsZero() {
		return 0
	}
	return time.Since(start)
}
