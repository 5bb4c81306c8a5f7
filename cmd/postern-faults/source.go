package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// testPackage is a package that has fault tests or fuzz targets.
type testPackage struct {
	path  string // as go test takes it, such as ./store
	tests []faultTest
	fuzz  []string // names of fuzz targets
}

// faultTest is a fault test, as its source shows it.
type faultTest struct {
	name       string
	categories []string // that its source names; none if it leaves that to a helper
}

// findTests looks through the test files of all packages of the module that are built on this system.
func findTests(ctx context.Context) ([]testPackage, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles", "./...").Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return nil, fmt.Errorf("list packages: %w\n%s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var found []testPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			Dir, ImportPath           string
			TestGoFiles, XTestGoFiles []string
		}
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("list packages: %w", err)
		}
		t := testPackage{path: p.ImportPath}
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, fmt.Errorf("read tests: %w", err)
			}
			t.add(f)
		}
		if len(t.tests) > 0 || len(t.fuzz) > 0 {
			found = append(found, t)
		}
	}
}

// add takes the fault tests and fuzz targets of one file.
func (p *testPackage) add(f *ast.File) {
	for _, decl := range f.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		switch {
		case !ok || fn.Recv != nil:
		case strings.HasPrefix(fn.Name.Name, "Fuzz"):
			p.fuzz = append(p.fuzz, fn.Name.Name)
		case isFaultTest(fn.Name.Name):
			p.tests = append(p.tests, faultTest{fn.Name.Name, categoriesIn(fn)})
		}
	}
}

// isFaultTest reports whether a function is a fault test by its name. TestFaults… and TestFaulty… are about something else.
func isFaultTest(name string) bool {
	rest, ok := strings.CutPrefix(name, "TestFault")
	return ok && rest != "" && !('a' <= rest[0] && rest[0] <= 'z')
}

// categoriesIn returns the categories with which a text of the function begins, or which are a text of it; of one that has no
// such text, the category with which its name does.
func categoriesIn(fn *ast.FuncDecl) (found []string) {
	ast.Inspect(fn, func(n ast.Node) bool {
		literal, ok := n.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			return true
		}
		word, _, _ := strings.Cut(text, ":")
		if slices.Contains(categories(), word) && !slices.Contains(found, word) {
			found = append(found, word)
		}
		return true
	})
	if found != nil {
		return found
	}
	name := strings.ToLower(strings.TrimPrefix(fn.Name.Name, "TestFault"))
	return slices.DeleteFunc(categories(), func(category string) bool { return !strings.HasPrefix(name, category) })
}

// chosen returns the names of the tests that are to be run: those that say nothing about their category are.
func (p testPackage) chosen(o options) (names []string, err error) {
	pattern, err := regexp.Compile(o.run)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	for _, t := range p.tests {
		wanted := len(t.categories) == 0
		for _, c := range t.categories {
			wanted = wanted || slices.Contains(o.only, c)
		}
		if wanted && pattern.MatchString(t.name) {
			names = append(names, t.name)
		}
	}
	return names, nil
}
