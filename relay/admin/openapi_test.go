package admin

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
)

var update = flag.Bool("update", false, "write the description of the API anew")

func TestDescriptionIsCurrent(t *testing.T) {
	got := describe(t)
	if *update {
		if err := os.WriteFile("openapi.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, OpenAPI()) {
		t.Error("openapi.json differs from the operations and their types; run go test ./relay/admin -run TestDescriptionIsCurrent -update")
	}
}

func TestEverythingIsDescribed(t *testing.T) {
	var doc any
	if err := json.Unmarshal(OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	keys := 0
	var walk func(path string, node any)
	walk = func(path string, node any) {
		if list, ok := node.([]any); ok {
			for i, inner := range list {
				walk(path+"["+strconv.Itoa(i)+"]", inner)
			}
			return
		}
		object, ok := node.(map[string]any)
		if !ok {
			return
		}
		if properties, ok := object["properties"].(map[string]any); ok {
			for key, property := range properties {
				keys++
				description, _ := property.(map[string]any)["description"].(string)
				if !strings.HasSuffix(description, ".") || strings.Contains(description, "\n") {
					t.Errorf("%s.%s: got description %q, want sentences on one line", path, key, description)
				}
			}
		}
		for key, inner := range object {
			walk(path+"."+key, inner)
		}
	}
	walk("", doc)
	if keys < 120 {
		t.Errorf("got %d keys, want at least 120", keys)
	}
}

type object = map[string]any

// describe makes the description from the operations, their types, and the comments of these.
func describe(t *testing.T) []byte {
	t.Helper()
	types := &typeBook{schemas: object{}, comments: comments(t)}
	paths := object{}
	for _, op := range operations() {
		path, _ := paths[op.path].(object)
		if path == nil {
			path = object{}
			paths[op.path] = path
		}
		path[strings.ToLower(op.method)] = types.operation(op)
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Postern admin API", "version": "1",
			"description": "History and steering of a Postern relay. Times are RFC 3339 in UTC. Durations are seconds, sizes " +
				"bytes. Where the relay has admin tokens, each request carries one as a bearer token. A refusal is a problem " +
				"(RFC 9457) whose detail says what to do. Parameters and keys that are not known are refused.",
		},
		"servers": []any{object{"url": "/"}},
		"paths":   paths,
		"components": object{
			"schemas":         types.schemas,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}},
			"responses": object{"Problem": object{
				"description": "The request is refused; detail says what to do.",
				"content":     object{"application/problem+json": object{"schema": types.ref(reflect.TypeFor[problemBody]())}},
			}},
		},
		"security": []any{object{}, object{"token": []any{}}},
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// problemBody is the form of every refusal (RFC 9457).
type problemBody struct {
	// Type is always about:blank.
	Type string `json:"type"`
	// Title of the status.
	Title string `json:"title"`
	// Status of the answer.
	Status int `json:"status"`
	// Detail says what is wrong and what to do.
	Detail string `json:"detail,omitempty"`
	// Errors of the config file, after a reload that was refused.
	Errors []ConfigFault `json:"errors,omitempty"`
}

// typeBook collects the schemas of Go types.
type typeBook struct {
	schemas  object
	comments map[string]string
	closed   bool // whether the schemas that are made allow no further keys
}

func (b *typeBook) operation(op operation) object {
	out := object{"operationId": op.id, "summary": op.summary}
	if op.detail != "" {
		out["description"] = op.detail
	}
	var parameters []any
	if name := op.parameter(); name != "" {
		parameters = append(parameters, object{
			"name": name, "in": "path", "required": true, "schema": object{"type": "string"},
			"description": map[string]string{"name": "The name of a destination.", "id": "The id of a delivery or a message."}[name],
		})
	}
	query := b.schema(op.query)
	for _, key := range keysOf(op.query) {
		property := query["properties"].(object)[key].(object)
		description := property["description"]
		delete(property, "description")
		parameters = append(parameters, object{"name": key, "in": "query", "description": description, "schema": property})
	}
	if parameters != nil {
		out["parameters"] = parameters
	}
	if op.body != reflect.TypeFor[none]() {
		b.closed = true // what is not known is refused in a request, and may be added to an answer
		out["requestBody"] = object{"content": object{jsonType: object{"schema": b.ref(op.body)}}}
		b.closed = false
	}
	content := object{"schema": object{"type": "string"}}
	media := op.media
	switch {
	case op.answer != nil:
		content, media = object{"schema": b.ref(op.answer)}, jsonType
	case media == jsonType:
		content = object{"schema": object{"type": "object"}}
	case media == rawType:
		content = object{}
	}
	responses := object{"200": object{"description": "What was asked for.", "content": object{media: content}}}
	for _, status := range slices.Concat([]int{400, 408, 413, 500, 503}, op.refusals) {
		responses[strconv.Itoa(status)] = object{"$ref": "#/components/responses/Problem"}
	}
	responses["default"] = object{"$ref": "#/components/responses/Problem"} // of the listener, which lets requests in
	out["responses"] = responses
	return out
}

// ref returns a reference to the schema of a struct, which it adds if it is not there.
func (b *typeBook) ref(t reflect.Type) object {
	name := title(t.Name())
	if _, ok := b.schemas[name]; !ok {
		b.schemas[name] = nil // so that it is made once, if it holds itself
		schema := b.schema(t)
		if text := b.comments[t.Name()]; text != "" {
			schema["description"] = named(text, t.Name(), name)
		}
		b.schemas[name] = schema
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// schema returns the schema of a struct. What it holds is added to the book.
func (b *typeBook) schema(t reflect.Type) object {
	r := &jsonschema.Reflector{
		Anonymous: true, ExpandedStruct: true, AllowAdditionalProperties: !b.closed,
		Mapper: func(inner reflect.Type) *jsonschema.Schema {
			if inner.Kind() == reflect.Struct && inner != t && inner.PkgPath() == t.PkgPath() && !embedded(t, inner) {
				return &jsonschema.Schema{Ref: b.ref(inner)["$ref"].(string)}
			}
			return nil
		},
		LookupComment: func(owner reflect.Type, field string) string {
			if field == "" {
				return ""
			}
			return b.comments[owner.Name()+"."+field]
		},
	}
	encoded, err := json.Marshal(r.ReflectFromType(t))
	if err != nil {
		panic(err)
	}
	schema := object{}
	if err := json.Unmarshal(encoded, &schema); err != nil {
		panic(err)
	}
	delete(schema, "$schema")
	delete(schema, "$defs")
	if properties, ok := schema["properties"].(object); ok {
		b.finish(t, properties)
	}
	return schema
}

// finish moves descriptions to where they belong and adds what the reflector leaves out.
func (b *typeBook) finish(t reflect.Type, properties object) {
	for i := range t.NumField() {
		field := t.Field(i)
		if field.Anonymous {
			b.finish(field.Type, properties)
			continue
		}
		key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		property, ok := properties[key].(object)
		if !ok {
			continue
		}
		if text := b.comments[t.Name()+"."+field.Name]; text != "" {
			if list, ok := property["oneOf"].([]any); ok {
				delete(list[0].(object), "description")
			}
			property["description"] = named(text, field.Name, key)
		}
		if field.Type == reflect.TypeFor[json.RawMessage]() {
			property["type"] = []any{"object", "null"}
		}
	}
}

// named returns a comment with the name that the reader knows in place of the one in the code.
func named(comment, code, known string) string {
	if rest, ok := strings.CutPrefix(comment, code+" "); ok {
		return known + " " + rest
	}
	return comment
}

func embedded(outer, inner reflect.Type) bool {
	for i := range outer.NumField() {
		f := outer.Field(i)
		if f.Anonymous && (f.Type == inner || embedded(f.Type, inner)) {
			return true
		}
	}
	return false
}

func title(name string) string {
	if name == "problemBody" {
		return "Problem"
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

// comments returns the doc comments of the package's structs, by Type, and of their fields, by Type.Field.
func comments(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				continue
			}
			for _, s := range gen.Specs {
				spec := s.(*ast.TypeSpec)
				st, ok := spec.Type.(*ast.StructType)
				if !ok {
					continue
				}
				out[spec.Name.Name] = strings.Join(strings.Fields(gen.Doc.Text()), " ")
				for _, f := range st.Fields.List {
					for _, n := range f.Names {
						out[spec.Name.Name+"."+n.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
					}
				}
			}
		}
	}
	return out
}
