package sign

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
)

const newKey = 32 // bytes in a key made here

// Kinds returns the names that NewKey takes, the default first.
func Kinds() []string {
	return []string{"standard", "ed25519", "hmac", "timestamped", "rfc9421-hmac", "rfc9421-ed25519", "rfc9421-ecdsa"}
}

// Key is a new secret and, where the kind has one, the public half to hand out.
type Key struct {
	Kind   string `json:"kind"`
	Secret string `json:"secret"`           // without a line end; several lines for PEM
	Public string `json:"public,omitempty"` // empty if both ends share the secret
}

// NewKey makes a secret of one of the Kinds; an empty kind means standard. If the system has no randomness to give,
// the process ends (crypto/rand.Read).
//
//	standard         whsec_ and 32 bytes in base64
//	ed25519          whsk_ and a seed of 32 bytes in base64; whpk_ and the public key
//	hmac             64 hexadecimal digits, used as text; for profiles too
//	timestamped      the same
//	rfc9421-hmac     base64: and 32 bytes in base64
//	rfc9421-ed25519  PEM, PKCS #8; PEM, SubjectPublicKeyInfo
//	rfc9421-ecdsa    the same with a key on P-256
func NewKey(kind string) (Key, error) {
	switch kind {
	case "", "standard":
		return Key{Kind: "standard", Secret: NewSecret()}, nil
	case "ed25519":
		private := ed25519.NewKeyFromSeed(randomBytes())
		return Key{
			Kind:   kind,
			Secret: privatePrefix + base64.StdEncoding.EncodeToString(private.Seed()),
			Public: publicPrefix + base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey)),
		}, nil
	case "hmac", "timestamped":
		return Key{Kind: kind, Secret: hex.EncodeToString(randomBytes())}, nil
	case "rfc9421-hmac":
		return Key{Kind: kind, Secret: base64Prefix + base64.StdEncoding.EncodeToString(randomBytes())}, nil
	case "rfc9421-ed25519":
		private := ed25519.NewKeyFromSeed(randomBytes())
		return pemKey(kind, private, private.Public())
	case "rfc9421-ecdsa":
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return Key{}, fmt.Errorf("make a key on P-256: %w", err)
		}
		return pemKey(kind, private, private.Public())
	}
	return Key{}, fmt.Errorf("kind %q is not known; choose one of %s", kind, strings.Join(Kinds(), ", "))
}

// NewSecret makes a secret for NewStandard: whsec_ and 32 random bytes in base64. If the system has no randomness
// to give, the process ends (crypto/rand.Read).
func NewSecret() string {
	return secretPrefix + base64.StdEncoding.EncodeToString(randomBytes())
}

func randomBytes() []byte {
	key := make([]byte, newKey)
	// Never returns an error, see its documentation.
	_, _ = rand.Read(key)
	return key
}

func pemKey(kind string, private, public any) (Key, error) {
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Key{}, fmt.Errorf("encode the private key: %w", err)
	}
	half, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Key{}, fmt.Errorf("encode the public key: %w", err)
	}
	return Key{
		Kind:   kind,
		Secret: strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: secret}))),
		Public: strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: half}))),
	}, nil
}
