package guard_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/guard"
)

// client is a client certificate in PEM.
type client struct{ cert, key []byte }

// clientCert makes a client certificate with the given serial number and life.
func (a *authority) clientCert(tb testing.TB, serial int64, begin, end time.Time) client {
	tb.Helper()
	key := newKey(tb)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "postern"}, NotBefore: begin, NotAfter: end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return client{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM(tb, key)}
}

func keyPEM(tb testing.TB, key any) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// folder is a folder of files for one test.
type folder struct {
	tb  testing.TB
	dir string
}

func newFolder(tb testing.TB) folder { return folder{tb, tb.TempDir()} }

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f folder) write(name string, text []byte) string {
	f.tb.Helper()
	if err := os.WriteFile(f.path(name), text, 0o600); err != nil {
		f.tb.Fatal(err)
	}
	return f.path(name)
}

// put writes a pair as cert.pem and key.pem.
func (f folder) put(c client) {
	f.tb.Helper()
	f.write("cert.pem", c.cert)
	f.write("key.pem", c.key)
}

func TestTLSFilesCheck(t *testing.T) {
	ca := newAuthority(t)
	now := time.Now()
	one, two := ca.clientCert(t, 1, now, now.Add(time.Hour)), ca.clientCert(t, 2, now, now.Add(time.Hour))
	f := newFolder(t)
	cert, key := f.write("cert", one.cert), f.write("key", one.key)
	block, _ := pem.Decode(one.key)
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: block.Bytes})
	legacy := pem.EncodeToMemory(&pem.Block{
		Type: "EC PRIVATE KEY", Bytes: block.Bytes,
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"},
	})
	cut := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes[:40]})
	bad := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")})
	fifo := f.path("fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	big := f.path("big")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, 4<<20+1); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		files guard.TLSFiles
		want  []string // each error as option: part of its text
	}{
		{"no files are no fault", guard.TLSFiles{}, nil},
		{"a pair passes", guard.TLSFiles{Cert: cert, Key: key}, nil},
		{"roots pass", guard.TLSFiles{CA: f.write("ca", ca.pem())}, nil},
		{"a chain behind the certificate passes", guard.TLSFiles{Cert: f.write("chain", append(bytes.Clone(one.cert), ca.pem()...)), Key: key}, nil},
		{"both may be in one file", guard.TLSFiles{Cert: f.write("both", append(bytes.Clone(one.key), one.cert...)), Key: f.path("both")}, nil},
		{"an expired certificate passes", func() guard.TLSFiles {
			old := ca.clientCert(t, 3, now.Add(-2*time.Hour), now.Add(-time.Hour))
			return guard.TLSFiles{Cert: f.write("oldcert", old.cert), Key: f.write("oldkey", old.key)}
		}(), nil},

		{"a certificate without a key", guard.TLSFiles{Cert: cert}, []string{"key_file: missing"}},
		{"a key without a certificate", guard.TLSFiles{Key: key}, []string{"cert_file: missing"}},
		{"files that are not there are all named", guard.TLSFiles{CA: f.path("x"), Cert: f.path("y"), Key: f.path("z")},
			[]string{"ca_file: read file: stat", "cert_file: read file: stat", "key_file: read file: stat"}},
		{"an empty file", guard.TLSFiles{CA: f.write("empty", nil)}, []string{"is empty; name a PEM file"}},
		{"a pipe", guard.TLSFiles{Cert: fifo, Key: key}, []string{"cert_file: " + `"` + fifo + `" is not a file of certificates or a key`}},
		{"a folder", guard.TLSFiles{CA: f.dir}, []string{"is not a file of certificates or a key"}},
		{"more than 4 MiB", guard.TLSFiles{CA: big}, []string{"at most 4MiB"}},
		{"roots that are cut off", guard.TLSFiles{CA: f.write("cutca", append(bytes.Clone(ca.pem()), ca.pem()[:200]...))}, []string{"ca_file: certificate 2 of"}},
		{"roots of which one is malformed", guard.TLSFiles{CA: f.write("badca", append(bytes.Clone(ca.pem()), bad...))}, []string{"ca_file: certificate 2 of"}},
		{"roots without a certificate", guard.TLSFiles{CA: key}, []string{"ca_file: " + `"` + key + `" holds no certificate`}},
		{"a certificate file without PEM", guard.TLSFiles{Cert: f.write("text", []byte("hello")), Key: key}, []string{"cert_file: " + `"` + f.path("text") + `" holds no certificate`}},
		{"a malformed certificate", guard.TLSFiles{Cert: f.write("bad", bad), Key: key}, []string{"certificate 1 of"}},
		{"a malformed certificate in the chain", guard.TLSFiles{Cert: f.write("bad2", append(bytes.Clone(one.cert), bad...)), Key: key}, []string{"certificate 2 of"}},
		{"the files exchanged", guard.TLSFiles{Cert: key, Key: cert}, []string{"cert_file: " + `"` + key + `" holds a key and no certificate`}},
		{"a certificate as key", guard.TLSFiles{Cert: cert, Key: cert}, []string{"key_file: " + `"` + cert + `" holds a certificate and no key`}},
		{"a key file without PEM", guard.TLSFiles{Cert: cert, Key: f.path("text")}, []string{"holds no key; it must hold a PEM block of type PRIVATE KEY"}},
		{"the key of another certificate", guard.TLSFiles{Cert: cert, Key: f.write("other", two.key)}, []string{"does not belong to the certificate"}},
		{"an encrypted key", guard.TLSFiles{Cert: cert, Key: f.write("encrypted", encrypted)}, []string{"is encrypted, and nobody can type its password here; decrypt it (openssl pkey"}},
		{"an encrypted key of the old form", guard.TLSFiles{Cert: cert, Key: f.write("legacy", legacy)}, []string{"is encrypted"}},
		{"a key that is cut off", guard.TLSFiles{Cert: cert, Key: f.write("cut", cut)}, []string{"holds a key that cannot be read"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.files.Check()
			if (err != nil) != (tt.want != nil) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if err == nil {
				return
			}
			joined, ok := err.(interface{ Unwrap() []error })
			if !ok || len(joined.Unwrap()) != len(tt.want) {
				t.Fatalf("got %v, want %d joined errors", err, len(tt.want))
			}
			for i, one := range joined.Unwrap() {
				if _, ok := errors.AsType[*guard.FileError](one); !ok || !strings.Contains(one.Error(), tt.want[i]) {
					t.Errorf("got %v, want a *FileError with %q", one, tt.want[i])
				}
			}
			for _, secret := range secretParts(t, one.key, two.key) {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error quotes the key: %v", err)
				}
			}
			if _, again := guard.LoadTransport(guard.TransportOptions{}, tt.files); again == nil || again.Error() != err.Error() {
				t.Errorf("LoadTransport: got %v, want %v", again, err)
			}
		})
	}
}

// secretParts returns what must not be seen of keys: runs of their text.
func secretParts(tb testing.TB, keys ...[]byte) []string {
	tb.Helper()
	var parts []string
	for _, text := range keys {
		block, _ := pem.Decode(text)
		encoded := base64.StdEncoding.EncodeToString(block.Bytes)
		for i := 36; i+12 <= len(encoded); i += 6 { // what comes before is the same in all keys
			parts = append(parts, encoded[i:i+12])
		}
	}
	if len(parts) < 10 {
		tb.Fatal("no key to look for")
	}
	return parts
}

func FuzzTLSFilesCheck(f *testing.F) {
	ca := newAuthority(f)
	now := time.Now()
	one := ca.clientCert(f, 1, now, now.Add(time.Hour))
	dir := f.TempDir()
	f.Add(one.cert, one.key)
	f.Add(one.key, one.cert)
	f.Add(append(bytes.Clone(one.cert), ca.pem()...), append([]byte("text\n"), one.key...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		files := folder{t, dir}
		err := guard.TLSFiles{Cert: files.write("cert.pem", cert), Key: files.write("key.pem", key)}.Check()
		_, want := tls.X509KeyPair(cert, key)
		if err == nil && want != nil {
			t.Errorf("passes, and crypto/tls says %v", want)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}
