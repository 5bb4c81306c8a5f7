package relay

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// clinic is a folder with a config, and HTTPS servers on port 443 of loopback addresses of their own.
type clinic struct {
	dir   string
	ca    *receiver.CA
	asked atomic.Int64 // HTTP requests that came to any of the servers
	addrs map[string]string
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	ca, err := receiver.NewCA("doctor tests")
	if err != nil {
		t.Fatal(err)
	}
	c := &clinic{dir: t.TempDir(), ca: ca, addrs: map[string]string{}}
	c.file(t, "ca.pem", ca.PEM())
	return c
}

func (c *clinic) file(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// accept listens on port 443 of ip, as host, and gives each connection to handle until the end of the test.
func (c *clinic) accept(t *testing.T, ip, host string, handle func(net.Conn)) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "443"))
	if err != nil {
		t.Fatalf("%v; this test must bind port 443 of loopback addresses: run it as root, or once "+
			"`sysctl net.ipv4.ip_unprivileged_port_start=443`", err)
	}
	c.addrs[host] = ip
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
}

// serve is accept for an HTTPS server, which counts requests.
func (c *clinic) serve(t *testing.T, ip, host string, config *tls.Config) {
	t.Helper()
	c.serveBy(t, ip, host, config, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { c.asked.Add(1) }))
}

func (c *clinic) serveBy(t *testing.T, ip, host string, config *tls.Config, handler http.Handler) {
	t.Helper()
	listener, err := tls.Listen("tcp", net.JoinHostPort(ip, "443"), config)
	if err != nil {
		t.Fatalf("%v; this test must bind port 443 of loopback addresses: run it as root, or once "+
			"`sysctl net.ipv4.ip_unprivileged_port_start=443`", err)
	}
	c.addrs[host] = ip
	server := &http.Server{Handler: handler, ReadHeaderTimeout: patience, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

// cert issues a certificate for hosts that ends so far from now.
func (c *clinic) cert(t *testing.T, begin, end time.Duration, hosts ...string) []tls.Certificate {
	t.Helper()
	cert, err := c.ca.IssueFor(time.Now().Add(begin), time.Now().Add(end), hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{cert}
}

// load makes a plan of the destinations; hosts have the addresses of their servers.
func (c *clinic) load(t *testing.T, destinations string) *Plan {
	t.Helper()
	var resolve []string
	for host, ip := range c.addrs {
		resolve = append(resolve, host+": "+ip)
	}
	path := filepath.Join(c.dir, "postern.yaml")
	c.file(t, "postern.yaml", []byte(fmt.Sprintf("egress: {resolve: {%s}}\ndefaults: {allow_networks: [127.0.0.0/8], tls: {ca_file: ca.pem}}\ndestinations:\n%s",
		strings.Join(resolve, ", "), destinations)))
	_, plan, err := Load(path, []string{"SECRET=canary-6d41"})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// find returns the finding of a check.
func find(t *testing.T, all []Finding, destination, check string) Finding {
	t.Helper()
	for _, f := range all {
		if f.Destination == destination && f.Check == check {
			return f
		}
	}
	t.Fatalf("%s: no finding of %q among %+v", destination, check, all)
	return Finding{}
}

func TestExamine(t *testing.T) {
	const day = 24 * time.Hour
	c := newClinic(t)
	h2 := []string{"h2", "http/1.1"}
	c.serve(t, "127.0.7.1", "good.test", &tls.Config{Certificates: c.cert(t, -day, 90*day, "good.test"), NextProtos: h2})
	c.serve(t, "127.0.7.2", "soon.test", &tls.Config{Certificates: c.cert(t, -80*day, 10*day, "soon.test")})
	c.serve(t, "127.0.7.3", "expired.test", &tls.Config{Certificates: c.cert(t, -90*day, -day, "expired.test")})
	c.serve(t, "127.0.7.4", "name.test", &tls.Config{Certificates: c.cert(t, -day, 90*day, "other.test")})
	self, err := receiver.SelfSigned("self.test")
	if err != nil {
		t.Fatal(err)
	}
	c.serve(t, "127.0.7.5", "self.test", &tls.Config{Certificates: []tls.Certificate{self}})
	c.serve(t, "127.0.7.6", "old.test", &tls.Config{
		Certificates: c.cert(t, -day, 90*day, "old.test"), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	c.accept(t, "127.0.7.7", "hanging.test", func(conn net.Conn) {
		<-release
		_ = conn.Close()
	})
	c.addrs["refusing.test"] = "127.0.7.8"
	c.accept(t, "127.0.7.9", "plain.test", func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		_ = conn.Close()
	})
	c.addrs["private.test"], c.addrs["metadata.test"], c.addrs["denied.test"] = "10.9.8.7", "169.254.169.254", "127.0.7.1"
	c.serve(t, "127.0.7.10", "twelve.test", &tls.Config{Certificates: c.cert(t, -day, 90*day, "twelve.test"), MaxVersion: tls.VersionTLS12})

	begin := time.Now()
	plan := c.load(t, `
  good: {url: "https://good.test/hook?token=${env:SECRET}", auth: {bearer: {token: "${env:SECRET}"}}}
  soon: {url: "https://soon.test/"}
  expired: {url: "https://expired.test/"}
  name: {url: "https://name.test/"}
  self: {url: "https://self.test/"}
  old: {url: "https://old.test/"}
  hanging: {url: "https://hanging.test/"}
  refusing: {url: "https://refusing.test/"}
  plain: {url: "https://plain.test/"}
  private: {url: "https://private.test/"}
  metadata: {url: "https://metadata.test/", allow_networks: [0.0.0.0/0]}
  denied: {url: "https://denied.test/"}
  own: {url: "https://good.test/", auth: {basic: {username: u, password: "${env:SECRET}"}}}
  nowhere: {url: "https://nowhere.test/"}
  mute: {url: "https://mute.test/"}
  strict: {url: "https://twelve.test/", tls: {min_version: "1.3"}}
  literal: {url: "https://127.0.7.1/"}
  off: {url: "https://refusing.test/", enabled: false}
`)
	plan.destinations["denied"].dialer.Deny = []netip.Prefix{netip.MustParsePrefix("127.0.7.1/32")}
	plan.destinations["nowhere"].dialer.Resolver = noName{}
	plan.destinations["mute"].dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", "127.0.7.8:1") // nobody listens there
	}}
	found := plan.Examine(t.Context(), Examination{})
	if took := time.Since(begin); took > examineTime {
		t.Errorf("it took %v, want less than %v: nothing here takes longer than a handshake may", took, examineTime)
	}

	for _, tc := range []struct {
		rule, destination, check string
		status                   Severity
		detail, advice           string
	}{
		{"a receiver that is well is fine", "good", "tls", Fine, `TLS 1.3, HTTP/2; the certificate of "good.test" by "CN=doctor tests" has 89 days left`, ""},
		{"what the config says of a name is told", "good", "dns", Fine, "good.test is 127.0.7.1 by egress.resolve", ""},
		{"a network that is opened is fine", "good", "guard", Fine, "each address may be reached", ""},
		{"the peer is told", "good", "connect", Fine, "127.0.7.1:443 took the connection in ", ""},
		{"a fixed token cannot be tried without sending", "good", "auth", Fine, "shows with a request only", ""},
		{"so it is with a password", "own", "auth", Fine, "shows with a request only", ""},
		{"a certificate near its end is a warning", "soon", "tls", Warning, "has 9 days left", "deliveries fail from "},
		{"an expired certificate is a problem", "expired", "tls", Problem, "certificate is valid from ", "it is "},
		{"a certificate for another name is a problem", "name", "tls", Problem, "other.test", "write the URL with a name that the certificate is for"},
		{"a certificate that nobody vouches for is a problem", "self", "tls", Problem, "not signed by a trusted authority", "signed by itself"},
		{"TLS 1.1 is too old", "old", "tls", Problem, "protocol version", "Postern speaks TLS 1.2 and 1.3"},
		{"tls.min_version holds", "strict", "tls", Problem, "protocol version", "tls.min_version"},
		{"a receiver that does not answer is a problem", "hanging", "tls", Problem, "the TLS handshake took too long", "HTTPS server"},
		{"a receiver that refuses is a problem", "refusing", "connect", Problem, "connection refused", "is the receiver up"},
		{"a server without TLS is a problem", "plain", "tls", Problem, "does not speak TLS", "HTTPS server"},
		{"an address that is not allowed is a problem", "private", "guard", Problem, `"private.test" has address 10.9.8.7, which is not allowed`, "name its network in allow_networks"},
		{"one that nothing opens is told as such", "metadata", "guard", Problem, "nothing opens it", "see who answers for the name in the URL, or write another URL"},
		{"one that is denied is opened elsewhere", "denied", "guard", Problem, "deny_networks holds 127.0.7.1/32", "out of egress.deny_networks"},
		{"a name that nobody knows is a problem", "nowhere", "dns", Problem, "no such host", "/etc/resolv.conf"},
		{"so is a name server that does not answer", "mute", "dns", Problem, "the DNS server could not say", "/etc/resolv.conf"},
		{"an address is no name", "literal", "dns", Fine, "127.0.7.1, an address", ""},
		{"the name of a certificate may be an address, and is not here", "literal", "tls", Problem, "127.0.7.1", "write the URL with a name"},
		{"what is not enabled is left alone", "off", "enabled", Fine, "not looked at", ""},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			f := find(t, found, tc.destination, tc.check)
			if f.Status != tc.status || !strings.Contains(f.Detail, tc.detail) || !strings.Contains(f.Advice, tc.advice) || (tc.advice == "") != (f.Advice == "") {
				t.Errorf("got %s %q, advice %q; want %s %q, %q", f.Status, f.Detail, f.Advice, tc.status, tc.detail, tc.advice)
			}
		})
	}
	t.Run("the checks of one destination end with the one that failed", func(t *testing.T) {
		var checks []string
		for _, f := range found {
			if f.Destination == "refusing" {
				checks = append(checks, f.Check+" "+f.Status.String())
			}
		}
		if got, want := strings.Join(checks, ", "), "dns ok, guard ok, connect problem"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("what TLS has shown is told even of a certificate that is refused", func(t *testing.T) {
		f := find(t, found, "expired", "tls").TLS
		if f == nil || f.DaysLeft != -2 || f.Subject != "expired.test" || len(f.Names) != 1 || f.Version != "" {
			t.Errorf("got %+v, want the facts of the expired certificate", f)
		}
		good := find(t, found, "good", "tls").TLS
		if good == nil || good.Protocol != "h2" || good.Version != "TLS 1.3" || strings.Join(good.Chain, " < ") != "good.test < doctor tests" {
			t.Errorf("got %+v, want protocol, version and the chain to the root", good)
		}
	})
	t.Run("nothing is sent", func(t *testing.T) {
		if got := c.asked.Load(); got != 0 {
			t.Errorf("got %d requests at the receivers, want none", got)
		}
	})
	t.Run("no secret is told", func(t *testing.T) {
		raw, err := json.Marshal(found)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "canary-6d41") || strings.Contains(string(raw), "token=") {
			t.Errorf("a secret is in %s", raw)
		}
	})
	t.Run("only what was asked for is looked at", func(t *testing.T) {
		for _, f := range plan.Examine(t.Context(), Examination{Only: []string{"off", "refusing"}}) {
			if f.Destination != "off" && f.Destination != "refusing" {
				t.Errorf("got a finding of %s", f.Destination)
			}
		}
	})
	t.Run("a target that is Postern itself is refused", func(t *testing.T) {
		found := plan.Examine(t.Context(), Examination{Only: []string{"good"}, Own: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:443")}})
		if f := find(t, found, "good", "guard"); f.Status != Problem || !strings.Contains(f.Detail, "Postern itself listens there") {
			t.Errorf("got %+v, want a problem", f)
		}
	})
	t.Run("it ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begin := time.Now()
		plan.Examine(ctx, Examination{Only: []string{"hanging"}})
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %v after the end", took)
		}
	})
}

func TestExamineManyAtATime(t *testing.T) {
	c := newClinic(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var connections atomic.Int64
	c.accept(t, "127.0.7.11", "hanging.test", func(conn net.Conn) {
		defer conn.Close()
		if connections.Add(1) == examineParallel {
			cancel() // as many as there may be are there, and none of them has got on
		}
		<-ctx.Done()
	})
	var destinations strings.Builder
	const many = 3 * examineParallel
	for n := range many {
		fmt.Fprintf(&destinations, "  d%d: {url: https://hanging.test/}\n", n)
	}
	found := c.load(t, destinations.String()).Examine(ctx, Examination{})
	if got := connections.Load(); got != examineParallel {
		t.Errorf("got %d connections, want %d at a time and no more after the end", got, examineParallel)
	}
	examined := map[string]bool{}
	for _, f := range found {
		examined[f.Destination] = true
	}
	if len(examined) != many {
		t.Errorf("got findings of %d destinations, want each of %d", len(examined), many)
	}
}

// noName is a resolver that knows no name.
type noName struct{}

func (noName) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func TestDays(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "no time", 0: "0 s", 89 * time.Second: "89 s", 2 * time.Minute: "2 minutes", 2*time.Hour - 1: "119 minutes",
		2 * time.Hour: "2 hours", 48*time.Hour - 1: "47 hours", 48 * time.Hour: "2 days",
	} {
		if got := days(d); got != want {
			t.Errorf("days(%v): got %q, want %q", d, got, want)
		}
	}
}
