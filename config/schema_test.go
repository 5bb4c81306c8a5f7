package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	checker "github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write golden files and the schema anew")

func TestSchemaIsCurrent(t *testing.T) {
	got := generateSchema(t)
	if *update {
		if err := os.WriteFile("postern.schema.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, Schema()) {
		t.Error("postern.schema.json differs from the types; run go test ./config -update")
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	var doc any
	if err := json.Unmarshal(generateSchema(t), &doc); err != nil {
		t.Fatal(err)
	}
	keys := 0
	var walk func(path string, node any)
	walk = func(path string, node any) {
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
	if keys < 80 {
		t.Errorf("got %d keys in the schema, want at least 80", keys)
	}
}

func TestSchemaJudgesAsLoadDoes(t *testing.T) {
	compiled := compileSchema(t)
	for _, c := range []struct {
		name, file string
		want       bool
	}{
		{"the smallest file", "destinations: {alerts: {url: https://hooks.example.com/a}}", true},
		{"every supported key", everyKey, true},
		{"retry none", "destinations: {a: {url: https://a.example, retry: none}}", true},
		{"a status as a number", "destinations: {a: {url: https://a.example, success: [2xx, 204]}}", true},
		{"references for numbers and booleans", `destinations: {a: {url: https://a.example, concurrency: "${env:N}", enabled: "${env:B}", timeout: "${env:D}"}}`, true},
		{"an unknown key", "destinations: {a: {url: https://a.example, timeuot: 3s}}", false},
		{"an unknown section", "destination: {a: {url: https://a.example}}", false},
		{"a number for a text", "destinations: {a: {url: 5}}", false},
		{"a text for a number", "destinations: {a: {url: https://a.example, concurrency: many}}", false},
		{"a number out of range", "destinations: {a: {url: https://a.example, concurrency: 1025}}", false},
		{"a method that is none", "destinations: {a: {url: https://a.example, method: FETCH}}", false},
		{"two kinds of authorization", "destinations: {a: {url: https://a.example, auth: {bearer: {token: x}, api_key: {header: X-K, value: y}}}}", false},
		{"a kind of authorization without its token", "destinations: {a: {url: https://a.example, auth: {bearer: {}}}}", false},
		{"two kinds of retry", "destinations: {a: {url: https://a.example, retry: {schedule: [0s], attempts: 3}}}", false},
		{"another word for retry", "destinations: {a: {url: https://a.example, retry: never}}", false},
		{"a duration without a unit", "destinations: {a: {url: https://a.example, timeout: '30'}}", false},
		{"a size in another unit", "listen: {max_body: 1MB}\ndestinations: {a: {url: https://a.example}}", false},
		{"a name with a space", "destinations: {'a b': {url: https://a.example}}", false},
		{"no destinations", "destinations: {}", false},
		{"tokens of both forms", "listen: {tokens: [0123456789abcdef, {name: shop, token: fedcba9876543210, destinations: [a], events: [a.*], rate: 5/s}]}\ndestinations: {a: {url: https://a.example}}", true},
		{"a token without its name", "listen: {tokens: [{token: 0123456789abcdef}]}\ndestinations: {a: {url: https://a.example}}", false},
		{"a token that is none", "listen: {tokens: [{name: shop}]}\ndestinations: {a: {url: https://a.example}}", false},
		{"a token that may post nowhere", "listen: {tokens: [{name: shop, token: 0123456789abcdef, destinations: []}]}\ndestinations: {a: {url: https://a.example}}", false},
		{"an admin token with bounds", "listen: {admin_tokens: [{name: ops, token: 0123456789abcdef, rate: 5/s}]}\ndestinations: {a: {url: https://a.example}}", false},
		{"a token that is a number", "listen: {tokens: [1234567890123456]}\ndestinations: {a: {url: https://a.example}}", false},
		{"a mode without quotes", "listen: {socket_mode: 0660}\ndestinations: {a: {url: https://a.example}}", true},
		{"a group by its number", "listen: {socket_group: 998}\ndestinations: {a: {url: https://a.example}}", true},
		{"a mode that is none", "listen: {socket_mode: 'rw'}\ndestinations: {a: {url: https://a.example}}", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var doc any
			if err := yaml.Unmarshal([]byte(c.file), &doc); err != nil {
				t.Fatal(err)
			}
			if err := compiled.Validate(doc); (err == nil) != c.want {
				t.Errorf("schema: got %v, want valid %v", err, c.want)
			}
			_, err := Parse("postern.yaml", []byte(c.file), []string{"N=3", "B=true", "D=5s", "TOKEN=a-long-enough-token"})
			if (err == nil) != c.want {
				t.Errorf("Parse: got %v, want valid %v", err, c.want)
			}
		})
	}
}

func compileSchema(t *testing.T) *checker.Schema {
	t.Helper()
	doc, err := checker.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := checker.NewCompiler()
	if err := c.AddResource("postern.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("postern.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// generateSchema makes the schema from the types, their rule tags and their doc comments.
func generateSchema(t *testing.T) []byte {
	t.Helper()
	comments := fieldComments(t)
	r := &jsonschema.Reflector{
		Anonymous: true, FieldNameTag: "yaml", ExpandedStruct: true, RequiredFromJSONSchemaTags: true,
		Mapper: mapScalar,
		LookupComment: func(t reflect.Type, name string) string {
			return comments[t.Name()+"."+name]
		},
	}
	s := r.Reflect(&Config{})
	s.Title = "Postern"
	s.Description = "The config file of Postern, a relay for webhooks."
	s.Definitions["Reference"] = &jsonschema.Schema{
		Type: "string", Pattern: `\$\{`, Description: "A text with ${env:NAME} or ${file:/path} in it.",
	}
	applyRules(s, reflect.TypeFor[Config](), comments)
	s.Required = []string{"destinations"}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[Listen](), reflect.TypeFor[Token](), reflect.TypeFor[AdminToken](), reflect.TypeFor[HTTPS](), reflect.TypeFor[ACME](), reflect.TypeFor[ExternalAccount](), reflect.TypeFor[Store](),
		reflect.TypeFor[Log](), reflect.TypeFor[Tracing](), reflect.TypeFor[Egress](), reflect.TypeFor[Destination](),
		reflect.TypeFor[Auth](), reflect.TypeFor[Bearer](), reflect.TypeFor[Basic](), reflect.TypeFor[APIKey](),
		reflect.TypeFor[OAuth2](), reflect.TypeFor[TLS](), reflect.TypeFor[Sign](), reflect.TypeFor[Standard](),
		reflect.TypeFor[HMAC](), reflect.TypeFor[Timestamped](), reflect.TypeFor[RFC9421](), reflect.TypeFor[Profile](),
		reflect.TypeFor[Expect](), reflect.TypeFor[Retry](), reflect.TypeFor[Breaker](), reflect.TypeFor[Batch](),
		reflect.TypeFor[Keep](),
	} {
		def := s.Definitions[typ.Name()]
		if def == nil {
			t.Fatalf("no definition of %v", typ)
		}
		applyRules(def, typ, comments)
	}
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

func mapScalar(t reflect.Type) *jsonschema.Schema {
	text := func(pattern string) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: pattern}
	}
	switch t {
	case reflect.TypeFor[Secret]():
		return text("")
	case reflect.TypeFor[Secrets]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{text(""), {Type: "array", Items: text("")}}}
	case reflect.TypeFor[Value]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Type: "null"}, {Type: "boolean"}, {Type: "number"}, text(""), {Type: "array"}, {Type: "object"},
		}}
	case reflect.TypeFor[Duration]():
		return text(`^([0-9.]+(ns|us|µs|ms|s|m|h))+$|\$\{`)
	case reflect.TypeFor[Size]():
		return text(`^[0-9]+([KMGT]i)?B$|\$\{`)
	case reflect.TypeFor[Mode]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{text(`^0?[0-7]{3}$|\$\{`), {Type: "integer"}}}
	case reflect.TypeFor[Rate]():
		return text(`^[0-9]+/[smh]$|\$\{`)
	case reflect.TypeFor[netip.Prefix]():
		return text(`^[0-9A-Fa-f.:]+/[0-9]+$|\$\{`)
	case reflect.TypeFor[netip.Addr]():
		return text(`^[0-9A-Fa-f.:]+$|\$\{`)
	}
	return nil
}

// applyRules writes the rules of a struct's fields into its schema.
func applyRules(s *jsonschema.Schema, t reflect.Type, comments map[string]string) {
	for _, f := range fieldsOf(t) {
		property, ok := s.Properties.Get(f.key)
		if !ok {
			panic("no property " + f.key)
		}
		field := t.Field(f.index)
		property.Description = comments[t.Name()+"."+field.Name]
		if f.rules.required {
			s.Required = append(s.Required, f.key)
		}
		applyRule(property, field.Type, f.rules)
		if field.Type.Kind() == reflect.Slice && reflect.PointerTo(field.Type.Elem()).Implements(reflect.TypeFor[worded]()) {
			one := uint64(1)
			property.Items = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string", MinLength: &one}, {Ref: property.Items.Ref}}}
		}
		if reflect.PointerTo(field.Type).Implements(reflect.TypeFor[optional]()) {
			*property = jsonschema.Schema{
				Description: property.Description,
				AnyOf:       []*jsonschema.Schema{{Const: "none"}, {Ref: property.Ref}},
			}
		}
	}
	if reflect.Zero(t).CanInterface() {
		if _, ok := reflect.Zero(t).Interface().(oneOf); ok {
			one := uint64(1)
			s.MinProperties, s.MaxProperties = &one, &one
		}
	}
	if t == reflect.TypeFor[Retry]() {
		s.Not = &jsonschema.Schema{Required: []string{"schedule"}, AnyOf: []*jsonschema.Schema{
			{Required: []string{"attempts"}}, {Required: []string{"first"}}, {Required: []string{"max"}}, {Required: []string{"factor"}},
		}}
	}
}

func applyRule(s *jsonschema.Schema, t reflect.Type, r rules) {
	least, most := count(r.min), count(r.max)
	switch {
	case t == reflect.TypeFor[Secrets]():
		s.AnyOf[1].MinItems, s.AnyOf[1].MaxItems = least, most
	case t.Kind() == reflect.Slice:
		s.MinItems, s.MaxItems = least, most
		if r.number {
			s.Items = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "integer"}}}
		}
	case t.Kind() == reflect.Map:
		s.MaxProperties = most
		if t.Elem() == reflect.TypeFor[*Destination]() {
			one := uint64(1)
			s.MinProperties = &one
			s.PropertyNames = &jsonschema.Schema{Pattern: destinationName.String()}
		}
	case t.Kind() == reflect.Int, t.Kind() == reflect.Float64, t.Kind() == reflect.Bool:
		literal := &jsonschema.Schema{Type: s.Type, Minimum: json.Number(r.min), Maximum: json.Number(r.max)}
		for _, word := range r.enum {
			literal.Enum = append(literal.Enum, json.Number(word))
		}
		s.Type = ""
		s.AnyOf = []*jsonschema.Schema{literal, {Ref: "#/$defs/Reference"}}
	case len(r.enum) > 0:
		s.Type = ""
		words := make([]any, len(r.enum))
		for i, word := range r.enum {
			words[i] = word
		}
		s.AnyOf = []*jsonschema.Schema{{Enum: words}, {Ref: "#/$defs/Reference"}}
	case t.Kind() == reflect.String && r.number:
		one := uint64(1)
		s.Type = ""
		s.AnyOf = []*jsonschema.Schema{{Type: "string", MinLength: &one}, {Type: "integer"}}
	case t.Kind() == reflect.String && !r.empty:
		one := uint64(1)
		s.MinLength = &one
	}
	if r.def == "" {
		return
	}
	switch t.Kind() {
	case reflect.Slice:
		words := []any{}
		for word := range strings.SplitSeq(r.def, ",") {
			words = append(words, word)
		}
		s.Default = words
	case reflect.Int, reflect.Float64, reflect.Bool:
		s.Default = json.RawMessage(r.def)
	default:
		s.Default = r.def
	}
}

func count(text string) *uint64 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil
	}
	return &n
}

// fieldComments returns the doc comments of the config's fields by Type.Field.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	comments := map[string]string{}
	for _, name := range []string{"types.go", "listen.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		noteFields(comments, file)
	}
	return comments
}

func noteFields(comments map[string]string, file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if st, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range st.Fields.List {
				for _, name := range f.Names {
					comments[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
		}
		return true
	})
}
