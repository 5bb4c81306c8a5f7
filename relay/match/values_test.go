package match_test

import (
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/match"
)

func TestValuesOfADocumentAreBounded(t *testing.T) {
	list := func(n int) []byte { return []byte("[" + strings.Repeat("0,", n-2) + "0]") } // n values with the list itself
	for _, read := range []func([]byte) error{
		match.CheckJSON,
		func(b []byte) error { _, err := match.ParseJSON(b); return err },
	} {
		if err := read(list(match.MaxValues)); err != nil {
			t.Errorf("as many as allowed: got %v", err)
		}
		if err := read(list(match.MaxValues + 1)); err == nil || !strings.Contains(err.Error(), "more than 500000 values") {
			t.Errorf("one more: got %v, want it to name the bound", err)
		}
	}
}
