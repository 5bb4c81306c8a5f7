package egress_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

func TestRenderedBodyOnRecord(t *testing.T) {
	f := newFarEnd(t)
	got := f.receives(t, false, "")
	number, err := match.ParsePath("$.card.number")
	if err != nil {
		t.Fatal(err)
	}
	const template = `{"event":"e","card":{{ .Body }}}`
	long := `{"number":4111222233334444,"pad":"` + strings.Repeat("p", 80<<10) + `"}`
	for _, c := range []struct {
		name, posted string
		change       func(*egress.Options)
		want         string
		truncated    bool
	}{
		{"as it was sent", `{"number":4111222233334444}`, nil, `{"event":"e","card":{"number":4111222233334444}}`, false},
		{"redacted", `{"number":4111222233334444}`, func(o *egress.Options) { o.Redact = []*match.Path{number} }, `{"event":"e","card":{"number":"***"}}`, false},
		{"redacted before it is cut", long, func(o *egress.Options) { o.Redact = []*match.Path{number} },
			(`{"event":"e","card":{"number":"***","pad":"` + strings.Repeat("p", 80<<10))[:64<<10], true},
		{"cut", long, nil, (`{"event":"e","card":` + long)[:64<<10], true},
		{"not kept", `{"number":4111222233334444}`, func(o *egress.Options) { o.OmitBody = true }, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := f.sender(t, func(o *egress.Options) {
				o.Body, o.Messages = template, posted{body: c.posted}
				if c.change != nil {
					c.change(o)
				}
			}).Send(t.Context(), newDelivery(t))
			check(t, a, store.ClassOK, 200)
			if r := <-got; r.body != `{"event":"e","card":`+c.posted+`}` {
				t.Errorf("got %.100s at the receiver, want nothing of it changed", r.body)
			}
			if string(a.Request.Body) != c.want || a.Request.Truncated != c.truncated || !a.Request.Rendered {
				t.Errorf("got %.100s (%d bytes), truncated %v, rendered %v; want %.100s (%d bytes), %v, true",
					a.Request.Body, len(a.Request.Body), a.Request.Truncated, a.Request.Rendered, c.want, len(c.want), c.truncated)
			}
		})
	}
}

func TestAnswersAreRedacted(t *testing.T) {
	paths := make([]*match.Path, 2)
	for i, text := range []string{"$.card.number", "$.status"} {
		var err error
		if paths[i], err = match.ParsePath(text); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(path string, want any) []*match.Expectation {
		e, err := match.NewExpectation(path, []any{want})
		if err != nil {
			t.Fatal(err)
		}
		return []*match.Expectation{e}
	}
	pad := strings.Repeat("p", 20<<10)
	huge := strings.Repeat("p", 70<<10)
	for _, c := range []struct {
		name, answer string
		change       func(*egress.Options)
		class        store.Class
		want         string
		truncated    bool
		text         string // in the error
	}{
		{"a value", `{"card":{"number":"4111222233334444"},"id":1}`, nil, store.ClassOK, `{"card":{"number":"***"},"id":1}`, false, ""},
		{"a text", "card 4111222233334444", nil, store.ClassOK, "card 4111222233334444", false, ""},
		{"more than is kept", `{"pad":"` + pad + `","card":{"number":"4111222233334444"}}`, nil, store.ClassOK, (`{"pad":"` + pad)[:16<<10], true, ""},
		{"a value where the record ends", `{"pad":"` + pad[:16300] + `","card":{"number":"` + strings.Repeat("4111222233334444", 25) + `"}}`, nil, store.ClassOK,
			`{"pad":"` + pad[:16300] + `","card":{"number":"***"}}`, false, ""},
		{"more than is read", `{"card":{"number":"4111222233334444"},"pad":"` + huge + `"}`, nil, store.ClassOK, `"***"`, true, ""},
		{"an expectation sees what is not recorded", `{"status":"fine"}`, func(o *egress.Options) { o.Expect = expect("$.status", "fine") },
			store.ClassOK, `{"status":"***"}`, false, ""},
		{"and does not tell it", `{"status":"4111222233334444"}`, func(o *egress.Options) { o.Expect = expect("$.status", "fine") },
			store.ClassExpect, `{"status":"***"}`, false, `"***"`},
		{"nor where it happens to match", `{"status":"4111222233334444"}`, func(o *egress.Options) { o.Expect = expect("$.status", "***") },
			store.ClassExpect, `{"status":"***"}`, false, "what is not recorded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFarEnd(t)
			f.receives(t, false, c.answer)
			a := f.sender(t, func(o *egress.Options) {
				o.Redact = paths
				if c.change != nil {
					c.change(o)
				}
			}).Send(t.Context(), newDelivery(t))
			check(t, a, c.class, 200)
			if string(a.Body) != c.want || a.Truncated != c.truncated {
				t.Errorf("got %.100s (%d bytes), truncated %v; want %.100s (%d bytes), %v", a.Body, len(a.Body), a.Truncated, c.want, len(c.want), c.truncated)
			}
			text, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(a.Error, c.text) || strings.Contains(string(text), "4111222233334444") {
				t.Errorf("got error %q and record %.300s, want %q and no number", a.Error, text, c.text)
			}
		})
	}
}
