package postern_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/postern-relay/postern/config"
)

var update = flag.Bool("update", false, "write anew what is made from the code: the tables in docs/configuration.md and docs/metrics.md, and testdata/metrics.txt")

const (
	tableBegin = "<!-- The rest is written by a test from the schema and the examples: go test -run TestConfigurationReference -update . -->\n"
	reference  = "docs/configuration.md"
)

// TestConfigurationReference holds the table of keys against the schema and the examples.
func TestConfigurationReference(t *testing.T) {
	raw, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	intro, _, ok := strings.Cut(string(raw), tableBegin)
	if !ok {
		t.Fatalf("%s has no line %s", reference, tableBegin)
	}
	want := intro + tableBegin + "\n" + keyTables(t)
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(raw) != want {
		t.Errorf("%s does not match the schema and the examples; run go test -run TestConfigurationReference -update .", reference)
	}
}

// property is what the tables need of a JSON Schema.
type property struct {
	Ref                  string `json:"$ref"`
	Type                 string
	Description          string
	Default              any
	Items                *property
	AnyOf                []*property
	AdditionalProperties json.RawMessage
	Properties           json.RawMessage
}

// nested returns the name of the definition that a key's mapping has, and how its path goes on.
func (p property) nested() (def, infix string) {
	name := func(ref string) string { return strings.TrimPrefix(ref, "#/$defs/") }
	switch {
	case p.Ref != "":
		return name(p.Ref), ""
	case p.Items != nil && p.Items.Ref != "":
		return name(p.Items.Ref), "[]"
	case p.Items != nil: // a text or a mapping
		for _, option := range p.Items.AnyOf {
			if option.Ref != "" {
				return name(option.Ref), "[]"
			}
		}
	}
	for _, option := range p.AnyOf {
		if option.Ref != "" && option.Ref != "#/$defs/Reference" {
			return name(option.Ref), ""
		}
	}
	var entries property
	if json.Unmarshal(p.AdditionalProperties, &entries) == nil && entries.Ref != "" {
		return name(entries.Ref), ".NAME"
	}
	return "", ""
}

type member struct {
	key string
	property
}

// members returns the properties of a schema in its order.
func members(t *testing.T, raw json.RawMessage) []member {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // 1000000 is not to become 1e+06
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	var list []member
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var p property
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		list = append(list, member{key.(string), p})
	}
	return list
}

// keyTables writes a table for each mapping of the config file.
func keyTables(t *testing.T) string {
	t.Helper()
	var schema struct {
		Properties json.RawMessage
		Defs       map[string]property `json:"$defs"`
	}
	if err := json.Unmarshal(config.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	users := keysInExamples(t)
	var out strings.Builder
	var table func(path, about string, list []member)
	table = func(path, about string, list []member) {
		type section struct{ path, about, def string }
		var further []section
		rows := 0
		for _, m := range list {
			full := strings.TrimPrefix(path+"."+m.key, ".")
			if full == "defaults" || strings.Contains(m.Description, "Not supported yet") {
				continue
			}
			if def, infix := m.nested(); def != "" {
				further = append(further, section{full + infix, m.Description, def})
				continue
			}
			if rows++; rows == 1 {
				fmt.Fprintf(&out, "## `%s`\n\n%s\n\n| key | default | meaning | example |\n| --- | --- | --- | --- |\n", path, about)
			}
			fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", m.key, defaultText(t, m.Default), cell(m.Description), strings.Join(users[full], ", "))
		}
		if rows > 0 {
			out.WriteString("\n")
		}
		for _, s := range further {
			table(s.path, s.about, members(t, schema.Defs[s.def].Properties))
		}
	}
	table("", "", members(t, schema.Properties))
	return strings.TrimSuffix(out.String(), "\n")
}

func defaultText(t *testing.T, value any) string {
	t.Helper()
	if value == nil {
		return ""
	}
	if list, ok := value.([]any); ok {
		words := make([]string, len(list))
		for i, item := range list {
			words[i] = fmt.Sprint(item)
		}
		return "`[" + strings.Join(words, ", ") + "]`"
	}
	return fmt.Sprintf("`%v`", value)
}

func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }

// keysInExamples returns, for each key as the tables spell it, links to the examples that use it.
func keysInExamples(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("examples", "*", "postern.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	users := map[string][]string{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := yaml.Unmarshal(raw, &doc); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		name := filepath.Base(filepath.Dir(file))
		link := fmt.Sprintf("[%s](../examples/%s/postern.yaml)", name, name)
		for _, key := range keysOf("", doc) {
			if !slices.Contains(users[key], link) {
				users[key] = append(users[key], link)
			}
		}
	}
	return users
}

// keysOf returns the paths of all keys in a document, with NAME for the names of destinations.
func keysOf(path string, v any) []string {
	var keys []string
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			full := strings.TrimPrefix(path+"."+key, ".")
			switch {
			case path == "destinations":
				full = "destinations.NAME"
			case full == "defaults":
				full = "destinations.NAME" // its keys are those of a destination
			}
			keys = append(keys, full)
			keys = append(keys, keysOf(full, value)...)
		}
	case []any:
		for _, item := range v {
			keys = append(keys, keysOf(path+"[]", item)...)
		}
	}
	return keys
}
