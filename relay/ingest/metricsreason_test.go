package ingest

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// slow is a Caller who has used up its rate.
type slow struct{ Caller }

func (slow) Begin() time.Duration { return time.Second }

func TestReasonOf(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		want reason
	}{
		{"the same key with another body", refuse(store.ErrKeyConflict, idempotencyKey), reasonConflict},
		{"a filter that costs too much", problem.New(http.StatusUnprocessableEntity, "too many steps"), reasonFilter},
		{"a full backlog", refuse(store.ErrBacklog, idempotencyKey), reasonBacklog},
		{"a caller beyond its rate", begin(slow{}), reasonRate},
		{"a post that its caller may not make", refuseRoute(Post{}, &RouteError{Fault: NotAllowed, Err: errors.New("no")}), reasonForbidden},
		{"a full disk", refuse(store.ErrNoSpace, idempotencyKey), reasonNoSpace},
		{"a message that the store cannot keep", refuse(store.ErrTooLarge, idempotencyKey), reasonTooLarge},
		{"a store that is closing", refuse(store.ErrClosed, idempotencyKey), reasonStopping},
		{"a store that does not answer", refuse(errAcceptTimeout, idempotencyKey), reasonInternal},
		{"a stop", stopping(), reasonStopping},
		{"bodies that take all memory", noMemory(), reasonMemory},
		{"an error that is no answer", errors.New("boom"), reasonInternal},
		{"one of a line", (&several{place: "line"}).at(3, refuse(store.ErrKeyConflict, "id")), reasonConflict},
		{"one that is wrapped", fmt.Errorf("read: %w", tooLarge(1)), reasonTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := reasonOf(tc.err); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if !slices.Contains(allReasons(), tc.want) {
				t.Errorf("%q is not in the list of all reasons: it would have no counter", tc.want)
			}
		})
	}
}

// TestEachStatusHasAReason reads the sources for the statuses that ingest refuses with: a new one needs a reason of its
// own, or internal would tell of an error that is none.
func TestEachStatusHasAReason(t *testing.T) {
	statuses := map[string]int{}
	for status := 400; status < 600; status++ {
		if text := http.StatusText(status); text != "" {
			statuses["Status"+strings.NewReplacer(" ", "", "-", "", "'", "").Replace(text)] = status
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "metrics") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || !strings.HasPrefix(sel.Sel.Name, "Status") {
				return true
			}
			if status := statuses[sel.Sel.Name]; status != 0 && status != http.StatusInternalServerError {
				found++
				if reasonOf(problem.New(status, "")) == reasonInternal {
					t.Errorf("%s: %s has no reason", file, sel.Sel.Name)
				}
			}
			return true
		})
	}
	if found < 10 {
		t.Errorf("found only %d statuses: this tests nothing", found)
	}
}
