package relay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
)

// examineTLS says what a handshake has shown, or why there was none.
func (w *way) examineTLS(p guard.Probe) {
	facts := w.facts(p)
	add := func(status Severity, detail, advice string) {
		w.add("tls", status, detail, advice)
		w.findings[len(w.findings)-1].TLS = facts
	}
	if p.Err != nil {
		_, text := egress.Unreached(p)
		add(Problem, text, w.handshakeAdvice(p))
		w.ownCertificate(p)
		return
	}
	detail := fmt.Sprintf("%s, %s; the certificate of %s by %s has %s left",
		facts.Version, protocol(p), quote(facts.Subject), quote(facts.Issuer), days(facts.NotAfter.Sub(w.now)))
	leaf := p.Certificates[0]
	if left := leaf.NotAfter.Sub(w.now); left < soon(leaf) {
		add(Warning, detail, "tell the receiver's owner: deliveries fail from "+leaf.NotAfter.UTC().Format(time.RFC3339)+" on unless it is renewed")
	} else {
		add(Fine, detail, "")
	}
	for _, c := range p.Chain[1:] {
		if c.NotAfter.Before(leaf.NotAfter) && c.NotAfter.Sub(w.now) < soon(c) {
			add(Warning, fmt.Sprintf("%s, which vouches for the certificate, has %s left", quote(name(c)), days(c.NotAfter.Sub(w.now))),
				"tell the receiver's owner; if it is the root in tls.ca_file, get the next one")
		}
	}
	w.ownCertificate(p)
}

// ownCertificate says what there is to say about the client certificate.
func (w *way) ownCertificate(p guard.Probe) {
	const check = "client certificate"
	switch c := p.Certificate; {
	case c == nil && p.AsksForCertificate:
		w.add(check, Warning, "the receiver asks for a client certificate, and none is configured",
			"name one by tls.cert_file and tls.key_file, unless the receiver can do without")
	case c == nil:
	case w.now.After(c.NotAfter):
		w.add(check, Problem, fmt.Sprintf("ours, of %s, has ended on %s", quote(name(c)), c.NotAfter.UTC().Format(time.RFC3339)),
			"have a new one issued, and put it in the place of tls.cert_file and tls.key_file")
	case w.now.Before(c.NotBefore):
		w.add(check, Problem, fmt.Sprintf("ours, of %s, is not valid before %s", quote(name(c)), c.NotBefore.UTC().Format(time.RFC3339)),
			"look at the clock of this machine, or have one issued that is valid now")
	case c.NotAfter.Sub(w.now) < soon(c):
		w.add(check, Warning, fmt.Sprintf("ours, of %s, has %s left", quote(name(c)), days(c.NotAfter.Sub(w.now))),
			"have a new one issued, and put it in the place of tls.cert_file and tls.key_file")
	case p.Err == nil && !p.AsksForCertificate:
		w.add(check, Fine, "the receiver asked for none, so ours was not shown", "")
	case p.Err == nil:
		w.add(check, Fine, fmt.Sprintf("ours, of %s, was shown and not refused; it has %s left", quote(name(c)), days(c.NotAfter.Sub(w.now))), "")
	}
}

// handshakeAdvice says what to do about a handshake that failed.
func (w *way) handshakeAdvice(p guard.Probe) string {
	if len(p.Certificates) > 0 && p.Version == 0 { // it is theirs that was refused
		leaf := p.Certificates[0]
		if _, ok := errors.AsType[x509.HostnameError](p.Err); ok {
			return "write the URL with a name that the certificate is for, or have the receiver's owner get one for this name"
		}
		if _, ok := errors.AsType[x509.UnknownAuthorityError](p.Err); ok {
			if string(leaf.RawIssuer) == string(leaf.RawSubject) {
				return "the certificate is signed by itself; name it, or better the root of an authority, in tls.ca_file"
			}
			if len(p.Certificates) == 1 {
				return fmt.Sprintf("the receiver shows no intermediate certificate, and %s is no root that is trusted here; have its "+
					"owner send the whole chain, or name a private authority's root in tls.ca_file", quote(leaf.Issuer.String()))
			}
			return "name the root of a private authority in tls.ca_file; for a public one, see that this machine or image has its roots"
		}
		if w.now.After(leaf.NotAfter) || w.now.Before(leaf.NotBefore) {
			return fmt.Sprintf("it is %s here; if that is right, tell the receiver's owner", w.now.UTC().Format(time.RFC3339))
		}
		return "tell the receiver's owner"
	}
	text := p.Err.Error()
	switch {
	case p.AsksForCertificate && p.Certificate == nil:
		return "the receiver asks for a client certificate; name one by tls.cert_file and tls.key_file"
	case p.AsksForCertificate:
		return "the receiver does not take our client certificate; compare tls.cert_file with what its owner expects"
	case strings.Contains(text, "protocol version") || strings.Contains(text, "unsupported protocol"):
		return "Postern speaks TLS 1.2 and 1.3, and never less than tls.min_version; have the receiver's owner turn on one of them"
	}
	return "see whether an HTTPS server is what listens there, and what its log says"
}

// facts is what a probe has seen of the other end's certificates; nil if it has seen none.
func (w *way) facts(p guard.Probe) *TLSFacts {
	if len(p.Certificates) == 0 {
		return nil
	}
	leaf, chain := p.Certificates[0], p.Certificates
	if len(p.Chain) > 0 {
		chain = p.Chain
	}
	f := &TLSFacts{
		Protocol: p.Protocol, Subject: name(leaf), Issuer: oneLine(leaf.Issuer.String()),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
		DaysLeft: int(math.Floor(leaf.NotAfter.Sub(w.now).Hours() / 24)),
	}
	if p.Version != 0 {
		f.Version = tls.VersionName(p.Version)
	}
	for _, n := range leaf.DNSNames {
		f.Names = append(f.Names, oneLine(n))
	}
	for _, ip := range leaf.IPAddresses {
		f.Names = append(f.Names, ip.String())
	}
	for _, c := range chain {
		f.Chain = append(f.Chain, name(c))
	}
	return f
}

// protocol says which HTTP will be spoken.
func protocol(p guard.Probe) string {
	switch p.Protocol {
	case "h2":
		return "HTTP/2"
	case "":
		return "HTTP/1.1 (it takes no part in ALPN)"
	}
	return "HTTP/1.1"
}

// name is what a person calls a certificate.
func name(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return oneLine(c.Subject.CommonName)
	case len(c.DNSNames) > 0:
		return oneLine(c.DNSNames[0])
	}
	return oneLine(c.Subject.String())
}

func quote(text string) string { return `"` + text + `"` }

// days writes a time in days, and in smaller units if it is short.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "no time"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/day)
}

// oneLine makes a text that others may have written fit to be shown: one line, printable, at most 300 bytes.
func oneLine(s string) string {
	const most = 300
	out := strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
	if len(out) > most {
		out = strings.ToValidUTF8(out[:most], "") + "…"
	}
	return out
}
