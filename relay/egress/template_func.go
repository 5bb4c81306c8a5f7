package egress

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net/url"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// functions are what a template can call beside and, or, not and slice. None reads the environment, a file or the
// network; none changes anything; each counts what it makes. Those of text/template that are not here are refused.
func (r *run) functions() template.FuncMap {
	return template.FuncMap{
		"json": r.json, "base64": r.base64, "hmac": r.hmac, "now": r.nowFunc, "unix": r.unix, "default": r.fallback,
		"lower": r.lower, "upper": r.upper, "urlquery": r.urlquery, "print": r.print, "printf": r.printf,
		"index": r.index, "len": r.length,
		"eq": r.eq, "ne": r.ne, "lt": r.lt, "le": r.le, "gt": r.gt, "ge": r.ge,
	}
}

// json writes any value as JSON. A value that is missing is an error, null is null.
func (r *run) json(v any) (string, error) {
	if isMissing(v) {
		if !r.sample {
			list, _ := v.(beyond)
			return "", &missingError{list: list}
		}
		return `"0"`, nil // is JSON wherever a value is, and where the name of a member is
	}
	b, err := r.appendJSON(nil, v)
	if err != nil {
		return "", err
	}
	return r.result(b)
}

// base64 is the standard encoding with padding (RFC 4648, section 4).
func (r *run) base64(v any) (string, error) {
	s, err := r.text(v)
	if err != nil {
		return "", err
	}
	if err := r.room(base64.StdEncoding.EncodedLen(len(s))); err != nil {
		return "", err
	}
	return r.result([]byte(base64.StdEncoding.EncodeToString([]byte(s))))
}

// room reports whether a function may make n bytes, before it does.
func (r *run) room(n int) error {
	if n > maxOutput {
		return limited("a function makes more than %d bytes", maxOutput)
	}
	return nil
}

// hmac is the HMAC (RFC 2104) of a text, in lower-case hexadecimal. The algorithm is sha1, sha256 or sha512.
func (r *run) hmac(algorithm, key, v any) (string, error) {
	name, err := r.text(algorithm)
	if err != nil {
		return "", err
	}
	k, err := r.text(key)
	if err != nil {
		return "", err
	}
	s, err := r.text(v)
	if err != nil {
		return "", err
	}
	var newHash func() hash.Hash
	switch name {
	case "sha1":
		newHash = sha1.New
	case "sha256":
		newHash = sha256.New
	case "sha512":
		newHash = sha512.New
	default:
		return "", faulty("hmac knows sha1, sha256 and sha512")
	}
	if k == "" {
		return "", faulty("the key of hmac is empty")
	}
	mac := hmac.New(newHash, []byte(k))
	mac.Write([]byte(s))
	return hex.EncodeToString(mac.Sum(nil)), r.step()
}

// nowFunc is the time of the attempt in UTC, as RFC 3339 or by a layout as in time.Layout.
func (r *run) nowFunc(layout ...any) (string, error) {
	switch len(layout) {
	case 0:
		return r.now.UTC().Format(time.RFC3339), r.step()
	case 1:
		s, err := r.text(layout[0])
		if err != nil {
			return "", err
		}
		if len(s) > 256 {
			return "", faulty("the layout of now is longer than 256 bytes")
		}
		return r.result([]byte(r.now.UTC().Format(s)))
	}
	return "", faulty("now takes one layout")
}

// unix turns an RFC 3339 time into the seconds since 1970.
func (r *run) unix(v any) (int64, error) {
	s, err := r.text(v)
	if err != nil || r.guessed && s == "0" {
		return 0, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, faulty("unix needs a time as in RFC 3339, like 2006-01-02T15:04:05Z")
	}
	return t.Unix(), r.step()
}

// fallback is the function default: v, or what is given for it if v is missing, null or the empty string.
func (r *run) fallback(instead, v any) (any, error) {
	switch t := v.(type) {
	case nil, null, beyond:
	case string:
		if t != "" {
			return v, r.step()
		}
	default:
		return v, r.step()
	}
	if isMissing(instead) {
		return null(nil), r.step()
	}
	return instead, r.step()
}

func (r *run) lower(v any) (string, error) { return r.mapped(v, strings.ToLower) }

func (r *run) upper(v any) (string, error) { return r.mapped(v, strings.ToUpper) }

func (r *run) urlquery(v any) (string, error) { return r.mapped(v, url.QueryEscape) }

func (r *run) mapped(v any, f func(string) string) (string, error) {
	s, err := r.text(v)
	if err != nil {
		return "", err
	}
	return r.result([]byte(f(s)))
}

// print joins values, with a space between two that are no texts.
func (r *run) print(values ...any) (string, error) {
	var b []byte
	text := true
	for i, v := range values {
		s, err := r.text(v)
		if err != nil {
			return "", err
		}
		_, isText := v.(string)
		if i > 0 && !text && !isText {
			b = append(b, ' ')
		}
		text = isText
		if err := r.room(len(b) + len(s)); err != nil {
			return "", err
		}
		b = append(b, s...)
	}
	return r.result(b)
}

// index is the element of a list, from 0, or the member of an object. What is not there is missing, and no error.
func (r *run) index(v any, keys ...any) (any, error) {
	if err := r.chargeFor(keys...); err != nil {
		return nil, err
	}
	for _, key := range keys {
		switch in := v.(type) {
		case nil, null:
			return nil, r.step()
		case beyond:
			return v, r.step()
		case []any:
			text, ok := numberText(key)
			if !ok {
				return nil, faulty("index of a list needs a number")
			}
			n, err := strconv.Atoi(text)
			switch {
			case err != nil || n < 0:
				return nil, r.step()
			case n >= len(in):
				return make(beyond, 0, len(in)), r.step()
			}
			v = in[n]
		case map[string]any:
			name, ok := key.(string)
			if !ok {
				return nil, faulty("index of an object needs a text")
			}
			v = in[name]
		default:
			return nil, faulty("index needs a list or an object")
		}
	}
	return v, r.step()
}

// length is len: the bytes of a text, the elements of a list or the members of an object.
func (r *run) length(v any) (int, error) {
	switch v := v.(type) {
	case string:
		return len(v), r.step()
	case []any:
		return len(v), r.step()
	case map[string]any:
		return len(v), r.step()
	case null:
		return 0, r.step()
	case nil, beyond:
		_, err := r.text(v)
		return 0, err
	}
	return 0, faulty("len needs a text, a list or an object")
}

// eq reports whether v equals one of the others. Numbers are equal by value, whatever their form; values of different
// kinds are not equal; nil is equal to what is missing or null.
func (r *run) eq(v, other any, more ...any) (bool, error) {
	for _, w := range append([]any{other}, more...) {
		same, err := r.same(v, w)
		if same || err != nil {
			return same, err
		}
	}
	return false, nil
}

func (r *run) ne(v, other any) (bool, error) {
	same, err := r.same(v, other)
	return !same, err
}

func (r *run) same(v, w any) (bool, error) {
	if isNull(v) || isNull(w) {
		return isNull(v) && isNull(w), r.step()
	}
	if b, ok := v.(bool); ok {
		c, ok := w.(bool)
		return ok && b == c, r.step()
	}
	for _, each := range []any{v, w} {
		switch each.(type) {
		case []any, map[string]any:
			return false, faulty("lists and objects cannot be compared")
		}
	}
	if err := r.chargeFor(v, w); err != nil {
		return false, err
	}
	order, comparable := compare(v, w)
	return comparable && order == 0, r.step()
}

func isNull(v any) bool {
	_, is := v.(null)
	return is || isMissing(v)
}

func (r *run) lt(v, w any) (bool, error) { return r.ordered(v, w, func(n int) bool { return n < 0 }) }

func (r *run) le(v, w any) (bool, error) { return r.ordered(v, w, func(n int) bool { return n <= 0 }) }

func (r *run) gt(v, w any) (bool, error) { return r.ordered(v, w, func(n int) bool { return n > 0 }) }

func (r *run) ge(v, w any) (bool, error) { return r.ordered(v, w, func(n int) bool { return n >= 0 }) }

func (r *run) ordered(v, w any, holds func(int) bool) (bool, error) {
	for _, each := range []any{v, w} {
		if isNull(each) {
			_, err := r.text(each)
			return false, err
		}
	}
	if err := r.chargeFor(v, w); err != nil {
		return false, err
	}
	order, comparable := compare(v, w)
	if !comparable {
		return false, faulty("only two numbers or two texts can be put in order")
	}
	return holds(order), r.step()
}

// items counts what a loop is about to go through: text/template sorts the members of an object first.
func (r *run) items(v any) (any, error) {
	switch t := v.(type) {
	case []any:
		return v, r.spend(len(t))
	case map[string]any:
		n := 64 * len(t)
		for name := range t {
			n += len(name)
		}
		return v, r.spend(n)
	}
	return v, r.step()
}

// write is what each action ends with. names are the fields that it is made of.
func (r *run) write(names string, v any) (string, error) {
	s, err := r.text(v)
	if err != nil {
		if missing, ok := err.(*missingError); ok {
			missing.name = names
		}
		return "", err
	}
	return s, r.step()
}
