package listen

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store/storetest"
)

// authorityFiles is a private authority with its files.
type authorityFiles struct {
	ca     *receiver.CA
	dir    string
	caFile string
}

func newAuthorityFiles(t *testing.T) *authorityFiles {
	t.Helper()
	ca, err := receiver.NewCA("listen tests")
	if err != nil {
		t.Fatal(err)
	}
	a := &authorityFiles{ca: ca, dir: t.TempDir()}
	a.caFile = a.write(t, "ca.pem", ca.PEM())
	return a
}

// write puts a file in the place of another, as certbot and Kubernetes do.
func (a *authorityFiles) write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func (a *authorityFiles) client(t *testing.T, name string) tls.Certificate {
	t.Helper()
	cert, err := a.ca.IssueClient(name)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// pair writes a certificate for hosts and its key.
func (a *authorityFiles) pair(t *testing.T, from, until time.Time, hosts ...string) guard.TLSFiles {
	t.Helper()
	cert, err := a.ca.IssueFor(from, until, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := receiver.EncodePEM(cert)
	if err != nil {
		t.Fatal(err)
	}
	return guard.TLSFiles{Cert: a.write(t, "tls.crt", chain), Key: a.write(t, "tls.key", key)}
}

func (a *authorityFiles) valid(t *testing.T, hosts ...string) guard.TLSFiles {
	t.Helper()
	return a.pair(t, time.Now().Add(-time.Hour), time.Now().Add(240*time.Hour), hosts...)
}

// clock is a wall clock that a test sets.
type clock struct {
	mu  sync.Mutex // guards the field below
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newFilesFront starts a listener with a certificate from files.
func newFilesFront(t *testing.T, o Options) *front {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	o.Address, o.Log = "127.0.0.1:0", zap.New(core)
	if o.Handler == nil {
		o.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello over ", r.Proto) })
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f := &front{Server: s, logs: logs}
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func TestTLSFromFiles(t *testing.T) {
	t.Run("requests come in over HTTP/2 and HTTP/1.1, from TLS 1.2 on", func(t *testing.T) {
		a := newAuthorityFiles(t)
		f := newFilesFront(t, Options{TLS: &TLS{Files: a.valid(t, "relay.example.com")}})
		for _, c := range []struct {
			config *tls.Config
			want   string // empty: no answer
		}{
			{&tls.Config{}, "hello over HTTP/2.0"},
			{&tls.Config{MaxVersion: tls.VersionTLS12}, "hello over HTTP/2.0"},
			{&tls.Config{NextProtos: []string{"http/1.1"}}, "hello over HTTP/1.1"},
			{&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, ""},
		} {
			c.config.RootCAs = a.ca.Pool()
			_, body, err := f.get(t, "https://relay.example.com/", c.config)
			if body != c.want || (err == nil) != (c.want != "") {
				t.Errorf("versions %x to %x, protocols %q: got %q, error %v; want %q", c.config.MinVersion, c.config.MaxVersion, c.config.NextProtos, body, err, c.want)
			}
		}
		if answer := speakPlain(t, f.Addr().String()); strings.Contains(answer, "hello") {
			t.Errorf("without TLS: got %q, want no service", answer)
		}
	})
	t.Run("only the names of the certificate are served", func(t *testing.T) {
		a := newAuthorityFiles(t)
		f := newFilesFront(t, Options{TLS: &TLS{Files: a.valid(t, "relay.example.com", "*.apps.example.com", "127.0.0.1")}})
		for host, want := range map[string]int{
			"relay.example.com": 200, "RELAY.example.com": 200, "relay.example.com:8443": 200, "relay.example.com.": 200, "127.0.0.1": 200,
			"a.apps.example.com": 200, "a.b.apps.example.com": 421, "localhost": 421, "other.example.com": 421, "127.0.0.2": 421,
		} {
			for _, protocols := range [][]string{{"h2"}, {"http/1.1"}} {
				status, body, err := f.get(t, "https://"+host+"/", &tls.Config{ServerName: "relay.example.com", RootCAs: a.ca.Pool(), NextProtos: protocols})
				if err != nil || status != want {
					t.Errorf("%s over %s: got %d %q, error %v; want %d", host, protocols, status, body, err, want)
				}
				if want == 421 && !strings.Contains(body, "use the name relay.example.com") {
					t.Errorf("%s: got %q, want the name to use", host, body)
				}
			}
		}
	})
	t.Run("a new certificate takes over when it is whole, for connections and for the rule on names", func(t *testing.T) {
		a, c := newAuthorityFiles(t), &clock{now: time.Now()}
		f := newFilesFront(t, Options{Now: c.Now, TLS: &TLS{Files: a.valid(t, "old.example.com")}})
		names := func() []string {
			t.Helper()
			leaf, err := shake(f.Addr().String(), &tls.Config{ServerName: "old.example.com", RootCAs: a.ca.Pool()})
			if err != nil {
				leaf, err = shake(f.Addr().String(), &tls.Config{ServerName: "new.example.com", RootCAs: a.ca.Pool()})
			}
			if err != nil {
				t.Fatal(err)
			}
			return leaf.DNSNames
		}
		key, err := os.ReadFile(filepath.Join(a.dir, "tls.key"))
		if err != nil {
			t.Fatal(err)
		}
		a.valid(t, "new.example.com")
		right, err := os.ReadFile(filepath.Join(a.dir, "tls.key"))
		if err != nil {
			t.Fatal(err)
		}
		a.write(t, "tls.key", key) // the certificate has been replaced, and its key not yet
		c.advance(time.Minute)
		if got := names(); got[0] != "old.example.com" {
			t.Errorf("with half a pair: got %q, want the old certificate", got)
		}
		a.write(t, "tls.key", right)
		c.advance(time.Minute)
		if got := names(); got[0] != "new.example.com" {
			t.Errorf("with the pair: got %q, want the new certificate", got)
		}
		status, _, err := f.get(t, "https://old.example.com/", &tls.Config{ServerName: "new.example.com", RootCAs: a.ca.Pool()})
		if err != nil || status != 421 {
			t.Errorf("the old name: got %d, error %v; want 421", status, err)
		}
	})
	t.Run("a certificate that is not valid now is trouble", func(t *testing.T) {
		a, c := newAuthorityFiles(t), &clock{now: time.Now()}
		f := newFilesFront(t, Options{Now: c.Now, TLS: &TLS{Files: a.pair(t, c.now.Add(time.Hour), c.now.Add(2*time.Hour), "relay.example.com")}})
		for _, want := range []string{"certificate of relay.example.com: it is not valid before ", "", "certificate of relay.example.com: it expired at "} {
			got := f.Trouble()
			if want == "" && len(got) != 0 || want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], want)) {
				t.Errorf("at %s: got %q, want %q", c.Now(), got, want)
			}
			c.advance(90 * time.Minute)
		}
		if got := f.Certificates(); len(got) != 1 || got[0].Name != "relay.example.com" || got[0].Expires.IsZero() {
			t.Errorf("Certificates: got %+v, want one", got)
		}
	})
	t.Run("files that are wrong are an error at the start", func(t *testing.T) {
		a := newAuthorityFiles(t)
		for name, o := range map[string]*TLS{
			"no certificate":   {},
			"authorities only": {Files: guard.TLSFiles{CA: a.caFile}},
			"two origins":      {Files: a.valid(t, "relay.example.com"), ACME: &ACME{}},
			"no such file":     {Files: guard.TLSFiles{Cert: filepath.Join(a.dir, "none"), Key: filepath.Join(a.dir, "none")}},
			"ACME half":        {ACME: &ACME{Names: []string{"relay.example.com"}, Vault: storetest.NewMemory(storetest.MemoryOptions{})}},
		} {
			s, err := Open(Options{Address: "127.0.0.1:0", Handler: http.NotFoundHandler(), TLS: o})
			if err == nil {
				t.Errorf("%s: got no error", name)
				_ = s.Close()
			}
		}
	})
}

// everywhere stands for a socket on all addresses of the machine, which a test must not bind.
type everywhere struct{ net.Listener }

func (everywhere) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 443} }

func (everywhere) Close() error { return nil }

func TestTokensHoldOverTLS(t *testing.T) {
	a := newAuthorityFiles(t)
	_, err := Open(Options{Listener: everywhere{}, Handler: http.NotFoundHandler(), TLS: &TLS{Files: a.valid(t, "relay.example.com")}})
	if err == nil || !strings.Contains(err.Error(), "a token is required") {
		t.Errorf("on all addresses without tokens: got error %v, want that one is required", err)
	}
}

func TestChallengesAreRecognized(t *testing.T) {
	for _, c := range []struct {
		protocols []string
		want      bool
	}{
		{[]string{"acme-tls/1"}, true}, {[]string{"acme-tls/1", "h2"}, false}, {[]string{"h2"}, false}, {nil, false},
	} {
		if got := isChallenge(&tls.ClientHelloInfo{SupportedProtos: c.protocols}); got != c.want {
			t.Errorf("%q: got %t, want %t", c.protocols, got, c.want)
		}
	}
}
