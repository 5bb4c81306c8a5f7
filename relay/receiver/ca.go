package receiver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Life of the certificates: long enough for any demo or test, and too short to be of use to anyone else.
const (
	caLife   = 30 * 24 * time.Hour
	leafLife = 7 * 24 * time.Hour
	skew     = time.Hour // before now: clocks differ
)

// CA is a certificate authority that lives in memory only. Its methods may be called from several goroutines.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes an authority with a fresh key. The name appears in the certificates it issues.
func NewCA(name string) (*CA, error) {
	now := time.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-skew), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	key, der, err := create(template, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("make authority %q: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read authority %q: %w", name, err)
	}
	return &CA{cert: cert, key: key}, nil
}

// Pool returns a new pool that trusts this authority and no other.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

// PEM returns the authority's certificate, as a ca_file holds it.
func (c *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

// Issue makes a server certificate for the hosts, names or IP addresses, at least one. It is valid for a week.
func (c *CA) Issue(hosts ...string) (tls.Certificate, error) {
	now := time.Now()
	return c.IssueFor(now.Add(-skew), now.Add(leafLife), hosts...)
}

// IssueFor makes a server certificate that is valid in the given time only, which may lie in the past.
func (c *CA) IssueFor(notBefore, notAfter time.Time, hosts ...string) (tls.Certificate, error) {
	return leaf(notBefore, notAfter, hosts, c.cert, c.key)
}

// IssueClient makes a client certificate (mTLS) whose subject has the given common name. It is valid for a week.
func (c *CA) IssueClient(name string) (tls.Certificate, error) {
	now := time.Now()
	return issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-skew), NotAfter: now.Add(leafLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, c.cert, c.key)
}

// EncodePEM returns a certificate of this package and its key, as a cert_file and a key_file hold them.
func EncodePEM(c tls.Certificate) (cert, key []byte, err error) {
	for _, der := range c.Certificate {
		cert = append(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// SelfSigned makes a server certificate that no authority has signed.
func SelfSigned(hosts ...string) (tls.Certificate, error) {
	now := time.Now()
	return leaf(now.Add(-skew), now.Add(leafLife), hosts, nil, nil)
}

func leaf(notBefore, notAfter time.Time, hosts []string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (tls.Certificate, error) {
	if len(hosts) == 0 {
		return tls.Certificate{}, errors.New("issue certificate: no host given")
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: hosts[0]}, NotBefore: notBefore, NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return issue(template, parent, parentKey)
}

// issue makes a certificate that signs nothing but handshakes.
func issue(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (tls.Certificate, error) {
	template.KeyUsage, template.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	key, der, err := create(template, parent, parentKey)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate for %q: %w", template.Subject.CommonName, err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read certificate for %q: %w", template.Subject.CommonName, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}, nil
}

// create signs template with a new key: by the parent, or by itself if parent is nil.
func create(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, fmt.Errorf("draw serial number: %w", err)
	}
	template.SerialNumber = serial
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate: %w", err)
	}
	return key, der, nil
}
