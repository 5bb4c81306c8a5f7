package store

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// KeySize is the number of bytes of a Key.
const KeySize = 32

// Key encrypts what an engine keeps: 32 random bytes. It never prints itself; Text gives it away. The zero Key is none.
//
// It holds a pointer, since fmt prints the content of unexported fields without asking their methods.
type Key struct{ raw *[KeySize]byte }

// NewKey makes a key. If the system has no randomness to give, the process ends (crypto/rand.Read).
func NewKey() Key {
	k := Key{raw: new([KeySize]byte)}
	_, _ = rand.Read(k.raw[:]) // never returns an error, see its documentation
	return k
}

var errKeyForm = errors.New("not a key; write 32 random bytes as 64 hexadecimal digits or in base64, as postern secret new --kind store prints them")

// ParseKey reads a key: 64 hexadecimal digits, or 32 bytes in base64 (RFC 4648, either alphabet, with or without
// padding). White space around it is left out. A key that no source of randomness has made is refused: one that is a
// readable text, or has few different bytes, or equal steps from byte to byte. Errors do not hold the text.
func ParseKey(text string) (Key, error) {
	text = strings.TrimSpace(text)
	raw, err := hex.DecodeString(text)
	if err != nil {
		plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
		if raw, err = base64.RawStdEncoding.DecodeString(plain); err != nil {
			return Key{}, errKeyForm
		}
	}
	if len(raw) != KeySize {
		return Key{}, fmt.Errorf("a key of %d bytes: %w", len(raw), errKeyForm)
	}
	if isWeak(raw) {
		return Key{}, errors.New("a key that is not random; make one with postern secret new --kind store")
	}
	return Key{raw: (*[KeySize]byte)(raw)}, nil
}

// isWeak reports whether 32 bytes are of a kind that chance does not make: each of the tests hits fewer than one of
// 10^12 random keys.
func isWeak(raw []byte) bool {
	different := make(map[byte]bool)
	steps := make(map[byte]bool)
	readable := true
	for i, b := range raw {
		different[b] = true
		steps[b-raw[(i+1)%len(raw)]] = true
		readable = readable && (b >= ' ' && b <= '~' || b == '\n')
	}
	return readable || len(different) < 16 || len(steps) < 8 || bytes.Equal(raw[:KeySize/2], raw[KeySize/2:])
}

// IsSet reports whether it is a key.
func (k Key) IsSet() bool { return k.raw != nil }

// Text returns the key in base64, as ParseKey reads it; empty for the zero Key.
func (k Key) Text() string {
	if k.raw == nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k.raw[:])
}

// Fingerprint names the key without giving anything of it away: 16 hexadecimal digits, derived by HKDF (RFC 5869).
// Empty for the zero Key.
func (k Key) Fingerprint() string {
	if k.raw == nil {
		return ""
	}
	return hex.EncodeToString(k.Derive("fingerprint", 8))
}

// Derive returns n bytes, at most 255 times 32, that are made from the key for one purpose alone (HKDF with SHA-256,
// RFC 5869). It panics for the zero Key.
func (k Key) Derive(purpose string, n int) []byte {
	out, err := hkdf.Key(sha256.New, k.raw[:], nil, "postern store key 1: "+purpose, n)
	if err != nil {
		panic(fmt.Sprintf("store: derive %d bytes: %v", n, err))
	}
	return out
}

const keyMask = "***"

// String returns ***.
func (Key) String() string { return keyMask }

// GoString returns ***.
func (Key) GoString() string { return keyMask }

// Format writes *** for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, keyMask) }

// MarshalText returns ***.
func (Key) MarshalText() ([]byte, error) { return []byte(keyMask), nil }

// LogValue returns ***.
func (Key) LogValue() slog.Value { return slog.StringValue(keyMask) }
