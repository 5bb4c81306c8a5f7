package ingest

import (
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"testing"
)

// TestCheckPath reads the table that the test of package egress reads too.
func TestCheckPath(t *testing.T) {
	table, err := os.ReadFile("../egress/testdata/paths.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(table)) {
		want, path, found := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !found || want == "#" {
			continue
		}
		seen[want]++
		if err := checkPath(path); (err == nil) != (want == "ok") {
			t.Errorf("checkPath(%s): got %v, want %s", path, err, want)
		}
		u, err := url.ParseRequestURI("/to/a" + path)
		if err != nil {
			continue // net/http has refused it already
		}
		if to, err := parseTarget(u); (err == nil) != (want == "ok") || err == nil && to.path != path {
			t.Errorf("parseTarget of %s: got %+v and %v, want %s", path, to, err, want)
		}
	}
	if seen["ok"] < 20 || seen["no"] < 70 || len(seen) != 2 {
		t.Errorf("got a table of %v lines", seen)
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
		"/to/a/%c0%ae%c0%ae/b",
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
