package ingest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
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
	time                *string       // nil without
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
	if e.time != nil && !isTimestamp(*e.time) {
		return fmt.Errorf("the attribute time is %.40q, which is no time of RFC 3339; write one such as 2026-12-24T18:00:00Z", *e.time)
	}
	return nil
}

// timestamp is the form of a date-time; time.Parse takes more.
var timestamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// isTimestamp reports whether s is a date-time of RFC 3339, section 5.6.
func isTimestamp(s string) bool {
	s = strings.ToUpper(s) // a note there allows t and z
	if len(s) > 18 && s[16:19] == ":60" {
		s = s[:17] + "59" + s[19:] // a leap second (section 5.7), which package time does not know
	}
	_, err := time.Parse(time.RFC3339, s)
	return err == nil && timestamp.MatchString(s)
}

// checkName reports whether an attribute may have that name (CloudEvents 1.0.2, section 3.1). The error is fit for the
// client.
func checkName(name string) error {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return errors.New("this is no name of an attribute; use lower-case letters and digits")
		}
	}
	if name == "" {
		return errors.New("the name of an attribute is empty; write lower-case letters and digits")
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
		switch attribute := attributes[name]; {
		case attribute != nil:
			*attribute, err = textOf(value)
		case name == "time" && value.Kind() != jsontext.KindNull: // null is no attribute (JSON format, section 2.2)
			var text string
			text, err = textOf(value)
			e.time = &text
		case name == "data_base64":
			err = checkBase64(value)
		case name != "data":
			err = checkName(name)
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

// checkBase64 reports whether a member holds bytes in base64 (RFC 4648, section 4). It makes no copy of one without
// escapes: a body is large. The error is fit for the client.
func checkBase64(value jsontext.Value) error {
	wrong := errors.New("it is no base64; write the standard alphabet with padding and without line breaks")
	text := []byte(value)
	if value.Kind() != jsontext.KindString || bytes.IndexByte(value, '\\') >= 0 { // as some write a slash
		s, err := textOf(value)
		if err != nil {
			return err
		}
		text = []byte(s)
	} else {
		text = text[1 : len(text)-1]
	}
	if len(text)%4 != 0 {
		return wrong
	}
	for range 2 {
		text = bytes.TrimSuffix(text, []byte("="))
	}
	for _, c := range text {
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '+' && c != '/' {
			return wrong
		}
	}
	return nil
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
		if err == nil {
			err = checkName(strings.ToLower(name[len(cloudPrefix):])) // headers have no case
		}
		if err != nil {
			return cloudEvent{}, fmt.Errorf("%s: %w", name, err)
		}
		if attribute := attributes[name]; attribute != nil {
			*attribute = value
		}
		if name == "Ce-Time" {
			e.time = &value
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
