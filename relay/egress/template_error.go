package egress

import (
	"errors"
	"fmt"
	"regexp"
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

var noField = regexp.MustCompile(`(?:can't evaluate field|nil pointer evaluating [\w{} ]+\.) ?(\w+)`)

// execText says what text/template has found, without the parts where it quotes the template or the message.
func execText(text string) string {
	if found := noField.FindStringSubmatch(text); found != nil {
		return fmt.Sprintf("%s is no field of what stands before it", found[1])
	}
	for _, known := range []struct{ part, text string }{
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

// parseFault puts an error of the parser into a form that names the line alone.
func parseFault(err error) error {
	text := strings.TrimPrefix(err.Error(), "template: ")
	if rest, ok := strings.CutPrefix(text, "t:"); ok {
		line, cause, _ := strings.Cut(rest, ": ")
		if _, name, ok := strings.Cut(cause, "function \""); ok {
			name, _, _ = strings.Cut(name, "\"")
			return fmt.Errorf("line %s: there is no function %s; there are %s", line, clip(name, 32), functionNames())
		}
		return fmt.Errorf("line %s: %s", line, clip(cause, 200))
	}
	return errors.New(clip(text, 200))
}
