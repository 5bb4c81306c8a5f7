package listen_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/listen"
)

// TestFaultIdleConnectionsMakeRoom holds that connections which ask for nothing keep nobody out, and that those which are
// in the middle of a request are never ended for others.
func TestFaultIdleConnectionsMakeRoom(t *testing.T) {
	const conns = 8
	entered, leave := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-leave
		}
		_, _ = io.WriteString(w, "done")
	})
	// Without room being made, all waits would last for the minute that idle connections have.
	s, _ := start(t, listen.Options{Handler: handler, MaxConns: conns, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute})
	ask := func(conn net.Conn, path string) {
		t.Helper()
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
	}
	answered := func(conn net.Conn) error {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if err == nil && string(body) != "done" {
			err = fmt.Errorf("answered %q", body)
		}
		return err
	}
	busy := dial(t, s)
	ask(busy, "/slow")
	<-entered
	var idle []net.Conn // half of them have never asked for anything, the others are between two requests
	for n := range conns - 1 {
		conn := dial(t, s)
		if n%2 == 0 {
			ask(conn, "/")
			if err := answered(conn); err != nil {
				t.Fatal(err)
			}
		}
		idle = append(idle, conn)
	}
	for range 2 * conns {
		conn := dial(t, s)
		ask(conn, "/")
		if err := answered(conn); err != nil {
			t.Fatalf("with all places taken by idle connections: %v", err)
		}
		idle = append(idle, conn)
	}
	ended := 0
	for _, conn := range idle {
		if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			ended++
		}
	}
	if want := len(idle) - (conns - 1); ended < want || ended > want+1 { // one more if a place was just made free
		t.Errorf("%d of %d idle connections were ended, want %d", ended, len(idle), want)
	}
	close(leave)
	if err := answered(busy); err != nil {
		t.Errorf("the request in progress: %v", err)
	}
	t.Attr("fault", fmt.Sprintf("resources: all %d places taken by idle connections, %d more asked and were answered, %d idle ones ended for them, the request in progress unharmed",
		conns, 2*conns, ended))
}
