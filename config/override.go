package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

const prefix = "POSTERN_"

// notOurs are variables that exist for another reason: POSTERN_CONFIG names the file, and Kubernetes describes a
// service called postern to every container.
var notOurs = regexp.MustCompile(`^POSTERN_CONFIG$|_SERVICE_(HOST|PORT)(_|$)|_PORT(_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)?$`)

// envReference finds the variables that the file refers to; its braces are shielded.
var envReference = regexp.MustCompile(`\$[^:]env:([A-Za-z_][A-Za-z0-9_]*)`)

// override puts the values of POSTERN_ variables into the document: POSTERN_STORE_PATH for store.path, and
// POSTERN_DESTINATIONS_ALERTS_URL for the url of a destination that is in the file, whose name is written in
// capitals, with an underscore for what is neither letter nor digit. Only values of one word can be set so, not those in
// lists, and headers. It is as if the key stood in the file: what replaces an inherited mapping there does so here too.
// An empty variable counts as not set. The value is taken as it is, without references.
func (d *decoder) override(root *yaml.Node, text string) {
	ours := map[string]string{}
	for name, value := range d.environ {
		if strings.HasPrefix(name, prefix) && value != "" && !notOurs.MatchString(name) {
			ours[name] = value
		}
	}
	if len(ours) == 0 {
		return
	}
	referenced := map[string]bool{}
	for _, match := range envReference.FindAllStringSubmatch(text, -1) {
		referenced[match[1]] = true
	}
	known := variables(root)
	names := slices.Sorted(maps.Keys(known))
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		paths := known[name]
		at := place{file: name}
		switch {
		case len(paths) == 1:
			if !d.inject(root, paths[0], name, ours[name]) {
				d.src.report(at, strings.Join(paths[0], "."), "the file has no mapping to set this in; correct the file")
			}
		case len(paths) > 1:
			d.src.report(at, "", fmt.Sprintf("ambiguous, it could be %s or %s; set the key in the file",
				strings.Join(paths[0], "."), strings.Join(paths[1], ".")))
		case referenced[name]:
		default:
			near := Nearest(name, names)
			switch {
			case near != "" && distance(name, near, 4) < 4:
				d.src.report(at, "", fmt.Sprintf("no key has this variable; did you mean %s?", near))
			case isSection(name):
				d.src.report(at, "", "no key has this variable; unset it, or write the key in the file")
			}
		}
	}
}

// isSection reports whether a variable begins like one for a section of the file.
func isSection(name string) bool {
	for _, f := range fieldsOf(reflect.TypeFor[Config]()) {
		if strings.HasPrefix(name, variable(f.key)+"_") {
			return true
		}
	}
	return false
}

// variable returns the name of the variable for a path.
func variable(path ...string) string {
	return prefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, strings.Join(path, "_"))
}

// variables returns the paths that each variable could stand for.
func variables(root *yaml.Node) map[string][][]string {
	known := map[string][][]string{}
	add := func(path []string) {
		name := variable(path...)
		known[name] = append(known[name], path)
	}
	leaves(reflect.TypeFor[Config](), nil, add)
	destinations := child(root, "destinations")
	if destinations == nil || follow(destinations).Kind != yaml.MappingNode {
		return known
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(follow(destinations).Content); i += 2 {
		name := follow(destinations).Content[i].Value
		if destinationName.MatchString(name) && !seen[name] && len(seen) <= 4095 {
			seen[name] = true
			leaves(reflect.TypeFor[Destination](), []string{"destinations", name}, add)
		}
	}
	return known
}

// leaves calls add with the path of each key of one word.
func leaves(t reflect.Type, path []string, add func([]string)) {
	for _, f := range fieldsOf(t) {
		ft := t.Field(f.index).Type
		key := append(slices.Clone(path), f.key)
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if reflect.PointerTo(ft).Implements(reflect.TypeFor[optional]()) {
			add(key) // the word none
		}
		switch {
		case isScalar(ft), ft == reflect.TypeFor[Secrets]():
			add(key)
		case ft.Kind() == reflect.Struct:
			leaves(ft, key, add)
		}
	}
}

// inject sets the value at a path, making the mappings on the way. It fails when something else is in the way.
func (d *decoder) inject(n *yaml.Node, path []string, name, value string) bool {
	for i, key := range path {
		at := index(n, key)
		if at < 0 {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, nil)
			at = len(n.Content) - 1
		}
		if i == len(path)-1 {
			node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
			d.overrides[node] = name
			n.Content[at] = node
			return true
		}
		next := n.Content[at]
		switch {
		case next == nil || isNull(follow(next)):
			next = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		case follow(next).Kind != yaml.MappingNode:
			return false
		case next.Kind == yaml.AliasNode:
			// What is set here must not show up wherever the same anchor is used.
			shared := *next.Alias
			shared.Content = slices.Clone(shared.Content)
			next = &shared
		}
		n.Content[at] = next
		n = next
	}
	return false
}

// index returns where the value of a key is in the content of a mapping, or -1.
func index(n *yaml.Node, key string) int {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.ScalarNode && n.Content[i].Value == key {
			return i + 1
		}
	}
	return -1
}

func child(n *yaml.Node, key string) *yaml.Node {
	if i := index(n, key); i >= 0 {
		return n.Content[i]
	}
	return nil
}
