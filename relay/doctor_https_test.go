package relay

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// front makes a plan with the keys of listen.https; hosts have the addresses of their servers.
func (c *clinic) front(t *testing.T, keys string) *Plan {
	t.Helper()
	var resolve []string
	for host, ip := range c.addrs {
		resolve = append(resolve, host+": "+ip)
	}
	c.file(t, "front.yaml", []byte(fmt.Sprintf(
		"listen: {tokens: [0123456789abcdef], https: {address: '127.0.7.40:8443', %s}}\negress: {resolve: {%s}}\ndestinations: {a: {url: https://a.test/}}\n",
		keys, strings.Join(resolve, ", "))))
	_, plan, err := Load(filepath.Join(c.dir, "front.yaml"), []string{"SECRET=canary-6d41"})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// worst returns the findings of one check in one, with the greatest severity among them.
func worst(t *testing.T, all []Finding, check string) (status Severity, text string) {
	t.Helper()
	seen := false
	for _, f := range all {
		if f.Check == check {
			seen = true
			status, text = max(status, f.Status), text+f.Detail+" → "+f.Advice+"\n"
		}
		if f.Status != Fine && f.Advice == "" {
			t.Errorf("nothing is advised: %+v", f)
		}
	}
	if !seen {
		t.Fatalf("no finding of %q among %+v", check, all)
	}
	return status, text
}

func TestExamineHTTPSOfFiles(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		rule       string
		begin, end time.Duration
		status     Severity
		text       string
	}{
		{"a certificate that is good is fine", -day, 90 * day, Fine, `is for relay.example.com, by "CN=doctor tests", and has 89 days left`},
		{"one near its end is a warning", -80 * day, 10 * day, Warning, "no restart is needed"},
		{"one that has expired is a problem", -80 * day, -day, Problem, "it has expired on "},
		{"one of tomorrow is a problem", day, 80 * day, Problem, "look at the clock"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			c := newClinic(t)
			cert, key, err := receiver.EncodePEM(c.cert(t, tc.begin, tc.end, "relay.example.com")[0])
			if err != nil {
				t.Fatal(err)
			}
			c.file(t, "tls.crt", cert)
			c.file(t, "tls.key", key)
			found := c.front(t, "cert_file: tls.crt, key_file: tls.key").ExamineHTTPS(t.Context(), Examination{})
			if status, text := worst(t, found, "https certificate"); status != tc.status || !strings.Contains(text, tc.text) {
				t.Errorf("got %s %s\nwant %s with %q", status, text, tc.status, tc.text)
			}
		})
	}
	t.Run("without listen.https there is nothing to say", func(t *testing.T) {
		c := newClinic(t)
		if found := c.load(t, "  a: {url: https://a.test/}\n").ExamineHTTPS(t.Context(), Examination{}); found != nil {
			t.Errorf("got %+v, want nothing", found)
		}
	})
}

// zone is a resolver that knows some names.
type zone map[string]string

func (z zone) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	text, ok := z[host]
	switch {
	case !ok:
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	case text == "":
		return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	}
	var addrs []netip.Addr
	for _, word := range strings.Fields(text) {
		addrs = append(addrs, netip.MustParseAddr(word))
	}
	return addrs, nil
}

// at says what addresses a machine has.
func at(addrs ...string) func() ([]netip.Addr, error) {
	return func() (all []netip.Addr, err error) {
		for _, text := range addrs {
			all = append(all, netip.MustParseAddr(text))
		}
		return all, nil
	}
}

func TestExamineHTTPSOfAnAuthority(t *testing.T) {
	const day = 24 * time.Hour
	c := newClinic(t)
	answers := map[string]string{
		"/dir":    `{"newNonce": "https://acme.test/n", "newOrder": "https://acme.test/o"}`,
		"/bound":  `{"newOrder": "https://acme.test/o", "meta": {"externalAccountRequired": true}}`,
		"/page":   `<html>hello</html>`,
		"/else":   `{"hello": "world"}`,
		"/secret": `canary-6d41`,
	}
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	c.serveBy(t, "127.0.7.41", "acme.test", &tls.Config{Certificates: c.cert(t, -day, 90*day, "acme.test")}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("got %s %s, want GET only", r.Method, r.URL)
		}
		text, ok := answers[r.URL.Path]
		switch {
		case r.URL.Path == "/hangs":
			<-release
		case !ok:
			http.NotFound(w, r)
		default:
			_, _ = io.WriteString(w, text)
		}
	}))
	c.addrs["away.test"] = "127.0.7.42"
	keys := func(directory string) string {
		return fmt.Sprintf("domains: [relay.example.com], acme: {directory: '%s', ca_file: ca.pem, allow_networks: [127.0.0.0/8]}", directory)
	}
	here := zone{"relay.example.com": "203.0.113.5"}
	examine := func(t *testing.T, keys string, resolver zone, e Examination) []Finding {
		t.Helper()
		plan := c.front(t, keys)
		plan.https.acme.dialer.Resolver = resolver
		if e.Addresses == nil {
			e.Addresses = at("203.0.113.5")
		}
		return plan.ExamineHTTPS(t.Context(), e)
	}

	for _, tc := range []struct {
		rule, keys string
		status     Severity
		text       string
	}{
		{"one that answers is fine", keys("https://acme.test/dir"), Fine, "https://acme.test/dir answered in "},
		{"one that wants an account of its own is a problem without one", keys("https://acme.test/bound"), Problem, "external_account"},
		{
			"and none with one", strings.Replace(keys("https://acme.test/bound"), "acme: {", "acme: {external_account: {key_id: k, hmac_key: c2VjcmV0}, ", 1),
			Fine, "answered in ",
		},
		{"another answer is a problem", keys("https://acme.test/missing"), Problem, "answered 404"},
		{"so is a page", keys("https://acme.test/page"), Problem, "no directory of ACME"},
		{"so is other JSON", keys("https://acme.test/else"), Problem, "no directory of ACME"},
		{"one that is away is a problem", keys("https://away.test/dir"), Problem, "connection refused"},
		{"so is one that may not be reached", strings.Replace(keys("https://acme.test/dir"), "127.0.0.0/8", "127.1.0.0/16", 1), Problem, "not allowed"},
		{"so is one that its roots do not vouch for", strings.Replace(keys("https://acme.test/dir"), "ca_file: ca.pem, ", "", 1), Problem, "certificate"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			if status, text := worst(t, examine(t, tc.keys, here, Examination{}), "https authority"); status != tc.status || !strings.Contains(text, tc.text) {
				t.Errorf("got %s %s\nwant %s with %q", status, text, tc.status, tc.text)
			}
		})
	}
	t.Run("one that DNS does not know is a problem", func(t *testing.T) {
		found := examine(t, keys("https://nobody.test/dir"), here, Examination{})
		if status, text := worst(t, found, "https authority"); status != Problem || !strings.Contains(text, "DNS could not say where nobody.test is") {
			t.Errorf("got %s %s", status, text)
		}
	})
	t.Run("one that hangs ends with the context", func(t *testing.T) {
		plan := c.front(t, keys("https://acme.test/hangs"))
		plan.https.acme.dialer.Resolver = here
		ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("enough"))
		defer cancel()
		found := plan.ExamineHTTPS(ctx, Examination{Addresses: at("203.0.113.5")})
		if status, text := worst(t, found, "https authority"); status != Problem || !strings.Contains(text, "enough") {
			t.Errorf("got %s %s", status, text)
		}
	})
	t.Run("what it says is not told", func(t *testing.T) {
		raw, err := json.Marshal(examine(t, keys("https://acme.test/secret"), here, Examination{}))
		if err != nil || strings.Contains(string(raw), "canary") {
			t.Errorf("got %s, %v", raw, err)
		}
	})

	for _, tc := range []struct {
		rule      string
		dns       zone
		addresses func() ([]netip.Addr, error)
		status    Severity
		text      string
	}{
		{"a name that leads here is fine", here, nil, Fine, "relay.example.com leads to this machine"},
		{"so is one with two addresses", zone{"relay.example.com": "203.0.113.5 2001:db8::5"}, at("203.0.113.5", "2001:db8::5", "10.1.1.1"), Fine, "leads to this machine"},
		{"one that leads elsewhere is a warning", zone{"relay.example.com": "203.0.113.9"}, nil, Warning, "leads to 203.0.113.9, which is not this machine"},
		{"so is one that leads elsewhere too", zone{"relay.example.com": "203.0.113.5 2001:db8::9"}, nil, Warning, "leads to 2001:db8::9,"},
		{"behind a router it cannot be seen", zone{"relay.example.com": "203.0.113.9"}, at("10.1.1.1", "100.64.3.2", "fd00::1"), Fine, "cannot be seen from here"},
		{"one that is not in DNS is a problem", zone{}, nil, Problem, "DNS has no address for relay.example.com"},
		{"DNS that does not say is a warning", zone{"relay.example.com": ""}, nil, Warning, "/etc/resolv.conf"},
		{
			"a machine that does not tell its addresses is a warning", here,
			func() ([]netip.Addr, error) { return nil, errors.New("no such thing") }, Warning, "no such thing",
		},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			found := examine(t, keys("https://acme.test/dir"), tc.dns, Examination{Addresses: tc.addresses})
			if status, text := worst(t, found, "https name"); status != tc.status || !strings.Contains(text, tc.text) {
				t.Errorf("got %s %s\nwant %s with %q", status, text, tc.status, tc.text)
			}
		})
	}
	t.Run("egress.resolve is no DNS", func(t *testing.T) {
		c.addrs["relay.example.com"] = "203.0.113.5"
		defer delete(c.addrs, "relay.example.com")
		if status, _ := worst(t, examine(t, keys("https://acme.test/dir"), zone{}, Examination{}), "https name"); status != Problem {
			t.Errorf("got %s, want a problem: the authority does not see it", status)
		}
	})

	served := func(t *testing.T, begin, end time.Duration, hosts ...string) (address string) {
		t.Helper()
		config := &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none yet") }}
		if len(hosts) > 0 {
			config = &tls.Config{Certificates: c.cert(t, begin, end, hosts...)}
		}
		l, err := tls.Listen("tcp", "127.0.7.43:0", config)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{ReadHeaderTimeout: patience}
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		t.Cleanup(func() {
			_ = server.Close()
			<-done
		})
		return l.Addr().String()
	}
	for _, tc := range []struct {
		rule       string
		begin, end time.Duration
		hosts      []string
		status     Severity
		text       string
	}{
		{"what is shown is told", -day, 90 * day, []string{"relay.example.com"}, Fine, "shown for relay.example.com is for relay.example.com, by \"CN=doctor tests\", and has 89 days left"},
		{"its end is told beforehand", -80 * day, 10 * day, []string{"relay.example.com"}, Warning, "9 days left"},
		{"and afterwards", -80 * day, -day, []string{"relay.example.com"}, Problem, "it has expired"},
		{"none is a problem", 0, 0, nil, Problem, "has none for relay.example.com"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			found := examine(t, keys("https://acme.test/dir"), here, Examination{Served: served(t, tc.begin, tc.end, tc.hosts...)})
			if status, text := worst(t, found, "https certificate"); status != tc.status || !strings.Contains(text, tc.text) {
				t.Errorf("got %s %s\nwant %s with %q", status, text, tc.status, tc.text)
			}
		})
	}
	t.Run("what an authority that is not known here has issued is told as well", func(t *testing.T) {
		stranger, err := receiver.SelfSigned("relay.example.com")
		if err != nil {
			t.Fatal(err)
		}
		l, err := tls.Listen("tcp", "127.0.7.43:0", &tls.Config{Certificates: []tls.Certificate{stranger}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				_ = conn.(*tls.Conn).Handshake()
				_ = conn.Close()
			}
		}()
		found := examine(t, keys("https://acme.test/dir"), here, Examination{Served: l.Addr().String()})
		if status, text := worst(t, found, "https certificate"); !strings.Contains(text, "shown for relay.example.com") || status == Problem {
			t.Errorf("got %s %s", status, text)
		}
	})
	trouble := []string{"certificate of other.example.com: canary", "certificate of relay.example.com: the authority is away"}
	t.Run("why there is none is what the running Postern says", func(t *testing.T) {
		found := examine(t, keys("https://acme.test/dir"), here, Examination{Served: served(t, 0, 0), Trouble: trouble})
		if status, text := worst(t, found, "https certificate"); status != Problem || !strings.Contains(text, "has none for relay.example.com: the authority is away → ") || strings.Contains(text, "canary") {
			t.Errorf("got %s %s", status, text)
		}
	})
	t.Run("one that hangs is not one without a certificate", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.7.43:0") // nobody accepts
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		plan := c.front(t, keys("https://acme.test/dir"))
		plan.https.acme.dialer.Resolver = here
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		found := plan.ExamineHTTPS(ctx, Examination{Served: l.Addr().String(), Addresses: at("203.0.113.5")})
		status, text := worst(t, found, "https certificate")
		if status != Problem || !strings.Contains(text, "cannot be seen at "+l.Addr().String()+": the TLS handshake took too long → ") || strings.Contains(text, "has none") {
			t.Errorf("got %s %s", status, text)
		}
	})
	t.Run("without a running Postern nobody knows what the store holds", func(t *testing.T) {
		found := examine(t, keys("https://acme.test/dir"), here, Examination{})
		if status, text := worst(t, found, "https certificate"); status != Fine || !strings.Contains(text, "not looked at: whether the store holds any") {
			t.Errorf("got %s %s", status, text)
		}
	})
	t.Run("where it is not found, and without listen.https here, there is what the running Postern says", func(t *testing.T) {
		found := examine(t, keys("https://acme.test/dir"), here, Examination{Trouble: trouble[1:]})
		found = append(found, c.load(t, "  a: {url: https://a.test/}\n").ExamineHTTPS(t.Context(), Examination{Trouble: trouble[1:]})...)
		if status, text := worst(t, found, "https certificate"); status != Problem || strings.Count(text, trouble[1]) != 2 {
			t.Errorf("got %s %s", status, text)
		}
	})
}
