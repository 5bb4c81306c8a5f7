package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Error is one fault of a config file and its place.
type Error struct {
	File string `json:"file"`           // as given to Load; for an override the name of the environment variable
	Line int    `json:"line,omitempty"` // from 1; 0 for the fault of an environment variable
	Col  int    `json:"column,omitempty"`
	Path string `json:"path,omitempty"` // of the key, such as destinations.alerts.sign[0].hmac.secret; may be empty
	Msg  string `json:"message"`        // what is wrong; what to write instead. Holds no secret
}

// Error returns file:line:column: path: message, as editors and terminals understand it.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Col)
	}
	b.WriteString(": ")
	if e.Path != "" {
		b.WriteString(printable(e.Path) + ": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// printable quotes a path with control characters in it, so that a key cannot forge a line.
func printable(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(path)
	}
	return path
}

// ErrorList is all faults of a config. As an error it has one line for each.
type ErrorList []*Error

// Error returns one line for each fault.
func (l ErrorList) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Err returns nil for an empty list, else an ErrorList sorted by place, without repetitions.
func (l ErrorList) Err() error {
	if len(l) == 0 {
		return nil
	}
	sorted := slices.Clone(l)
	slices.SortStableFunc(sorted, compareErrors)
	return slices.CompactFunc(sorted, func(a, b *Error) bool { return *a == *b })
}

// compareErrors puts faults without a line, those of environment variables, last.
func compareErrors(a, b *Error) int {
	if (a.Line == 0) != (b.Line == 0) {
		return cmp.Compare(b.Line, a.Line)
	}
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.File, b.File),
		cmp.Compare(a.Path, b.Path), cmp.Compare(a.Msg, b.Msg))
}
