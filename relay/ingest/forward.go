package ingest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

const (
	maxKeptHeader = 16 << 10 // bytes of all names and values that a message keeps of a request
	maxKeptFields = 128

	// maxHeaderValue is the most bytes of one of these values: those that package egress sends, whose constant has the
	// same name. A longer one would be accepted here and fail at each attempt.
	maxHeaderValue = 8 << 10
)

// travels reports whether a header of the app's request, by its canonical name, may be kept for its receivers. What
// identifies the app to us, frames the message, concerns one hop (RFC 9110, section 7.6.1), or is Postern's to say,
// stays here (threat T12).
func travels(name string) bool {
	switch name {
	case "Authorization", "Cookie", "Host", "Connection", "Expect", "Http2-Settings", "Keep-Alive", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade":
		return false
	}
	return !strings.HasPrefix(name, "Content-") && !strings.HasPrefix(name, "Proxy-") &&
		!strings.HasPrefix(name, "Webhook-") && !strings.HasPrefix(name, ownPrefix)
}

// keep returns the headers that a message keeps: always, then those of h that routes ask for.
func keep(always []store.Field, h http.Header, routes []Route) ([]store.Field, error) {
	kept := slices.Clip(always)
	for _, route := range routes {
		for _, name := range route.Header {
			values := h[name]
			if len(values) == 0 || !travels(name) || name == traceParent || name == traceState || namedByConnection(h, name) ||
				slices.ContainsFunc(kept, func(f store.Field) bool { return f.Name == name }) {
				continue
			}
			if len(kept)+len(values) > maxKeptFields {
				return nil, tooManyKept()
			}
			for _, value := range values {
				kept = append(kept, store.Field{Name: name, Value: value})
			}
		}
	}
	size := 0
	for _, f := range kept {
		size += len(f.Name) + len(f.Value)
		if len(f.Value) > maxHeaderValue {
			return nil, problem.New(http.StatusRequestHeaderFieldsTooLarge, "the value of %.100s, which is to be sent on, has %d bytes; "+
				"at most %d are allowed, so send it in the body", f.Name, len(f.Value), maxHeaderValue)
		}
	}
	if size > maxKeptHeader || len(kept) > maxKeptFields {
		return nil, tooManyKept()
	}
	return kept, nil
}

func tooManyKept() error {
	return problem.New(http.StatusRequestHeaderFieldsTooLarge, "the headers to send on are more than %d fields or %d bytes; "+
		"send fewer", maxKeptFields, maxKeptHeader)
}

// namedByConnection reports whether the sender says that a header is for this hop only.
func namedByConnection(h http.Header, name string) bool {
	for _, value := range h["Connection"] {
		for option := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(option), name) {
				return true
			}
		}
	}
	return false
}
