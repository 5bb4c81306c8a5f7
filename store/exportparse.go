package store

import (
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
)

// leftOutReason is why a delivery is canceled that was pending, and that the filter of an export did not choose.
const leftOutReason = "left out by the filter of the export that it came with"

// parser turns the wire form into records, and remembers the first fault.
type parser struct {
	exportedAt time.Time
	err        error
}

func (p *parser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// within calls fn, and puts a place before the fault that it finds.
func (p *parser) within(place string, fn func()) {
	if p.err != nil {
		return
	}
	if fn(); p.err != nil {
		p.err = fmt.Errorf("%s.%w", place, p.err)
	}
}

// text returns a text from its two fields.
func (p *parser) text(field, text string, raw []byte) string {
	if text != "" && len(raw) > 0 {
		p.fail(invalid(field, "there is a %s_base64 beside it", field))
	}
	if len(raw) > 0 {
		return string(raw)
	}
	return text
}

// duration reads a number of seconds.
func (p *parser) duration(field string, seconds float64) time.Duration {
	const most = float64(math.MaxInt64/time.Second) - 1
	if seconds < 0 || seconds > most {
		p.fail(invalid(field, "it is %v, and has to be from 0 to %v", seconds, most))
		return 0
	}
	return time.Duration(math.Round(seconds * float64(time.Second)))
}

// time checks a time, which engines keep to the millisecond. With its offset it may be of a year in UTC that JSON does not
// have, and then the store that it has come to could not be exported again.
func (p *parser) time(field string, t time.Time) time.Time {
	t = t.UTC()
	if t.Before(time.Time{}) || t.Year() > 9999 {
		p.fail(invalid(field, "it lies before the year 1 or behind the year 9999, in UTC"))
	}
	return at(t)
}

func (p *parser) content(c exportContent) []byte {
	body, err := c.bytes()
	if err != nil {
		p.fail(err)
	}
	return body
}

func (p *parser) fields(list []exportField) []Field {
	var out []Field
	for i, f := range list {
		p.within(fmt.Sprintf("headers[%d]", i), func() {
			out = append(out, Field{Name: p.text("name", f.Name, f.NameBase64), Value: p.text("value", f.Value, f.ValueBase64)})
		})
	}
	return out
}

// forwarded checks the fields that are to be sent on: what cannot stand in a request would fail at each attempt.
func (p *parser) forwarded(list []Field) {
	for i, f := range list {
		if !isToken(f.Name) || http.CanonicalHeaderKey(f.Name) != f.Name {
			p.fail(invalid(fmt.Sprintf("headers[%d].name", i), "it is not the name of a header in its canonical form"))
		}
		if strings.ContainsAny(f.Value, "\r\n\x00") {
			p.fail(invalid(fmt.Sprintf("headers[%d].value", i), "it holds a line end or a zero byte"))
		}
	}
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		alphanumeric := r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
		return !alphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

func (p *parser) digest(field, text string) (digest [32]byte) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(digest) {
		p.fail(invalid(field, "it is not 64 hexadecimal digits"))
		return digest
	}
	return [32]byte(raw)
}

// message returns a message, checked by CheckExported. Of one that its export has left out, a delivery is canceled.
func (p *parser) message(in exportMessage) (Exported, error) {
	var x Exported
	id, err := exact("id", in.ID, ParseMessageID)
	if err != nil {
		return Exported{}, err
	}
	x.Message = Message{
		ID: id, Event: p.text("event", in.Event, in.EventBase64), ContentType: p.text("content_type", in.ContentType, in.ContentTypeBase64),
		AcceptedAt: p.time("accepted_at", in.AcceptedAt), Size: in.SizeBytes, Reduced: in.BodyReduced, Hops: in.Hops,
		Key: p.text("key", in.Key, in.KeyBase64), Path: p.text("path", in.Path, in.PathBase64), Header: p.fields(in.Headers),
	}
	p.forwarded(x.Message.Header)
	if path := x.Message.Path; path != "" && path[0] != '/' && path[0] != '?' {
		p.fail(invalid("path", "it begins with neither a slash nor a question mark"))
	}
	if pair := in.Idempotency; pair != nil {
		x.Message.Idempotency = &Idempotency{
			Key: p.digest("idempotency.key_sha256", pair.KeySHA256), Content: p.digest("idempotency.content_sha256", pair.ContentSHA256),
		}
	}
	x.Body = p.content(in.exportContent)
	if p.err == nil && len(in.Deliveries) > MaxDeliveries {
		p.fail(fmt.Errorf("deliveries: there are %d, and %d are allowed: %w", len(in.Deliveries), MaxDeliveries, ErrTooLarge))
	}
	for n, d := range in.Deliveries {
		p.within(fmt.Sprintf("deliveries[%d]", n), func() {
			to, one := p.delivery(x.Message, d)
			x.Message.Recipients = append(x.Message.Recipients, to)
			x.Deliveries = append(x.Deliveries, one)
		})
	}
	if p.err != nil {
		return Exported{}, p.err
	}
	return x, CheckExported(x)
}

func (p *parser) delivery(m Message, in exportDelivery) (to Recipient, d ExportedDelivery) {
	id, err := exact("id", in.ID, ParseDeliveryID)
	if err != nil {
		p.fail(err)
		return to, d
	}
	state, err := parseState(in.State)
	if err != nil {
		p.fail(err)
	}
	to = Recipient{
		Destination: p.text("destination", in.Destination, in.DestinationBase64),
		Delay:       p.duration("delay_seconds", in.DelaySeconds).Round(time.Millisecond),
		Order:       p.text("order", in.Order, in.OrderBase64),
	}
	d.Delivery = Delivery{
		ID: id, Destination: to.Destination, Event: m.Event, Order: to.Order, State: state,
		Round: in.Round, Attempts: in.Attempts, Made: in.Made, AcceptedAt: m.AcceptedAt,
		BegunAt: p.time("begun_at", in.BegunAt), DueAt: p.time("due_at", in.DueAt), EndedAt: p.time("ended_at", in.EndedAt),
		Reason: p.text("reason", in.Reason, in.ReasonBase64), Blocking: in.Blocking,
	}
	if in.LeftLine {
		if to.Order == "" {
			p.fail(invalid("left_line", "it stands in no line"))
		}
		d.Order = ""
	}
	if in.LeftOut {
		if state != Pending {
			p.fail(invalid("left_out", "it is not pending"))
		}
		d.State, d.DueAt, d.EndedAt, d.Reason = Canceled, time.Time{}, p.exportedAt, leftOutReason
	}
	if last := in.Last; last != nil {
		class, err := parseClass("last.class", last.Class)
		if err != nil {
			p.fail(err)
		}
		d.Last = Outcome{At: p.time("last.at", last.At), Class: class, Status: last.Status, Error: p.text("last.error", last.Error, last.ErrorBase64)}
	}
	for i, a := range in.History {
		p.within(fmt.Sprintf("history[%d]", i), func() { d.History = append(d.History, p.attempt(id, a)) })
	}
	return to, d
}

func (p *parser) attempt(id DeliveryID, in exportAttempt) Attempt {
	class, err := parseClass("class", in.Class)
	if err != nil {
		p.fail(err)
	}
	a := Attempt{
		Delivery: id, Round: in.Round, Number: in.Number, StartedAt: p.time("started_at", in.StartedAt),
		Took: p.duration("took_seconds", in.TookSeconds), Class: class, Probe: in.Probe, Status: in.Status,
		Error: p.text("error", in.Error, in.ErrorBase64), RetryHint: p.duration("retry_hint_seconds", in.RetryHintSeconds),
		Timing: Timing{
			DNS: p.duration("timing.dns_seconds", in.Timing.DNSSeconds), Connect: p.duration("timing.connect_seconds", in.Timing.ConnectSeconds),
			TLS: p.duration("timing.tls_seconds", in.Timing.TLSSeconds), FirstByte: p.duration("timing.first_byte_seconds", in.Timing.FirstByteSeconds),
		},
		Peer: p.text("peer", in.Peer, in.PeerBase64), Reused: in.Reused,
		CertExpires: p.time("certificate_expires_at", in.CertificateExpiresAt),
	}
	if r := in.Request; r != nil {
		p.within("request", func() {
			a.Request = Sent{
				Method: p.text("method", r.Method, r.MethodBase64), URL: p.text("url", r.URL, r.URLBase64),
				Header: p.fields(r.Headers), Body: p.content(r.exportContent), Rendered: !r.BodyIsMessage, Truncated: r.Truncated,
			}
		})
	}
	if r := in.Response; r != nil {
		p.within("response", func() {
			a.Body, a.Truncated = p.content(r.exportContent), r.Truncated
			for _, f := range p.fields(r.Headers) {
				if a.Header == nil {
					a.Header = make(http.Header)
				}
				a.Header[f.Name] = append(a.Header[f.Name], f.Value)
			}
		})
	}
	return a
}

func parseState(text string) (State, error) {
	for s, name := range stateNames {
		if name == text {
			return s, nil
		}
	}
	return 0, invalid("state", "there is no state %.40q", text)
}

func parseClass(field, text string) (Class, error) {
	for c, name := range classNames {
		if name == text {
			return c, nil
		}
	}
	return 0, invalid(field, "there is no class %.40q", text)
}

// exact parses a text that has one form only.
func exact[T fmt.Stringer](field, text string, parse func(string) (T, error)) (T, error) {
	id, err := parse(text)
	if err == nil && id.String() != text {
		err = fmt.Errorf("%w: %q; write it in lower case", ErrBadID, text)
	}
	if err != nil {
		return id, fmt.Errorf("%s: %w", field, err)
	}
	return id, nil
}
