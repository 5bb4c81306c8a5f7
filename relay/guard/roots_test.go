package guard

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRootsBesideTheSystem(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	alone := x509.NewCertPool()
	beside, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	for _, pool := range []*x509.CertPool{alone, beside} {
		if !pool.AppendCertsFromPEM(text) {
			t.Fatal("not a certificate")
		}
	}
	for _, tt := range []struct {
		beside bool
		want   *x509.CertPool
	}{{false, alone}, {true, beside}} {
		got, err := TLSFiles{CA: file, BesideSystem: tt.beside}.load()
		if err != nil || !got.roots.Equal(tt.want) {
			t.Errorf("beside the system %t: got other roots, error %v", tt.beside, err)
		}
	}
}
