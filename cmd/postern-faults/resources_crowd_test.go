package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// crowd is many connections to one listener of the relay.
type crowd struct {
	mu    sync.Mutex // guards conns
	conns []net.Conn
}

// gather opens connections, from several loopback addresses, and sends the same text on each; what the kernel or the relay
// refuses is left out. They are closed at the end of the test. The number is below the limit of this process.
func gather(t *testing.T, address string, n int, text string) *crowd {
	t.Helper()
	c := openCrowd(address, n, text)
	t.Cleanup(c.disperse)
	return c
}

func openCrowd(address string, n int, text string) *crowd {
	c := &crowd{}
	const openers = 16
	var work sync.WaitGroup
	for o := range openers {
		work.Go(func() {
			for i := o; i < n; i += openers {
				from := &net.TCPAddr{IP: net.IPv4(127, 0, 65, byte(100+i%32))}
				conn, err := (&net.Dialer{LocalAddr: from, Timeout: 20 * time.Second}).Dial("tcp", address)
				if err != nil {
					continue
				}
				if tcp, ok := conn.(*net.TCPConn); ok {
					_ = tcp.SetReadBuffer(4 << 10) // so that what is not read piles up at the other end
				}
				_, _ = io.WriteString(conn, text) // one that was cut off by now is counted by alive
				c.mu.Lock()
				c.conns = append(c.conns, conn)
				c.mu.Unlock()
			}
		})
	}
	work.Wait()
	return c
}

// count is how many connections were opened.
func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

// alive is how many of the connections the relay has not closed. It reads what they were sent.
func (c *crowd) alive() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var wait sync.WaitGroup
	var mu sync.Mutex // guards n
	for part := range 16 {
		wait.Go(func() {
			for i := part; i < len(c.conns); i += 16 {
				_ = c.conns[i].SetReadDeadline(time.Now().Add(10 * time.Millisecond))
				_, err := io.Copy(io.Discard, c.conns[i])
				if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
					mu.Lock()
					n++
					mu.Unlock()
				}
			}
		})
	}
	wait.Wait()
	return n
}

// disperse closes all connections.
func (c *crowd) disperse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

// allow raises the limit of this process on descriptors, which its children inherit.
func allow(t *testing.T, files uint64) {
	t.Helper()
	if err := raise(files); err != nil {
		t.Fatal(err)
	}
}

func raise(files uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= files {
		return nil
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: max(files, limit.Max)}); err != nil {
		return fmt.Errorf("raise the limit on descriptors to %d (needs root, or ulimit -n): %w", files, err)
	}
	return nil
}

// limited is a wrap that gives the relay so many descriptors.
func limited(files int) []string {
	return []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, files), "sh"}
}

// newcomers posts messages to a destination, each on a connection of its own, and returns how long each answer took. One
// that is not taken within the time is an error of the test.
func (s *site) newcomers(t *testing.T, l *ledger, destination string, n, size int, within time.Duration) beside {
	t.Helper()
	var all beside
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r := seeded(t)
	for i := range n {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		begin := time.Now()
		status, err := l.post(ctx, client, s, outgoing{path: "/to/" + destination, body: uniqueBody(r, t.Name(), i, size)})
		cancel()
		if err != nil || status != http.StatusAccepted {
			t.Errorf("post %d on a connection of its own: got %d, %v, want 202 within %v", i, status, err, within)
			return all
		}
		all = append(all, time.Since(begin))
	}
	return all
}

// firstLine reads the status line of an answer.
func firstLine(conn net.Conn) string {
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return line
}
