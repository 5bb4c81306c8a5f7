// Package postern_test holds the tests of the house: what is true of the repository as a whole and of no package
// alone. They read the source files themselves, so that Go's test cache knows what they depend on.
package postern_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/postern-relay/postern"

// The rows of the house. Imports point down, never sideways or up.
var (
	base    = []string{"store", "relay/match", "relay/sign", "relay/guard", "relay/problem"}
	parts   = []string{"relay/listen", "relay/ingest", "relay/lane", "relay/egress", "relay/admin"}
	engines = []string{"store/badgerstore", "store/storetest"}
)

// arrows says for each package of ours which other ones it may import. A package that is not in it fails the test:
// a new one is added here and to the map in CONTRIBUTING.md, with its one reason to exist.
var arrows = map[string][]string{
	".": nil, // tests only

	"cmd/postern":        {"config", "relay", "relay/admin", "relay/sign", "relay/receiver", "store", "store/badgerstore"},
	"cmd/postern-bench":  {"relay/receiver"}, // measures the built program from outside
	"cmd/postern-faults": nil,                // runs the fault tests of all packages
	"cmd/postern-sbom":   nil,
	"examples/clients":   nil, // the client in Go

	"config": nil,
	"relay":  slices.Concat([]string{"config", "relay/admin/dashboard"}, parts, base),

	"relay/listen": base,
	"relay/ingest": base,
	"relay/lane":   base,
	"relay/egress": base,
	"relay/admin":  base,

	// Files to be served and their headers: it is handed nothing, and knows the API only from the browser's side.
	"relay/admin/dashboard": {"relay/problem"},

	"relay/receiver": {"relay/sign"},

	"store":         nil,
	"relay/match":   nil,
	"relay/sign":    nil,
	"relay/guard":   nil,
	"relay/problem": nil,

	"store/badgerstore": {"store"},
	"store/storetest":   {"store"},

	"relay/listen/acmetest": nil, // tests only
}

// testArrows says what test files may import beyond what their package may: real engines and a real receiver
// instead of mocks, and never a part of the same row.
var testArrows = map[string][]string{
	".":                  slices.Concat([]string{"config", "relay"}, parts, base, engines),
	"cmd/postern":        {"store/storetest", "relay/listen/acmetest"},
	"cmd/postern-faults": {"relay/admin", "relay/receiver", "relay/sign", "store"}, // the built program, seen from outside
	"relay":              slices.Concat(engines, []string{"relay/receiver", "relay/listen/acmetest"}),
	"relay/listen":       {"store/storetest", "relay/receiver", "relay/listen/acmetest"},
	"relay/ingest":       {"store/storetest"},
	"relay/lane":         {"store/storetest"},
	"relay/egress":       {"store/storetest", "relay/receiver"},
	"relay/admin":        {"store/storetest"},
	"relay/guard":        {"relay/receiver"},

	"relay/admin/dashboard": {"relay", "relay/receiver", "relay/sign", "store/badgerstore"}, // the pages of a whole relay

	"store/badgerstore": {"store/storetest"},
}

// sourceFile is one parsed Go file of the repository.
type sourceFile struct {
	name string // path from the root, with slashes
	pkg  string // folder of name: the key of arrows
	test bool
	ast  *ast.File
}

func (f sourceFile) imports(t testing.TB) []string {
	t.Helper()
	var paths []string
	for _, spec := range f.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: import %s: %v", f.name, spec.Path.Value, err)
		}
		paths = append(paths, p)
	}
	return paths
}

// ours returns the folder of an import path of this module.
func ours(importPath string) (folder string, ok bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// walk calls visit for each regular file of the repository that is not made by a build or a run.
func walk(t testing.TB, visit func(name string)) {
	t.Helper()
	if err := walkTree(visit); err != nil {
		t.Fatalf("walk the repository: %v", err)
	}
}

func walkTree(visit func(name string)) error {
	return filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".git" && !d.IsDir(): // a worktree: it says where the folder is
		case d.IsDir() && (name == ".git" || name == "bin" || name == "build" || d.Name() == "data" || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.Type().IsRegular():
			visit(filepath.ToSlash(name))
		}
		return nil
	})
}

// sources returns all Go files of the repository, of every platform, with their comments. The tests share them, and leave
// them as they are.
func sources(t testing.TB) (*token.FileSet, []sourceFile) {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(all.files) == 0 {
		t.Fatal("no Go files found: this tests nothing")
	}
	return all.fset, all.files
}

// sourceTree is all Go files of the repository.
type sourceTree struct {
	fset  *token.FileSet
	files []sourceFile
}

// parsed parses them, once for all tests: with the race detector it takes seconds.
var parsed = sync.OnceValues(func() (sourceTree, error) {
	all := sourceTree{fset: token.NewFileSet()}
	var faults error
	err := walkTree(func(name string) {
		if !strings.HasSuffix(name, ".go") || strings.Contains(name, "testdata/") {
			return
		}
		tree, err := parser.ParseFile(all.fset, filepath.FromSlash(name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			faults = errors.Join(faults, fmt.Errorf("parse: %w", err))
			return
		}
		all.files = append(all.files, sourceFile{
			name: name, pkg: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), ast: tree,
		})
	})
	return all, errors.Join(err, faults)
})

func TestArrows(t *testing.T) {
	_, files := sources(t)
	for _, f := range files {
		allowed, known := arrows[f.pkg]
		if !known {
			t.Errorf("%s: package %q is not in the table of arrows; give it a reason and its place", f.name, f.pkg)
			continue
		}
		for _, wrong := range wrongImports(f.pkg, f.test, allowed, f.imports(t)) {
			t.Errorf("%s imports %s; package %q may import of ours %v", f.name, wrong, f.pkg, allowed)
		}
	}
	t.Run("each package of the table exists", func(t *testing.T) {
		for pkg := range arrows {
			if !slices.ContainsFunc(files, func(f sourceFile) bool { return f.pkg == pkg }) {
				t.Errorf("%q has an arrow and no Go file", pkg)
			}
		}
	})
	t.Run("each package of the table is in the map of the house", func(t *testing.T) {
		text, err := os.ReadFile("CONTRIBUTING.md")
		if err != nil {
			t.Fatal(err)
		}
		for pkg := range arrows {
			if pkg != "." && !strings.Contains(string(text), "| `"+pkg+"` |") {
				t.Errorf("CONTRIBUTING.md has no row for %q in its map", pkg)
			}
		}
	})
}

// wrongImports returns those of imports that the arrows of a package forbid.
func wrongImports(pkg string, test bool, allowed, imports []string) []string {
	var wrong []string
	for _, p := range imports {
		folder, our := ours(p)
		switch {
		case !our, slices.Contains(allowed, folder):
		case test && (folder == pkg || slices.Contains(testArrows[pkg], folder)):
		default:
			wrong = append(wrong, folder)
		}
	}
	return wrong
}

func TestWrongImports(t *testing.T) {
	for _, tc := range []struct {
		name, pkg string
		test      bool
		imported  string
		want      bool
	}{
		{"a part may use the records", "relay/lane", false, "store", false},
		{"a part may not use another part", "relay/lane", false, "relay/egress", true},
		{"a test of a part may not use another part", "relay/lane", true, "relay/egress", true},
		{"a part may not know the config", "relay/ingest", false, "config", true},
		{"the config uses nothing of ours", "config", false, "store", true},
		{"a part may not use an engine", "relay/lane", false, "store/storetest", true},
		{"a test of a part may use an engine", "relay/lane", true, "store/storetest", false},
		{"a test in a package of its own may use what it tests", "relay/lane", true, "relay/lane", false},
		{"the bottom row uses nothing of ours", "relay/sign", false, "store", true},
		{"relay is handed its engine", "relay", false, "store/badgerstore", true},
		{"nobody imports the root", "relay", false, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wrong := wrongImports(tc.pkg, tc.test, arrows[tc.pkg], []string{"fmt", path.Join(module, tc.imported)})
			if got := len(wrong) > 0; got != tc.want {
				t.Errorf("got forbidden = %t, want %t", got, tc.want)
			}
		})
	}
}

// TestProgramWithoutTesting follows the imports of the program through our own files. (make lint asks the go command
// for the whole list, other modules included.)
func TestProgramWithoutTesting(t *testing.T) {
	_, files := sources(t)
	imports := map[string]map[string]string{} // package → imported path → file
	for _, f := range files {
		if f.test {
			continue
		}
		if imports[f.pkg] == nil {
			imports[f.pkg] = map[string]string{}
		}
		for _, p := range f.imports(t) {
			imports[f.pkg][p] = f.name
		}
	}
	reached, queue := map[string]bool{"cmd/postern": true}, []string{"cmd/postern"}
	for len(queue) > 0 {
		pkg := queue[0]
		queue = queue[1:]
		for imported, file := range imports[pkg] {
			if forTests(imported) {
				t.Errorf("%s imports %s, and cmd/postern reaches it", file, imported)
			}
			if folder, our := ours(imported); our && !reached[folder] {
				reached[folder] = true
				queue = append(queue, folder)
			}
		}
	}
	if !reached["relay"] || !reached["store"] {
		t.Errorf("cmd/postern reaches only %v: this tests nothing", reached)
	}
}

// forTests reports whether a package exists for tests.
func forTests(importPath string) bool {
	if folder, our := ours(importPath); our {
		return folder == "store/storetest" || folder == "relay/listen/acmetest"
	}
	return slices.Contains(strings.Split(importPath, "/"), "testing") ||
		importPath == "net/http/httptest" || importPath == "testing" || strings.Contains(importPath, "/testscript")
}

func TestForTests(t *testing.T) {
	for p, want := range map[string]bool{
		"testing": true, "testing/synctest": true, "net/http/httptest": true, module + "/store/storetest": true,
		module + "/relay/listen/acmetest": true,
		"net/http":                        false, module + "/store": false, "example.com/attesting": false,
	} {
		if got := forTests(p); got != want {
			t.Errorf("forTests(%q): got %t, want %t", p, got, want)
		}
	}
}

// position is a place for a failure's text, as path:line.
func position(fset *token.FileSet, n ast.Node) string {
	p := fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", filepath.ToSlash(p.Filename), p.Line)
}
