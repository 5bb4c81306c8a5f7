package ingest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

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
	hops        int // relays that the request came through
}

// unsupported are headers with a meaning that Postern does not honour yet. A message that was meant to be late or
// in order must not be sent as if it were not.
var unsupported = [...]string{"Postern-Key", "Postern-Deliver-At", "Postern-Delay"}

// parseHeader reads the headers of a post, and refuses those that cannot be honoured.
func parseHeader(h http.Header) (header, error) {
	for _, name := range unsupported {
		if _, ok := h[name]; ok {
			return header{}, problem.New(http.StatusBadRequest, "%s is not supported yet; remove it", name)
		}
	}
	// The receiver would be sent compressed bytes without being told so.
	for _, value := range h["Content-Encoding"] {
		if value != "" && !strings.EqualFold(value, "identity") {
			e := problem.New(http.StatusUnsupportedMediaType, "Content-Encoding %.40q is not supported; send the body as it is", value)
			e.Header = http.Header{"Accept-Encoding": {"identity"}} // RFC 9110, section 15.5.16
			return header{}, e
		}
	}
	var parsed header
	switch values := h["Content-Type"]; {
	case len(values) > 1:
		return header{}, problem.New(http.StatusBadRequest, "there is more than one Content-Type; send one")
	case len(values) == 1:
		if err := checkContentType(values[0]); err != nil {
			return header{}, problem.New(http.StatusBadRequest, "Content-Type: %v", err)
		}
		parsed.contentType = values[0]
	}
	hops, err := parseHops(h[store.HopsHeader])
	if err != nil {
		return header{}, err
	}
	parsed.hops = hops
	switch values := h["Idempotency-Key"]; {
	case len(values) > 1:
		return header{}, problem.New(http.StatusBadRequest, "there is more than one Idempotency-Key; send one")
	case len(values) == 1:
		key, err := parseKey(values[0])
		if err != nil {
			return header{}, problem.New(http.StatusBadRequest, "Idempotency-Key: %v", err)
		}
		parsed.key, parsed.hasKey = key, true
	}
	return parsed, nil
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

// checkContentType accepts any header value that can be sent on as it is.
func checkContentType(s string) error {
	if len(s) > maxContentType {
		return fmt.Errorf("it has %d bytes; at most %d are allowed", len(s), maxContentType)
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return errors.New("it holds a character that is not printable ASCII; write a media type such as application/json")
		}
	}
	return nil
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
	if len(key) == 0 || len(key) > maxKey {
		return "", fmt.Errorf("it has %d bytes; 1 to %d are allowed", len(key), maxKey)
	}
	for i := range len(key) {
		if key[i] < 0x20 || key[i] > 0x7e {
			return "", errors.New("it holds a character that is not printable ASCII; use letters and digits, such as a UUID")
		}
	}
	return key, nil
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

// fingerprint returns the digests by which a repeated post is recognised. Each part goes in with its length before
// it, so that no two different requests run together into the same bytes.
func fingerprint(head header, path string, body []byte) *store.Idempotency {
	sum := sha256.New()
	part := func(length int, write func()) {
		var prefix [8]byte
		binary.BigEndian.PutUint64(prefix[:], uint64(length))
		sum.Write(prefix[:])
		write()
	}
	text := func(s string) { part(len(s), func() { sum.Write([]byte(s)) }) }
	text(http.MethodPost)
	text(path)
	text(head.contentType)
	part(len(body), func() { sum.Write(body) })
	f := &store.Idempotency{Key: sha256.Sum256([]byte(head.key))}
	sum.Sum(f.Content[:0])
	return f
}
