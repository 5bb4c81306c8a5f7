package guard_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/guard"
)

func TestProxy(t *testing.T) {
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, host, time.Now().Add(time.Hour))}}
	t.Run("it is asked for the judged address, and TLS verifies the name", func(t *testing.T) {
		r, p := serve(t, config.Clone(), ok), serveProxy(t, nil, nil)
		o := r.options(ca.pool)
		o.Dialer.Proxy = p.use(t)
		c := newClient(t, o)
		for range 3 {
			if _, body, err := get(t, c, "https://h.example/x"); err != nil || body != "HTTP/2.0 h.example" {
				t.Fatalf("got %q, %v; want an answer by HTTP/2", body, err)
			}
		}
		if got, want := p.targets(), r.addr.String()+":443"; got != want {
			t.Errorf("got targets %q, want %q", got, want)
		}
		if h := p.headers[0]; len(h) != 0 {
			t.Errorf("got headers %v, want none", h)
		}
	})
	t.Run("a certificate for another name does not pass", func(t *testing.T) {
		r := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "x.example", time.Now().Add(time.Hour))}}, ok)
		o := r.options(ca.pool)
		o.Dialer.Proxy = serveProxy(t, nil, nil).use(t)
		_, _, err := get(t, newClient(t, o), "https://h.example/")
		if err == nil || !strings.Contains(err.Error(), "not h.example") || r.requests.Load() != 0 {
			t.Errorf("got %v and %d requests, want an error and none", err, r.requests.Load())
		}
	})
	t.Run("user name and password are sent, decoded", func(t *testing.T) {
		r, p := serve(t, config.Clone(), ok), serveProxy(t, nil, nil)
		o := r.options(ca.pool)
		o.Dialer.Proxy = parseProxy(t, "http://us%40er:p%3Aass:w%25@"+p.Addr().String())
		if _, _, err := get(t, newClient(t, o), "https://h.example/x"); err != nil {
			t.Fatal(err)
		}
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("us@er:p:ass:w%"))
		if got := p.headers[0].Get("Proxy-Authorization"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("an https proxy is verified, with roots of its own", func(t *testing.T) {
		own := newAuthority(t)
		r := serve(t, config.Clone(), ok)
		p := serveProxy(t, &tls.Config{Certificates: []tls.Certificate{own.issue(t, "proxy.example", time.Now().Add(time.Hour))}}, nil)
		local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		try := func(name string, change func(*guard.Proxy)) error {
			o := r.options(ca.pool)
			_, port, _ := net.SplitHostPort(p.Addr().String())
			o.Dialer.Proxy = parseProxy(t, "https://"+name+":"+port)
			o.Dialer.Resolve["proxy.example"], o.Dialer.Resolve["other.example"] = local, local
			change(o.Dialer.Proxy)
			_, _, err := get(t, newClient(t, o), "https://h.example/")
			return err
		}
		trust := func(p *guard.Proxy) { p.RootCAs = own.pool }
		if err := try("proxy.example", trust); err != nil {
			t.Errorf("got %v, want none", err)
		}
		wantProxyError(t, try("other.example", trust), "TLS handshake")
		wantProxyError(t, try("proxy.example", func(p *guard.Proxy) { p.RootCAs = ca.pool }), "unknown authority")
		wantProxyError(t, try("proxy.example", func(*guard.Proxy) {}), "unknown authority")
		if got, want := p.targets(), r.addr.String()+":443"; got != want {
			t.Errorf("got targets %q, want %q", got, want)
		}
	})
	t.Run("injected hosts do not go through it", func(t *testing.T) {
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		p := serveProxy(t, nil, nil)
		d := &guard.Dialer{Proxy: p.use(t), Inject: map[string]func(context.Context) (net.Conn, error){
			host: func(context.Context) (net.Conn, error) { return near, nil },
		}}
		if conn, err := d.DialContext(t.Context(), "tcp", "h.example:443"); err != nil || conn != near {
			t.Errorf("got %v, %v; want the injected connection", conn, err)
		}
		if got := p.targets(); got != "" {
			t.Errorf("got targets %q, want none", got)
		}
	})
}

func TestProxyIsNoWayAroundTheGuard(t *testing.T) {
	private := listen443(t)
	p := serveProxy(t, nil, nil)
	tests := []struct {
		name, address, names, host, reason string
	}{
		{"a name that resolves inward", "h.example:443", private.addr.String(), "h.example", "loopback"},
		{"mixed answers", "h.example:443", "8.8.8.8 " + private.addr.String(), "h.example", "loopback"},
		{"a private address", private.addr.String() + ":443", "8.8.8.8", private.addr.String(), "loopback"},
		{"metadata", "169.254.169.254:443", "8.8.8.8", "169.254.169.254", "nothing opens it"},
		{"another port", "h.example:8443", "8.8.8.8", "h.example", "port 8443 is not 443"},
		{"an odd spelling", "0x7f.1:443", "8.8.8.8", "0x7f.1", "odd spelling"},
	}
	for _, tt := range tests {
		t.Run(tt.name+" is refused", func(t *testing.T) {
			wantBlocked(t, dial(t, &guard.Dialer{Proxy: p.use(t), Resolver: resolver(t, tt.names)}, tt.address), tt.host, tt.reason)
		})
	}
	t.Run("our own listener is refused", func(t *testing.T) {
		d := &guard.Dialer{
			Proxy: p.use(t), Allow: open(private.addr), Resolver: resolver(t, private.addr.String()),
			Own: func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:443")} },
		}
		wantBlocked(t, dial(t, d, "h.example:443"), "h.example", "Postern itself listens there")
	})
	if got := p.targets(); got != "" {
		t.Errorf("the proxy was asked for %q", got)
	}
	private.checkUntouched(t)
}

func TestProxyAddress(t *testing.T) {
	l := listen443(t)
	p := serveProxy(t, nil, nil)
	_, port, _ := net.SplitHostPort(p.Addr().String())
	through := func(proxyNames string, own string) (*answers, error) {
		names := resolver(t, proxyNames)
		d := &guard.Dialer{
			Allow: open(l.addr), Resolve: map[string]netip.Addr{host: l.addr}, Resolver: names,
			Proxy: parseProxy(t, "http://proxy.example:"+port), Deny: open(netip.MustParseAddr("127.0.0.1")),
		}
		if own != "" {
			d.Own = func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(own)} }
		}
		return names, dial(t, d, "h.example:443")
	}
	t.Run("it may be anywhere, whatever is denied to targets", func(t *testing.T) {
		names, err := through("127.0.0.1", "127.0.0.1:1")
		if err != nil {
			t.Errorf("got %v, want none", err)
		}
		if got := strings.Join(names.asked, " "); got != "ip proxy.example" {
			t.Errorf("got look-ups %q, want one of the proxy", got)
		}
	})
	for _, tt := range []struct{ name, names, own, want string }{
		{"a name that resolves to metadata is refused", "169.254.169.254", "", "nothing opens it"},
		{"one such address among others is enough", "127.0.0.1 fe80::1", "", "nothing opens it"},
		{"an unspecified address is refused", "0.0.0.0", "", "nothing opens it"},
		{"a mapped one as well", "::ffff:169.254.1.1", "", "nothing opens it"},
		{"our own listener is refused", "127.0.0.1", "127.0.0.1:" + port, "Postern itself listens there"},
		{"our own listener on all addresses is refused", "127.0.0.1", "[::]:" + port, "Postern itself listens there"},
		{"too many addresses are refused", strings.Repeat("10.0.0.1 ", 33), "", "33 addresses"},
		{"no address is an error of the proxy", "", "", "find its address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := through(tt.names, tt.own)
			wantProxyError(t, err, tt.want)
		})
	}
	t.Run("what is really dialled is judged again", func(t *testing.T) {
		asked, before := 0, p.targets()
		d := &guard.Dialer{
			Allow: open(l.addr), Resolver: resolver(t, l.addr.String()), Proxy: p.use(t),
			Own: func() []netip.AddrPort { // asked for the target, for the proxy, and when its socket is made
				if asked++; asked < 3 {
					return nil
				}
				return []netip.AddrPort{netip.MustParseAddrPort(p.Addr().String())}
			},
		}
		wantProxyError(t, dial(t, d, "h.example:443"), "Postern itself listens there")
		if got := p.targets(); got != before {
			t.Errorf("the proxy was asked: got targets %q, want %q", got, before)
		}
	})
	t.Run("a closed port is an error of the proxy", func(t *testing.T) {
		closed, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		closed.Close()
		d := &guard.Dialer{Allow: open(l.addr), Resolver: resolver(t, l.addr.String()), Proxy: parseProxy(t, "http://"+closed.Addr().String())}
		wantProxyError(t, dial(t, d, "h.example:443"), "connection refused")
	})
}

func TestProxyAnswers(t *testing.T) {
	first, second := listen443(t), listen443(t)
	through := func(t *testing.T, p *connectProxy, timeout time.Duration) error {
		d := &guard.Dialer{
			Allow: open(first.addr, second.addr), Resolver: resolver(t, first.addr.String()+" "+second.addr.String()),
			Proxy: parseProxy(t, "http://user:s3cret@"+p.Addr().String()), Timeout: timeout,
		}
		return dial(t, d, "h.example:443")
	}
	both := first.addr.String() + ":443 " + second.addr.String() + ":443"
	one := first.addr.String() + ":443"
	t.Run("an answer in pieces, with interim ones before it, is read", func(t *testing.T) {
		p := serveProxy(t, nil, func(int, string) string { return "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204\nX: y\n\n" })
		if err := through(t, p, 0); err != nil {
			t.Errorf("got %v, want none", err)
		}
	})
	for _, tt := range []struct {
		name, answer, want string
		status             int
		targets            string
	}{
		{"502 lets the next address be tried", "HTTP/1.1 502 s3cret\r\n\r\n", "answered 502 Bad Gateway to CONNECT " + one, 502, both},
		{"403 does as well", "HTTP/1.1 403 No\r\nContent-Length: 6\r\n\r\ns3cret", "answered 403 Forbidden", 403, both},
		{"302 is followed nowhere", "HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\n\r\n", "answered 302 Found", 302, both},
		{"a status without a name is shown as a number", "HTTP/1.1 599 s3cret\r\n\r\n", "answered 599 to CONNECT", 599, both},
		{"101 is no tunnel", "HTTP/1.1 101 s3cret\r\n\r\n", "answered 101 Switching Protocols", 101, both},
		{"407 ends it all, and says what to do", "HTTP/1.1 407 s3cret\r\nProxy-Authenticate: Basic\r\n\r\n", "write its user name and password in egress.proxy", 407, one},
		{"bytes behind the answer are refused", "HTTP/1.1 200 OK\r\n\r\ns3cret", "wrote more than its answer", 0, one},
		{"what is not HTTP is refused", "SSH-2.0-s3cret\r\n\r\n", "is not HTTP/1", 0, one},
		{"HTTP/2 is refused", "HTTP/2 200 s3cret\r\n\r\n", "is not HTTP/1", 0, one},
		{"an endless header is cut", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: s3cret\r\n", 1000), "longer than 8192 bytes", 0, one},
		{"endless interim answers are cut", strings.Repeat("HTTP/1.1 103 s3cret\r\n\r\n", 1000), "longer than 8192 bytes", 0, one},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serveProxy(t, nil, func(int, string) string { return tt.answer })
			err := through(t, p, 0)
			if got := wantProxyError(t, err, tt.want).Status; got != tt.status {
				t.Errorf("got status %d, want %d", got, tt.status)
			}
			if got := p.targets(); got != tt.targets {
				t.Errorf("got targets %q, want %q", got, tt.targets)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error quotes the answer or the credentials: %v", err)
			}
		})
	}
	t.Run("407 is what is told, although it ends another dial", func(t *testing.T) {
		p := serveProxy(t, nil, func(_ int, target string) string {
			if target == "[::1]:443" {
				return "HTTP/1.1 407 No\r\n\r\n"
			}
			return "HTTP/1.1 " // and no more
		})
		d := &guard.Dialer{
			Allow: open(first.addr, netip.IPv6Loopback()), Resolver: resolver(t, first.addr.String()+" ::1"), Proxy: p.use(t),
		}
		if got := wantProxyError(t, dial(t, d, "h.example:443"), "answered 407").Status; got != 407 {
			t.Errorf("got status %d, want 407", got)
		}
	})
	t.Run("the next address may succeed", func(t *testing.T) {
		p := serveProxy(t, nil, func(n int, _ string) string {
			if n == 1 {
				return "HTTP/1.1 504 Gateway Timeout\r\n\r\n"
			}
			return ""
		})
		if err := through(t, p, 0); err != nil || p.targets() != both {
			t.Errorf("got %v for %q, want none", err, p.targets())
		}
	})
	t.Run("a connection that is closed without an answer is an error of the proxy", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		done := make(chan error, 1)
		go func() {
			conn, err := l.Accept()
			if err == nil {
				conn.Read(make([]byte, 1000))
				io.WriteString(conn, "HTTP/1.1 200")
				err = conn.Close()
			}
			done <- err
		}()
		wantProxyError(t, through(t, &connectProxy{Listener: l}, 0), "closed the connection before its answer had ended")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a proxy that never answers ends with the dialer's time", func(t *testing.T) {
		p := serveProxy(t, nil, func(int, string) string { return "HTTP/1.1 200" })
		err := through(t, p, 50*time.Millisecond)
		wantProxyError(t, err, "no answer in time")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline in its chain", err)
		}
	})
	t.Run("a proxy whose handshake stalls ends with the dialer's time", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d := &guard.Dialer{
			Allow: open(first.addr), Resolver: resolver(t, first.addr.String()), Timeout: 50 * time.Millisecond,
			Proxy: parseProxy(t, "https://"+l.Addr().String()),
		}
		wantProxyError(t, dial(t, d, "h.example:443"), "TLS handshake: no answer in time")
	})
	t.Run("the end of the context ends it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := serveProxy(t, nil, func(int, string) string { cancel(); return "HTTP/1.1 " })
		d := &guard.Dialer{Allow: open(first.addr), Resolver: resolver(t, first.addr.String()), Proxy: p.use(t)}
		if _, err := d.DialContext(ctx, "tcp", "h.example:443"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want canceled", err)
		}
	})
}

func TestProxyTrace(t *testing.T) {
	l := listen443(t)
	p := serveProxy(t, nil, nil)
	_, port, _ := net.SplitHostPort(p.Addr().String())
	var got []string
	note := func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		DNSStart:     func(i httptrace.DNSStartInfo) { note("dns %s", i.Host) },
		DNSDone:      func(i httptrace.DNSDoneInfo) { note("dns done") },
		ConnectStart: func(network, addr string) { note("connect %s %s", network, addr) },
		ConnectDone:  func(network, addr string, err error) { note("connected %s %s %v", network, addr, err) },
	})
	d := &guard.Dialer{
		Allow: open(l.addr), Resolver: resolver(t, l.addr.String(), "127.0.0.1"), Proxy: parseProxy(t, "http://proxy.example:"+port),
	}
	conn, err := d.DialContext(ctx, "tcp", "h.example:443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := fmt.Sprintf("dns h.example|dns done|connect tcp %[1]s:443|connected tcp %[1]s:443 <nil>", l.addr)
	if got := strings.Join(got, "|"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := conn.RemoteAddr().String(), l.addr.String()+":443"; got != want {
		t.Errorf("RemoteAddr: got %s, want %s", got, want)
	}
}
