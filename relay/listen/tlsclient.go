package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/problem"
)

// proofKey is where the context of a request has the *proof of its connection.
type proofKey struct{}

// proof is what the client certificate of one connection was last held against. A connection that is never idle lives for
// ever, and must not outlive the authority that let it in.
type proof struct{ authorities atomic.Pointer[x509.CertPool] }

// withProof is for http.Server.ConnContext.
func withProof(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, proofKey{}, new(proof))
}

// checkClient refuses a request on a connection whose client certificate would not be let in now: its authority has been
// taken out of the file, or it has expired.
func (s *secure) checkClient(r *http.Request) error {
	authorities := s.identity.ClientCAs()
	if authorities == nil {
		return nil
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 { // no handshake ends so
		return refusedClient()
	}
	chain, now := r.TLS.PeerCertificates, s.now()
	last, ok := r.Context().Value(proofKey{}).(*proof)
	if ok && last.authorities.Load() == authorities && !now.After(chain[0].NotAfter) {
		return nil
	}
	options := x509.VerifyOptions{
		Roots: authorities, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, cert := range chain[1:] {
		options.Intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(options); err != nil {
		s.log.Warn("client certificate no longer accepted", append(clientFields(r.RemoteAddr, chain[0]), zap.Error(err))...)
		return refusedClient()
	}
	if ok {
		last.authorities.Store(authorities)
	}
	return nil
}

func refusedClient() error {
	return problem.New(http.StatusForbidden, "the client certificate of this connection is not accepted any more; "+
		"connect again with one that is").Closing()
}

// logClient says who has connected.
func (s *secure) logClient(conn net.Conn, state tls.ConnectionState) {
	if len(state.PeerCertificates) > 0 {
		s.log.Info("client connected", clientFields(conn.RemoteAddr().String(), state.PeerCertificates[0])...)
	}
}

func clientFields(peer string, cert *x509.Certificate) []zap.Field {
	return []zap.Field{
		zap.String("peer", peer), zap.String("subject", cert.Subject.String()), zap.Strings("names", cert.DNSNames),
		zap.String("serial", fmt.Sprintf("%x", cert.SerialNumber)), zap.Time("expires_at", cert.NotAfter.UTC()),
	}
}
