package sign

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// recipe says what the signatures of one family of verifiers cover and how they are written:
//
//	signed:  [before] [id sep] [time sep] body
//	written: header: [t=time ,] label proof [joint [label] proof]…
//
// where proof is the encoded HMAC. The time may also stand in a header of its own.
type recipe struct {
	header string // carries the signatures
	id     string // header of the id, signed; empty: there is none
	stamp  string // header of the time in Unix seconds; empty: there is none, or it stands in header
	inline bool   // the time stands in header, as t=…

	before string // in front of all that is signed
	timed  bool   // the time is signed
	sep    string // behind id and time

	label string // in front of a signature
	joint string // between signatures; empty: there is only one
	each  bool   // label stands in front of each signature, not only of the first

	algorithm func() hash.Hash
	encode    func(dst, sum []byte) []byte
}

const inlineLabel = "t="

// recipeOf is the recipe of what signs the body alone in a header of its own.
func recipeOf(header string) recipe {
	return recipe{header: header, algorithm: sha256.New, encode: hex.AppendEncode}
}

// hashOf returns the hash function of an HMAC.
func hashOf(name string) (func() hash.Hash, error) {
	switch name {
	case "", "sha256":
		return sha256.New, nil
	case "sha512":
		return sha512.New, nil
	case "sha1":
		// Weak as a hash and still sound within HMAC (RFC 6194, section 3.3); old verifiers know nothing else.
		return sha1.New, nil
	}
	return nil, fmt.Errorf("algorithm %q is not known; write sha256, sha512 or sha1", name)
}

// encodingOf returns how a signature is written.
func encodingOf(name string) (func(dst, sum []byte) []byte, error) {
	switch name {
	case "", "hex":
		return hex.AppendEncode, nil
	case "base64":
		return base64.StdEncoding.AppendEncode, nil
	}
	return nil, fmt.Errorf("encoding %q is not known; write hex or base64", name)
}

// appendHead appends what is signed in front of the body.
func (r *recipe) appendHead(dst []byte, id string, unix int64) []byte {
	dst = append(dst, r.before...)
	if r.id != "" {
		dst = append(append(dst, id...), r.sep...)
	}
	if r.timed {
		dst = append(strconv.AppendInt(dst, unix, 10), r.sep...)
	}
	return dst
}

// coded signs by a recipe, with one or more keys.
type coded struct {
	recipe
	keys []*keyed
}

func newCoded(r recipe, keys ...[]byte) coded {
	c := coded{recipe: r}
	for _, key := range keys {
		c.keys = append(c.keys, newKeyed(r.algorithm, key))
	}
	return c
}

func (c *coded) headers() []Header {
	headers := []Header{{Name: c.header}}
	for _, name := range []string{c.id, c.stamp} {
		// Those of Standard Webhooks are on every request already.
		if name != "" && name != HeaderID && name != HeaderTimestamp {
			headers = append(headers, Header{Name: name})
		}
	}
	return headers
}

// base returns what is signed of in: what stands in front of the body, and the body.
func (r *recipe) base(in Input) ([]byte, error) {
	if r.id != "" {
		if err := checkID(in.ID); err != nil {
			return nil, err
		}
	}
	return append(r.appendHead(nil, in.ID, in.Time.Unix()), in.Body...), nil
}

func (c *coded) sign(in Input) ([]Header, error) {
	if c.id != "" {
		if err := checkID(in.ID); err != nil {
			return nil, err
		}
	}
	unix := in.Time.Unix()
	const room = 96 // the longest label, and the base64 of 64 bytes
	list := make([]byte, 0, room*len(c.keys))
	if c.inline {
		list = append(strconv.AppendInt(append(list, inlineLabel...), unix, 10), c.joint...)
	}
	for i, k := range c.keys {
		if i > 0 {
			list = append(list, c.joint...)
		}
		if i == 0 || c.each {
			list = append(list, c.label...)
		}
		list = k.appendProof(list, &c.recipe, in.ID, unix, in.Body)
	}
	headers := c.headers()
	for i, h := range headers {
		switch h.Name {
		case c.header:
			headers[i].Value = string(list)
		case c.id:
			headers[i].Value = in.ID
		case c.stamp:
			headers[i].Value = strconv.FormatInt(unix, 10)
		}
	}
	return headers, nil
}

// claim is what the headers of a request say about its signatures.
type claim struct {
	id     string
	unix   int64    // 0 where no time is signed
	proofs []string // without their labels
}

// read takes the claim from the headers of a request. The error wraps ErrMissingHeader or ErrBadTimestamp.
func (r *recipe) read(header http.Header) (claim, error) {
	var c claim
	for _, name := range []string{r.id, r.stamp, r.header} {
		if name != "" && header.Get(name) == "" {
			return c, fmt.Errorf("%w: %s", ErrMissingHeader, name)
		}
	}
	if r.id != "" {
		c.id = header.Get(r.id)
	}
	var stamp string
	c.proofs, stamp = r.split(header.Get(r.header))
	if !r.timed {
		return c, nil
	}
	if !r.inline {
		stamp = header.Get(r.stamp)
	}
	var err error
	c.unix, err = parseTimestamp(stamp)
	return c, err
}

// split takes apart the value of the signature header. Elements of other kinds are skipped, as the verifiers of
// Standard Webhooks and of Stripe do; no more than maxSignatures are looked at.
func (r *recipe) split(value string) (proofs []string, stamp string) {
	if r.joint == "" {
		if proof, ok := strings.CutPrefix(value, r.label); ok {
			proofs = append(proofs, proof)
		}
		return proofs, ""
	}
	for n, more := 0, true; more && n < maxSignatures; n++ {
		var element string
		element, value, more = strings.Cut(value, r.joint)
		if unix, ok := strings.CutPrefix(element, inlineLabel); ok && r.inline && stamp == "" {
			stamp = unix
			continue
		}
		if r.each || n == 0 {
			var ok bool
			if element, ok = strings.CutPrefix(element, r.label); !ok {
				continue
			}
		}
		proofs = append(proofs, element)
	}
	return proofs, stamp
}

// verify checks a request as its receiver got it.
func (c *coded) verify(header http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	claimed, err := c.read(header)
	if err != nil {
		return err
	}
	if c.id != "" && checkID(claimed.id) != nil {
		return fmt.Errorf("%w: the id is not one that can be signed", ErrNoMatch)
	}
	if c.maker(claimed, body) < 0 {
		return ErrNoMatch
	}
	if !c.timed {
		return nil
	}
	return checkClock(claimed.unix, now, tolerance)
}

// maker returns the index of the key that made one of the proofs, or -1.
func (c *coded) maker(claimed claim, body []byte) int {
	maker := -1
	for i, k := range c.keys {
		want := k.appendProof(nil, &c.recipe, claimed.id, claimed.unix, body)
		for _, proof := range claimed.proofs {
			if subtle.ConstantTimeCompare([]byte(proof), want) == 1 && maker < 0 {
				maker = i
			}
		}
	}
	return maker
}

// parseTimestamp takes plain digits only: a sign or leading zero would not be what was signed.
func parseTimestamp(s string) (int64, error) {
	unix, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(unix, 10) != s || unix < 0 {
		return 0, ErrBadTimestamp
	}
	return unix, nil
}

// checkClock comes last in a check, so that a forged request learns nothing about the clock, and so that a wrong
// clock is told only of requests that are genuine.
func checkClock(unix int64, now time.Time, tolerance time.Duration) error {
	switch age := now.Sub(time.Unix(unix, 0)); {
	case age > tolerance:
		return fmt.Errorf("%w: by the clock here it was made %v ago", ErrTooOld, age.Round(time.Second))
	case age < -tolerance:
		return fmt.Errorf("%w: by the clock here it comes from %v ahead", ErrTooNew, age.Abs().Round(time.Second))
	}
	return nil
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

// changed says what of a request may have been changed, as the beginning of a sentence that goes on with "changed".
func (r *recipe) changed() string {
	switch {
	case r.id != "" && r.timed:
		return "id, timestamp or body was"
	case r.id != "":
		return "id or body was"
	case r.timed:
		return "timestamp or body was"
	}
	return "the body was"
}
