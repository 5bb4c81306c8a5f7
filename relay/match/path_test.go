package match_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/match"
)

func TestSelect(t *testing.T) {
	tests := []struct {
		name, path, doc string
		want            []string
	}{
		{"a shorthand may have letters of any script and digits", `$.é_9☺`, `{"é_9☺": 1}`, []string{`1`}},
		{"an empty name is a name", `$['']`, `{"": 1}`, []string{`1`}},
		{"true, null and function names are names behind a dot", `$.true.null.count`, `{"true": {"null": {"count": 1}}}`, []string{`1`}},
		{"a name is found whatever its escapes are", `$["\uD834\uDD1E\/\u000a"]`, `{"𝄞\/\n": 1}`, []string{`1`}},
		{"a name's surrogate escapes may be lower case", `$["\ud834\udd1e"]`, `{"𝄞": 1}`, []string{`1`}},
		{"quotes of the other kind need no escape", `$['"', "'"]`, `{"\"": 1, "'": 2}`, []string{`1`, `2`}},
		{"quotes of the same kind do", `$['\'', "\""]`, `{"\"": 1, "'": 2}`, []string{`2`, `1`}},
		{"DEL is a character like others", "$['\x7f']", "{\"\x7f\": 1}", []string{`1`}},
		{"white space may stand before segments and around selectors", "$ \t\r\n.a \n[ 0 , 1 ]", `{"a": [1, 2]}`, []string{`1`, `2`}},
		{"white space may stand in a slice", "$[ 1 : 4 : 2 ]", `[0,1,2,3,4]`, []string{`1`, `3`}},
		{"white space may stand around operators and in functions", "$[?  ( ! ( count( @ .* ) == 1 ) && ! match( @.a , 'b' ) )]", `[{"a":1,"b":1},{"a":1}]`, []string{`{"a":1,"b":1}`}},
		{"white space may stand in the brackets of a singular query", `$[?@[ 'a' ] == 1]`, `[{"a":1},{"a":2}]`, []string{`{"a":1}`}},
		{"&& binds closer than ||", `$[?@.a || @.b && @.c]`, `[{"a":1},{"b":1},{"b":1,"c":1}]`, []string{`{"a":1}`, `{"b":1,"c":1}`}},
		{"parentheses bind closest", `$[?(@.a || @.b) && @.c]`, `[{"a":1},{"b":1},{"b":1,"c":1}]`, []string{`{"b":1,"c":1}`}},
		{"! binds to the test behind it", `$[?!@.a && @.b]`, `[{"a":1},{"b":1},{"b":1,"c":1}]`, []string{`{"b":1}`, `{"b":1,"c":1}`}},
		{"an index is none of an object", `$[0]`, `{"0": 1}`, []string{}},
		{"a name is none of an array", `$['0']`, `[1]`, []string{}},
		{"a slice is none of an object or a string", `$[*][:]`, `[{"a": 1}, "abc"]`, []string{}},
		{"an index behind the end selects nothing", `$[2,-3]`, `[1,2]`, []string{}},
		{"an index counts elements that have others within them", `$[2,-1,1]`, `[[1,[2]],{"a":3},[4]]`, []string{`[4]`, `[4]`, `{"a":3}`}},
		{"the largest integers are indices", `$[9007199254740991,-9007199254740991]`, `[1]`, []string{}},
		{"the largest integers are bounds and steps", `$[-9007199254740991:9007199254740991:9007199254740991]`, `[1,2]`, []string{`1`}},
		{"the most negative step selects one", `$[::-9007199254740991]`, `[1,2]`, []string{`2`}},
		{"a step of 0 selects nothing", `$[0:9:0]`, `[1,2]`, []string{}},
		{"a filter looks at the values of an object", `$[?@ > 1]`, `{"a": 1, "b": 2}`, []string{`2`}},
		{"a filter looks at no string", `$[*][?@]`, `["ab"]`, []string{}},
		{"$ in a filter is the document", `$.a[?@ == $.b]`, `{"a": [1, 2], "b": 2}`, []string{`2`}},
		{"@ in an inner filter is the inner node", `$[?@[?@ > 2]]`, `[[1],[3]]`, []string{`[3]`}},
		{"descendants of a slice come in reverse order", `$..[::-1]`, `[1,[2,3]]`, []string{`[2,3]`, `1`, `3`, `2`}},
		{"a node reached in two ways comes twice", `$..[?@..a]..a`, `[[{"a":1}]]`, []string{`1`, `1`}},
		{"length counts code points", `$[?length(@) == 2]`, `["é𝄞", "ab", "a", "abc"]`, []string{`"é𝄞"`, `"ab"`}},
		{"length counts elements and members", `$[?length(@) == 1]`, `[[[1, 2]], {"a": [1, 2]}, []]`, []string{`[[1,2]]`, `{"a":[1,2]}`}},
		{"length of others is nothing", `$[?length(@) == length($.absent)]`, `[1, true, null, "a"]`, []string{`1`, `true`, `null`}},
		{"length takes a literal and a function", `$[?length('ab') == length(value(@.a))]`, `[{"a":"xy"},{"a":"x"}]`, []string{`{"a":"xy"}`}},
		{"count counts nodes, also the same twice", `$[?count(@[0, 0]) == 2]`, `[[1], []]`, []string{`[1]`}},
		{"count of nothing is 0", `$[?count(@.a) == 0]`, `[{}, {"a": 1}]`, []string{`{}`}},
		{"value of several nodes is nothing", `$[?value(@.*) == 1]`, `[[1], [1, 1], []]`, []string{`[1]`}},
		{"value of several nodes is nothing, not the last", `$[?value(@.*) == @.absent]`, `[[1], [1, 2], []]`, []string{`[1,2]`, `[]`}},
		{"a singular argument that is absent does not match", `$[?match(@.a, '.*')]`, `[{"a": ""}, {}]`, []string{`{"a":""}`}},
		{"a number is no text to match", `$[?search(@, '1')]`, `[1, "1"]`, []string{`"1"`}},
		{"a pattern that is no text does not match", `$[?match('1', 1) || search('1', @.re) || search('1', @.absent)]`, `[{"re": 1}, {"re": "1"}]`, []string{`{"re":"1"}`}},
		{"a pattern from the document is used", `$.a[?match(@, $.re)]`, `{"re": "b.?", "a": ["b", "bc", "bcd"]}`, []string{`"b"`, `"bc"`}},
		{"a pattern from the document that is none does not match", `$.a[?match(@, $.re)]`, `{"re": "b(", "a": ["b(", "b"]}`, []string{}},
		{"match and search of the same pattern are two", `$.a[?search(@, $.re) && !match(@, $.re)]`, `{"re": "b", "a": ["b", "ab"]}`, []string{`"ab"`}},
		{"numbers are equal by value", `$[?@ == 100]`, `[100, 1e2, 100.0, 10E1, 1000e-1, "100", 100.1]`, []string{`100`, `1e2`, `100.0`, `10E1`, `1000e-1`}},
		{"0 is -0", `$[?@ == -0]`, `[0, -0, 0.0, -0.0, 0e9, 1]`, []string{`0`, `-0`, `0.0`, `-0.0`, `0e9`}},
		{"0 equals -0 within integers", `$[?@ <= 0 && @ >= 0 || -0 == @ && 0 == @]`, `[-0, 0, -1, 1]`, []string{`-0`, `0`}},
		{"integers of different signs are ordered", `$[?@ < 1]`, `[-2, 2, -10]`, []string{`-2`, `-10`}},
		{"and the other way round", `$[?@ > -1]`, `[-2, 2, -10, 10, 0]`, []string{`2`, `10`, `0`}},
		{"integers of any length are exact", `$[?@ == 9007199254740993]`, `[9007199254740992, 9007199254740993, 9007199254740994]`, []string{`9007199254740993`}},
		{"integers beyond int64 are ordered", `$[?@ > 99999999999999999999]`, `[99999999999999999999, 100000000000000000000, -100000000000000000000]`, []string{`100000000000000000000`}},
		{"negative integers are ordered", `$[?@ < -9]`, `[-10, -9, -8, 10, -100]`, []string{`-10`, `-100`}},
		{"an integer and a fraction compare as float64", `$[?@ == 9007199254740992.0]`, `[9007199254740993, 9007199254740994]`, []string{`9007199254740993`}},
		{"a number beyond float64 is larger than all", `$[?@ > 1.7e308]`, `[1e999, -1e999, 1.5e308]`, []string{`1e999`}},
		{"strings are ordered by code points", `$[?@ > "\uFFFD"]`, `["𝄞", "\uffff", "z"]`, []string{`"𝄞"`, `"\uffff"`}},
		{"true, false and null have no order", `$[?@ < true || @ > null]`, `[true, false, null]`, []string{}},
		{"but are at most themselves", `$[?@ <= true]`, `[true, false, null]`, []string{`true`}},
		{"objects are equal in any order", `$[?@ == $[0]]`, `[{"a":1,"b":[2,{}]},{"b":[2.0,{}],"a":1e0},{"a":1},{"a":1,"c":[2,{}]},{"a":1,"b":[2,[]]}]`,
			[]string{`{"a":1,"b":[2,{}]}`, `{"b":[2.0,{}],"a":1e0}`}},
		{"arrays are equal in their order", `$[?@ == $[0]]`, `[[1,2],[2,1],[1],[1,2,3],[1,2.0]]`, []string{`[1,2]`, `[1,2.0]`}},
		{"strings are equal whatever their escapes are", `$[?@ == 'é/']`, `["\u00e9\/", "é/", "e/"]`, []string{`"\u00e9\/"`, `"é/"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkSelect(t, tt.path, parseJSON(t, tt.doc), tt.want, nil) })
	}
	t.Run("in the zero document nothing is selected", func(t *testing.T) {
		if nodes, err := parsePath(t, "$").Select(match.Doc{}); len(nodes) != 0 || err != nil {
			t.Errorf("got %v, %v, want none", nodes, err)
		}
	})
}

// slowSlice is the algorithm of RFC 9535, section 2.3.4.2.2, word for word.
func slowSlice(length int, start, end *int, step int) []string {
	got := []string{}
	pick := func(i *int, absent int) int {
		if i == nil {
			return absent
		}
		if *i < 0 {
			return length + *i
		}
		return *i
	}
	switch {
	case step > 0:
		lower := min(max(pick(start, 0), 0), length)
		upper := min(max(pick(end, length), 0), length)
		for i := lower; i < upper; i += step {
			got = append(got, strconv.Itoa(i))
		}
	case step < 0:
		upper := min(max(pick(start, length-1), -1), length-1)
		lower := -1
		if end != nil {
			lower = min(max(pick(end, 0), -1), length-1)
		}
		for i := upper; lower < i; i += step {
			got = append(got, strconv.Itoa(i))
		}
	}
	return got
}

func TestSlice(t *testing.T) {
	write := func(i *int) string {
		if i == nil {
			return ""
		}
		return strconv.Itoa(*i)
	}
	bounds := []*int{nil}
	for i := -7; i <= 7; i++ {
		bounds = append(bounds, &i)
	}
	for length := range 6 {
		var elements []string
		for i := range length {
			elements = append(elements, strconv.Itoa(i))
		}
		d := parseJSON(t, "["+strings.Join(elements, ",")+"]")
		for _, start := range bounds {
			for _, end := range bounds {
				for step := -3; step <= 3; step++ {
					path := fmt.Sprintf("$[%s:%s:%d]", write(start), write(end), step)
					nodes, err := parsePath(t, path).Select(d)
					got := []string{}
					for _, n := range nodes {
						got = append(got, string(n.JSON()))
					}
					if want := slowSlice(length, start, end, step); err != nil || !slices.Equal(got, want) {
						t.Errorf("%s of %d elements: got %v, %v, want %v", path, length, got, err, want)
					}
				}
			}
		}
	}
}

func TestNode(t *testing.T) {
	const doc = ` {"a": [1,  {"b" : "c"}], "d": {"e": "é"}} `
	d := parseJSON(t, doc)
	t.Run("its JSON and span are as in the document", func(t *testing.T) {
		for path, want := range map[string]string{
			"$": strings.TrimSpace(doc), "$.a": `[1,  {"b" : "c"}]`, "$.a[1]": `{"b" : "c"}`, "$.d.e": `"é"`, "$.a[0]": `1`,
		} {
			nodes, err := parsePath(t, path).Select(d)
			if err != nil || len(nodes) != 1 {
				t.Fatalf("%s: got %d nodes, %v", path, len(nodes), err)
			}
			start, end := nodes[0].Span()
			if got := string(nodes[0].JSON()); got != want || doc[start:end] != want {
				t.Errorf("%s: got %q at %q, want %q", path, got, doc[start:end], want)
			}
		}
	})
	t.Run("nodes of different documents are equal by value", func(t *testing.T) {
		var wide, reversed []string
		for i := range 3000 {
			wide = append(wide, fmt.Sprintf(`"m%d": [%d, "x"]`, i, i))
		}
		reversed = slices.Clone(wide)
		slices.Reverse(reversed)
		root := func(text string) match.Node {
			nodes, err := parsePath(t, "$").Select(parseJSON(t, text))
			if err != nil || len(nodes) != 1 {
				t.Fatalf("got %d nodes, %v", len(nodes), err)
			}
			return nodes[0]
		}
		for _, tt := range []struct {
			a, b string
			want bool
		}{
			{`{"a": 1, "b": "x"}`, `{"b":"x","a":1.0}`, true},
			{`{"a": 1, "b": "x"}`, `{"b":"x","a":2}`, false},
			{`1`, `"1"`, false},
			{`"` + strings.Repeat("x", 100_000) + `"`, `"` + strings.Repeat("x", 100_000) + `"`, true},
			{"{" + strings.Join(wide, ",") + "}", "{" + strings.Join(reversed, ",") + "}", true},
			{"{" + strings.Join(wide, ",") + "}", "{" + strings.Join(reversed[1:], ",") + "}", false},
		} {
			if got := root(tt.a).Equal(root(tt.b)); got != tt.want {
				t.Errorf("%.40s equals %.40s: got %v, want %v", tt.a, tt.b, got, tt.want)
			}
		}
	})
}
