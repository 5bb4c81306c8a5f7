package relay

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/listen"
)

// Let's Encrypt's directories. The second is for tests, and what it issues is trusted by nobody.
const (
	letsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	letsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// https is the listener for other hosts: each key of listen.https in the form of the part that obeys it.
type https struct {
	address string
	files   guard.TLSFiles
	acme    *acme // nil for a certificate from files
}

// acme is how certificates are obtained.
type acme struct {
	names     []string
	directory *url.URL
	email     string
	keyID     string // of the external account; empty for none
	macKey    string
	dialer    *guard.Dialer
	roots     guard.TLSFiles // of the directory's own certificate
}

// https compiles listen.https. It returns nil without one.
func (c *compiler) https() *https {
	const key = "listen.https"
	in := c.cfg.Listen.HTTPS
	if in == nil {
		return nil
	}
	h := &https{address: in.Address, files: guard.TLSFiles{CA: in.ClientCAFile, Cert: in.CertFile, Key: in.KeyFile}}
	if in.CertFile != "" || in.KeyFile != "" || in.ClientCAFile != "" {
		c.optionFaults(key, h.files.CheckServer())
	}
	if len(in.Domains) > 0 {
		h.acme = c.acme(key, in)
	}
	return h
}

func (c *compiler) acme(key string, in *config.HTTPS) *acme {
	out := &acme{email: in.ACME.Email, roots: guard.TLSFiles{CA: in.ACME.CAFile}}
	for i, text := range in.Domains {
		name, err := listen.ParseName(text)
		if err == nil && slices.Contains(out.names, name) {
			err = errors.New("the same name as one before it; write each once")
		}
		if c.fault(fmt.Sprintf("%s.domains[%d]", key, i), err) {
			out.names = append(out.names, name)
		}
	}
	key += ".acme"
	for i, network := range in.ACME.AllowNetworks {
		c.fault(fmt.Sprintf("%s.allow_networks[%d]", key, i), guard.CheckAllow(network))
	}
	if strings.ContainsAny(out.email, " \t\r\n,<>?") || out.email != "" && strings.Count(out.email, "@") != 1 {
		c.fault(key+".email", errors.New("not a mail address; write one such as ops@example.com"))
	}
	directory, err := guard.ParseAuthorityURL(in.ACME.Directory, in.ACME.AllowNetworks)
	c.fault(key+".directory", err)
	out.directory = directory
	c.optionFaults(key, out.roots.Check())
	if external := in.ACME.ExternalAccount; external != nil {
		out.keyID = external.KeyID
		// Many write it with padding, which the standard leaves off.
		out.macKey = strings.TrimRight(external.HMACKey.Reveal(), "=")
		if raw, err := base64.RawURLEncoding.DecodeString(out.macKey); err != nil || len(raw) == 0 {
			c.fault(key+".external_account.hmac_key", errors.New("not in base64url (A-Z a-z 0-9 - _); copy the key as the authority has given it out"))
		}
	}
	out.dialer = &guard.Dialer{
		Allow: in.ACME.AllowNetworks, Deny: c.cfg.Egress.DenyNetworks, Resolve: lowerKeys(c.cfg.Egress.Resolve), Proxy: c.proxy,
	}
	return out
}

// filesOfHTTPS returns the files that a listener's certificates come from.
func filesOfHTTPS(h *config.HTTPS) []string {
	if h == nil {
		return nil
	}
	return []string{h.CertFile, h.KeyFile, h.ClientCAFile, h.ACME.CAFile}
}

// authority returns who is at a directory. It connects to nothing.
func (a *acme) authority(r *Relay, directory *url.URL) (listen.Authority, error) {
	dialer := *a.dialer
	dialer.Own = func() []netip.AddrPort { return r.own }
	roots := a.roots
	roots.Log, roots.Now = r.Log.Named("guard").With(zap.String("authority", directory.Host)), r.Now
	client, err := guard.NewAuthorityClient(directory, &dialer, roots)
	return listen.Authority{Directory: directory, Client: client}, err
}

// listen returns what the listener is to do, and the func that closes the idle connections to the authority.
func (a *acme) listen(r *Relay) (*listen.ACME, func(), error) {
	authority, err := a.authority(r, a.directory)
	if err != nil {
		return nil, nil, err
	}
	out := &listen.ACME{
		Names: a.names, Authority: authority, Vault: r.Store, Email: a.email, KeyID: a.keyID, MACKey: a.macKey,
	}
	if a.directory.String() != letsEncrypt {
		return out, authority.Client.CloseIdleConnections, nil
	}
	staging, err := url.Parse(letsEncryptStaging)
	if err != nil {
		return nil, nil, err
	}
	rehearsal, err := a.authority(r, staging)
	if err != nil {
		return nil, nil, err
	}
	out.Rehearsal = &rehearsal
	return out, func() {
		authority.Client.CloseIdleConnections()
		rehearsal.Client.CloseIdleConnections()
	}, nil
}

// openHTTPS binds the listener for other hosts. It takes messages as the other one does, by the same tokens, and nothing
// else: administration is not to be had there. It returns nil if there is none in the config.
func (r *Relay) openHTTPS(tokens []listen.Token) (server *listen.Server, closeIdle func(), err error) {
	h := r.Plan.https
	if h == nil {
		if r.Sockets.HTTPS != nil {
			return nil, nil, errors.Join(&ConfigError{Err: errors.New("open https listener: there is a socket for it, and no listen.https in " +
				"the config; add listen.https, or take away the socket unit with FileDescriptorName=https")}, r.Sockets.HTTPS.Close())
		}
		return nil, func() {}, nil
	}
	secure := &listen.TLS{Files: h.files}
	closeIdle = func() {}
	if h.acme != nil {
		if secure.ACME, closeIdle, err = h.acme.listen(r); err != nil {
			return nil, nil, fmt.Errorf("open https listener: %w", err)
		}
	}
	server, err = listen.Open(listen.Options{
		Address: h.address, Listener: r.Sockets.HTTPS, TLS: secure, Tokens: tokens, TokensKey: "listen.tokens", Drain: r.Drain, Now: r.Now,
		MaxConns: r.Plan.connections.Each,
		Log:      r.Log.Named("listen.https"), Metrics: r.metrics.forListeners(), Name: "https",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.ingest.Load().ServeHTTP(w, req) }),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open https listener: %w", err)
	}
	return server, closeIdle, nil
}
