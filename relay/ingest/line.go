package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/net/http/httpguts"

	"github.com/postern-relay/postern/relay/match"
)

// line is one line of a batch.
type line struct {
	to, event string      // just one of them is set
	data      []byte      // raw JSON, part of the line that was parsed
	id        string      // idempotency key; empty for none
	key       string      // ordering key; empty for none
	timing    timing      // from delay or deliver_at
	header    http.Header // from headers; nil for none
}

// parseLine reads a line of a batch: one object with the keys below, as strictly as eachMember does. The error is fit
// for the client.
func parseLine(raw []byte) (line, error) {
	var l line
	timed := false
	err := eachMember(raw, func(name string, value jsontext.Value) (err error) {
		switch name {
		case "to":
			if l.to, err = textOf(value); err == nil && l.to == "" {
				err = errors.New("it is empty; write the name of a destination")
			}
		case "event":
			if l.event, err = textOf(value); err == nil {
				err = match.CheckEvent(l.event)
			}
		case "data":
			l.data = value
		case "id":
			if l.id, err = textOf(value); err == nil {
				err = checkKey(l.id, maxKey)
			}
		case "key":
			if l.key, err = textOf(value); err == nil {
				l.key, err = parseOrder(l.key)
			}
		case "delay", "deliver_at":
			if timed {
				return errors.New("there are both delay and deliver_at; write one of them")
			}
			timed = true
			l.timing, err = parseLineTiming(name, value)
		case "headers":
			l.header, err = parseLineHeader(value)
		default:
			err = errors.New(`this key is not known; use "to" or "event", "data", "id", "key", "delay", "deliver_at", "headers"`)
		}
		return err
	})
	switch {
	case err != nil:
		return line{}, err
	case (l.to == "") == (l.event == ""):
		return line{}, errors.New(`there must be either "to" or "event"; write one of them`)
	case l.data == nil:
		return line{}, errors.New(`"data" is missing; write the body, any JSON value`)
	}
	return l, nil
}

// parseLineTiming reads delay, a text as in Postern-Delay or a number of whole seconds, or deliver_at.
func parseLineTiming(name string, value jsontext.Value) (timing, error) {
	if name == "delay" && value.Kind() == jsontext.KindNumber {
		if !onlyDigits(string(value)) {
			return timing{}, errors.New(`it is no whole number of seconds; write one, or a duration such as "90s"`)
		}
		return parseDelay(string(value))
	}
	text, err := textOf(value)
	if err != nil {
		return timing{}, err
	}
	if name == "delay" {
		return parseDelay(text)
	}
	return parseTime(text)
}

// parseLineHeader reads headers, an object of strings. What would not travel from a request is refused here, since
// nobody sends it without meaning it.
func parseLineHeader(raw jsontext.Value) (http.Header, error) {
	if kind := raw.Kind(); kind != jsontext.KindBeginObject {
		return nil, fmt.Errorf("it is %s; write an object", kindText(kind))
	}
	header := http.Header{}
	err := eachMember(raw, func(name string, value jsontext.Value) error {
		key := http.CanonicalHeaderKey(name)
		if !httpguts.ValidHeaderFieldName(name) {
			return errors.New("it is not a header name; use letters, digits and hyphens")
		}
		if !travels(key) {
			return errors.New("this header is not sent on; remove it")
		}
		if _, twice := header[key]; twice {
			return errors.New("this header is there twice; write it once")
		}
		text, err := textOf(value)
		if err != nil {
			return err
		}
		if !httpguts.ValidHeaderFieldValue(text) {
			return errors.New("its value holds a line break or another control character; remove it")
		}
		header[key] = []string{textproto.TrimString(text)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return header, nil
}
