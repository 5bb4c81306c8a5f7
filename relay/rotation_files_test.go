package relay

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// newAuthority makes an authority, and a certificate of it for the hosts of a rig.
func newAuthority(t *testing.T, name string) (*receiver.CA, *tls.Certificate) {
	t.Helper()
	ca, err := receiver.NewCA(name)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(rigHosts...)
	if err != nil {
		t.Fatal(err)
	}
	return ca, &cert
}

// pemOf returns a certificate and its key as PEM files hold them.
func pemOf(t *testing.T, cert tls.Certificate) (certificate, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// newClient makes a client certificate with a common name.
func newClient(t *testing.T, name string) (certificate, key string) {
	t.Helper()
	ca, err := receiver.NewCA("clients")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.IssueClient(name)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf(t, cert)
}

func TestClientCertificatesRotate(t *testing.T) {
	for _, first := range []string{"cert", "key"} {
		t.Run(first+" first", func(t *testing.T) {
			oldCert, oldKey := newClient(t, "old")
			newCert, newKey := newClient(t, "new")
			r := newRotating(t, map[string]string{"cert": oldCert, "key": oldKey}, `destinations:
  a: {url: "https://a.test/", tls: {cert_file: DIR/cert, key_file: DIR/key}}
`)
			next := map[string]string{"cert": newCert, "key": newKey}
			second := map[string]string{"cert": "key", "key": "cert"}[first]
			if got := r.deliver(t, "a").client; got != "old" {
				t.Errorf("at the beginning: got client %q, want old", got)
			}
			replaceFile(t, r.file(first), next[first])
			refused := func() int {
				return r.logs.FilterMessage("certificate files refused, the earlier ones stay in use").Len()
			}
			until(t, "the half is refused", func() bool {
				if got := r.deliver(t, "a").client; got != "old" {
					t.Errorf("with half of the pair replaced: got client %q, want old", got)
				}
				return refused() > 0
			})
			r.reloads(t, 0, 1)
			replaceFile(t, r.file(second), next[second])
			until(t, "the pair is in use", func() bool {
				switch got := r.deliver(t, "a").client; got {
				case "new":
					return true
				case "old":
				default:
					t.Errorf("got client %q, want old or new", got)
				}
				return false
			})
			r.reloads(t, 1, 1)
			if n := r.logs.FilterMessage("certificate files reloaded").Len(); n != 1 || refused() != 1 {
				t.Errorf("got %d lines about certificates in use and %d about such that are not, want one each", n, refused())
			}
		})
	}
}

func TestRootsRotate(t *testing.T) {
	oldCA, oldCert := newAuthority(t, "old")
	newCA, newCert := newAuthority(t, "new")
	r := newRotating(t, map[string]string{"ca": string(oldCA.PEM())}, `destinations: {a: {url: "https://a.test/", tls: {ca_file: DIR/ca}, breaker: none}}`)
	// present has the receiver show a certificate to those who connect from now on.
	present := func(cert *tls.Certificate) {
		r.far.mu.Lock()
		defer r.far.mu.Unlock()
		r.far.cert, r.far.shown = cert, 0
	}
	shown := func() int {
		r.far.mu.Lock()
		defer r.far.mu.Unlock()
		return r.far.shown
	}
	// Each change of the file closes the connections of the earlier roots.
	connects := func(what string) {
		t.Helper()
		until(t, what, func() bool { r.deliver(t, "a"); return shown() > 0 })
	}
	present(oldCert)
	connects("the receiver's certificate is taken")
	replaceFile(t, r.file("ca"), string(oldCA.PEM())+string(newCA.PEM()))
	present(oldCert)
	connects("with both roots, the receiver may still have the old one")
	present(newCert)
	replaceFile(t, r.file("ca"), string(newCA.PEM())+string(oldCA.PEM()))
	connects("with both roots, the receiver may have the new one")
	present(newCert)
	replaceFile(t, r.file("ca"), string(newCA.PEM()))
	connects("with the new root alone")
	for _, spoilt := range []string{"", string(newCA.PEM())[:200], "no certificate"} {
		replaceFile(t, r.file("ca"), spoilt)
		before := r.logs.FilterMessage("certificate files refused, the earlier ones stay in use").Len()
		until(t, "a file without a root is refused", func() bool {
			r.deliver(t, "a")
			return r.logs.FilterMessage("certificate files refused, the earlier ones stay in use").Len() > before
		})
	}
	present(oldCert)
	replaceFile(t, r.file("ca"), string(newCA.PEM())+"\n")
	until(t, "the old root is trusted no more", func() bool {
		id := r.accept(t, "a")
		until(t, "there is an attempt", func() bool { return r.delivery(t, id).Made > 0 })
		return r.delivery(t, id).Last.Class == store.ClassTLS
	})
}

// mounted is a folder as Kubernetes mounts a Secret: each file is a link through ..data, which is swapped.
type mounted struct {
	dir     string
	version int
}

func (m *mounted) swap(t *testing.T, files map[string]string) {
	t.Helper()
	m.version++
	version := fmt.Sprintf("..2026_%d", m.version)
	if err := os.Mkdir(filepath.Join(m.dir, version), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		writeTo(t, filepath.Join(m.dir, version, name), text)
		if m.version == 1 {
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(m.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink(version, filepath.Join(m.dir, "..data_tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(m.dir, "..data_tmp"), filepath.Join(m.dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(m.dir, fmt.Sprintf("..2026_%d", m.version-1))); err != nil {
		t.Fatal(err)
	}
}

func TestAMountedSecretRotatesAsAWhole(t *testing.T) {
	m := &mounted{dir: t.TempDir()}
	ca, cert := newAuthority(t, "receivers")
	roots, client := map[string]string{}, map[string]string{}
	keys := newKeys(t, "standard", 3)
	files := func(n int) map[string]string {
		name := fmt.Sprint("client ", n)
		certificate, key := newClient(t, name)
		other, _ := newAuthority(t, "other") // so that each version of the file is another
		roots[name], client[name] = string(other.PEM())+string(ca.PEM()), certificate
		return map[string]string{
			"token": fmt.Sprintf("canary-app-token-%d", n), "bearer": fmt.Sprintf("canary-bearer-%d", n), "key": keys[n].Secret,
			"client.crt": certificate, "client.key": key, "ca.crt": roots[name],
		}
	}
	m.swap(t, files(0))
	r := newRotating(t, nil, strings.ReplaceAll(`
listen: {ingest: "127.0.0.1:0", admin: "127.0.0.1:0", tokens: ["${file:MOUNT/token}"]}
destinations:
  a:
    url: https://a.test/
    auth: {bearer: {token: "${file:MOUNT/bearer}"}}
    sign: [{standard: {secrets: ["${file:MOUNT/key}"]}}]
    tls: {ca_file: MOUNT/ca.crt, cert_file: MOUNT/client.crt, key_file: MOUNT/client.key}
`, "MOUNT", m.dir))
	r.far.mu.Lock()
	r.far.cert = cert
	r.far.mu.Unlock()
	for n := range 3 {
		if n > 0 {
			m.swap(t, files(n))
			r.reloads(t, n, 0)
		}
		verifier, err := sign.NewStandard([]string{keys[n].Secret})
		if err != nil {
			t.Fatal(err)
		}
		id := r.accept(t, "a", "Authorization", fmt.Sprintf("Bearer canary-app-token-%d", n))
		r.awaitState(t, id, store.Delivered)
		all := r.far.of("a.test")
		req := all[len(all)-1]
		if err := verifier.Verify(req.header, []byte(req.body), time.Now()); err != nil {
			t.Errorf("version %d: %v", n, err)
		}
		if got, want := req.header.Get("Authorization")+" "+req.client, fmt.Sprintf("Bearer canary-bearer-%d client %d", n, n); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestCertificatesOfAPlan(t *testing.T) {
	dir := t.TempDir()
	old, _ := newAuthority(t, "old root")
	next, _ := newAuthority(t, "new\nroot\x1b[2J")
	certificate, key := newClient(t, "postern")
	writeTo(t, filepath.Join(dir, "ca"), string(old.PEM())+"a word between them\n"+string(next.PEM()))
	writeTo(t, filepath.Join(dir, "cert"), certificate+key)
	writeTo(t, filepath.Join(dir, "postern.yaml"), `
listen: {https: {address: "127.0.0.1:0", domains: [relay.example.com], client_ca_file: ca, acme: {ca_file: ca}}}
defaults: {tls: {ca_file: ca}}
destinations:
  a.b: {url: "https://a.test/", tls: {cert_file: cert, key_file: cert}}
  c: {url: "https://b.test/", auth: {bearer: {token: canary-0123456789-abcdef}}}
`)
	_, plan, err := Load(filepath.Join(dir, "postern.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := plan.Certificates()
	if err != nil {
		t.Fatal(err)
	}
	shown := func(texts ...string) (all []config.Certificate) {
		for _, text := range texts {
			block, _ := pem.Decode([]byte(text))
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(block.Bytes)
			all = append(all, config.Certificate{SHA256: hex.EncodeToString(sum[:]), Subject: c.Subject.String(), NotAfter: c.NotAfter.UTC()})
		}
		return all
	}
	roots := shown(string(old.PEM()), string(next.PEM()))
	roots[1].Subject = "CN=new root?[2J"
	want := map[string][]config.Certificate{
		"listen.https.client_ca_file": roots, "listen.https.acme.ca_file": roots,
		"destinations.a.b.tls.ca_file": roots, "destinations.a.b.tls.cert_file": shown(certificate), "destinations.c.tls.ca_file": roots,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for name, shown := range plan.shown { // more people see the API than may read the config
		if strings.Contains(string(shown.config), "sha256:") {
			t.Errorf("the API shows a fingerprint in the config of %s: %s", name, shown.config)
		}
	}
	for what, spoil := range map[string]func(path string) error{
		"gone": func(string) error { return nil },
		"malformed": func(path string) error {
			return os.WriteFile(path, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600)
		},
		"a folder":  func(path string) error { return os.Mkdir(path, 0o700) },
		"too large": func(path string) error { return os.WriteFile(path, make([]byte, 4<<20+1), 0o600) },
	} {
		path := filepath.Join(dir, "ca")
		_ = os.Remove(path)
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		if all, err := plan.Certificates(); err == nil || !strings.HasPrefix(err.Error(), "destinations.a.b.tls.ca_file: ") || !strings.Contains(err.Error(), path) {
			t.Errorf("a file that is %s: got %v and %v, want an error with key and path", what, all, err)
		}
	}
}
