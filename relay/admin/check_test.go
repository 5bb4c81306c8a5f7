package admin_test

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/postern-relay/postern/relay/admin"
)

// checker holds answers against the description.
type checker struct {
	doc      map[string]any
	compiler *jsonschema.Compiler

	mu   sync.Mutex      // guards the field below
	seen map[string]bool // operations that have answered with success
}

func newChecker(t testing.TB) *checker {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(admin.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	// An answer must hold nothing that is not described, though the description leaves room for later keys.
	var closeAll func(node any)
	closeAll = func(node any) {
		switch node := node.(type) {
		case map[string]any:
			if _, ok := node["properties"]; ok {
				node["additionalProperties"] = false
			}
			for _, inner := range node {
				closeAll(inner)
			}
		case []any:
			for _, inner := range node {
				closeAll(inner)
			}
		}
	}
	closeAll(doc)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return &checker{doc: doc.(map[string]any), compiler: compiler, seen: map[string]bool{}}
}

// operation returns the operation of a request and where it is in the description, or nothing.
func (c *checker) operation(method, path string) (op map[string]any, pointer string) {
	for template, item := range c.doc["paths"].(map[string]any) {
		parts, want := strings.Split(path, "/"), strings.Split(template, "/")
		same := len(parts) == len(want)
		for i := 0; same && i < len(parts); i++ {
			same = parts[i] == want[i] || want[i][:min(1, len(want[i]))] == "{" && parts[i] != ""
		}
		if op, ok := item.(map[string]any)[strings.ToLower(method)].(map[string]any); same && ok {
			return op, "/paths/" + strings.ReplaceAll(template, "/", "~1") + "/" + strings.ToLower(method)
		}
	}
	return nil, ""
}

func (c *checker) answer(t testing.TB, req *http.Request, resp *http.Response, raw []byte) {
	t.Helper()
	for _, key := range []string{"Cache-Control", "X-Content-Type-Options"} {
		if want := map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}[key]; resp.Header.Get(key) != want {
			t.Errorf("%s %s: got %s %q, want %q", req.Method, req.URL.Path, key, resp.Header.Get(key), want)
		}
	}
	op, pointer := c.operation(req.Method, req.URL.EscapedPath())
	schema := "/components/schemas/Problem"
	media := resp.Header.Get("Content-Type")
	if op == nil && resp.StatusCode < 400 {
		t.Errorf("%s %s: got %d, want only what is described to be answered", req.Method, req.URL.Path, resp.StatusCode)
		return
	}
	if op != nil {
		response, ok := op["responses"].(map[string]any)[strconv.Itoa(resp.StatusCode)].(map[string]any)
		if !ok {
			t.Errorf("%s %s: the status %d is not described", req.Method, req.URL.Path, resp.StatusCode)
			return
		}
		if resp.StatusCode == http.StatusOK {
			content, ok := response["content"].(map[string]any)[media].(map[string]any)
			if !ok {
				t.Errorf("%s %s: the type %q is not described", req.Method, req.URL.Path, media)
				return
			}
			c.mu.Lock()
			c.seen[op["operationId"].(string)] = true
			c.mu.Unlock()
			if media != "application/json" {
				return
			}
			if _, ok := content["schema"]; !ok {
				t.Fatalf("%s %s: no schema", req.Method, req.URL.Path)
			}
			schema = pointer + "/responses/200/content/application~1json/schema"
		}
	}
	if resp.StatusCode >= 400 && media != "application/problem+json" {
		t.Errorf("%s %s: got %d of type %q, want a problem", req.Method, req.URL.Path, resp.StatusCode, media)
	}
	compiled, err := c.compiler.Compile("openapi.json#" + strings.ReplaceAll(strings.ReplaceAll(schema, "{", "%7B"), "}", "%7D"))
	if err != nil {
		t.Fatalf("compile %s: %v", schema, err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Errorf("%s %s: %v in %q", req.Method, req.URL.Path, err, raw)
		return
	}
	if err := compiled.Validate(value); err != nil {
		t.Errorf("%s %s: the answer is not as described: %v\n%s", req.Method, req.URL.Path, err, raw)
	}
}

// operations returns the ids of all operations, sorted.
func (c *checker) operations() []string {
	var ids []string
	for _, item := range c.doc["paths"].(map[string]any) {
		for _, op := range item.(map[string]any) {
			ids = append(ids, op.(map[string]any)["operationId"].(string))
		}
	}
	slices.Sort(ids)
	return ids
}
