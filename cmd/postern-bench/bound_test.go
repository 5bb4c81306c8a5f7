package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// optionsOf returns the body of badgerOptions in a file, with the constants that it names.
func optionsOf(t *testing.T, file string) string {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := func(n ast.Node) string {
		var b bytes.Buffer
		if err := printer.Fprint(&b, fset, n); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(b.String()), "")
	}
	constants := map[string]string{}
	var body *ast.BlockStmt
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			for i, name := range n.Names {
				if i < len(n.Values) {
					constants[name.Name] = text(n.Values[i])
				}
			}
		case *ast.FuncDecl:
			if n.Name.Name == "badgerOptions" {
				body = n.Body
			}
		}
		return true
	})
	if body == nil {
		t.Fatalf("%s has no badgerOptions", file)
	}
	ast.Inspect(body, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && constants[id.Name] != "" {
			id.Name = constants[id.Name]
		}
		return true
	})
	return text(body)
}

func TestTheBoundHasTheOptionsOfTheStore(t *testing.T) {
	got := optionsOf(t, "bound_badger.go")
	want := optionsOf(t, filepath.Join("..", "..", "store", "badgerstore", "store.go"))
	if got != want {
		t.Errorf("options differ\ngot:  %s\nwant: %s", got, want)
	}
	if !strings.Contains(got, "WithMemTableSize(") || strings.Contains(got, "memTableSize") {
		t.Errorf("no options were read: %s", got)
	}
}

func TestBoundsKeepEachBody(t *testing.T) {
	const posters, posts = 8, 50
	body := func(i, n int) []byte { return fmt.Appendf(nil, "body %d of %d;", n, i) }
	postAll := func(t *testing.T, accept func([]byte) error) {
		handler := accepting(accept)
		var wg sync.WaitGroup
		for i := range posters {
			wg.Go(func() {
				for n := range posts {
					w := httptest.NewRecorder()
					handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body(i, n))))
					if w.Code != http.StatusAccepted {
						t.Errorf("got status %d: %s", w.Code, w.Body)
					}
				}
			})
		}
		wg.Wait()
	}
	t.Run("in a plain file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "log")
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		g := &groupFile{file: file, waiting: make(chan fileRecord, 16)}
		done := make(chan struct{})
		go func() { defer close(done); g.run() }()
		postAll(t, g.accept)
		close(g.waiting)
		<-done
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range posters {
			for n := range posts {
				if !bytes.Contains(text, body(i, n)) {
					t.Errorf("%q is missing", body(i, n))
				}
			}
		}
	})
	t.Run("in Badger, until it is deleted", func(t *testing.T) {
		g, err := openGroupBadger(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer g.db.Close()
		done := make(chan struct{})
		go func() { defer close(done); g.run() }()
		postAll(t, g.accept)
		found := map[string]bool{}
		for n := uint64(1); n <= posters*posts; n++ {
			value, err := g.read(numberKey(n))
			if err != nil {
				t.Fatalf("read %d: %v", n, err)
			}
			found[string(value)] = true
		}
		if got, want := len(found), posters*posts; got != want {
			t.Errorf("got %d bodies, want %d", got, want)
		}
		if err := g.do(numberKey(7), nil); err != nil {
			t.Fatal(err)
		}
		g.forget(numberKey(8))
		close(g.waiting)
		<-done // and with it what nobody has waited for
		for n, want := range map[uint64]error{7: badger.ErrKeyNotFound, 8: badger.ErrKeyNotFound, 9: nil} {
			if _, err := g.read(numberKey(n)); err != want {
				t.Errorf("read of %d after 7 and 8 were deleted: got error %v, want %v", n, err, want)
			}
		}
	})
}

func TestTheBacklogKeepsOrderAndFewBodies(t *testing.T) {
	b := newBacklog()
	const n = backlogBodies + 10
	for i := range uint64(n) {
		b.add(i, fmt.Append(nil, i))
	}
	for i := range uint64(n) {
		key, body := b.take()
		if key != i {
			t.Fatalf("got key %d, want %d", key, i)
		}
		if i < backlogBodies && string(body) != fmt.Sprint(i) {
			t.Errorf("key %d: got body %q", key, body)
		}
		if i >= backlogBodies && body != nil {
			t.Errorf("key %d is beyond the window: got body %q, want none", key, body)
		}
	}
}
