package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Bounds of the secrets of Standard Webhooks v1.
const (
	MinKey = 24 // bytes in the shortest key (spec/standard-webhooks.md, "Signature scheme")
	MaxKey = 64 // bytes in the longest key
)

const (
	secretPrefix  = "whsec_"
	privatePrefix = "whsk_"
	publicPrefix  = "whpk_"
)

// parseStandardKey reads one key of Standard Webhooks. Two that have the same identity make the same signatures.
// Its errors continue the words "secret 1".
func parseStandardKey(s string) (k standardKey, identity string, err error) {
	if strings.TrimSpace(s) != s {
		return k, "", errors.New("has white space around it; remove it")
	}
	switch {
	case strings.HasPrefix(s, privatePrefix):
		if k.private, err = parsePrivate(s[len(privatePrefix):]); err != nil {
			return k, "", err
		}
		k.public = k.private.Public().(ed25519.PublicKey)
		return k, version1a + string(k.public), nil
	case strings.HasPrefix(s, publicPrefix):
		if k.public, err = parsePublic(s[len(publicPrefix):]); err != nil {
			return k, "", err
		}
		return k, version1a + string(k.public), nil
	case strings.HasPrefix(s, secretPrefix):
		key, err := parseSecret(s[len(secretPrefix):])
		if err != nil {
			return k, "", err
		}
		k.mac = newKeyed(sha256.New, key)
		return k, version1 + string(key), nil
	}
	return k, "", errors.New("does not start with whsec_ or whsk_; make one with: postern secret new")
}

// decodeStrict reads padded standard base64 on one line. Other verifiers decode other keys, or none, from base64
// with line ends or stray bits.
func decodeStrict(text, prefix string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") { // the decoder would skip them
		return nil, errors.New("has a line end within it; write it on one line")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("is not %s and standard base64 with padding; make one with: postern secret new", prefix)
	}
	return key, nil
}

func parseSecret(text string) ([]byte, error) {
	key, err := decodeStrict(text, secretPrefix)
	if err != nil {
		return nil, err
	}
	if len(key) < MinKey || len(key) > MaxKey {
		return nil, fmt.Errorf("holds %d bytes; %d to %d are allowed", len(key), MinKey, MaxKey)
	}
	if isRepeated(key) {
		return nil, errors.New("is one byte repeated; make a random one with: postern secret new")
	}
	return key, nil
}

// parsePrivate reads an ed25519 seed of 32 bytes, or one with its public key behind it, as Svix stores them.
func parsePrivate(text string) (ed25519.PrivateKey, error) {
	key, err := decodeStrict(text, privatePrefix)
	if err != nil {
		return nil, err
	}
	if len(key) != ed25519.SeedSize && len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("holds %d bytes; an ed25519 key has %d, or %d with its public half",
			len(key), ed25519.SeedSize, ed25519.PrivateKeySize)
	}
	if isRepeated(key[:ed25519.SeedSize]) {
		return nil, errors.New("is one byte repeated; make a random one with: postern secret new --kind ed25519")
	}
	private := ed25519.NewKeyFromSeed(key[:ed25519.SeedSize])
	// With a foreign public half the signatures would verify nowhere, and two such signatures give the seed away.
	if len(key) == ed25519.PrivateKeySize && subtle.ConstantTimeCompare(private, key) != 1 {
		return nil, errors.New("has a public half that does not belong to its private half; copy it again")
	}
	return private, nil
}

func parsePublic(text string) (ed25519.PublicKey, error) {
	key, err := decodeStrict(text, publicPrefix)
	if err != nil {
		return nil, err
	}
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("holds %d bytes; a public key has %d", len(key), ed25519.PublicKeySize)
	}
	if isRepeated(key) {
		return nil, errors.New("is one byte repeated, which is no public key")
	}
	return key, nil
}

func isRepeated[T string | []byte](key T) bool {
	for i := range len(key) {
		if key[i] != key[0] {
			return false
		}
	}
	return true
}
