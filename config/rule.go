package config

import (
	"encoding"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
)

// field is a key of a mapping: a field of a struct with its rules.
type field struct {
	index int
	key   string
	rules rules
}

// rules is the content of a rule tag; types.go explains it.
type rules struct {
	required, whole, path, clear, number, empty, chosen bool

	min, max, each, def string
	enum                []string
}

// fieldsOf returns the keys of a struct in the order of its fields. A tag it does not know is a mistake of ours.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("yaml")
		if !f.IsExported() || key == "-" {
			continue
		}
		fields = append(fields, field{index: i, key: key, rules: parseRules(f.Tag.Get("rule"))})
	}
	return fields
}

func parseRules(tag string) rules {
	var r rules
	for item := range strings.SplitSeq(tag, ";") {
		name, value, _ := strings.Cut(item, "=")
		switch name {
		case "":
		case "required":
			r.required = true
		case "whole":
			r.whole = true
		case "path":
			r.path = true
		case "clear":
			r.clear = true
		case "int":
			r.number = true
		case "empty":
			r.empty = true
		case "chosen":
			r.chosen = true
		case "min":
			r.min = value
		case "max":
			r.max = value
		case "each":
			r.each = value
		case "default":
			r.def = value
		case "enum":
			r.enum = strings.Split(value, "|")
		default:
			panic(fmt.Sprintf("config: unknown rule %q", item))
		}
	}
	return r
}

// entry returns the rules for the entries of a list or a mapping.
func (r rules) entry() rules {
	return rules{empty: r.empty, number: r.number, clear: r.clear, max: r.each}
}

// isScalar reports whether values of a type are written as one word in the file.
func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Float64:
		return true
	}
	return t == reflect.TypeFor[Secret]() || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// setDefaults gives each field of a struct, and of the structs within, the default of its tag.
func setDefaults(v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		setDefault(v.Field(f.index), f.rules)
	}
}

func setDefault(v reflect.Value, r rules) {
	switch {
	case v.Kind() == reflect.Struct && !isScalar(v.Type()):
		setDefaults(v)
	case r.def == "":
	case v.Kind() == reflect.Slice:
		words := strings.Split(r.def, ",")
		v.Set(reflect.MakeSlice(v.Type(), len(words), len(words)))
		for i, word := range words {
			mustParse(v.Index(i), word)
		}
	default:
		mustParse(v, r.def)
	}
}

func mustParse(v reflect.Value, text string) {
	if err := parseScalar(v, text); err != nil {
		panic(fmt.Sprintf("config: default %q: %v", text, err))
	}
}

// parseScalar sets v from its text. Errors do not hold the text.
func parseScalar(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *netip.Prefix:
		prefix, err := parsePrefix(text)
		if err == nil {
			*p = prefix
		}
		return err
	case *netip.Addr:
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return errors.New("not an IP address; write one such as 10.20.0.7, without a port and a zone")
		}
		*p = addr
		return nil
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return errors.New("must be true or false")
		}
		v.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return errors.New("must be a whole number")
		}
		v.SetInt(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return errors.New("must be a number")
		}
		v.SetFloat(n)
	}
	return nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.Prefix{}, fmt.Errorf("not a network; write %s for this address alone", netip.PrefixFrom(addr, addr.BitLen()))
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errors.New("not a network; write one such as 10.20.0.0/16")
	}
	if masked := prefix.Masked(); masked != prefix {
		return netip.Prefix{}, fmt.Errorf("the address has bits behind the prefix; write %s", masked)
	}
	return prefix, nil
}

// check holds a scalar against its rules.
func (r rules) check(v reflect.Value) error {
	if len(r.enum) > 0 {
		text := fmt.Sprint(v.Interface())
		for _, word := range r.enum {
			if word == text {
				return nil
			}
		}
		if near := Nearest(text, r.enum); near != "" && v.Kind() == reflect.String {
			return fmt.Errorf("not one of the values known here; did you mean %s?", near)
		}
		return fmt.Errorf("not one of the values known here; write %s", orList(r.enum))
	}
	if r.min == "" && r.max == "" {
		return nil
	}
	if r.min != "" && less(v, r.bound(v.Type(), r.min)) || r.max != "" && less(r.bound(v.Type(), r.max), v) || isNaN(v) {
		return fmt.Errorf("out of range; write %s", r.span())
	}
	return nil
}

func (r rules) bound(t reflect.Type, text string) reflect.Value {
	v := reflect.New(t).Elem()
	mustParse(v, text)
	return v
}

func (r rules) span() string {
	switch {
	case r.max == "":
		return "at least " + r.min
	case r.min == "":
		return "at most " + r.max
	}
	return r.min + " to " + r.max
}

// count holds the number of entries of a list or mapping against its rules.
func (r rules) count(n int) error {
	if least, err := strconv.Atoi(r.min); err == nil && n < least {
		return fmt.Errorf("the list is empty; write at least %s, or remove the key", plural(least))
	}
	if most, err := strconv.Atoi(r.max); err == nil && n > most {
		return fmt.Errorf("too many; write at most %s", plural(most))
	}
	return nil
}

func plural(n int) string {
	if n == 1 {
		return "one entry"
	}
	return strconv.Itoa(n) + " entries"
}

func less(a, b reflect.Value) bool {
	if a.Kind() == reflect.Float64 {
		return a.Float() < b.Float()
	}
	return a.Int() < b.Int()
}

func isNaN(v reflect.Value) bool { return v.Kind() == reflect.Float64 && v.Float() != v.Float() }

// orList joins words: a, b or c.
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
