package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/listen/acmetest"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

// httpsConfig is baseConfig with a listener for other hosts.
func httpsConfig(keys string) string {
	address := "address: '127.0.0.1:8443', "
	if strings.Contains(keys, "address:") {
		address = ""
	}
	return "listen: {https: {" + address + keys + "}}" + baseConfig
}

// httpsChanges is keyChanges for the keys below listen.https.
func httpsChanges(t *testing.T, dir string, ca *receiver.CA) map[string]string {
	t.Helper()
	certFile, keyFile := writeServerCertificate(t, ca, dir)
	caFile := filepath.Join(dir, "ca.pem")
	acme := func(keys string) string { return httpsConfig("domains: [relay.example.com], acme: {" + keys + "}") }
	files := httpsConfig(fmt.Sprintf("cert_file: %q, key_file: %q", certFile, keyFile))
	return map[string]string{
		"listen.https.address":                        httpsConfig("address: '127.0.0.1:9443', domains: [relay.example.com]"),
		"listen.https.domains":                        httpsConfig("domains: [other.example.com]"),
		"listen.https.cert_file":                      files,
		"listen.https.key_file":                       files,
		"listen.https.client_ca_file":                 httpsConfig(fmt.Sprintf("domains: [relay.example.com], client_ca_file: %q", caFile)),
		"listen.https.acme.email":                     acme("email: ops@example.com"),
		"listen.https.acme.directory":                 acme("directory: 'https://acme.example.com:9000/dir'"),
		"listen.https.acme.ca_file":                   acme(fmt.Sprintf("ca_file: %q", caFile)),
		"listen.https.acme.allow_networks":            acme("allow_networks: [10.20.0.0/16]"),
		"listen.https.acme.external_account.key_id":   acme("external_account: {key_id: k1, hmac_key: c2VjcmV0}"),
		"listen.https.acme.external_account.hmac_key": acme("external_account: {key_id: k, hmac_key: c2VjcmV1}"),
	}
}

// writeServerCertificate writes a certificate of relay.example.com and its key.
func writeServerCertificate(t *testing.T, ca *receiver.CA, dir string) (certFile, keyFile string) {
	t.Helper()
	cert, err := ca.Issue("relay.example.com")
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := receiver.EncodePEM(cert)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "relay.crt"), filepath.Join(dir, "relay.key")
	replaceFile(t, certFile, string(chain))
	replaceFile(t, keyFile, string(key))
	return certFile, keyFile
}

// describeHTTPS is describePlan for the listener for other hosts.
func describeHTTPS(w io.Writer, h *https) {
	if h == nil {
		return
	}
	fmt.Fprintln(w, h.address, h.files)
	if a := h.acme; a != nil {
		fmt.Fprintln(w, a.names, a.directory, a.email, a.keyID, a.macKey, a.roots, a.dialer.Allow, a.dialer.Deny, a.dialer.Resolve, a.dialer.Proxy != nil)
	}
}

func TestHTTPSFaults(t *testing.T) {
	dir := t.TempDir()
	ca, err := receiver.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	certFile, _ := writeServerCertificate(t, ca, dir)
	for _, c := range []struct{ keys, want string }{
		{"domains: ['*.example.com']", "listen.https.domains[0]: a wildcard"},
		{"domains: [a.example, A.example]", "listen.https.domains[1]: the same name"},
		{"domains: [127.0.0.1]", "listen.https.domains[0]: an address"},
		{"domains: [a.example], acme: {email: 'a@b, c@d'}", "listen.https.acme.email: not a mail address"},
		{"domains: [a.example], acme: {directory: 'http://acme.example.com/'}", "listen.https.acme.directory: only https"},
		{"domains: [a.example], acme: {directory: 'https://10.20.0.7:9000/'}", "allow_networks"},
		{"domains: [a.example], acme: {directory: 'https://169.254.169.254/', allow_networks: [0.0.0.0/0]}", "nothing opens it"},
		{"domains: [a.example], acme: {allow_networks: [169.254.0.0/16]}", "listen.https.acme.allow_networks[0]"},
		{"domains: [a.example], acme: {ca_file: none.pem}", "listen.https.acme.ca_file: read file"},
		{"domains: [a.example], acme: {external_account: {key_id: k, hmac_key: 'canary!!'}}", "listen.https.acme.external_account.hmac_key: not in base64url"},
		{"domains: [a.example], client_ca_file: none.pem", "listen.https.client_ca_file: read file"},
		{fmt.Sprintf("cert_file: %q", certFile), "listen.https.key_file: missing"},
		{fmt.Sprintf("cert_file: %q, key_file: %q", certFile, certFile), "listen.https.key_file: "},
	} {
		t.Run(c.want, func(t *testing.T) {
			cfg, err := config.Parse("postern.yaml", []byte(httpsConfig(c.keys)), nil)
			if err != nil {
				t.Fatalf("config: %v", err)
			}
			_, faults := newPlan(cfg, LoadOptions{})
			if len(faults) != 1 || !strings.Contains(faults.Error(), c.want) || strings.Contains(faults.Error(), "canary") {
				t.Errorf("got %v, want one fault with %q", faults, c.want)
			}
		})
	}
}

// pebbleListen is the section listen of a config whose certificate comes from Pebble.
func pebbleListen(ca *acmetest.Authority) string {
	return fmt.Sprintf(`listen:
  ingest: 127.0.0.1:0
  admin: 127.0.0.1:0
  tokens: [{name: shop, token: 0123456789abcdef}]
  https:
    address: %s
    domains: [relay.example.com]
    acme: {email: ops@example.com, directory: %q, ca_file: %q, allow_networks: [127.0.0.0/8]}
`, ca.Listen(), ca.Directory(), ca.CAFile())
}

// withBadger has a rig keep its records in a folder.
func withBadger(t *testing.T, path string) func(*rig) {
	return func(r *rig) {
		s, err := badgerstore.Open(badgerstore.Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		r.Store, r.Backups = s, s
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("close store: %v", err)
			}
		})
	}
}

// call makes a request over TLS to the listener for other hosts.
func (r *rig) call(t *testing.T, method, path string, roots *x509.CertPool, body string, header ...string) (status int, answer string, err error) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", r.secure.Addr().String())
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://relay.example.com"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// ready asks the admin listener whether the relay is ready.
func (r *rig) ready(t *testing.T) (status int, reasons []string) {
	t.Helper()
	resp, err := r.client.Get("http://" + r.backAddr() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Reasons []string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer.Reasons
}

const (
	rigTokenHeader = "Authorization"
	rigToken       = "Bearer 0123456789abcdef"
)

func TestHTTPSWithCertificatesFromAnAuthority(t *testing.T) {
	ca, folder := acmetest.Start(t, acmetest.Options{}), t.TempDir()
	destinations := "destinations: {a: {url: https://a.test/}}\n"
	r := newRig(t, pebbleListen(ca)+destinations, withBadger(t, folder))
	until(t, "the relay is ready", func() bool { status, _ := r.ready(t); return status == http.StatusOK })
	roots := ca.Roots(t)

	t.Run("an app on another host posts with its token, and it is delivered", func(t *testing.T) {
		status, answer, err := r.call(t, http.MethodPost, "/to/a", roots, `{"n":1}`, rigTokenHeader, rigToken)
		if err != nil || status != http.StatusAccepted {
			t.Fatalf("got %d %s, error %v; want 202", status, answer, err)
		}
		until(t, "the delivery", func() bool { return len(r.far.of("a.test")) == 1 })
	})
	t.Run("without a token it gets nothing", func(t *testing.T) {
		if status, answer, err := r.call(t, http.MethodPost, "/to/a", roots, `{}`); err != nil || status != http.StatusUnauthorized {
			t.Errorf("got %d %s, error %v; want 401", status, answer, err)
		}
	})
	t.Run("administration is not to be had there", func(t *testing.T) {
		for _, path := range []string{"/", "/api/v1/deliveries", "/metrics", "/readyz", "/livez"} {
			if status, answer, err := r.call(t, http.MethodGet, path, roots, "", rigTokenHeader, rigToken); err != nil || status/100 == 2 {
				t.Errorf("%s: got %d %s, error %v; want no success", path, status, answer, err)
			}
		}
	})
	t.Run("nothing of the certificates is in the API, in metrics or in a backup without being asked for", func(t *testing.T) {
		items, err := r.Store.KeptBelow(t.Context(), "")
		if err != nil || len(items) < 4 {
			t.Fatalf("vault: got %d items, error %v; want an account and a certificate", len(items), err)
		}
		var canaries []string
		for _, item := range items {
			kept, err := r.Store.Kept(t.Context(), item.Name)
			if err != nil {
				t.Fatal(err)
			}
			canaries = append(canaries, item.Name)
			for line := range strings.Lines(strings.ReplaceAll(string(kept.Value), `\n`, "\n")) {
				if line = strings.TrimSpace(line); len(line) == 64 {
					canaries = append(canaries, line)
				}
			}
		}
		var seen bytes.Buffer
		for _, path := range []string{"/api/v1/deliveries", "/api/v1/destinations", "/api/v1/openapi.json", "/metrics"} {
			resp, err := r.client.Get("http://" + r.backAddr() + path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(&seen, resp.Body); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		for _, line := range r.logs.All() {
			fmt.Fprintln(&seen, line.Message, line.ContextMap())
		}
		backup, err := r.Backups.Backup(t.Context(), store.BackupOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer backup.Close()
		if _, err := io.Copy(&seen, backup); err != nil {
			t.Fatal(err)
		}
		for _, canary := range canaries {
			if bytes.Contains(seen.Bytes(), []byte(canary)) {
				t.Errorf("%q is to be seen", canary)
			}
		}
		if backup.Counts.Keys != 0 {
			t.Errorf("the backup counts %d keys, want none", backup.Counts.Keys)
		}
	})
	t.Run("the metric says when the certificate expires", func(t *testing.T) {
		certs := r.secure.Certificates()
		if len(certs) != 1 || certs[0].Expires.Before(time.Now().Add(80*24*time.Hour)) {
			t.Errorf("got %+v, want one that is good for 90 days", certs)
		}
	})
	t.Run("other tokens come in force for it too", func(t *testing.T) {
		r.reloadWith(t, strings.Replace(pebbleListen(ca), "0123456789abcdef", "fedcba9876543210", 1)+destinations)
		for token, want := range map[string]int{"0123456789abcdef": 401, "fedcba9876543210": 202} {
			if status, answer, err := r.call(t, http.MethodPost, "/to/a", roots, `{}`, rigTokenHeader, "Bearer "+token); err != nil || status != want {
				t.Errorf("%s: got %d %s, error %v; want %d", token, status, answer, err, want)
			}
		}
	})
	t.Run("another name needs a restart", func(t *testing.T) {
		got := r.reloadWith(t, strings.Replace(pebbleListen(ca), "relay.example.com", "other.example.com", 1)+destinations)
		if len(got.NeedRestart) != 1 || got.NeedRestart[0] != "listen.https" {
			t.Errorf("got %q, want listen.https", got.NeedRestart)
		}
	})
	t.Run("after a restart without the authority it serves by what the store has", func(t *testing.T) {
		r.stop()
		if err := r.Store.Close(); err != nil {
			t.Fatal(err)
		}
		ca.Stop(t)
		again := newRig(t, pebbleListen(ca)+destinations, withBadger(t, folder))
		begun := time.Now()
		until(t, "the relay is ready", func() bool { status, _ := again.ready(t); return status == http.StatusOK })
		t.Logf("ready after %s", time.Since(begun).Round(time.Millisecond))
		if status, answer, err := again.call(t, http.MethodPost, "/to/a", roots, `{"n":2}`, rigTokenHeader, rigToken); err != nil || status != http.StatusAccepted {
			t.Errorf("got %d %s, error %v; want 202", status, answer, err)
		}
	})
}

func TestHTTPSWithoutItsAuthority(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	ca.Stop(t)
	r := newRig(t, pebbleListen(ca)+"destinations: {a: {url: https://a.test/}}\n")
	until(t, "the reason", func() bool {
		status, reasons := r.ready(t)
		return status == http.StatusServiceUnavailable && len(reasons) == 1 && strings.HasPrefix(reasons[0], "certificate of relay.example.com: ") &&
			strings.Contains(reasons[0], "connection refused")
	})
	overview, err := admin.Client{Address: r.backAddr()}.Overview(t.Context())
	if err != nil || overview.Store.Full != "" || !strings.HasPrefix(overview.HTTPS.Trouble, "certificate of relay.example.com: ") {
		t.Errorf("got %+v and %+v, error %v; want messages taken, and the reason under https", overview.Store, overview.HTTPS, err)
	}
	if status, answer, err := r.call(t, http.MethodPost, "/to/a", nil, "{}", rigTokenHeader, rigToken); err == nil {
		t.Errorf("over TLS: got %d %s, want no handshake", status, answer)
	}
	if status, answer := r.post(t, "/to/a", "{}", rigTokenHeader, rigToken); status != http.StatusAccepted {
		t.Errorf("on loopback: got %d %s, want 202", status, answer)
	}
	until(t, "the delivery", func() bool { return len(r.far.of("a.test")) == 1 })
}

func TestHTTPSWithFiles(t *testing.T) {
	dir := t.TempDir()
	ca, err := receiver.NewCA("https tests")
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := writeServerCertificate(t, ca, dir)
	r := newRig(t, fmt.Sprintf("listen: {ingest: '127.0.0.1:0', admin: '127.0.0.1:0', https: {address: '127.0.0.1:0', cert_file: %q, key_file: %q}}\n", certFile, keyFile)+
		"destinations: {a: {url: https://a.test/}}\n")
	if status, answer, err := r.call(t, http.MethodPost, "/to/a", ca.Pool(), "{}"); err != nil || status != http.StatusAccepted {
		t.Errorf("got %d %s, error %v; want 202", status, answer, err)
	}
	if status, reasons := r.ready(t); status != http.StatusOK {
		t.Errorf("got %d %q, want ready", status, reasons)
	}
	serial := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", r.secure.Addr().String(), &tls.Config{ServerName: "relay.example.com", RootCAs: ca.Pool()})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	writeServerCertificate(t, ca, dir)
	until(t, "the new certificate", func() bool { return serial() != before })
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if status, answer, err := r.call(t, http.MethodPost, "/to/a", ca.Pool(), "{}"); err != nil || status != http.StatusAccepted {
		t.Errorf("without the file: got %d %s, error %v; want 202", status, answer, err)
	}
}
