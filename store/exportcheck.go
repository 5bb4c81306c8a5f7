package store

import (
	"fmt"
	"strings"
	"time"
)

// CheckExported returns ErrInvalid, ErrBadID or ErrTooLarge, wrapped, for a message that contradicts itself or lies out
// of range, whatever the engine: a Delivery that is not that of its Recipient, a State that lacks its time, attempts out
// of order or of another round, a body that is not of its Size. A record that an engine has is none of these.
func CheckExported(x Exported) error {
	m := x.Message
	switch {
	case m.ID == (MessageID{}) || DeliveryID(m.ID).Message() != m.ID:
		return fmt.Errorf("id: %w", ErrBadID)
	case len(m.Recipients) > MaxDeliveries:
		return fmt.Errorf("deliveries: there are %d, and %d are allowed: %w", len(m.Recipients), MaxDeliveries, ErrTooLarge)
	case len(x.Deliveries) != len(m.Recipients):
		return invalid("deliveries", "there are %d for %d recipients", len(x.Deliveries), len(m.Recipients))
	case len(m.Key) > MaxKey:
		return invalid("key", "it has %d bytes, and %d are allowed", len(m.Key), MaxKey)
	case m.Hops < 0 || m.Hops > MaxHops:
		return invalid("hops", "it is %d, and has to be from 0 to %d", m.Hops, MaxHops)
	case m.AcceptedAt.IsZero():
		return invalid("accepted_at", "it is missing")
	case m.Size < 0:
		return invalid("size_bytes", "it is %d", m.Size)
	case !m.Reduced && len(x.Body) != m.Size:
		return invalid("body", "it has %d bytes, and size_bytes says %d", len(x.Body), m.Size)
	case m.Reduced && len(x.Body) > MaxReduced:
		return fmt.Errorf("body: of %d bytes, in place of the one that was posted: %w", len(x.Body), ErrTooLarge)
	}
	for n, d := range x.Deliveries {
		if err := checkDelivery(m, n, d); err != nil {
			return fmt.Errorf("deliveries[%d].%w", n, err)
		}
	}
	return nil
}

// invalid says what is wrong with a field.
func invalid(field, format string, args ...any) error {
	return &fieldError{text: field + ": " + fmt.Sprintf(format, args...)}
}

// fieldError is an ErrInvalid that says what is wrong in its own words.
type fieldError struct{ text string }

func (e *fieldError) Error() string { return e.text }
func (*fieldError) Unwrap() error   { return ErrInvalid }

func checkDelivery(m Message, n int, d ExportedDelivery) error {
	to := m.Recipients[n]
	size := len(to.Destination)
	switch {
	case d.ID != m.ID.Delivery(n):
		return invalid("id", "%s is not that of delivery %d of message %s", d.ID, n+1, m.ID)
	case size == 0 || size > 100 || strings.IndexByte(to.Destination, 0) >= 0:
		return invalid("destination", "a name has 1 to 100 bytes, and no zero byte")
	case d.Destination != to.Destination || d.Event != m.Event || !d.AcceptedAt.Equal(m.AcceptedAt):
		return invalid("destination", "it is not that of its message")
	case len(to.Order) > MaxKey+1:
		return invalid("order", "it has %d bytes, and %d are allowed", len(to.Order), MaxKey+1)
	case d.Order != "" && d.Order != to.Order:
		return invalid("order", "it is not that of its message")
	case to.Delay < 0:
		return invalid("delay_seconds", "it is below 0")
	case stateNames[d.State] == "":
		return invalid("state", "there is no such state")
	case d.Round < 1 || d.Round > MaxRound:
		return invalid("round", "it is %d, and has to be from 1 to %d", d.Round, MaxRound)
	case d.Attempts < 0 || d.Attempts > MaxAttempts:
		return invalid("attempts", "they are %d, and have to be from 0 to %d", d.Attempts, MaxAttempts)
	case d.Made < 0 || d.Made > MaxAttempts:
		return invalid("made", "it is %d, and has to be from 0 to %d", d.Made, MaxAttempts)
	case d.State == Pending && d.DueAt.IsZero():
		return invalid("due_at", "it is missing, and the delivery is pending")
	case d.State != Pending && d.EndedAt.IsZero():
		return invalid("ended_at", "it is missing, and the delivery is %s", d.State)
	case d.Blocking && (d.State != Failed || d.Order == ""):
		return invalid("blocking", "only a failed delivery in a line can be")
	case d.Last != (Outcome{}) && classNames[d.Last.Class] == "":
		return invalid("last.class", "there is no such class")
	case d.Last.Status < 0 || d.Last.Status > 999:
		return invalid("last.status", "it is %d", d.Last.Status)
	case len(d.Last.Error) > MaxReason:
		return invalid("last.error", "it has %d bytes, and %d are allowed", len(d.Last.Error), MaxReason)
	}
	for i, a := range d.History {
		var before Attempt
		if i > 0 {
			before = d.History[i-1]
		}
		if err := checkAttempt(d, before, a); err != nil {
			return fmt.Errorf("history[%d].%w", i, err)
		}
	}
	return nil
}

func checkAttempt(d ExportedDelivery, before, a Attempt) error {
	switch {
	case a.Delivery != d.ID:
		return invalid("id", "it is an attempt of another delivery")
	case a.Round < 1 || a.Round > d.Round:
		return invalid("round", "it is %d, and has to be from 1 to the delivery's %d", a.Round, d.Round)
	case a.Number < 1 || a.Number > MaxAttempts:
		return invalid("number", "it is %d, and has to be from 1 to %d", a.Number, MaxAttempts)
	case a.Round < before.Round, a.Round == before.Round && a.Number <= before.Number:
		return invalid("number", "attempt %d of round %d comes after attempt %d of round %d", a.Number, a.Round, before.Number, before.Round)
	case classNames[a.Class] == "":
		return invalid("class", "there is no such class")
	case a.Status < 0 || a.Status > 999:
		return invalid("status", "it is %d", a.Status)
	}
	for name, v := range map[string]time.Duration{
		"took_seconds": a.Took, "retry_hint_seconds": a.RetryHint, "timing.dns_seconds": a.Timing.DNS,
		"timing.connect_seconds": a.Timing.Connect, "timing.tls_seconds": a.Timing.TLS, "timing.first_byte_seconds": a.Timing.FirstByte,
	} {
		if v < 0 {
			return invalid(name, "it is below 0")
		}
	}
	return nil
}
