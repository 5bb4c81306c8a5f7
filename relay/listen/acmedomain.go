package listen

import (
	"crypto/tls"
	"sync"
	"time"
)

// domain is one name and its certificate.
type domain struct {
	name string

	mu     sync.Mutex       // guards the fields below
	cert   *tls.Certificate // with its Leaf; nil if there is none yet
	issuer string           // its IssuerKey
	failed string           // why there is no better one, or empty
	window renewalInfo
	choice time.Time // within window
}

func (d *domain) certificate() *tls.Certificate {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cert
}

// use lets a certificate take over.
func (d *domain) use(cert *tls.Certificate, issuer string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cert, d.issuer, d.failed, d.window, d.choice = cert, issuer, "", renewalInfo{}, time.Time{}
}

// note notes why there is no better certificate, and returns the one in use or nil.
func (d *domain) note(failed string) *tls.Certificate {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = failed
	return d.cert
}

// trouble says why clients cannot connect, or nothing.
func (d *domain) trouble(now time.Time) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	why := ""
	switch {
	case d.cert == nil && d.failed == "":
		return "it is being obtained"
	case d.cert == nil:
		return d.failed
	case now.After(d.cert.Leaf.NotAfter):
		why = "it expired at " + d.cert.Leaf.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(d.cert.Leaf.NotBefore):
		why = "it is not valid before " + d.cert.Leaf.NotBefore.UTC().Format(time.RFC3339) + "; check the clock"
	default:
		return ""
	}
	if d.failed != "" {
		why += ", and there is no better one: " + d.failed
	}
	return why
}
