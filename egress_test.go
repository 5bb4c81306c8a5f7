package postern_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ownClients lists the files outside relay/guard that make a client or a connection by themselves, each with the
// reason why the guard's rules are not for it. None of them reaches a target of the config.
var ownClients = map[string]string{
	"relay/admin/client.go":             "commands ask the relay at its admin address, usually on loopback or a Unix socket, which the guard refuses",
	"relay/egress/oauth2_fetch.go":      "the client wraps the transport of the one it is given, which is the guard's, to bound the answer",
	"relay/listen/bind.go":              "a Unix socket is asked whether another process serves it",
	"relay/listen/acmetest/acmetest.go": "for tests: it asks the authority that it has started, on loopback",
	"cmd/postern/doctor_listen.go":      "a Unix socket of the config is asked whether somebody serves it",
	"relay/doctor_https.go":             "the https listener of this machine is asked for the certificate that it shows",
	"cmd/postern/notify.go":             "systemd is told of the start and the stop by its Unix socket",
	"cmd/postern/demo.go":               "the demo's receivers are Unix sockets of the same process",
	"cmd/postern/demo_app.go":           "the demo's app posts to its relay on loopback",
	"examples/clients/post.go":          "shows how an app posts to the Postern beside it, with nothing but the standard library",
	"cmd/postern-bench/clients.go":      "the benchmark measures a relay from outside, and its bounds post to the same receiver on loopback",
}

// clientMakers are the names by which the standard library makes clients and connections, or lends its own. Types
// count where a value of them is made, functions and variables wherever they are named.
var clientMakers = map[string]struct{ types, names []string }{
	"net/http": {
		types: []string{"Client", "Transport"},
		names: []string{"DefaultClient", "DefaultTransport", "Get", "Head", "Post", "PostForm"},
	},
	"net": {
		types: []string{"Dialer", "Resolver"},
		names: []string{
			"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialUnix", "DialIP", "DefaultResolver", "LookupHost", "LookupIP", "LookupAddr",
			"LookupCNAME", "LookupMX", "LookupNS", "LookupPort", "LookupSRV", "LookupTXT", "ResolveTCPAddr", "ResolveUDPAddr", "ResolveIPAddr",
		},
	},
	"crypto/tls": {types: []string{"Dialer"}, names: []string{"Dial", "DialWithDialer"}},
	"net/rpc":    {names: []string{"Dial", "DialHTTP", "DialHTTPPath"}},
	"net/smtp":   {names: []string{"Dial", "SendMail"}},
	"log/syslog": {names: []string{"Dial", "New", "NewLogger"}},
	// certmagic's own issuer has a client of its own, and its conveniences use that issuer.
	"github.com/caddyserver/certmagic": {names: []string{
		"NewACMEIssuer", "DefaultACME", "Default", "NewDefault", "HTTPS", "TLS", "Listen", "Manage", "ManageSync", "ManageAsync",
	}},
	"net/http/httputil": {types: []string{"ReverseProxy"}, names: []string{"NewSingleHostReverseProxy"}},
}

// TestOneWayOut holds T8: whatever goes to the outside is made by relay/guard, so that the rules on scheme, port,
// address, redirects and certificates hold for it.
func TestOneWayOut(t *testing.T) {
	fset, files := sources(t)
	met := map[string]bool{}
	guarded := false
	for _, f := range files {
		if f.test {
			continue
		}
		found := clientsMade(f.ast)
		switch {
		case f.pkg == "relay/guard":
			guarded = guarded || len(found) > 0
		case len(found) > 0 && ownClients[f.name] != "":
			met[f.name] = true
		default:
			for _, n := range found {
				t.Errorf("%s: %s; take a client of relay/guard, or add the file to ownClients with a reason", position(fset, n.Node), n.what)
			}
		}
	}
	if !guarded {
		t.Error("relay/guard makes no client: this tests nothing")
	}
	for name := range ownClients {
		if !met[name] {
			t.Errorf("%s makes no client of its own; take it out of ownClients", name)
		}
	}
}

// made is a place where a client or connection is made.
type made struct {
	ast.Node
	what string
}

// clientsMade finds the uses of clientMakers in a file, under whatever name it imports their packages.
func clientsMade(f *ast.File) []made {
	packages := map[string]string{} // name in the file → import path
	var found []made
	for _, spec := range f.Imports {
		importPath, err := strconv.Unquote(spec.Path.Value)
		if _, watched := clientMakers[importPath]; err != nil || !watched {
			continue
		}
		name := path.Base(importPath)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." {
			found = append(found, made{spec, "a dot import hides what is used of " + importPath})
		}
		packages[name] = importPath
	}
	// watched returns what an expression is called, if it is a type or a name of clientMakers.
	watched := func(e ast.Expr, isType bool) (string, bool) {
		selector, ok := e.(*ast.SelectorExpr)
		if !ok {
			return "", false
		}
		pkg, ok := selector.X.(*ast.Ident)
		if !ok {
			return "", false
		}
		makers := clientMakers[packages[pkg.Name]]
		list := makers.names
		if isType {
			list = makers.types
		}
		return packages[pkg.Name] + "." + selector.Sel.Name, slices.Contains(list, selector.Sel.Name)
	}
	value := func(n ast.Node, typ ast.Expr) {
		if what, is := watched(typ, true); is {
			found = append(found, made{n, what + " is made"})
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			value(n, n.Type)
			switch list := n.Type.(type) { // the type of elements is left out
			case *ast.ArrayType:
				value(n, list.Elt)
			case *ast.MapType:
				value(n, list.Value)
			}
		case *ast.ValueSpec:
			value(n, n.Type)
		case *ast.Field: // of a struct, or a parameter: its zero value is ready for use
			value(n, n.Type)
		case *ast.CallExpr:
			if fun, ok := n.Fun.(*ast.Ident); ok && fun.Name == "new" && len(n.Args) == 1 {
				value(n, n.Args[0])
			}
		case *ast.SelectorExpr:
			if what, is := watched(n, false); is {
				found = append(found, made{n, what + " is used"})
			}
		}
		return true
	})
	return found
}

func TestClientsMade(t *testing.T) {
	for _, tc := range []struct {
		name, source string
		want         int
	}{
		{"a client is found", `import "net/http"; var c = &http.Client{}`, 1},
		{"a transport is found", `import "net/http"; var c = http.Transport{}`, 1},
		{"a client of another name is found", `import web "net/http"; var c = web.Client{}`, 1},
		{"the default client is found", `import "net/http"; var c = http.DefaultClient`, 1},
		{"a function is found", `import "net/http"; func f() { http.Get("x") }`, 1},
		{"a function as a value is found", `import "net"; var dial = net.Dial`, 1},
		{"a variable is found", `import "net"; func f() { var d net.Dialer; d.Dial("tcp", "x") }`, 1},
		{"a field is found", `import "net"; type t struct { net.Dialer; d net.Dialer }`, 2},
		{"new is found", `import "crypto/tls"; var d = new(tls.Dialer)`, 1},
		{"a list is found", `import "net"; var d = []net.Dialer{{}}`, 1},
		{"a dot import is found", `import . "net/http"; var c = Client{}`, 1},
		{"a look-up is found", `import "net"; func f() { net.LookupHost("x"); net.DefaultResolver.LookupHost(nil, "x") }`, 2},
		{"certmagic's own issuer is found", `import "github.com/caddyserver/certmagic"; var i = certmagic.NewACMEIssuer(nil, t)`, 1},
		{"a pointer that someone else filled is none", `import "net/http"; type t struct { c *http.Client }; func f(c *http.Client) {}`, 0},
		{"a server is none", `import "net/http"; var s = &http.Server{}`, 0},
		{"a listener is none", `import "net"; func f() { net.Listen("tcp", "x") }`, 0},
		{"another package of that name is none", `import "example.com/http"; var c = http.Client{}`, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n\n"+tc.source, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := clientsMade(f); len(got) != tc.want {
				t.Errorf("got %v, want %d", got, tc.want)
			}
		})
	}
	t.Run("each exception has a reason", func(t *testing.T) {
		for name, reason := range ownClients {
			if len(strings.Fields(reason)) < 5 {
				t.Errorf("%s: %q is no reason", name, reason)
			}
		}
	})
}
