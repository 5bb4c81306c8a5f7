package egress

import (
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postern-relay/postern/store"
)

// hole stands where a secret was cut out of a part of a curl command: it can stand in no header and in no URL.
const hole = "\x00"

// bodyParameter is what stands for a secret of the body.
const bodyParameter = "SECRET_BODY"

// maxInline is the longest body that a command holds itself, in bytes.
const maxInline = 4 << 10

// curl is a request as a command for curl. It is pasted into a shell: nothing in it, whoever wrote it, can be anything but
// a part of the request.
type curl struct {
	method string
	url    string        // with a hole for each secret
	header []store.Field // as are their values
	body   []byte
	shown  []byte // the body with a hole for each secret; nil if it has none
	file   string // where the body is to be found if it does not stand in the command; a name that needs no quotes
}

// inline reports whether the command holds the body itself: a short text without control characters, at which a
// terminal would act, and without what does not show. Nor has a further line an exclamation mark: old shells do not know
// there that it stands in quotes.
func (c *curl) inline() bool {
	text := string(c.body)
	return len(text) <= maxInline && isPlain(text) && !(strings.Contains(text, "\n") && strings.Contains(text, "!"))
}

// String returns the command. Each secret is a parameter that must be set first, or the shell refuses it.
func (c *curl) String() string {
	var b strings.Builder
	b.WriteString("curl --request " + c.method)
	if strings.ContainsAny(c.url, "[]{}") {
		b.WriteString(" --globoff")
	}
	if strings.Contains(c.url, "/.") {
		b.WriteString(" --path-as-is")
	}
	b.WriteString(" " + shellText(c.url, "SECRET_URL"))
	option := func(name, value string) { b.WriteString(" \\\n  --" + name + " " + value) }
	accept := false
	for _, f := range c.header {
		switch f.Name {
		case "Host", "Content-Length": // which follow from the rest
			continue
		case "Accept":
			accept = true
		}
		text := f.Name + ": " + f.Value
		if f.Value == "" {
			text = f.Name + ";" // with a colon it would be left out
		}
		option("header", shellText(text, "SECRET_"+parameterName(f.Name)))
	}
	if !accept {
		option("header", "'Accept:'") // which curl would send
	}
	if c.method == http.MethodGet {
		return b.String()
	}
	switch {
	case !c.inline():
		option("header", "'Expect:'")
		option("data-binary", "@"+c.file)
	case strings.HasPrefix(string(c.body), "@"): // would be a file's name
		option("data-raw", c.bodyText())
	default:
		option("data-binary", c.bodyText())
	}
	return b.String()
}

// bodyText quotes a body that stands in the command.
func (c *curl) bodyText() string {
	if c.shown != nil {
		return shellText(string(c.shown), bodyParameter)
	}
	return shellQuote(string(c.body))
}

// shellText quotes a text with holes, each of which becomes a parameter.
func shellText(text, parameter string) string {
	parts := strings.Split(text, hole)
	var b strings.Builder
	for i, part := range parts {
		if i > 0 {
			number := ""
			if i > 1 {
				number = fmt.Sprintf("_%d", i)
			}
			b.WriteString(`"${` + parameter + number + `:?}"`)
		}
		if part != "" || len(parts) == 1 {
			b.WriteString(shellQuote(part))
		}
	}
	return b.String()
}

// shellQuote makes one word of s in a POSIX shell (POSIX.1-2024, section 2.2.2). What does not show or is no UTF-8 is
// written with printf's octal escapes, since s has no line breaks then. So is the exclamation mark, at which some shells
// look into their history within double quotes.
func shellQuote(s string) string {
	if isPlain(s) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == '\'':
			b.WriteString(`'\''`)
		case r == '\\':
			b.WriteString(`\\`)
		case r == '%':
			b.WriteString("%%")
		case r != '!' && unicode.IsGraphic(r) && (r != utf8.RuneError || size > 1):
			b.WriteString(s[:size])
		default:
			for i := range size {
				fmt.Fprintf(&b, `\%03o`, s[i])
			}
		}
		s = s[size:]
	}
	return `"$(printf -- '` + b.String() + `')"`
}

// isPlain reports whether all of s shows, so that it can be pasted as it is.
func isPlain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) })
}

// parameterName makes the name of a shell parameter of a header's (POSIX.1-2024, section 3.230).
func parameterName(header string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z' || '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, header)
}
