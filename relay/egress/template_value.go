package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/postern-relay/postern/relay/match"
)

// The values that a template meets are string, bool, int64, float64, number, null, []any and map[string]any of a
// message's body, int and float64 of its own constants, and nil for what is missing, or beyond.

// number is one that neither int64 nor float64 would write as it was: its text.
type number string

// null is the null of JSON. It is a map so that a template may ask for what is in it, and find it missing.
type null map[string]any

// beyond is missing because a list is too short: false where a template asks, as nil is, and its capacity is the number
// of entries that there are.
type beyond []struct{}

// isMissing reports whether v is what a message does not have.
func isMissing(v any) bool {
	_, short := v.(beyond)
	return v == nil || short
}

// parseData reads the body of a message, by the strict rules of match.ParseJSON.
func parseData(body []byte) (any, error) {
	if err := match.CheckJSON(body); err != nil {
		return nil, err
	}
	v, err := decode(jsontext.NewDecoder(bytes.NewBuffer(body)))
	if err != nil {
		return nil, errors.New("it cannot be read")
	}
	return v, nil
}

// decode reads one value of a document that has been checked, so that its depth is bounded.
func decode(d *jsontext.Decoder) (any, error) {
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case jsontext.KindBeginArray:
		list := []any{}
		for d.PeekKind() != jsontext.KindEndArray {
			v, err := decode(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.ReadToken()
		return list, err
	case jsontext.KindBeginObject:
		members := map[string]any{}
		for d.PeekKind() != jsontext.KindEndObject {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String()
			if members[key], err = decode(d); err != nil {
				return nil, err
			}
		}
		_, err := d.ReadToken()
		return members, err
	case jsontext.KindString:
		return token.String(), nil
	case jsontext.KindNumber:
		return decodeNumber(token.String()), nil
	case jsontext.KindTrue, jsontext.KindFalse:
		return token.Bool(), nil
	}
	return null(nil), nil
}

// decodeNumber returns an int64 or a float64 if it will be written as it was, so that a template may count with it
// and ask whether it is 0.
func decodeNumber(text string) any {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(n, 10) == text {
		return n
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && formatFloat(f) == text {
		return f
	}
	return number(text)
}

func formatFloat(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// text returns how v is written: a string as it is, anything else as JSON. What is missing or null is an error,
// unless this is a sample. It counts the bytes of it.
func (r *run) text(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return r.guess()
	case null:
		return r.guess()
	case beyond:
		return "", &missingError{list: v}
	case string:
		return v, r.charge(len(v))
	}
	b, err := r.appendJSON(nil, v)
	if err != nil {
		return "", err
	}
	return string(b), r.charge(len(b))
}

// guess stands in for a value that a sample does not have. A zero may stand in JSON, and in a string of JSON.
func (r *run) guess() (string, error) {
	if r.sample {
		r.guessed = true
		return "0", nil
	}
	return "", &missingError{}
}

// appendJSON appends v as JSON without white space. Members are sorted by name; HTML is not escaped; bytes that are
// not UTF-8 become U+FFFD.
func (r *run) appendJSON(b []byte, v any) ([]byte, error) {
	if len(b) > maxOutput {
		return nil, limited("a value has more than %d bytes as JSON", maxOutput)
	}
	switch v := v.(type) {
	case null:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		b, err := jsontext.AppendQuote(b, v)
		if err != nil && b == nil {
			return nil, faulty("a text cannot be written as JSON")
		}
		return b, nil
	case number:
		return append(b, v...), nil
	case int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case float64:
		return append(b, formatFloat(v)...), nil
	case []any:
		return r.appendList(b, v)
	case map[string]any:
		return r.appendObject(b, v)
	case *view:
		return nil, faulty("the dot is the whole message here; write one of its fields")
	}
	return nil, faulty("a value of this kind cannot be written")
}

func (r *run) appendList(b []byte, list []any) ([]byte, error) {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = r.appendJSON(b, v); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func (r *run) appendObject(b []byte, members map[string]any) ([]byte, error) {
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = r.appendJSON(b, name); err != nil {
			return nil, err
		}
		if b, err = r.appendJSON(append(b, ':'), members[name]); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// checkJSON reports whether b is a JSON text (RFC 8259). Names may come twice: that is for the receiver to judge, and
// the app may have posted them so.
func checkJSON(b []byte) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(b), jsontext.AllowDuplicateNames(true))
	err := d.SkipValue()
	if err == nil {
		var second jsontext.Token
		if second, err = d.ReadToken(); err == nil {
			return fmt.Errorf("not JSON: a second value (%v) begins before byte %d", second.Kind(), d.InputOffset())
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) && ok:
		return fmt.Errorf("not JSON: it ends too early, at byte %d", len(b))
	case errors.Is(err, io.EOF):
		return errors.New("not JSON: it is empty")
	case ok:
		return fmt.Errorf("not JSON: at byte %d: %v", syntax.ByteOffset, syntax.Err)
	}
	return fmt.Errorf("not JSON: at byte %d", d.InputOffset())
}

// compare orders two numbers or two texts; comparable is false for all else.
func compare(a, b any) (order int, comparable bool) {
	if s, ok := a.(string); ok {
		other, ok := b.(string)
		switch {
		case !ok:
			return 0, false
		case s < other:
			return -1, true
		case s > other:
			return 1, true
		}
		return 0, true
	}
	x, okX := numberText(a)
	y, okY := numberText(b)
	if !okX || !okY {
		return 0, false
	}
	if i, ok := integer(x); ok {
		if j, ok := integer(y); ok {
			return i.Cmp(j), true
		}
	}
	// What is out of the range of float64 is infinite, and equal to its like: as for the receiver that reads it.
	f, _ := strconv.ParseFloat(x, 64)
	g, _ := strconv.ParseFloat(y, 64)
	switch {
	case f < g:
		return -1, true
	case f > g:
		return 1, true
	}
	return 0, true
}

func numberText(v any) (string, bool) {
	switch v := v.(type) {
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return formatFloat(v), true
	case number:
		return string(v), true
	}
	return "", false
}

// integer reads a number without a fraction, of a length that costs nothing.
func integer(text string) (*big.Int, bool) {
	if len(text) > 64 {
		return nil, false
	}
	return new(big.Int).SetString(text, 10)
}
