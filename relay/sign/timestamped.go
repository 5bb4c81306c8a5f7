package sign

import (
	"net/http"
	"time"
)

// TimestampedOptions says where a verifier of timestamped signatures looks, and by which keys.
type TimestampedOptions struct {
	Header string // name of the header, required; none that HTTP, Postern or auth uses itself

	// Secrets are the keys as text, their bytes used as they are, a prefix such as whsec_ included: one to eight of
	// 8 to 1,024 bytes. Every request is signed with all of them, in their order: while a secret is being rotated,
	// write the new one first.
	Secrets []string
}

// Timestamped signs time and body by HMAC-SHA256, as Stripe does: the header is t=<Unix seconds>,v1=<hex>, with a
// further ,v1=<hex> for each further secret, and what is signed is the time, a full stop and the body. NewTimestamped
// makes one. It may be used from several goroutines.
type Timestamped struct {
	coded coded
}

// NewTimestamped checks the options. Errors name a secret by its place and never show it.
func NewTimestamped(o TimestampedOptions) (*Timestamped, error) {
	if err := checkHeader(o.Header); err != nil {
		return nil, err
	}
	keys, err := checkTexts(o.Secrets, maxSecrets)
	if err != nil {
		return nil, err
	}
	return &Timestamped{newCoded(timestampedRecipe(o.Header), keys...)}, nil
}

func timestampedRecipe(header string) recipe {
	r := recipeOf(header)
	r.inline, r.timed, r.sep = true, true, "."
	r.label, r.joint, r.each = "v1=", ",", true
	return r
}

// Headers returns the one header.
func (t *Timestamped) Headers() []Header { return t.coded.headers() }

// Sign returns the one header. It uses time and body of the Input, and its error is always nil.
func (t *Timestamped) Sign(in Input) ([]Header, error) { return t.coded.sign(in) }

// Base returns the time in Unix seconds, a full stop and the body. Its error is always nil.
func (t *Timestamped) Base(in Input) ([]byte, error) { return t.coded.base(in) }

// Verify checks a request as its receiver got it, now being the receiver's clock. It returns nil if one signature
// was made by one of the secrets and the time is within Tolerance of now. Otherwise the error wraps one of
// ErrMissingHeader, ErrBadTimestamp, ErrTooOld, ErrTooNew and ErrNoMatch.
func (t *Timestamped) Verify(header http.Header, body []byte, now time.Time) error {
	return t.coded.verify(header, body, now, Tolerance)
}
