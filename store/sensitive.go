package store

import "strings"

// SensitiveName reports whether the name of a header or parameter says that its value is a secret, which is then masked
// in what is recorded or shown of it. It goes by the words that the config's own mask goes by, and lets through what every
// receiver of webhooks looks for.
func SensitiveName(name string) bool {
	name = strings.ToLower(name)
	if strings.HasSuffix(name, "idempotency-key") {
		return false
	}
	for _, word := range [...]string{
		"auth", "cookie", "token", "secret", "key", "passw", "credential", "signature", "session",
	} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
