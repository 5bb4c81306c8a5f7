package ingest

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestCheckPath(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		ok       bool
	}{
		{"a segment", "/a", true},
		{"a slash alone", "/", true},
		{"two segments", "/a/b", true},
		{"a slash at the end", "/a/", true},
		{"an escaped slash", "/a%2Fb", true},
		{"an escaped percent sign", "/100%25", true},
		{"an escaped percent sign before letters", "/%25zz", true},
		{"three dots", "/...", true},
		{"a dot in a name", "/a.b/.hidden", true},
		{"an escaped space", "/a%20b", true},
		{"a parameter", "/a;v=1", true},
		{"twice escaped", "/%2541", true},
		{"two dots", "/../a", false},
		{"two dots at the end", "/a/..", false},
		{"a dot", "/./a", false},
		{"escaped dots", "/%2e%2E/a", false},
		{"one escaped dot of two", "/.%2e/a", false},
		{"dots escaped twice", "/%252e%252e/a", false},
		{"dots escaped three times", "/%25252e%25252e/a", false},
		{"escaped many times", "/%2525252525252e", false},
		{"dots before an escaped slash", "/..%2fa", false},
		{"dots behind an escaped slash", "/a%2f..", false},
		{"dots with a parameter", "/..;x=1/a", false},
		{"an empty segment", "/a//b", false},
		{"an empty segment first", "//evil.example", false},
		{"an empty escaped segment", "/a%2f/b", false},
		{"a backslash", `/a\b`, false},
		{"an escaped backslash", "/..%5ca", false},
		{"an escaped line break", "/a%0d%0aX:1", false},
		{"an escaped zero", "/a%00", false},
		{"an escaped DEL", "/a%7f", false},
		{"a bad escape", "/a%zz", false},
		{"half an escape", "/a%2", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := checkPath(tc.in); (err == nil) != tc.ok {
				t.Errorf("checkPath(%q): got %v, want ok = %t", tc.in, err, tc.ok)
			}
		})
	}
}

func TestCheckQuery(t *testing.T) {
	for in, ok := range map[string]bool{
		"a=b": true, "a[]=b&c": true, "x=%0a": true, "x=%25": true, "?": true, "a+b": true, `a"b`: true,
		"a#b": false, "a b": false, "a%": false, "a%2": false, "a%2g": false, "\x00": false, "ü": false, "a\x7f": false,
	} {
		if err := checkQuery(in); (err == nil) != ok {
			t.Errorf("checkQuery(%q): got %v, want ok = %t", in, err, ok)
		}
	}
}

func TestParseTargetKeepsWhatFollows(t *testing.T) {
	for in, want := range map[string]target{
		"/to/a":             {place: toPath, destination: "a"},
		"/to/a/":            {place: toPath, destination: "a", path: "/"},
		"/to/a/b/c?d=e&f":   {place: toPath, destination: "a", path: "/b/c?d=e&f"},
		"/to/a?x=%20":       {place: toPath, destination: "a", path: "?x=%20"},
		"/to/a%2Fb/%41?q":   {place: toPath, destination: "a/b", path: "/%41?q"},
		"/events/alert.new": {place: eventsPath, event: "alert.new"},
		"/batch":            {place: batchPath},
		"/cloudevents":      {place: cloudPath},
	} {
		u, err := url.ParseRequestURI(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseTarget(u); got != want || err != nil {
			t.Errorf("parseTarget(%q): got %+v and %v, want %+v", in, got, err, want)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{
		"/to/a", "/to/a/b", "/to/a%2Fb", "/to/", "/events/a.b", "/events/..", "/", "//to/a", "/to/%00", "/events/%61", "/batch",
		"/cloudevents", "/to/a/b?c=d", "/to/a?", "/to/a/%2e%2e", "/to/a/%252e/x", "/to/a#b", "/to/a/b?x#y", "/to/a/ü", "/to/a/..;/b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI(s)
		if err != nil {
			return
		}
		to, err := parseTarget(u)
		if err != nil {
			if to != (target{}) {
				t.Errorf("parseTarget(%q): got %+v beside an error", s, to)
			}
			return
		}
		if (to.place == toPath) != (to.destination != "") || (to.place == eventsPath) != (to.event != "") || to.path != "" && to.destination == "" {
			t.Errorf("parseTarget(%q): got %+v, want what belongs to its place", s, to)
		}
		if to.path == "" {
			return
		}
		// What is sent on stays below the receiver's path and on its host, whoever reads it.
		joined := "https://receiver.example/hook" + to.path
		r, err := http.NewRequest(http.MethodPost, joined, nil)
		if err != nil {
			t.Fatalf("parseTarget(%q): path %q makes no request: %v", s, to.path, err)
		}
		if r.URL.Host != "receiver.example" || r.URL.Fragment != "" || r.URL.RequestURI() != "/hook"+to.path {
			t.Errorf("parseTarget(%q): path %q becomes %q on %q", s, to.path, r.URL.RequestURI(), r.URL.Host)
		}
		if clean := path.Clean(r.URL.Path); clean != "/hook" && !strings.HasPrefix(clean, "/hook/") {
			t.Errorf("parseTarget(%q): path %q climbs to %q", s, to.path, clean)
		}
	})
}
