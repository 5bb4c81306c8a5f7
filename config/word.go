package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"

	"go.yaml.in/yaml/v4"
)

// scalar decodes a value of one word.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string, r rules) {
	at := d.src.placeOf(path, d.at(n))
	text, err := d.word(n, v, r)
	if err != nil {
		d.src.fail(at, path, err.Error())
		return
	}
	for _, file := range text.files {
		if d.secretFiles[file].open {
			d.src.warnings = append(d.src.warnings, &Error{File: at.file, Line: at.line, Col: at.col, Path: path,
				Msg: fmt.Sprintf("every user of this machine may read %q; run chmod o= on it", clip(file))})
		}
	}
	if len(text.contents) > 0 {
		d.src.contents[path] = text.contents
	}
	if secret, ok := v.Addr().Interface().(*Secret); ok {
		*secret = Secret{value: &text.value, shown: &text.shown}
		return
	}
	value := reflect.New(v.Type()).Elem()
	if err := parseScalar(value, text.value); err != nil {
		d.src.fail(at, path, err.Error())
		return
	}
	if err := r.check(value); err != nil {
		d.src.fail(at, path, err.Error())
		return
	}
	if r.path && !filepath.IsAbs(text.value) {
		value.SetString(filepath.Join(d.dir, text.value))
	}
	if _, ok := d.overrides[n]; text.refs && !ok {
		d.src.referenced[path] = true
	}
	if text.refs && !r.clear {
		d.src.shown[path] = text.shown
	}
	v.Set(value)
}

// word returns the text of a scalar node whose type in the file suits v.
func (d *decoder) word(n *yaml.Node, v reflect.Value, r rules) (expanded, error) {
	if _, ok := d.overrides[n]; ok {
		// A variable may hold what no file should show, so it is masked as a reference is.
		out := expanded{value: n.Value, shown: mask, refs: true}
		if text := v.Kind() == reflect.String || v.Type() == reflect.TypeFor[Secret](); text && len(r.enum) == 0 {
			out.contents = []Secret{NewSecret(n.Value)}
		}
		return out, nil
	}
	if n.Kind != yaml.ScalarNode {
		return expanded{}, fmt.Errorf("must be %s, not %s", wanted(v), kindOf(n))
	}
	tag := n.ShortTag()
	if tag == "!!null" {
		return expanded{}, errors.New("no value; write one, or remove the key")
	}
	text, err := d.expand(d.text(n.Value))
	switch {
	case err != nil:
		return text, err
	case text.refs && tag == "!!str":
		if text.value == "" {
			return text, errors.New("the reference gives an empty text; set what it stands for")
		}
		return text, nil
	case tag == "!!str" && text.value == "" && !r.empty:
		return text, errors.New("the text is empty; write one, or remove the key")
	}
	return text, suits(tag, v, r)
}

// suits holds the YAML type of a literal against the type of v.
func suits(tag string, v reflect.Value, r rules) error {
	ok := tag == "!!str"
	switch v.Kind() {
	case reflect.Bool:
		ok = tag == "!!bool"
	case reflect.Int:
		ok = tag == "!!int"
	case reflect.Float64:
		ok = tag == "!!int" || tag == "!!float"
	case reflect.String:
		ok = ok || r.number && tag == "!!int"
	default:
		// Durations, sizes and addresses know better what is wrong with a bare number.
		ok = ok || v.Type() != reflect.TypeFor[Secret]() && (tag == "!!int" || tag == "!!float")
	}
	switch {
	case ok:
		return nil
	case v.Kind() == reflect.String || v.Type() == reflect.TypeFor[Secret]():
		return errors.New("must be text; put the value in quotes")
	}
	return fmt.Errorf("must be %s", wanted(v))
}

func wanted(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	}
	switch v.Interface().(type) {
	case Duration:
		return "a duration such as 30s, 5m or 72h"
	case Size:
		return "a size such as 16KiB or 1MiB"
	}
	return "text"
}
