package ingest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

const (
	maxContentType = 256 // bytes
	maxKey         = 255 // bytes of an idempotency key, without quotes
)

// header is what ingest takes from the headers of a request.
type header struct {
	contentType string
	key         string // of the Idempotency-Key
	hasKey      bool
	order       string // ordering key; empty for none
	timing      timing
	timed       bool          // one of the headers for it is there
	wait        time.Duration // from Prefer: wait; 0 for none
	hops        int           // relays that the request came through
	trace       []store.Field // trace context that messages keep
	span        *acceptSpan   // of the request; parseHeader leaves it and caller alone
	caller      Caller        // who makes the request; nil for one without bounds
}

// parseHeader reads the headers of a post, and refuses those that cannot be honoured.
func parseHeader(h http.Header) (header, error) {
	if err := checkNames(h); err != nil {
		return header{}, err
	}
	// The receiver would be sent compressed bytes without being told so.
	for _, value := range h["Content-Encoding"] {
		if value != "" && !strings.EqualFold(value, "identity") {
			e := problem.New(http.StatusUnsupportedMediaType, "Content-Encoding %.40q is not supported; send the body as it is", value)
			e.Header = http.Header{"Accept-Encoding": {"identity"}} // RFC 9110, section 15.5.16
			return header{}, e
		}
	}
	var p header
	var err error
	if p.contentType, _, err = single(h, "Content-Type", parseContentType); err != nil {
		return header{}, err
	}
	if p.key, p.hasKey, err = single(h, "Idempotency-Key", parseKey); err != nil {
		return header{}, err
	}
	if p.order, _, err = single(h, orderHeader, parseOrder); err != nil {
		return header{}, err
	}
	if p.timing, p.timed, err = parseTiming(h); err != nil {
		return header{}, err
	}
	if p.hops, err = parseHops(h[store.HopsHeader]); err != nil {
		return header{}, err
	}
	p.wait = parseWait(h["Prefer"])
	p.trace = traceContext(h)
	return p, nil
}

// parseTiming reads the headers that put a delivery off. ok is false without one.
func parseTiming(h http.Header) (t timing, ok bool, err error) {
	if len(h[atHeader]) == 0 {
		return single(h, delayHeader, parseDelay)
	}
	if len(h[delayHeader]) > 0 {
		return timing{}, true, problem.New(http.StatusBadRequest, "there are both %s and %s; send one of them", delayHeader, atHeader)
	}
	return single(h, atHeader, parseTime)
}

// single reads the value of a header by parse, whose error becomes an answer. A header that is there twice is
// refused, and ok is false for one that is missing.
func single[T any](h http.Header, name string, parse func(string) (T, error)) (v T, ok bool, err error) {
	values := h[name]
	if len(values) == 0 {
		return v, false, nil
	}
	if len(values) > 1 {
		return v, true, problem.New(http.StatusBadRequest, "there is more than one %s; send one", name)
	}
	if v, err = parse(values[0]); err != nil {
		return v, true, problem.New(http.StatusBadRequest, "%s: %v", name, err)
	}
	return v, true, nil
}

// parseHops reads the count that other relays keep, and ends a loop of them: without it two relays that deliver to
// each other would never stop (T13).
func parseHops(values []string) (int, error) {
	if len(values) == 0 {
		return 0, nil
	}
	hops, err := strconv.Atoi(values[0])
	if err != nil || len(values) > 1 || hops < 0 {
		return 0, problem.New(http.StatusBadRequest, "%s is not one whole number; only relays set it, so remove it", store.HopsHeader)
	}
	if hops > store.MaxHops {
		return 0, problem.New(http.StatusLoopDetected, // RFC 5842, section 7.2
			"this message came through %d relays, and at most %d are allowed; look for a destination that leads back here", hops, store.MaxHops)
	}
	return hops, nil
}

// parseContentType accepts any header value that can be sent on as it is.
func parseContentType(s string) (string, error) {
	if len(s) > maxContentType {
		return "", fmt.Errorf("it has %d bytes; at most %d are allowed", len(s), maxContentType)
	}
	if !printable(s) {
		return "", errors.New("it holds a character that is not printable ASCII; write a media type such as application/json")
	}
	return s, nil
}

// parseOrder reads an ordering key.
func parseOrder(s string) (string, error) {
	if err := checkKey(s, store.MaxKey); err != nil {
		return "", err
	}
	return s, nil
}

// parseKey reads an Idempotency-Key: 1 to 255 bytes of printable ASCII, as they are or as a string of Structured
// Fields (RFC 9651, section 3.3.3), which is what the draft of the header asks for. "k" with quotes and k without are
// the same key. The error is for the client and does not repeat the key.
func parseKey(s string) (string, error) {
	key := s
	if strings.HasPrefix(s, `"`) {
		var err error
		if key, err = unquote(s); err != nil {
			return "", err
		}
	}
	if err := checkKey(key, maxKey); err != nil {
		return "", err
	}
	return key, nil
}

// checkKey reports whether s may be a key: 1 to most bytes of printable ASCII. The error is for the client and does not
// repeat the key.
func checkKey(s string, most int) error {
	if len(s) == 0 || len(s) > most {
		return fmt.Errorf("it has %d bytes; 1 to %d are allowed", len(s), most)
	}
	if !printable(s) {
		return errors.New("it holds a character that is not printable ASCII; use letters and digits, such as a UUID")
	}
	return nil
}

// unquote reads a string of Structured Fields, which s begins.
func unquote(s string) (string, error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			if i != len(s)-1 {
				return "", errors.New("something follows the closing quote; send the key alone")
			}
			return b.String(), nil
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", errors.New(`a backslash stands only before " or \`)
			}
		}
		b.WriteByte(s[i])
	}
	return "", errors.New("the closing quote is missing")
}

// repeat is what a post must have in common with an earlier one of the same idempotency key.
type repeat struct {
	key         [32]byte // digest of the idempotency key
	target      string   // path with the destination or the event
	path        string   // what follows the destination
	contentType string
	order       string // ordering key

	// bounded is that the caller may not post everything. Its keys then count for each target by themselves, and apart from
	// those of callers without bounds: it could else find out which keys others use for what it may not post, or take
	// them, so that the posts of the others are refused.
	bounded bool
}

// fingerprint returns the digests by which a repeated post is recognised. Each part goes in with its length before
// it, so that no two different requests run together into the same bytes.
func (r repeat) fingerprint(body []byte) *store.Idempotency {
	sum := sha256.New()
	for _, text := range [...]string{http.MethodPost, r.target, r.path, r.contentType, r.order} {
		writePart(sum, []byte(text))
	}
	writePart(sum, body)
	f := &store.Idempotency{Key: r.key}
	sum.Sum(f.Content[:0])
	if r.bounded {
		own := sha256.New()
		writePart(own, []byte(r.target))
		writePart(own, r.key[:])
		own.Sum(f.Key[:0])
	}
	return f
}

func writePart(sum hash.Hash, part []byte) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(part)))
	sum.Write(length[:])
	sum.Write(part)
}
