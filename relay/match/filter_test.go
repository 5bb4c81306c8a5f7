package match_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/match"
)

func TestFilter(t *testing.T) {
	tests := []struct {
		name, filter, body string
		want               bool
	}{
		{"an object is what the filter is about", `$[?@.severity == "high"]`, `{"severity":"high","id":1}`, true},
		{"an object that differs does not match", `$[?@.severity == "high"]`, `{"severity":"low","id":1}`, false},
		{"an object without the member does not match", `$[?@.severity == "high"]`, `{"id":1}`, false},
		{"!= is about the object, not about its children", `$[?@.severity != "low"]`, `{"severity":"low","id":1,"tags":{}}`, false},
		{"!= holds of what differs", `$[?@.severity != "low"]`, `{"severity":"high","id":1}`, true},
		{"!= holds of an object without the member", `$[?@.severity != "low"]`, `{"id":1}`, true},
		{"! is about the object", `$[?!@.deleted]`, `{"deleted":true,"id":1}`, false},
		{"an empty object is an object", `$[?!@.deleted]`, `{}`, true},
		{"a nested member is reached", `$[?@.alert.labels['env'] == 'prod']`, `{"alert":{"labels":{"env":"prod"}}}`, true},
		{"children of an object are no bodies", `$[?@.severity == "high"]`, `{"alert":{"severity":"high"}}`, false},
		{"children are asked for by a filter within", `$[?@[?@.severity == "high"]]`, `{"alert":{"severity":"high"}}`, true},
		{"$ is the body", `$[?@.a == $.b]`, `{"a":1,"b":1}`, true},
		{"what follows the filter must be there too", `$[?@.a == 1].b`, `{"a":1}`, false},
		{"what follows the filter is looked for in the object", `$[?@.a == 1].b`, `{"a":1,"b":null}`, true},
		{"one of two filters is enough", `$[?@.a == 1, ?@.a == 2]`, `{"a":2}`, true},
		{"one of two filters must hold", `$[?@.a == 1, ?@.a == 2]`, `{"a":3}`, false},
		{"elements of an array are what the filter is about", `$[?@.severity == "high"]`, `[{"severity":"low"},{"severity":"high"}]`, true},
		{"an array without such an element does not match", `$[?@.severity == "high"]`, `[{"severity":"low"}]`, false},
		{"an empty array does not match", `$[?!@.deleted]`, `[]`, false},
		{"a string has nothing to filter", `$[?@ == "a"]`, `"a"`, false},
		{"a path that begins with a name is by the standard", `$.alerts[?@.severity == "high"]`, `{"alerts":[{"severity":"high"}]}`, true},
		{"existence is enough", `$.alert`, `{"alert":null}`, true},
		{"absence does not match", `$.alert`, `{"alarm":1}`, false},
		{"descendants are by the standard", `$..[?@.severity == "high"]`, `{"severity":"high"}`, false},
		{"descendants are found", `$..[?@.severity == "high"]`, `{"a":{"severity":"high"}}`, true},
		{"a filter beside another selector is by the standard", `$['x', ?@.a]`, `{"a":1}`, false},
		{"the root always matches", `$`, `null`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := match.ParseFilter(tt.filter)
			if err != nil {
				t.Fatalf("ParseFilter(%q): %v", tt.filter, err)
			}
			got, err := f.Match(parseJSON(t, tt.body))
			if got != tt.want || err != nil {
				t.Errorf("%s on %s: got %v, %v, want %v", tt.filter, tt.body, got, err, tt.want)
			}
			if got := f.String(); got != tt.filter {
				t.Errorf("String: got %q, want %q", got, tt.filter)
			}
			if got, err := f.Match(match.Doc{}); got || err != nil {
				t.Errorf("the zero document: got %v, %v, want no match", got, err)
			}
		})
	}
	t.Run("a filter without $ is refused with the right one", func(t *testing.T) {
		for _, text := range []string{`@.a == 1`, `?@.a == 1`} {
			f, err := match.ParseFilter(text)
			if f != nil || err == nil || !strings.Contains(err.Error(), `write $[?@.a == 1]`) {
				t.Errorf("%s: got %v, want an error that says how to write it", text, err)
			}
		}
		if _, err := match.ParseFilter(`$[?@.a = 1]`); err == nil || !strings.Contains(err.Error(), "column 8: '=' is not allowed here; write ==") {
			t.Errorf("got %v, want the error of ParsePath", err)
		}
	})
}

func TestExpectation(t *testing.T) {
	long := strings.Repeat("é", 200)
	tests := []struct {
		name, path string
		values     []any
		doc, want  string
	}{
		{"the value is there", "$.data.status", []any{"ok"}, `{"data":{"status":"ok"}}`, ""},
		{"one of the values is there", "$.data.status", []any{"ok", "queued"}, `{"data":{"status":"queued"}}`, ""},
		{"another value is there", "$.data.status", []any{"ok", "queued"}, `{"data":{"status":"error"}}`,
			`$['data']['status']: got "error", want "ok" or "queued"`},
		{"nothing is there", "$.data.status", []any{"ok", true, 3.5}, `{"data":{}}`, `$.data.status: selects nothing, want "ok", true or 3.5`},
		{"existence is enough", "$.data", nil, `{"data":null}`, ""},
		{"existence is wanted", "$.data", []any{}, `{}`, `$.data: selects nothing, want any value`},
		{"all nodes have one of the values", "$.items[*].state", []any{"ok", "queued"}, `{"items":[{"state":"ok"},{"state":"queued"}]}`, ""},
		{"one node has another", "$.items[*].state", []any{"ok"}, `{"items":[{"state":"ok"},{"state":"bad"}]}`,
			`$['items'][1]['state']: got "bad", want "ok"`},
		{"no items are no success", "$.items[*].state", []any{"ok"}, `{"items":[]}`, `$.items[*].state: selects nothing, want "ok"`},
		{"null is a value", "$.error", []any{nil}, `{"error":null}`, ""},
		{"null is not absence", "$.error", []any{nil}, `{}`, `$.error: selects nothing, want null`},
		{"booleans are values", "$.ok", []any{true}, `{"ok":"true"}`, `$['ok']: got "true", want true`},
		{"an int equals a number written otherwise", "$.code", []any{200}, `{"code":2e2}`, ""},
		{"a large int64 is exact", "$.id", []any{int64(math.MaxInt64)}, `{"id":9223372036854775806}`,
			`$['id']: got 9223372036854775806, want 9223372036854775807`},
		{"a large uint64 is exact", "$.id", []any{uint64(math.MaxUint64)}, `{"id":18446744073709551615}`, ""},
		{"a json.Number is exact", "$.id", []any{json.Number("123456789012345678901234567890")}, `{"id":123456789012345678901234567890}`, ""},
		{"a float64 is a number", "$.rate", []any{0.1}, `{"rate":1e-1}`, ""},
		{"a string is no number", "$.code", []any{"200"}, `{"code":200}`, `$['code']: got 200, want "200"`},
		{"lists are values", "$.a", []any{[]any{1, "b", nil}}, `{"a":[1,"b",null]}`, ""},
		{"maps are values", "$.a", []any{map[string]any{"x": 1, "y": []any{}}}, `{"a":{"y":[],"x":1}}`, ""},
		{"what was found is compacted", "$.a", []any{map[string]any{"x": 1}}, `{"a":{ "x" : [ 2 ] }}`, `$['a']: got {"x":[2]}, want {"x":1}`},
		{"characters special to HTML are plain", "$.a", []any{"<&>"}, `{"a":"<&>"}`, ""},
		{"what was found is clipped", "$.a", []any{"ok"}, `{"a":"` + long + `"}`, `$['a']: got "` + strings.Repeat("é", 49) + `…, want "ok"`},
		{"what was wanted is clipped", "$.a", []any{long}, `{"a":1}`, `$['a']: got 1, want "` + strings.Repeat("é", 49) + `…`},
		{"many wanted values are counted", "$.a", []any{1, 2, 3, 4, 5, 6, 7}, `{"a":8}`, `$['a']: got 8, want 1, 2, 3, 4, 5 or one of 2 more`},
		{"a function may be part of the path", "$[?count(@.*) == 2]", nil, `{"a":[1,2]}`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, err := match.NewExpectation(tt.path, tt.values)
			if err != nil {
				t.Fatalf("NewExpectation(%q): %v", tt.path, err)
			}
			got := ""
			if err := x.Check(parseJSON(t, tt.doc)); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%s on %s:\n got %s\nwant %s", tt.path, tt.doc, got, tt.want)
			}
			if got := x.String(); got != tt.path {
				t.Errorf("String: got %q, want %q", got, tt.path)
			}
			if err := x.Check(match.Doc{}); err == nil || !strings.Contains(err.Error(), "the document is empty, want ") {
				t.Errorf("the zero document: got %v, want an error", err)
			}
		})
	}
	refused := []struct {
		name, path string
		values     []any
		want       string
	}{
		{"a bad path", "data.status", nil, "does not begin with $"},
		{"a function", "$.a", []any{1, func() {}}, "value 2 is not one that JSON can hold"},
		{"a list nested too deep", "$.a", []any{nest(513)}, "value 1: arrays and objects are nested more than 512 deep"},
		{"NaN", "$.a", []any{math.NaN()}, "value 1 is not one that JSON can hold"},
		{"a map with other keys than strings", "$.a", []any{map[any]any{1: 2}}, "value 1 is not one that JSON can hold"},
	}
	for _, tt := range refused {
		t.Run(tt.name+" is refused", func(t *testing.T) {
			x, err := match.NewExpectation(tt.path, tt.values)
			if x != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// nest returns a list within a list within a list, n deep.
func nest(n int) any {
	v := []any{}
	for range n - 1 {
		v = []any{v}
	}
	return v
}
