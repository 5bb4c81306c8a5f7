package match_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/postern-relay/postern/relay/match"
)

func FuzzSelect(f *testing.F) {
	for _, seed := range [][2]string{
		{"$", "1"}, {"$..*", bookstore}, {"$.store.book[?@.price < 10 && !@.isbn].title", bookstore},
		{"$..book[-1:0:-2, 0, 'a', *]", bookstore}, {`$[?match(@.a, '[a-z\\-]+\\.\\p{L}{1,3}')]`, `[{"a":"b.c"}]`},
		{`$[?search(@, $[0])]`, `["[^a-c]|(d+)?", "x"]`}, {"$[?length(@) == count(@.*) || value(@..a) != null]", `[{"a":[1,"é"]}]`},
		{`$["\uD834\uDD1E"]['\'']`, `{"𝄞":{"'":-0.5e+3}}`}, {"$ ..\n['a' , 1 : 2 : 3]", `{"b":{"a":[]}}`}, {"$[?@[?@.a==$]]", `[[{"a":1}]]`},
		{"$[?@.a==1].b", `{"a":1,"b":2}`}, {"$[?(@.a<1e999||@.b>=-0)&&true==false]", `{"a":{}}`}, {"$[?1==@[0,0]]", "[]"}, {"$.a[", "{}"},
	} {
		f.Add(seed[0], []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, path string, doc []byte) {
		p, err := match.ParsePath(path)
		if err != nil {
			if p != nil || len(err.Error()) > 500 {
				t.Errorf("got %v and an error of %d bytes: %v", p, len(err.Error()), err)
			}
			return
		}
		d, err := match.ParseJSON(doc)
		if err != nil {
			return
		}
		nodes, err := p.Select(d)
		if err != nil && !errors.Is(err, match.ErrBudget) {
			t.Fatalf("select: got %v, want none or ErrBudget", err)
		}
		again, againErr := parsePath(t, p.String()).Select(d)
		if !slices.Equal(nodes, again) || !errors.Is(againErr, err) {
			t.Errorf("String of %q selects otherwise", path)
		}
		if err != nil {
			return
		}
		for _, n := range nodes[:min(len(nodes), 100)] {
			if one, err := parsePath(t, n.Path()).Select(d); err != nil || len(one) != 1 || one[0] != n {
				t.Errorf("the normalized path %s of a node of %q selects %d nodes, %v", n.Path(), path, len(one), err)
			}
			if !n.Equal(n) {
				t.Errorf("%q is not equal to itself", n.JSON())
			}
		}
		x, err := match.NewExpectation(path, nil)
		if err != nil {
			t.Fatalf("expectation: %v", err)
		}
		if err := x.Check(d); (err == nil) != (len(nodes) > 0) {
			t.Errorf("%q selects %d nodes, but is expected: %v", path, len(nodes), err)
		}
		filter, err := match.ParseFilter(path)
		if err != nil {
			t.Fatalf("filter: %v", err)
		}
		got, err := filter.Match(d)
		if root := parsePath(t, "$"); err == nil && !isObject(t, root, d) && got != (len(nodes) > 0) {
			t.Errorf("%q selects %d nodes, but matches: %v", path, len(nodes), got)
		}
	})
}

func isObject(t testing.TB, root *match.Path, d match.Doc) bool {
	t.Helper()
	nodes, err := root.Select(d)
	if err != nil || len(nodes) != 1 {
		t.Fatalf("the root: got %d nodes, %v", len(nodes), err)
	}
	return nodes[0].JSON()[0] == '{'
}
