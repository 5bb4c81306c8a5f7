package egress

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/postern-relay/postern/store"
)

// CheckForwardHeader reports whether a destination may send on the header of that name from the app's request (T12).
// Beside what CheckHeader refuses these are credentials, and what describes a body that may be another one here.
func CheckForwardHeader(name string) error {
	if err := CheckHeader(name, ""); err != nil {
		return err
	}
	switch key := http.CanonicalHeaderKey(name); {
	case key == "Authorization" || key == "Cookie":
		return fmt.Errorf("%s is not allowed; what the app shows to Postern is not for others, so use auth or headers", key)
	case strings.HasPrefix(key, "Content-"):
		return fmt.Errorf("%s is not allowed; it describes the body that the app sent", key)
	case strings.HasPrefix(key, "Proxy-"):
		return fmt.Errorf("%s is not allowed; it belongs to the connection", key)
	case strings.HasPrefix(key, "Postern-"):
		return fmt.Errorf("%s is not allowed; it is meant for Postern", key)
	}
	return nil
}

// named reports whether a header of the app's request is meant to go on: those of the config, those of a trace (W3C
// Trace Context, section 3.2), and the attributes of a CloudEvent in binary mode (HTTP binding, section 3.1.3).
func (s *Sender) named(key string) bool {
	return key == "Traceparent" || key == "Tracestate" || strings.HasPrefix(key, "Ce-") || s.forward[key]
}

// namedValue returns the value of a header that is meant to go on, its values joined if there are several: a template
// may make another of it.
func (s *Sender) namedValue(m store.Message, name string) (value string, ok bool) {
	key := http.CanonicalHeaderKey(name)
	if !s.named(key) {
		return "", false
	}
	var values []string
	for _, f := range m.Header {
		if http.CanonicalHeaderKey(f.Name) == key {
			values = append(values, f.Value)
		}
	}
	return strings.Join(values, ", "), len(values) > 0
}

// forwardHeader adds the headers of the app's request that are sent on: those that nobody else sets.
func (s *Sender) forwardHeader(m store.Message, h http.Header) error {
	fresh := make(map[string]bool)
	for _, f := range m.Header {
		name := http.CanonicalHeaderKey(f.Name)
		if !s.named(name) || s.taken[name] {
			continue
		}
		if err := checkForwarded(f); err != nil {
			return &OptionError{"forward_headers", fmt.Errorf("%s of the message cannot be sent: %w", clip(clean(name), 64), err)}
		}
		key := headerKey(name)
		if !fresh[key] {
			fresh[key] = true
			delete(h, key) // the default User-Agent
		}
		h[key] = append(h[key], trimValue(f.Value))
	}
	return nil
}

// checkForwarded reports whether a header of the app's request may be sent. Its error does not hold the value.
func checkForwarded(f store.Field) error {
	switch {
	case !httpguts.ValidHeaderFieldName(f.Name):
		return errors.New("this is not a header name")
	case len(f.Value) > maxHeaderValue:
		return fmt.Errorf("its value of %d bytes is too long; at most %d are allowed", len(f.Value), maxHeaderValue)
	case !httpguts.ValidHeaderFieldValue(f.Value):
		return errors.New("its value is invalid: it holds a line break or another control character")
	}
	return nil
}

// maxForwardPath is the most bytes of a path and query that are sent on.
const maxForwardPath = 8 << 10

// joinPath returns base with what followed the destination's name in the app's request: an escaped path with a query,
// as in store.Message.Path. Nothing in it can lead out of the path of base, whoever reads it: a dot segment, an empty
// one, a backslash, a control character or what is no UTF-8 is refused in every form in which a server may come to see it.
func joinPath(base *url.URL, more string) (*url.URL, error) {
	if more == "" {
		return base, nil
	}
	if len(more) > maxForwardPath {
		return nil, fmt.Errorf("the path has %d bytes; at most %d are sent on", len(more), maxForwardPath)
	}
	path, query, hasQuery := strings.Cut(more, "?")
	for i := range len(more) {
		if c := more[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return nil, errors.New("the path or query has a character that must be percent-encoded")
		}
	}
	u := *base
	if path != "" {
		if err := checkPath(path); err != nil {
			return nil, err
		}
		escaped := strings.TrimSuffix(base.EscapedPath(), "/") + path
		plain, err := url.PathUnescape(escaped)
		if err != nil {
			return nil, errors.New("the path has a % without two hexadecimal digits behind it")
		}
		u.Path, u.RawPath = plain, escaped
		if u.EscapedPath() != escaped {
			return nil, errors.New("the path has a character that must be percent-encoded")
		}
	}
	if hasQuery && query != "" {
		if u.RawQuery != "" {
			u.RawQuery += "&"
		}
		u.RawQuery += query
	}
	return &u, nil
}

// checkPath reports whether an escaped path stays where it is put.
func checkPath(path string) error {
	if path[0] != '/' {
		return errors.New("the path does not begin with a slash")
	}
	// Servers behind servers decode again what has been decoded.
	for range 4 {
		if err := checkSegments(path); err != nil {
			return err
		}
		plain, err := url.PathUnescape(path)
		if err != nil || plain == path {
			return nil // a % that decodes to nothing; if it stands in the path as it came, joinPath sees it too
		}
		path = plain
	}
	return errors.New("the path is encoded too many times")
}

func checkSegments(path string) error {
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		name, _, _ := strings.Cut(segment, ";") // some servers cut parameters off before they look at dots
		switch {
		case name == "." || name == "..":
			return errors.New("the path has a . or .. segment")
		case segment == "" && i < len(segments)-1:
			return errors.New("the path has an empty segment")
		}
	}
	for i := range len(path) {
		if c := path[i]; c < ' ' || c == 0x7f || c == '\\' {
			return errors.New("the path has a backslash or a control character")
		}
	}
	if !utf8.ValidString(path) { // a lenient reader takes c0 ae for a full stop
		return errors.New("the path is not UTF-8 behind its percent signs")
	}
	return nil
}
