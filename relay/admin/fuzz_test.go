package admin

import (
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/problem"
)

// FuzzReadQuery holds the query of a list to: what is taken is what net/url reads, each name of it is known and there once,
// the filter that it makes is within bounds, and what is refused is an answer for the client.
func FuzzReadQuery(f *testing.F) {
	for _, seed := range []string{
		"", "state=failed&limit=50", "q=%41&since=2h&until=2026-01-01T00:00:00Z", "limit=-1", "limit=99999999999", "limit=1&limit=2", "a=b", "class=ok&cursor=x",
		"state=&event=", "%zz", "q=a;b", "destination=" + strings.Repeat("x", 201), "q=%ff", "statee=failed",
	} {
		f.Add(seed)
	}
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	h := &Handler{Now: func() time.Time { return now }}
	answer := func(t *testing.T, raw string, err error) {
		t.Helper()
		if fault, ok := errors.AsType[*problem.Error](err); !ok || fault.Status != 400 || fault.Detail == "" {
			t.Fatalf("%q: got error %v, want an answer", raw, err)
		}
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var in struct {
			DeliveryFilter
			Limit  *int   `json:"limit"`
			Cursor string `json:"cursor"`
		}
		if err := h.readQuery(raw, reflect.ValueOf(&in).Elem()); err != nil {
			answer(t, raw, err)
			return
		}
		values, err := url.ParseQuery(raw)
		if err != nil {
			t.Fatalf("%q: taken, and net/url says %v", raw, err)
		}
		for name, list := range values {
			if len(list) != 1 {
				t.Errorf("%q: taken with %q %d times", raw, name, len(list))
			}
		}
		if values.Get("q") != in.Q || values.Get("state") != in.State || values.Get("cursor") != in.Cursor {
			t.Errorf("%q: got %+v, want %v", raw, in, values)
		}
		filter, err := h.filter(in.DeliveryFilter)
		if err != nil {
			answer(t, raw, err)
			return
		}
		if len(filter.Text) > maxFilterText || len(filter.Destination) > maxFilterText || len(filter.Event) > maxFilterText {
			t.Errorf("%q: got %+v, want texts within their bound", raw, filter)
		}
		if in.State != "" && filter.State.String() != in.State || in.Class != "" && filter.Class.String() != in.Class {
			t.Errorf("%q: got %+v, want that state and class", raw, filter)
		}
		place, err := in.DeliveryFilter.place(in.Cursor)
		if err != nil {
			answer(t, raw, err)
			return
		}
		if in.Cursor != "" && in.DeliveryFilter.cursor(place) != in.Cursor {
			t.Errorf("%q: the cursor reads back as %q", raw, in.DeliveryFilter.cursor(place))
		}
	})
}
