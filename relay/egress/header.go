package egress

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/postern-relay/postern/store"
)

const (
	maxHeaderName  = 256     // bytes
	maxHeaderValue = 8 << 10 // bytes; what common servers take at most. Package ingest has the same, of what is to be sent on
	maxKeptHeader  = 8 << 10 // bytes of all names and values that are kept of an answer
)

// CheckHeader reports whether a destination may add this header to its requests. Refused are names and values that
// are not valid HTTP (RFC 9110, section 5), what frames a message or concerns one hop only (section 7.6.1), and
// what has a key of its own in the config. Errors never hold the value.
func CheckHeader(name, value string) error {
	if !httpguts.ValidHeaderFieldName(name) || len(name) > maxHeaderName {
		return fmt.Errorf("%q is not a header name; use letters, digits and hyphens", clip(name, 64))
	}
	switch key := http.CanonicalHeaderKey(name); key {
	case "Host":
		return fmt.Errorf("%s is not allowed; it is the host of url", key)
	case "Content-Type":
		return fmt.Errorf("%s is not allowed here; set content_type", key)
	case "Content-Length", "Transfer-Encoding", "Te", "Trailer", "Connection", "Keep-Alive", "Proxy-Connection",
		"Proxy-Authenticate", "Proxy-Authorization", "Upgrade", "Http2-Settings", "Expect":
		return fmt.Errorf("%s is not allowed; it belongs to the connection", key)
	default:
		if key == store.HopsHeader {
			return fmt.Errorf("%s is not allowed; Postern counts relays by it", key)
		}
		if key == store.ReplayHeader {
			return fmt.Errorf("%s is not allowed; Postern marks replays by it", key)
		}
		if strings.HasPrefix(key, "Webhook-") {
			return fmt.Errorf("%s is not allowed; Postern sets the webhook- headers itself", key)
		}
	}
	return checkValue(value)
}

// checkValue reports whether v may be the value of a header. Its error does not hold v.
func checkValue(v string) error {
	switch {
	case len(v) > maxHeaderValue:
		return fmt.Errorf("value of %d bytes is too long; at most %d are allowed", len(v), maxHeaderValue)
	case !httpguts.ValidHeaderFieldValue(v):
		return errors.New("value holds a line break or another control character; look for a newline at the end of its file")
	}
	return nil
}

// trimValue takes off the white space that is no part of a header's value (RFC 9110, section 5.5). net/http does so over
// HTTP/1.1 alone, and what has it is malformed over HTTP/2 (RFC 9113, section 8.2.1).
func trimValue(v string) string { return strings.Trim(v, " \t") }

// CheckContentType reports whether v may be the content type of a destination's requests; empty is allowed.
func CheckContentType(v string) error {
	if v == "" {
		return nil
	}
	if err := checkValue(v); err != nil {
		return err
	}
	if _, _, err := mime.ParseMediaType(v); err != nil || !strings.Contains(v, "/") {
		return fmt.Errorf("%q is not a content type; write one like application/json", clip(v, 64))
	}
	return nil
}

// headerKey is the key under which a request carries a header of the config. net/http sends a request again by
// itself, unseen by the history, when its header map has one of two keys: in lower case they are the same header on
// the wire and another key in the map.
func headerKey(name string) string {
	key := http.CanonicalHeaderKey(name)
	if key == "Idempotency-Key" || key == "X-Idempotency-Key" {
		return strings.ToLower(key)
	}
	return key
}

// keepHeader returns what is recorded of an answer's header: at most maxKeptHeader bytes, taken in the order of
// the names so that equal answers leave equal records, with cookies and secrets masked. A header whose name holds a
// secret is left out. It may return h itself.
func keepHeader(h http.Header, secrets []string) http.Header {
	size, plain := 0, true
	for name, values := range h {
		for _, v := range values {
			size += len(name) + len(v)
			plain = plain && !holdsSecret(v, secrets)
		}
		plain = plain && !namesSecret(name, secrets)
	}
	if _, cookies := h["Set-Cookie"]; plain && !cookies && size <= maxKeptHeader {
		return h
	}
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	kept := make(http.Header, len(h))
	size = 0
	for _, name := range names {
		if namesSecret(name, secrets) {
			continue
		}
		for _, v := range h[name] {
			if name == "Set-Cookie" {
				v = maskCookie(v)
			}
			if size+len(name)+len(v) > maxKeptHeader {
				continue
			}
			size += len(name) + len(v)
			kept[name] = append(kept[name], maskSecrets(v, secrets))
		}
	}
	return kept
}

// maskCookie keeps the name of a cookie and the fact that it was set.
func maskCookie(v string) string {
	name, _, ok := strings.Cut(v, "=")
	if !ok || !httpguts.ValidHeaderFieldName(name) {
		return "***"
	}
	return name + "=***"
}
