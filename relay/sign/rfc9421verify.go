package sign

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// Request is a request as its receiver got it.
type Request struct {
	Method string
	URL    *url.URL    // absolute, as the sender knew it: https and the name that the sender asked for
	Header http.Header // keys in canonical form
	Body   []byte      // byte for byte, before anything parses it
}

// RFC9421Verifier verifies HTTP Message Signatures (RFC 9421) and Content-Digest (RFC 9530). NewRFC9421Verifier
// makes one. It may be used from several goroutines.
type RFC9421Verifier struct {
	label string
	keys  []requestKey
}

// NewRFC9421Verifier reads one to eight keys: secrets as in RFC9421Options, or public keys as whpk_ or PEM with
// SubjectPublicKeyInfo. Only the signature of this label counts; empty means any. An empty algorithm means the
// one that each key is for. Errors name a key by its place and never show it.
func NewRFC9421Verifier(label, algorithm string, keys []string) (*RFC9421Verifier, error) {
	if len(keys) == 0 {
		return nil, errors.New("there is no key")
	}
	if len(keys) > maxSecrets {
		return nil, fmt.Errorf("there are %d keys; at most %d are allowed", len(keys), maxSecrets)
	}
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	if err := checkAlgorithm(algorithm); err != nil {
		return nil, err
	}
	v := &RFC9421Verifier{label: label}
	for i, text := range keys {
		k, err := parseRequestKey(text, algorithm)
		if err != nil {
			return nil, fmt.Errorf("secret %d %w", i+1, err)
		}
		v.keys = append(v.keys, k)
	}
	return v, nil
}

// labelled is one signature of a request with what it says about itself.
type labelled struct {
	label   string
	list    httpsfv.InnerList
	covered []component
	given   []byte
}

// number returns a parameter that is an integer.
func (l labelled) number(name string) (int64, bool) {
	v, ok := l.list.Params.Get(name)
	if !ok {
		return 0, false
	}
	n, ok := v.(int64)
	return n, ok
}

// text returns a parameter that is a string, or nothing.
func (l labelled) text(name string) string {
	v, _ := l.list.Params.Get(name)
	s, _ := v.(string)
	return s
}

// covers reports whether the signature covers a component of this name in any form.
func (l labelled) covers(name string) bool {
	for _, c := range l.covered {
		if c.name == name {
			return true
		}
	}
	return false
}

// readLabelled returns the signatures of a request: that of the label, or all of them if it is empty.
func readLabelled(header http.Header, label string) ([]labelled, error) {
	dictionaries := map[string]*httpsfv.Dictionary{}
	for _, name := range []string{headerSignatureInput, headerMessageSignature} {
		values := header[name]
		if len(values) == 0 {
			return nil, fmt.Errorf("%w: %s", ErrMissingHeader, name)
		}
		d, err := httpsfv.UnmarshalDictionary(values)
		if err != nil {
			return nil, fmt.Errorf("%w: %s is not a dictionary of structured fields: %w", ErrBadHeader, name, err)
		}
		dictionaries[name] = d
	}
	inputs, proofs := dictionaries[headerSignatureInput], dictionaries[headerMessageSignature]
	names := inputs.Names()
	if label != "" {
		names = []string{label}
	}
	if len(names) == 0 || len(names) > maxSignatures {
		return nil, fmt.Errorf("%w: %s holds %d signatures", ErrBadHeader, headerSignatureInput, len(names))
	}
	var all []labelled
	for _, name := range names {
		member, ok := inputs.Get(name)
		if !ok {
			return nil, fmt.Errorf("%w: %s has no signature %q, only %s", ErrMissingHeader, headerSignatureInput, name,
				strings.Join(inputs.Names(), ", "))
		}
		list, ok := member.(httpsfv.InnerList)
		if !ok {
			return nil, fmt.Errorf("%w: %q of %s is not a list of components", ErrBadHeader, name, headerSignatureInput)
		}
		proof, ok := proofs.Get(name)
		if !ok {
			return nil, fmt.Errorf("%w: %s has no signature %q", ErrMissingHeader, headerMessageSignature, name)
		}
		item, _ := proof.(httpsfv.Item)
		given, ok := item.Value.([]byte)
		if !ok {
			return nil, fmt.Errorf("%w: %q of %s is not a byte sequence", ErrBadHeader, name, headerMessageSignature)
		}
		covered, err := components(list)
		if err != nil {
			return nil, err
		}
		all = append(all, labelled{name, list, covered, given})
	}
	return all, nil
}

func (r Request) message() message {
	u := r.URL
	if u == nil {
		u = &url.URL{}
	}
	return message{method: r.Method, url: u, field: headerField(r.Header)}
}

// Verify checks a request, now being the receiver's clock. It returns nil if one signature that covers the body, if
// there is one, was made by one of the keys, its creation is within Tolerance of now, it has not expired, and
// Content-Digest is that of the body. Otherwise the error wraps one of ErrMissingHeader, ErrBadHeader,
// ErrBadTimestamp, ErrTooOld, ErrTooNew, ErrNoMatch, ErrBadDigest and ErrNotCovered.
func (v *RFC9421Verifier) Verify(r Request, now time.Time) error {
	all, err := readLabelled(r.Header, v.label)
	if err != nil {
		return err
	}
	var last error
	for _, l := range all {
		if last = v.check(r, l, now, Tolerance); last == nil {
			return nil
		}
	}
	return last
}

func (v *RFC9421Verifier) check(r Request, l labelled, now time.Time, tolerance time.Duration) error {
	base, _, err := signatureBase(l.list, l.covered, r.message().value)
	if err != nil {
		return err
	}
	if v.maker(l, base) < 0 {
		return ErrNoMatch
	}
	switch {
	case l.covers("content-digest"):
		if err := checkDigest(r.Header[headerContentDigest], r.Body); err != nil {
			return err
		}
	case len(r.Body) > 0:
		return ErrNotCovered
	}
	return l.checkTimes(now, tolerance)
}

func (l labelled) checkTimes(now time.Time, tolerance time.Duration) error {
	created, ok := l.number("created")
	if !ok {
		return fmt.Errorf("%w: the signature has no parameter created", ErrBadTimestamp)
	}
	if expires, ok := l.number("expires"); ok && now.Unix() > expires {
		return fmt.Errorf("%w: it expired at %s", ErrTooOld, time.Unix(expires, 0).UTC().Format(time.RFC3339))
	}
	return checkClock(created, now, tolerance)
}

// maker returns the index of the key that made the signature, or -1.
func (v *RFC9421Verifier) maker(l labelled, base []byte) int {
	algorithm := l.text("alg")
	for i := range v.keys {
		// Section 3.2, step 6: what the signature says must not contradict what is known of the key.
		if algorithm != "" && algorithm != v.keys[i].algorithm {
			continue
		}
		if v.keys[i].verify(base, l.given) {
			return i
		}
	}
	return -1
}

// checkDigest checks all digests of Content-Digest that it knows, sha-256 and sha-512 (RFC 9530, section 2). One
// of them must be there.
func checkDigest(values []string, body []byte) error {
	d, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return fmt.Errorf("%w: %s is not a dictionary of structured fields", ErrBadHeader, headerContentDigest)
	}
	known := 0
	for _, name := range d.Names() {
		var want []byte
		switch name {
		case "sha-256":
			hashed := sha256.Sum256(body)
			want = hashed[:]
		case "sha-512":
			hashed := sha512.Sum512(body)
			want = hashed[:]
		default:
			continue
		}
		known++
		member, _ := d.Get(name)
		item, _ := member.(httpsfv.Item)
		given, ok := item.Value.([]byte)
		if !ok {
			return fmt.Errorf("%w: %s of %s is not a byte sequence", ErrBadHeader, name, headerContentDigest)
		}
		if subtle.ConstantTimeCompare(given, want) != 1 {
			return fmt.Errorf("%w: by %s", ErrBadDigest, name)
		}
	}
	if known == 0 {
		return fmt.Errorf("%w: %s has neither sha-256 nor sha-512", ErrBadHeader, headerContentDigest)
	}
	return nil
}
