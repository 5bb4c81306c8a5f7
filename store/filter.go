package store

import "strings"

// Match reports whether d passes f. m is d's message; only f.Text needs it, for the ordering key.
func (f Filter) Match(d Delivery, m Message) bool {
	switch {
	case f.Destination != "" && d.Destination != f.Destination,
		f.State != 0 && d.State != f.State,
		f.Event != "" && d.Event != f.Event,
		f.Class != 0 && d.Last.Class != f.Class,
		!f.Since.IsZero() && d.AcceptedAt.Before(f.Since),
		!f.Until.IsZero() && !d.AcceptedAt.Before(f.Until):
		return false
	}
	return f.Text == "" || f.matchText(d, m)
}

func (f Filter) matchText(d Delivery, m Message) bool {
	text := strings.ToLower(f.Text)
	if digits, prefix := idText(text); prefix == messagePrefix {
		return strings.HasPrefix(d.ID.Message().String()[len(prefix):], digits)
	} else if prefix == deliveryPrefix {
		return strings.HasPrefix(d.ID.String()[len(prefix):], digits)
	}
	for _, s := range []string{d.Event, m.Key, d.Reason, d.Last.Error, d.ID.Message().String(), d.ID.String()} {
		if strings.Contains(strings.ToLower(s), text) {
			return true
		}
	}
	return false
}

// Bounds returns the first and the last id that a delivery can have whose id begins as Text says, so that an engine
// need not look elsewhere. If Text is not the beginning of an id, all can.
func (f Filter) Bounds() (first, last DeliveryID) {
	digits, prefix := idText(strings.ToLower(f.Text))
	if prefix == messagePrefix {
		digits = digits[:min(len(digits), 2*len(first)-3)] // the last three of a message's are not those of its deliveries
	}
	for i := range last {
		last[i] = 0xff
	}
	for i, c := range []byte(digits) {
		digit := c - '0'
		if c >= 'a' {
			digit = c - 'a' + 10
		}
		shift := 4 * (1 - i%2)
		first[i/2] |= digit << shift
		last[i/2] &^= (0x0f &^ digit) << shift
	}
	return first, last
}

// idText takes a text in lower case apart that is the beginning of an id. The prefix is empty if it is none.
func idText(text string) (digits, prefix string) {
	for _, prefix := range []string{messagePrefix, deliveryPrefix} {
		digits, ok := strings.CutPrefix(text, prefix)
		if ok && len(digits) <= 2*len(DeliveryID{}) && strings.Trim(digits, "0123456789abcdef") == "" {
			return digits, prefix
		}
	}
	return "", ""
}
