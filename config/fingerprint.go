package config

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// fingerprintBytes is how much of a secret's SHA-256 is shown: enough to tell secrets apart, and to compare one with
// printf %s "$SECRET" | sha256sum. It is no help in guessing what was made at random, and enough to confirm a guess at what
// was not.
const fingerprintBytes = 4

// fingerprint returns the beginning of a secret's SHA-256, such as sha256:1a2b3c4d; nothing for one that is not as long
// and varied as a token must be, or whose rules say that people choose it: of those it would confirm a guess.
func fingerprint(s Secret, r rules) string {
	word := s.Reveal()
	if r.chosen || len(word) < leastToken || variety(word) < leastVariety || isBasic(word) {
		return ""
	}
	sum := sha256.Sum256([]byte(word))
	return "sha256:" + hex.EncodeToString(sum[:fingerprintBytes])
}

// isBasic reports whether the value of a header is a user name with a password (RFC 7617), which people choose.
func isBasic(value string) bool {
	scheme, _, found := strings.Cut(value, " ")
	return found && strings.EqualFold(scheme, "basic")
}

// variety returns how many different characters a text has.
func variety(text string) int {
	different := map[rune]bool{}
	for _, r := range text {
		different[r] = true
	}
	return len(different)
}
