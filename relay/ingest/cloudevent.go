package ingest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

// cloudPrefix is what the header of each attribute begins with, in canonical form.
const cloudPrefix = "Ce-"

// cloudEvent is what ingest has to know of a CloudEvent.
type cloudEvent struct {
	id, source, version string
	kind                string        // its type, which is the message's event
	contentType         string        // that the message gets
	fields              []store.Field // binary mode: its attributes as headers
	structured          bool
}

// check reports whether the attributes are valid (CloudEvents 1.0.2, section "Required attributes"), and the type one
// that destinations can ask for. The error is fit for the client.
func (e cloudEvent) check() error {
	for _, a := range [...]struct{ name, value string }{
		{"specversion", e.version}, {"id", e.id}, {"source", e.source}, {"type", e.kind},
	} {
		if a.value == "" {
			return fmt.Errorf("the attribute %s is missing or empty; each CloudEvent needs one", a.name)
		}
		if !utf8.ValidString(a.value) || strings.ContainsFunc(a.value, isControl) {
			return fmt.Errorf("the attribute %s holds a control character or bad UTF-8; remove it", a.name)
		}
	}
	if e.version != "1.0" {
		return fmt.Errorf("the attribute specversion is %.20q; only 1.0 is supported", e.version)
	}
	if _, err := url.Parse(e.source); err != nil {
		return errors.New("the attribute source is no URI reference; write one such as /sensors/42")
	}
	if err := match.CheckEvent(e.kind); err != nil {
		return fmt.Errorf("the attribute type is not an event that Postern takes: %w", err)
	}
	return nil
}

// isControl reports what a string attribute must not hold (CloudEvents 1.0.2, section "Type system").
func isControl(c rune) bool { return c < 0x20 || 0x7f <= c && c <= 0x9f }

// digest is the idempotency key of the event: source and id, which are unique together (section "id"). The zero byte,
// which no Idempotency-Key and no attribute holds, keeps them apart from each other and from the keys of other posts.
func (e cloudEvent) digest() [32]byte {
	return sha256.Sum256([]byte("\x00" + e.source + "\x00" + e.id))
}

// format is the content type by which a repeat is recognised: of a whole event its parameters say nothing, and one
// that comes in a batch may come again alone.
func (e cloudEvent) format() string {
	if e.structured {
		return cloudJSONType
	}
	return e.contentType
}

// parseStructured reads an event in JSON (JSON format, section 3).
func parseStructured(raw []byte) (cloudEvent, error) {
	e := cloudEvent{structured: true}
	attributes := map[string]*string{"id": &e.id, "source": &e.source, "specversion": &e.version, "type": &e.kind}
	hasData := false
	err := eachMember(raw, func(name string, value jsontext.Value) (err error) {
		if name == "data" || name == "data_base64" {
			if hasData {
				return errors.New("there are both data and data_base64; send one of them")
			}
			hasData = true
		}
		if attribute := attributes[name]; attribute != nil {
			*attribute, err = textOf(value)
		}
		return err
	})
	if err != nil {
		return cloudEvent{}, err
	}
	if err := e.check(); err != nil {
		return cloudEvent{}, err
	}
	return e, nil
}

// parseBinary reads the attributes of an event from the headers of a request (HTTP binding, section 3.1.3).
func parseBinary(h http.Header) (cloudEvent, error) {
	var e cloudEvent
	attributes := map[string]*string{"Ce-Id": &e.id, "Ce-Source": &e.source, "Ce-Specversion": &e.version, "Ce-Type": &e.kind}
	for name, values := range h {
		if !strings.HasPrefix(name, cloudPrefix) {
			continue
		}
		switch {
		case len(values) > 1:
			return cloudEvent{}, fmt.Errorf("there is more than one %s; send one", name)
		case name == "Ce-Datacontenttype":
			return cloudEvent{}, fmt.Errorf("%s is not allowed in binary mode; send it as Content-Type", name)
		}
		value, err := decodeAttribute(values[0])
		if err != nil {
			return cloudEvent{}, fmt.Errorf("%s: %w", name, err)
		}
		if attribute := attributes[name]; attribute != nil {
			*attribute = value
		}
		e.fields = append(e.fields, store.Field{Name: name, Value: values[0]})
	}
	if len(e.fields) == 0 {
		return cloudEvent{}, errors.New("there is no CloudEvent; send its attributes as ce- headers, or the whole as " + cloudJSONType)
	}
	if err := e.check(); err != nil {
		return cloudEvent{}, err
	}
	slices.SortFunc(e.fields, func(a, b store.Field) int { return strings.Compare(a.Name, b.Name) })
	return e, nil
}

// decodeAttribute reads a header value: double-quoted parts are unquoted, then one round of percent-decoding (HTTP
// binding, section 3.1.3.2).
func decodeAttribute(s string) (string, error) {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
			continue
		case c == '\\' && quoted:
			if i++; i == len(s) {
				return "", errors.New("the closing quote is missing")
			}
		}
		b.WriteByte(s[i])
	}
	if quoted {
		return "", errors.New("the closing quote is missing")
	}
	text, err := url.PathUnescape(b.String())
	if err != nil {
		return "", errors.New("it is not properly escaped; a percent sign is %25")
	}
	if !utf8.ValidString(text) {
		return "", errors.New("it is not UTF-8; escape each byte of a character as % and two hexadecimal digits")
	}
	return text, nil
}
