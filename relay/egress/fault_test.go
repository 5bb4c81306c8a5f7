package egress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store"
)

// short is the time of attempts that are meant to run out of it, and long a bound for all others.
const (
	short = 500 * time.Millisecond
	long  = 8 * time.Second
)

func TestSendToFaultyReceiver(t *testing.T) {
	for _, http1 := range []bool{false, true} {
		name := map[bool]string{false: "HTTP/2", true: "HTTP/1.1"}[http1]
		f := newFarEnd(t)
		t.Run(name, func(t *testing.T) {
			r := f.receive(t, http1)
			for _, c := range []struct {
				name   string
				fault  receiver.Fault
				class  store.Class
				status int
				text   string
			}{
				{"503 asks for a pause", receiver.Fault{Kind: receiver.Status, RetryAfter: "120"}, store.ClassStatus, 503, "answered 503 Service Unavailable"},
				{"410", receiver.Fault{Kind: receiver.Status, Status: 410}, store.ClassStatus, 410, "answered 410 Gone"},
				{"404", receiver.Fault{Kind: receiver.Status, Status: 404}, store.ClassStatus, 404, "answered 404"},
				{"a status without a name", receiver.Fault{Kind: receiver.Status, Status: 599}, store.ClassStatus, 599, "answered 599"},
				{"a redirect is not followed", receiver.Fault{Kind: receiver.Redirect, Location: "https://" + farHost + "/elsewhere"}, store.ClassStatus, 307, "never followed"},
				{"a receiver that hangs", receiver.Fault{Kind: receiver.Hang}, store.ClassTimeout, 0, "no answer within 500ms; the time was over while waiting for the answer"},
				{"a reset before the body is read", receiver.Fault{Kind: receiver.ResetBefore}, store.ClassConnect, 0, ""},
				{"a reset after the body is read", receiver.Fault{Kind: receiver.ResetAfter}, store.ClassConnect, 0, ""},
				{"a body that breaks off is a success", receiver.Fault{Kind: receiver.CutBody}, store.ClassOK, 200, ""},
				{"a body without end is a success", receiver.Fault{Kind: receiver.HugeBody}, store.ClassOK, 200, ""},
				{"a dripping body is a success", receiver.Fault{Kind: receiver.Drip}, store.ClassOK, 200, ""},
				{"a huge header", receiver.Fault{Kind: receiver.HugeHeader}, store.ClassProtocol, 0, "too large"},
				{"a flood of interim answers", receiver.Fault{Kind: receiver.Flood}, store.ClassProtocol, 0, "too large"},
				{"a slow receiver in time", receiver.Fault{Kind: receiver.Slow, Delay: 20 * time.Millisecond}, store.ClassOK, 200, ""},
				{"a slow receiver too late", receiver.Fault{Kind: receiver.Slow, Delay: time.Minute}, store.ClassTimeout, 0, "no answer within"},
			} {
				t.Run(c.name, func(t *testing.T) {
					transport, timeout := f.transport(t, f.dialer()), long
					sender := func() *egress.Sender {
						return f.sender(t, func(o *egress.Options) { o.Transport, o.Timeout, o.KeepResponse = transport, timeout, 100 })
					}
					if c.class == store.ClassTimeout || c.fault.Kind == receiver.Drip {
						// On a busy machine a handshake may take all of a short time: have the connection ready.
						r.SetFault(receiver.Fault{})
						check(t, sender().Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
						timeout = short
					}
					r.SetFault(c.fault)
					s := sender()
					before := r.Stats().Requests
					a := s.Send(t.Context(), newDelivery(t))
					check(t, a, c.class, c.status)
					if !strings.Contains(a.Error, c.text) {
						t.Errorf("got %q, want %q in it", a.Error, c.text)
					}
					if a.Took >= long {
						t.Errorf("took %v", a.Took)
					}
					if got := r.Stats().Requests - before; got != 1 {
						t.Errorf("%d requests were made, want 1", got)
					}
					switch c.fault.Kind {
					case receiver.CutBody, receiver.HugeBody, receiver.Drip:
						if !a.Truncated || len(a.Body) == 0 || len(a.Body) > 100 {
							t.Errorf("got %d bytes, truncated %v, want some up to 100 and true", len(a.Body), a.Truncated)
						}
					case receiver.Status:
						if want := map[string]time.Duration{"120": 2 * time.Minute}[c.fault.RetryAfter]; a.RetryHint != want {
							t.Errorf("got retry hint %v, want %v", a.RetryHint, want)
						}
						if a.Header.Get("Content-Type") == "" || len(a.Body) == 0 || a.Truncated {
							t.Errorf("got header %v and body %q, want what was answered", a.Header, a.Body)
						}
					}
				})
			}
			t.Run("a good attempt follows all that", func(t *testing.T) {
				r.SetFault(receiver.Fault{})
				check(t, f.sender(t, nil).Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
			})
		})
	}
}

func TestSendToUntrusted(t *testing.T) {
	f := newFarEnd(t)
	past := time.Now().Add(-48 * time.Hour)
	expired, err := f.ca.IssueFor(past, past.Add(24*time.Hour), farHost)
	if err != nil {
		t.Fatal(err)
	}
	selfSigned, err := receiver.SelfSigned(farHost)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		config *tls.Config
		text   string
	}{
		{"an expired certificate", &tls.Config{Certificates: []tls.Certificate{expired}}, "certificate is valid from"},
		{"a certificate for another name", f.tlsConfig(t), "certificate is for another name"},
		{"a self-signed certificate", &tls.Config{Certificates: []tls.Certificate{selfSigned}}, "not signed by a trusted authority"},
		{"TLS 1.1", &tls.Config{Certificates: []tls.Certificate{f.issue(t, farHost)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.name, "another name") {
				c.config.Certificates = []tls.Certificate{f.issue(t, "elsewhere.example.test", "127.0.0.1")}
			}
			var sent atomic.Int64
			f.talk(t, c.config, func(conn net.Conn) {
				n, _ := conn.Read(make([]byte, 1)) // that the handshake fails is the point
				sent.Add(int64(n))
			})
			a := f.sender(t, nil).Send(t.Context(), newDelivery(t))
			check(t, a, store.ClassTLS, 0)
			if !strings.Contains(a.Error, c.text) {
				t.Errorf("got %q, want %q in it", a.Error, c.text)
			}
			if got := sent.Load(); got != 0 {
				t.Error("the receiver got a part of the request")
			}
		})
	}
	t.Run("a receiver without TLS", func(t *testing.T) {
		f.talk(t, nil, func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 1000))
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		})
		a := f.sender(t, nil).Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassTLS, 0)
		if !strings.Contains(a.Error, "does not speak TLS") {
			t.Errorf("got %q", a.Error)
		}
	})
	t.Run("a connection closed in the handshake", func(t *testing.T) {
		f.talk(t, nil, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1000)) })
		check(t, f.sender(t, nil).Send(t.Context(), newDelivery(t)), store.ClassTLS, 0)
	})
	t.Run("a stalled handshake", func(t *testing.T) {
		f.talk(t, nil, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		a := f.sender(t, func(o *egress.Options) { o.Timeout = short }).Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassTimeout, 0)
		if !strings.Contains(a.Error, "during the TLS handshake") {
			t.Errorf("got %q", a.Error)
		}
	})
}

func TestSendNowhere(t *testing.T) {
	f := newFarEnd(t)
	through := func(d *guard.Dialer) *egress.Sender {
		return f.sender(t, func(o *egress.Options) { o.Transport = f.transport(t, d) })
	}
	t.Run("connection refused", func(t *testing.T) {
		closed, err := net.Listen("tcp", netip.AddrPortFrom(f.addr, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		closed.Close()
		// Whether nothing listens on port 443 is not for this test to say.
		a := through(&guard.Dialer{Inject: map[string]func(context.Context) (net.Conn, error){
			farHost: func(ctx context.Context) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", closed.Addr().String())
			},
		}}).Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassConnect, 0)
		if !strings.Contains(a.Error, "connection refused") || a.Peer != "" {
			t.Errorf("got %q, peer %q", a.Error, a.Peer)
		}
	})
	t.Run("blocked by the guard", func(t *testing.T) {
		var accepted atomic.Bool
		f.talk(t, nil, func(net.Conn) { accepted.Store(true) })
		d := f.dialer()
		d.Allow = nil
		a := through(d).Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassBlocked, 0)
		if !strings.Contains(a.Error, f.addr.String()) || accepted.Load() {
			t.Errorf("got %q, connected %v, want the address and no connection", a.Error, accepted.Load())
		}
	})
	t.Run("no such name", func(t *testing.T) {
		a := through(&guard.Dialer{Resolver: lookup{err: &net.DNSError{Err: "x", Name: farHost, IsNotFound: true}}}).Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassDNS, 0)
		if !strings.Contains(a.Error, "no such host") {
			t.Errorf("got %q", a.Error)
		}
	})
	t.Run("a name server that hangs", func(t *testing.T) {
		s := f.sender(t, func(o *egress.Options) {
			o.Timeout, o.Transport = short, f.transport(t, &guard.Dialer{Resolver: lookup{hang: true}})
		})
		a := s.Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassTimeout, 0)
		if !strings.Contains(a.Error, "while resolving the name") {
			t.Errorf("got %q", a.Error)
		}
	})
	t.Run("a name server that is slower than a dial may be", func(t *testing.T) {
		a := through(&guard.Dialer{Resolver: lookup{hang: true}, Timeout: short}).Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassDNS, 0)
	})
	t.Run("the time of a look-up is told", func(t *testing.T) {
		f.receive(t, false)
		d := f.dialer()
		d.Resolve, d.Resolver = nil, lookup{addr: f.addr}
		a := through(d).Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassOK, 200)
		if a.Timing.DNS <= 0 {
			t.Errorf("got %+v, want the time of the look-up", a.Timing)
		}
	})
}

// lookup is a resolver.
type lookup struct {
	addr netip.Addr
	err  error
	hang bool
}

func (l lookup) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	if l.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return []netip.Addr{l.addr}, l.err
}

func TestSendToNoHTTP(t *testing.T) {
	f := newFarEnd(t)
	for _, c := range []struct {
		name, answer string
		class        store.Class
		status       int
		text         string
	}{
		{"another protocol", "220 mail.example ESMTP canary\r\n", store.ClassProtocol, 0, "first line is malformed"},
		{"a malformed header", "HTTP/1.1 200 OK\r\ncanary\r\n\r\n", store.ClassProtocol, 0, "malformed"},
		{"a malformed length", "HTTP/1.1 200 OK\r\nContent-Length: canary\r\n\r\n", store.ClassProtocol, 0, "length is malformed"},
		{"an unknown framing", "HTTP/1.1 200 OK\r\nTransfer-Encoding: canary\r\n\r\n", store.ClassProtocol, 0, "length is malformed"},
		{"an answer that ends in its header", "HTTP/1.1 200 OK\r\nX-Half: a\r\n", store.ClassConnect, 0, "closed by the receiver"},
		{"no answer", "", store.ClassConnect, 0, "closed by the receiver"},
		{"a header line without end", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 100<<10), store.ClassProtocol, 0, "too large"},
		{"another protocol on the connection", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nmore", store.ClassStatus, 101, "answered 101"},
		{"an unknown status", "HTTP/1.1 999 Odd canary\r\nContent-Length: 0\r\n\r\n", store.ClassStatus, 999, "answered 999"},
		{"a body shorter than told", "HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\nshort", store.ClassOK, 201, ""},
		{"a packed body is kept as sent", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08", store.ClassOK, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.talk(t, f.tlsConfig(t), func(conn net.Conn) {
				if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				_, _ = io.WriteString(conn, c.answer) // the sender may have left
			})
			a := f.sender(t, nil).Send(t.Context(), newDelivery(t))
			check(t, a, c.class, c.status)
			if !strings.Contains(a.Error, c.text) || strings.Contains(a.Error, "canary") {
				t.Errorf("got %q, want %q in it and nothing of the answer", a.Error, c.text)
			}
		})
	}
}

// TestSendIsOneRequest holds that net/http never sends a request a second time by itself.
func TestSendIsOneRequest(t *testing.T) {
	for _, c := range []struct{ name, method, body, header string }{
		{"POST", "POST", "x", "X-Any"},
		{"POST with an idempotency key", "POST", "x", "Idempotency-Key"},
		{"empty POST", "POST", "", "X-Any"},
		{"empty PUT", "PUT", "", "X-Any"},
		{"empty PATCH", "PATCH", "", "X-Any"},
		{"empty DELETE", "DELETE", "", "X-Any"},
		{"empty POST with an idempotency key", "POST", "", "Idempotency-Key"},
		{"empty PUT with an idempotency key", "PUT", "", "X-Idempotency-Key"},
		{"empty DELETE with an idempotency key", "DELETE", "", "x-idempotency-key"},
		{"GET", "GET", "", "X-Any"},
	} {
		t.Run(c.name+" on a kept connection that dies", func(t *testing.T) {
			f := newFarEnd(t)
			var requests atomic.Int64
			f.talk(t, f.tlsConfig(t), func(conn net.Conn) {
				reader := bufio.NewReader(conn)
				for n := 0; n < 2; n++ { // one is answered, and at the next the connection dies
					r, err := http.ReadRequest(reader)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					requests.Add(1)
					if n == 0 {
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				}
			})
			s := f.sender(t, func(o *egress.Options) {
				o.Method, o.Messages, o.Header = c.method, messages{body: []byte(c.body)}, []egress.Header{{Name: c.header, Value: "v"}}
			})
			check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
			a := s.Send(t.Context(), newDelivery(t))
			check(t, a, store.ClassConnect, 0)
			if !a.Reused || requests.Load() != 2 {
				t.Errorf("got reused %v and %d requests for two attempts", a.Reused, requests.Load())
			}
		})
	}
	for name, end := range map[string]func(*http2.Framer, uint32) error{
		"GOAWAY":         func(fr *http2.Framer, _ uint32) error { return fr.WriteGoAway(0, http2.ErrCodeNo, []byte("canary")) },
		"REFUSED_STREAM": func(fr *http2.Framer, id uint32) error { return fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
		"PROTOCOL_ERROR": func(fr *http2.Framer, id uint32) error { return fr.WriteRSTStream(id, http2.ErrCodeProtocol) },
		"CANCEL":         func(fr *http2.Framer, id uint32) error { return fr.WriteRSTStream(id, http2.ErrCodeCancel) },
	} {
		for _, c := range []struct{ method, body string }{
			{"POST", "x"}, {"POST", ""}, {"PUT", ""}, {"PATCH", ""}, {"DELETE", ""}, {"GET", ""},
		} {
			t.Run(fmt.Sprintf("%s of %d bytes and %s", c.method, len(c.body), name), func(t *testing.T) {
				f := newFarEnd(t)
				var requests atomic.Int64
				f.talk(t, f.tlsConfig(t, "h2"), func(conn net.Conn) { endStreams(conn, &requests, end) })
				s := f.sender(t, func(o *egress.Options) { o.Method, o.Messages = c.method, messages{body: []byte(c.body)} })
				for n := range int64(2) { // the second on a connection that is kept, if there is one
					a := s.Send(t.Context(), newDelivery(t))
					check(t, a, store.ClassConnect, 0)
					if strings.Contains(a.Error, "canary") || requests.Load() != n+1 || a.Took > long/2 {
						t.Errorf("got %q after %d requests in %v, want %d and nothing of the answer", a.Error, requests.Load(), a.Took, n+1)
					}
				}
			})
		}
	}
}

// endStreams is an HTTP/2 server that does the same to each request when it has read it.
func endStreams(conn net.Conn, requests *atomic.Int64, end func(*http2.Framer, uint32) error) {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(conn, conn)
	if fr.WriteSettings() != nil {
		return
	}
	for range 100 {
		frame, err := fr.ReadFrame()
		if err != nil {
			return
		}
		h := frame.Header()
		if h.Type == http2.FrameHeaders {
			requests.Add(1)
		}
		// The flag is the same for both.
		if (h.Type == http2.FrameData || h.Type == http2.FrameHeaders) && h.Flags.Has(http2.FlagDataEndStream) && end(fr, h.StreamID) != nil {
			return
		}
	}
}
