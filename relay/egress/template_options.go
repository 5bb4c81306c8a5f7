package egress

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/postern-relay/postern/store"
)

// templates are those of one destination.
type templates struct {
	body   *program // nil without
	header []headerTemplate
}

type headerTemplate struct {
	name    string // as in the config
	key     string // in a request
	option  string
	program *program
}

func (t templates) any() bool { return t.body != nil || len(t.header) > 0 }

// templates compiles the templates of the options. Each of faults is an *OptionError.
func (o Options) templates() (t templates, faults []error) {
	if o.Body != "" {
		p, err := compile(o.Body)
		if err == nil && o.Method == http.MethodGet {
			err = errors.New("a GET has no body; remove it, or write another method")
		}
		if err != nil {
			faults = append(faults, &OptionError{"body", err})
		}
		t.body = p
	}
	for _, h := range o.Header {
		if !h.isTemplate() {
			continue
		}
		option := "headers." + h.Name
		p, err := compile(h.Value)
		if err != nil {
			faults = append(faults, &OptionError{option, err})
			continue
		}
		t.header = append(t.header, headerTemplate{h.Name, headerKey(h.Name), option, p})
	}
	return t, faults
}

func (h headerTemplate) render(v *view) (string, error) {
	made, err := h.program.render(v)
	if err != nil {
		return "", err
	}
	value := strings.Trim(string(made), " \t") // which no receiver gets to see (RFC 9110, section 5.5)
	if err := checkMade(value); err != nil {
		return "", err
	}
	return value, nil
}

// checkMade is checkValue for what a template has made.
func checkMade(value string) error {
	if len(value) > maxHeaderValue {
		return fmt.Errorf("it makes a value of %d bytes; at most %d are allowed", len(value), maxHeaderValue)
	}
	if checkValue(value) != nil {
		return errors.New("it makes a value with a line break or another control character")
	}
	return nil
}

// forward returns the names of the headers to send on. Each of faults is an *OptionError.
func (o Options) forward() (names map[string]bool, faults []error) {
	names = make(map[string]bool, len(o.ForwardHeader))
	for i, name := range o.ForwardHeader {
		if err := CheckForwardHeader(name); err != nil {
			faults = append(faults, &OptionError{fmt.Sprintf("forward_headers[%d]", i), err})
			continue
		}
		names[http.CanonicalHeaderKey(name)] = true
	}
	return names, faults
}

// sampleBody is what the templates are tried with. It is JSON with quotes in it, as most bodies are: a template that
// puts such a body into a string of JSON without json is wrong, whatever the app posts today.
const sampleBody = `{"sample":"a sample"}`

// trySample renders and signs a message that nobody has posted. Not all that can be wrong shows: what is in the body of a
// message is not known. Each error is an *OptionError.
func (s *Sender) trySample() []error {
	at := time.Unix(1_700_000_000, 0).UTC()
	m := store.Message{Event: "sample.event", ContentType: "application/json", AcceptedAt: at, Size: len(sampleBody)}
	// All that may be sent on, since a signature may be made over it.
	for name := range s.forward {
		m.Header = append(m.Header, store.Field{Name: name, Value: "sample"})
	}
	for _, name := range []string{"Traceparent", "Tracestate", "Ce-Id", "Ce-Source", "Ce-Type", "Ce-Specversion"} {
		m.Header = append(m.Header, store.Field{Name: name, Value: "sample"})
	}
	j := job{
		d: store.Delivery{ID: m.ID.Delivery(0), Destination: "sample", Event: m.Event}, m: m,
		body: []byte(sampleBody), now: at, sample: true,
	}
	// One fault hides those behind it, so each template is tried alone.
	var faults []error
	for _, h := range s.templates.header {
		if _, err := h.render(s.newView(j)); s.counts(err) {
			faults = append(faults, &OptionError{h.option, err})
		}
	}
	if s.templates.body != nil {
		v := s.newView(j)
		_, err := s.renderBody(j, v, func(string, string) {})
		if option, ok := errors.AsType[*OptionError](err); ok && s.counts(option.Err) {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return faults
	}
	if _, err := s.render(j); err != nil {
		if option, ok := errors.AsType[*OptionError](err); ok && s.counts(option.Err) {
			faults = append(faults, err)
		}
	}
	return faults
}

// counts reports whether a fault of a sample is one of the template.
func (s *Sender) counts(err error) bool {
	f, ok := errors.AsType[*renderFault](err)
	return err != nil && (!ok || !f.unknown)
}
