package guard

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// countedConn counts what is written to it, and may refuse or hold a Write.
type countedConn struct {
	net.Conn
	hold chan struct{} // each Write waits for it to be closed, or for Close; nil waits for nothing
	fail error

	mu     sync.Mutex // guards the fields below
	calls  int
	got    bytes.Buffer
	closed chan struct{}
}

func newCountedConn() *countedConn { return &countedConn{closed: make(chan struct{})} }

func (c *countedConn) Write(p []byte) (int, error) {
	if c.hold != nil {
		select {
		case <-c.hold:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return 0, c.fail
	}
	c.calls++
	return c.got.Write(p)
}

func (c *countedConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return nil
}

func (c *countedConn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if n, err := c.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("write %q: got %d, %v", text, n, err)
	}
}

func TestGatherConn(t *testing.T) {
	t.Run("what is written together leaves in one call, in order", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			under := newCountedConn()
			under.hold = make(chan struct{})
			c := newGatherConn(under)
			write(t, c, "first ")
			synctest.Wait() // the first is being written
			write(t, c, "second ")
			write(t, c, "third")
			close(under.hold)
			synctest.Wait()
			if got, want := under.got.String(), "first second third"; got != want || under.calls != 2 {
				t.Errorf("got %q in %d calls, want %q in 2", got, under.calls, want)
			}
		})
	})
	t.Run("the bytes may be changed after Write", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			under := newCountedConn()
			c := newGatherConn(under)
			p := []byte("kept")
			if _, err := c.Write(p); err != nil {
				t.Fatal(err)
			}
			copy(p, "lost")
			synctest.Wait()
			if got := under.got.String(); got != "kept" {
				t.Errorf("got %q, want %q", got, "kept")
			}
		})
	})
	t.Run("a slow connection holds up its writers, and all arrives", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			under := newCountedConn()
			under.hold = make(chan struct{})
			c := newGatherConn(under)
			sent := make([]byte, 10*maxGathered)
			_, _ = rand.Read(sent)
			done := false
			go func() {
				for at := 0; at < len(sent); at += 1 << 10 {
					if _, err := c.Write(sent[at : at+1<<10]); err != nil {
						t.Error(err)
						return
					}
				}
				done = true
			}()
			synctest.Wait()
			c.mu.Lock()
			waiting := len(c.waiting)
			c.mu.Unlock()
			if done || waiting > maxGathered {
				t.Errorf("done is %t with %d bytes waiting, want no more than %d", done, waiting, maxGathered)
			}
			close(under.hold)
			synctest.Wait()
			if !done || !bytes.Equal(under.got.Bytes(), sent) {
				t.Errorf("done is %t, and %d bytes have arrived of %d", done, under.got.Len(), len(sent))
			}
		})
	})
	t.Run("an error is that of the next Write", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			under := newCountedConn()
			under.fail = errors.New("cut")
			c := newGatherConn(under)
			write(t, c, "lost")
			synctest.Wait()
			if _, err := c.Write([]byte("more")); !errors.Is(err, under.fail) {
				t.Errorf("got %v, want %v", err, under.fail)
			}
		})
	})
	t.Run("Close lets what was taken leave first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			under := newCountedConn()
			under.hold = make(chan struct{})
			c := newGatherConn(under)
			write(t, c, "farewell")
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write after Close: got %v, want %v", err, net.ErrClosed)
			}
			close(under.hold)
			synctest.Wait()
			if got := under.got.String(); got != "farewell" || !under.isClosed() {
				t.Errorf("got %q, closed is %t", got, under.isClosed())
			}
			time.Sleep(2 * closeGrace) // its timer is over
		})
	})
	t.Run("Close ends what nobody reads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			under := newCountedConn()
			under.hold = make(chan struct{})
			c := newGatherConn(under)
			write(t, c, "unread")
			_ = c.Close()
			_ = c.Close() // twice does no harm
			synctest.Wait()
			if under.isClosed() {
				t.Error("closed at once, want after the grace")
			}
			time.Sleep(closeGrace)
			synctest.Wait()
			if !under.isClosed() {
				t.Error("still open after the grace")
			}
		})
	})
	t.Run("an idle connection is closed at once", func(t *testing.T) {
		under := newCountedConn()
		if err := newGatherConn(under).Close(); err != nil || !under.isClosed() {
			t.Errorf("got %v, closed is %t", err, under.isClosed())
		}
	})
}

// Many writers at once, over a real connection: each record arrives whole.
func TestGatherConnKeepsRecordsWhole(t *testing.T) {
	ours, theirs := net.Pipe()
	c := newGatherConn(ours)
	const writers, records, size = 8, 200, 64
	go func() {
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for range records {
					if _, err := c.Write(bytes.Repeat([]byte{byte(w)}, size)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		_ = c.Close()
	}()
	got, err := io.ReadAll(theirs)
	if err != nil || len(got) != writers*records*size {
		t.Fatalf("got %d bytes, %v; want %d", len(got), err, writers*records*size)
	}
	for at := 0; at < len(got); at += size {
		if record := got[at : at+size]; !bytes.Equal(record, bytes.Repeat(record[:1], size)) {
			t.Fatalf("the record at %d is torn: %v", at, record)
		}
	}
}
