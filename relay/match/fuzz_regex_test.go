package match

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzRegex holds each pattern to: an error or one that compiles, is within its bound, and finds within a text what it
// matches as a whole; and what has no character with a meaning matches as strings do.
func FuzzRegex(f *testing.F) {
	for _, seed := range [][2]string{
		{"a", "a"}, {"", ""}, {"[a-c]+|(d{1,3})?", "dd"}, {`\p{Lu}[^\P{L}-]*`, "Aé"}, {"(((((a{9}){9}){9})))", "a"}, {`[\-\]]`, "-"}, {".", "\n"}, {"a{2,1}", "a"},
		{"[-a]", "-"}, {"[]", "x"}, {"a**", "a"}, {"(", ""}, {"a|", ""}, {`\n\r\t`, "\n\r\t"}, {"[^a]", "\U0001F600"}, {"\xff", "\xff"}, {"a{1000}", "a"}, {"^a$", "^a$"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		whole, err := compileRegex(pattern, true)
		part, partErr := compileRegex(pattern, false)
		if (err == nil) != (partErr == nil) {
			t.Fatalf("%q: as a whole %v, within a text %v", pattern, err, partErr)
		}
		if err != nil {
			if len(err.Error()) > 500 {
				t.Errorf("%q: got an error of %d bytes", pattern, len(err.Error()))
			}
			return
		}
		if whole.size > maxRegexSize || whole.cost(0) < 1 || whole.cost(len(text)) < whole.cost(0) {
			t.Errorf("%q: got size %d, costs %d and %d", pattern, whole.size, whole.cost(0), whole.cost(len(text)))
		}
		if whole.re.MatchString(text) && !part.re.MatchString(text) {
			t.Errorf("%q matches %q, and does not find itself in it", pattern, text)
		}
		if regexp.QuoteMeta(pattern) == pattern && utf8.ValidString(pattern) && utf8.ValidString(text) {
			if got, want := whole.re.MatchString(text), text == pattern; got != want {
				t.Errorf("%q matches %q: got %t, want %t", pattern, text, got, want)
			}
			if got, want := part.re.MatchString(text), strings.Contains(text, pattern); got != want {
				t.Errorf("%q is in %q: got %t, want %t", pattern, text, got, want)
			}
		}
	})
}
