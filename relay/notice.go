package relay

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

// A notice is a message of Postern's own, about what became of a delivery or a destination. It goes to the destinations
// whose events begin with noticePrefix, and is a message like any other from then on.
//
// No notice makes another: what fails of them, and an outage that one of them has shown, is told nobody; and nothing is
// told to the destination that it is about.
const (
	noticePrefix = "postern." // of events that no app can post

	noticeFailed    = noticePrefix + "delivery.failed"
	noticePaused    = noticePrefix + "destination.paused"
	noticeRecovered = noticePrefix + "destination.recovered"
)

// noticeEvents are all of them.
func noticeEvents() []string { return []string{noticeFailed, noticePaused, noticeRecovered} }

// isNotice reports whether an event is one of ours, or was before there were others.
func isNotice(event string) bool { return strings.HasPrefix(event, noticePrefix) }

// checkNoticePattern refuses a pattern that asks for notices and can never get one. text is as it was written.
func checkNoticePattern(text string, m match.Pattern) error {
	for _, event := range noticeEvents() {
		if m.Match(event) {
			return nil
		}
	}
	if nearest := config.Nearest(text, noticeEvents()); nearest != "" {
		return fmt.Errorf("%q matches none of Postern's own events; did you mean %q?", text, nearest)
	}
	return fmt.Errorf("%q matches none of Postern's own events; there are %s", text, strings.Join(noticeEvents(), ", "))
}

// cause is why a destination is held.
type cause string

const (
	causePerson cause = "person" // somebody has paused it
	causeGone   cause = "gone"   // its receiver has answered 410
	causeOutage cause = "outage" // its breaker is open
)

// causeOf returns whose pause it is.
func causeOf(p store.Pause) cause {
	if p.Reason == lane.GoneReason {
		return causeGone
	}
	return causePerson
}

// noticeBody is the body of a notice. It and the types of Data are the contract with receivers: fields are added, and
// never taken away. None holds a body, the value of a header, a query or a secret.
type noticeBody struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"` // when it happened
	Data      any       `json:"data"`
}

// failedData is the Data of noticeFailed.
type failedData struct {
	DeliveryID  string      `json:"delivery_id"`
	MessageID   string      `json:"message_id"`
	Destination string      `json:"destination"`
	Event       string      `json:"event"` // empty for a post to the destination by name
	Round       int         `json:"round"`
	Attempts    int         `json:"attempts"` // used up in that round
	Reason      string      `json:"reason"`
	Last        lastAttempt `json:"last"`
	Suppressed  int         `json:"suppressed"` // deliveries that failed since the notice before, without one of their own
}

type lastAttempt struct {
	Class  string `json:"class"`
	Status int    `json:"status"` // 0 without an answer
	Error  string `json:"error"`
}

// pausedData is the Data of noticePaused.
type pausedData struct {
	Destination string    `json:"destination"`
	Cause       cause     `json:"cause"`
	Reason      string    `json:"reason"`
	Since       time.Time `json:"since"`
	Pending     int64     `json:"pending"`
}

// recoveredData is the Data of noticeRecovered.
type recoveredData struct {
	Destination   string    `json:"destination"`
	Cause         cause     `json:"cause"` // of what is over
	Since         time.Time `json:"since"` // when that began
	LastedSeconds float64   `json:"lasted_seconds"`
	Pending       int64     `json:"pending"`
}

// failedOf returns what is told of a delivery that an attempt has failed.
func failedOf(d store.Delivery, a store.Attempt) failedData {
	last := lastAttempt{Class: a.Class.String(), Status: a.Status, Error: store.CutReason(a.Gist())}
	return failedData{
		DeliveryID: d.ID.String(), MessageID: d.ID.Message().String(), Destination: d.Destination, Event: d.Event,
		Round: d.Round, Attempts: d.Attempts, Reason: store.CutReason(d.Reason), Last: last,
	}
}

// encode returns the body.
func (n noticeBody) encode() ([]byte, error) {
	n.Timestamp = noticeTime(n.Timestamp)
	body, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", n.Type, err)
	}
	return body, nil
}

// noticeTime is a time as notices tell it, and as the store keeps it.
func noticeTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// noticeKey makes a notice about what began at a time the same message, however often it is accepted. A zero byte keeps
// it apart from the keys of apps.
func noticeKey(event, about string, at time.Time) *store.Idempotency {
	digest := sha256.Sum256(fmt.Appendf(nil, "\x00postern\x00%s\x00%s\x00%d", event, about, at.UnixMilli()))
	return &store.Idempotency{Key: digest, Content: digest}
}

// noticeRoutes returns who gets a notice about a destination.
func (p *Plan) noticeRoutes(event, about string, body []byte) (to []store.Recipient, errs []error) {
	parsed := filtered{raw: body}
	for _, name := range p.names {
		d := p.destinations[name]
		if name == about || !d.wants(event) {
			continue
		}
		wanted, err := parsed.passes(d.when, p.parsing)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("filter of destination %q: %w", name, err))
		case wanted && len(to) < store.MaxDeliveries:
			to = append(to, d.route(name, about).To)
		}
	}
	return to, errs
}

// tells reports whether somebody may want a notice about a destination.
func (p *Plan) tells(event, about string) bool {
	for name, d := range p.destinations {
		if name != about && d.wants(event) {
			return true
		}
	}
	return false
}
