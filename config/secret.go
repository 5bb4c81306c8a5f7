package config

import (
	"fmt"
	"io"
	"log/slog"
)

const mask = "***"

// Secret is a text that never prints itself: every way of formatting or encoding it gives ***, and only Reveal
// gives the value. The zero value is not set. Secrets are not comparable by value; == compares identity.
//
// It holds pointers, since fmt prints the content of unexported fields without asking their methods: of a pointer
// it prints the address. They point to plain strings, since with a verb that does not fit, such as %s, fmt follows a
// pointer to a struct.
type Secret struct {
	value *string
	shown *string // what Masked prints where literal text is no secret
}

// NewSecret makes a secret of a text.
func NewSecret(value string) Secret {
	shown := mask
	return Secret{value: &value, shown: &shown}
}

// Reveal returns the text; it is empty if the secret is not set.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Written returns the text as it stands in the file, with *** in place of each reference. It is no secret where literal
// text is none.
func (s Secret) Written() string {
	if s.shown == nil {
		return ""
	}
	return *s.shown
}

// IsSet reports whether the secret holds a text that is not empty.
func (s Secret) IsSet() bool { return s.value != nil && *s.value != "" }

// String returns ***.
func (Secret) String() string { return mask }

// GoString returns ***.
func (Secret) GoString() string { return mask }

// Format writes *** for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, mask) }

// MarshalText returns ***.
func (Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }

// MarshalJSON returns "***".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + mask + `"`), nil }

// MarshalYAML returns ***.
func (Secret) MarshalYAML() (any, error) { return mask, nil }

// LogValue returns ***.
func (Secret) LogValue() slog.Value { return slog.StringValue(mask) }
