package match_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/postern-relay/postern/relay/match"
)

func TestParseJSON(t *testing.T) {
	nested := func(open, inner, shut string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(shut, n)
	}
	var wide []string
	for i := range 40 {
		wide = append(wide, fmt.Sprintf(`"m%d":0`, i))
	}
	members := func(more string) string { return "{" + strings.Join(wide, ",") + "," + more + "}" }
	tests := []struct{ name, doc, want string }{
		{"an object is a document", `{"a": [1, "b", null, true, false, {}]}`, ""},
		{"a string is a document", `"a"`, ""},
		{"white space around it is none of it", " \t\r\n1 \t\r\n", ""},
		{"512 arrays are taken", nested("[", "", "]", 512), ""},
		{"512 objects are taken", nested(`{"a":`, "1", "}", 512), ""},
		{"the same name in two objects is taken", `[{"a":{"a":1},"b":{"a":1}},{"a":1}]`, ""},
		{"many names are taken", members(`"m40":0`), ""},
		{"escaped pairs are taken", `"\uD834\udd1e\b\f\n\r\t\/\\\""`, ""},
		{"a replacement character is taken", "\"\ufffd\"", ""},

		{"nothing is refused", "", "the document is empty"},
		{"white space alone is refused", " \n", "the document is empty"},
		{"513 arrays are refused", nested("[", "", "]", 513), "nested more than 512 deep, at byte 512"},
		{"T23: 100000 arrays are refused", nested("[", "", "]", 100_000), "nested more than 512 deep, at byte 512"},
		{"T23: 100000 objects are refused", nested(`{"a":`, "1", "}", 100_000), "nested more than 512 deep, at byte 2560"},
		{"T23: 100000 arrays without an end are refused", strings.Repeat("[", 100_000), "nested more than 512 deep"},
		{"T23: a name twice is refused", `{"a":1,"b":2,"a":3}`, "the same name twice, at byte 13"},
		{"T23: a name twice in other spellings is refused", `{"a":1,"\u0061":2}`, "the same name twice, at byte 7"},
		{"T23: a name twice in a wide object is refused", members(`"m3":0`), "the same name twice, at byte 311"},
		{"T23: a late name twice in a wide object is refused", members(`"m39":0`), "the same name twice"},
		{"T23: a name twice within another object is refused", `{"a":{"b":{},"b":1}}`, "the same name twice, at byte 13"},
		{"T23: bad UTF-8 is refused", "{\"a\": \"\xff\"}", "not valid UTF-8, at byte 7"},
		{"T23: bad UTF-8 behind a replacement character is refused", "\"\ufffd\xc3\"", "not valid UTF-8, at byte 4"},
		{"T23: bad UTF-8 behind the value is refused", "1 \xff", "not valid UTF-8, at byte 2"},
		{"half of a pair is refused", `"a\uD834"`, "an escape sequence in a string is not one of JSON's, at byte 2"},
		{"a second half is refused", `"\uDD1E"`, "at byte 1"},
		{"a first half and four digits are refused", `"\uD834dd1e"`, "at byte 1"},
		{"a first half and another escape are refused", `"\uD834\n0000"`, "at byte 1"},
		{"a byte order mark is refused", "\ufeff1", `'\ufeff' stands where a value is wanted, at byte 0`},
		{"a second value is refused", "{} {}", "something follows the end of the value, at byte 3"},
		{"a comma behind the value is refused", "1,", "something follows the end of the value, at byte 1"},
		{"two lines of values are refused", "1\n2\n", "at byte 2"},
		{"a word is refused", "high", "'h' stands where a value is wanted, at byte 0"},
		{"True is refused", "[True]", "'T' stands where a value is wanted, at byte 1"},
		{"a word that is cut short is refused", "tru", "'t' stands where a value is wanted"},
		{"a word that is too long is refused", "nullx", "something follows the end"},
		{"NaN is refused", "NaN", "'N' stands where a value is wanted"},
		{"single quotes are refused", "{'a': 1}", `'\'' stands where a name in double quotes is wanted, at byte 1`},
		{"a name without quotes is refused", "{a: 1}", "'a' stands where a name in double quotes is wanted"},
		{"a comma at the end of an object is refused", `{"a":1,}`, "'}' stands where a name in double quotes is wanted, at byte 7"},
		{"a comma at the end of an array is refused", "[1,]", "']' stands where a value is wanted, at byte 3"},
		{"two commas are refused", "[1,,2]", "',' stands where a value is wanted, at byte 3"},
		{"a missing comma is refused", "[1 2]", "'2' stands where a comma or ] is wanted, at byte 3"},
		{"a missing comma of an object is refused", `{"a":1 "b":2}`, `'"' stands where a comma or } is wanted, at byte 7`},
		{"a missing colon is refused", `{"a" 1}`, "'1' stands where a colon is wanted, at byte 5"},
		{"a broken name is refused", `{"\x":1}`, "an escape sequence in a string is not one of JSON's, at byte 2"},
		{"a missing value is refused", `{"a":}`, "'}' stands where a value is wanted, at byte 5"},
		{"the wrong end is refused", `[1}`, "'}' stands where a comma or ] is wanted"},
		{"a comment is refused", "[1] // one", "something follows the end"},
		{"an object without an end is refused", `{"a":1`, "the document ends where a comma or } is wanted, after 6 bytes"},
		{"an array without an end is refused", `[`, "the document ends where a value is wanted, after 1 bytes"},
		{"a string without an end is refused", `"a`, "the document ends where the end of a string is wanted"},
		{"a string without an end behind an escape is refused", `"\na`, "the document ends where the end of a string is wanted"},
		{"a backslash at the end is refused", `"\`, "the document ends where an escape sequence is wanted"},
		{"an escape at the end is refused", `"\u00`, "an escape sequence in a string is not one of JSON's"},
		{"an unknown escape is refused", `"\a"`, "an escape sequence in a string is not one of JSON's, at byte 1"},
		{"an upper case U is refused", `"\U0041"`, "an escape sequence"},
		{"a sign in an escape is refused", `"\u+041"`, "an escape sequence"},
		{"a control character is refused", "\"a\nb\"", `'\n' stands where a character or escape sequence is wanted, at byte 2`},
		{"a control character behind an escape is refused", "\"\\n\x00\"", `'\x00' stands where`},
		{"a NUL is refused", "\x00", `'\x00' stands where a value is wanted`},
		{"leading zeros are refused", "01", "something follows the end"},
		{"a plus is refused", "+1", "'+' stands where a value is wanted"},
		{"a sign alone is refused", "-", "the document ends where a digit is wanted"},
		{"a dot at the end is refused", "1.", "the document ends where a digit is wanted"},
		{"a dot at the start is refused", ".1", "'.' stands where a value is wanted"},
		{"an exponent without digits is refused", "1e+", "the document ends where a digit is wanted"},
		{"a hexadecimal number is refused", "0x1", "something follows the end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := match.ParseJSON([]byte(tt.doc))
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if check := match.CheckJSON([]byte(tt.doc)); fmt.Sprint(check) != fmt.Sprint(err) {
				t.Errorf("CheckJSON: got %v, want %v", check, err)
			}
		})
	}
	t.Run("the caller may change the bytes afterwards", func(t *testing.T) {
		b := []byte(`{"a":"b"}`)
		d, err := match.ParseJSON(b)
		if err != nil {
			t.Fatal(err)
		}
		copy(b, bytes.Repeat([]byte{'x'}, len(b)))
		checkSelect(t, "$.a", d, []string{`"b"`}, nil)
	})
	t.Run("an error quotes no more than a character", func(t *testing.T) {
		secret := strings.Repeat("secret", 100)
		for _, doc := range []string{`{"` + secret + `":1,"` + secret + `":2}`, `{"a":` + secret, `"` + secret, `"` + secret + `\x"`, `1 ` + secret} {
			if _, err := match.ParseJSON([]byte(doc)); err == nil || strings.Contains(err.Error(), "sec") {
				t.Errorf("%.20q: got %v, want an error without the document", doc, err)
			}
		}
	})
}

// strictly reads a document by the decoder of the next encoding/json, which refuses duplicate names and bad UTF-8.
func strictly(b []byte) (valid bool, depth int) {
	d := jsontext.NewDecoder(bytes.NewReader(b))
	values := 0
	for {
		_, err := d.ReadToken()
		switch {
		case errors.Is(err, io.EOF):
			return values == 1, depth
		case err != nil:
			return false, depth
		}
		depth = max(depth, d.StackDepth())
		if d.StackDepth() == 0 {
			values++
		}
	}
}

func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{
		bookstore, `{"a":[1,-0.5e+3,"\u00e9\uD834\uDD1E",null,true,false,{}]}`, `{"a":1,"a":2}`, `"\ud800"`, "\"\xff\"",
		"[1,]", "1 2", "", " ", "[[[[[[[[]]]]]]]]", `{"a":{"b":1},"b":[{"a":""}]}`, `-0`, `1e400`, "\ufeff{}", `"\u12"`, `{"":{"":1}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := match.ParseJSON(b)
		if check := match.CheckJSON(b); fmt.Sprint(check) != fmt.Sprint(err) {
			t.Errorf("CheckJSON: got %v, want %v as ParseJSON", check, err)
		}
		valid, depth := strictly(b)
		if got, want := err == nil, valid && depth <= match.MaxDepth; got != want {
			t.Fatalf("%q is valid: got %v (%v), want %v", b, got, err, want)
		}
		if err != nil {
			if len(err.Error()) > 200 {
				t.Errorf("the error has %d bytes: %v", len(err.Error()), err)
			}
			return
		}
		if !json.Valid(b) {
			t.Errorf("%q is no JSON to encoding/json", b)
		}
		// Every value and its place must be what encoding/json sees there.
		nodes, err := parsePath(t, "$..*").Select(d)
		if errors.Is(err, match.ErrBudget) {
			return
		}
		for _, n := range nodes {
			if start, end := n.Span(); !bytes.Equal(b[start:end], n.JSON()) || !json.Valid(n.JSON()) {
				t.Errorf("the value at %d to %d is %q", start, end, n.JSON())
			}
		}
		var v any
		if err := json.Unmarshal(b, &v); err == nil && countValues(v) != len(nodes)+1 {
			t.Errorf("%q: got %d values, want %d", b, len(nodes)+1, countValues(v))
		}
	})
}

func countValues(v any) int {
	count := 1
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			count += countValues(e)
		}
	case map[string]any:
		for _, e := range v {
			count += countValues(e)
		}
	}
	return count
}
