package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

const (
	maxSecrets    = 8  // of one signer; a rotation needs two
	maxSignatures = 64 // that a verifier looks at in one request
)

const (
	version1  = "v1,"  // HMAC-SHA256
	version1a = "v1a," // ed25519
)

// Standard signs by Standard Webhooks (spec/standard-webhooks.md, "Signature scheme"): v1, which is HMAC-SHA256,
// and v1a, which is ed25519, over id, timestamp and body, joined by full stops. NewStandard makes one. It may be
// used from several goroutines.
type Standard struct {
	verifier StandardVerifier
}

// NewStandard reads one to eight secrets. One is whsec_ and the padded base64 of 24 to 64 bytes, which signs v1, or
// whsk_ and the base64 of an ed25519 seed of 32 bytes, with or without the 32 bytes of its public key behind it,
// which signs v1a. Every request is signed with all of them, in their order: while a secret is being rotated, write
// the new one first and keep the old one behind it. Errors name a secret by its place and never show it.
func NewStandard(secrets []string) (*Standard, error) {
	if len(secrets) == 0 {
		return nil, errors.New("there is no secret; make one with: postern secret new")
	}
	v, err := newStandardVerifier(standardRecipe, secrets)
	if err != nil {
		return nil, err
	}
	return v.signer()
}

// StandardFaults returns what is wrong with each of the secrets of a Standard by itself, in their order, and nil where
// nothing is. That two are the same only NewStandard tells.
func StandardFaults(secrets []string) []error {
	faults := make([]error, len(secrets))
	for i, text := range secrets {
		k, _, err := readStandardKey(i, text)
		if err == nil {
			err = k.checkSigns(i)
		}
		faults[i] = err
	}
	return faults
}

// signer returns a Standard with the same keys, all of which must be secrets.
func (v *StandardVerifier) signer() (*Standard, error) {
	for i, k := range v.keys {
		if err := k.checkSigns(i); err != nil {
			return nil, err
		}
	}
	return &Standard{*v}, nil
}

// checkSigns returns an error for the i-th key if it is a public one.
func (k *standardKey) checkSigns(i int) error {
	if k.mac == nil && k.private == nil {
		return fmt.Errorf("secret %d is a public key (whpk_), which cannot sign; write the whsk_ secret that it belongs to", i+1)
	}
	return nil
}

// standardRecipe leaves the labels to StandardVerifier, since they depend on the key.
func standardRecipe() recipe {
	return recipe{
		header: HeaderSignature, id: HeaderID, stamp: HeaderTimestamp, timed: true, sep: ".", joint: " ",
		algorithm: sha256.New, encode: base64.StdEncoding.AppendEncode,
	}
}

// StandardVerifier verifies by Standard Webhooks with secrets or public keys. NewStandardVerifier makes one. It may
// be used from several goroutines.
type StandardVerifier struct {
	recipe recipe
	keys   []standardKey
}

// standardKey has either mac or public, and private too if it may sign by ed25519.
type standardKey struct {
	mac     *keyed
	private ed25519.PrivateKey
	public  ed25519.PublicKey
}

// NewStandardVerifier reads one to eight keys: secrets as NewStandard takes them, or whpk_ and the base64 of an
// ed25519 public key of 32 bytes. Errors name a key by its place and never show it.
func NewStandardVerifier(keys []string) (*StandardVerifier, error) {
	return newStandardVerifier(standardRecipe, keys)
}

func newStandardVerifier(r func() recipe, keys []string) (*StandardVerifier, error) {
	if len(keys) == 0 {
		return nil, errors.New("there is no key")
	}
	if len(keys) > maxSecrets {
		return nil, fmt.Errorf("there are %d secrets; at most %d are allowed", len(keys), maxSecrets)
	}
	v := &StandardVerifier{recipe: r()}
	seen := make(map[string]int, len(keys))
	for i, text := range keys {
		k, identity, err := readStandardKey(i, text)
		if err != nil {
			return nil, err
		}
		if earlier, ok := seen[identity]; ok {
			return nil, fmt.Errorf("secret %d is the same as secret %d; remove one", i+1, earlier)
		}
		seen[identity] = i + 1
		v.keys = append(v.keys, k)
	}
	return v, nil
}

// readStandardKey is parseStandardKey for the i-th of several, whose place its error names.
func readStandardKey(i int, text string) (k standardKey, identity string, err error) {
	if k, identity, err = parseStandardKey(text); err != nil {
		err = fmt.Errorf("secret %d %w", i+1, err)
	}
	return k, identity, err
}

// appendSigned appends one signature with its label.
func (k *standardKey) appendSigned(dst []byte, r *recipe, id string, unix int64, body []byte) []byte {
	if k.mac != nil {
		return k.mac.appendProof(append(dst, version1...), r, id, unix, body)
	}
	signed := append(r.appendHead(make([]byte, 0, len(id)+len(body)+24), id, unix), body...)
	return r.encode(append(dst, version1a...), ed25519.Sign(k.private, signed))
}

// matches reports whether one of the elements of the list was made with this key.
func (k *standardKey) matches(r *recipe, c claim, body []byte) bool {
	found := 0
	if k.mac != nil {
		want := k.appendSigned(nil, r, c.id, c.unix, body)
		for _, element := range c.proofs {
			found |= subtle.ConstantTimeCompare([]byte(element), want)
		}
		return found == 1
	}
	var signed []byte
	for _, element := range c.proofs {
		proof, ok := decodeV1a(element)
		if !ok {
			continue
		}
		if signed == nil {
			signed = append(r.appendHead(nil, c.id, c.unix), body...)
		}
		if ed25519.Verify(k.public, signed, proof) {
			found = 1
		}
	}
	return found == 1
}

// decodeV1a returns the signature that an element of the list holds, if it is one of ed25519.
func decodeV1a(element string) ([]byte, bool) {
	const length = len(version1a) + (ed25519.SignatureSize+2)/3*4
	if len(element) != length || element[:len(version1a)] != version1a {
		return nil, false
	}
	proof, err := base64.StdEncoding.Strict().DecodeString(element[len(version1a):])
	return proof, err == nil && len(proof) == ed25519.SignatureSize
}

// Headers returns the webhook-signature header.
func (s *Standard) Headers() []Header { return []Header{{Name: s.verifier.recipe.header}} }

// Sign returns the webhook-signature header: one signature for each secret, in their order. It refuses an id that
// is empty or holds a full stop or a character that cannot stand in a header, since such an id would let two
// different requests have one signature.
func (s *Standard) Sign(in Input) ([]Header, error) {
	if err := checkID(in.ID); err != nil {
		return nil, err
	}
	v := &s.verifier
	const each = len(version1) + 44 + 1 // 44 is the base64 of 32 bytes
	list := make([]byte, 0, each*len(v.keys))
	unix := in.Time.Unix()
	for i := range v.keys {
		if i > 0 {
			list = append(list, v.recipe.joint...)
		}
		list = v.keys[i].appendSigned(list, &v.recipe, in.ID, unix, in.Body)
	}
	return []Header{{Name: v.recipe.header, Value: string(list)}}, nil
}

// Base returns id, timestamp and body, joined by full stops. It refuses what Sign refuses.
func (s *Standard) Base(in Input) ([]byte, error) { return s.verifier.recipe.base(in) }

// Verify checks a request by the same secrets; see StandardVerifier.Verify.
func (s *Standard) Verify(header http.Header, body []byte, now time.Time) error {
	return s.verifier.Verify(header, body, now)
}

// Verify checks a request as its receiver got it: header with the three webhook headers, body byte for byte, now
// from the receiver's clock. It returns nil if one signature was made by one of the keys and the timestamp is
// within Tolerance of now. Otherwise the error wraps one of ErrMissingHeader, ErrBadTimestamp, ErrTooOld,
// ErrTooNew and ErrNoMatch. Signatures of other versions in the list are skipped, as the specification asks.
func (v *StandardVerifier) Verify(header http.Header, body []byte, now time.Time) error {
	claimed, err := v.recipe.read(header)
	if err != nil {
		return err
	}
	if checkID(claimed.id) != nil {
		return fmt.Errorf("%w: the id is not one that can be signed", ErrNoMatch)
	}
	if v.maker(claimed, body) < 0 {
		return ErrNoMatch
	}
	return checkClock(claimed.unix, now, Tolerance)
}

// maker returns the index of the key that made one of the signatures, or -1. It looks at all keys in any case.
func (v *StandardVerifier) maker(c claim, body []byte) int {
	maker := -1
	for i := range v.keys {
		if v.keys[i].matches(&v.recipe, c, body) && maker < 0 {
			maker = i
		}
	}
	return maker
}

// signSvix is Sign for the names of headers that Svix gave them first. Unlike those of Standard Webhooks they are
// not on every request, so it sets id and time as well.
func (s *Standard) signSvix(in Input) ([]Header, error) {
	headers, err := s.Sign(in)
	if err != nil {
		return nil, err
	}
	r := &s.verifier.recipe
	return append(headers,
		Header{Name: r.id, Value: in.ID},
		Header{Name: r.stamp, Value: strconv.FormatInt(in.Time.Unix(), 10)}), nil
}
