package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestTextFromOutsideCannotSteerTheTerminal(t *testing.T) {
	for _, tc := range []struct{ name, text, line, block string }{
		{"plain text stays", "order.paid ~", "order.paid ~", "order.paid ~"},
		{"letters of every script stay", "Grüße 世界 نعم", "Grüße 世界 نعم", "Grüße 世界 نعم"},
		{"an emoji that is joined stays", "👩\u200d💻", "👩\u200d💻", "👩\u200d💻"},
		{"a colour is escaped", "\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`, `\x1b[31mred\x1b[0m`},
		{"a title is escaped", "\x1b]0;owned\a", `\x1b]0;owned\x07`, `\x1b]0;owned\x07`},
		{"a C1 control sequence is escaped", "\u009b31m\u0085", `\u009b31m\u0085`, `\u009b31m\u0085`},
		{"its raw byte is escaped", "\x9b31m\xff", `\x9b31m\xff`, `\x9b31m\xff`},
		{"a replacement character is one", "\uFFFD", "\uFFFD", "\uFFFD"},
		{"a backspace is escaped", "ok\b\b\x7f", `ok\x08\x08\x7f`, `ok\x08\x08\x7f`},
		{"a bidirectional override is escaped", "a\u202ecod.exe\u2066\u2069", `a\u202ecod.exe\u2066\u2069`, `a\u202ecod.exe\u2066\u2069`},
		{"hidden characters are escaped", "\u200b\ufeff\u061c\U000e0041", `\u200b\ufeff\u061c\U000e0041`, `\u200b\ufeff\u061c\U000e0041`},
		{"a line end is one only in a block", "a\nb\tc\r", `a\nb\tc\r`, "a\nb\tc\\r"},
		{"so are the other line ends never", "a\u2028b\v", `a\u2028b\x0b`, `a\u2028b\x0b`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := clean(tc.text); got != tc.line {
				t.Errorf("as a line: got %q, want %q", got, tc.line)
			}
			if got := cleanBlock(tc.text); got != tc.block {
				t.Errorf("as a block: got %q, want %q", got, tc.block)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[2J\u009b\u202e\x80")
	f.Add("a\r\nb\t\U000e0041\U0001f469")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range clean(text) {
			if unicode.IsControl(r) || r == 0x202e {
				t.Errorf("%q: got %U through", text, r)
			}
		}
		for _, r := range cleanBlock(text) {
			if unicode.IsControl(r) && r != '\n' && r != '\t' {
				t.Errorf("%q: got %U through in a block", text, r)
			}
		}
		encoded, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		escaped := escapeJSON(encoded)
		var got string
		if err := json.Unmarshal(escaped, &got); err != nil || got != strings.ToValidUTF8(text, "\uFFFD") && utf8.ValidString(text) {
			t.Errorf("%q: got %s, which is %q, %v", text, escaped, got, err)
		}
		for _, r := range string(escaped) {
			if unicode.IsControl(r) || r == 0x202e {
				t.Errorf("%q: got %U through in JSON", text, r)
			}
		}
	})
}
