package listen

import (
	"net"
	"sync"
)

// limited is a listener that accepts no more than cap(slots) connections at a time: further ones wait in the
// kernel's queue. golang.org/x/net/netutil has one too, whose connections hide CloseWrite: net/http then cannot
// say 413 or 431 and close without a reset, which may take the answer from the client.
type limited struct {
	net.Listener
	slots chan struct{} // one entry for each connection

	close sync.Once
	ended chan struct{} // closed by Close
	err   error         // of Close; set before ended is closed
}

func limit(l net.Listener, conns int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, conns), ended: make(chan struct{})}
}

// Accept waits for a free slot, then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.ended:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotConn{Conn: conn, peer: peerAddr(conn), free: func() { <-l.slots }}, nil
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
	once sync.Once
	free func()
}

// RemoteAddr is what requests have as their RemoteAddr, and the log as the peer.
func (c *slotConn) RemoteAddr() net.Addr { return c.peer }

func (c *slotConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.free)
	return err
}

// CloseWrite tells the other end that nothing more will come, and still reads what it sends.
func (c *slotConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
