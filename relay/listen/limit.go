package listen

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// leastIdle is how long a connection is idle at least before another one may take its place.
	leastIdle = time.Second

	// lookForIdle is how often a full listener looks for such a connection.
	lookForIdle = 100 * time.Millisecond
)

// limited is a listener that accepts no more than cap(slots) connections at a time. When all are taken, the one that has
// been idle longest, for a second at least, is ended and makes room: a crowd of connections that ask for nothing must not
// keep others out until their idle time is over (threats T20, T45). Without an idle one, further ones wait in the kernel's
// queue. golang.org/x/net/netutil has a bound too, whose connections hide CloseWrite: net/http then cannot say 413 or
// 431 and close without a reset, which may take the answer from the client.
type limited struct {
	net.Listener
	slots chan struct{} // one entry for each connection
	begun time.Time     // from which connections count their times

	mu    sync.Mutex // guards conns
	conns map[*slotConn]struct{}

	close sync.Once
	ended chan struct{} // closed by Close
	err   error         // of Close; set before ended is closed
}

func limit(l net.Listener, conns int) *limited {
	return &limited{
		Listener: l, slots: make(chan struct{}, conns), begun: time.Now(), conns: map[*slotConn]struct{}{}, ended: make(chan struct{}),
	}
}

// Accept waits for a free slot, then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	if err := l.take(); err != nil {
		return nil, err
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	c := &slotConn{Conn: conn, peer: peerAddr(conn), home: l}
	c.rest()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = struct{}{}
	return c, nil
}

// take waits for a free slot and takes it.
func (l *limited) take() error {
	select {
	case l.slots <- struct{}{}:
		return nil
	default:
	}
	look := time.NewTicker(lookForIdle)
	defer look.Stop()
	for {
		if idle := l.longestIdle(); idle != nil {
			_ = idle.Close() // whoever serves it notices
		}
		select {
		case l.slots <- struct{}{}:
			return nil
		case <-l.ended:
			return net.ErrClosed
		case <-look.C:
		}
	}
}

// longestIdle returns the connection that has been idle longest, as one that is so no more; nil if none has been for
// leastIdle.
func (l *limited) longestIdle() *slotConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found *slotConn
	since := int64(time.Since(l.begun) - leastIdle)
	for c := range l.conns {
		if at := c.idle.Load(); at > 0 && at < since {
			found, since = c, at
		}
	}
	if found == nil || !found.idle.CompareAndSwap(since, 0) {
		return nil // a request came in the meantime
	}
	return found
}

// state is a hook of net/http: it tells when a connection begins and ends to be idle.
func (*limited) state(conn net.Conn, s http.ConnState) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	c, ok := conn.(*slotConn)
	if !ok {
		return
	}
	switch s {
	case http.StateActive:
		c.idle.Store(0)
	case http.StateIdle:
		c.rest()
	}
}

// Close ends Accept too when it waits for a slot. Further calls return what the first did.
func (l *limited) Close() error {
	l.close.Do(func() {
		l.err = l.Listener.Close()
		close(l.ended)
	})
	return l.err
}

// slotConn frees its slot when it is closed.
type slotConn struct {
	net.Conn
	peer net.Addr
	home *limited
	once sync.Once
	idle atomic.Int64 // since when it is idle, in nanoseconds from home.begun; 0 while it is not
}

// rest notes that the connection is idle from now on.
func (c *slotConn) rest() { c.idle.Store(max(int64(time.Since(c.home.begun)), 1)) }

// RemoteAddr is what requests have as their RemoteAddr, and the log as the peer.
func (c *slotConn) RemoteAddr() net.Addr { return c.peer }

func (c *slotConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.home.mu.Lock()
		delete(c.home.conns, c)
		c.home.mu.Unlock()
		<-c.home.slots
	})
	return err
}

// CloseWrite tells the other end that nothing more will come, and still reads what it sends.
func (c *slotConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
