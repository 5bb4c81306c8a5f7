package match_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/postern-relay/postern/relay/match"
)

func parseJSON(t testing.TB, text string) match.Doc {
	t.Helper()
	d, err := match.ParseJSON([]byte(text))
	if err != nil {
		t.Fatalf("ParseJSON(%.100q): %v", text, err)
	}
	return d
}

func parsePath(t testing.TB, text string) *match.Path {
	t.Helper()
	p, err := match.ParsePath(text)
	if err != nil {
		t.Fatalf("ParsePath(%q): %v", text, err)
	}
	return p
}

func compact(t testing.TB, b []byte) string {
	t.Helper()
	out, err := json.Marshal(json.RawMessage(b))
	if err != nil {
		t.Fatalf("compact %.100q: %v", b, err)
	}
	return string(out)
}

// checkSelect selects in a document, and compares the values with those wanted, the places with the wanted ones if
// there are any, and what each node's normalized path selects with the node.
func checkSelect(t *testing.T, path string, d match.Doc, want, wantPaths []string) {
	t.Helper()
	p := parsePath(t, path)
	nodes, err := p.Select(d)
	if err != nil {
		t.Fatalf("select %s: %v", path, err)
	}
	got, gotPaths := []string{}, []string{}
	for _, n := range nodes {
		got, gotPaths = append(got, compact(t, n.JSON())), append(gotPaths, n.Path())
		again, err := parsePath(t, n.Path()).Select(d)
		if err != nil || len(again) != 1 || again[0] != n {
			t.Errorf("%s: its normalized path %s selects %d nodes (%v), want just the same", path, n.Path(), len(again), err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", path, got, want)
	}
	if wantPaths != nil && !slices.Equal(gotPaths, wantPaths) {
		t.Errorf("%s:\n got the paths %v\nwant %v", path, gotPaths, wantPaths)
	}
}

const bookstore = `{"store": {
  "book": [
    {"category": "reference", "author": "Nigel Rees", "title": "Sayings of the Century", "price": 8.95},
    {"category": "fiction", "author": "Evelyn Waugh", "title": "Sword of Honour", "price": 12.99},
    {"category": "fiction", "author": "Herman Melville", "title": "Moby Dick", "isbn": "0-553-21311-3", "price": 8.99},
    {"category": "fiction", "author": "J. R. R. Tolkien", "title": "The Lord of the Rings", "isbn": "0-395-19395-8", "price": 22.99}
  ],
  "bicycle": {"color": "red", "price": 399}
}}`

// TestRFC9535 holds the examples of the standard, by its sections.
func TestRFC9535(t *testing.T) {
	const (
		letters = `["a", "b", "c", "d", "e", "f", "g"]`
		filters = `{"a": [3, 5, 1, 2, 4, 6, {"b": "j"}, {"b": "k"}, {"b": {}}, {"b": "kilo"}],
			"o": {"p": 1, "q": 2, "r": 3, "s": 5, "t": {"u": 6}}, "e": "f"}`
		deep  = `{"o": {"j": 1, "k": 2}, "a": [5, 3, [{"j": 4}, {"k": 6}]]}`
		names = `{"o": {"j j": {"k.k": 3}}, "'": {"@": 2}}`
		wild  = `{"o": {"j": 1, "k": 2}, "a": [5, 3]}`
		nulls = `{"a": null, "b": [null], "c": [{}], "null": 1}`
	)
	tests := []struct {
		section, path, doc string
		want, paths        []string
	}{
		{"1.5 the authors of all books", `$.store.book[*].author`, bookstore,
			[]string{`"Nigel Rees"`, `"Evelyn Waugh"`, `"Herman Melville"`, `"J. R. R. Tolkien"`}, nil},
		{"1.5 all authors", `$..author`, bookstore,
			[]string{`"Nigel Rees"`, `"Evelyn Waugh"`, `"Herman Melville"`, `"J. R. R. Tolkien"`}, nil},
		{"1.5 the prices of everything", `$.store..price`, bookstore, []string{`8.95`, `12.99`, `8.99`, `22.99`, `399`}, nil},
		{"1.5 the third book's author", `$..book[2].author`, bookstore, []string{`"Herman Melville"`}, nil},
		{"1.5 the third book has no publisher", `$..book[2].publisher`, bookstore, []string{}, nil},
		{"1.5 the last book", `$..book[-1].title`, bookstore, []string{`"The Lord of the Rings"`}, nil},
		{"1.5 the first two books", `$..book[0,1].price`, bookstore, []string{`8.95`, `12.99`}, nil},
		{"1.5 the first two books, as a slice", `$..book[:2].price`, bookstore, []string{`8.95`, `12.99`}, nil},
		{"1.5 all books with an ISBN", `$..book[?@.isbn].price`, bookstore, []string{`8.99`, `22.99`}, nil},
		{"1.5 all books cheaper than 10", `$..book[?@.price<10].price`, bookstore, []string{`8.95`, `8.99`}, nil},
		{"2.2.3 the root", `$`, `{"k": "v"}`, []string{`{"k":"v"}`}, []string{`$`}},
		{"2.3.1.3 a name with a space", `$.o['j j']`, names, []string{`{"k.k":3}`}, []string{`$['o']['j j']`}},
		{"2.3.1.3 a name with a dot", `$.o['j j']['k.k']`, names, []string{`3`}, []string{`$['o']['j j']['k.k']`}},
		{"2.3.1.3 names in double quotes", `$.o["j j"]["k.k"]`, names, []string{`3`}, []string{`$['o']['j j']['k.k']`}},
		{"2.3.1.3 unusual names", `$["'"]["@"]`, names, []string{`2`}, []string{`$['\'']['@']`}},
		{"2.3.2.3 the values of an object", `$[*]`, wild, []string{`{"j":1,"k":2}`, `[5,3]`}, []string{`$['o']`, `$['a']`}},
		{"2.3.2.3 the values of a member", `$.o[*]`, wild, []string{`1`, `2`}, nil},
		{"2.3.2.3 the values twice", `$.o[*, *]`, wild, []string{`1`, `2`, `1`, `2`}, nil},
		{"2.3.2.3 the elements of an array", `$.a[*]`, wild, []string{`5`, `3`}, []string{`$['a'][0]`, `$['a'][1]`}},
		{"2.3.3.3 an element", `$[1]`, `["a","b"]`, []string{`"b"`}, []string{`$[1]`}},
		{"2.3.3.3 an element from the end", `$[-2]`, `["a","b"]`, []string{`"a"`}, []string{`$[0]`}},
		{"2.3.4.3 a slice with the default step", `$[1:3]`, letters, []string{`"b"`, `"c"`}, []string{`$[1]`, `$[2]`}},
		{"2.3.4.3 a slice without an end", `$[5:]`, letters, []string{`"f"`, `"g"`}, nil},
		{"2.3.4.3 a slice with step 2", `$[1:5:2]`, letters, []string{`"b"`, `"d"`}, nil},
		{"2.3.4.3 a slice with a negative step", `$[5:1:-2]`, letters, []string{`"f"`, `"d"`}, []string{`$[5]`, `$[3]`}},
		{"2.3.4.3 a slice in reverse order", `$[::-1]`, letters, []string{`"g"`, `"f"`, `"e"`, `"d"`, `"c"`, `"b"`, `"a"`}, nil},
		{"2.3.5.3 a comparison", `$.a[?@.b == 'kilo']`, filters, []string{`{"b":"kilo"}`}, []string{`$['a'][9]`}},
		{"2.3.5.3 the same in parentheses", `$.a[?(@.b == 'kilo')]`, filters, []string{`{"b":"kilo"}`}, nil},
		{"2.3.5.3 a comparison of elements", `$.a[?@>3.5]`, filters, []string{`5`, `4`, `6`}, nil},
		{"2.3.5.3 existence", `$.a[?@.b]`, filters, []string{`{"b":"j"}`, `{"b":"k"}`, `{"b":{}}`, `{"b":"kilo"}`}, nil},
		{"2.3.5.3 existence of any child", `$[?@.*]`, filters,
			[]string{`[3,5,1,2,4,6,{"b":"j"},{"b":"k"},{"b":{}},{"b":"kilo"}]`, `{"p":1,"q":2,"r":3,"s":5,"t":{"u":6}}`}, nil},
		{"2.3.5.3 a filter within a filter", `$[?@[?@.b]]`, filters,
			[]string{`[3,5,1,2,4,6,{"b":"j"},{"b":"k"},{"b":{}},{"b":"kilo"}]`}, nil},
		{"2.3.5.3 two filters", `$.o[?@<3, ?@<3]`, filters, []string{`1`, `2`, `1`, `2`}, nil},
		{"2.3.5.3 or", `$.a[?@<2 || @.b == "k"]`, filters, []string{`1`, `{"b":"k"}`}, nil},
		{"2.3.5.3 match", `$.a[?match(@.b, "[jk]")]`, filters, []string{`{"b":"j"}`, `{"b":"k"}`}, nil},
		{"2.3.5.3 search", `$.a[?search(@.b, "[jk]")]`, filters, []string{`{"b":"j"}`, `{"b":"k"}`, `{"b":"kilo"}`}, nil},
		{"2.3.5.3 and", `$.o[?@>1 && @<4]`, filters, []string{`2`, `3`}, nil},
		{"2.3.5.3 or of existences", `$.o[?@.u || @.x]`, filters, []string{`{"u":6}`}, nil},
		{"2.3.5.3 nothing equals nothing", `$.a[?@.b == $.x]`, filters, []string{`3`, `5`, `1`, `2`, `4`, `6`}, nil},
		{"2.3.5.3 all equal themselves", `$.a[?@ == @]`, filters,
			[]string{`3`, `5`, `1`, `2`, `4`, `6`, `{"b":"j"}`, `{"b":"k"}`, `{"b":{}}`, `{"b":"kilo"}`}, nil},
		{"2.5.1.3 indices", `$[0, 3]`, letters, []string{`"a"`, `"d"`}, nil},
		{"2.5.1.3 a slice and an index", `$[0:2, 5]`, letters, []string{`"a"`, `"b"`, `"f"`}, nil},
		{"2.5.1.3 an index twice", `$[0, 0]`, letters, []string{`"a"`, `"a"`}, nil},
		{"2.5.2.3 descendant members", `$..j`, deep, []string{`1`, `4`}, []string{`$['o']['j']`, `$['a'][2][0]['j']`}},
		{"2.5.2.3 descendant elements", `$..[0]`, deep, []string{`5`, `{"j":4}`}, nil},
		{"2.5.2.3 all descendants", `$..[*]`, deep, []string{`{"j":1,"k":2}`, `[5,3,[{"j":4},{"k":6}]]`, `1`, `2`, `5`, `3`,
			`[{"j":4},{"k":6}]`, `{"j":4}`, `{"k":6}`, `4`, `6`}, nil},
		{"2.5.2.3 a descendant of the root", `$..o`, deep, []string{`{"j":1,"k":2}`}, nil},
		{"2.5.2.3 descendants twice", `$.o..[*, *]`, deep, []string{`1`, `2`, `1`, `2`}, nil},
		{"2.5.2.3 several descendant elements", `$.a..[0, 1]`, deep, []string{`5`, `3`, `{"j":4}`, `{"k":6}`}, nil},
		{"2.6.1 null is a value", `$.a`, nulls, []string{`null`}, nil},
		{"2.6.1 null is no array", `$.a[0]`, nulls, []string{}, nil},
		{"2.6.1 null is no object", `$.a.d`, nulls, []string{}, nil},
		{"2.6.1 null is an element", `$.b[0]`, nulls, []string{`null`}, nil},
		{"2.6.1 null is any element", `$.b[*]`, nulls, []string{`null`}, nil},
		{"2.6.1 null exists", `$.b[?@]`, nulls, []string{`null`}, nil},
		{"2.6.1 null equals null", `$.b[?@==null]`, nulls, []string{`null`}, nil},
		{"2.6.1 nothing is not null", `$.c[?@.d==null]`, nulls, []string{}, nil},
		{"2.6.1 null is a name", `$.null`, nulls, []string{`1`}, nil},
		{"2.7 a slice", `$.a.b[1:2]`, `{"a": {"b": [0, 1]}}`, []string{`1`}, []string{`$['a']['b'][1]`}},
		{"2.7 an index from the end", `$[-3]`, `[0, 1, 2, 3, 4]`, []string{`2`}, []string{`$[2]`}},
		{"2.7 a control character", `$["\u000B"]`, `{"\u000b": 1}`, []string{`1`}, []string{`$['\u000b']`}},
		{"2.7 an escaped letter", `$["\u0061"]`, `{"a": 1}`, []string{`1`}, []string{`$['a']`}},
		{"2.7 characters with short escapes", `$.*`, `{"\b\t\n\f\r'\\\"/": 1}`, []string{`1`}, []string{`$['\b\t\n\f\r\'\\"/']`}},
	}
	for _, tt := range tests {
		t.Run(tt.section, func(t *testing.T) { checkSelect(t, tt.path, parseJSON(t, tt.doc), tt.want, tt.paths) })
	}
	t.Run("1.5 everything there is", func(t *testing.T) {
		nodes, err := parsePath(t, "$..*").Select(parseJSON(t, bookstore))
		if want := 1 + 2 + 4 + 4 + 4 + 5 + 5 + 2; err != nil || len(nodes) != want {
			t.Errorf("got %d nodes (%v), want %d", len(nodes), err, want)
		}
	})
}

// TestRFC9535Comparisons is table 11 of section 2.3.5.3.
func TestRFC9535Comparisons(t *testing.T) {
	d := parseJSON(t, `[{"obj": {"x": "y"}, "arr": [2, 3]}]`)
	tests := []struct {
		comparison string
		want       bool
	}{
		{`@.absent1 == @.absent2`, true},
		{`@.absent1 <= @.absent2`, true},
		{`@.absent == 'g'`, false},
		{`@.absent1 != @.absent2`, false},
		{`@.absent != 'g'`, true},
		{`1 <= 2`, true},
		{`1 > 2`, false},
		{`13 == '13'`, false},
		{`'a' <= 'b'`, true},
		{`'a' > 'b'`, false},
		{`@.obj == @.arr`, false},
		{`@.obj != @.arr`, true},
		{`@.obj == @.obj`, true},
		{`@.obj != @.obj`, false},
		{`@.arr == @.arr`, true},
		{`@.arr != @.arr`, false},
		{`@.obj == 17`, false},
		{`@.obj != 17`, true},
		{`@.obj <= @.arr`, false},
		{`@.obj < @.arr`, false},
		{`@.obj <= @.obj`, true},
		{`@.arr <= @.arr`, true},
		{`1 <= @.arr`, false},
		{`1 >= @.arr`, false},
		{`1 > @.arr`, false},
		{`1 < @.arr`, false},
		{`true <= true`, true},
		{`true > true`, false},
	}
	for _, tt := range tests {
		t.Run(tt.comparison, func(t *testing.T) {
			for _, form := range []struct {
				path string
				want bool
			}{{"$[?%s]", tt.want}, {"$[?!(%s)]", !tt.want}, {"$[?(%s) && @]", tt.want}} {
				path := fmt.Sprintf(form.path, tt.comparison)
				nodes, err := parsePath(t, path).Select(d)
				if got := len(nodes) == 1; got != form.want || err != nil {
					t.Errorf("%s: got %v, %v, want %v", path, got, err, form.want)
				}
			}
		})
	}
}
