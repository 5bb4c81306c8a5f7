package match_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/match"
)

// many joins n strings made of a format and a number.
func many(n int, format string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(all, ",")
}

// TestBudget has evaluations that would take minutes or for ever; T18. What watches the time is that of the test run.
func TestBudget(t *testing.T) {
	numbers := "[" + many(100_000, "%d") + "]"
	deep := strings.Repeat("[1,", 500) + "1" + strings.Repeat("]", 500)
	nested := strings.Repeat("[", 45) + strings.Repeat("]", 45)
	tests := []struct{ name, path, doc string }{
		{"descendants of descendants", "$..*..*..*..*", deep},
		{"all descendants for each element", "$..[?count($..*) > 0]", numbers},
		{"selectors that double the nodes", "$" + strings.Repeat("[0,0]", 40), nested},
		{"tests that double the nodes", "$[?@" + strings.Repeat("[0,0]", 40) + ".a]", nested},
		{"counts that double the nodes", "$[?count(@" + strings.Repeat("[0,0]", 40) + ") > 1]", nested},
		{"filters of descendants within filters of descendants", "$" + strings.Repeat("..[?@", 20) + ".a" + strings.Repeat("]", 20), deep},
		{"a distant element for each element", "$[?@ == $[20000]]", "[" + many(20_000, "[%d]") + ",1]"},
		{"a distant member for each element", "$.a[?@ == $.z]", `{"a":` + numbers + "," + many(1000, `"m%d":0`) + `,"z":-1}`},
		{"a slice for each element", "$[?$[99999:0:-2]]", "[" + many(100_000, "[%d]") + "]"},
		{"a slice of no elements for each element", "$[?$[99999:99999]]", numbers},
		{"a large array compared for each element", "$.a[?$.b == $.c]", `{"a":` + numbers + `,"b":` + numbers + `,"c":` + numbers + `}`},
		{"a large object compared for each element", "$.a[?$.b == $.c]", `{"a":` + numbers +
			`,"b":{"x":0,` + many(5000, `"m%d":0`) + `},"c":{` + many(5000, `"m%d":0`) + `,"x":0}}`},
		{"a long string compared for each element", "$.a[?$.b == $.c]", `{"a":` + numbers +
			`,"b":"` + strings.Repeat("x", 10_000) + `","c":"` + strings.Repeat("x", 10_000) + `"}`},
		{"a long string ordered for each element", "$.a[?$.b < $.c]", `{"a":` + numbers +
			`,"b":"` + strings.Repeat("x", 10_000) + `","c":"` + strings.Repeat("x", 10_000) + `"}`},
		{"a long string measured for each element", "$.a[?length($.b) < 0]", `{"a":` + numbers + `,"b":"` + strings.Repeat("x", 10_000) + `"}`},
		{"a large pattern on a long text", "$[?search(@, '(a?){400}b')]", `["` + strings.Repeat("a", 100_000) + `"]`},
		{"many patterns", "$[?search('a', @)]", "[" + many(20_000, `"(\\p{L}\\p{Lu}){200}%d"`) + "]"},
		{"many patterns that are none", "$[?search('a', @)]", "[" + many(20_000, `"(\\p{L}\\p{Lu}){200}%d("`) + "]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := parseJSON(t, tt.doc)
			if _, err := parsePath(t, tt.path).Select(d); !errors.Is(err, match.ErrBudget) {
				t.Errorf("select: got %v, want ErrBudget", err)
			}
		})
	}
	t.Run("filters and expectations are bounded too", func(t *testing.T) {
		d := parseJSON(t, deep)
		const path = "$..*..*..*..absent"
		x, err := match.NewExpectation(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Check(d); !errors.Is(err, match.ErrBudget) {
			t.Errorf("expectation: got %v, want ErrBudget", err)
		}
		f, err := match.ParseFilter(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Match(d); !errors.Is(err, match.ErrBudget) {
			t.Errorf("filter: got %v, want ErrBudget", err)
		}
	})
	t.Run("so is a filter on the body itself", func(t *testing.T) {
		f, err := match.ParseFilter("$[?count(@..*..*..*) < 0]")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Match(parseJSON(t, `{"a":`+deep+`}`)); !errors.Is(err, match.ErrBudget) {
			t.Errorf("got %v, want ErrBudget", err)
		}
	})
	t.Run("a filter ends at the first match", func(t *testing.T) {
		f, err := match.ParseFilter("$..*..*..*..*")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.Match(parseJSON(t, deep)); !got || err != nil {
			t.Errorf("got %v, %v, want a match", got, err)
		}
	})
}

// TestBudgetIsEnough has documents of 1 MiB, the most that ingest takes by default, and queries that people write.
func TestBudgetIsEnough(t *testing.T) {
	items := `{"items":[` + many(14_000, `{"id":%d,"state":"ok","tags":["a","b"],"size":{"w":1,"h":2}}`) + `]}`
	tests := []struct{ name, path, doc string }{
		{"a filter on each item", `$.items[?@.state == "bad" || @.size.w > 7]`, items},
		{"a filter on all descendants", `$..[?@.state == "bad"]`, items},
		{"a member of all descendants", `$..absent`, items},
		{"a pattern on each item", `$.items[?search(@.state, "^(bad|worse)$")]`, items},
		{"a pattern on a long text", `$[?search(@.log, "panic|fatal")]`, `{"log":"` + strings.Repeat("all is well; ", 20_000) + `"}`},
		{"the last of many members", `$[?@.m49999 == 1]`, "{" + many(50_000, `"m%d":0`) + "}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nodes, err := parsePath(t, tt.path).Select(parseJSON(t, tt.doc))
			if len(nodes) != 0 || err != nil {
				t.Errorf("%d bytes: got %d nodes, %v, want none", len(tt.doc), len(nodes), err)
			}
		})
	}
}
