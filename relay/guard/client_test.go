package guard_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/guard"
)

// authority is a certificate authority for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{key: newKey(tb), pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA " + rand.Text()}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		tb.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// issue makes a server certificate for a name that ends at the given time.
func (a *authority) issue(tb testing.TB, name string, end time.Time) tls.Certificate {
	tb.Helper()
	key := newKey(tb)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: end.Add(-2 * time.Hour), NotAfter: end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

const host = "h.example"

// receiver is a TLS server for one test and what reaches it.
type receiver struct {
	addr     netip.Addr
	requests atomic.Int64
	opened   atomic.Int64 // connections
}

// serve starts a receiver with the TLS configuration as given.
func serve(tb testing.TB, config *tls.Config, handler http.HandlerFunc) *receiver {
	tb.Helper()
	return serveWith(tb, config, handler, func(http.ConnState) {})
}

// serveWith is serve with a func that is told of what happens to connections.
func serveWith(tb testing.TB, config *tls.Config, handler http.HandlerFunc, state func(http.ConnState)) *receiver {
	tb.Helper()
	l := listen443(tb)
	r := &receiver{addr: l.addr}
	s := &http.Server{
		TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			r.requests.Add(1)
			handler(w, q)
		}),
		ConnState: func(_ net.Conn, is http.ConnState) {
			if is == http.StateNew {
				r.opened.Add(1)
			}
			state(is)
		},
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeTLS(l, "", "") }()
	tb.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("serve: %v", err)
		}
	})
	return r
}

func (r *receiver) options(pool *x509.CertPool) guard.TransportOptions {
	return guard.TransportOptions{RootCAs: pool, Dialer: &guard.Dialer{
		Allow: open(r.addr), Resolve: map[string]netip.Addr{host: r.addr},
	}}
}

func newClient(tb testing.TB, o guard.TransportOptions) *http.Client {
	tb.Helper()
	c := guard.NewClient(o)
	tb.Cleanup(c.CloseIdleConnections)
	return c
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body), nil
}

func ok(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto+" "+r.Host) }

func TestClientProtocols(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, host, time.Now().Add(time.Hour))
	tests := []struct {
		name string
		alpn []string
		want string
	}{
		{"HTTP/2 is used where it is offered", nil, "HTTP/2.0 h.example"},
		{"HTTP/1.1 is used where HTTP/2 is not offered", []string{"http/1.1"}, "HTTP/1.1 h.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{cert}}
			if tt.alpn != nil {
				config.NextProtos = tt.alpn
				// Without it the server would add h2.
				config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
					return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: tt.alpn}, nil
				}
			}
			r := serve(t, config, ok)
			c := newClient(t, r.options(ca.pool))
			for range 5 {
				_, body, err := get(t, c, "https://h.example/x")
				if err != nil || body != tt.want {
					t.Fatalf("got %q, %v; want %q", body, err, tt.want)
				}
			}
			if got := r.opened.Load(); got != 1 {
				t.Errorf("got %d connections for 5 requests, want 1", got)
			}
		})
	}
}

func TestClientVerifies(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := ca.issue(t, host, time.Now().Add(time.Hour))
	tests := []struct {
		name    string
		cert    tls.Certificate
		version uint16 // the highest of the server
		least   uint16 // MinVersion of the client
		want    string // in the error; empty means none
	}{
		{"a good certificate passes", good, 0, 0, ""},
		{"TLS 1.2 passes", good, tls.VersionTLS12, 0, ""},
		{"TLS 1.2 does not pass where 1.3 is the least", good, tls.VersionTLS12, tls.VersionTLS13, "protocol version"},
		{"TLS 1.1 does not pass", good, tls.VersionTLS11, 0, "protocol version"},
		{"a lower MinVersion means TLS 1.2", good, tls.VersionTLS11, tls.VersionTLS10, "protocol version"},
		{"an expired certificate does not pass", ca.issue(t, host, time.Now().Add(-time.Hour)), 0, 0, "expired"},
		{"a certificate for another name does not pass", ca.issue(t, "x.example", time.Now().Add(time.Hour)), 0, 0, "not h.example"},
		{"a certificate of an unknown CA does not pass", other.issue(t, host, time.Now().Add(time.Hour)), 0, 0, "unknown authority"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := serve(t, &tls.Config{
				Certificates: []tls.Certificate{tt.cert}, MinVersion: tls.VersionTLS10, MaxVersion: tt.version,
			}, ok)
			o := r.options(ca.pool)
			o.MinVersion = tt.least
			_, _, err := get(t, newClient(t, o), "https://h.example/")
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if got := r.requests.Load(); tt.want != "" && got != 0 {
				t.Errorf("%d requests got through", got)
			}
		})
	}
	t.Run("the system's roots are used if none are given", func(t *testing.T) {
		r := serve(t, &tls.Config{Certificates: []tls.Certificate{good}}, ok)
		if _, _, err := get(t, newClient(t, r.options(nil)), "https://h.example/"); err == nil {
			t.Error("a certificate of the test CA passes")
		}
	})
}

func TestClientRefuses(t *testing.T) {
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, host, time.Now().Add(time.Hour))}}
	t.Run("plain http never leaves, not even to port 443", func(t *testing.T) {
		l := listen443(t)
		c := newClient(t, guard.TransportOptions{Dialer: &guard.Dialer{
			Allow: open(l.addr), Resolve: map[string]netip.Addr{host: l.addr},
		}})
		for _, url := range []string{"http://h.example/", "http://h.example:443/"} {
			_, _, err := get(t, c, url)
			wantBlocked(t, err, host, "only https is allowed")
		}
		l.checkUntouched(t)
	})
	t.Run("a custom port is refused", func(t *testing.T) {
		_, _, err := get(t, newClient(t, guard.TransportOptions{}), "https://h.example:8443/")
		wantBlocked(t, err, host, "port 8443 is not 443")
	})
	t.Run("the zero options reach no private address", func(t *testing.T) {
		l := listen443(t)
		_, _, err := get(t, newClient(t, guard.TransportOptions{}), "https://"+l.addr.String()+"/")
		wantBlocked(t, err, l.addr.String(), "loopback")
		l.checkUntouched(t)
	})
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run("a redirect is the answer, "+http.StatusText(status), func(t *testing.T) {
			r := serve(t, config.Clone(), func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://h.example/next")
				w.WriteHeader(status)
			})
			resp, _, err := get(t, newClient(t, r.options(ca.pool)), "https://h.example/")
			if err != nil || resp.StatusCode != status {
				t.Fatalf("got %v, %v; want status %d", resp, err, status)
			}
			if got := r.requests.Load(); got != 1 {
				t.Errorf("got %d requests, want 1", got)
			}
		})
	}
	t.Run("proxies of the environment are not used", func(t *testing.T) {
		proxy := listen443(t)
		for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY", "http_proxy"} {
			t.Setenv(name, "https://"+proxy.Addr().String())
		}
		r := serve(t, config.Clone(), ok)
		if _, body, err := get(t, newClient(t, r.options(ca.pool)), "https://h.example/"); err != nil || body == "" {
			t.Errorf("got %q, %v; want an answer", body, err)
		}
		if guard.NewTransport(guard.TransportOptions{}).Proxy != nil {
			t.Error("the transport has a proxy function")
		}
		proxy.checkUntouched(t)
	})
}

func TestClientBounds(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, host, time.Now().Add(time.Hour))
	for _, alpn := range []string{"h2", "http/1.1"} {
		config := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{alpn}}, nil
		}, Certificates: []tls.Certificate{cert}}
		t.Run("a header above 64 KiB is refused, "+alpn, func(t *testing.T) {
			r := serve(t, config, func(w http.ResponseWriter, _ *http.Request) {
				for i := range 100 {
					w.Header().Add("X-Long", strings.Repeat("x", 1024+i))
				}
			})
			if resp, _, err := get(t, newClient(t, r.options(ca.pool)), "https://h.example/"); err == nil {
				t.Errorf("got status %d, want an error", resp.StatusCode)
			}
		})
		t.Run("a header of 32 KiB passes, "+alpn, func(t *testing.T) {
			r := serve(t, config.Clone(), func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Long", strings.Repeat("x", 32<<10))
			})
			if _, _, err := get(t, newClient(t, r.options(ca.pool)), "https://h.example/"); err != nil {
				t.Errorf("got %v, want none", err)
			}
		})
	}
	t.Run("nothing is unpacked and nothing packed is asked for", func(t *testing.T) {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		io.WriteString(z, strings.Repeat("x", 1<<16))
		z.Close()
		var asked atomic.Value
		r := serve(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(w http.ResponseWriter, q *http.Request) {
			asked.Store(q.Header.Get("Accept-Encoding"))
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(packed.Bytes())
		})
		_, body, err := get(t, newClient(t, r.options(ca.pool)), "https://h.example/")
		if err != nil || body != packed.String() {
			t.Errorf("got %d bytes, %v; want the %d as sent", len(body), err, packed.Len())
		}
		if got := asked.Load(); got != "" {
			t.Errorf("Accept-Encoding: got %q, want none", got)
		}
	})
	t.Run("a handshake that stalls ends", func(t *testing.T) {
		if got := guard.NewTransport(guard.TransportOptions{}).TLSHandshakeTimeout; got != 5*time.Second {
			t.Errorf("TLSHandshakeTimeout: got %v, want 5s", got)
		}
	})
	t.Run("MaxConnsPerHost bounds the connections", func(t *testing.T) {
		entered, release := make(chan struct{}, 4), make(chan struct{})
		config := &tls.Config{Certificates: []tls.Certificate{cert}, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}, nil
		}}
		r := serve(t, config, func(w http.ResponseWriter, _ *http.Request) {
			entered <- struct{}{}
			<-release
		})
		o := r.options(ca.pool)
		o.MaxConnsPerHost = 2
		c := newClient(t, o)
		waiting := make(chan string, 4)
		done := make(chan error, 4)
		for range 4 {
			go func() {
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GetConn: func(hostPort string) { waiting <- hostPort }})
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://h.example/", nil)
				if err == nil {
					var resp *http.Response
					if resp, err = c.Do(req); err == nil {
						err = resp.Body.Close()
					}
				}
				done <- err
			}()
		}
		for range 4 {
			<-waiting
		}
		<-entered
		<-entered
		close(release)
		for range 4 {
			if err := <-done; err != nil {
				t.Errorf("got %v, want none", err)
			}
		}
		if got := r.opened.Load(); got != 2 {
			t.Errorf("got %d connections, want 2", got)
		}
	})
}

func TestTransportTrace(t *testing.T) {
	ca := newAuthority(t)
	r := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, host, time.Now().Add(time.Hour))}}, ok)
	o := r.options(ca.pool)
	o.Dialer.Resolve, o.Dialer.Resolver = nil, resolver(t, r.addr.String())
	var phases []string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		DNSDone:              func(httptrace.DNSDoneInfo) { phases = append(phases, "dns") },
		ConnectDone:          func(string, string, error) { phases = append(phases, "connect") },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { phases = append(phases, "tls") },
		GotConn:              func(i httptrace.GotConnInfo) { phases = append(phases, i.Conn.RemoteAddr().String()) },
		GotFirstResponseByte: func() { phases = append(phases, "byte") },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://h.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := newClient(t, o).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	want := "dns connect tls " + r.addr.String() + ":443 byte"
	if got := strings.Join(phases, " "); got != want {
		t.Errorf("got phases %q, want %q", got, want)
	}
}
