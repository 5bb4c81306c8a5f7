package guard

import (
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	// maxGathered is how many bytes may wait to be written to a connection, but for a single Write of more. A receiver
	// that reads slowly holds up its senders from there on, as it does without gathering.
	maxGathered = 32 << 10

	// keptBuffer is the size up to which a connection keeps its buffers: there may be thousands of them, most idle.
	keptBuffer = 8 << 10

	// closeGrace is how long the last bytes of a connection may take after Close.
	closeGrace = time.Second
)

// gatherConn writes in one call to the system what its users write one after the other. HTTP/2 flushes the header and the
// body of each request by itself, and those of several requests at a time go over one connection: each flush would be a
// packet of its own, and wake the receiver.
//
// Write takes the bytes and returns; a goroutine writes them as soon as those that can run have added theirs, so nothing
// waits for a clock. What fails then is returned by the next Write. A request that is lost like this misses its answer, as
// one does that is lost on the way.
type gatherConn struct {
	net.Conn

	mu      sync.Mutex // guards the fields below
	room    sync.Cond  // gathered has become shorter, or err is set
	waiting []byte     // to be written
	spare   []byte     // the buffer that was written last
	writing bool       // a goroutine writes until there is nothing left
	closing bool       // and closes the connection then
	err     error      // of a write, or net.ErrClosed
}

func newGatherConn(conn net.Conn) *gatherConn {
	c := &gatherConn{Conn: conn}
	c.room.L = &c.mu
	return c
}

// Write takes p, and waits only while too much is taken already. Its error may be that of an earlier Write.
func (c *gatherConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && len(c.waiting) > 0 && len(c.waiting)+len(p) > maxGathered {
		c.room.Wait()
	}
	if c.err != nil {
		return 0, c.err
	}
	c.waiting = append(c.waiting, p...)
	if !c.writing {
		c.writing = true
		go c.write()
	}
	return len(p), nil
}

// write writes what waits until nothing does.
func (c *gatherConn) write() {
	for {
		runtime.Gosched() // to those who are about to add theirs
		c.mu.Lock()
		if len(c.waiting) == 0 {
			c.writing = false
			closing := c.closing
			c.mu.Unlock()
			if closing {
				_ = c.Conn.Close() // nobody is left to be told
			}
			return
		}
		p := c.waiting
		c.waiting = c.spare[:0]
		c.mu.Unlock()
		_, err := c.Conn.Write(p)
		c.mu.Lock()
		if c.spare = p; cap(p) > keptBuffer {
			c.spare = nil
		}
		if err != nil {
			c.waiting = nil
			if c.err == nil {
				c.err = err
			}
		}
		c.room.Broadcast()
		c.mu.Unlock()
	}
}

// Close closes the connection when what was taken has been written, or closeGrace later. It does not wait for that.
func (c *gatherConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = net.ErrClosed
	}
	c.room.Broadcast()
	if !c.writing {
		return c.Conn.Close()
	}
	if !c.closing {
		c.closing = true
		time.AfterFunc(closeGrace, func() { _ = c.Conn.Close() })
	}
	return nil
}
