package egress

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/postern-relay/postern/store"
)

// shell runs a command in a real shell, where curl is a function that prints its arguments, and returns them. Parameters
// are set before.
func shell(t testing.TB, command string, parameters map[string]string) (args []string, failed bool) {
	t.Helper()
	script := "curl() { printf '%s\\0' \"$@\"; }\n" + command
	sh := exec.CommandContext(t.Context(), "sh", "-c", script)
	sh.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
	for name, value := range parameters {
		sh.Env = append(sh.Env, name+"="+value)
	}
	out, err := sh.Output()
	if err != nil {
		return nil, true
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), false
}

func TestCurl(t *testing.T) {
	for _, c := range []struct {
		name       string
		c          curl
		parameters map[string]string
		want       []string
	}{
		{
			"a body", curl{method: "POST", url: "https://h.example/a?b=c", body: []byte(`{"a":1}`), header: []store.Field{
				{Name: "Content-Length", Value: "7"}, {Name: "Content-Type", Value: "application/json"}, {Name: "Host", Value: "h.example"},
			}},
			nil,
			[]string{"--request", "POST", "https://h.example/a?b=c", "--header", "Content-Type: application/json", "--header", "Accept:", "--data-binary", `{"a":1}`},
		},
		{
			"an empty body and an empty header", curl{method: "PUT", url: "https://h/", header: []store.Field{{Name: "Accept", Value: "a/b"}, {Name: "X-Empty"}}},
			nil, []string{"--request", "PUT", "https://h/", "--header", "Accept: a/b", "--header", "X-Empty;", "--data-binary", ""},
		},
		{
			"secrets", curl{method: "GET", url: "https://h/" + hole + "/p?key=" + hole, header: []store.Field{
				{Name: "Authorization", Value: "Bearer " + hole}, {Name: "X-A.B", Value: "a" + hole + "b'" + hole + " \u00a0é\tc!"},
			}},
			map[string]string{"SECRET_URL": "1 $(x)", "SECRET_URL_2": "2", "SECRET_AUTHORIZATION": `3"'`, "SECRET_X_A_B": "4*", "SECRET_X_A_B_2": "~"},
			[]string{"--request", "GET", "https://h/1 $(x)/p?key=2", "--header", `Authorization: Bearer 3"'`, "--header", "X-A.B: a4*b'~ \u00a0é\tc!", "--header", "Accept:"},
		},
		{
			"a URL that curl would take for several, or make shorter", curl{method: "GET", url: "https://h/.a/{b,c}[1-2]"},
			nil, []string{"--request", "GET", "--globoff", "--path-as-is", "https://h/.a/{b,c}[1-2]", "--header", "Accept:"},
		},
		{
			"a body that would be a file's name", curl{method: "POST", url: "https://h/", body: []byte("@/etc/passwd")},
			nil, []string{"--request", "POST", "https://h/", "--header", "Accept:", "--data-raw", "@/etc/passwd"},
		},
		{
			"a body for the shell", curl{method: "POST", url: "https://h/'$(x)`x`", body: []byte("';x;'\\\n$(x) `x` \"$x\" \\' # %s\n")},
			nil, []string{"--request", "POST", "https://h/'$(x)`x`", "--header", "Accept:", "--data-binary", "';x;'\\\n$(x) `x` \"$x\" \\' # %s\n"},
		},
		{
			"a header that is hard to show", curl{method: "GET", url: "https://h/", header: []store.Field{{Name: "-X", Value: "%d\\n'\xff!\u202e\t\"$x`"}}},
			nil, []string{"--request", "GET", "https://h/", "--header", "-X: %d\\n'\xff!\u202e\t\"$x`", "--header", "Accept:"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, failed := shell(t, c.c.String(), c.parameters)
			if failed || !slices.Equal(got, c.want) {
				t.Errorf("got %q from\n%s\nwant %q", got, c.c.String(), c.want)
			}
		})
	}
	t.Run("a secret that is not set is refused", func(t *testing.T) {
		c := curl{method: "GET", url: "https://h/", header: []store.Field{{Name: "X-Key", Value: hole}}}
		if got, failed := shell(t, c.String(), nil); !failed {
			t.Errorf("got %q, want a refusal", got)
		}
	})
}

func TestCurlBodyFile(t *testing.T) {
	for name, c := range map[string]struct {
		body   string
		inline bool
	}{
		"the longest text":                  {strings.Repeat("b", maxInline), true},
		"a longer one":                      {strings.Repeat("b", maxInline+1), false},
		"lines":                             {"{\n  \"a\": \"é, 日本\"\n}\n", true},
		"a tab, which completes in a shell": {"{\t}", false},
		"an escape sequence":                {"\x1b[201~\nx", false},
		"a carriage return":                 {"a\r\nb", false},
		"no UTF-8":                          {"\xff", false},
		"a zero byte":                       {"a\x00", false},
		"a text that shows in another way":  {"a\u202eb", false},
		"an exclamation mark":               {"hi!", true},
		"one on a further line":             {"a\n!!", false},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := curl{method: "POST", url: "https://h/", body: []byte(c.body), file: "msg_1.body"}
			if got := c2.inline(); got != c.inline {
				t.Errorf("got inline %v, want %v", got, c.inline)
			}
			if text := c2.String(); strings.HasSuffix(text, " \\\n  --header 'Expect:' \\\n  --data-binary @msg_1.body") == c.inline {
				t.Errorf("got\n%s\nwant a file %v", text, !c.inline)
			}
		})
	}
}

func FuzzCurl(f *testing.F) {
	f.Add("'\\", "text", "';x #")
	f.Add("\x01%s%%", "a\x00b", "\"$(x)`")
	f.Add("\xff\xfe!", "@f\n!", "é日本")
	f.Fuzz(func(t *testing.T, value, body, url string) {
		if strings.ContainsAny(value, "\x00\n\r") || strings.ContainsAny(url, "\x00\n\r") || len(value)+len(body)+len(url) > 10_000 {
			return // no header and no URL has them
		}
		c := curl{method: "POST", url: url, body: []byte(body), file: "msg_1.body", header: []store.Field{{Name: "X", Value: value}}}
		got, failed := shell(t, c.String(), nil)
		if failed {
			t.Fatalf("the shell refused\n%s", c.String())
		}
		want := "X: " + value
		if value == "" {
			want = "X;"
		}
		if !slices.Contains(got, url) || !slices.Contains(got, want) || c.inline() && got[len(got)-1] != body {
			t.Fatalf("got %q from\n%s\nwant %q, %q, %q", got, c.String(), url, want, body)
		}
	})
}
