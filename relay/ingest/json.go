package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// eachMember calls visit with the name and the bytes of each member of a JSON object, which is all there is in raw,
// without copying. It is strict: UTF-8, no name twice in any object, at most 10,000 levels deep (threat T23). Errors
// are fit for the client; those of visit come with the name before them.
func eachMember(raw []byte, visit func(name string, value jsontext.Value) error) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw))
	if kind := dec.PeekKind(); kind != jsontext.KindBeginObject && kind != jsontext.KindInvalid {
		return fmt.Errorf("it is %s; send a JSON object", kindText(kind))
	}
	if _, err := dec.ReadToken(); err != nil {
		return badJSON(err)
	}
	for dec.PeekKind() != jsontext.KindEndObject {
		token, err := dec.ReadToken()
		if err != nil {
			return badJSON(err)
		}
		name := token.String()
		value, err := dec.ReadValue()
		if err != nil {
			return badJSON(err)
		}
		end := int(dec.InputOffset())
		if err := visit(name, raw[end-len(value):end]); err != nil {
			return fmt.Errorf("%.40q: %w", name, err)
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return badJSON(err)
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		if err == nil {
			return errors.New("something follows the JSON object; send one object alone")
		}
		return badJSON(err)
	}
	return nil
}

// badJSON makes an error of the decoder fit for the client.
func badJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is not valid JSON: it ends early")
	}
	return fmt.Errorf("it is not valid JSON: %s", strings.TrimPrefix(err.Error(), "jsontext: "))
}

// textOf returns the text of a JSON string.
func textOf(value jsontext.Value) (string, error) {
	if kind := value.Kind(); kind != jsontext.KindString {
		return "", fmt.Errorf("it is %s; write a string", kindText(kind))
	}
	text, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		return "", badJSON(err)
	}
	return string(text), nil
}

func kindText(kind jsontext.Kind) string {
	switch kind {
	case jsontext.KindBeginObject:
		return "an object"
	case jsontext.KindBeginArray:
		return "an array"
	case jsontext.KindString:
		return "a string"
	case jsontext.KindNumber:
		return "a number"
	case jsontext.KindNull:
		return "null"
	default:
		return "a boolean"
	}
}
