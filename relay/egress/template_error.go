package egress

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/template"
)

// renderFault says why a template makes nothing of a message. It holds nothing that the template says but the names
// of fields.
type renderFault struct {
	text  string
	limit bool // a bound was passed

	// It comes from data that a sample does not have: of what type that is, and so what is right, is not known.
	unknown bool
}

func (f *renderFault) Error() string { return f.text }

func limited(format string, args ...any) error {
	return &renderFault{text: fmt.Sprintf(format, args...), limit: true}
}

func faulty(format string, args ...any) error {
	return &renderFault{text: fmt.Sprintf(format, args...)}
}

// missingError says that a value is missing or null.
type missingError struct {
	name string // of the value, or empty
	list beyond // what index has found; nil for anything else
}

func (e *missingError) Error() string {
	name := e.name
	if e.list != nil {
		if name == "" {
			name = "index"
		}
		entries := "entries"
		if cap(e.list) == 1 {
			entries = "entry"
		}
		return fmt.Sprintf("%s: the list has only %d %s; use default if it may be that short", name, cap(e.list), entries)
	}
	if name == "" {
		name = "a value"
	}
	return name + " is missing or null; use default if it may be"
}

// explain turns an error of text/template, which came of v, into a *renderFault.
func (p *program) explain(err error, v *view) error {
	at := ""
	if _, ok := errors.AsType[template.ExecError](err); ok {
		location, _ := strings.CutPrefix(err.Error(), "template: ")
		at = place(location)
	}
	f := &renderFault{unknown: v.sample && v.touched}
	if missing, ok := errors.AsType[*missingError](err); ok {
		if missing.name == "" {
			missing.name = p.names[at]
		}
		f.text = missing.Error()
	} else if own, ok := errors.AsType[*renderFault](err); ok {
		f.text, f.limit, f.unknown = own.text, own.limit, f.unknown && !own.limit
	} else {
		f.text = execText(err.Error())
	}
	if at != "" {
		f.text = spell(at) + ": " + f.text
	}
	return f
}

// execText says what text/template has found, without the parts where it quotes the template or the message.
func execText(text string) string {
	for _, known := range []struct{ part, text string }{
		{"can't evaluate field", "there is no such field in what stands before it"},
		{"nil pointer evaluating", "there is no such field in what stands before it"},
		{"wrong number of args", "wrong number of arguments"},
		{"has arguments but", "what is no function gets arguments"},
		{"is not a method but has arguments", "what is no function gets arguments"},
		{"range can't iterate", "range needs a list, an object or a whole number"},
		{"can't use", "range over a number has one variable"},
		{"error calling slice", "slice cannot take that part"},
		{"wrong type for value", "an argument has the wrong type"},
	} {
		if strings.Contains(text, known.part) {
			return known.text
		}
	}
	return "it cannot be evaluated with this message"
}

// place cuts "t:3:14: …" down to "3:14", and is empty without a place.
func place(location string) string {
	parts := strings.SplitN(location, ":", 4)
	if len(parts) < 3 {
		return ""
	}
	return parts[1] + ":" + parts[2]
}

// spell writes a place for a person. text/template counts columns in bytes from 0.
func spell(at string) string {
	line, text, _ := strings.Cut(at, ":")
	column, err := strconv.Atoi(text)
	if err != nil {
		return "line " + line
	}
	return fmt.Sprintf("line %s, column %d", line, column+1)
}

// parseFault turns an error of the parser into one of ours: the parser quotes the template, where an expanded secret may
// stand.
func parseFault(err error) error {
	text := parseText("")
	if location, ok := strings.CutPrefix(err.Error(), "template: t:"); ok {
		line, cause, _ := strings.Cut(location, ": ")
		text = parseText(cause)
		if _, err := strconv.Atoi(line); err == nil {
			return fmt.Errorf("line %s: %s", line, text)
		}
	}
	return errors.New(text)
}

// parseText says what the parser has found, without the parts where it quotes the template.
func parseText(cause string) string {
	const misplaced = "an action holds what cannot stand there; to write braces as text write {{ \"{{\" }}"
	for _, known := range []struct{ prefix, text string }{
		{"unexpected EOF", "an if, with, range, define or block has no {{ end }}"},
		{"unexpected {{end}}", "there is an {{ end }} too many"},
		{"unexpected {{else}}", "there is an {{ else }} in the wrong place"},
		{"expected end", "there is an {{ else }} too many"},
		{"unclosed action", "an action is not closed; write }} behind it"},
		{"unclosed comment", "a comment is not closed; write */}} behind it"},
		{"comment ends", "a comment does not end in */}}"},
		{"unclosed left paren", "a bracket is not closed"},
		{"unexpected right paren", "there is a closing bracket too many"},
		{"unterminated", "a text in quotes is not closed on its line"},
		{"bad number", "a number cannot be read"},
		{"bad character", "a name holds a character that is not allowed"},
		{"unrecognized character", "an action holds a character that is not allowed"},
		{"undefined variable", "a variable is not defined before it is used"},
		{"function ", "there is no such function; there are " + functionNames()},
		{"{{break}}", "there is a {{ break }} outside of a range"},
		{"{{continue}}", "there is a {{ continue }} outside of a range"},
		{"range can only", "a range takes names of variables alone"},
		{"too many declarations", "too many variables are declared at once"},
		{"missing value", "a value is missing"},
		{"empty command", "a value is missing"},
		{"non executable command", "what stands behind a | is no function"},
		{"unexpected . ", "there is a full stop behind what has no fields"},
		{"max expression depth", "brackets are nested too deep"},
		{"template: multiple definition", "a template is defined twice"},
		{"unexpected ", misplaced}, {"expected :=", misplaced},
	} {
		if strings.HasPrefix(cause, known.prefix) {
			return known.text
		}
	}
	return "it cannot be read as a template"
}
