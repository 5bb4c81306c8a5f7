package match_test

import (
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/match"
)

// TestParsePathRefuses goes through the grammar of RFC 9535, and through its rules beyond the grammar.
func TestParsePathRefuses(t *testing.T) {
	tests := []struct{ name, path, want string }{
		{"nothing", "", "the path is empty"},
		{"white space in front", " $", "white space around it"},
		{"white space at the end", "$\n", "white space around it"},
		{"a path without a root", "a.b", "column 1: the path does not begin with $"},
		{"a path that begins at @", "@.a", "column 1: the path does not begin with $"},
		{"more than 4096 bytes", "$." + strings.Repeat("a", 4095), "at most 4096"},
		{"bad UTF-8", "$.a\xff", "not valid UTF-8"},
		{"a UTF-8 surrogate", "$.\xed\xa0\x80", "not valid UTF-8"},
		{"what follows the path", "$.a b", "column 4: ' ' is not allowed here"},
		{"a column in characters", "$.é☺ b", "column 5: "},

		{"a dot with nothing behind it", "$.", "column 3: the path ends too early; write a name"},
		{"two dots with nothing behind them", "$..", "column 4: the path ends too early"},
		{"three dots", "$...a", "column 4: '.' is not allowed"},
		{"white space behind a dot", "$. a", "column 3: ' ' is not allowed"},
		{"white space behind two dots", "$.. a", "column 4: "},
		{"white space between two dots", "$. .a", "column 3: "},
		{"a dot before brackets", "$.['a']", "column 3: '[' is not allowed"},
		{"a name that begins with a digit", "$.1a", "column 3: '1' is not allowed"},
		{"a name with a dash", "$.a-b", "column 4: '-' is not allowed"},
		{"a name in quotes behind a dot", "$.'a'", `column 3: '\'' is not allowed`},
		{"a name without a dot", "$a", "column 2: 'a' is not allowed"},
		{"empty brackets", "$[]", "column 3: ']' is not allowed here; write a name in quotes"},
		{"brackets without an end", "$[0", "column 4: the path ends too early; write ]"},
		{"a comma at the end", "$[0,]", "column 5: "},
		{"a comma at the start", "$[,0]", "column 3: "},
		{"selectors without a comma", "$[0 1]", "column 5: '1' is not allowed"},
		{"a name without quotes", "$[a]", "column 3: 'a' is not allowed"},
		{"a root in brackets", "$[$.a]", "column 3: "},

		{"-0", "$[-0]", "column 3: -0 is not allowed"},
		{"leading zeros", "$[01]", "column 3: 01 has leading zeros"},
		{"leading zeros behind a sign", "$[-01]", "column 3: -01 has leading zeros"},
		{"a plus", "$[+1]", "column 3: '+' is not allowed"},
		{"a fraction", "$[1.0]", "column 4: '.' is not allowed"},
		{"an exponent", "$[1e0]", "column 4: 'e' is not allowed"},
		{"a dash alone", "$[-]", "column 4: ']' is not allowed here; write a digit"},
		{"2^53", "$[9007199254740992]", "column 3: 9007199254740992 is too large"},
		{"-2^53", "$[-9007199254740992]", "is too large"},
		{"a bound of 2^53", "$[:9007199254740992]", "column 4: 9007199254740992 is too large"},
		{"a step of -2^53", "$[::-9007199254740992]", "is too large"},
		{"more than int64 holds", "$[99999999999999999999]", "is too large"},
		{"a slice of four parts", "$[1:2:3:4]", "column 8: ':' is not allowed"},
		{"a slice of names", "$['a':'b']", "column 6: ':' is not allowed"},
		{"a slice with -0", "$[-0:]", "-0 is not allowed"},

		{"a string without an end", "$['a", "column 3: the string has no end; write ' behind it"},
		{"a string that ends in another quote", `$['a"]`, "has no end"},
		{"a control character in a string", "$['a\tb']", `column 5: a control character is not allowed in a string; write \t`},
		{"a NUL in a string", "$['\x00']", `write \u0000`},
		{"the other quote escaped", `$["\'"]`, `column 4: this is no escape sequence`},
		{"the other quote escaped in single quotes", `$['\"']`, `column 4: this is no escape sequence`},
		{"an escape of Go's", `$['\a']`, "this is no escape sequence"},
		{"a hexadecimal escape", `$['\x41']`, "this is no escape sequence"},
		{"three hexadecimal digits", `$['\u041']`, `column 4: \u lacks digits`},
		{"no hexadecimal digits", `$['\u00g0']`, `\u lacks digits`},
		{"an upper case U", `$['\U00000041']`, "this is no escape sequence"},
		{"the end behind a backslash", `$['\`, "this is no escape sequence"},
		{"the end in an escape", `$['\u00`, "lacks digits"},
		{"the first half of a pair", `$['\uD834']`, "column 4: half of a surrogate pair"},
		{"the second half of a pair", `$['\uDD1E']`, "half of a surrogate pair"},
		{"two first halves", `$['\uD834\uD834']`, "half of a surrogate pair"},
		{"a first half and a letter", `$['\uD834a']`, "half of a surrogate pair"},
		{"a first half and another escape", `$['\uD834\n']`, "half of a surrogate pair"},
		{"a first half and a broken one", `$['\uD834\uDD']`, "lacks digits"},

		{"an empty filter", "$[?]", "column 4: ']' is not allowed here; write @ or $"},
		{"a filter that ends too early", "$[?@.a==", "column 9: the path ends too early"},
		{"a single =", "$[?@.a=1]", "column 7: '=' is not allowed here; write == to compare"},
		{"a single &", "$[?@.a & @.b]", "column 8: '&' is not allowed"},
		{"a single |", "$[?@.a | @.b]", "column 8: '|' is not allowed"},
		{"and as a word", "$[?@.a and @.b]", "column 8: 'a' is not allowed"},
		{"===", "$[?@.a===1]", "column 9: '=' is not allowed"},
		{"=~", "$[?@.a=~'b']", "column 7: '=' is not allowed"},
		{"<>", "$[?@.a<>1]", "column 8: '>' is not allowed"},
		{"arithmetic", "$[?@.a+1==2]", "column 7: '+' is not allowed"},
		{"a chain of comparisons", "$[?1 < @.a < 3]", "column 12: '<' is not allowed"},
		{"&& without a right side", "$[?@.a && ]", "column 11: ']' is not allowed"},
		{"|| without a left side", "$[?|| @.a]", "column 4: '|' is not allowed"},
		{"! before a comparison", "$[?!@.a == 1]", "column 4: ! cannot stand before a comparison"},
		{"! before the right side", "$[?@.a == !@.b]", "column 11: '!' is not allowed"},
		{"!!", "$[?!!@.a]", "column 5: '!' is not allowed"},
		{"a parenthesis as an operand", "$[?(@.a) == 1]", "column 10: '=' is not allowed"},
		{"an empty parenthesis", "$[?()]", "column 5: ')' is not allowed"},
		{"a parenthesis without an end", "$[?(@.a]", "column 8: ']' is not allowed here; write an operator or )"},
		{"a parenthesis without a start", "$[?@.a)]", "column 7: ')' is not allowed"},
		{"a filter in parentheses of old", "$[(@.length-1)]", "column 3: '(' is not allowed"},
		{"true alone", "$[?true]", "column 4: a literal alone is no condition"},
		{"a literal within &&", "$[?@.a && 'b']", "column 11: a literal alone"},
		{"True", "$[?@.a == True]", "column 11: 'T' is not allowed"},
		{"a word without quotes", "$[?@.a == high]", `column 11: high means nothing here; write a string in quotes`},
		{"a list", "$[?@.a == [1]]", "column 11: '[' is not allowed"},
		{"an object", "$[?@.a == {}]", "column 11: '{' is not allowed"},
		{"a number with leading zeros", "$[?@.a == 01]", "column 11: the number has leading zeros"},
		{"a number that ends with a dot", "$[?@.a == 1.]", "column 13: ']' is not allowed here; write a digit"},
		{"a number that begins with a dot", "$[?@.a == .1]", "column 11: '.' is not allowed"},
		{"a number that begins with a plus", "$[?@.a == +1]", "column 11: '+' is not allowed"},
		{"a number without its exponent", "$[?@.a == 1e]", "column 13: ']' is not allowed here; write the digits"},
		{"a number that is a sign", "$[?@.a == -]", "column 12: ']' is not allowed here; write a digit"},
		{"several nodes in a comparison", "$[?@.* == 1]", "column 4: the path can select several nodes"},
		{"a slice in a comparison", "$[?1 == @[0:1]]", "column 9: the path can select several nodes"},
		{"descendants in a comparison", "$[?@..a == 1]", "several nodes"},
		{"two names in a comparison", "$[?@['a','b'] == 1]", "several nodes"},
		{"a filter in a comparison", "$[?@[?@.a] == 1]", "several nodes"},

		{"an unknown function", "$[?size(@) == 1]", "column 4: there is no function size; write one of count, length, match, search, value"},
		{"a function in upper case", "$[?Length(@) == 1]", "column 4: 'L' is not allowed"},
		{"a function with a space behind its name", "$[?length (@) == 1]", "column 4: length means nothing here"},
		{"a function without an end", "$[?length(@ == 1]", "column 13: '=' is not allowed here; write ) or a comma"},
		{"a comma behind the argument", "$[?length(@,) == 1]", "column 13: ')' is not allowed"},
		{"too few arguments", "$[?match(@.a)]", "column 4: match has 1 arguments; it takes 2"},
		{"no arguments", "$[?count() == 1]", "column 4: count has 0 arguments; it takes 1"},
		{"too many arguments", "$[?search(@.a,'b','c')]", "column 4: search has 3 arguments; it takes 2"},
		{"2.4.3: length of several nodes", "$[?length(@.*) < 3]", "column 11: the path can select several nodes"},
		{"2.4.3: count of a literal", "$[?count(1) == 1]", "column 10: the argument of count is a path"},
		{"2.4.3: count of an unknown function", "$[?count(foo(@.*)) == 1]", "column 10: there is no function foo"},
		{"2.4.3: match compared", "$[?match(@.timezone, 'Europe/.*') == true]", "column 4: the result of this function is true or false"},
		{"2.4.3: value alone", "$[?value(@..color)]", "column 4: the result of this function is no condition"},
		{"length alone", "$[?length(@.a)]", "is no condition"},
		{"length of match", "$[?length(match(@.a,'b')) == 1]", "column 11: the result of this function is true or false"},
		{"length of a condition", "$[?length(@.a == 1) == 1]", "an argument is a path, a literal or a function, and no condition"},
		{"length of a parenthesis", "$[?length((@.a)) == 1]", "column 11: '(' is not allowed"},
		{"value of a function", "$[?value(length(@.a)) == 1]", "the argument of value is a path"},
		{"match of several nodes", "$[?match(@.*, 'a')]", "column 10: the path can select several nodes"},
		{"a pattern of several nodes", "$[?match(@.a, @.*)]", "column 15: the path can select several nodes"},
		{"a pattern that is no I-Regexp", `$[?match(@.a, 'a(')]`, "column 15: the pattern is no I-Regexp (RFC 9485): ( has no ) behind it"},
		{"65 levels", "$" + strings.Repeat("[?@", 65) + strings.Repeat("]", 65), "nested more than 64 deep"},
		{"65 parentheses", "$[?" + strings.Repeat("(", 64) + "@" + strings.Repeat(")", 64) + "]", "nested more than 64 deep"},
		{"4000 parentheses", "$[?" + strings.Repeat("(", 4000), "nested more than 64 deep"},
		{"1000 functions", "$[?" + strings.Repeat("length(", 500), "nested more than 64 deep"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := match.ParsePath(tt.path)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%.100q: got %v, want an error with %q", tt.path, err, tt.want)
			}
			if p != nil {
				t.Error("got a path beside the error")
			}
			if len(err.Error()) > 300 {
				t.Errorf("the error has %d bytes: %v", len(err.Error()), err)
			}
		})
	}
}

func TestParsePathTakes(t *testing.T) {
	tests := []struct{ name, path string }{
		{"4096 bytes", "$." + strings.Repeat("a", 4094)},
		{"64 levels", "$" + strings.Repeat("[?@", 64) + strings.Repeat("]", 64)},
		{"63 parentheses", "$[?" + strings.Repeat("(", 63) + "@" + strings.Repeat(")", 63) + "]"},
		{"2.4.3: length of the current node", "$[?length(@) < 3]"},
		{"2.4.3: count of several nodes", "$[?count(@.*) == 1]"},
		{"2.4.3: match alone", "$[?match(@.timezone, 'Europe/.*')]"},
		{"2.4.3: value compared", `$[?value(@..color) == "red"]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := parsePath(t, tt.path).String(); got != tt.path {
				t.Errorf("String: got %q, want %q", got, tt.path)
			}
		})
	}
}
