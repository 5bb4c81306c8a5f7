package admin

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

const (
	maxFilterText = 200 // bytes of each text of a filter
	filterMark    = 8   // bytes of a cursor that say which filter it belongs to
)

// filter reads a filter.
func (h *Handler) filter(f DeliveryFilter) (store.Filter, error) {
	out := store.Filter{Destination: f.Destination, Event: f.Event, Text: f.Q}
	for key, text := range map[string]string{"destination": f.Destination, "event": f.Event, "q": f.Q} {
		if len(text) > maxFilterText {
			return out, problem.New(http.StatusBadRequest, "%s has %d bytes; at most %d are allowed", key, len(text), maxFilterText)
		}
	}
	if f.State != "" {
		s, err := h.state(f.State)
		if err != nil {
			return out, err
		}
		out.State = s
	}
	if f.Class != "" {
		c, err := h.class(f.Class)
		if err != nil {
			return out, err
		}
		out.Class = c
	}
	var err error
	if out.Since, err = readTime("since", f.Since, h.now()); err != nil {
		return out, err
	}
	if out.Until, err = readTime("until", f.Until, h.now()); err != nil {
		return out, err
	}
	return out, nil
}

// ReadFilter reads a filter as the API does, for who has a store that no relay works on. now is what durations count back
// from. The error says what is wrong.
func ReadFilter(f DeliveryFilter, now time.Time) (store.Filter, error) {
	out, err := (&Handler{Now: func() time.Time { return now }}).filter(f)
	if fault, ok := errors.AsType[*problem.Error](err); ok {
		err = errors.New(fault.Detail)
	}
	return out, err
}

func (h *Handler) state(text string) (store.State, error) {
	var known []string
	for s := store.Pending; s <= store.Canceled; s++ {
		if s.String() == text {
			return s, nil
		}
		known = append(known, s.String())
	}
	return 0, problem.New(http.StatusBadRequest, "there is no state %.50q%s", text, h.suggest(text, known))
}

func (h *Handler) class(text string) (store.Class, error) {
	var known []string
	for c := store.ClassOK; c <= store.ClassInterrupted; c++ {
		if c.String() == text {
			return c, nil
		}
		known = append(known, c.String())
	}
	return 0, problem.New(http.StatusBadRequest, "there is no class %.50q%s", text, h.suggest(text, known))
}

// readTime reads a time of RFC 3339, or a duration as time.ParseDuration does, with d for days of 24 hours in front,
// which means so long before now. An empty text is the zero time.
func readTime(key, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if d, ok := readAge(text); ok {
		return now.Add(-d), nil
	}
	return time.Time{}, problem.New(http.StatusBadRequest,
		"%s is %.50q; write a time such as 2026-03-14T15:09:26Z, or a duration before now such as 90m or 2d", key, text)
}

// maxAge bounds how long before now a duration may say.
const maxAge = 100 * 365 * 24 * time.Hour

func readAge(text string) (time.Duration, bool) {
	var days time.Duration
	if count, rest, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(count, 10, 16)
		if days = time.Duration(n) * 24 * time.Hour; err != nil || days > maxAge {
			return 0, false
		}
		if text = rest; text == "" {
			return days, true
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxAge-days || strings.HasPrefix(text, "+") || strings.HasPrefix(text, "-") {
		return 0, false
	}
	return d + days, true
}

// mark tells filters apart. It is of the texts as they were asked for, so that a duration before now stays the same.
func (f DeliveryFilter) mark() [filterMark]byte {
	hash := sha256.New()
	for _, text := range []string{f.Destination, f.State, f.Event, f.Class, f.Since, f.Until, f.Q} {
		hash.Write([]byte{byte(len(text)), byte(len(text) >> 8)})
		hash.Write([]byte(text))
	}
	return [filterMark]byte(hash.Sum(nil))
}

// cursor writes a place in the list that the filter makes.
func (f DeliveryFilter) cursor(p store.Place) string {
	mark := f.mark()
	return base64.RawURLEncoding.EncodeToString(append(mark[:], p.ID[:]...))
}

// place reads what cursor wrote for the same filter. An empty text is the beginning.
func (f DeliveryFilter) place(cursor string) (store.Place, error) {
	if cursor == "" {
		return store.Place{}, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) != filterMark+len(store.DeliveryID{}) {
		return store.Place{}, problem.New(http.StatusBadRequest, "the cursor is malformed; leave it out to begin at the first page")
	}
	if [filterMark]byte(raw) != f.mark() {
		return store.Place{}, problem.New(http.StatusBadRequest, "the cursor belongs to another filter; leave it out to begin at the first page")
	}
	return store.Place{ID: store.DeliveryID(raw[filterMark:])}, nil
}
