package listen

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// challengeProtocol is what an authority asks for by ALPN to see whether a name is ours (RFC 8737, section 6.2).
const challengeProtocol = acmez.ACMETLS1Protocol

// isChallenge reports whether a handshake is that of an authority: with this protocol alone (RFC 8737, section 3).
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == challengeProtocol
}

// issuer is what certmagic asks for certificates. certmagic has one of its own, whose HTTP client is its own too and
// dials whatever it is told to; this one asks through the client that it is given (T8). It proves that a name is ours by
// TLS-ALPN-01 (RFC 8737) and nothing else, on the listener itself: no further port is opened.
type issuer struct {
	authority Authority
	rehearsal *Authority // nil for none
	email     string
	external  *acme.EAB // nil for none
	storage   certmagic.Storage

	accounts sync.Mutex // held while an account is looked for or made

	mu         sync.Mutex // guards the field below
	challenges map[string]*tls.Certificate
}

var (
	_ certmagic.Issuer = (*issuer)(nil)
	_ acmez.Solver     = (*issuer)(nil)
)

// IssuerKey implements certmagic.Issuer.
func (i *issuer) IssuerKey() string { return i.authority.key() }

// Issue implements certmagic.Issuer. A further attempt is rehearsed first where that is possible: an authority for
// everybody allows for few failures in an hour, and its staging environment for many.
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	attempts, _ := ctx.Value(certmagic.AttemptsCtxKey).(*int)
	again := attempts != nil && *attempts > 0
	if again && i.rehearsal != nil {
		if _, err := i.order(ctx, *i.rehearsal, csr, nil); err != nil {
			return nil, fmt.Errorf("rehearsal at %s: %w", i.rehearsal.Directory.Host, err)
		}
	}
	var replaces *x509.Certificate
	if !again { // what the authority thinks of the earlier one may be why it failed
		replaces = i.earlier(ctx, csr)
	}
	chain, err := i.order(ctx, i.authority, csr, replaces)
	if err != nil {
		return nil, err
	}
	return &certmagic.IssuedCertificate{Certificate: chain.ChainPEM, Metadata: chain}, nil
}

// earlier returns the certificate that the new one takes the place of, or nil.
func (i *issuer) earlier(ctx context.Context, csr *x509.CertificateRequest) *x509.Certificate {
	if len(csr.DNSNames) != 1 {
		return nil
	}
	chain, err := i.storage.Load(ctx, certmagic.StorageKeys.SiteCert(i.IssuerKey(), csr.DNSNames[0]))
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(leaf.AuthorityKeyId) == 0 { // without which it has no name (RFC 9773, section 4.1)
		return nil
	}
	return leaf
}

// order obtains a certificate. If the authority does not know our account any more, it gets a new one.
func (i *issuer) order(ctx context.Context, a Authority, csr *x509.CertificateRequest, replaces *x509.Certificate) (acme.Certificate, error) {
	client := a.client()
	client.ChallengeSolvers = map[string]acmez.Solver{acme.ChallengeTypeTLSALPN01: i}
	for again := false; ; again = true {
		account, err := i.account(ctx, a, client.Client)
		if err != nil {
			return acme.Certificate{}, err
		}
		params, err := acmez.OrderParametersFromCSR(account, csr)
		if err != nil {
			return acme.Certificate{}, fmt.Errorf("make order: %w", err)
		}
		params.Replaces = replaces
		chains, err := client.ObtainCertificate(ctx, params)
		if unknown, ok := errors.AsType[acme.Problem](err); ok && unknown.Type == acme.ProblemTypeAccountDoesNotExist && !again {
			if err := i.storage.Delete(ctx, i.accountKey(a)); err != nil {
				return acme.Certificate{}, fmt.Errorf("forget account: %w", err)
			}
			continue
		}
		switch {
		case err != nil:
			return acme.Certificate{}, withCause(ctx, err)
		case len(chains) == 0:
			return acme.Certificate{}, errors.New("the authority has sent no certificate")
		}
		return chains[0], nil
	}
}

// withCause returns why ctx has ended, if it has.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// keptAccount is an account as it is kept: in one piece, so that no kill leaves half of it.
type keptAccount struct {
	Account    acme.Account `json:"account"`
	PrivateKey string       `json:"private_key"` // PEM
}

// accountKey is where the account is kept: one for each address and external account.
func (i *issuer) accountKey(a Authority) string {
	name := "default"
	if i.email != "" {
		name = certmagic.StorageKeys.Safe(i.email)
	}
	if i.external != nil {
		name += "-" + certmagic.StorageKeys.Safe(i.external.KeyID)
	}
	return path.Join("acme", certmagic.StorageKeys.Safe(a.key()), "users", name, "account.json")
}

// account returns our account, and makes one if there is none.
func (i *issuer) account(ctx context.Context, a Authority, client *acme.Client) (acme.Account, error) {
	i.accounts.Lock()
	defer i.accounts.Unlock()
	text, err := i.storage.Load(ctx, i.accountKey(a))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return acme.Account{}, fmt.Errorf("load account: %w", err)
	}
	if err == nil {
		if account, err := parseAccount(text); err == nil {
			return account, nil
		}
		// What cannot be read is as if it were not there: an account costs nothing.
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return acme.Account{}, fmt.Errorf("make key of account: %w", err)
	}
	account := acme.Account{PrivateKey: key, TermsOfServiceAgreed: true}
	if i.email != "" {
		account.Contact = []string{"mailto:" + i.email}
	}
	if i.external != nil {
		if err := account.SetExternalAccountBinding(ctx, client, *i.external); err != nil {
			return acme.Account{}, fmt.Errorf("bind account: %w", withCause(ctx, err))
		}
	}
	if account, err = client.NewAccount(ctx, account); err != nil {
		return acme.Account{}, fmt.Errorf("register account: %w", withCause(ctx, err))
	}
	if text, err = encodeAccount(account); err == nil {
		err = i.storage.Store(ctx, i.accountKey(a), text)
	}
	if err != nil {
		return acme.Account{}, fmt.Errorf("keep account: %w", err)
	}
	return account, nil
}

func encodeAccount(account acme.Account) ([]byte, error) {
	key, err := certmagic.PEMEncodePrivateKey(account.PrivateKey)
	if err != nil {
		return nil, err
	}
	account.ExternalAccountBinding = nil // a signature that is good for one registration
	return json.Marshal(keptAccount{Account: account, PrivateKey: string(key)})
}

func parseAccount(text []byte) (acme.Account, error) {
	var kept keptAccount
	if err := json.Unmarshal(text, &kept); err != nil {
		return acme.Account{}, errors.New("account is malformed")
	}
	key, err := certmagic.PEMDecodePrivateKey([]byte(kept.PrivateKey))
	if err != nil || kept.Account.Location == "" || kept.Account.Status != acme.StatusValid {
		return acme.Account{}, errors.New("account is not complete")
	}
	kept.Account.PrivateKey = key
	return kept.Account, nil
}

// Present implements acmez.Solver: from now on the listener answers the challenge.
func (i *issuer) Present(_ context.Context, c acme.Challenge) error {
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return fmt.Errorf("answer challenge: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.challenges == nil {
		i.challenges = make(map[string]*tls.Certificate)
	}
	i.challenges[strings.ToLower(c.Identifier.Value)] = cert
	return nil
}

// CleanUp implements acmez.Solver.
func (i *issuer) CleanUp(_ context.Context, c acme.Challenge) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.challenges, strings.ToLower(c.Identifier.Value))
	return nil
}

// challenge returns the answer to the challenge of a name.
func (i *issuer) challenge(name string) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if cert := i.challenges[strings.ToLower(name)]; cert != nil {
		return cert, nil
	}
	return nil, errors.New("no challenge of this name is under way")
}

// renewalInfo is when the authority wants a certificate renewed (RFC 9773, section 4.2).
type renewalInfo struct {
	start, end time.Time // the window; zero if there is none
	again      time.Time // not to be asked before; zero if it did not say
}

// renewalInfo asks for it.
func (i *issuer) renewalInfo(ctx context.Context, leaf *x509.Certificate) (renewalInfo, error) {
	info, err := i.authority.client().GetRenewalInfo(ctx, leaf)
	if err != nil {
		return renewalInfo{}, withCause(ctx, err)
	}
	out := renewalInfo{start: info.SuggestedWindow.Start, end: info.SuggestedWindow.End}
	if info.RetryAfter != nil {
		out.again = *info.RetryAfter
	}
	return out, nil
}

// keptPair is what is shown for a name, as it is kept: in one piece, so that no kill leaves a certificate without its
// key. certmagic keeps the parts apart, and a certificate that is renewed at the time of a kill may lose its key there.
type keptPair struct {
	Issuer      string `json:"issuer"` // its IssuerKey
	Certificate string `json:"certificate"`
	PrivateKey  string `json:"private_key"`
}

// parsePair returns the certificate in a keptPair for a name, with its Leaf.
func parsePair(text []byte, name string) (cert *tls.Certificate, issuer string, err error) {
	var kept keptPair
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, "", errors.New("pair is malformed")
	}
	cert, err = makePair([]byte(kept.Certificate), []byte(kept.PrivateKey), name)
	return cert, kept.Issuer, err
}

// makePair makes a certificate with its Leaf of two PEM texts. Its errors quote nothing.
func makePair(chain, key []byte, name string) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(bytes.TrimSpace(chain), key)
	switch {
	case err != nil:
		return nil, errors.New("certificate and key do not belong together, or are malformed")
	case cert.Leaf.VerifyHostname(name) != nil:
		return nil, errors.New("certificate is for another name")
	}
	return &cert, nil
}
