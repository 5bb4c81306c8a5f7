package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// The algorithms of HTTP Message Signatures that this package knows (RFC 9421, section 3.3).
const (
	HMACSHA256      = "hmac-sha256"
	Ed25519         = "ed25519"
	ECDSAP256SHA256 = "ecdsa-p256-sha256"
)

const (
	base64Prefix = "base64:"
	minRaw       = 16  // bytes of a secret in base64
	maxRaw       = 128 // bytes of a secret in base64

	pemPrivate = "PRIVATE KEY"    // PKCS #8
	pemEC      = "EC PRIVATE KEY" // SEC 1
	pemPublic  = "PUBLIC KEY"     // SubjectPublicKeyInfo

	coordinate = 32 // bytes of one half of a signature on P-256
)

// requestKey is a key of HTTP Message Signatures. It has mac, or the public key of its algorithm, and the private
// one too if it may sign.
type requestKey struct {
	algorithm string
	mac       *keyed
	private   crypto.Signer
	edPublic  ed25519.PublicKey
	ecPublic  *ecdsa.PublicKey
}

// parseRequestKey reads a key in one of the forms that RFC9421Options.Secret lists. An empty algorithm means the
// one that the form implies. Its errors continue the words "the secret" and never show it.
func parseRequestKey(text, algorithm string) (requestKey, error) {
	var (
		k   requestKey
		err error
	)
	switch {
	case strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN "):
		k, err = parsePEM(strings.TrimSpace(text))
	case strings.HasPrefix(text, privatePrefix), strings.HasPrefix(text, publicPrefix):
		var standard standardKey
		standard, _, err = parseStandardKey(text)
		k = requestKey{algorithm: Ed25519, edPublic: standard.public}
		if standard.private != nil {
			k.private = standard.private
		}
	default:
		var key []byte
		key, err = parseShared(text)
		k = requestKey{algorithm: HMACSHA256, mac: newKeyed(sha256.New, key)}
	}
	if err != nil {
		return requestKey{}, err
	}
	if algorithm != "" && k.algorithm != algorithm {
		return requestKey{}, fmt.Errorf("is one for %s, and the algorithm is %s; change one of them", k.algorithm, algorithm)
	}
	return k, nil
}

// parseShared reads the secret of an HMAC.
func parseShared(text string) ([]byte, error) {
	if key, ok := strings.CutPrefix(text, secretPrefix); ok {
		return parseSecret(key)
	}
	encoded, ok := strings.CutPrefix(text, base64Prefix)
	if !ok {
		return []byte(text), checkText(text)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	switch {
	case err != nil || strings.ContainsAny(encoded, "\r\n"):
		return nil, errors.New("is not base64: and standard base64 with padding on one line")
	case len(key) < minRaw || len(key) > maxRaw:
		return nil, fmt.Errorf("holds %d bytes; %d to %d are allowed", len(key), minRaw, maxRaw)
	case isRepeated(key):
		return nil, errors.New("is one byte repeated; make a random one with: postern secret new --kind rfc9421-hmac")
	}
	return key, nil
}

func parsePEM(text string) (requestKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return requestKey{}, errors.New("is not a whole block of PEM; copy all of its lines")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return requestKey{}, errors.New("has something behind its first block of PEM; leave only the key")
	}
	var (
		key any
		err error
	)
	switch block.Type {
	case pemPrivate:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case pemEC:
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case pemPublic:
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	default:
		return requestKey{}, fmt.Errorf("is PEM of the kind %q; %s, %s or %s is needed", block.Type, pemPrivate, pemEC, pemPublic)
	}
	if err != nil {
		return requestKey{}, fmt.Errorf("cannot be read as %s", block.Type) // the parser's text may quote the key
	}
	switch key := key.(type) {
	case ed25519.PrivateKey:
		return requestKey{algorithm: Ed25519, private: key, edPublic: key.Public().(ed25519.PublicKey)}, nil
	case ed25519.PublicKey:
		return requestKey{algorithm: Ed25519, edPublic: key}, nil
	case *ecdsa.PrivateKey:
		return requestKey{algorithm: ECDSAP256SHA256, private: key, ecPublic: &key.PublicKey}, checkCurve(key.Curve)
	case *ecdsa.PublicKey:
		return requestKey{algorithm: ECDSAP256SHA256, ecPublic: key}, checkCurve(key.Curve)
	}
	return requestKey{}, errors.New("is a key of another kind; ed25519 and ecdsa on P-256 are supported")
}

func checkCurve(c elliptic.Curve) error {
	if c != elliptic.P256() {
		return fmt.Errorf("is on the curve %s; P-256 is supported", c.Params().Name)
	}
	return nil
}

// canSign reports whether the key holds a secret.
func (k *requestKey) canSign() bool { return k.mac != nil || k.private != nil }

// sign returns the signature of base. It makes the same one each time: for ecdsa by RFC 6979.
func (k *requestKey) sign(base []byte) ([]byte, error) {
	switch {
	case k.mac != nil:
		return k.mac.appendSum(nil, base), nil
	case k.ecPublic != nil:
		hashed := sha256.Sum256(base)
		der, err := k.private.Sign(nil, hashed[:], crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("sign on P-256: %w", err)
		}
		var pair struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &pair); err != nil {
			return nil, fmt.Errorf("read the signature on P-256: %w", err)
		}
		// Section 3.3.4: both halves in 32 bytes each, one behind the other.
		both := make([]byte, 2*coordinate)
		pair.R.FillBytes(both[:coordinate])
		pair.S.FillBytes(both[coordinate:])
		return both, nil
	}
	return k.private.Sign(nil, base, crypto.Hash(0))
}

// verify reports whether given is the signature of base.
func (k *requestKey) verify(base, given []byte) bool {
	switch {
	case k.mac != nil:
		return subtle.ConstantTimeCompare(k.mac.appendSum(nil, base), given) == 1
	case k.ecPublic != nil:
		if len(given) != 2*coordinate {
			return false
		}
		hashed := sha256.Sum256(base)
		r, s := new(big.Int).SetBytes(given[:coordinate]), new(big.Int).SetBytes(given[coordinate:])
		return ecdsa.Verify(k.ecPublic, hashed[:], r, s)
	}
	return ed25519.Verify(k.edPublic, base, given)
}
