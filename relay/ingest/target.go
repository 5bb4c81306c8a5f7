package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/problem"
)

const (
	toPath     = "/to/"
	eventsPath = "/events/"
	batchPath  = "/batch"
	cloudPath  = "/cloudevents"

	maxPath = 2 << 10 // bytes of what follows a destination's name
)

// target is what the request line asks for. For batchPath and cloudPath, which hold a place alone, the other fields
// are empty.
type target struct {
	place       string // one of the paths above
	destination string
	path        string // what follows the destination, as in store.Message
	event       string
}

// parseTarget reads the target of a request, and refuses one that is not ours.
func parseTarget(u *url.URL) (target, error) {
	to, err := parsePlace(u)
	if err != nil {
		return target{}, err
	}
	if u.ForceQuery {
		return target{}, problem.New(http.StatusBadRequest, "the query is empty; remove the ? at the end of the target")
	}
	if u.RawQuery != "" {
		if to.place != toPath {
			return target{}, problem.New(http.StatusBadRequest, "a query is not supported here; remove what follows the ? in the target")
		}
		if err := checkQuery(u.RawQuery); err != nil {
			return target{}, problem.New(http.StatusBadRequest, "the query %v", err)
		}
		to.path += "?" + u.RawQuery
	}
	if len(to.path) > maxPath {
		return target{}, problem.New(http.StatusRequestURITooLong, "what follows the destination has %d bytes; "+
			"at most %d are allowed", len(to.path), maxPath)
	}
	return to, nil
}

// parsePlace reads the path of a target.
func parsePlace(u *url.URL) (target, error) {
	// The escaped path, since %2F is part of a name and no separator.
	escaped := u.EscapedPath()
	if rest, ok := strings.CutPrefix(escaped, toPath); ok {
		segment, more, _ := strings.Cut(rest, "/")
		name, err := unescapeName(segment)
		if err != nil {
			return target{}, err
		}
		path := rest[len(segment):]
		if more != "" && len(path) <= maxPath {
			if err := checkPath(path); err != nil {
				return target{}, problem.New(http.StatusBadRequest, "the path behind the destination %v", err)
			}
		}
		return target{place: toPath, destination: name, path: path}, nil
	}
	if rest, ok := strings.CutPrefix(escaped, eventsPath); ok {
		event, err := unescapeName(rest)
		if err != nil {
			return target{}, err
		}
		if err := match.CheckEvent(event); err != nil {
			return target{}, problem.New(http.StatusBadRequest, "%v", err)
		}
		return target{place: eventsPath, event: event}, nil
	}
	if escaped == batchPath || escaped == cloudPath {
		return target{place: escaped}, nil
	}
	return target{}, problem.New(http.StatusNotFound,
		"there is nothing at this path; post to /to/{destination}, /events/{type}, /batch or /cloudevents")
}

func unescapeName(escaped string) (string, error) {
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return "", problem.New(http.StatusBadRequest, "the path is not properly escaped")
	}
	if name == "" {
		return "", problem.New(http.StatusNotFound, "the path ends too early; post to /to/{destination} or to /events/{type}")
	}
	return name, nil
}

// decodings is how often a receiver may be expected to decode a path. One decoding is right; some do it again, and
// what looks harmless before may climb out of the configured path then.
const decodings = 4

// checkPath reports whether an escaped path, which begins with a slash, may be appended to a destination's URL: it
// must stay below it, whichever server reads it. The error continues a sentence and is fit for the client.
func checkPath(escaped string) error {
	path := escaped
	for range decodings {
		decoded, err := url.PathUnescape(path)
		if err != nil {
			if path == escaped {
				return errors.New("is not properly escaped")
			}
			return nil // a percent sign that means itself
		}
		if err := checkSegments(decoded); err != nil {
			return err
		}
		if decoded == path {
			return nil
		}
		path = decoded
	}
	return errors.New("is escaped several times over; escape it once")
}

func checkSegments(path string) error {
	for i := range len(path) {
		switch c := path[i]; {
		case c < 0x20 || c == 0x7f:
			return errors.New("holds a control character; remove it")
		case c == '\\':
			return errors.New("holds a backslash; use slashes")
		}
	}
	if !utf8.ValidString(path) { // a lenient reader takes c0 ae for a full stop
		return errors.New("is not UTF-8; escape the bytes of UTF-8")
	}
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		name, _, _ := strings.Cut(segment, ";") // some servers take ..;x for ..
		switch {
		case name == "." || name == "..":
			return fmt.Errorf("holds the segment %q; write the path that is meant", segment)
		case segment == "" && i < len(segments)-1:
			return errors.New("holds an empty segment; write single slashes")
		}
	}
	return nil
}

// checkQuery reports whether an escaped query may be appended to a URL. The error continues a sentence.
func checkQuery(q string) error {
	for i := 0; i < len(q); i++ {
		switch c := q[i]; {
		case c <= 0x20 || c > 0x7e || c == '#':
			return errors.New("holds a character that must be escaped; write it as % and two hexadecimal digits")
		case c == '%':
			if i+2 >= len(q) || !isHex(q[i+1]) || !isHex(q[i+2]) {
				return errors.New("is not properly escaped; a percent sign is %25")
			}
			i += 2
		}
	}
	return nil
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }
