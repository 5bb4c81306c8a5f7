package egress

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// OAuth2 obtains tokens by client credentials (RFC 6749, section 4.4) and sends them as bearer tokens (RFC 6750,
// section 2.1). A token is kept in memory until shortly before its end: a tenth of its life, and a minute at most.
// Attempts that need one at the same time share one request for it.
//
// Of several secrets the first is used until the endpoint refuses the client (RFC 6749, section 5.2, invalid_client); then
// the request is made again with the next one, once with each, and the one that is taken stays in use.
type OAuth2 struct {
	ClientID      string   // required
	ClientSecrets []string // secrets; at least one, none twice; the order is that of use
	TokenURL      *url.URL // of the token endpoint; required; as guard.ParseURL returned it
	Scopes        []string // to ask for, each by RFC 6749, section 3.3; empty asks for none and leaves it to the server
	Audience      string   // to ask for, as the parameter audience; empty sends none
	SecretIn      string   // where id and secret are sent, SecretInHeader or SecretInBody; empty means SecretInHeader

	// Refused is called when the endpoint has refused the client with the secret in use and another one is left to try. It
	// must not block; nil means nobody is told. The log has a line when another secret is taken.
	Refused func()

	// Client is made by guard.NewClient; it may be nil only in a Sender that never sends. Redirects are not followed,
	// whatever its CheckRedirect says.
	Client *http.Client
}

// The parts of a token request that can carry the client's id and secret (RFC 6749, section 2.3.1).
const (
	SecretInHeader = "header" // Basic authentication, both form-urlencoded first
	SecretInBody   = "body"   // the parameters client_id and client_secret
)

// check returns an *OptionError for each fault.
func (o *OAuth2) check() (faults []error) {
	fault := func(option, format string, args ...any) {
		faults = append(faults, optionError("auth.oauth2."+option, format, args...))
	}
	if o.ClientID == "" {
		fault("client_id", "missing")
	} else if hasControl(o.ClientID) {
		fault("client_id", "control characters are not allowed; look for a newline at the end of its file")
	}
	if len(o.ClientSecrets) == 0 {
		fault("client_secret", "missing")
	}
	for i, secret := range o.ClientSecrets {
		option := "client_secret"
		if len(o.ClientSecrets) > 1 {
			option = fmt.Sprintf("client_secret[%d]", i)
		}
		switch {
		case secret == "":
			fault(option, "empty")
		case hasControl(secret):
			fault(option, "control characters are not allowed; look for a newline at the end of its file")
		case slices.Contains(o.ClientSecrets[:i], secret):
			fault(option, "the same secret as one before it; write each once")
		}
	}
	if err := checkURL(o.TokenURL); err != nil {
		fault("token_url", "%w", err)
	}
	for i, scope := range o.Scopes {
		if err := checkScope(scope); err != nil {
			fault(fmt.Sprintf("scopes[%d]", i), "%w", err)
		}
	}
	if hasControl(o.Audience) {
		fault("audience", "control characters are not allowed")
	}
	switch o.SecretIn {
	case "", SecretInHeader, SecretInBody:
	default:
		fault("secret_in", "%q is not supported; write header or body", clip(o.SecretIn, 64))
	}
	return faults
}

// checkScope applies the rule for one scope (RFC 6749, section 3.3).
func checkScope(scope string) error {
	if scope == "" {
		return errors.New("empty; remove it")
	}
	for i := range len(scope) {
		switch c := scope[i]; {
		case c == ' ':
			return errors.New("a space is not allowed; write each scope as an entry of its own")
		case c < '!' || c > '~' || c == '"' || c == '\\':
			return fmt.Errorf("byte %d is not allowed in a scope; use printable ASCII without \" and \\", i+1)
		}
	}
	return nil
}

// secrets returns the texts that would give the client away.
func (o *OAuth2) secrets() []string {
	all := querySecrets(o.TokenURL.RawQuery)
	id := url.QueryEscape(o.ClientID) // as RFC 6749, section 2.3.1 has both sent
	for _, secret := range o.ClientSecrets {
		all = append(all, secret, base64.StdEncoding.EncodeToString([]byte(id+":"+url.QueryEscape(secret))))
	}
	return all
}
