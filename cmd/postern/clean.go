package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean returns a text from outside as it may go to a terminal, on one line: control characters (C0, DEL and C1), those
// that reorder or hide text (bidirectional overrides and other format characters), line ends of every kind and bytes that
// are no UTF-8 are escaped. So nothing that an app or a receiver has sent can move the cursor, change the title, write
// into the input, or make a line look like another (T28).
func clean(s string) string { return escapeText(s, "") }

// cleanBlock is clean for a text of several lines: it leaves line ends and tabs.
func cleanBlock(s string) string { return escapeText(s, "\n\t") }

func escapeText(s, allowed string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strings.ContainsRune(allowed, r), shown(r):
			b.WriteRune(r)
		default:
			b.WriteString(escapeRune(r))
		}
	}
	return b.String()
}

func escapeRune(r rune) string {
	switch r {
	case '\n':
		return `\n`
	case '\r':
		return `\r`
	case '\t':
		return `\t`
	}
	switch {
	case r < 0x80:
		return fmt.Sprintf(`\x%02x`, r)
	case r < 0x10000:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}

// plain reports whether s is printable ASCII, which most texts are.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// shown reports whether a character may go to a terminal as it is. The two joiners are format characters that scripts
// and emoji need, and that do no harm.
func shown(r rune) bool {
	const nonJoiner, joiner = '\u200c', '\u200d'
	return unicode.IsPrint(r) || unicode.Is(unicode.Zs, r) || r == nonJoiner || r == joiner
}

// escapeJSON escapes, within the strings of a JSON text, the characters that encoding/json leaves and a terminal might
// obey. The value of the text stays the same.
func escapeJSON(text []byte) []byte {
	harmless := func(r rune) bool { return r < 0x7f || shown(r) || r == utf8.RuneError }
	clear := true
	for _, r := range string(text) {
		if clear = harmless(r); !clear {
			break
		}
	}
	if clear {
		return text
	}
	out := make([]byte, 0, len(text)+64)
	for _, r := range string(text) {
		switch {
		case harmless(r):
			out = utf8.AppendRune(out, r)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}
