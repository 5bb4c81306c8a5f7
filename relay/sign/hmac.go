package sign

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Bounds of HMACOptions.
const (
	minText   = 8    // bytes of a secret
	maxText   = 1024 // bytes of a secret
	maxPrefix = 64   // bytes of a prefix
	maxHeader = 128  // bytes of a header's name
)

// HMACOptions says how an existing verifier expects its signature.
type HMACOptions struct {
	Header    string // name of the header, required; none that HTTP, Postern or auth uses itself
	Secret    string // the key as text, its bytes used as they are; required, 8 to 1,024 bytes
	Algorithm string // sha1, sha256 or sha512; empty means sha256
	Encoding  string // hex (lower case) or base64 (standard, padded); empty means hex
	Prefix    string // put before the encoded signature, such as "sha256="; up to 64 bytes, empty means none
}

// HMAC signs the body alone (RFC 2104) and puts the result in one header, as GitHub, Shopify and many others do.
// Such a signature does not cover the time: a receiver cannot tell a request from its repetition. NewHMAC makes
// one. It may be used from several goroutines.
type HMAC struct {
	header string
	prefix string
	encode func(dst, sum []byte) []byte
	key    *keyed
}

var _ Signer = (*HMAC)(nil)

// NewHMAC checks the options. Errors say which option is wrong and never show the secret.
func NewHMAC(o HMACOptions) (*HMAC, error) {
	if err := checkHeader(o.Header); err != nil {
		return nil, err
	}
	if err := checkText(o.Secret); err != nil {
		return nil, err
	}
	if len(o.Prefix) > maxPrefix {
		return nil, fmt.Errorf("the prefix has %d bytes; at most %d are allowed", len(o.Prefix), maxPrefix)
	}
	// A space in front would be lost on the way.
	if !httpguts.ValidHeaderFieldValue(o.Prefix) || strings.TrimLeft(o.Prefix, " \t") != o.Prefix {
		return nil, fmt.Errorf("prefix %q cannot begin the value of a header", o.Prefix)
	}
	h := &HMAC{header: o.Header, prefix: o.Prefix}
	var algorithm func() hash.Hash
	switch o.Algorithm {
	case "", "sha256":
		algorithm = sha256.New
	case "sha512":
		algorithm = sha512.New
	case "sha1":
		// Weak as a hash and still sound within HMAC (RFC 6194, section 3.3); old verifiers know nothing else.
		algorithm = sha1.New
	default:
		return nil, fmt.Errorf("algorithm %q is not known; write sha256, sha512 or sha1", o.Algorithm)
	}
	switch o.Encoding {
	case "", "hex":
		h.encode = hex.AppendEncode
	case "base64":
		h.encode = base64.StdEncoding.AppendEncode
	default:
		return nil, fmt.Errorf("encoding %q is not known; write hex or base64", o.Encoding)
	}
	h.key = newKeyed(algorithm, []byte(o.Secret))
	return h, nil
}

func checkText(secret string) error {
	switch {
	case secret == "":
		return errors.New("the secret is empty")
	case strings.TrimSpace(secret) != secret:
		return errors.New("the secret has white space around it; remove it")
	case len(secret) < minText:
		return fmt.Errorf("the secret is shorter than %d bytes; use a longer one", minText)
	case len(secret) > maxText:
		return fmt.Errorf("the secret is longer than %d bytes; use a shorter one", maxText)
	case isRepeated(secret):
		return errors.New("the secret is one character repeated; use a random one")
	}
	return nil
}

// reserved are the headers that have a meaning of their own: hop-by-hop ones (RFC 9110, section 7.6.1), those
// that frame or describe the body, and those that authenticate. In canonical form, sorted.
var reserved = [...]string{
	"Accept-Encoding", "Authorization", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Cookie",
	"Expect", "Host", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "User-Agent",
}

func checkHeader(name string) error {
	if name == "" {
		return errors.New("the header is missing; write its name, such as X-Signature")
	}
	if !httpguts.ValidHeaderFieldName(name) || len(name) > maxHeader {
		return fmt.Errorf("%q cannot be the name of a header", name)
	}
	canonical := http.CanonicalHeaderKey(name)
	if strings.HasPrefix(canonical, "Webhook-") {
		return fmt.Errorf("header %s belongs to Standard Webhooks; choose another name", name)
	}
	if slices.Contains(reserved[:], canonical) {
		return fmt.Errorf("header %s has another meaning in HTTP; choose another name", name)
	}
	return nil
}

// Header returns the name of the header that Sign fills, as it was written.
func (h *HMAC) Header() string { return h.header }

// Sign returns the one header. It uses nothing of the Input but the body, and its error is always nil.
func (h *HMAC) Sign(in Input) ([]Header, error) {
	return []Header{{h.header, string(h.key.appendBody(nil, h.prefix, h.encode, in.Body))}}, nil
}

// Verify checks a request as its receiver got it. The error wraps ErrMissingHeader or ErrNoMatch.
func (h *HMAC) Verify(header http.Header, body []byte) error {
	got := header.Get(h.header)
	if got == "" {
		return fmt.Errorf("%w: %s", ErrMissingHeader, h.header)
	}
	want := h.key.appendBody(nil, h.prefix, h.encode, body)
	if subtle.ConstantTimeCompare([]byte(got), want) != 1 {
		return ErrNoMatch
	}
	return nil
}
