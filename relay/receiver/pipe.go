package receiver

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is how many bytes one direction of a connection in memory holds before its writer waits. net.Pipe
// holds none, so that the alert which ends a TLS session waits for a reader that may be gone.
const pipeBuffer = 64 << 10

// Pipe is a listener in memory: Dial is its other side. Use NewPipe. It may be used from several goroutines.
type Pipe struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// NewPipe makes a listener in memory.
func NewPipe() *Pipe {
	return &Pipe{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Dial opens a connection and returns when it has been accepted. It ends with ctx, and with net.ErrClosed after Close.
func (p *Pipe) Dial(ctx context.Context) (net.Conn, error) {
	there, back := newStream(), newStream()
	near, far := &memoryConn{in: back, out: there}, &memoryConn{in: there, out: back}
	select {
	case p.conns <- far:
		return near, nil
	case <-p.closed:
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept waits for a Dial, or for Close.
func (p *Pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, &net.OpError{Op: "accept", Net: "memory", Err: net.ErrClosed}
	}
}

// Close ends Accept and Dial. Connections stay open.
func (p *Pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr returns an address that names no place.
func (p *Pipe) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// memoryConn is one end of a connection in memory.
type memoryConn struct {
	in, out *stream
}

func (c *memoryConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *memoryConn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *memoryConn) LocalAddr() net.Addr         { return memoryAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr        { return memoryAddr{} }

func (c *memoryConn) Close() error {
	c.in.close()
	c.out.close()
	return nil
}

func (c *memoryConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

func (c *memoryConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

// stream is one direction of a connection.
type stream struct {
	mu      sync.Mutex // guards the fields below
	changed sync.Cond
	held    []byte
	closed  bool
	readBy  deadline
	writeBy deadline
}

// deadline is the time by which a read or a write must have been made; zero means never.
type deadline struct {
	at    time.Time
	over  bool
	timer *time.Timer
}

// passed reports whether the time is over. Its timer may be about to say so.
func (d *deadline) passed() bool { return d.over || !d.at.IsZero() && !time.Now().Before(d.at) }

func newStream() *stream {
	s := new(stream)
	s.changed.L = &s.mu
	return s
}

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(s.held) > 0:
			n := copy(b, s.held)
			s.held = s.held[n:]
			if len(s.held) == 0 {
				s.held = nil
			}
			s.changed.Broadcast()
			return n, nil
		case s.closed:
			return 0, io.EOF
		case len(b) == 0:
			return 0, nil
		}
		s.changed.Wait()
	}
}

func (s *stream) write(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch room := pipeBuffer - len(s.held); {
		case s.writeBy.passed():
			return n, os.ErrDeadlineExceeded
		case s.closed:
			return n, io.ErrClosedPipe
		case n == len(b):
			return n, nil
		case room > 0:
			part := b[n:min(len(b), n+room)]
			s.held = append(s.held, part...)
			n += len(part)
			s.changed.Broadcast()
			if n == len(b) {
				return n, nil
			}
			continue
		}
		s.changed.Wait()
	}
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.changed.Broadcast()
}

func (s *stream) setDeadline(d *deadline, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at, d.over = t, false
	if !t.IsZero() {
		wait := time.Until(t)
		d.over = wait <= 0
		if !d.over {
			d.timer = time.AfterFunc(wait, func() { s.expire(d, t) })
		}
	}
	s.changed.Broadcast()
}

// expire ends the waiting for a deadline, unless it was set anew meanwhile.
func (s *stream) expire(d *deadline, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.at.Equal(t) {
		d.over = true
		s.changed.Broadcast()
	}
}
