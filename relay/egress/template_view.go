package egress

import (
	"time"

	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// view is what a template sees of a delivery: its exported fields and methods are the names it has for them, and the
// contract with those who write templates.
type view struct {
	ID          string // of the message, msg_…
	DeliveryID  string // dlv_…
	Event       string // dotted type; empty for a post to a destination by name
	Destination string // its name
	Timestamp   string // when the message was accepted: RFC 3339 in UTC, the same in every attempt
	ContentType string // as the app posted it
	Key         string // ordering key; empty for none

	raw     []byte // the body
	body    *string
	data    any
	dataErr error
	parsed  bool

	header  func(name string) (value string, ok bool)
	now     time.Time // of the attempt
	sample  bool      // nothing is known of body and headers
	touched bool      // the body or a header was asked for
	guessed bool      // a template was given what a sample does not have
}

func (s *Sender) newView(j job) *view {
	return &view{
		ID: j.m.ID.String(), DeliveryID: j.d.ID.String(), Event: j.m.Event, Destination: j.d.Destination,
		Timestamp:   j.m.AcceptedAt.UTC().Format(time.RFC3339),
		ContentType: j.m.ContentType, Key: j.m.Key,
		raw: j.body, now: j.now, sample: j.sample,
		header: func(name string) (string, bool) { return s.namedValue(j.m, name) },
	}
}

// Body is the body as the app posted it. It is inserted as it is, and never read as a template (T11).
func (v *view) Body() string {
	if v.body == nil {
		text := string(v.raw)
		v.body = &text
	}
	return *v.body
}

// Data is the body as a JSON document.
func (v *view) Data() (any, error) {
	if v.sample {
		v.touched = true
		return null(nil), nil
	}
	if !v.parsed {
		v.parsed = true
		v.data, v.dataErr = parseData(v.raw)
	}
	if v.dataErr != nil {
		return nil, faulty(".Data needs a JSON body, and that of this message is none: %v", v.dataErr)
	}
	return v.data, nil
}

// Header is a header of the app's request that is meant to be sent on, and missing if there is none.
func (v *view) Header(name string) any {
	if v.sample {
		v.touched = true
		return nil
	}
	if len(name) > maxHeaderName { // it may be as long as the body, and reading it is not counted
		return nil
	}
	if value, ok := v.header(name); ok {
		return value
	}
	return nil
}

// job is one request to build.
type job struct {
	d      store.Delivery
	m      store.Message
	body   []byte
	now    time.Time
	sample bool // to see whether the templates are right; nothing is known of the body

	showBody bool                         // the record has the body that a template made even with Options.OmitBody
	watch    func(nth int, in sign.Input) // is told what the nth signer is about to sign; may be nil
}
