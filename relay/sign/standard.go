package sign

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds of Standard Webhooks v1.
const (
	MinKey    = 24              // bytes in the shortest key (spec/standard-webhooks.md, "Signature scheme")
	MaxKey    = 64              // bytes in the longest key
	Tolerance = 5 * time.Minute // how far a timestamp may be from the verifier's clock, either way

	maxSecrets    = 8  // of one Standard; a rotation needs two
	maxSignatures = 64 // that Verify looks at in one request
	newKey        = 32 // bytes in a key made by NewSecret
)

const (
	secretPrefix  = "whsec_"
	privatePrefix = "whsk_"
	publicPrefix  = "whpk_"
	version1      = "v1,"
)

// What Verify has to say about a request, to be told apart by errors.Is.
var (
	ErrMissingHeader = errors.New("a signature header is missing")
	ErrBadTimestamp  = errors.New("the timestamp is not a number of Unix seconds")
	ErrTooOld        = errors.New("the timestamp is too old")
	ErrTooNew        = errors.New("the timestamp is in the future")
	ErrNoMatch       = errors.New("no signature matches")
)

// NewSecret makes a secret for NewStandard: whsec_ and 32 random bytes in base64. If the system has no randomness
// to give, the process ends (crypto/rand.Read).
func NewSecret() string {
	key := make([]byte, newKey)
	// Never returns an error, see its documentation.
	_, _ = rand.Read(key)
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// Standard signs by Standard Webhooks v1 (spec/standard-webhooks.md, "Signature scheme"): HMAC-SHA256 over id,
// timestamp and body, joined by full stops. NewStandard makes one. It may be used from several goroutines.
type Standard struct {
	keys []*keyed
}

var _ Signer = (*Standard)(nil)

// NewStandard reads one to eight secrets, each whsec_ and the padded base64 of 24 to 64 bytes. Every request is
// signed with all of them, in their order: while a secret is being rotated, write the new one first and keep the
// old one behind it. Errors name a secret by its place and never show it.
func NewStandard(secrets []string) (*Standard, error) {
	if len(secrets) == 0 {
		return nil, errors.New("there is no secret; make one with: postern secret new")
	}
	if len(secrets) > maxSecrets {
		return nil, fmt.Errorf("there are %d secrets; at most %d are allowed", len(secrets), maxSecrets)
	}
	s := &Standard{}
	seen := make(map[string]int, len(secrets))
	for i, secret := range secrets {
		key, err := parseSecret(secret)
		if err != nil {
			return nil, fmt.Errorf("secret %d %w", i+1, err)
		}
		if earlier, ok := seen[string(key)]; ok {
			return nil, fmt.Errorf("secret %d is the same as secret %d; remove one", i+1, earlier)
		}
		seen[string(key)] = i + 1
		s.keys = append(s.keys, newKeyed(sha256.New, key))
	}
	return s, nil
}

// parseSecret returns the key that a whsec_ secret holds. Its errors continue the words "secret 1".
func parseSecret(s string) ([]byte, error) {
	if strings.TrimSpace(s) != s {
		return nil, errors.New("has white space around it; remove it")
	}
	if strings.HasPrefix(s, privatePrefix) {
		return nil, errors.New("is a private ed25519 key (whsk_), which is not supported yet; use a whsec_ secret")
	}
	if strings.HasPrefix(s, publicPrefix) {
		return nil, errors.New("is a public key (whpk_), which cannot sign; use a whsec_ secret")
	}
	text, ok := strings.CutPrefix(s, secretPrefix)
	if !ok {
		return nil, errors.New("does not start with whsec_; make one with: postern secret new")
	}
	// The decoder skips line ends, and the verifiers of receivers do not.
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("has a line end within it; write it on one line")
	}
	// Strict: other verifiers decode other keys, or none, from base64 with stray bits at its end.
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("is not whsec_ and standard base64 with padding; make one with: postern secret new")
	}
	if len(key) < MinKey || len(key) > MaxKey {
		return nil, fmt.Errorf("holds %d bytes; %d to %d are allowed", len(key), MinKey, MaxKey)
	}
	if isRepeated(key) {
		return nil, errors.New("is one byte repeated; make a random one with: postern secret new")
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

// Sign returns the webhook-signature header: one signature for each secret, in their order. It refuses an id that
// is empty or holds a full stop or a character that cannot stand in a header, since such an id would let two
// different requests have one signature.
func (s *Standard) Sign(in Input) ([]Header, error) {
	if err := checkID(in.ID); err != nil {
		return nil, err
	}
	const each = len(version1) + 44 + 1 // 44 is the base64 of 32 bytes
	list := make([]byte, 0, each*len(s.keys))
	for i, k := range s.keys {
		if i > 0 {
			list = append(list, ' ')
		}
		list = k.appendStandard(list, in.ID, in.Time.Unix(), in.Body)
	}
	return []Header{{HeaderSignature, string(list)}}, nil
}

func checkID(id string) error {
	if id == "" {
		return errors.New("sign: the message id is empty")
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c >= 0x7f || c == '.' {
			return fmt.Errorf("sign: the message id holds %q", c)
		}
	}
	return nil
}

// Verify checks a request as its receiver got it: header with the three webhook headers, body byte for byte, now
// from the receiver's clock. It returns nil if one signature was made by one of the secrets and the timestamp is
// within Tolerance of now. Otherwise the error wraps one of ErrMissingHeader, ErrBadTimestamp, ErrTooOld,
// ErrTooNew and ErrNoMatch. Signatures of other versions in the list are skipped, as the specification asks.
func (s *Standard) Verify(header http.Header, body []byte, now time.Time) error {
	id, stamp, list := header.Get(HeaderID), header.Get(HeaderTimestamp), header.Get(HeaderSignature)
	for _, h := range []Header{{HeaderID, id}, {HeaderTimestamp, stamp}, {HeaderSignature, list}} {
		if h.Value == "" {
			return fmt.Errorf("%w: %s", ErrMissingHeader, h.Name)
		}
	}
	unix, err := parseTimestamp(stamp)
	if err != nil {
		return err
	}
	if checkID(id) != nil {
		return fmt.Errorf("%w: the id is not one that can be signed", ErrNoMatch)
	}
	if !s.matches(list, id, unix, body) {
		return ErrNoMatch
	}
	// Last, so that a forged request learns nothing about the clock, and so that a wrong clock is told only of
	// requests that are genuine.
	switch age := now.Sub(time.Unix(unix, 0)); {
	case age > Tolerance:
		return fmt.Errorf("%w: by the clock here it was made %v ago", ErrTooOld, age.Round(time.Second))
	case age < -Tolerance:
		return fmt.Errorf("%w: by the clock here it comes from %v ahead", ErrTooNew, age.Abs().Round(time.Second))
	}
	return nil
}

// parseTimestamp takes plain digits only: a sign or leading zero would not be what was signed.
func parseTimestamp(s string) (int64, error) {
	unix, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(unix, 10) != s || unix < 0 {
		return 0, ErrBadTimestamp
	}
	return unix, nil
}

func (s *Standard) matches(list, id string, unix int64, body []byte) bool {
	wants := make([][]byte, len(s.keys))
	for i, k := range s.keys {
		wants[i] = k.appendStandard(nil, id, unix, body)
	}
	found := 0
	for n, more := 0, true; more && n < maxSignatures; n++ {
		var got string
		got, list, more = strings.Cut(list, " ")
		for _, want := range wants {
			found |= subtle.ConstantTimeCompare([]byte(got), want)
		}
	}
	return found == 1
}
