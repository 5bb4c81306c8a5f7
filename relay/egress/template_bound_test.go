package egress

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bombs are templates that would take for ever, or all memory (T10).
var bombs = map[string]string{
	"a long loop":              `{{ range 1000000000 }}{{ end }}`,
	"loops in loops":           `{{ range 100000 }}{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}{{ end }}`,
	"a loop with continue":     `{{ range 1000000000 }}{{ continue }}{{ end }}`,
	"a loop with a variable":   `{{ $x := 1000000000 }}{{ range $i := $x }}{{ $y := $i }}{{ end }}`,
	"recursion":                `{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}`,
	"recursion of two":         `{{ define "a" }}{{ template "b" . }}{{ end }}{{ define "b" }}{{ if . }}{{ template "a" . }}{{ end }}{{ end }}{{ template "a" 1 }}`,
	"a tree of templates":      `{{ define "a" }}{{ range 100 }}{{ template "b" }}{{ end }}{{ end }}{{ define "b" }}{{ range 100 }}{{ template "c" }}{{ end }}{{ end }}{{ define "c" }}{{ range 100000 }}{{ end }}{{ end }}{{ template "a" }}`,
	"a text that doubles":      `{{ $x := "0123456789" }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}`,
	"printf that doubles":      `{{ $x := "0123456789" }}{{ range 100 }}{{ $x = printf "%s%s" $x $x }}{{ end }}`,
	"quoting that doubles":     `{{ $x := "\"" }}{{ range 100 }}{{ $x = json $x }}{{ end }}`,
	"urlquery that triples":    `{{ $x := "&" }}{{ range 100 }}{{ $x = urlquery (print $x $x) }}{{ end }}`,
	"base64 that grows":        `{{ $x := "&" }}{{ range 100 }}{{ $x = base64 $x }}{{ end }}`,
	"much output":              `{{ range 1000000000 }}0123456789012345678901234567890123456789{{ end }}`,
	"the body again":           `{{ range 1000000000 }}{{ $.Body }}{{ end }}`,
	"the body in one text":     `{{ range 1000000000 }}{{ $x := print $.Body $.Body $.Body $.Body $.Body $.Body $.Body $.Body $.Body }}{{ end }}`,
	"many hashes":              `{{ range 1000000000 }}{{ $x := hmac "sha512" "k" $.Body }}{{ end }}`,
	"many comparisons":         `{{ range 1000000000 }}{{ if eq $.Body $.Body }}{{ end }}{{ end }}`,
	"many calls without loop":  strings.Repeat(`{{$x:=upper .Body}}`, 3000),
	"deep branches that recur": `{{ define "a" }}` + strings.Repeat("{{ if 1 }}", 94) + strings.Repeat("{{ range 1 }}", 6) + `{{ template "a" }}` + strings.Repeat("{{ end }}", 100) + `{{ end }}{{ template "a" }}`,
	"many sorts":               strings.Repeat(`{{range $k,$v:=.Data}}{{break}}{{end}}`, 1500),
	"many arguments":           `{{ range 1000000000 }}{{ $x := and` + strings.Repeat(" 1", 30_000) + ` }}{{ end }}`,
	"a branch that recurs":     `{{ define "a" }}{{ with . }}{{ template "a" . }}{{ end }}{{ end }}{{ template "a" "x" }}`,
}

// longBombs are those that go through a value of the body again and again. They end by what they have gone through,
// before time matters.
var longBombs = map[string]string{
	"orders by a long number":            `{{ range .Data.items }}{{ if gt . $.Data.limit }}x{{ end }}{{ end }}`,
	"orders of two long numbers":         `{{ range .Data.items }}{{ if le $.Data.limit $.Data.limit }}{{ end }}{{ end }}`,
	"orders of two long texts":           `{{ range .Data.items }}{{ if lt $.Data.text $.Data.text }}{{ end }}{{ end }}`,
	"comparisons with a long number":     `{{ range .Data.items }}{{ if eq . $.Data.limit }}x{{ end }}{{ end }}`,
	"differences from a long number":     `{{ range .Data.items }}{{ if ne $.Data.limit . }}{{ end }}{{ end }}`,
	"a long number among many":           `{{ range .Data.items }}{{ if eq . 2 3 $.Data.limit }}{{ end }}{{ end }}`,
	"comparisons of long texts":          `{{ range .Data.items }}{{ if eq $.Data.text $.Data.text }}{{ end }}{{ end }}`,
	"a long number as an index":          `{{ range .Data.items }}{{ if index $.Data.items $.Data.limit }}x{{ end }}{{ end }}`,
	"a long text as the name of a field": `{{ range .Data.items }}{{ if index $.Data $.Data.text }}x{{ end }}{{ end }}`,
	"a precision that leaves nothing":    `{{ range .Data.items }}{{ if printf "%.1s%.0q" $.Data.text $.Data.limit }}{{ end }}{{ end }}`,
	"a list of which nothing is left":    `{{ range .Data.items }}{{ if printf "%.1s" $.Data.items }}{{ end }}{{ end }}`,
	"a long number in few digits":        `{{ range .Data.items }}{{ if printf "%.1e" $.Data.zero }}{{ end }}{{ end }}`,
	"a long key of a hash":               `{{ range .Data.items }}{{ $x := hmac "sha1" $.Data.text "a" }}{{ end }}`,
	"long names that are sorted":         `{{ range .Data.items }}{{ range $.Data.names }}{{ break }}{{ end }}{{ end }}`,
	"a loop that is long itself":         `{{ range .Data.items }}` + strings.Repeat(`{{ $x := 1 }}`, 4000) + `{{ end }}`,
	"a template that is long itself":     `{{ define "a" }}` + strings.Repeat(`{{ $x := 1 }}`, 4000) + `{{ end }}` + strings.Repeat(`{{ template "a" }}`, 600),
}

// longBody has 800 KB: a number and a text of great length, two names, and many items.
func longBody() string {
	name := strings.Repeat("n", 50_000)
	return fmt.Sprintf(`{"limit":%s,"zero":0.%s,"text":"%s","names":{"%sa":1,"%sb":2},"items":[1%s]}`, strings.Repeat("7", 400_000),
		strings.Repeat("0", 100_000), strings.Repeat("t", 100_000), name, name, strings.Repeat(",1", 50_000))
}

func bombBody() string {
	var b strings.Builder
	b.WriteString(`{"a":""`)
	for i := range 40_000 {
		fmt.Fprintf(&b, `,"name%d":%d`, i, i)
	}
	b.WriteString("}")
	return b.String()
}

func TestTemplateIsBounded(t *testing.T) {
	body := bombBody()
	for name, text := range bombs {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			out, err := renderText(t, text, body)
			f, ok := errors.AsType[*renderFault](err)
			if !ok || !f.limit {
				t.Fatalf("got %d bytes, %v, want a bound", len(out), err)
			}
			// A hundred times what is asked for: the race detector and other tests take their part. Without a bound
			// each of these takes minutes, or does not end.
			if took := time.Since(begin); took > 100*maxRenderTime {
				t.Errorf("took %v: %v", took, err)
			}
		})
	}
	long := longBody()
	for name, text := range longBombs {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // where time does not pass
				out, err := renderText(t, text, long)
				if f, ok := errors.AsType[*renderFault](err); !ok || !f.limit || !strings.Contains(err.Error(), "goes through more than 16777216 bytes") {
					t.Errorf("got %d bytes, %v, want the bound of bytes", len(out), err)
				}
			})
		})
	}
	t.Run("a header by a name of great length is none", func(t *testing.T) {
		got, err := renderText(t, `{{ default "none" (.Header .Data.text) }}`, long)
		if err != nil || got != "none" {
			t.Errorf("got %.20q, %v, want none", got, err)
		}
	})
	t.Run("what goes through its values once is far from the bound", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			got, err := renderText(t, `{{ eq .Data.limit .Data.limit }} {{ gt .Data.limit 1 }} {{ len .Data.items }} {{ len (print .Data.text .Data.limit) }}`, long)
			if err != nil || got != "true true 50001 500000" {
				t.Errorf("got %.60q, %v", got, err)
			}
		})
	})
	t.Run("the steps end where time does not pass", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, err := renderText(t, `{{ range 1000000000 }}{{ end }}`, "{}")
			if err == nil || !strings.Contains(err.Error(), "more than 1000000 steps") {
				t.Errorf("got %v, want the bound of steps", err)
			}
		})
	})
	t.Run("a machine that stood still is no fault of the template", func(t *testing.T) {
		r := &run{begin: time.Now().Add(-time.Hour)}
		if err := r.step(); err != nil {
			t.Errorf("got %v, want no error", err)
		}
		r.steps = freeSteps
		if err := r.step(); err == nil {
			t.Error("the time does not bound one that has done much")
		}
	})
	t.Run("just inside and just outside of the output", func(t *testing.T) {
		body := `"` + strings.Repeat("x", maxOutput-2) + `"`
		if out, err := renderText(t, `{{ .Body }}`, body); err != nil || len(out) != maxOutput {
			t.Errorf("got %d bytes, %v, want %d", len(out), err, maxOutput)
		}
		if out, err := renderText(t, `{{ .Body }} `, body); err == nil {
			t.Errorf("got %d bytes, want an error", len(out))
		}
	})
	t.Run("nested just inside and just outside", func(t *testing.T) {
		nest := func(n int) string {
			text := `{{ template "t1" }}`
			for i := 1; i < n; i++ {
				text += fmt.Sprintf(`{{ define "t%d" }}{{ template "t%d" }}{{ end }}`, i, i+1)
			}
			return text + fmt.Sprintf(`{{ define "t%d" }}x{{ end }}`, n)
		}
		if out, err := renderText(t, nest(maxRenderNested-1), "{}"); err != nil || out != "x" {
			t.Errorf("got %q, %v, want x", out, err)
		}
		if _, err := renderText(t, nest(maxRenderNested), "{}"); err == nil {
			t.Error("got no error one deeper")
		}
	})
}

// FuzzTemplate holds that no template and no body bring about more than an error, in bounded time and memory.
func FuzzTemplate(f *testing.F) {
	for _, text := range bombs {
		if len(text) < 200 {
			f.Add(text, `{"a":1}`)
		}
	}
	for _, text := range longBombs {
		if len(text) < 200 {
			f.Add(text, `{"limit":1e999,"zero":0.0,"text":"","names":{"a":1,"b":2},"items":[1,2]}`)
		}
	}
	f.Add(`{"id":{{ json .ID }},"data":{{ .Body }}}`, `{"a":[1,null,"x"]}`)
	f.Add(`{{ range $k, $v := .Data }}{{ $k }}{{ json $v }}{{ end }}`, `[{"a":{}}]`)
	f.Add(`{{ printf "%5.2f %-3d" .Data.a 5 | base64 | upper }}`, `{"a":1e400}`)
	f.Add(`{{ slice .Data 1 5 | len }}{{ and .Data nil | not }}`, `"text"`)
	f.Add(`{{ define "a" }}{{ . }}{{ end }}{{ template "a" .Header "x" }}{{ block "b" 1i }}{{ end }}`, ``)
	f.Add(`{{ with $x := (index .Data 0).a.b }}{{ $x }}{{ else with 0x1p-2 }}{{ . }}{{ end }}`, `[{"a":{"b":"\u0000"}}]`)
	f.Fuzz(func(t *testing.T, text, body string) {
		o := Options{URL: &url.URL{Scheme: "https", Host: "h"}, Body: text, ContentType: "application/json"}
		s, err := New(o) // renders a sample
		if err != nil || text == "" {
			return
		}
		begin := time.Now()
		req, err := s.render(newJob(t, body))
		if took := time.Since(begin); took > 50*maxRenderTime {
			t.Errorf("took %v", took)
		}
		if err != nil {
			if _, ok := errors.AsType[*OptionError](err); !ok {
				t.Errorf("got %T, want an *OptionError", err)
			}
			return
		}
		if req.ContentLength > maxOutput {
			t.Errorf("got %d bytes", req.ContentLength)
		}
		var sent bytes.Buffer
		if _, err := sent.ReadFrom(req.Body); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(sent.Bytes()) {
			t.Errorf("got %q, want JSON", sent.Bytes())
		}
	})
}
