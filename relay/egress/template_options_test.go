package egress

import (
	"net/url"
	"strings"
	"testing"
)

func TestSample(t *testing.T) {
	for _, c := range []struct {
		name        string
		body, value string // of a header
		want        string // in the error; empty means allowed
	}{
		{"the example of the contract", `{"id": {{ json .ID }}, "event": {{ json .Event }}, "timestamp": {{ json .Timestamp }}, "data": {{ .Body }}}`, "", ""},
		{"data that nobody knows", `{"a": {{ json .Data.a.b }}, "n": {{ .Data.n }}, "t": "{{ .Data.text }}", {{ json .Data.key }}: 1}`, "", ""},
		{"functions of unknown data", `[{{ len .Data.a }}, {{ index .Data.l 0 }}, "{{ lower .Data.t }}", {{ unix .Data.at }}, {{ printf "%d" .Data.n }}, "{{ slice .Data.t 0 3 }}"]`, "", ""},
		{"a hash by unknown data", `"{{ hmac .Data.algorithm "k" .Body }}"`, "", ""},
		{"a shape that the data decides", `{{ if .Data.a }}{"a":1}{{ end }}`, "", ""},
		{"members from the data", `{ {{ .Data.members }} }`, "", ""},
		{"loops over unknown data", `[{{ range $i, $x := .Data.list }}{{ if $i }},{{ end }}{{ json $x.name }}{{ end }}]`, "", ""},
		{"orders of unknown data", `{{ if gt .Data.n 5 }}1{{ else }}2{{ end }}`, "", ""},
		{"a header that may come", `"{{ .Header "X-Request-Id" }}"`, `{{ .Header "X-Request-Id" }}`, ""},
		{"a brace too few", `{"id": {{ json .ID }}`, "", "body: not JSON: it ends too early, at byte "},
		{"a brace too few beside data", `{"id": {{ json .Data.id }}`, "", "body: not JSON"},
		{"a text without quotes", `{"id": {{ .ID }}}`, "", "body: not JSON: at byte 7"},
		{"a JSON body in quotes", `{"data": "{{ .Body }}"}`, "", "body: not JSON: at byte"},
		{"a second value", `{} {}`, "", "body: not JSON: a second value"},
		{"nothing", `{{ if false }}{{ end }}`, "", "body: not JSON: it is empty"},
		{"a loop without end", `{{ range .Data.list }}{{ end }}{{ range 1000000000 }}{{ end }}`, "", "body: line 1, column "},
		{"a wrong algorithm", `"{{ hmac "md5" "k" .Body }}"`, "", "body: line 1, column 5: hmac knows"},
		{"a parse error", `{{ .ID `, "", "body: line 1: "},
		{"a fixed header value", "", `{{ .Event }}-{{ .Key }}`, ""},
		{"a header with a line break", "", "{{ .Event }}\n", "headers.X-Team: it makes a value with a line break"},
		{"a header that is too long", "", `{{ printf "%-99s" "a" }}` + strings.Repeat("x", 8<<10), "headers.X-Team: it makes a value of 8291 bytes"},
		{"a header with a parse error", "", "{{ .Evnt }}", "headers.X-Team: line 1, column 4: there is no such field; there are .Body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{
				URL: &url.URL{Scheme: "https", Host: "h"}, Body: c.body, ContentType: "application/json",
				ForwardHeader: []string{"X-Request-Id"},
			}
			if c.value != "" {
				o.Header = []Header{{Name: "X-Team", Value: c.value}}
			}
			_, err := New(o)
			if c.want == "" {
				if err != nil {
					t.Errorf("got %v, want no error", err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	t.Run("all faults are told at once", func(t *testing.T) {
		_, err := New(Options{
			URL: &url.URL{Scheme: "https", Host: "h"}, ContentType: "application/json", Body: `{`,
			Header: []Header{{Name: "X-A", Value: "{{ .ID }}\n"}, {Name: "X-B", Value: "{{ .ID }}\r"}},
		})
		for _, want := range []string{"body: not JSON", "headers.X-A: it makes", "headers.X-B: it makes"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		}
	})
	t.Run("other types than JSON are not looked at", func(t *testing.T) {
		for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded"} {
			newSender(t, func(o *Options) { o.Body, o.ContentType = `id={{ .ID }}`, contentType })
		}
	})
	t.Run("without a content_type the app's counts, which nobody knows yet", func(t *testing.T) {
		s := newSender(t, func(o *Options) { o.Body = `id={{ .ID }}` })
		for contentType, want := range map[string]string{"application/json": "body: not JSON: ", "text/plain": "", "": ""} {
			j := newJob(t, "{}")
			j.m.ContentType = contentType
			_, err := s.render(j)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("a message of type %q: got %v, want %q", contentType, err, want)
			}
		}
	})
	t.Run("without a content_type a template is tried all the same", func(t *testing.T) {
		_, err := New(Options{URL: &url.URL{Scheme: "https", Host: "h"}, Body: `{{ hmac "md5" "k" .Body }}`})
		if err == nil || !strings.Contains(err.Error(), "body: line 1, column 4: hmac knows") {
			t.Errorf("got %v, want the fault of the function", err)
		}
	})
	t.Run("a GET has no body", func(t *testing.T) {
		_, err := New(Options{URL: &url.URL{Scheme: "https", Host: "h"}, Method: "GET", Body: "{{ .ID }}"})
		if err == nil || !strings.Contains(err.Error(), "body: a GET has no body") {
			t.Errorf("got %v, want an error at body", err)
		}
	})
}
