package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/listen/acmetest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

const (
	acmePatience = 30 * time.Second // nothing waits that long when all is well
	acmeToken    = "0123456789abcdef"
)

// front is an https listener whose certificates come from Pebble.
type front struct {
	*Server
	ca   *acmetest.Authority
	logs *observer.ObservedLogs
	stop func() // ends it and waits; may be called again
}

// acmeOptions returns what a listener needs to obtain certificates of names.
func acmeOptions(t *testing.T, ca *acmetest.Authority, vault store.Vault, names ...string) ACME {
	t.Helper()
	directory, err := url.Parse(ca.Directory())
	if err != nil {
		t.Fatal(err)
	}
	client, err := guard.NewAuthorityClient(directory, &guard.Dialer{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		guard.TLSFiles{CA: ca.CAFile()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return ACME{
		Names: names, Authority: Authority{Directory: directory, Client: client}, Vault: vault, Email: "ops@example.com",
		Retry: []time.Duration{100 * time.Millisecond},
	}
}

// newFront starts a listener that answers "hello" to whoever comes in.
func newFront(t *testing.T, ca *acmetest.Authority, o ACME, adjust ...func(*Options)) *front {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	options := Options{
		Address: ca.Listen(), TLS: &TLS{ACME: &o}, Log: zap.New(core),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello over ", r.Proto) }),
	}
	for _, a := range adjust {
		a(&options)
	}
	s, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f := &front{Server: s, ca: ca, logs: logs}
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		f.stop()
		if t.Failed() {
			for _, line := range logs.All() {
				if line.Message == "request served" {
					continue
				}
				t.Log(line.Level, line.Message, line.ContextMap())
			}
		}
	})
	return f
}

// wait waits for what must happen.
func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(acmePatience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, acmePatience)
		}
	}
}

// shake shakes hands with a listener and returns the certificate that it has shown.
func shake(address string, config *tls.Config) (*x509.Certificate, error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	conn, err := tls.DialWithDialer(dialer, "tcp", address, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func (f *front) leaf(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	leaf, err := shake(f.Addr().String(), &tls.Config{ServerName: name, RootCAs: f.ca.Roots(t)})
	if err != nil {
		t.Fatalf("shake hands as %s: %v", name, err)
	}
	return leaf
}

// get makes a request to the listener, whatever the host of the URL leads to.
func (f *front) get(t *testing.T, target string, config *tls.Config) (status int, body string, err error) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: !slices.Equal(config.NextProtos, []string{"http/1.1"}),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", f.Addr().String())
		},
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(target)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func (f *front) obtained() int { return f.logs.FilterMessage("certificate obtained").Len() }

func TestACME(t *testing.T) {
	t.Run("a first certificate comes by itself, is served, and serves after a restart without the authority", func(t *testing.T) {
		t.Parallel()
		ca, vault := acmetest.Start(t, acmetest.Options{}), storetest.NewMemory(storetest.MemoryOptions{})
		begun := time.Now()
		f := newFront(t, ca, acmeOptions(t, ca, vault, "relay.example.com", "other.example.com"))
		if got := f.Trouble(); len(got) != 2 || !strings.HasPrefix(got[0], "certificate of relay.example.com: ") {
			t.Errorf("before: got trouble %q, want that of both names", got)
		}
		wait(t, "both certificates", func() bool { return f.obtained() == 2 })
		t.Logf("two certificates after %s", time.Since(begun).Round(time.Millisecond))
		if got := f.Trouble(); len(got) != 0 {
			t.Errorf("then: got trouble %q, want none", got)
		}
		roots := ca.Roots(t)
		status, body, err := f.get(t, "https://relay.example.com/", &tls.Config{RootCAs: roots})
		if err != nil || status != http.StatusOK || body != "hello over HTTP/2.0" {
			t.Errorf("got %d %q, error %v; want an answer over HTTP/2.0", status, body, err)
		}
		if status, body, err := f.get(t, "https://other.example.com/", &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}}); err != nil || status != http.StatusOK {
			t.Errorf("the other name: got %d %q, error %v", status, body, err)
		}
		first := f.leaf(t, "relay.example.com")
		expires := f.Certificates()
		if len(expires) != 2 || expires[0].Name != "relay.example.com" || !expires[0].Expires.Equal(first.NotAfter) {
			t.Errorf("Certificates: got %+v, want both, the first until %s", expires, first.NotAfter)
		}
		f.stop()
		ca.Stop(t)
		begun = time.Now()
		again := newFront(t, ca, acmeOptions(t, ca, vault, "relay.example.com", "other.example.com"))
		wait(t, "the certificates that are kept", func() bool { return len(again.Trouble()) == 0 })
		t.Logf("from the store after %s", time.Since(begun).Round(time.Microsecond))
		leaf, err := shake(again.Addr().String(), &tls.Config{ServerName: "relay.example.com", RootCAs: roots})
		if err != nil || !leaf.Equal(first) {
			t.Errorf("after the restart: error %v, want the same certificate", err)
		}
		again.stop()
		if got := again.obtained(); got != 0 {
			t.Errorf("after the restart %d certificates were obtained, want none", got)
		}
	})
	t.Run("what is kept is in the vault alone", func(t *testing.T) {
		t.Parallel()
		ca, vault := acmetest.Start(t, acmetest.Options{}), storetest.NewMemory(storetest.MemoryOptions{})
		if err := vault.Keep(t.Context(), "rw_test_1", []byte("left by a kill")); err != nil {
			t.Fatal(err)
		}
		f := newFront(t, ca, acmeOptions(t, ca, vault, "relay.example.com"))
		wait(t, "the certificate", func() bool { return f.obtained() == 1 })
		f.stop()
		items, err := vault.KeptBelow(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		place := strings.ReplaceAll(ca.Addr().String()+":14000-dir", ":", "-")
		var names []string
		for _, item := range items {
			names = append(names, item.Name)
		}
		want := []string{
			"acme/" + place + "/users/ops@example.com/account.json",
			"certificates/" + place + "/relay.example.com/relay.example.com.crt",
			"certificates/" + place + "/relay.example.com/relay.example.com.json",
			"certificates/" + place + "/relay.example.com/relay.example.com.key",
			"in-use/relay.example.com.json",
		}
		if !slices.Equal(names, want) {
			t.Errorf("got %q, want %q", names, want)
		}
	})
	t.Run("nonces that are refused do not matter", func(t *testing.T) {
		t.Parallel()
		ca := acmetest.Start(t, acmetest.Options{RejectNonces: 50})
		begun := time.Now()
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"))
		wait(t, "the certificate", func() bool { return f.obtained() == 1 })
		t.Logf("obtained after %s", time.Since(begun).Round(time.Millisecond))
		f.leaf(t, "relay.example.com")
	})
	t.Run("without the authority handshakes are refused and the reason is told, until it is there", func(t *testing.T) {
		t.Parallel()
		ca := acmetest.Start(t, acmetest.Options{})
		ca.Stop(t)
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"))
		wait(t, "a failure", func() bool { return f.logs.FilterMessage("certificate not obtained").Len() > 1 })
		trouble := f.Trouble()
		if len(trouble) != 1 || !strings.HasPrefix(trouble[0], "certificate of relay.example.com: ") || !strings.Contains(trouble[0], "connection refused") {
			t.Errorf("got trouble %q, want the reason", trouble)
		}
		wantRefusal(t, f, &tls.Config{ServerName: "relay.example.com"})
		if answer := speakPlain(t, f.Addr().String()); strings.Contains(answer, "hello") {
			t.Errorf("without TLS: got %q, want no service", answer)
		}
		ca.Restart(t)
		wait(t, "the certificate", func() bool { return f.obtained() == 1 })
		if got := f.Trouble(); len(got) != 0 {
			t.Errorf("then: got trouble %q, want none", got)
		}
		f.leaf(t, "relay.example.com")
	})
	t.Run("a name that does not lead here is told, and the others have theirs", func(t *testing.T) {
		t.Parallel()
		ca := acmetest.Start(t, acmetest.Options{})
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "nowhere.example.com", "relay.example.com"))
		wait(t, "the certificate and a failure", func() bool {
			return f.obtained() == 1 && f.logs.FilterMessage("certificate not obtained").Len() > 0
		})
		f.leaf(t, "relay.example.com")
		if got := f.Trouble(); len(got) != 1 || !strings.HasPrefix(got[0], "certificate of nowhere.example.com: ") {
			t.Errorf("got trouble %q, want that of one name", got)
		}
	})
	t.Run("an external account is bound", func(t *testing.T) {
		t.Parallel()
		const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
		ca := acmetest.Start(t, acmetest.Options{ExternalAccounts: map[string]string{"kid-1": key}})
		o := acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com")
		f := newFront(t, ca, o)
		wait(t, "a refusal without one", func() bool {
			trouble := f.Trouble()
			return len(trouble) == 1 && strings.Contains(trouble[0], "externalAccountRequired")
		})
		f.stop()
		o.KeyID, o.MACKey = "kid-1", key
		again := newFront(t, ca, o)
		wait(t, "the certificate", func() bool { return again.obtained() == 1 })
		for _, line := range again.logs.All() {
			if strings.Contains(fmt.Sprint(line.Message, line.ContextMap()), key) {
				t.Errorf("the log holds the key: %s", line.Message)
			}
		}
	})
	t.Run("client certificates are not asked of the authority", func(t *testing.T) {
		t.Parallel()
		ca, l := acmetest.Start(t, acmetest.Options{}), newAuthorityFiles(t)
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"),
			func(o *Options) { o.TLS.Files.CA = l.caFile })
		wait(t, "the certificate", func() bool { return f.obtained() == 1 })
		config := &tls.Config{RootCAs: ca.Roots(t)}
		if status, body, err := f.get(t, "https://relay.example.com/", config); err == nil {
			t.Errorf("without a client certificate: got %d %q, want none", status, body)
		}
		config.Certificates = []tls.Certificate{l.client(t, "shop")}
		if status, _, err := f.get(t, "https://relay.example.com/", config); err != nil || status != http.StatusOK {
			t.Errorf("with one: got %d, error %v", status, err)
		}
	})
	t.Run("a challenge that nobody has asked for is refused", func(t *testing.T) {
		t.Parallel()
		ca := acmetest.Start(t, acmetest.Options{})
		f := newFront(t, ca, acmeOptions(t, ca, storetest.NewMemory(storetest.MemoryOptions{}), "relay.example.com"))
		wait(t, "the certificate", func() bool { return f.obtained() == 1 })
		wantRefusal(t, f, &tls.Config{ServerName: "relay.example.com", NextProtos: []string{challengeProtocol}})
		wantRefusal(t, f, &tls.Config{ServerName: "other.example.com"})
	})
}

// wantRefusal wants a listener to show no certificate at all.
func wantRefusal(t *testing.T, f *front, config *tls.Config) {
	t.Helper()
	_, err := shake(f.Addr().String(), config)
	if shown, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		t.Errorf("as %s, %q: got a certificate of %q, want none", config.ServerName, config.NextProtos, shown.UnverifiedCertificates[0].DNSNames)
	} else if err == nil {
		t.Errorf("as %s, %q: got a handshake, want none", config.ServerName, config.NextProtos)
	}
}

// speakPlain sends a request without TLS and returns what comes back.
func speakPlain(t *testing.T, address string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: relay.example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil && len(answer) == 0 && !errors.Is(err, io.EOF) {
		return err.Error()
	}
	return string(answer)
}
