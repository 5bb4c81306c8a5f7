package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// rogueLife bounds a connection of a rogue: longer than the test, so that what ends an attempt, or a connection that has
// served some of them, is never the rogue.
const rogueLife = time.Hour

// endless bounds what is written without end, so that a relay that reads all of it fails the test and not the machine.
const endless = 32 << 20

// rogue is a receiver made of raw connections, on port 443 of a loopback address of its own.
type rogue struct {
	listener net.Listener
	config   *tls.Config // nil speaks no TLS
	handle   func(*rogueLine)

	conns    atomic.Int64 // that were accepted
	requests atomic.Int64 // that were read to their end, as far as the rogue reads them
	wrote    atomic.Int64 // bytes that it got rid of, within TLS

	over  chan struct{} // closed at the end of the test
	lines sync.WaitGroup

	mu   sync.Mutex // guards open
	open map[net.Conn]struct{}
}

// newRogue listens at an address until the end of the test. Of a silent one connections are left in the kernel's queue.
func newRogue(t *testing.T, ip string, config *tls.Config, serve func(*rogueLine)) *rogue {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "443"))
	if err != nil {
		t.Fatalf("listen (port 443 needs root or CAP_NET_BIND_SERVICE): %v", err)
	}
	r := &rogue{listener: l, config: config, handle: serve, over: make(chan struct{}), open: map[net.Conn]struct{}{}}
	if serve != nil {
		r.lines.Go(r.accept)
	}
	t.Cleanup(r.close)
	return r
}

func (r *rogue) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return // the end of the test
		}
		r.conns.Add(1)
		if conn.SetDeadline(time.Now().Add(rogueLife)) != nil || !r.keep(conn) {
			_ = conn.Close()
			continue
		}
		r.lines.Go(func() {
			defer r.drop(conn)
			l := &rogueLine{rogue: r, plain: conn, Conn: conn}
			if r.config != nil {
				secure := tls.Server(conn, r.config)
				if secure.Handshake() != nil {
					return // many are there to fail
				}
				l.Conn = secure
			}
			l.in = bufio.NewReader(l.Conn)
			r.handle(l)
		})
	}
}

func (r *rogue) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		return false
	}
	r.open[c] = struct{}{}
	return true
}

func (r *rogue) drop(c net.Conn) {
	_ = c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

// held is the number of connections that neither end has closed.
func (r *rogue) held() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

func (r *rogue) close() {
	_ = r.listener.Close()
	close(r.over)
	r.mu.Lock()
	for c := range r.open {
		_ = c.Close()
	}
	r.open = nil
	r.mu.Unlock()
	r.lines.Wait()
}

// rogueLine is one connection of a rogue, with TLS if that has some.
type rogueLine struct {
	net.Conn
	rogue *rogue
	plain net.Conn // below TLS
	in    *bufio.Reader
}

// Write counts what the other end has taken, or what the kernel holds for it.
func (l *rogueLine) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	l.rogue.wrote.Add(int64(n))
	return n, err
}

// say writes a text and reports whether that went well.
func (l *rogueLine) say(text string) bool {
	_, err := io.WriteString(l, text)
	return err == nil
}

// repeat writes a text again and again, with a rest between if there is one, until the other end has had enough.
func (l *rogueLine) repeat(text string, rest time.Duration) {
	for sent := 0; sent < endless && l.say(text); sent += len(text) {
		if rest > 0 && !l.rest(rest) {
			return
		}
	}
	l.hang()
}

// rest waits, and reports whether the test goes on.
func (l *rogueLine) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.rogue.over:
		return false
	}
}

// hang answers nothing until the other end leaves.
func (l *rogueLine) hang() { _, _ = io.Copy(io.Discard, l.Conn) }

// reset ends the connection without a good-bye.
func (l *rogueLine) reset() {
	if tcp, ok := l.plain.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = l.plain.Close()
}

// request reads one request of HTTP/1.1 with its body, and reports whether there was one.
func (l *rogueLine) request() bool {
	r, err := http.ReadRequest(l.in)
	if err != nil {
		return false
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return false
	}
	l.rogue.requests.Add(1)
	return true
}

// answers serves the requests of a connection with the same text each.
func answers(text string) func(*rogueLine) {
	return func(l *rogueLine) {
		for l.request() && l.say(text) {
		}
	}
}

// after serves one request of HTTP/1.1.
func after(then func(*rogueLine)) func(*rogueLine) {
	return func(l *rogueLine) {
		if l.request() {
			then(l)
		}
	}
}

// frames serves HTTP/2 by frames. It is called with each request that was read to its end.
func frames(settings []http2.Setting, each func(*rogueLine, *http2.Framer, uint32)) func(*rogueLine) {
	return func(l *rogueLine) {
		fr, ok := l.preface(settings)
		if !ok {
			return
		}
		for {
			stream, err := l.stream(fr)
			if err != nil {
				return
			}
			each(l, fr, stream)
		}
	}
}

// preface begins HTTP/2.
func (l *rogueLine) preface(settings []http2.Setting) (*http2.Framer, bool) {
	if _, err := io.ReadFull(l.in, make([]byte, len(http2.ClientPreface))); err != nil {
		return nil, false
	}
	fr := http2.NewFramer(l, l.in)
	return fr, fr.WriteSettings(settings...) == nil
}

// stream reads frames until a request has ended, and returns its stream. Settings are acknowledged on the way.
func (l *rogueLine) stream(fr *http2.Framer) (uint32, error) {
	for range 100_000 {
		frame, err := fr.ReadFrame()
		if err != nil {
			return 0, err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := fr.WriteSettingsAck(); err != nil {
					return 0, err
				}
			}
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				l.rogue.requests.Add(1)
				return f.StreamID, nil
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				l.rogue.requests.Add(1)
				return f.StreamID, nil
			}
		}
	}
	return 0, errors.New("no request in 100,000 frames")
}

// block encodes header fields for HTTP/2, without an index: 0x00, then name and value with their lengths (RFC 7541,
// section 6.2.2).
func block(fields ...string) []byte {
	var b strings.Builder
	for i := 0; i < len(fields); i += 2 {
		b.WriteByte(0)
		for _, text := range fields[i : i+2] {
			writeLength(&b, len(text))
			b.WriteString(text)
		}
	}
	return []byte(b.String())
}

// writeLength writes a length with a prefix of seven bits (RFC 7541, section 5.1).
func writeLength(b *strings.Builder, n int) {
	const most = 1<<7 - 1
	if n < most {
		b.WriteByte(byte(n))
		return
	}
	b.WriteByte(most)
	for n -= most; n >= 1<<7; n >>= 7 {
		b.WriteByte(byte(n&0x7f | 0x80))
	}
	b.WriteByte(byte(n))
}
