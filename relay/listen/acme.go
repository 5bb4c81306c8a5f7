package listen

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"github.com/postern-relay/postern/store"
)

const (
	orderTimeout = 5 * time.Minute  // for one order, from its beginning to the certificate
	infoTimeout  = 30 * time.Second // for one question about renewal
	maxOrders    = 4                // at a time

	// longestNap is how long nobody looks at a clock that may have been set.
	longestNap = time.Hour

	// maxTrouble bounds what an authority can have us say, in bytes.
	maxTrouble = 500
)

// ACME says how certificates are obtained (RFC 8555). Using it is to agree to the authority's terms of service.
type ACME struct {
	Names     []string    // the names to obtain certificates for, lower case; required. Each gets one of its own
	Authority Authority   // who issues them; required
	Vault     store.Vault // keeps accounts and certificates with their keys; required

	// Rehearsal is asked first after a failure: an environment of the authority for tests, whose certificates are not
	// used. nil for an authority without one.
	Rehearsal *Authority

	Email string // of the account; empty for none

	// KeyID and MACKey bind the account to one that exists already (RFC 8555, section 7.3.4). MACKey is in base64url
	// without padding. Both or none.
	KeyID, MACKey string

	// Retry are the times to wait after the first failure and after each further one, the last one again and again. nil
	// means from one minute to one hour.
	Retry []time.Duration
}

// Authority is a certificate authority.
type Authority struct {
	Directory *url.URL     // required
	Client    *http.Client // asks it; required, and from guard.NewAuthorityClient
}

// key is what certmagic names an authority by.
func (a Authority) key() string {
	return (&certmagic.ACMEIssuer{CA: a.Directory.String()}).IssuerKey()
}

// client makes a client for one order. It writes no log: errors say it all.
func (a Authority) client() *acmez.Client {
	return &acmez.Client{Client: &acme.Client{
		Directory: a.Directory.String(), HTTPClient: a.Client, UserAgent: "Postern", PollTimeout: orderTimeout,
	}}
}

// manager obtains the certificates of some names, renews them in time and has them at hand.
//
// certmagic makes keys, requests and orders, one at a time for each name, and keeps what comes of them. When to do so is
// decided here: certmagic's own loops go on for a moment after they were stopped, give up after a month, or at once if
// the store cannot be read, and do not tell why there is no certificate.
type manager struct {
	names   []string
	domains map[string]*domain
	retry   []time.Duration
	storage *vaultStorage
	issuer  *issuer
	log     *zap.Logger
	now     func() time.Time
	turns   chan struct{} // one entry for each order under way
}

func newManager(o ACME, log *zap.Logger, now func() time.Time) (*manager, error) {
	if len(o.Names) == 0 || o.Vault == nil || o.Authority.Directory == nil || o.Authority.Client == nil {
		return nil, errors.New("ACME needs Names, Vault and Authority")
	}
	m := &manager{
		names: o.Names, domains: make(map[string]*domain, len(o.Names)), retry: o.Retry,
		storage: &vaultStorage{vault: o.Vault}, log: log, now: now, turns: make(chan struct{}, maxOrders),
	}
	if len(m.retry) == 0 {
		m.retry = []time.Duration{
			time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour,
		}
	}
	for _, name := range o.Names {
		m.domains[name] = &domain{name: name}
	}
	m.issuer = &issuer{authority: o.Authority, rehearsal: o.Rehearsal, email: o.Email, storage: m.storage}
	if o.KeyID != "" || o.MACKey != "" {
		m.issuer.external = &acme.EAB{KeyID: o.KeyID, MACKey: o.MACKey}
	}
	return m, nil
}

// run looks after the certificates until ctx ends. Without errors that it could return: whatever fails is tried again.
func (m *manager) run(ctx context.Context) error {
	log := zap.New(demoted{m.log.Core()}).Named("certmagic")
	var config *certmagic.Config
	// certmagic wants a cache, which looks after the certificates in it. There are none.
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil }, Logger: log,
	})
	defer cache.Stop()
	// Whatever is not said here, certmagic takes from variables of its own: folders below the home directory, for one.
	config = certmagic.New(cache, certmagic.Config{
		Storage: m.storage, Issuers: []certmagic.Issuer{m.issuer}, Logger: log,
		KeySource:  certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		OCSP:       certmagic.OCSPConfig{DisableStapling: true}, // its requests are plain http
		DisableARI: true,                                        // see domain.due
	})
	m.tidy(ctx)
	var group errgroup.Group
	for _, d := range m.domains {
		group.Go(func() error {
			m.tend(ctx, config, d)
			return nil
		})
	}
	return group.Wait()
}

// tidy removes the probes that certmagic makes before each order, and which a kill leaves behind.
func (m *manager) tidy(ctx context.Context) {
	keys, err := m.storage.List(ctx, "", false)
	for _, key := range keys {
		if strings.HasPrefix(key, "rw_test_") && err == nil {
			err = m.storage.Delete(ctx, key)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		m.log.Warn("vault not tidied", zap.Error(err))
	}
}

// tend looks after one name until ctx ends.
func (m *manager) tend(ctx context.Context, config *certmagic.Config, d *domain) {
	// By a wall clock that is wrong a new certificate may be due at once, and so may any that follows it. This is a time
	// of the clock that nobody sets.
	var rested time.Time
	for failures := 0; ctx.Err() == nil; {
		if d.certificate() == nil {
			m.load(ctx, d)
		}
		wait := m.untilDue(ctx, d)
		if wait <= 0 {
			wait = time.Until(rested)
		}
		if wait <= 0 {
			begun := time.Now()
			err := m.obtain(ctx, config, d, failures)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				wait = m.retry[min(failures, len(m.retry)-1)]
				failures++
				m.fail(d, err, failures, wait)
			} else {
				failures, wait = 0, 0
				rested = time.Now().Add(m.took(d, time.Since(begun)).rest())
			}
		}
		nap(ctx, min(wait, longestNap))
	}
}

// took tells of a new certificate, and returns its life.
func (m *manager) took(d *domain, after time.Duration) life {
	leaf, now := d.certificate().Leaf, m.now()
	l := life{leaf.NotBefore, leaf.NotAfter}
	m.log.Info("certificate obtained", zap.String("name", d.name), zap.String("authority", m.issuer.authority.Directory.Host),
		zap.Time("expires_at", leaf.NotAfter.UTC()), zap.Duration("took_seconds", after))
	if now.Before(renewAt(l, time.Time{})) {
		return l
	}
	from, until := leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339)
	d.note(fmt.Sprintf("one that has just come is good from %s to %s; check the clock", from, until))
	m.log.Error("certificate is old already, check the clock", zap.String("name", d.name), zap.Time("now", now.UTC()),
		zap.Time("valid_from", leaf.NotBefore.UTC()), zap.Time("expires_at", leaf.NotAfter.UTC()))
	return l
}

// nap waits.
func nap(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// fail notes and tells that there is no new certificate.
func (m *manager) fail(d *domain, err error, failures int, wait time.Duration) {
	cert := d.note(cut(err.Error()))
	log := m.log.With(zap.String("name", d.name), zap.String("authority", m.issuer.authority.Directory.Host), zap.Int("failures", failures),
		zap.Duration("retry_seconds", wait), zap.String("error", cut(err.Error())))
	if cert == nil {
		log.Error("certificate not obtained")
		return
	}
	log = log.With(zap.Time("expires_at", cert.Leaf.NotAfter.UTC()))
	if m.now().After(cert.Leaf.NotAfter) {
		log.Error("certificate not renewed, the one in use has expired")
		return
	}
	log.Warn("certificate not renewed, the earlier one stays in use")
}

func cut(s string) string {
	if len(s) > maxTrouble {
		return strings.ToValidUTF8(s[:maxTrouble], "") + "…"
	}
	return s
}

// pairKey is where the certificate of a name is kept for use.
func pairKey(name string) string { return "in-use/" + name + ".json" }

// load takes what is kept for a name into use: what was in use last, or what certmagic has obtained since.
func (m *manager) load(ctx context.Context, d *domain) {
	var kept, stored *tls.Certificate
	var issuer string
	text, err := m.storage.Load(ctx, pairKey(d.name))
	if err == nil {
		kept, issuer, err = parsePair(text, d.name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		m.log.Warn("certificate in use cannot be read", zap.String("name", d.name), zap.Error(err))
	}
	if stored, err = m.stored(ctx, d.name); err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		// certmagic would stumble over it at every renewal.
		m.log.Warn("certificate of the authority cannot be read, it is obtained anew", zap.String("name", d.name), zap.Error(err))
		if err := m.storage.Delete(ctx, certmagic.StorageKeys.CertsSitePrefix(m.issuer.IssuerKey(), d.name)); err != nil {
			m.log.Warn("unreadable certificate not removed", zap.String("name", d.name), zap.Error(err))
		}
	}
	switch {
	case stored != nil && (kept == nil || stored.Leaf.NotBefore.After(kept.Leaf.NotBefore) || issuer != m.issuer.IssuerKey()):
		d.use(stored, m.issuer.IssuerKey())
		m.keep(ctx, d)
	case kept != nil:
		d.use(kept, issuer)
	}
}

// stored returns what certmagic keeps for a name.
func (m *manager) stored(ctx context.Context, name string) (*tls.Certificate, error) {
	key, err := m.storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(m.issuer.IssuerKey(), name))
	if err != nil {
		return nil, err
	}
	chain, err := m.storage.Load(ctx, certmagic.StorageKeys.SiteCert(m.issuer.IssuerKey(), name))
	if err != nil {
		return nil, err
	}
	return makePair(chain, key, name)
}

// obtain gets a new certificate for a name, and takes it into use. failures is how often that has failed before.
func (m *manager) obtain(ctx context.Context, config *certmagic.Config, d *domain, failures int) error {
	select {
	case m.turns <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-m.turns }()
	ctx, cancel := context.WithTimeoutCause(ctx, orderTimeout, errors.New("the order took too long"))
	defer cancel()
	// Without an earlier certificate in its storage, this obtains the first.
	if err := config.RenewCertSync(context.WithValue(ctx, certmagic.AttemptsCtxKey, &failures), d.name, true); err != nil {
		return withoutNoise(d.name, err)
	}
	cert, err := m.stored(ctx, d.name)
	if err != nil {
		return fmt.Errorf("load what was obtained: %w", err)
	}
	d.use(cert, m.issuer.IssuerKey())
	m.keep(ctx, d)
	return nil
}

// keep writes what certmagic has obtained as what is in use. If it cannot, the next start finds it where certmagic has it.
func (m *manager) keep(ctx context.Context, d *domain) {
	key, err := m.storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(m.issuer.IssuerKey(), d.name))
	var chain, text []byte
	if err == nil {
		chain, err = m.storage.Load(ctx, certmagic.StorageKeys.SiteCert(m.issuer.IssuerKey(), d.name))
	}
	if err == nil {
		text, err = json.Marshal(keptPair{Issuer: m.issuer.IssuerKey(), Certificate: string(chain), PrivateKey: string(key)})
	}
	if err == nil {
		err = m.storage.Store(ctx, pairKey(d.name), text)
	}
	if err != nil {
		m.log.Warn("certificate in use not noted", zap.String("name", d.name), zap.Error(err))
	}
}

// withoutNoise takes off the name that certmagic puts before what the issuer has said.
func withoutNoise(name string, err error) error {
	if said := errors.Unwrap(err); said != nil && strings.HasPrefix(err.Error(), "["+name+"] ") {
		return said
	}
	return err
}

// certificate returns what is shown to those who ask for a name: nil for a name that is not ours.
func (m *manager) certificate(name string) (*tls.Certificate, error) {
	d := m.domains[strings.ToLower(strings.TrimSuffix(name, "."))]
	if d == nil {
		return nil, nil
	}
	if cert := d.certificate(); cert != nil {
		return cert, nil
	}
	return nil, fmt.Errorf("there is no certificate of %s yet", d.name)
}

func (m *manager) certificates() []Certificate {
	all := make([]Certificate, 0, len(m.names))
	for _, name := range m.names {
		c := Certificate{Name: name}
		if cert := m.domains[name].certificate(); cert != nil {
			c.Expires = cert.Leaf.NotAfter
		}
		all = append(all, c)
	}
	return all
}

func (m *manager) trouble() []string {
	var all []string
	for _, name := range m.names {
		if why := m.domains[name].trouble(m.now()); why != "" {
			all = append(all, TroubleOf(name, why))
		}
	}
	return all
}

// demoted passes what certmagic has to say on as debug lines: what matters of it is said here, and outsiders cause some.
type demoted struct{ zapcore.Core }

// Enabled implements zapcore.LevelEnabler.
func (d demoted) Enabled(zapcore.Level) bool { return d.Core.Enabled(zapcore.DebugLevel) }

// With implements zapcore.Core.
func (d demoted) With(fields []zapcore.Field) zapcore.Core { return demoted{d.Core.With(fields)} }

// Check implements zapcore.Core.
func (d demoted) Check(entry zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	entry.Level = zapcore.DebugLevel
	return d.Core.Check(entry, ce)
}
