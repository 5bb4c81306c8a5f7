package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/problem"
)

const (
	// lookEvery is how often files are looked at while nobody connects, so that what is wrong with them is told.
	lookEvery = 10 * time.Second

	// HTTP/2 lets one connection carry many requests, each with a window of its own that the other end may fill. These
	// keep a connection from taking much more memory than one of HTTP/1.1.
	maxStreams    = 64
	receiveBuffer = 256 << 10
	writeStall    = 30 * time.Second // without a byte that could be written
)

// TLS says how a listener speaks TLS: versions 1.2 and 1.3, with HTTP/2 and HTTP/1.1. Its certificate comes from ACME or
// from Files, one of the two.
type TLS struct {
	ACME *ACME // obtains certificates for names; nil for a certificate from Files

	// Files are Cert and Key, unless there is ACME, and CA: the authorities of client certificates. If CA is named, every
	// client has to show a certificate of one of them, and the log says whose it is. The files are followed: what they
	// hold counts for connections that begin a second after it has changed, unless Open would refuse it.
	Files guard.TLSFiles
}

// Certificate is what a listener shows for a name.
type Certificate struct {
	Name    string    // the name in the config, or the first in the certificate
	Expires time.Time // zero if there is none yet
}

// secure is the TLS of a listener: which certificate for which name, and who may come.
type secure struct {
	identity *guard.ServerIdentity
	acme     *manager // nil: the certificate is that of identity
	log      *zap.Logger
	now      func() time.Time
}

// newSecure returns nil without TLS.
func newSecure(o Options) (*secure, error) {
	if o.TLS == nil {
		return nil, nil
	}
	files := o.TLS.Files
	if (o.TLS.ACME == nil) == (files.Cert == "") {
		return nil, errors.New("listen: TLS needs either ACME or the files of a certificate")
	}
	files.Log, files.Now = o.Log, o.Now
	identity, err := guard.LoadServerIdentity(files)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s := &secure{identity: identity, log: o.Log, now: o.Now}
	if o.TLS.ACME != nil {
		if s.acme, err = newManager(*o.TLS.ACME, o.Log, o.Now); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	return s, nil
}

// protocols are offered to clients, the preferred one first.
func protocols() []string { return []string{"h2", "http/1.1"} }

func (s *secure) baseConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols(), Time: s.now}
}

// config is what handshakes begin with. It holds no certificate: each handshake asks for the one of the moment.
func (s *secure) config() *tls.Config {
	c := s.baseConfig()
	c.GetConfigForClient = s.configFor
	return c
}

// configFor returns the config for one handshake. An error refuses it, as does a config without a certificate, which
// tells the client that we do not know the name.
func (s *secure) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c := s.baseConfig()
	if s.acme != nil && isChallenge(hello) {
		// The authority has no client certificate, and gets no request through: net/http closes what speaks this protocol.
		cert, err := s.acme.issuer.challenge(hello.ServerName)
		if err != nil {
			return nil, err
		}
		c.Certificates, c.NextProtos, c.SessionTicketsDisabled = []tls.Certificate{*cert}, []string{challengeProtocol}, true
		return c, nil
	}
	cert, err := s.certificate(hello.ServerName)
	if err != nil {
		return nil, err
	}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	if authorities := s.identity.ClientCAs(); authorities != nil {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, authorities
		c.SessionTicketsDisabled = true // a session that is resumed would not ask for the certificate again
		c.VerifyConnection = func(state tls.ConnectionState) error {
			s.logClient(hello.Conn, state)
			return nil
		}
	}
	return c, nil
}

// certificate returns what is shown to those who ask for a name: nil for a name that is not ours, and an error if it is
// and there is nothing to show.
func (s *secure) certificate(name string) (*tls.Certificate, error) {
	if s.acme == nil {
		return s.identity.Certificate(), nil
	}
	return s.acme.certificate(name)
}

// checkHost refuses a request that is for another host than those we have a certificate for (RFC 9110, section 7.4). Its
// port is not looked at: what forwards connections to us may have another one.
func (s *secure) checkHost(r *http.Request) error {
	host, _, err := splitHost(r.Host)
	if err == nil && s.serves(strings.ToLower(strings.TrimSuffix(host, "."))) {
		return nil
	}
	refusal := problem.New(http.StatusMisdirectedRequest, "the Host header does not name this listener; use the name %s", s.names()[0])
	if r.ProtoMajor > 1 { // the connection may be shared with requests that are for us (RFC 9113, section 9.1.2)
		return refusal
	}
	return refusal.Closing()
}

func (s *secure) serves(host string) bool {
	if s.acme != nil {
		return s.acme.domains[host] != nil
	}
	cert := s.identity.Certificate()
	return host != "" && cert.Leaf.VerifyHostname(host) == nil
}

// names returns what we have, or shall have, certificates for.
func (s *secure) names() []string {
	if s.acme != nil {
		return s.acme.names
	}
	leaf := s.identity.Certificate().Leaf
	names := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// run looks after the certificates until ctx ends.
func (s *secure) run(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				s.identity.Certificate()
			}
		}
	})
	if s.acme != nil {
		group.Go(func() error { return s.acme.run(ctx) })
	}
	return group.Wait()
}

// certificates returns what is shown now.
func (s *secure) certificates() []Certificate {
	if s.acme != nil {
		return s.acme.certificates()
	}
	return []Certificate{{Name: s.names()[0], Expires: s.identity.Certificate().Leaf.NotAfter}}
}

// trouble says for each name why clients cannot connect.
func (s *secure) trouble() []string {
	if s.acme != nil {
		return s.acme.trouble()
	}
	leaf := s.identity.Certificate().Leaf
	switch now := s.now(); {
	case now.After(leaf.NotAfter):
		return []string{TroubleOf(s.names()[0], fmt.Sprintf("it expired at %s; put a new one into cert_file", leaf.NotAfter.UTC().Format(time.RFC3339)))}
	case now.Before(leaf.NotBefore):
		return []string{TroubleOf(s.names()[0], fmt.Sprintf("it is not valid before %s; check the clock", leaf.NotBefore.UTC().Format(time.RFC3339)))}
	}
	return nil
}

// TroubleOf is a text of Server.Trouble: what it begins with for a name, and why.
func TroubleOf(name, why string) string { return fmt.Sprintf("certificate of %s: %s", name, why) }
