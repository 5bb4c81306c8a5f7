package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// json decodes any value that JSON can hold.
func (d *decoder) json(n *yaml.Node, v reflect.Value, path string) {
	value, ok := d.jsonValue(n, path, 1)
	if ok {
		v.Set(reflect.ValueOf(Value{JSON: value}))
	}
}

// maxJSONDepth bounds how deep a value is nested: an alias within what it stands for would have no end.
const maxJSONDepth = 64

func (d *decoder) jsonValue(n *yaml.Node, path string, depth int) (any, bool) {
	if d.nodes++; d.nodes > maxNodes {
		d.src.fail(d.at(n), path, "the file has too many values; write fewer, also by aliases")
		return nil, false
	}
	if depth > maxJSONDepth {
		d.src.fail(d.at(n), clip(path), fmt.Sprintf("nested deeper than %d levels; write a flatter value, and no alias within what it stands for", maxJSONDepth))
		return nil, false
	}
	n = follow(n)
	switch {
	case n.Kind == yaml.SequenceNode && n.ShortTag() == "!!seq":
		list := make([]any, 0, len(n.Content))
		for i, item := range n.Content {
			value, ok := d.jsonValue(item, path+"["+strconv.Itoa(i)+"]", depth+1)
			if !ok {
				return nil, false
			}
			list = append(list, value)
		}
		return list, true
	case n.Kind == yaml.MappingNode && n.ShortTag() == "!!map":
		members := make(map[string]any, len(n.Content)/2)
		for _, p := range d.pairs(n, path) {
			value, ok := d.jsonValue(p.value, join(path, p.key), depth+1)
			if !ok {
				return nil, false
			}
			members[p.key] = value
		}
		return members, true
	case n.Kind == yaml.ScalarNode:
		return d.jsonScalar(n, path)
	}
	d.src.fail(d.src.placeOf(path, d.at(n)), path, "must be a value of JSON, not "+kindOf(n))
	return nil, false
}

func (d *decoder) jsonScalar(n *yaml.Node, path string) (any, bool) {
	at := d.src.placeOf(path, d.at(n))
	switch n.ShortTag() {
	case "!!null":
		return nil, true
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), true
	case "!!int", "!!float":
		number, ok := jsonNumber(n.Value)
		if !ok {
			d.src.fail(at, path, "not a number of JSON; write one such as 42 or 0.5, without zeros in front, or put it in quotes")
		}
		return number, ok
	case "!!str":
		text, err := d.expand(d.text(n.Value))
		if err != nil {
			d.src.fail(at, path, err.Error())
			return nil, false
		}
		if text.refs {
			d.src.contents[path] = text.contents
			d.src.referenced[path] = true
			d.src.shown[path] = text.shown
		}
		return text.value, true
	}
	d.src.fail(at, path, "must be a value of JSON, not "+kindOf(n)+"; put it in quotes")
	return nil, false
}

// jsonNumber returns a number of YAML as JSON writes it, with all its digits if JSON knows the form.
func jsonNumber(text string) (json.Number, bool) {
	if json.Valid([]byte(text)) {
		return json.Number(text), true
	}
	// What begins with a zero is octal to some and decimal to others.
	if digits := strings.TrimLeft(text, "+-"); len(digits) > 1 && digits[0] == '0' && '0' <= digits[1] && digits[1] <= '9' {
		return "", false
	}
	if n, err := strconv.ParseInt(text, 0, 64); err == nil { // 0x10, 0o17, 1_000, +5
		return json.Number(strconv.FormatInt(n, 10)), true
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return "", false
	}
	return json.Number(strconv.FormatFloat(f, 'g', -1, 64)), true
}

// jsonNode returns a value as it would be written in the file.
func (c *Config) jsonNode(value any, path string) *yaml.Node {
	switch v := value.(type) {
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}
	case json.Number:
		tag := "!!int"
		if strings.ContainsAny(v.String(), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: v.String()}
	case string:
		if own, ok := c.src.origin(path); ok {
			if shown, ok := c.src.shown[own]; ok {
				return text(shown)
			}
		}
		return text(v)
	case []any:
		list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		for i, item := range v {
			list.Content = append(list.Content, c.jsonNode(item, path+"["+strconv.Itoa(i)+"]"))
		}
		return list
	case map[string]any:
		members := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: yaml.FlowStyle}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			members.Content = append(members.Content, text(name), c.jsonNode(v[name], join(path, name)))
		}
		return members
	}
	panic("config: not a value of JSON")
}
