package egress

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

var at = time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)

// newJob is a message with that body on its second attempt.
func newJob(t testing.TB, body string) job {
	t.Helper()
	id, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	m := store.Message{
		ID: id, Event: "alert.fired", ContentType: "application/json", AcceptedAt: at, Key: "customer 7", Size: len(body),
		Header: []store.Field{{Name: "X-Request-Id", Value: "r-1"}, {Name: "X-Private", Value: "not for templates"}},
	}
	d := store.Delivery{ID: id.Delivery(0), Destination: "alerts", Event: m.Event}
	return job{d: d, m: m, body: []byte(body), now: at.Add(time.Minute)}
}

func newSender(t testing.TB, change func(*Options)) *Sender {
	t.Helper()
	o := Options{URL: &url.URL{Scheme: "https", Host: "hooks.example.com", Path: "/hook"}, ForwardHeader: []string{"X-Request-Id"}}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// renderText renders one template, without the rules for a body or a header.
func renderText(t testing.TB, text, body string) (string, error) {
	t.Helper()
	p, err := compile(text)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	out, err := p.render(newSender(t, nil).newView(newJob(t, body)))
	return string(out), err
}

func TestTemplate(t *testing.T) {
	const body = `{"user":{"name":"Ann \"A\"","age":0},"n":5,"f":1.50,"big":12345678901234567890,"list":[1,"b",null],"nil":null,"html":"<a&b>"}`
	for _, c := range []struct {
		name, text, want string
	}{
		{"plain text is itself", `{"a":1}`, `{"a":1}`},
		{"the body is inserted as it is", `{"data":{{ .Body }}}`, `{"data":` + body + `}`},
		{"the event", `{{ json .Event }}`, `"alert.fired"`},
		{"the destination", `{{ .Destination }}`, "alerts"},
		{"the time of acceptance", `{{ .Timestamp }}`, "2026-03-04T05:06:07Z"},
		{"the content type", `{{ .ContentType }}`, "application/json"},
		{"the ordering key", `{{ .Key }}`, "customer 7"},
		{"a header that is sent on", `{{ .Header "x-request-id" }}`, "r-1"},
		{"a header that is not", `{{ default "none" (.Header "X-Private") }}`, "none"},
		{"a text", `{{ .Data.user.name }}`, `Ann "A"`},
		{"a text as JSON", `{{ json .Data.user.name }}`, `"Ann \"A\""`},
		{"HTML is not escaped", `{{ json .Data.html }}{{ .Data.html }}`, `"<a&b>"<a&b>`},
		{"an object is written as JSON", `{{ .Data.user }}`, `{"age":0,"name":"Ann \"A\""}`},
		{"a list as JSON", `{{ .Data.list }}`, `[1,"b",null]`},
		{"numbers keep their text", `{{ .Data.n }} {{ .Data.f }} {{ json .Data.f }} {{ .Data.big }}`, "5 1.50 1.50 12345678901234567890"},
		{"null as JSON", `{{ json .Data.nil }}`, "null"},
		{"default for what is missing", `{{ default "x" .Data.a.b.c }}`, "x"},
		{"default for null and what is in it", `{{ default "x" .Data.nil }}{{ default "y" .Data.nil.a }}`, "xy"},
		{"default for the empty text", `{{ "" | default "x" }}`, "x"},
		{"no default for zero and false", `{{ default 1 .Data.user.age }}{{ default true false }}`, "0false"},
		{"default null", `{{ json (default nil .Data.a) }}`, "null"},
		{"zero is false", `{{ if .Data.user.age }}yes{{ else }}no{{ end }}`, "no"},
		{"what is missing is false", `{{ if .Data.a }}yes{{ else if .Data.nil }}null{{ else }}no{{ end }}`, "no"},
		{"with", `{{ with .Data.user }}{{ .name }}{{ end }}{{ with .Data.a }}x{{ end }}`, `Ann "A"`},
		{"range over a list", `{{ range $i, $x := .Data.list }}{{ if $i }},{{ end }}{{ json $x }}{{ end }}`, `1,"b",null`},
		{"range over an object by name", `{{ range $k, $v := .Data.user }}{{ $k }}={{ $v }};{{ end }}`, `age=0;name=Ann "A";`},
		{"range over what is missing", `[{{ range .Data.a }}x{{ else }}none{{ end }}{{ range .Data.nil }}x{{ end }}]`, "[none]"},
		{"range over a number", `{{ range .Data.n }}x{{ end }}{{ range 2 }}y{{ end }}`, "xxxxxyy"},
		{"break and continue", `{{ range $i, $x := .Data.list }}{{ if eq $i 0 }}{{ continue }}{{ end }}{{ $x }}{{ break }}{{ end }}`, "b"},
		{"variables", `{{ $x := .Data.n }}{{ $x = 6 }}{{ $x }}{{ $.Data.n }}`, "65"},
		{"a template within", `{{ define "p" }}<{{ . }}>{{ end }}{{ template "p" .Data.n }}{{ block "q" .Event }}{{ . }}{{ end }}`, "<5>alert.fired"},
		{"numbers compare by value", `{{ eq .Data.n 5 }} {{ eq .Data.n 5.0 }} {{ eq .Data.f 1.5 }} {{ lt .Data.n 6 }} {{ ge .Data.n 6 }} {{ gt .Data.big .Data.n }}`, "true true true true false true"},
		{"texts compare", `{{ eq .Event "a" "alert.fired" }} {{ ne .Event "a" }} {{ lt "a" "b" }} {{ le "b" "a" }}`, "true true true false"},
		{"kinds differ", `{{ eq .Data.n "5" }} {{ eq .Data.a "x" }} {{ eq .Data.a nil }} {{ eq .Data.nil nil }} {{ eq true 1 }}`, "false false true true false"},
		{"and, or, not", `{{ and .Data.n "x" }} {{ or .Data.a "y" }} {{ not .Data.a }}`, "x y true"},
		{"index", `{{ index .Data.list 1 }}{{ index .Data "user" "age" }}{{ default "x" (index .Data.list 9) }}`, "b0x"},
		{"an index beyond the end is missing", `{{ with index .Data.list 3 }}x{{ else }}none{{ end }}{{ eq (index .Data.list 3) nil }}{{ or (index .Data.list 3) "y" }}{{ range index .Data.list 3 }}z{{ end }}{{ json (default (index .Data.list 3) .Data.a) }}`, "nonetrueynull"},
		{"len", `{{ len .Data.list }} {{ len .Data.user }} {{ len "äb" }} {{ len .Data.nil }}`, "3 2 3 0"},
		{"slice", `{{ slice "abcdef" 1 3 }}{{ slice .Data.list 0 1 }}`, "bc[1]"},
		{"lower and upper", `{{ lower "ÄB" }}{{ "b" | upper }}`, "äbB"},
		{"base64", `{{ base64 "a?b>" }}`, "YT9iPg=="},
		// RFC 4231, test case 2, and RFC 2202, test case 2.
		{"hmac", `{{ hmac "sha256" "Jefe" "what do ya want for nothing?" }}`, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{"hmac by sha1", `{{ "what do ya want for nothing?" | hmac "sha1" "Jefe" }}`, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		{"now", `{{ now }} {{ now "2006-01-02" }} {{ unix now }}`, "2026-03-04T05:07:07Z 2026-03-04 1772600827"},
		{"unix", `{{ unix .Timestamp }}`, "1772600767"},
		{"urlquery", `a={{ urlquery "b c&d" }}`, "a=b+c%26d"},
		{"print", `{{ print "a" 1 2 "b" true }}`, "a1 2btrue"},
		{"printf", `{{ printf "%s|%5d|%.2f|%q|%x|%t|%%|%-4s|%v" "a" 7 .Data.n "b\"" "hi" true "c" .Data.list }}`, `a|    7|5.00|"b\""|6869|true|%|c   |[1,"b",null]`},
		{"comments and trimming", "a {{- /* c */ -}} b", "ab"},
		{"only definitions", `{{ define "a" }}x{{ end }}`, ""},
		{"braces as text", `{{ "{{" }}`, "{{"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := renderText(t, c.text, body)
			if err != nil || got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestTemplateFails(t *testing.T) {
	const body = `{"user":{"name":"Ann"},"n":5,"nil":null,"list":[1]}`
	for _, c := range []struct {
		name, text, body, want string
	}{
		{"a missing field is named", "{\n  \"x\": {{ .Data.user.nmae }}\n}", body, "line 2, column 11: .Data.user.nmae is missing or null; use default"},
		{"within a function", `{{ json .Data.user.nmae }}`, body, "line 1, column 4: .Data.user.nmae is missing"},
		{"before a function", `{{ .Data.user.nmae | upper | json }}`, body, ".Data.user.nmae is missing"},
		{"within brackets", `{{ json (lower .Data.user.nmae) }}`, body, ".Data.user.nmae is missing"},
		{"null is not written", `{{ .Data.nil }}`, body, ".Data.nil is missing or null"},
		{"a variable", `{{ $x := .Data.user }}{{ $x.nmae }}`, body, "$x.nmae is missing"},
		{"a field of the dot", `{{ range .Data.list }}{{ $.Data.a }}{{ end }}`, body, "$.Data.a is missing"},
		{"nil", `{{ default nil .Data.a }}`, body, ".Data.a is missing"},
		{"a field of a text", `{{ .Data.user.name.first }}`, body, "line 1, column 9: there is no such field in what stands before it"},
		{"an index beyond the end", `{{ index .Data.list 1 }}`, body, "line 1, column 4: .Data.list: the list has only 1 entry; use default if it may be that short"},
		{"an index beyond the end in a function", `{{ json (index .Data.list 7) }}`, body, ".Data.list: the list has only 1 entry;"},
		{"an index beyond the end of nothing", `{{ len (index .Data 0) }}`, `[]`, "the list has only 0 entries;"},
		{"an index into what is beyond the end", `{{ index .Data.list 5 "a" | print }}`, body, ".Data.list: the list has only 1 entry;"},
		{"an index beyond the end that is compared", `{{ lt (index .Data 2) 5 }}`, `[1,2]`, "the list has only 2 entries;"},
		{"what is missing behind one that has a default", `{{ default "" (index .Data.list 5) }}{{ .Data.a }}`, body, ".Data.a is missing or null"},
		{"an index that is negative", `{{ index .Data.list -1 }}`, body, ".Data.list is missing or null"},
		{"a field of what is beyond the end", `{{ (index .Data.list 5).a }}`, body, "line 1, column 22: there is no such field in what stands before it"},
		{"a header that did not come", `{{ .Header "X-None" }}`, body, ".Header is missing"},
		{"an ordering of nothing", `{{ if gt .Data.a 5 }}{{ end }}`, body, ".Data.a is missing"},
		{"the body is no JSON", `{{ .Data.a }}`, `no JSON`, ".Data needs a JSON body, and that of this message is none: "},
		{"the body has a name twice", `{{ .Data.a }}`, `{"a":1,"a":2}`, "same name twice"},
		{"a body of great depth", `{{ .Data.a }}`, strings.Repeat("[", 100_000), ".Data needs a JSON body"},
		{"the dot", `{{ . }}`, body, "the whole message"},
		{"an unknown algorithm", `{{ hmac "md5" "k" .Body }}`, body, "sha1, sha256 and sha512"},
		{"an empty key", `{{ hmac "sha256" "" .Body }}`, body, "the key of hmac is empty"},
		{"printf with too few values", `{{ printf "%s %s" "a" }}`, body, "more verbs than values"},
		{"printf with too many values", `{{ printf "%s" "a" "b" }}`, body, "more values than verbs"},
		{"printf of another kind", `{{ printf "%d" "a" }}`, body, "%d of printf needs a number"},
		{"printf of a fraction", `{{ printf "%d" 1.5 }}`, body, "a whole number"},
		{"printf with a star", `{{ printf "%*d" 5 5 }}`, body, "a verb that it does not know"},
		{"printf with a large width", `{{ printf "%100d" 5 }}`, body, "a verb that it does not know"},
		{"printf with an argument index", `{{ printf "%[1]s" "a" }}`, body, "a verb that it does not know"},
		{"printf with a lone percent sign", `{{ printf "100%" }}`, body, "a verb that it does not know"},
		{"an order of different kinds", `{{ lt 1 "a" }}`, body, "put in order"},
		{"objects are not compared", `{{ eq .Data.user .Data.user }}`, body, "cannot be compared"},
		{"a range over a text", `{{ range .Event }}{{ end }}`, body, "range needs a list"},
		{"unix of another text", `{{ unix "today" }}`, body, "RFC 3339"},
		{"index of a text", `{{ index .Event 0 }}`, body, "index needs a list or an object"},
		{"slice out of range", `{{ slice "abc" 5 }}`, body, "slice cannot take that part"},
		{"a complex number", `{{ 1i }}`, body, "cannot be written"},
		{"arguments for a field", `{{ .Data.n 5 }}`, body, "gets arguments"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := renderText(t, c.text, c.body)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, %v, want an error with %q", got, err, c.want)
			}
		})
	}
}

func TestTemplateRefused(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
	}{
		{"an action without end", `{{ .Event`, "line 1: an action is not closed"},
		{"an action without end in the third line", "\n\n{{ .Event", "line 3: an action is not closed"},
		{"a branch without end", "\n{{ if .Event }}", "line 2: an if, with, range, define or block has no {{ end }}"},
		{"an end without a branch", "{{ end }}", "line 1: there is an {{ end }} too many"},
		{"an else without a branch", "{{ else }}", "line 1: there is an {{ else }} in the wrong place"},
		{"two times else", "{{ if 1 }}{{ else }}{{ else }}{{ end }}", "line 1: there is an {{ else }} too many"},
		{"a comment without end", "{{/* .Event }}", "line 1: a comment is not closed"},
		{"a comment with something behind it", "{{/* .Event */ 1 }}", "line 1: a comment does not end in */}}"},
		{"a bracket without end", "{{ (.Event }}", "line 1: a bracket is not closed"},
		{"a bracket without beginning", "{{ .Event) }}", "line 1: there is a closing bracket too many"},
		{"quotes without end", `{{ "canary }}`, "line 1: a text in quotes is not closed on its line"},
		{"raw quotes without end", "{{ `canary }}", "line 1: a text in quotes is not closed"},
		{"a number with letters", "{{ 12canary }}", "line 1: a number cannot be read"},
		{"a number that is too large", "{{ 0x1canary }}", "line 1: a number cannot be read"},
		{"a name with another character", "{{ .Event#canary }}", "line 1: a name holds a character that is not allowed"},
		{"an action with another character", "{{ ☃ }}", "line 1: an action holds a character that is not allowed"},
		{"a break outside of a loop", "{{ break }}", "line 1: there is a {{ break }} outside of a range"},
		{"a continue outside of a loop", "{{ continue }}", "line 1: there is a {{ continue }} outside of a range"},
		{"a loop over values", "{{ range $x, .Event := .Data }}{{ end }}", "line 1: a range takes names of variables alone"},
		{"two variables at once", "{{ with $x, $y := .Data }}{{ end }}", "line 1: "},
		{"nothing", "{{ }}", "line 1: a value is missing"},
		{"nothing behind if", "{{ if }}{{ end }}", "line 1: a value is missing"},
		{"a text behind a pipe", `{{ .Event | "canary" }}`, "line 1: what stands behind a | is no function"},
		{"a field of a number", `{{ 5.canary.x }}`, "line 1: "},
		{"a field of a text", `{{ "canary".x }}`, "line 1: there is a full stop behind what has no fields"},
		{"a template twice", `{{ define "canary" }}a{{ end }}{{ define "canary" }}b{{ end }}`, "line 1: a template is defined twice"},
		{"words of JSON in braces", `{"a":{{"canary":1}}}`, "line 1: an action holds what cannot stand there; to write braces as text"},
		{"an unknown function", `{{ canary "HOME" }}`, "line 1: there is no such function; there are and, base64, default, eq"},
		{"a function of ours", `{{ _write "" 1 }}`, "there is no such function"},
		{"call", `{{ call .Event }}`, "the function call is not available"},
		{"html", `{{ html .Body }}`, "the function html is not available"},
		{"js", `{{ .Body | js }}`, "the function js is not available"},
		{"println", `{{ range .Data }}{{ json (println .) }}{{ end }}`, "the function println is not available"},
		{"an unknown field", "{{ json .Data.x }}\n{{ .Idd }}", "line 2, column 4: there is no such field; there are .Body, .ContentType, .Data, .DeliveryID, .Destination, .Event, .Header, .ID, .Key, .Timestamp"},
		{"an unknown field by $", `{{ range .Data }}{{ $.Boddy }}{{ end }}`, "line 1, column 22: there is no such field"},
		{"a field that is not exported", `{{ .raw }}`, "line 1, column 4: there is no such field"},
		{"too few arguments", `{{ json }}`, "json gets 0 arguments; write 1"},
		{"too many arguments", `{{ .Data.x | json .Event }}`, "json gets 2 arguments; write 1"},
		{"a function as an argument", `{{ json base64 }}`, "base64 gets 0 arguments"},
		{"too few for and", `{{ and }}`, "and gets 0 arguments; write at least 1"},
		{"an unknown template", `{{ template "canary" }}`, "there is no template of that name"},
		{"an unknown variable", `{{ $canary }}`, "line 1: a variable is not defined before it is used"},
		{"too long", strings.Repeat("x", maxTemplate+1), "at most 65536 are allowed"},
		{"branches of great depth", strings.Repeat("{{ if 1 }}", 101) + strings.Repeat("{{ end }}", 101), "nested more than 100 deep"},
		{"loops of great depth", strings.Repeat("{{ range 1 }}", 7) + strings.Repeat("{{ end }}", 7), "loops are nested more than 6 deep"},
		{"brackets of great depth", "{{ " + strings.Repeat("(", 20_000), "line 1: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := compile(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("got %v, which repeats the template", err)
			}
		})
	}
	t.Run("the longest is allowed", func(t *testing.T) {
		if _, err := compile(strings.Repeat("x", maxTemplate)); err != nil {
			t.Error(err)
		}
	})
}

// TestTemplateErrorsHoldNoSecret has faults of all kinds beside a secret in the template.
func TestTemplateErrorsHoldNoSecret(t *testing.T) {
	const secret = "canary5"
	for _, text := range []string{
		`{{ hmac "sha256" "canary5" .Data.a }}`, `{{ hmac "canary5" "k" .Body }}`, `{{ print "canary5" .Data.a }}`,
		`{{ lt "canary5" 1 }}`, `{{ lt 1 "canary5" }}`, `{{ printf "%d" "canary5" }}`, `{{ slice "canary5" 50 }}`,
		`{{ slice "abc" "canary5" }}`, `{{ index .Data "a" "canary5" }}`, `{{ range "canary5" }}{{ end }}`,
		`{{ range $i, $x := 5 }}canary5{{ end }}`, `{{ "canary5" | .Header | json }}`, `{{ .Data.user.name.x "canary5" }}`,
		`{{ unix "canary5" }}`, `{{ and "canary5" | printf "%x%x" }}`, `{{ (index .Data "canary5").x.y | json }}`,
		`{{ .Header 5 "canary5" }}`, `{{ .Header "canary5" }}`, `{{ len .Data.n "canary5" }}`,
		`{{canary5}}`, `{{.canary5}}`, `{{ $canary5 }}`, `a{{canary5 1`, `{{ "canary5" | "canary5" }}`, `{{ .Event.canary5 }}`, `{{ template "canary5" }}`,
		`{{"canary5":5}}`, `{{ 5canary5 }}`, `{{if canary5}}`, `{{ .Event canary5 }}`, "{{ `canary5", `{{ 'canary5' }}`, `{{ (5).canary5 }}`, `{{ nil.canary5 }}`,
	} {
		p, err := compile(text)
		if err == nil {
			_, err = p.render(newSender(t, nil).newView(newJob(t, `{"user":{"name":"x"},"n":1}`)))
		}
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v, want an error without the secret", text, err)
		}
	}
}

func TestTemplatesOfOneSenderRunSideBySide(t *testing.T) {
	s := newSender(t, func(o *Options) {
		o.Body = `{"id":{{ json .ID }},"n":{{ .Data.n }},"at":{{ json now }}}`
		o.Header = []Header{{Name: "X-N", Value: "{{ .Data.n }}"}}
	})
	done := make(chan error)
	for n := range 8 {
		go func() {
			for range 200 {
				j := newJob(t, fmt.Sprintf(`{"n":%d}`, n))
				req, err := s.render(j)
				if err != nil {
					done <- err
					return
				}
				var got bytes.Buffer
				if _, err := got.ReadFrom(req.Body); err != nil {
					done <- err
					return
				}
				want := fmt.Sprintf(`{"id":%q,"n":%d,"at":"2026-03-04T05:07:07Z"}`, j.m.ID, n)
				if got.String() != want || req.Header.Get("X-N") != fmt.Sprint(n) {
					done <- fmt.Errorf("got %q and %v, want %q", got.String(), req.Header, want)
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestIsJSON(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/json": true, "Application/JSON; charset=utf-8": true, "application/cloudevents+json": true,
		"text/json": true, "text/plain": false, "application/json-seq": false, "": false, "json": false,
		"application/x-ndjson": false,
	} {
		if got := isJSON(contentType); got != want {
			t.Errorf("%q: got %v, want %v", contentType, got, want)
		}
	}
}

func TestCheckJSON(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1,"a":2}`: "", "  null\n": "", `[]`: "", `"é"`: "", "1e400": "",
		"": "it is empty", "  ": "it is empty", `{"a"`: "ends too early", "[1,]": "at byte 2", "[1 2]": "at byte 3",
		"\xff": "at byte 0", "\"\xff\"": "at byte 1", "{} x": "at byte 3", "01": "a second value", "NaN": "at byte 0",
	} {
		err := checkJSON([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
