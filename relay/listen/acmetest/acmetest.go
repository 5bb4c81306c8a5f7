// Package acmetest is a real certificate authority for tests: Pebble, the small ACME server of Let's Encrypt, which the
// Go toolchain builds from the version that go.mod names. [Start] runs one on a loopback address of its own, with names
// that all lead to that address. Only tests import it.
package acmetest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	apiPort        = "14000"
	managementPort = "15000"
	namesPort      = "8053"
	challengePort  = 5001 // where Pebble looks for the listener that it is to validate

	startTimeout = time.Minute // a build on a busy machine included
)

// Options shape an Authority. The zero value works.
type Options struct {
	Validity     time.Duration // of certificates, in whole seconds, at least 2 s; 0 means 90 days
	RejectNonces int           // percent of the requests whose nonce is refused though it is right

	// ExternalAccounts are the keys, in base64url, of the accounts that others must be bound to, by id. Any is required
	// then.
	ExternalAccounts map[string]string

	NamesAt netip.Addr // where all names lead to; zero means Authority.Addr

	Binary string // Pebble as Build has made it; empty builds it
}

// Authority is a running Pebble. Its methods are called from the test's goroutine.
type Authority struct {
	addr   netip.Addr
	dir    string
	binary string
	env    []string
	client *http.Client // with its roots
	names  *names
	config map[string]any // under the key pebble

	running *exec.Cmd // nil while it is stopped
	ended   chan error
	log     lines
}

// Start builds and starts an Authority, which ends with the test.
func Start(tb testing.TB, o Options) *Authority {
	tb.Helper()
	a := &Authority{dir: tb.TempDir(), binary: o.Binary}
	if a.binary == "" {
		a.binary = Build(tb)
	}
	a.names = serveNames(tb, o.NamesAt)
	a.addr = a.names.addr
	a.env = []string{
		"PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0", "PEBBLE_WFE_NONCEREJECT=" + strconv.Itoa(o.RejectNonces), "HOME=" + a.dir,
	}
	a.writeCertificate(tb)
	a.configure(o)
	a.writeConfig(tb)
	tb.Cleanup(func() {
		if a.running != nil {
			a.Stop(tb)
		}
		if tb.Failed() {
			tb.Logf("Pebble's log:\n%s", a.log.String())
		}
	})
	a.Restart(tb)
	return a
}

// Build builds Pebble, if that was not done before, and returns its path.
func Build(tb testing.TB) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "tool", "-n", "pebble")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("build Pebble: %v\n%s", err, complaints.String())
	}
	return strings.TrimSpace(string(out))
}

func (a *Authority) at(port string) string { return net.JoinHostPort(a.addr.String(), port) }

// Addr is the address that all names lead to.
func (a *Authority) Addr() netip.Addr { return a.addr }

// Directory is the URL of its directory.
func (a *Authority) Directory() string { return "https://" + a.at(apiPort) + "/dir" }

// CAFile is a PEM file with the root that the certificate of its own API is checked against.
func (a *Authority) CAFile() string { return filepath.Join(a.dir, "api-ca.pem") }

// Listen is the address, with a port, that it connects to in order to check a name.
func (a *Authority) Listen() string { return a.at(strconv.Itoa(challengePort)) }

// Stop ends it at once, as a kill does. It forgets all accounts and certificates.
func (a *Authority) Stop(tb testing.TB) {
	tb.Helper()
	if err := a.running.Process.Kill(); err != nil {
		tb.Fatalf("kill Pebble: %v", err)
	}
	<-a.ended
	a.running = nil
	a.client.CloseIdleConnections()
}

// Restart starts it after a Stop, with another root.
func (a *Authority) Restart(tb testing.TB) {
	tb.Helper()
	a.running = exec.Command(a.binary, "-config", filepath.Join(a.dir, "config.json"), "-dnsserver", a.at(namesPort), "-strict")
	a.running.Env, a.running.Dir = a.env, a.dir
	a.running.Stdout, a.running.Stderr = &a.log, &a.log
	if err := a.running.Start(); err != nil {
		tb.Fatalf("start Pebble: %v", err)
	}
	running, ended := a.running, make(chan error, 1)
	a.ended = ended
	go func() { ended <- running.Wait() }()
	deadline := time.Now().Add(startTimeout)
	for {
		if _, err := a.get("https://" + a.at(managementPort) + "/roots/0"); err == nil {
			if _, err = a.get(a.Directory()); err == nil {
				return
			}
		}
		select {
		case err := <-ended:
			a.running = nil
			tb.Fatalf("Pebble has ended: %v\n%s", err, a.log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			tb.Fatalf("Pebble does not answer\n%s", a.log.String())
		}
	}
}

// Roots returns what the certificates that it issues now are checked against.
func (a *Authority) Roots(tb testing.TB) *x509.CertPool {
	tb.Helper()
	text, err := a.get("https://" + a.at(managementPort) + "/roots/0")
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(text) {
		tb.Fatalf("ask Pebble for its root: %d bytes, error %v", len(text), err)
	}
	return pool
}

// Orders returns how many certificates it has been asked for, in its whole life.
func (a *Authority) Orders() int { return strings.Count(a.log.String(), "POST /order-plz") }

// Block has it refuse orders for some names, and for no others, from the next Restart on.
func (a *Authority) Block(tb testing.TB, names ...string) {
	tb.Helper()
	a.config["domainBlocklist"] = names
	a.writeConfig(tb)
}

// Suspend halts it without closing anything: its connections stay, and nobody answers, until Resume.
func (a *Authority) Suspend(tb testing.TB) { a.signal(tb, syscall.SIGSTOP) }

// Resume ends a Suspend.
func (a *Authority) Resume(tb testing.TB) { a.signal(tb, syscall.SIGCONT) }

func (a *Authority) signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if err := a.running.Process.Signal(s); err != nil {
		tb.Fatalf("signal Pebble: %v", err)
	}
}

// RenewNow has it say of a certificate, to whoever asks, that it is to be renewed at once (RFC 9773).
func (a *Authority) RenewNow(tb testing.TB, leaf *x509.Certificate) {
	tb.Helper()
	window, err := json.Marshal(map[string]any{"suggestedWindow": map[string]time.Time{
		"start": leaf.NotBefore.Add(-time.Minute), "end": leaf.NotBefore.Add(-30 * time.Second),
	}})
	if err != nil {
		tb.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})), "ARIResponse": string(window),
	})
	if err != nil {
		tb.Fatal(err)
	}
	resp, err := a.client.Post("https://"+a.at(managementPort)+"/set-renewal-info/", "application/json", bytes.NewReader(text))
	if err != nil {
		tb.Fatalf("tell Pebble when to renew: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		tb.Fatalf("tell Pebble when to renew: status %d", resp.StatusCode)
	}
}

func (a *Authority) get(url string) ([]byte, error) {
	resp, err := a.client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}

// writeCertificate makes the certificate of the API, self-signed.
func (a *Authority) writeCertificate(tb testing.TB) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Pebble's API"}, IPAddresses: []net.IP{a.addr.AsSlice()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		a.CAFile(): {Type: "CERTIFICATE", Bytes: der}, filepath.Join(a.dir, "api-key.pem"): {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	a.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

func (a *Authority) configure(o Options) {
	validity := o.Validity
	if validity == 0 {
		validity = 90 * 24 * time.Hour
	}
	a.config = map[string]any{
		"listenAddress": a.at(apiPort), "managementListenAddress": a.at(managementPort),
		"certificate": a.CAFile(), "privateKey": filepath.Join(a.dir, "api-key.pem"),
		"httpPort": 5002, "tlsPort": challengePort, "keyAlgorithm": "ecdsa",
		"externalAccountBindingRequired": len(o.ExternalAccounts) > 0, "externalAccountMACKeys": o.ExternalAccounts,
		"profiles":   map[string]any{"default": map[string]any{"description": "tests", "validityPeriod": int(validity / time.Second)}},
		"retryAfter": map[string]any{"authz": 1, "order": 1},
	}
}

func (a *Authority) writeConfig(tb testing.TB) {
	tb.Helper()
	text, err := json.Marshal(map[string]any{"pebble": a.config})
	if err == nil {
		err = os.WriteFile(filepath.Join(a.dir, "config.json"), text, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
}
