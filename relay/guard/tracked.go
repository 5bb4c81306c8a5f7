package guard

import (
	"errors"
	"net"
	"sync"
)

const (
	// restBytes is what a receiver may send beside its answers: a certificate chain, tickets, the settings and pings of
	// HTTP/2.
	restBytes = 64 << 10

	// answerBytes is what it may send for each request, in time or late: a header of maxHeaderBytes, a body of which no
	// more than 64 KiB are read, what else is on the way by then (streamWindow), and what packs it, which is as much again
	// as 30 times for an answer that comes byte by byte.
	answerBytes = 2 << 20
)

// ErrTooMuch is why a connection was ended.
var ErrTooMuch = errors.New("the receiver has sent far more than an answer may have")

// trackedConn is a connection of a generation. It ends when the receiver sends what no answer needs: net/http reads
// frames of HTTP/2 without end that belong to no answer, on an idle connection too (threat T15).
type trackedConn struct {
	net.Conn
	g     *generation
	close sync.Once

	// Of the goroutine that reads, which is one at a time: crypto/tls sees to that.
	left  int64 // bytes that may still be read; less than none for good once that was not enough
	begun int64 // requests of the generation, as of the last Read
}

// Read counts what is read, and fails with ErrTooMuch from the first byte that is too much. It does not see which connection
// a request uses: one to the same receiver that carries none is allowed for the same as the others.
func (c *trackedConn) Read(p []byte) (int, error) {
	if c.left < 0 {
		return 0, ErrTooMuch
	}
	n, err := c.Conn.Read(p)
	ended := c.g.ended.Load() // first, so that there are never fewer in flight than it seems
	begun := c.g.begun.Load()
	// What earlier answers have not used is not saved up, but for that of one which may have been cut off.
	c.left = min(c.left+(begun-c.begun)*answerBytes, restBytes+(begun-ended+1)*answerBytes) - int64(n)
	c.begun = begun
	if c.left < 0 {
		return 0, ErrTooMuch // net/http closes a connection that cannot be read
	}
	return n, err
}

// Close closes the connection and forgets it. Further calls do so no more.
func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	c.close.Do(func() {
		c.g.mu.Lock()
		delete(c.g.open, c)
		c.g.mu.Unlock()
		c.g.room.leave()
	})
	return err
}
