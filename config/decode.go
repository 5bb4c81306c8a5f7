package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// optional is implemented by mappings that the word none can stand in place of.
type optional interface {
	setNone()
	isNone() bool
	example() string // of a mapping, for an error
}

func isOptional(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(optional)
	return ok
}

// worded is implemented by mappings that one of their texts can stand in place of.
type worded interface {
	word() *Secret
}

func isWorded(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(worded)
	return ok
}

// oneOf is implemented by mappings of which exactly one key may be set. It returns what the keys are.
type oneOf interface{ oneOf() string }

// value decodes a node into v. What it cannot decode leaves v as it is, and is reported.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, r rules) {
	if d.nodes > maxNodes {
		return
	}
	if d.nodes++; d.nodes > maxNodes {
		d.src.fail(d.at(n), path, "the file has too many values; write fewer, also by aliases")
		return
	}
	n = follow(n)
	switch {
	case isOptional(v) && n.Kind == yaml.ScalarNode:
		d.noneWord(n, v, path)
	case isWorded(v) && n.Kind == yaml.ScalarNode && !isNull(n):
		d.scalar(n, reflect.ValueOf(v.Addr().Interface().(worded).word()).Elem(), path, r)
	case v.Type() == reflect.TypeFor[Value]():
		d.json(n, v, path)
	case v.Kind() == reflect.Pointer && isScalar(v.Type().Elem()) && !isNull(n):
		p := reflect.New(v.Type().Elem())
		d.scalar(n, p.Elem(), path, r)
		v.Set(p)
	case v.Type() == reflect.TypeFor[Secrets]() && n.Kind == yaml.ScalarNode: // nothing is a fault, not a secret less
		one := make(Secrets, 1)
		d.scalar(n, reflect.ValueOf(&one).Elem().Index(0), path, r)
		v.Set(reflect.ValueOf(one))
	case isScalar(v.Type()):
		d.scalar(n, v, path, r)
	case isNull(n) && v.Kind() != reflect.Struct && v.Kind() != reflect.Map:
		v.SetZero()
	case isNull(n):
	case v.Kind() == reflect.Pointer:
		if !d.isMapping(n, path) {
			return
		}
		p := reflect.New(v.Type().Elem())
		setDefaults(p.Elem())
		d.structure(n, p.Elem(), path)
		v.Set(p)
	case v.Kind() == reflect.Struct:
		if d.isMapping(n, path) {
			d.structure(n, v, path)
		}
	case v.Kind() == reflect.Map:
		if d.isMapping(n, path) {
			d.mapping(n, v, path, r)
		}
	case v.Kind() == reflect.Slice:
		d.list(n, v, path, r)
	}
}

// follow returns the node that an alias stands for, or the node itself.
func follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func (d *decoder) isMapping(n *yaml.Node, path string) bool {
	if n.Kind == yaml.MappingNode && n.ShortTag() == "!!map" {
		return true
	}
	d.src.fail(d.src.placeOf(path, d.at(n)), path, fmt.Sprintf("must be a mapping of keys, not %s", kindOf(n)))
	return false
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode && n.ShortTag() == "!!map":
		return "a mapping"
	case n.Kind == yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!str":
			return "text"
		case "!!int", "!!float":
			return "a number"
		case "!!bool":
			return "true or false"
		case "!!timestamp":
			return "a date"
		case "!!null":
			return "nothing"
		}
	}
	return "a value with a tag of its own"
}

// pair is a key of a mapping node and its value.
type pair struct {
	key   string
	at    place // of the key
	value *yaml.Node
}

// pairs returns the keys of a mapping in the order of the file. Duplicates are reported and left out.
func (d *decoder) pairs(n *yaml.Node, path string) []pair {
	list := make([]pair, 0, len(n.Content)/2)
	first := map[string]place{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		at := d.at(k)
		if name, ok := d.overrides[value]; ok {
			at = place{file: name}
		}
		switch {
		case k.Kind == yaml.ScalarNode && k.Value == "<<":
			d.src.report(at, join(path, k.Value), "merge keys are not supported; write shared keys under defaults")
			continue
		case k.Kind != yaml.ScalarNode || isNull(k):
			d.src.report(at, path, "a key must be text")
			continue
		}
		key := d.text(k.Value)
		if earlier, ok := first[key]; ok {
			what := "key"
			if path == "destinations" {
				what = "destination"
			}
			d.src.report(at, join(path, shownName(key)), fmt.Sprintf("duplicate %s; it stands in line %d already, remove or rename one", what, earlier.line))
			continue
		}
		first[key] = at
		list = append(list, pair{key: key, at: at, value: value})
	}
	return list
}

// structure decodes a mapping with fixed keys.
func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	fields := d.fieldsOf(v.Type())
	pairs := d.pairs(n, path)
	byKey := make(map[string]pair, len(pairs))
	for _, p := range pairs {
		byKey[p.key] = p
		if !hasField(fields, p.key) && !d.src.full() {
			d.src.report(p.at, join(path, shownKey(p.key)), unknownKey(p.key, fields))
		}
	}
	// In the order of the struct, since the defaults must be known before the destinations.
	for _, f := range fields {
		p, ok := byKey[f.key]
		child := join(path, f.key)
		switch {
		case !ok && f.rules.required:
			d.src.fail(d.src.placeOf(path, d.at(n)), child, "missing; this key is required here")
		case !ok:
		default:
			d.field(p, v.Field(f.index), child, f.rules)
		}
	}
	if group, ok := v.Interface().(oneOf); ok {
		d.checkOneOf(group, pairs, fields, n, path)
	}
	if retry, ok := v.Addr().Interface().(*Retry); ok {
		d.checkRetry(retry, byKey, path)
	}
}

func (d *decoder) field(p pair, v reflect.Value, path string, r rules) {
	at := d.at(p.value)
	if p.value.Kind == yaml.MappingNode || p.value.Kind == yaml.SequenceNode || isNull(p.value) {
		at = p.at
	}
	d.src.places[path] = at
	if r.whole || v.Kind() == reflect.Slice {
		d.src.replaced[path] = true
	}
	if r.whole {
		v.SetZero()
		setDefault(v, r)
	}
	d.value(p.value, v, path, r)
}

func hasField(fields []field, key string) bool {
	for _, f := range fields {
		if f.key == key {
			return true
		}
	}
	return false
}

// keysOf returns the names of the keys.
func keysOf(fields []field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

func unknownKey(key string, fields []field) string {
	known := keysOf(fields)
	if near := Nearest(key, known); near != "" {
		return fmt.Sprintf("unknown key; did you mean %q?", near)
	}
	if shownKey(key) == mask {
		return "unknown key, which is not shown here since it may hold a secret; write " + orList(known) + ", and a space behind the colon"
	}
	return "unknown key; write " + orList(known)
}

// ownKey is what keys of ours look like, and what they are misspelt as: words, with few digits at their end.
var ownKey = regexp.MustCompile(`^[A-Za-z]?[a-z]+(?:[_-]?[A-Z]?[a-z]+)*[0-9]{0,4}$`)

// shownKey returns a key that is not known as it is shown, which is *** unless it looks like one of ours: where the space
// behind a colon is missing, as in {token:s3cr3t}, YAML takes the whole for a key.
func shownKey(key string) string {
	const longest = 32
	if len(key) > longest || !ownKey.MatchString(key) {
		return mask
	}
	return key
}

// shownName is shownKey for a key that is a name of the user's own.
func shownName(key string) string {
	if strings.ContainsAny(key, ":=@$") {
		return mask
	}
	return clip(key)
}

func (d *decoder) fieldsOf(t reflect.Type) []field {
	fields, ok := d.fields[t]
	if !ok {
		fields = fieldsOf(t)
		d.fields[t] = fields
	}
	return fields
}

// destinationName is what can stand in a URL path, a metric's label and a path of a key.
var destinationName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// mapping decodes a mapping whose keys are names. Its entries are added to those that are inherited.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string, r rules) {
	pairs := d.pairs(n, path)
	if err := r.count(len(pairs)); err != nil {
		d.src.fail(d.src.placeOf(path, d.at(n)), path, err.Error())
		return
	}
	if v.Type().Elem() == reflect.TypeFor[*Destination]() {
		d.cfg.Destinations = make(map[string]*Destination, len(pairs))
		for _, p := range pairs {
			d.destination(p, join(path, p.key))
		}
		return
	}
	// Names of headers and hosts are the same in any case.
	inherited, own := map[string]string{}, map[string]bool{}
	merged := reflect.MakeMap(v.Type())
	for key, value := range v.Seq2() {
		merged.SetMapIndex(key, value)
		inherited[strings.ToLower(key.String())] = key.String()
	}
	v.Set(merged)
	for _, p := range pairs {
		if v.Type().Elem() == reflect.TypeFor[Secret]() && shownName(p.key) == mask {
			d.src.report(p.at, join(path, mask), "not a name, and not shown here since it may hold a secret; write a space behind the colon")
			continue
		}
		child, lower := join(path, p.key), strings.ToLower(p.key)
		if own[lower] {
			d.src.report(p.at, child, "duplicate key; only the case of another one differs, remove one")
			continue
		}
		own[lower] = true
		d.src.places[child] = d.at(p.value)
		if key, ok := inherited[lower]; ok {
			v.SetMapIndex(reflect.ValueOf(key), reflect.Value{})
		}
		value := reflect.New(v.Type().Elem()).Elem()
		d.value(p.value, value, child, r.entry())
		if !d.src.faulty[child] {
			v.SetMapIndex(reflect.ValueOf(p.key), value)
		}
	}
}

// destination decodes one destination on top of the defaults.
func (d *decoder) destination(p pair, path string) {
	d.src.places[path] = d.at(p.value)
	if !destinationName.MatchString(p.key) {
		d.src.report(p.at, join("destinations", shownName(p.key)), "not a name; write letters, digits, dots, hyphens and underscores, at most 100 in all, and a letter or digit first")
		return
	}
	if p.value.Kind != yaml.ScalarNode || isNull(p.value) {
		d.src.places[path] = p.at
	}
	dest := d.cfg.Defaults
	dest.Headers = maps.Clone(dest.Headers)
	d.src.names = append(d.src.names, p.key)
	d.src.isName[p.key] = true
	d.cfg.Destinations[p.key] = &dest
	d.value(p.value, reflect.ValueOf(&dest).Elem(), path, rules{})
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string, r rules) {
	at := d.src.placeOf(path, d.at(n))
	if n.Kind != yaml.SequenceNode || n.ShortTag() != "!!seq" {
		msg := fmt.Sprintf("must be a list, not %s", kindOf(n))
		if n.Kind == yaml.ScalarNode {
			msg += "; put it in brackets"
		}
		d.src.fail(at, path, msg)
		return
	}
	if err := r.count(len(n.Content)); err != nil {
		d.src.fail(at, path, err.Error())
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		child := path + "[" + strconv.Itoa(i) + "]"
		d.src.places[child] = d.at(item)
		if isNull(follow(item)) && list.Index(i).Type() != reflect.TypeFor[Value]() {
			d.src.fail(d.at(item), child, "no value; write one, or remove the entry")
			continue
		}
		setDefault(list.Index(i), rules{})
		d.value(item, list.Index(i), child, r.entry())
	}
	v.Set(list)
}
