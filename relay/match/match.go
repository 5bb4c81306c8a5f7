// Package match decides, purely, what fits: which messages a destination wants, and whether a response says what it
// should. It has no clock and does no I/O. Its main types are [Pattern] for events, and [Filter] and [Expectation]
// for JSON.
//
// # Events
//
// An event is a message's dotted type: one or more segments joined by dots; a segment is one or more of the
// characters a-z, A-Z, 0-9, "_" and "-". The case matters. In a pattern, "*" stands for exactly one segment and "**",
// which may stand only at the end, for one or more of them:
//
//	pattern    matches                         does not match
//	alert      alert                           alert.fired, Alert
//	alert.*    alert.fired                     alert, alert.fired.again
//	*.fired    alert.fired                     fired, eu.alert.fired
//	alert.**   alert.fired, alert.fired.again  alert
//	**         every event
//
// # JSON
//
// A body or response is read into a [Doc], strictly. A [Path] is the whole of JSONPath as RFC 9535 has it; a filter
// and an expectation are each a path and a rule on what it selects.
//
//	path        example
//	filter      $[?@.severity == "high" && @.tags[0] != "test"]
//	expected    $.data.status  ok, queued
//
// [RedactJSON] takes what paths select out of a body.
//
// Documents and, by way of them, patterns of regular expressions come from outside. So nothing here takes more than
// linear time for reading, and an evaluation ends after a fixed number of steps with [ErrBudget]. That, and being
// right, are why this is not a library: of those in Go to be had in 2026, the best passes 618 of the 703 cases of the
// public compliance suite, and none can be bounded or interrupted.
package match

import (
	"errors"
	"fmt"
	"strings"
)

// MaxEvent is the length of the longest event, and of the longest pattern, in bytes.
const MaxEvent = 256

const (
	one  = "*"
	rest = "**"
)

// Pattern is a parsed event pattern. The zero Pattern matches nothing. A Pattern never changes; it may be copied
// and used from several goroutines.
type Pattern struct {
	text string // as parsed, without the last segment if open; empty for "**" and for the zero Pattern
	open bool   // the last segment is "**"
}

// ParsePattern reads a pattern of up to MaxEvent bytes. The error says which segment is wrong and what to write
// instead.
func ParsePattern(s string) (Pattern, error) {
	if err := checkSegments("pattern", s, checkPatternSegment); err != nil {
		return Pattern{}, err
	}
	head, open := strings.CutSuffix(s, rest)
	return Pattern{text: strings.TrimSuffix(head, "."), open: open}, nil
}

// Match reports whether an event matches the pattern. The event is one that CheckEvent accepts, or empty, which no
// pattern matches; of others nothing is promised. It allocates nothing.
func (p Pattern) Match(event string) bool {
	if event == "" || p == (Pattern{}) {
		return false
	}
	pattern := p.text
	for pattern != "" {
		if event == "" {
			return false
		}
		var want, got string
		want, pattern, _ = strings.Cut(pattern, ".")
		got, event, _ = strings.Cut(event, ".")
		if want != one && want != got {
			return false
		}
	}
	return p.open == (event != "")
}

// String returns the pattern as it was written.
func (p Pattern) String() string {
	switch {
	case !p.open:
		return p.text
	case p.text == "":
		return rest
	default:
		return p.text + "." + rest
	}
}

// CheckEvent returns nil if s is an event that a message can have: what POST /events/{type} takes. The error is
// fit for the client.
func CheckEvent(s string) error { return checkSegments("event", s, checkEventSegment) }

func checkSegments(what, s string, check func(segment string, last bool) error) error {
	if s == "" {
		return fmt.Errorf("the %s is empty; write a dotted name such as alert.fired", what)
	}
	if len(s) > MaxEvent {
		return fmt.Errorf("the %s has %d bytes; at most %d are allowed", what, len(s), MaxEvent)
	}
	for i, more := 1, true; more; i++ {
		var segment string
		segment, s, more = strings.Cut(s, ".")
		if err := check(segment, !more); err != nil {
			return fmt.Errorf("segment %d of the %s: %w", i, what, err)
		}
	}
	return nil
}

func checkPatternSegment(segment string, last bool) error {
	switch {
	case segment == one, segment == rest && last:
		return nil
	case segment == rest:
		return errors.New("** may stand only at the end; write * for each single segment")
	case strings.Contains(segment, "*"):
		return fmt.Errorf("%q mixes * with other characters; * stands for a whole segment, ** for the rest", segment)
	}
	return checkEventSegment(segment, last)
}

func checkEventSegment(segment string, _ bool) error {
	if segment == "" {
		return errors.New("it is empty; write names separated by single dots")
	}
	for _, c := range segment {
		if !isNameChar(c) {
			return fmt.Errorf("%q is not allowed; use letters, digits, _ and -", c)
		}
	}
	return nil
}

func isNameChar(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}
