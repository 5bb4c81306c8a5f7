package sign

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/dunglas/httpsfv"
)

// The headers of HTTP Message Signatures (RFC 9421, section 4) and of digests (RFC 9530, section 2).
const (
	headerMessageSignature = "Signature"
	headerSignatureInput   = "Signature-Input"
	headerContentDigest    = "Content-Digest"
)

const (
	defaultLabel = "sig1"
	maxLabel     = 64  // bytes
	maxKeyID     = 256 // bytes
	dictionary   = ", "
)

// RFC9421Options says how a receiver wants its HTTP Message Signatures.
type RFC9421Options struct {
	// Label names the signature within its headers: a key of structured fields, such as sig1, up to 64 bytes.
	// Empty means sig1. Signers side by side need different ones: see CheckLabels.
	Label string

	// KeyID tells the receiver which key to verify with: up to 256 printable ASCII characters. Empty: no keyid.
	KeyID string

	// Algorithm is HMACSHA256, Ed25519 or ECDSAP256SHA256. Empty means the one that the secret is for.
	Algorithm string

	// Secret is the key, required. For hmac-sha256 it is base64: or whsec_ and padded base64 of the key, of 16 to
	// 128 bytes and of 24 to 64, or else a text of 8 to 1,024 bytes that is the key itself. For ed25519 it is a whsk_ secret
	// as in NewStandard or PEM with PKCS #8; for ecdsa-p256-sha256 PEM with PKCS #8 or SEC 1. White space around PEM does not
	// matter.
	Secret string

	// Components are what the signature covers, in this order: names of headers in any case, the derived
	// components of RFC 9421, section 2.2, and parameters bs, key and name as in @query-param;name="q". A request
	// that lacks one of them cannot be signed. Without content-digest among them the body is not protected.
	//
	// Empty means @method, @authority, @path, @query, content-digest, content-type if the request has one,
	// webhook-id and webhook-timestamp: all that makes this request do something else at the receiver. A query
	// that is not there is covered too (section 2.2.7), so that nobody can add one.
	Components []string
}

// RFC9421 signs requests by HTTP Message Signatures (RFC 9421). It sets Signature and Signature-Input, with the
// parameters created, keyid and alg, and, if it covers it, Content-Digest with sha-256 (RFC 9530). NewRFC9421 makes
// one. It may be used from several goroutines.
type RFC9421 struct {
	label   string
	keyID   string
	key     requestKey
	covered []component
	strict  bool // the user has chosen the components: each of them must be there
	digest  bool // content-digest is one of them
}

var defaultComponents = [...]string{
	"@method", "@authority", "@path", "@query", "content-digest", "content-type", HeaderID, HeaderTimestamp,
}

// NewRFC9421 checks the options. Errors say which option is wrong and never show the secret.
func NewRFC9421(o RFC9421Options) (*RFC9421, error) {
	s := &RFC9421{label: o.Label, keyID: o.KeyID, strict: len(o.Components) > 0}
	if s.label == "" {
		s.label = defaultLabel
	}
	if err := checkLabel(s.label); err != nil {
		return nil, err
	}
	if len(o.KeyID) > maxKeyID || strings.ContainsFunc(o.KeyID, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, fmt.Errorf("the key id must be up to %d printable ASCII characters", maxKeyID)
	}
	if err := checkAlgorithm(o.Algorithm); err != nil {
		return nil, err
	}
	var err error
	if s.key, err = parseRequestKey(o.Secret, o.Algorithm); err != nil {
		return nil, fmt.Errorf("the secret %w", err)
	}
	if !s.key.canSign() {
		return nil, errors.New("the secret is a public key, which cannot sign; write the private key that it belongs to")
	}
	names := o.Components
	if !s.strict {
		names = defaultComponents[:]
	}
	if len(names) > maxComponents {
		return nil, fmt.Errorf("there are %d components; at most %d are allowed", len(names), maxComponents)
	}
	for _, name := range names {
		c, err := parseComponent(name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(s.covered, func(other component) bool { return other.text == c.text }) {
			return nil, fmt.Errorf("component %s is there twice; remove one", c.text)
		}
		if slices.Contains(unsigned[:], textproto.CanonicalMIMEHeaderKey(c.name)) {
			return nil, fmt.Errorf("component %q changes on the way and cannot be signed", c.name)
		}
		s.covered = append(s.covered, c)
		s.digest = s.digest || c.name == "content-digest"
	}
	return s, nil
}

// unsigned are headers of a connection rather than of a request, and what is set after signing. In canonical form.
var unsigned = [...]string{
	"Accept-Encoding", "Connection", "Content-Length", "Expect", "Keep-Alive", "Proxy-Authorization",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func checkAlgorithm(name string) error {
	switch name {
	case "", HMACSHA256, Ed25519, ECDSAP256SHA256:
		return nil
	}
	return fmt.Errorf("algorithm %q is not known; write %s, %s or %s", name, HMACSHA256, Ed25519, ECDSAP256SHA256)
}

// checkLabel holds for keys of structured fields (RFC 9651, section 3.1.2).
func checkLabel(label string) error {
	for i := range len(label) {
		c := label[i]
		lower, later := c >= 'a' && c <= 'z' || c == '*', c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
		if !lower && (i == 0 || !later) {
			return fmt.Errorf("label %q is not allowed; write lower case letters, digits, - _ . and *, a letter first", label)
		}
	}
	if len(label) > maxLabel {
		return fmt.Errorf("the label has %d bytes; at most %d are allowed", len(label), maxLabel)
	}
	return nil
}

// CheckLabels reports two RFC9421 signers that are to sign one request under the same label, which would leave
// only one of their signatures. The error names the later one by its place.
func CheckLabels(signers []Signer) error {
	seen := map[string]int{}
	for i, signer := range signers {
		s, ok := signer.(*RFC9421)
		if !ok {
			continue
		}
		if earlier, taken := seen[s.label]; taken {
			return fmt.Errorf("sign[%d]: label %s is that of sign[%d] already; give one of them another", i, s.label, earlier)
		}
		seen[s.label] = i
	}
	return nil
}

// Label returns the name of the signature within its headers.
func (s *RFC9421) Label() string { return s.label }

// Headers returns Signature-Input, Signature and, if it is covered, Content-Digest. All are dictionaries, so other
// signers may add to them.
func (s *RFC9421) Headers() []Header {
	headers := []Header{{Name: headerSignatureInput, Join: dictionary}, {Name: headerMessageSignature, Join: dictionary}}
	if s.digest {
		headers = append(headers, Header{Name: headerContentDigest, Join: dictionary})
	}
	return headers
}

// signing is what a signature is made of.
type signing struct {
	base   []byte // is signed
	params string // as they stand in Signature-Input
	digest string // value of Content-Digest, empty if it is not covered
}

// Sign returns the headers. It refuses an Input without method and URL, or without a header that is to be covered.
func (s *RFC9421) Sign(in Input) ([]Header, error) {
	made, err := s.prepare(in)
	if err != nil {
		return nil, err
	}
	proof, err := s.key.sign(made.base)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	text, err := httpsfv.Marshal(httpsfv.NewItem(proof))
	if err != nil {
		return nil, fmt.Errorf("sign: write the signature: %w", err)
	}
	headers := s.Headers()
	headers[0].Value = s.label + "=" + made.params
	headers[1].Value = s.label + "=" + text
	if s.digest {
		headers[2].Value = made.digest
	}
	return headers, nil
}

// Base returns the signature base (RFC 9421, section 2.5). It refuses what Sign refuses.
func (s *RFC9421) Base(in Input) ([]byte, error) {
	made, err := s.prepare(in)
	return made.base, err
}

// prepare does all that comes before the key.
func (s *RFC9421) prepare(in Input) (signing, error) {
	if in.Method == "" || in.URL == nil || in.URL.Host == "" {
		return signing{}, errors.New("sign: method and URL of the request are missing")
	}
	var made signing
	if s.digest {
		var err error
		if made.digest, err = contentDigest(in.Body); err != nil {
			return signing{}, err
		}
	}
	m := message{method: in.Method, url: in.URL, field: func(name string) []string {
		switch name {
		case "content-digest":
			return []string{made.digest}
		case HeaderID:
			return []string{in.ID}
		case HeaderTimestamp:
			return []string{strconv.FormatInt(in.Time.Unix(), 10)}
		}
		return in.Header[http.CanonicalHeaderKey(name)]
	}}
	list := httpsfv.InnerList{Params: httpsfv.NewParams()}
	covered := make([]component, 0, len(s.covered))
	for _, c := range s.covered {
		if !s.strict && c.name == "content-type" && len(in.Header["Content-Type"]) == 0 {
			continue
		}
		covered = append(covered, c)
		list.Items = append(list.Items, c.item)
	}
	list.Params.Add("created", in.Time.Unix())
	if s.keyID != "" {
		list.Params.Add("keyid", s.keyID)
	}
	list.Params.Add("alg", s.key.algorithm)
	var err error
	if made.base, made.params, err = signatureBase(list, covered, m.value); err != nil {
		return signing{}, fmt.Errorf("sign: %w", err)
	}
	return made, nil
}

// contentDigest returns the value of Content-Digest for body, by sha-256.
func contentDigest(body []byte) (string, error) {
	hashed := sha256.Sum256(body)
	text, err := httpsfv.Marshal(httpsfv.NewItem(hashed[:]))
	if err != nil {
		return "", fmt.Errorf("sign: write the digest: %w", err)
	}
	return "sha-256=" + text, nil
}
