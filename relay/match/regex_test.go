package match_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/match"
)

// matches evaluates match and search with a pattern that is a literal of the query and one that comes from the
// document, and reports what they agree on.
func matches(t *testing.T, pattern, text string) (match, search bool) {
	t.Helper()
	doc, err := json.Marshal(map[string]any{"texts": []string{text}, "pattern": pattern})
	if err != nil {
		t.Fatal(err)
	}
	literal, err := json.Marshal(pattern)
	if err != nil {
		t.Fatal(err)
	}
	d := parseJSON(t, string(doc))
	ask := func(function, pattern string) bool {
		nodes, err := parsePath(t, fmt.Sprintf("$.texts[?%s(@, %s)]", function, pattern)).Select(d)
		if err != nil {
			t.Fatal(err)
		}
		return len(nodes) == 1
	}
	match, search = ask("match", string(literal)), ask("search", string(literal))
	if got := ask("match", "$.pattern"); got != match {
		t.Errorf("match of %q from the document: got %v, want %v as with a literal", pattern, got, match)
	}
	if got := ask("search", "$.pattern"); got != search {
		t.Errorf("search of %q from the document: got %v, want %v as with a literal", pattern, got, search)
	}
	return match, search
}

func TestRegex(t *testing.T) {
	const none, part, whole = "none", "part", "whole" // what of the text the pattern matches
	tests := []struct{ name, pattern, text, want string }{
		{"a plain pattern matches the whole", "abc", "abc", whole},
		{"a plain pattern is found within", "abc", "xabcx", part},
		{"alternatives are bounded by the text", "a|bc", "abc", part},
		{"an empty alternative matches nothing at all", "a|", "", whole},
		{"a group is one", "(ab)*c", "ababc", whole},
		{"an empty group is none", "a()b", "ab", whole},
		{"* + and ? repeat", "a*b+c?", "bb", whole},
		{"{2} repeats", "a{2}", "aaa", part},
		{"{2,} repeats", "a{2,}", "aaa", whole},
		{"{0,2} repeats", "a{0,2}b", "aab", whole},
		{"leading zeros in a repetition are none", "a{01,002}", "aa", whole},
		{"a dot is any character", "a.c", "a\u2028c", whole},
		{"a dot is no line feed", "a.c", "a\nc", none},
		{"a dot is no carriage return", "a.c", "a\rc", none},
		{"a dot is one code point", "a.c", "a𝄞c", whole},
		{"a dot in a class is a dot", "a[.]c", "axc", none},
		{"an escaped dot is a dot", `a\.c`, "axc", none},
		{"^ is the start", "^b", "ab", none},
		{"$ is the end", "a$", "ab", none},
		{"$ is not before a last line feed", "a$", "a\n", none},
		{"^ in a class is a character", "[x^]", "^", whole},
		{"$ in a class is a character", "[$]", "$", whole},
		{`\^ is a character`, `\^`, "^", whole},
		{"escapes are characters", `\(\)\*\+\-\.\?\[\\\]\^\{\|\}`, `()*+-.?[\]^{|}`, whole},
		{`\n \r \t are characters`, `\n\r\t`, "\n\r\t", whole},
		{"a range holds its ends", "[b-d]+", "abcde", part},
		{"a range of one is one", "[b-b]", "b", whole},
		{"a negated class", "[^a-c]", "d", whole},
		{"a negated class has line feeds", "[^a]", "\n", whole},
		{"a - at the start of a class is a character", "[-a]+", "a-", whole},
		{"a - at the end of a class is a character", "[a-]+", "a-", whole},
		{"a - alone in a class is a character", "[-]", "-", whole},
		{"two - in a class are one", "[--]", "-", whole},
		{"a - at the start of a negated class is a character", "[^-a]", "-", none},
		{"escapes in a class are characters", `[\]\[\\\-]+`, `][\-`, whole},
		{"a range of escapes", `[\t-\r]+`, "\t\n\r", whole},
		{"classes within Go's classes are characters", "[:alpha:]", "a", whole},
		{"&& is no intersection", "[a&&b]", "&", whole},
		{`\p{L} is any letter`, `\p{L}+`, "aÉж", whole},
		{`\p{Lu} is an upper case letter`, `\p{Lu}`, "ж", none},
		{`\P{Lu} is all else`, `\P{Lu}`, "ж", whole},
		{`\p{Nd} in a class`, `[\p{Nd}x]+`, "1x٣", whole},
		{`\P{N} in a negated class`, `[^\P{N}]+`, "12", whole},
		{`\p{Cn} is not assigned`, `\p{Cn}`, "\u0378", whole},
		{"case matters", "a", "A", none},
		{"a slash is a character", "a/b", "a/b", whole},
		{"Go's lazy * is none of ours", "a*", "aa", whole},
		{"characters special to Go are characters", "a<b>#&~@!%,;:=", "a<b>#&~@!%,;:=", whole},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := none
			switch match, search := matches(t, tt.pattern, tt.text); {
			case match && search:
				got = whole
			case search:
				got = part
			case match:
				t.Error("match, but not search")
			}
			if got != tt.want {
				t.Errorf("%q matches of %q: got %s, want %s", tt.pattern, tt.text, got, tt.want)
			}
		})
	}
}

func TestRegexRefuses(t *testing.T) {
	tests := []struct{ name, pattern, want string }{
		{"a ( without an end", "(a", `( has no ) behind it; write \( for the character`},
		{"a ) without a start", "a)", `) has no ( before it; write \) for the character`},
		{"a [ without an end", "[a", `[ has no ] behind it`},
		{"a ] without a start", "a]", `] stands where a character is wanted; write \] for the character`},
		{"an empty class", "[]", "a class of characters is empty"},
		{"an empty negated class", "[^]", "a class of characters is empty"},
		{"a [ in a class", "[a[]", `[ stands in a class where a character is wanted`},
		{"a - in the middle of a class", "[a-b-c]", `- stands in a class where a character is wanted`},
		{"a range that begins with -", "[--a]", `stands in a class`},
		{"a range that ends with a class", `[a-\p{L}]`, "a range of characters"},
		{"a range in the wrong order", "[b-a]", "a range of characters"},
		{"a range that ends with a [", "[a-[]", `[ stands in a class where a character is wanted`},
		{"a range without an end", "[a-", "a range of characters"},
		{"a * at the start", "*a", `* stands where a character is wanted`},
		{"a + behind |", "a|+", `+ stands where`},
		{"a ? at the start of a group", "(?i)a", `? stands where`},
		{"a group that captures nothing", "(?:a)", `? stands where`},
		{"two repetitions", "a**", `* stands where`},
		{"a lazy repetition", "a+?", `? stands where`},
		{"a { at the start", "{1}", `{ stands where`},
		{"a } alone", "a}", `} stands where`},
		{"a { without an end", "a{1", `{ has no } behind it`},
		{"an empty repetition", "a{}", "a repetition has no number"},
		{"a repetition without its least number", "a{,2}", "a repetition has no number"},
		{"a repetition with a sign", "a{-1}", "a repetition is no number"},
		{"a repetition with a space", "a{1, 2}", "a repetition is no number"},
		{"a repetition in the wrong order", "a{2,1}", "bounds in the wrong order"},
		{"1001 repetitions", "a{1001}", "at most 1000"},
		{"a number beyond int64", "a{99999999999999999999}", "at most 1000"},
		{"nested repetitions", "(a{100}){11}", "at most 1000 are allowed"},
		{"repetitions one after the other", "a{500}b{501}", "at most 1000 are allowed"},
		{"deeply nested repetitions", strings.Repeat("(", 30) + "a" + strings.Repeat("){1000}", 30), "at most 1000 are allowed"},
		{`\d`, `\d`, `\d is no part of I-Regexp; write [0-9]`},
		{`\w in a class`, `[\w]`, `write [A-Za-z0-9_]`},
		{`\s`, `a\s`, `\s is no part of I-Regexp`},
		{`\b`, `\ba`, `\b is no part of I-Regexp; write [b] for the character`},
		{`\$`, `\$`, `\$ is no part of I-Regexp; write [$] for the character`},
		{`a reference back`, `(a)\1`, `\1 is no part of I-Regexp`},
		{"a backslash at the end", `a\`, `the pattern ends with a \`},
		{"a category without braces", `\pL`, `\p has no category behind it`},
		{"an unknown category", `\p{Lx}`, `"Lx" is no category of Unicode`},
		{"an unknown letter", `\P{X}`, `"X" is no category of Unicode`},
		{"a surrogate category", `\p{Cs}`, `"Cs" is no category of Unicode`},
		{"a script", `\p{Greek}`, `\p has no category behind it`},
		{"a category without an end", `\p{L`, `\p has no category behind it`},
		{"1025 bytes", strings.Repeat("a", 1025), "at most 1024"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			literal, err := json.Marshal(tt.pattern)
			if err != nil {
				t.Fatal(err)
			}
			_, err = match.ParsePath(fmt.Sprintf("$[?search(@, %s)]", literal))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%.60q: got %v, want an error with %q", tt.pattern, err, tt.want)
			}
			// From a document it is no error, but does not match (RFC 9535, section 2.4.6).
			nodes, err := parsePath(t, "$[?search(@.text, @.pattern) || !@.text]").Select(
				parseJSON(t, fmt.Sprintf(`[{"text": %s, "pattern": %s}]`, literal, literal)))
			if len(nodes) != 0 || err != nil {
				t.Errorf("from a document %.60q: got %d nodes, %v, want none", tt.pattern, len(nodes), err)
			}
		})
	}
}

// TestRegexCategories goes through all categories that RFC 9485, section 4, has, each with a character of it.
func TestRegexCategories(t *testing.T) {
	characters := map[string]string{
		"L": "a", "Ll": "a", "Lm": "ʰ", "Lo": "ª", "Lt": "ǅ", "Lu": "A",
		"M": "\u0300", "Mc": "\u0903", "Me": "\u0488", "Mn": "\u0300",
		"N": "1", "Nd": "1", "Nl": "Ⅷ", "No": "²",
		"P": "!", "Pc": "_", "Pd": "-", "Pe": ")", "Pf": "»", "Pi": "«", "Po": "!", "Ps": "(",
		"Z": " ", "Zl": "\u2028", "Zp": "\u2029", "Zs": " ",
		"S": "+", "Sc": "$", "Sk": "^", "Sm": "+", "So": "©",
		"C": "\u0001", "Cc": "\u0001", "Cf": "\u200b", "Cn": "\u0378", "Co": "\ue000",
	}
	for category, character := range characters {
		for pattern, want := range map[string]bool{
			`\p{` + category + `}`: true, `[x\p{` + category + `}]`: true,
			`\P{` + category + `}`: false, `[^\p{` + category + `}]`: false,
		} {
			if got, _ := matches(t, pattern, character); got != want {
				t.Errorf("%s matches %q: got %v, want %v", pattern, character, got, want)
			}
		}
	}
}
