package match

import (
	"bytes"
	"strings"
	"testing"
)

func paths(tb testing.TB, texts ...string) []*Path {
	tb.Helper()
	var all []*Path
	for _, text := range texts {
		p, err := ParsePath(text)
		if err != nil {
			tb.Fatalf("ParsePath(%q): %v", text, err)
		}
		all = append(all, p)
	}
	return all
}

func TestRedactJSON(t *testing.T) {
	// An array of this size and a path that looks at each pair of it take more steps than there are.
	tooLarge := "[" + strings.Repeat("1,", 3000) + `{"number":"4111"}]`
	for _, c := range []struct {
		name  string
		body  string
		paths []string
		want  string
		json  bool
	}{
		{"a value is replaced and all else stays as written", ` {"card": {"number" : 4111, "name":"n"}, "a":1.0e2 } `, []string{"$.card.number"},
			` {"card": {"number" : "***", "name":"n"}, "a":1.0e2 } `, true},
		{"each value that is selected is replaced", `[{"n":1},{"n":"2"},{"n":null},{"m":3}]`, []string{"$[*].n"}, `[{"n":"***"},{"n":"***"},{"n":"***"},{"m":3}]`, true},
		{"an object goes as a whole", `{"card":{"number":"4111","list":[1,2]},"b":2}`, []string{"$.card"}, `{"card":"***","b":2}`, true},
		{"a value within one that is gone is gone with it", `{"card":{"number":"4111"},"b":2}`, []string{"$.card.number", "$.card"}, `{"card":"***","b":2}`, true},
		{"a value may be selected twice", `{"a":[1,2,3]}`, []string{"$.a[1]", "$..[1]", "$.a[-2]"}, `{"a":[1,"***",3]}`, true},
		{"nested members of one name", `{"n":{"n":1},"o":{"n":[{"n":2}]}}`, []string{"$..n"}, `{"n":"***","o":{"n":"***"}}`, true},
		{"the root", `{"a":1}`, []string{"$"}, `"***"`, true},
		{"a filter", `[{"k":"pin","v":1},{"k":"id","v":2}]`, []string{`$[?@.k=="pin"].v`}, `[{"k":"pin","v":"***"},{"k":"id","v":2}]`, true},
		{"a name that is written with escapes", `{"c\u0061rd":1}`, []string{"$.card"}, `{"c\u0061rd":"***"}`, true},
		{"nothing is selected", `{"a":1}`, []string{"$.b"}, `{"a":1}`, true},
		{"no paths", `{"a":`, nil, `{"a":`, true},
		{"a text is no JSON", "card=4111", []string{"$.card"}, "card=4111", false},
		{"nothing is no JSON", "", []string{"$.card"}, "", false},
		{"a number is JSON", "4111", []string{"$.card"}, "4111", true},
		{"a document that was cut off is lost", `{"card":"4111","b`, []string{"$.card"}, `"***"`, true},
		{"several documents are lost", "{\"card\":\"4111\"}\n{}", []string{"$.card"}, `"***"`, true},
		{"a name twice, of which readers see one, is lost", `{"a":1,"card":"4111","a":2}`, []string{"$.card"}, `"***"`, true},
		{"a byte order mark hides nothing", "\xef\xbb\xbf{\"card\":\"4111\"}", []string{"$.card"}, `"***"`, true},
		{"UTF-16 hides nothing", "\xfe\xff\x00{\x00\"", []string{"$.card"}, `"***"`, true},
		{"an array that was cut off is lost", " \r\n\t[4111", []string{"$.card"}, `"***"`, true},
		{"a path that takes too many steps loses the document", tooLarge, []string{"$[?count($[*]) > 1]"}, `"***"`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := []byte(c.body)
			got, ok := RedactJSON(body, paths(t, c.paths...))
			if string(got) != c.want || ok != c.json {
				t.Errorf("got %.200q, %v, want %q, %v", got, ok, c.want, c.json)
			}
			if string(body) != c.body {
				t.Error("the body was changed in place")
			}
		})
	}
}

func FuzzRedactJSON(f *testing.F) {
	f.Add([]byte(`{"card":{"number":"4111"},"list":[{"number":1}]}`))
	f.Add([]byte(`[1,[{"number":{"number":2}}]]`))
	f.Add([]byte("\xef\xbb\xbf{"))
	f.Add([]byte(`"4111"`))
	f.Add([]byte("number=4111"))
	number := paths(f, "$..number", "$..[?@.number].number")
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		got, ok := RedactJSON(body, number)
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed in place")
		}
		if !ok {
			if !bytes.Equal(got, body) || CheckJSON(body) == nil {
				t.Fatalf("got %q and no JSON of %q", got, body)
			}
			return
		}
		doc, err := ParseJSON(got)
		if err != nil {
			t.Fatalf("%q became %q, which is no JSON: %v", body, got, err)
		}
		for _, p := range number {
			left, err := p.Select(doc)
			if err != nil {
				return // too large to look at
			}
			for _, n := range left {
				if string(n.JSON()) != redacted {
					t.Fatalf("%q became %q, which still holds %s", body, got, n.JSON())
				}
			}
		}
		again, ok := RedactJSON(got, number)
		if !ok || !bytes.Equal(again, got) {
			t.Fatalf("%q became %q and then %q", body, got, again)
		}
	})
}

func BenchmarkRedactJSON(b *testing.B) {
	body := []byte(`{"items":[` + strings.Repeat(`{"id":12345,"card":{"number":"4111111111111111","name":"A. Person"},"total":"12.50"},`, 160) + `{}]}`)
	number := paths(b, "$.items[*].card.number")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := RedactJSON(body, number); !ok {
			b.Fatal("no JSON")
		}
	}
}
