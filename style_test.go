package postern_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documentedElsewhere are methods whose contract is that of a well-known interface, so that a comment of their own
// would only repeat it.
var documentedElsewhere = []string{
	"String", "GoString", "Format", "Error", "Unwrap", "Is", "As",
	"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "MarshalYAML", "UnmarshalYAML",
	"MarshalLogObject", "MarshalLogArray", "LogValue", "ServeHTTP", "Len", "Less", "Swap",
}

func TestExportedNamesAreDocumented(t *testing.T) {
	fset, files := sources(t)
	packageComment := map[string]string{}
	for _, f := range files {
		if f.test {
			continue
		}
		if f.ast.Doc != nil {
			packageComment[f.pkg] = f.ast.Doc.Text()
		} else if _, ok := packageComment[f.pkg]; !ok {
			packageComment[f.pkg] = ""
		}
		if strings.HasPrefix(f.pkg, "cmd/") {
			continue // nobody imports a program
		}
		for _, n := range undocumented(f.ast) {
			t.Errorf("%s: %s has no comment that starts with its name", position(fset, n), n.Name)
		}
	}
	for pkg, comment := range packageComment {
		if !strings.HasPrefix(comment, "Package ") && !strings.HasPrefix(comment, "Command ") {
			t.Errorf("package %q has no comment that says its reason", pkg)
		}
	}
}

// undocumented returns the exported names of a file that lack a comment. A constant or variable may share that of
// its group, or have one at the end of its line.
func undocumented(f *ast.File) []*ast.Ident {
	var missing []*ast.Ident
	named := func(id *ast.Ident, doc *ast.CommentGroup) {
		if id.IsExported() && (doc == nil || !regexp.MustCompile(`^(A |An |The )?`+id.Name+`\b`).MatchString(doc.Text())) {
			missing = append(missing, id)
		}
	}
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv != nil && (!receiverExported(d.Recv) || slices.Contains(documentedElsewhere, d.Name.Name)) {
				continue
			}
			named(d.Name, d.Doc)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					doc := s.Doc
					if doc == nil {
						doc = d.Doc
					}
					named(s.Name, doc)
				case *ast.ValueSpec:
					for _, id := range s.Names {
						if id.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
							missing = append(missing, id)
						}
					}
				}
			}
		}
	}
	return missing
}

// receiverExported reports whether a method belongs to an exported type.
func receiverExported(recv *ast.FieldList) bool {
	expr := recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e.IsExported()
		default:
			return false
		}
	}
}

func TestUndocumented(t *testing.T) {
	for _, tc := range []struct {
		name, source string
		want         int
	}{
		{"a bare function is found", "func Open() {}", 1},
		{"a comment must start with the name", "// opens it.\nfunc Open() {}", 1},
		{"a longer name does not count", "// Opens it.\nfunc Open() {}", 1},
		{"a comment suffices", "// Open opens it.\nfunc Open() {}", 0},
		{"an article may come first", "// A Lane is a queue.\ntype Lane struct{}", 0},
		{"a bare type is found", "type Lane struct{}", 1},
		{"a bare method is found", "func (l *lane) Run() {}\nfunc (l *Lane) Run() {}", 1},
		{"a method of a well-known interface needs none", "func (l Lane) String() string { return \"\" }", 0},
		{"a group shares its comment", "// The classes.\nconst (\n\tA = 1\n\tB = 2\n)", 0},
		{"a comment may end the line", "const (\n\tA = 1 // the first\n\tB = 2\n)", 1},
		{"an unexported name needs none", "func open() {}\ntype lane struct{}\nvar x int", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n\n"+tc.source, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(undocumented(f)); got != tc.want {
				t.Errorf("got %d undocumented names, want %d", got, tc.want)
			}
		})
	}
}

// secretPackages compare tokens and signatures, or hand them to who does.
var secretPackages = []string{"relay/listen", "relay/sign", "relay/admin", "relay/ingest"}

// TestSecretsAreComparedInConstantTime holds T34: a comparison that ends at the first difference tells, by its time,
// how much of a guess was right.
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	fset, files := sources(t)
	for _, f := range files {
		if f.test || !slices.Contains(secretPackages, f.pkg) {
			continue
		}
		for _, n := range leakyComparisons(f.ast) {
			t.Errorf("%s: compare secrets by hmac.Equal or subtle.ConstantTimeCompare", position(fset, n))
		}
	}
}

var secretName = regexp.MustCompile(`(?i)(token|signature|secret|digest|hmac|mac|sum)s?$`)

// leakyComparisons finds what may compare secrets in a time that depends on them: == and != on something that is
// named like one (against anything but a literal or nil), bytes.Equal and its like wherever they are, and switches.
func leakyComparisons(f *ast.File) []ast.Node {
	var found []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		switch e := n.(type) {
		case *ast.BinaryExpr:
			if e.Op != token.EQL && e.Op != token.NEQ || harmless(e.X) || harmless(e.Y) || ofItself(e.X, e.Y) {
				return true
			}
			if secretive(e.X) || secretive(e.Y) {
				found = append(found, e)
			}
		case *ast.SwitchStmt:
			if e.Tag != nil && secretive(e.Tag) {
				found = append(found, e)
			}
		case *ast.CallExpr:
			fun, ok := e.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := fun.X.(*ast.Ident)
			if !ok {
				return true
			}
			switch name := pkg.Name + "." + fun.Sel.Name; name {
			case "bytes.Equal", "bytes.Compare", "reflect.DeepEqual":
				found = append(found, e)
			case "slices.Equal", "slices.Contains", "slices.Index", "strings.EqualFold", "strings.Compare", "bytes.EqualFold":
				if slices.ContainsFunc(e.Args, secretive) {
					found = append(found, e)
				}
			}
		}
		return true
	})
	return found
}

// harmless reports whether an operand is no secret: a literal, nil, or a number such as a length.
func harmless(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return e.Name == "nil"
	case *ast.CallExpr:
		id, ok := e.Fun.(*ast.Ident)
		return ok && id.Name == "len"
	}
	return false
}

// ofItself reports whether a value is compared with something made of it, as in strings.TrimSpace(secret) != secret:
// that checks its form, and nobody's guess.
func ofItself(x, y ast.Expr) bool {
	contains := func(whole, part ast.Expr) bool {
		id, ok := part.(*ast.Ident)
		call, isCall := whole.(*ast.CallExpr)
		return ok && isCall && slices.ContainsFunc(call.Args, func(arg ast.Expr) bool {
			a, ok := arg.(*ast.Ident)
			return ok && a.Name == id.Name
		})
	}
	return contains(x, y) || contains(y, x)
}

// secretive reports whether an expression is named like a secret.
func secretive(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return secretName.MatchString(e.Name)
	case *ast.SelectorExpr:
		return secretName.MatchString(e.Sel.Name)
	case *ast.IndexExpr:
		return secretive(e.X)
	case *ast.SliceExpr:
		return secretive(e.X)
	case *ast.ParenExpr:
		return secretive(e.X)
	case *ast.CallExpr: // string(token), secret.Reveal(), digest(x)
		if sel, ok := e.Fun.(*ast.SelectorExpr); ok && (secretive(sel.X) || secretive(sel)) {
			return true
		}
		return secretive(e.Fun) || slices.ContainsFunc(e.Args, secretive)
	}
	return false
}

func TestLeakyComparisons(t *testing.T) {
	for source, want := range map[string]bool{
		`given == token`:                              true,
		`token != given`:                              true,
		`s.tokens[i] == given`:                        true,
		`string(signature) == given`:                  true,
		`secret.Reveal() == given`:                    true,
		`bytes.Equal(a, b)`:                           true,
		`slices.Contains(s.Tokens, given)`:            true,
		`strings.EqualFold(given, token)`:             true,
		`strings.TrimSpace(secret) != secret`:         false,
		`strings.TrimSpace(given) != secret`:          true,
		`token == ""`:                                 false,
		`token == nil`:                                false,
		`len(token) == n`:                             false,
		`name == other`:                               false,
		`slices.Contains(names, name)`:                false,
		`hmac.Equal(a, b)`:                            false,
		`subtle.ConstantTimeCompare(mac, given) == 1`: false,
	} {
		t.Run(source, func(t *testing.T) {
			f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n\nvar _ = "+source, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(leakyComparisons(f)) > 0; got != want {
				t.Errorf("got found = %t, want %t", got, want)
			}
		})
	}
}

// unwanted are texts that have no place in any file of the repository, with the reason. They are put together here
// so that this file does not hold them itself. A line is held against a pattern only if it has one of its needles,
// without which the pattern finds nothing: looking for a fixed text is many times faster, and the schemas alone have
// thousands of lines.
var unwanted = []struct {
	needles []string
	pattern *regexp.Regexp
	reason  string
}{
	{[]string{"/" + "work/", "/" + "root/"}, regexp.MustCompile(`(^|[^\w.])/` + `(work|root)/`), "a path of somebody's machine"},
	{[]string{"/home" + "/"}, regexp.MustCompile(`/home/` + `[a-z]`), "a path of somebody's machine"},
	{[]string{"FIX" + "ME", "XX" + "X"}, regexp.MustCompile(`\bFIX` + `ME\b|\bXX` + `X\b`), "a fault belongs into an issue"},
	{[]string{"TO" + "DO"}, regexp.MustCompile(`(//|#|<!--|\*) *TO` + `DO\b([^(]|\(\))`), "it must say in brackets what it waits for"},
	{[]string{"t.Sk" + "ip"}, regexp.MustCompile(`\bt\.Sk` + `ip(Now|f)?\(`), "a test that is skipped tests nothing"},
	{[]string{"Insecure" + "SkipVerify"}, regexp.MustCompile(`Insecure` + `SkipVerify(:| =) *true`), "certificates are always verified"},
}

// unwantedIn returns what stands in a text that should not, each with its line and reason.
func unwantedIn(text []byte) (found []string) {
	for _, u := range unwanted {
		for _, needle := range u.needles {
			for from := 0; ; {
				at := bytes.Index(text[from:], []byte(needle))
				if at < 0 {
					break
				}
				begin := bytes.LastIndexByte(text[:from+at], '\n') + 1
				line := text[begin:]
				if end := bytes.IndexByte(line, '\n'); end >= 0 {
					line = line[:end]
				}
				if hit := u.pattern.FindString(string(line) + "\n"); hit != "" {
					number := 1 + bytes.Count(text[:begin], []byte("\n"))
					found = append(found, fmt.Sprintf("%d: %q: %s", number, strings.TrimSpace(hit), u.reason))
				}
				if from = begin + len(line); from >= len(text) {
					break
				}
			}
		}
	}
	return found
}

func TestUnwantedTexts(t *testing.T) {
	seen := 0
	walk(t, func(name string) {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Errorf("read: %v", err)
			return
		}
		if bytes.IndexByte(raw, 0) >= 0 {
			return // no text
		}
		seen++
		for _, found := range unwantedIn(raw) {
			t.Errorf("%s:%s", name, found)
		}
	})
	if seen < 20 {
		t.Errorf("only %d files were read: this tests nothing", seen)
	}
}

func TestUnwantedIn(t *testing.T) {
	for text, want := range map[string]string{
		"a\nsee /" + "work/x here\n":                        `2: "/` + `work/": a path`,
		"/" + "root/x":                                      `1: "/` + `root/": a path`,
		"example.com/" + "work/x\na/" + "root/b":            "",
		"x=/home" + "/jo":                                   `1: "/home` + `/j": a path`,
		"/home" + "/":                                       "",
		"\n\n// FIX" + "ME: it":                             `3: "FIX` + `ME": a fault`,
		"XX" + "X":                                          `1: "XX` + `X": a fault`,
		"XX" + "XX":                                         "",
		"// TO" + "DO: later":                               `1: "// TO` + `DO:": it must say`,
		"# TO" + "DO":                                       `1: "# TO` + `DO": it must say`,
		"# TO" + "DO()":                                     `1: "# TO` + `DO()": it must say`,
		"// TO" + "DO(Go 1.28): drop this":                  "",
		"\tt.Sk" + "ip(\"x\")\n\tt.Sk" + "ipNow()":          `1: "t.Sk` + `ip(": a test,2: "t.Sk` + `ipNow(": a test`,
		"at.Sk" + "ip(":                                     "",
		"Insecure" + "SkipVerify: true":                     `1: "Insecure` + `SkipVerify: true": certificates`,
		"c.Insecure" + "SkipVerify = true\nlast":            `1: "Insecure` + `SkipVerify = true": certificates`,
		"/home" + "/ and on the same line /home" + "/jo\nx": `1: "/home` + `/j": a path`,
	} {
		t.Run(text, func(t *testing.T) {
			got := unwantedIn([]byte(text))
			wants := strings.FieldsFunc(want, func(r rune) bool { return r == ',' })
			if !slices.EqualFunc(got, wants, strings.HasPrefix) {
				t.Errorf("got %q, want %q", got, wants)
			}
		})
	}
}
