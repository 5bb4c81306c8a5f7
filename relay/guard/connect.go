package guard

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// maxConnectAnswer bounds what a proxy may answer to CONNECT, in bytes.
const maxConnectAnswer = 8 << 10

// through makes connections to the judged addresses of one target through the proxy, which is asked for the address
// and never for the name: were the name resolved once more over there, nobody would judge what comes out.
//
//	target name ─► look up ─► Judge each address ─► proxy ─► CONNECT address:443 ─► TLS with the name
type through struct {
	d     *Dialer
	proxy *Proxy
	addrs []netip.Addr // of the proxy
	stop  func(error)  // ends all dials, when the proxy has no use for another address either
}

// dialThrough is race by way of the proxy.
func (d *Dialer) dialThrough(ctx context.Context, addrs []netip.Addr) (net.Conn, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	t := &through{d: d, proxy: d.Proxy, stop: stop}
	var err error
	// What is traced is the way to the target: to it belong a look-up and a connection, and both only once.
	if t.addrs, err = d.proxyAddrs(untraced{ctx}); err != nil {
		return nil, err
	}
	conn, err := race(ctx, addrs, t.dial)
	// A dial that was stopped knows less than the one that stopped it.
	if own, ok := errors.AsType[*ProxyError](context.Cause(ctx)); err != nil && ok {
		return nil, own
	}
	return conn, err
}

// untraced is a context without the values of its parent, among which are the hooks of httptrace.
type untraced struct{ context.Context }

func (untraced) Value(any) any { return nil }

// proxyAddrs returns the judged addresses of the proxy.
func (d *Dialer) proxyAddrs(ctx context.Context) ([]netip.Addr, error) {
	p := d.Proxy
	addrs := []netip.Addr{p.addr}
	if !p.addr.IsValid() {
		var err error
		if addrs, err = d.lookUp(ctx, p.host); err != nil {
			return nil, p.failed("find its address", withoutBlock(err))
		}
	}
	for _, addr := range addrs {
		if err := d.judgeProxy(addr); err != nil {
			return nil, err
		}
	}
	return addrs, nil
}

// withoutBlock keeps errors about the proxy's addresses from being taken for a refusal of the target.
func withoutBlock(err error) error {
	if blocked, ok := errors.AsType[*BlockedError](err); ok {
		return errors.New(blocked.Error())
	}
	return err
}

// judgeProxy applies what remains of the address rule for a proxy, and the rule against loops.
func (d *Dialer) judgeProxy(addr netip.Addr) error {
	addr = addr.Unmap()
	reason := judgeProxy(addr)
	if reason == "" && d.Own != nil && isOwn(netip.AddrPortFrom(addr, d.Proxy.port), d.Own()) {
		reason = "Postern itself listens there"
	}
	if reason == "" {
		return nil
	}
	return &ProxyError{Proxy: d.Proxy.hostPort(), Reason: fmt.Sprintf("address %s is not allowed: %s", addr, reason)}
}

// dial makes a tunnel to one address of the target.
func (t *through) dial(ctx context.Context, addr netip.Addr) (net.Conn, error) {
	target := netip.AddrPortFrom(addr, t.d.targetPort())
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.ConnectStart != nil {
		trace.ConnectStart("tcp", target.String())
	}
	conn, err := t.tunnel(untraced{ctx}, target)
	if trace != nil && trace.ConnectDone != nil {
		trace.ConnectDone("tcp", target.String(), err)
	}
	if err != nil {
		return nil, err
	}
	return &tunnelConn{conn, net.TCPAddrFromAddrPort(target)}, nil
}

// tunnelConn is a connection whose peer is the target, not the proxy.
type tunnelConn struct {
	net.Conn
	target net.Addr
}

func (c *tunnelConn) RemoteAddr() net.Addr { return c.target }

func (t *through) tunnel(ctx context.Context, target netip.AddrPort) (net.Conn, error) {
	conn, err := race(ctx, t.addrs, t.reach)
	if err != nil {
		return nil, t.give(ctx, t.proxy.failed("connect", err))
	}
	if t.proxy.secure {
		secure := tls.Client(conn, &tls.Config{
			ServerName: t.proxy.host, RootCAs: t.proxy.RootCAs, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		})
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // the handshake failed
			return nil, t.give(ctx, t.proxy.failed("TLS handshake", err))
		}
		conn = secure
	}
	status, err := ask(ctx, conn, t.proxy.request(target))
	switch {
	case err != nil:
		err = t.give(ctx, t.proxy.failed("ask for "+target.String(), err))
	case status < 200 || status > 299:
		err = t.proxy.refused(status, target)
		if status == http.StatusProxyAuthRequired {
			err = t.give(ctx, err)
		}
	}
	if err != nil {
		_ = conn.Close() // no tunnel
		return nil, err
	}
	return conn, nil
}

// give ends all dials with err, which is about the proxy and no single target, and returns it. An error that is our
// own end of time or of interest says nothing about the others.
func (t *through) give(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		t.stop(err)
	}
	return err
}

// reach connects to one address of the proxy.
func (t *through) reach(ctx context.Context, addr netip.Addr) (net.Conn, error) {
	want := netip.AddrPortFrom(addr, t.proxy.port)
	dialer := net.Dialer{
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			if got, err := netip.ParseAddrPort(address); err != nil || got.Port() != want.Port() {
				return errors.New("what is dialled is not the proxy's port")
			} else {
				return t.d.judgeProxy(got.Addr())
			}
		},
	}
	return dialer.DialContext(ctx, "tcp", want.String())
}

// request returns the bytes that ask for a tunnel.
func (p *Proxy) request(target netip.AddrPort) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n", target)
	if p.basic != nil {
		fmt.Fprintf(&b, "Proxy-Authorization: %s\r\n", *p.basic)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// refused says what an answer without a tunnel means.
func (p *Proxy) refused(status int, target netip.AddrPort) *ProxyError {
	reason := fmt.Sprintf("answered %d", status)
	if name := http.StatusText(status); name != "" {
		reason += " " + name // the standard name: what the proxy wrote there is anyone's text
	}
	reason += " to CONNECT " + target.String()
	if status == http.StatusProxyAuthRequired {
		reason += "; write its user name and password in egress.proxy"
	}
	return &ProxyError{Proxy: p.hostPort(), Status: status, Reason: reason}
}

// ask writes the request and returns the status of the answer. It ends when ctx does.
func ask(ctx context.Context, conn net.Conn, request []byte) (int, error) {
	interrupt := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	status, err := func() (int, error) {
		if _, err := conn.Write(request); err != nil {
			return 0, err
		}
		return readAnswer(conn)
	}()
	if !interrupt() {
		return 0, context.Cause(ctx) // the deadline may be set at any moment now
	}
	return status, err
}

// Faults of an answer.
var (
	errAnswerSize = fmt.Errorf("its answer is longer than %d bytes", maxConnectAnswer)
	errAnswerHTTP = errors.New("its answer is not HTTP/1; name a proxy that supports CONNECT")
	errAnswerEnd  = errors.New("it closed the connection before its answer had ended")
	errAnswerMore = errors.New("it wrote more than its answer before anything was sent through the tunnel")
)

// readAnswer reads the header of the answer to CONNECT and returns its status, from 200 to 599 or 101: other interim
// answers (RFC 9110, section 15.2) are passed over. All of them together have at most maxConnectAnswer bytes, and
// behind a success nothing may follow, since in TLS it is for us to speak first.
func readAnswer(r io.Reader) (int, error) {
	buffer := make([]byte, 0, maxConnectAnswer)
	for begin := 0; ; {
		end := headerEnd(buffer[begin:])
		if end == 0 {
			if len(buffer) == cap(buffer) {
				return 0, errAnswerSize
			}
			n, err := r.Read(buffer[len(buffer):cap(buffer)])
			buffer = buffer[:len(buffer)+n]
			switch {
			case n > 0: // an error comes again
			case errors.Is(err, io.EOF):
				return 0, errAnswerEnd
			case err != nil:
				return 0, err
			}
			continue
		}
		status, ok := readStatus(buffer[begin : begin+end])
		begin += end
		switch {
		case !ok:
			return 0, errAnswerHTTP
		case status < 200 && status != http.StatusSwitchingProtocols:
		case status < 300 && len(buffer) > begin:
			return 0, errAnswerMore
		default:
			return status, nil
		}
	}
}

// headerEnd returns the length of the header that b begins with, its empty line included, or 0 if that has not come
// yet. A line may end without CR (RFC 9112, section 2.2).
func headerEnd(b []byte) int {
	for i := 0; i < len(b); i++ {
		line := bytes.IndexByte(b[i:], '\n')
		if line < 0 {
			return 0
		}
		i += line
		if rest := b[i+1:]; bytes.HasPrefix(rest, []byte("\n")) {
			return i + 2
		} else if bytes.HasPrefix(rest, []byte("\r\n")) {
			return i + 3
		}
	}
	return 0
}

// readStatus reads the status line of a header (RFC 9112, section 4).
func readStatus(header []byte) (status int, ok bool) {
	const form = "HTTP/1.1 200"
	if len(header) <= len(form) || !bytes.HasPrefix(header, []byte("HTTP/1.")) || header[8] != ' ' ||
		header[7] != '0' && header[7] != '1' {
		return 0, false
	}
	switch header[len(form)] {
	case ' ', '\r', '\n':
	default:
		return 0, false
	}
	code := header[9:len(form)]
	for _, c := range code {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	status, _ = strconv.Atoi(string(code)) // three digits
	return status, status >= 100 && status <= 599
}
