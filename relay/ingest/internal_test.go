package ingest

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

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

func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{"/to/a", "/to/a/b", "/to/a%2Fb", "/to/", "/events/a.b", "/events/..", "/", "//to/a", "/to/%00", "/events/%61"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI(s)
		if err != nil {
			return
		}
		to, err := parseTarget(u)
		if (err == nil) != ((to.destination == "") != (to.event == "")) {
			t.Errorf("parseTarget(%q): got %+v and %v, want one of the two or an error", s, to, err)
		}
	})
}

func TestAppendAnswerIsWhatEncodingJSONWrites(t *testing.T) {
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
		if got := string(appendAnswer(nil, m)); got != string(wanted)+"\n" {
			t.Errorf("got %s, want %s", got, wanted)
		}
	}
}
