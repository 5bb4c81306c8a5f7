package egress_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

const farHost = "hooks.example.test"

// farEnd is what a test sends to: an address of its own on the real loopback, and an authority for its certificates.
type farEnd struct {
	addr   netip.Addr
	ca     *receiver.CA
	secret string
}

func newFarEnd(t testing.TB) *farEnd {
	t.Helper()
	ca, err := receiver.NewCA("egress test")
	if err != nil {
		t.Fatal(err)
	}
	pid := os.Getpid() // so that two runs at a time do not meet
	return &farEnd{addr: netip.AddrFrom4([4]byte{127, 77, byte(pid >> 8), byte(pid)}), ca: ca, secret: sign.NewSecret()}
}

func (f *farEnd) listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(f.addr, 443).String())
	if err != nil {
		t.Fatalf("listen (port 443 needs root or CAP_NET_BIND_SERVICE): %v", err)
	}
	once := onceListener{l, sync.OnceValue(l.Close)}
	t.Cleanup(func() { once.Close() })
	return once
}

// onceListener is a listener whose address is free when Close returns. A second Close of net's own returns at once, while
// the first may still be on its way.
type onceListener struct {
	net.Listener
	close func() error
}

func (l onceListener) Close() error { return l.close() }

func (f *farEnd) issue(t testing.TB, hosts ...string) tls.Certificate {
	t.Helper()
	cert, err := f.ca.Issue(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// receive runs a receiver until the end of the test.
func (f *farEnd) receive(t testing.TB, http1 bool) *receiver.Receiver {
	t.Helper()
	r := &receiver.Receiver{Listener: f.listen(t), Certificate: f.issue(t, farHost), Secret: f.secret, HTTP1: http1}
	run(t, r.Run)
	return r
}

// serve runs a handler of the test's own.
func (f *farEnd) serve(t testing.TB, http1 bool, h http.HandlerFunc) {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(!http1)
	server := &http.Server{
		Handler: h, Protocols: protocols, TLSConfig: &tls.Config{Certificates: []tls.Certificate{f.issue(t, farHost)}},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	l := f.listen(t)
	run(t, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { server.Close() })()
		if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

// talk serves raw connections, one after the other.
func (f *farEnd) talk(t testing.TB, config *tls.Config, each func(net.Conn)) {
	t.Helper()
	l := f.listen(t)
	run(t, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { l.Close() })()
		for {
			c, err := l.Accept()
			if err != nil {
				return nil // the end of the test
			}
			if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				return err
			}
			plain := c
			stop := context.AfterFunc(ctx, func() { plain.Close() })
			if config != nil {
				c = tls.Server(c, config)
			}
			each(c)
			stop()
			c.Close()
		}
	})
}

func (f *farEnd) tlsConfig(t testing.TB, protocols ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{f.issue(t, farHost)}, NextProtos: protocols}
}

// run runs f until the end of the test, and waits for it.
func run(t testing.TB, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("far end: %v", err)
		}
	})
}

// dialer reaches the far end through the guard.
func (f *farEnd) dialer() *guard.Dialer {
	return &guard.Dialer{
		Allow:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Resolve: map[string]netip.Addr{farHost: f.addr},
	}
}

func (f *farEnd) transport(t testing.TB, d *guard.Dialer) *http.Transport {
	tr := guard.NewTransport(guard.TransportOptions{Dialer: d, RootCAs: f.ca.Pool()})
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// sender makes a Sender for the far end; change alters its options.
func (f *farEnd) sender(t testing.TB, change func(*egress.Options)) *egress.Sender {
	t.Helper()
	standard, err := sign.NewStandard([]string{f.secret})
	if err != nil {
		t.Fatal(err)
	}
	o := egress.Options{
		URL:      parseURL(t, "https://"+farHost+"/hook"),
		Signers:  []sign.Signer{standard},
		Timeout:  10 * time.Second,
		Messages: messages{},
	}
	if change != nil {
		change(&o)
	}
	if o.Transport == nil {
		o.Transport = f.transport(t, f.dialer())
	}
	s, err := egress.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parseURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := guard.ParseURL(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// messages is a store that has every message: its body is fixed, or says which message it is.
type messages struct {
	body        []byte
	contentType string
	err         error
}

func (m messages) Load(_ context.Context, id store.MessageID) (store.Message, []byte, error) {
	if m.err != nil {
		return store.Message{}, nil, m.err
	}
	body := m.body
	if body == nil {
		body = fmt.Appendf(nil, `{"id":%q}`, id)
	}
	return store.Message{ID: id, ContentType: m.contentType, Size: len(body)}, body, nil
}

func newDelivery(t testing.TB) store.Delivery {
	t.Helper()
	id, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	return store.Delivery{ID: id.Delivery(0), Destination: "far", State: store.Pending, Round: 1}
}

// check compares what every attempt has.
func check(t testing.TB, a store.Attempt, class store.Class, status int) {
	t.Helper()
	if a.Class != class || a.Status != status {
		t.Errorf("got %v %d (%s), want %v %d", a.Class, a.Status, a.Error, class, status)
	}
	if (a.Error == "") != (class == store.ClassOK) {
		t.Errorf("got error text %q with class %v", a.Error, a.Class)
	}
	if a.Took <= 0 || a.StartedAt.IsZero() || a.Number < 1 {
		t.Errorf("got took %v, started at %v, number %d, want all to be set", a.Took, a.StartedAt, a.Number)
	}
}
