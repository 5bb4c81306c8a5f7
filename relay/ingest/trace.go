package ingest

import (
	"net/http"
	"strings"

	"github.com/postern-relay/postern/store"
)

const (
	traceParent = "Traceparent"
	traceState  = "Tracestate"

	maxTraceState   = 512 // bytes, what everybody passes on (W3C Trace Context, section 3.3.1.5)
	maxTraceMembers = 32  // section 3.3.1.1
	longTraceMember = 128 // bytes of a member from which on it goes first
)

// traceContext returns the trace context of a request as fields to keep: none without a traceparent that is valid,
// since the spec has a receiver drop the whole then (W3C Trace Context, section 4.3).
func traceContext(h http.Header) []store.Field {
	parents := h[traceParent]
	if len(parents) != 1 || !validTraceParent(parents[0]) {
		return nil
	}
	fields := []store.Field{{Name: traceParent, Value: parents[0]}}
	if state := boundTraceState(h[traceState]); state != "" {
		fields = append(fields, store.Field{Name: traceState, Value: state})
	}
	return fields
}

// validTraceParent reports whether s is a traceparent (W3C Trace Context, section 3.2): version, trace id, parent id
// and flags in lower-case hexadecimal. A version above 00 may have more behind them.
func validTraceParent(s string) bool {
	const whole = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(s) < whole || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	version, trace, parent, flags := s[:2], s[3:35], s[36:52], s[53:whole]
	for _, part := range []string{version, trace, parent, flags} {
		for i := range len(part) {
			if c := part[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	if version == "ff" || strings.Trim(trace, "0") == "" || strings.Trim(parent, "0") == "" {
		return false
	}
	if len(s) == whole {
		return true
	}
	return version != "00" && s[whole] == '-' && printable(s)
}

// boundTraceState joins the values of tracestate and takes off what is too much: members that are long first, then
// from the end (W3C Trace Context, section 3.3.1.5). It is empty if something in it cannot be one.
func boundTraceState(values []string) string {
	var members []string
	size := 0
	for _, value := range values {
		if !printable(value) {
			return ""
		}
		for member := range strings.SplitSeq(value, ",") {
			member = strings.Trim(member, " ")
			if member == "" {
				continue // allowed, and means nothing (section 3.3.1.2)
			}
			if !strings.Contains(member, "=") {
				return ""
			}
			members = append(members, member)
			size += len(member) + 1
		}
	}
	for i := len(members) - 1; i >= 0 && size-1 > maxTraceState; i-- {
		if len(members[i]) > longTraceMember {
			size -= len(members[i]) + 1
			members = append(members[:i], members[i+1:]...)
		}
	}
	for len(members) > maxTraceMembers || size-1 > maxTraceState {
		last := len(members) - 1
		size -= len(members[last]) + 1
		members = members[:last]
	}
	return strings.Join(members, ",")
}

// printable reports whether s is printable ASCII, spaces included.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
