package listen_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/listen"
)

// patience is how long a test waits for what must happen; nothing waits that long when all is well.
const patience = 10 * time.Second

// echo answers with what it got and counts the requests that were let in.
type echo struct{ count atomic.Int64 }

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.count.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.Header().Set("Connection", "close")
		http.Error(w, "unreadable", http.StatusRequestTimeout)
		return
	}
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
}

// start opens and runs a server until the test ends. Fields that are needed are filled in.
func start(t testing.TB, o listen.Options) (s *listen.Server, handler *echo) {
	t.Helper()
	handler = new(echo)
	if o.Handler == nil {
		o.Handler = handler
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	if o.Drain == 0 {
		o.Drain = 50 * time.Millisecond // tests leave connections open
	}
	s, err := listen.Open(o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s, handler
}

func dial(t testing.TB, s *listen.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial(s.Addr().Network(), s.Addr().String())
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// exchange sends raw bytes on a new connection and returns all answers until the server closes it. HOST stands for
// the server's address.
func exchange(t testing.TB, s *listen.Server, raw string) []*http.Response {
	t.Helper()
	conn := dial(t, s)
	raw = strings.ReplaceAll(raw, "HOST", s.Addr().String())
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatalf("send: %v", err)
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the server may have closed already
	}
	var all []*http.Response
	reader := bufio.NewReader(conn)
	for len(all) < 10 {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatalf("the server neither answered nor closed: %v", err)
			}
			return all
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return all
		}
		resp.Body = io.NopCloser(strings.NewReader(string(body)))
		all = append(all, resp)
	}
	t.Fatalf("got %d answers and more, want an end", len(all))
	return nil
}

func TestClose(t *testing.T) {
	s, err := listen.Open(listen.Options{Address: "127.0.0.1:0", Handler: &echo{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close before a run: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	if conn, err := net.Dial("tcp", s.Addr().String()); err == nil {
		conn.Close()
		t.Error("got a connection after close, want none")
	}
}

func TestDrain(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		_, _ = io.WriteString(w, "done")
	})
	s, err := listen.Open(listen.Options{Address: "127.0.0.1:0", Handler: handler, Drain: patience})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	conn := dial(t, s)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	cancel()
	for refused := false; !refused; { // bounded by the test's own limit; the listener closes first
		c, err := net.Dial("tcp", s.Addr().String())
		if refused = err != nil; !refused {
			_ = c.Close()
		}
	}
	select {
	case err := <-ran:
		t.Fatalf("run returned %v while a request was in progress", err)
	default:
	}
	close(leave)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("the request in progress got no answer: %v", err)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "done" {
		t.Errorf("got %q, want the whole answer", body)
	}
	if err := <-ran; err != nil {
		t.Errorf("run: got %v, want nil", err)
	}
}

func TestDrainIsBounded(t *testing.T) {
	entered := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done() // a request that only the end of its connection ends
	})
	s, err := listen.Open(listen.Options{Address: "127.0.0.1:0", Handler: handler, Drain: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	conn := dial(t, s)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	cancel()
	select {
	case err := <-ran:
		if err != nil {
			t.Errorf("run: got %v, want nil", err)
		}
	case <-time.After(patience):
		t.Fatal("run did not end")
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("got %d bytes, want a cut connection", n)
	}
}

func TestConnectionsWaitAboveTheCap(t *testing.T) {
	s, _ := start(t, listen.Options{MaxConns: 1})
	first := dial(t, s)
	ask := func(conn net.Conn) {
		t.Helper()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	answered := func(conn net.Conn) {
		t.Helper()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("got %v, %v, want 200", resp, err)
		}
	}
	ask(first)
	answered(first)
	second := dial(t, s)
	ask(second)
	if err := second.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := second.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %d bytes and %v while the cap was reached, want to wait", n, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	answered(second)
}

func TestSlowClientsAreCut(t *testing.T) {
	s, _ := start(t, listen.Options{
		ReadHeaderTimeout: 100 * time.Millisecond, ReadTimeout: 200 * time.Millisecond, IdleTimeout: 100 * time.Millisecond,
	})
	for name, raw := range map[string]string{
		"silent from the start":  "",
		"slow headers":           "POST / HTTP/1.1\r\nHost: localhost\r\nX-A:",
		"slow body":              "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nslow",
		"slow chunks":            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
		"idle between requests":  "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"half a request behind":  "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT",
		"no body after continue": "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, s)
			if _, err := io.WriteString(conn, raw); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection was still open, want it cut")
			}
		})
	}
	t.Run("a good request is not disturbed", func(t *testing.T) {
		got := exchange(t, s, "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if len(got) != 1 || got[0].StatusCode != http.StatusOK {
			t.Errorf("got %v, want one 200", got)
		}
	})
}

func TestClientThatNeverReadsIsCut(t *testing.T) {
	ended := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 1<<20)
		for range 1000 { // more than any socket buffer holds
			if _, err := w.Write(block); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	})
	s, _ := start(t, listen.Options{Handler: handler, WriteTimeout: 100 * time.Millisecond})
	conn := dial(t, s)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the whole answer was written, want it cut")
		}
	case <-time.After(patience):
		t.Error("the handler still writes, want it cut")
	}
}
