package guard_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/guard"
)

// connectProxy is a real proxy on a port of its own. It notes what it is asked and tunnels, unless answer says
// otherwise.
type connectProxy struct {
	net.Listener
	answer func(n int, target string) string // what to write instead of tunnelling; empty tunnels

	mu      sync.Mutex // guards the fields below
	asked   []string   // targets
	headers []http.Header
}

// serveProxy starts a proxy, with TLS if config is not nil.
func serveProxy(tb testing.TB, config *tls.Config, answer func(n int, target string) string) *connectProxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	p := &connectProxy{Listener: l, answer: answer}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the end of the test
			}
			group.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				p.tunnel(conn)
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return p
}

func (p *connectProxy) tunnel(conn net.Conn) {
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil || req.Method != http.MethodConnect || req.Host != req.RequestURI {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, req.RequestURI)
	p.headers = append(p.headers, req.Header)
	n := len(p.asked)
	p.mu.Unlock()
	if p.answer != nil {
		if text := p.answer(n, req.RequestURI); text != "" {
			io.WriteString(conn, text)
			io.Copy(io.Discard, conn) // until the client has had enough
			return
		}
	}
	out, err := net.Dial("tcp", req.RequestURI)
	if err != nil {
		return
	}
	defer out.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(out, conn)
		out.Close()
	}()
	io.Copy(conn, out)
	conn.Close()
	<-done
}

func (p *connectProxy) targets() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.asked, " ")
}

func parseProxy(tb testing.TB, text string) *guard.Proxy {
	tb.Helper()
	p, err := guard.ParseProxy(text)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func (p *connectProxy) use(tb testing.TB) *guard.Proxy {
	tb.Helper()
	return parseProxy(tb, "http://"+p.Addr().String())
}

// wantProxyError checks that err is about a proxy, in words that begin with its address, and is no refusal.
func wantProxyError(t *testing.T, err error, text string) *guard.ProxyError {
	t.Helper()
	failed, ok := errors.AsType[*guard.ProxyError](err)
	if !ok {
		t.Fatalf("got %v, want a *ProxyError", err)
	}
	if !strings.HasPrefix(failed.Error(), "proxy "+failed.Proxy+": ") || !strings.Contains(failed.Error(), text) {
		t.Errorf("got %q, want proxy %s and %q in it", failed.Error(), failed.Proxy, text)
	}
	if _, ok := errors.AsType[*guard.BlockedError](err); ok {
		t.Errorf("%v counts as a refusal of the target", err)
	}
	return failed
}
