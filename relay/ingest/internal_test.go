package ingest

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func TestParseKey(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"a bare key", "8e03978e-40d5", "8e03978e-40d5"},
		{"a quoted key", `"8e03978e-40d5"`, "8e03978e-40d5"},
		{"an escaped quote", `"a\"b"`, `a"b`},
		{"an escaped backslash", `"a\\b"`, `a\b`},
		{"a quote inside a bare key", `a"b`, `a"b`},
		{"a backslash inside a bare key", `a\b`, `a\b`},
		{"a space inside", "a b", "a b"},
		{"255 bytes", strings.Repeat("k", 255), strings.Repeat("k", 255)},
		{"255 bytes in quotes", `"` + strings.Repeat("k", 255) + `"`, strings.Repeat("k", 255)},
		{"nothing", "", ""},
		{"nothing in quotes", `""`, ""},
		{"a lone quote", `"`, ""},
		{"no closing quote", `"abc`, ""},
		{"an escaped closing quote", `"abc\"`, ""},
		{"a backslash at the end", `"abc\`, ""},
		{"another escape", `"a\n"`, ""},
		{"a parameter", `"abc";x=1`, ""},
		{"two strings", `"a", "b"`, ""},
		{"256 bytes", strings.Repeat("k", 256), ""},
		{"256 bytes in quotes", `"` + strings.Repeat("k", 256) + `"`, ""},
		{"a tab", "a\tb", ""},
		{"a DEL", "a\x7fb", ""},
		{"an umlaut", "ä", ""},
		{"an umlaut in quotes", `"ä"`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseKey(tc.in)
			if got != tc.want || (err != nil) != (tc.want == "") {
				t.Errorf("got %q and %v, want %q", got, err, tc.want)
			}
		})
	}
}

func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{"k", `"k"`, `"a\"b"`, `"a\\"`, `"`, "", `"a\`, `"a"b`, "a\x00", strings.Repeat("k", 256)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := parseKey(s)
		if err != nil {
			if key != "" {
				t.Errorf("parseKey(%q): got key %q beside an error", s, key)
			}
			return
		}
		if len(key) == 0 || len(key) > maxKey {
			t.Errorf("parseKey(%q): got a key of %d bytes", s, len(key))
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, err := parseKey(quoted); err != nil || again != key {
			t.Errorf("parseKey(%q): got %q and %v, want %q as for %q", quoted, again, err, key, s)
		}
	})
}

func TestAppendMessageIsWhatEncodingJSONWrites(t *testing.T) {
	type delivery struct {
		ID          string `json:"id"`
		Destination string `json:"destination"`
		State       string `json:"state"`
	}
	type whole struct {
		ID         string     `json:"id"`
		Deliveries []delivery `json:"deliveries"`
	}
	for _, names := range [][]string{{}, {"alerts"}, {"alerts", "a b", `quo"te`, `back\slash`, "ü", "<&>", "tab\t", "\xff", "del\x7f"}} {
		id, err := store.NewMessageID()
		if err != nil {
			t.Fatal(err)
		}
		m := store.Message{ID: id}
		want := whole{ID: id.String(), Deliveries: []delivery{}}
		for n, name := range names {
			m.Recipients = append(m.Recipients, store.Recipient{Destination: name})
			want.Deliveries = append(want.Deliveries, delivery{id.Delivery(n).String(), name, store.Pending.String()})
		}
		wanted, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(appendMessage(nil, m)); got != string(wanted) {
			t.Errorf("got %s, want %s", got, wanted)
		}
	}
}

func TestParseWait(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []string
		want time.Duration
	}{
		{"no header", nil, 0},
		{"a wish", []string{"wait=10"}, 10 * time.Second},
		{"in quotes", []string{`wait="10"`}, 10 * time.Second},
		{"with spaces and capitals", []string{" Wait = 10 "}, 10 * time.Second},
		{"with a parameter", []string{"wait=10; x=y"}, 10 * time.Second},
		{"among others", []string{`return=minimal, foo="a,wait=3,b"; p="x;y", wait=7`}, 7 * time.Second},
		{"in a second header", []string{"respond-async", "wait=7"}, 7 * time.Second},
		{"the first of two", []string{"wait=7, wait=8"}, 7 * time.Second},
		{"the longest", []string{"wait=60"}, time.Minute},
		{"longer", []string{"wait=61"}, time.Minute},
		{"much longer", []string{"wait=" + strings.Repeat("9", 40)}, time.Minute},
		{"no time", []string{"wait=0"}, 0},
		{"no number", []string{"wait=x"}, 0},
		{"negative", []string{"wait=-1"}, 0},
		{"nothing", []string{"wait=", "wait"}, 0},
		{"another preference", []string{"waiting=10"}, 0},
		{"a quote that does not end", []string{`foo="a, wait=10`}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := parseWait(tc.in); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func FuzzParseWait(f *testing.F) {
	for _, seed := range []string{"wait=10", `a="b\",wait=1", wait=2`, "wait=99999999999999999999", ",;=", `"`, `\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := parseWait([]string{s}); got < 0 || got > maxWait || got%time.Second != 0 {
			t.Errorf("parseWait(%q): got %v, want whole seconds up to %v", s, got, maxWait)
		}
	})
}
