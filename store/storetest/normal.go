package storetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-relay/postern/store"
)

// normal checks a message and brings it into the form in which engines return it.
func normal(m store.Message, body []byte, now func() time.Time) (store.Message, error) {
	if m.ID == (store.MessageID{}) || store.DeliveryID(m.ID).Message() != m.ID {
		return store.Message{}, fmt.Errorf("accept message: %w: %x", store.ErrBadID, m.ID[:])
	}
	if len(m.Recipients) > store.MaxDeliveries {
		return store.Message{}, fmt.Errorf("accept message %s: %d recipients: %w", m.ID, len(m.Recipients), store.ErrTooLarge)
	}
	if len(m.Key) > store.MaxKey {
		return store.Message{}, fmt.Errorf("accept message %s: ordering key of %d bytes", m.ID, len(m.Key))
	}
	m = cloneMessage(m)
	if m.AcceptedAt.IsZero() {
		m.AcceptedAt = now()
	}
	m.AcceptedAt = toMillis(m.AcceptedAt)
	m.Size, m.Reduced = len(body), false
	for i, r := range m.Recipients {
		if err := checkName(r.Destination); err != nil {
			return store.Message{}, fmt.Errorf("accept message %s: recipient %d: %w", m.ID, i, err)
		}
		if n := len(r.Order); n > store.MaxKey+1 {
			return store.Message{}, fmt.Errorf("accept message %s: recipient %d: bad order of %d bytes", m.ID, i, n)
		}
		m.Recipients[i].Delay = r.Delay.Truncate(time.Millisecond)
	}
	return m, nil
}

func checkName(destination string) error {
	if n := len(destination); n == 0 || n > 100 || strings.IndexByte(destination, 0) >= 0 {
		return fmt.Errorf("bad destination name of %d bytes", n)
	}
	return nil
}

func checkRecord(before, after store.Delivery, a store.Attempt) error {
	switch {
	case before.ID != after.ID || before.Destination != after.Destination || before.Order != after.Order:
		return fmt.Errorf("record attempt of %s: the state after it is of another delivery: %w", before.ID, store.ErrInvalid)
	case a.Number > 0 && a.Delivery != before.ID:
		return fmt.Errorf("record attempt of %s: the attempt is of another delivery: %w", before.ID, store.ErrInvalid)
	case a.Number < 0 || a.Number > store.MaxAttempts || a.Number > 0 && (a.Round < 1 || a.Round > store.MaxRound):
		return fmt.Errorf("record attempt of %s: attempt %d of round %d: %w", before.ID, a.Number, a.Round, store.ErrInvalid)
	}
	return nil
}

func cloneMessage(m store.Message) store.Message {
	m.Recipients = slices.Clone(m.Recipients)
	m.Header = append([]store.Field(nil), m.Header...)
	if m.Idempotency != nil {
		pair := *m.Idempotency
		m.Idempotency = &pair
	}
	return m
}

func normalDelivery(d store.Delivery) store.Delivery {
	d.AcceptedAt, d.BegunAt = toMillis(d.AcceptedAt), toMillis(d.BegunAt)
	d.DueAt, d.EndedAt = toMillis(d.DueAt), toMillis(d.EndedAt)
	d.Blocking = d.Blocking && d.State == store.Failed && d.Order != ""
	return d
}

// normalPause is p as engines keep it.
func normalPause(p store.Pause) store.Pause {
	p.At = toMillis(p.At)
	p.Reason = store.CutReason(p.Reason)
	return p
}

// normalAttempt returns a copy that shares nothing with a.
func normalAttempt(a store.Attempt) store.Attempt {
	a.StartedAt, a.CertExpires = toMillis(a.StartedAt), toMillis(a.CertExpires)
	a.Header = a.Header.Clone()
	a.Body = slices.Clone(a.Body)
	a.Request.Header = append([]store.Field(nil), a.Request.Header...)
	a.Request.Body = slices.Clone(a.Request.Body)
	return a
}

// toMillis is t as engines keep it: to the millisecond, in UTC, without a monotonic reading.
func toMillis(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}
