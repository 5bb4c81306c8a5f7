package sign

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Bounds of the options that users write.
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
	coded coded
}

// NewHMAC checks the options. Errors say which option is wrong and never show the secret.
func NewHMAC(o HMACOptions) (*HMAC, error) {
	r, err := o.recipe()
	if err != nil {
		return nil, err
	}
	if err := checkText(o.Secret); err != nil {
		return nil, fmt.Errorf("the secret %w", err)
	}
	return &HMAC{newCoded(r, []byte(o.Secret))}, nil
}

// recipe checks all options but the secret.
func (o HMACOptions) recipe() (recipe, error) {
	if err := checkHeader(o.Header); err != nil {
		return recipe{}, err
	}
	if len(o.Prefix) > maxPrefix {
		return recipe{}, fmt.Errorf("the prefix has %d bytes; at most %d are allowed", len(o.Prefix), maxPrefix)
	}
	// A space in front would be lost on the way.
	if !httpguts.ValidHeaderFieldValue(o.Prefix) || strings.TrimLeft(o.Prefix, " \t") != o.Prefix {
		return recipe{}, fmt.Errorf("prefix %q cannot begin the value of a header", o.Prefix)
	}
	r := recipeOf(o.Header)
	r.label = o.Prefix
	var err error
	if r.algorithm, err = hashOf(o.Algorithm); err != nil {
		return recipe{}, err
	}
	if r.encode, err = encodingOf(o.Encoding); err != nil {
		return recipe{}, err
	}
	return r, nil
}

// checkText holds for secrets that are used as text. Its errors continue the words "the secret".
func checkText(secret string) error {
	switch {
	case secret == "":
		return errors.New("is empty")
	case strings.TrimSpace(secret) != secret:
		return errors.New("has white space around it; remove it")
	case len(secret) < minText:
		return fmt.Errorf("is shorter than %d bytes; use a longer one", minText)
	case len(secret) > maxText:
		return fmt.Errorf("is longer than %d bytes; use a shorter one", maxText)
	case isRepeated(secret):
		return errors.New("is one character repeated; use a random one")
	}
	return nil
}

// checkTexts holds for a list of secrets that are used as text.
func checkTexts(secrets []string, most int) ([][]byte, error) {
	if len(secrets) == 0 {
		return nil, errors.New("there is no secret; make one with: postern secret new --kind hmac")
	}
	if len(secrets) > most {
		if most == 1 {
			return nil, fmt.Errorf("there are %d secrets; only one is allowed, since such a signature is one alone", len(secrets))
		}
		return nil, fmt.Errorf("there are %d secrets; at most %d are allowed", len(secrets), most)
	}
	keys := make([][]byte, len(secrets))
	seen := make(map[string]int, len(secrets))
	for i, secret := range secrets {
		if err := checkText(secret); err != nil {
			return nil, fmt.Errorf("secret %d %w", i+1, err)
		}
		if earlier, ok := seen[secret]; ok {
			return nil, fmt.Errorf("secret %d is the same as secret %d; remove one", i+1, earlier)
		}
		seen[secret] = i + 1
		keys[i] = []byte(secret)
	}
	return keys, nil
}

// reserved are the headers that have a meaning of their own: hop-by-hop ones (RFC 9110, section 7.6.1), those
// that authenticate, those that change what a request asks for (sections 13 and 14), and those of a trace. In canonical
// form, sorted.
var reserved = [...]string{
	"Accept-Encoding", "Authorization", "Connection", "Cookie", "Cookie2", "Date", "Expect", "Host", "Http2-Settings",
	"Idempotency-Key", "Keep-Alive", "Range", "Te", "Traceparent", "Tracestate", "Trailer", "Transfer-Encoding", "Upgrade",
	"User-Agent", "X-Idempotency-Key",
}

// families are the beginnings of names that belong to somebody, in canonical form.
var families = [...]struct{ prefix, owner string }{
	{"Webhook-", "belongs to Standard Webhooks"},
	{"Postern-", "belongs to Postern itself"},
	{"Ce-", "is an attribute of a CloudEvent"},
	{"Content-", "describes the body"}, // RFC 9110, section 8
	{"If-", "makes a request conditional"},
	{"Proxy-", "is meant for a proxy"},
}

// checkHeader reports whether a signature, or the time that it covers, may have the header to itself.
func checkHeader(name string) error {
	if name == "" {
		return errors.New("the header is missing; write its name, such as X-Signature")
	}
	if !httpguts.ValidHeaderFieldName(name) || len(name) > maxHeader {
		return fmt.Errorf("%q cannot be the name of a header", name)
	}
	canonical := http.CanonicalHeaderKey(name)
	for _, f := range families {
		if strings.HasPrefix(canonical, f.prefix) {
			return fmt.Errorf("header %s %s; choose another name", name, f.owner)
		}
	}
	if slices.Contains(reserved[:], canonical) {
		return fmt.Errorf("header %s has another meaning in HTTP; choose another name", name)
	}
	return nil
}

// Header returns the name of the header that Sign fills, as it was written.
func (h *HMAC) Header() string { return h.coded.header }

// Headers returns the one header.
func (h *HMAC) Headers() []Header { return h.coded.headers() }

// Sign returns the one header. It uses nothing of the Input but the body, and its error is always nil.
func (h *HMAC) Sign(in Input) ([]Header, error) { return h.coded.sign(in) }

// Base returns the body. Its error is always nil.
func (h *HMAC) Base(in Input) ([]byte, error) { return h.coded.base(in) }

// Verify checks a request as its receiver got it. The error wraps ErrMissingHeader or ErrNoMatch.
func (h *HMAC) Verify(header http.Header, body []byte) error {
	return h.coded.verify(header, body, time.Time{}, Tolerance)
}
