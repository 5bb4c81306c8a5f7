package egress

import (
	"encoding/base64"
	"strings"
)

// Auth is how a request proves who sends it. At most one field is set; the zero value adds nothing.
type Auth struct {
	Basic  *Basic
	Bearer *Bearer
	APIKey *APIKey
	OAuth2 *OAuth2
}

// Basic is a user name and a password (RFC 7617).
type Basic struct {
	Username string // not empty, without a colon
	Password string // secret
}

// Bearer is a fixed token (RFC 6750, section 2.1).
type Bearer struct {
	Token string // secret
}

// APIKey is a secret in a header of its own.
type APIKey struct {
	Header string // by the rules of CheckHeader
	Value  string // secret
}

func (a Auth) set() bool {
	return a.Basic != nil || a.Bearer != nil || a.APIKey != nil || a.OAuth2 != nil
}

// header returns the one header that a adds, or an empty name. The value of OAuth2 is empty: it varies. Each of
// faults is an *OptionError.
func (a Auth) header() (name, value string, faults []error) {
	kinds := 0
	add := func(n, v string, err error) {
		kinds++
		name, value = n, v
		if err != nil {
			faults = append(faults, err)
		}
	}
	if a.Basic != nil {
		add(a.Basic.header())
	}
	if a.Bearer != nil {
		add(a.Bearer.header())
	}
	if a.APIKey != nil {
		add(a.APIKey.header())
	}
	if a.OAuth2 != nil {
		add("Authorization", "", nil)
		faults = append(faults, a.OAuth2.check()...)
	}
	if kinds > 1 {
		faults = []error{optionError("auth", "more than one kind is set; keep one of basic, bearer, api_key and oauth2")}
	}
	return name, value, faults
}

func (b *Basic) header() (name, value string, err error) {
	switch {
	case b.Username == "":
		return "", "", optionError("auth.basic.username", "missing")
	case strings.Contains(b.Username, ":"):
		// RFC 7617, section 2: what follows the first colon would be taken for the password.
		return "", "", optionError("auth.basic.username", "a colon is not allowed; the receiver would end the name there")
	case hasControl(b.Username):
		return "", "", optionError("auth.basic.username", "control characters are not allowed")
	case hasControl(b.Password):
		return "", "", optionError("auth.basic.password", "control characters are not allowed; look for a newline at the end of its file")
	}
	return "Authorization", "Basic " + b.encoded(), nil
}

func (b *Basic) encoded() string {
	return base64.StdEncoding.EncodeToString([]byte(b.Username + ":" + b.Password))
}

func (b *Bearer) header() (name, value string, err error) {
	if b.Token == "" {
		return "", "", optionError("auth.bearer.token", "empty")
	}
	for i := range len(b.Token) {
		// Receivers disagree about the characters of a token, but none takes white space or controls.
		if c := b.Token[i]; c <= ' ' || c >= 0x7f {
			return "", "", optionError("auth.bearer.token", "byte %d is not a printable ASCII character", i+1)
		}
	}
	return "Authorization", "Bearer " + b.Token, nil
}

func (k *APIKey) header() (name, value string, err error) {
	if k.Header == "" {
		return "", "", optionError("auth.api_key.header", "missing")
	}
	if k.Value == "" {
		return "", "", optionError("auth.api_key.value", "empty")
	}
	if err := CheckHeader(k.Header, k.Value); err != nil {
		return "", "", &OptionError{"auth.api_key", err}
	}
	return k.Header, k.Value, nil
}

// secrets returns the texts that would give a away.
func (a Auth) secrets() []string {
	var all []string
	if a.Basic != nil {
		all = append(all, a.Basic.encoded())
		if a.Basic.Password != "" {
			all = append(all, a.Basic.Password)
		}
	}
	if a.Bearer != nil {
		all = append(all, a.Bearer.Token)
	}
	if a.APIKey != nil {
		all = append(append(all, a.APIKey.Value), credentialParts(a.APIKey.Value)...)
	}
	if a.OAuth2 != nil {
		all = append(all, a.OAuth2.secrets()...)
	}
	return all
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
