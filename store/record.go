package store

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Message is what the app posted, without its body. Times are kept to the millisecond.
type Message struct {
	ID          MessageID
	Event       string    // dotted type; empty for a post to a destination by name
	ContentType string    // as posted; empty if the app sent none
	AcceptedAt  time.Time // when ingest took it
	Size        int       // bytes of the body as posted
	Reduced     bool      // the body is no longer the one that was posted, see Steerer.Reduce
	Hops        int       // relays that it came through before this one, 0 to MaxHops
	Key         string    // ordering key that the app gave it; empty for none, at most MaxKey bytes

	// Path is what followed the destination's name in the target of the app's request: an escaped path that begins
	// with a slash, a query that begins with a question mark, or both. Empty for nothing.
	Path string

	// Header holds the headers of the app's request that may be sent on, in its order.
	Header []Field

	// Recipients says where it goes; the n-th is that of delivery ID.Delivery(n). It may be empty, and holds at
	// most MaxDeliveries.
	Recipients []Recipient

	// Idempotency is the digest pair of a post with an Idempotency-Key, and nil for one without.
	Idempotency *Idempotency
}

// Brief returns the message with only its ID, Event, AcceptedAt, Key, Recipients and Idempotency.
func (m Message) Brief() Message {
	return Message{
		ID: m.ID, Event: m.Event, AcceptedAt: m.AcceptedAt, Key: m.Key, Recipients: m.Recipients, Idempotency: m.Idempotency,
	}
}

// Field is one header field of a request.
type Field struct {
	Name  string // in canonical form, see http.CanonicalHeaderKey
	Value string
}

// MaxKey is the most bytes of an ordering key.
const MaxKey = 255

// Recipient is one destination of a message.
type Recipient struct {
	Destination string        // its name: 1 to 100 bytes without a zero byte
	Delay       time.Duration // from acceptance to the first attempt, to the millisecond; 0 means at once

	// Order puts the delivery into a line: of the deliveries to one destination with the same Order, Due returns only
	// the first that has not ended, in the order of acceptance. Empty for none, at most MaxKey+1 bytes.
	Order string
}

// MaxHops is how many relays a message may have come through. One that came through more goes round in a loop.
const MaxHops = 3

// HopsHeader carries the number of relays that a request has come through. Each relay sends one more than it got.
const HopsHeader = "Postern-Hops"

// ReplayHeader marks the requests of a replay: its value is the number of the replay, from 1. The first round has none.
const ReplayHeader = "Postern-Replay"

// Delivery returns the n-th delivery of the message as it is before its first attempt.
func (m Message) Delivery(n int) Delivery {
	to := m.Recipients[n]
	return Delivery{
		ID: m.ID.Delivery(n), Destination: to.Destination, Event: m.Event, Order: to.Order,
		State: Pending, Round: 1, AcceptedAt: m.AcceptedAt, DueAt: m.AcceptedAt.Add(to.Delay),
	}
}

// Idempotency recognises a post that is made again. Both halves are SHA-256 digests: neither the app's key nor
// its body can be read back from them.
type Idempotency struct {
	Key     [32]byte // of the Idempotency-Key and what scopes it
	Content [32]byte // of the request's target and body
}

// Delivery is one message on its way to one destination. The zero value is no delivery.
type Delivery struct {
	ID          DeliveryID
	Destination string
	Event       string
	Order       string // the line it stands in, as in its Recipient; empty for none
	State       State
	Round       int // from 1; a replay begins the next
	Attempts    int // attempts used up in this round; interrupted ones are not counted
	Made        int // attempts on record in this round, interrupted ones included; at most MaxAttempts
	AcceptedAt  time.Time
	BegunAt     time.Time // when the first attempt of this round that was not interrupted began; zero before it
	DueAt       time.Time // pending: when the next attempt may be made
	EndedAt     time.Time // otherwise: when it ended
	Reason      string    // failed or canceled: why, for a person
	Last        Outcome   // of the latest attempt on record; zero before the first
	Blocking    bool      // failed, with an Order: those behind it in its line wait until it is released
}

// The bounds of what can be on record of a delivery. Queue.Record refuses what lies beyond with ErrInvalid, and
// Steerer.Replay a round after the last with ErrTooLarge.
const (
	MaxRound    = 1<<16 - 1 // rounds of a delivery
	MaxAttempts = 1<<16 - 1 // attempts of a round, interrupted ones and probes included
)

// Outcome is what came of an attempt, in short.
type Outcome struct {
	At     time.Time // when the attempt began
	Class  Class
	Status int    // HTTP status, 0 without an answer
	Error  string // as in the Attempt, cut to MaxReason bytes
}

// Quote begins the part of an Attempt's Error that somebody else has written.
const Quote = "; it says: "

// Gist says why an attempt had no success, for logs, traces and others that must not hold a piece of what receivers and
// token endpoints answer: for such a piece the history has Error. It is empty if Error is.
func (a Attempt) Gist() string {
	if a.Class == ClassExpect && a.Error != "" {
		return "the answer does not hold what is expected"
	}
	gist, _, _ := strings.Cut(a.Error, Quote)
	return gist
}

// Outcome returns the attempt in short, as Queue.Record keeps it with the delivery: At to the millisecond, in UTC.
func (a Attempt) Outcome() Outcome {
	return Outcome{At: a.StartedAt.UTC().Truncate(time.Millisecond), Class: a.Class, Status: a.Status, Error: CutReason(a.Error)}
}

// CutReason cuts a text to MaxReason bytes, where a letter ends.
func CutReason(text string) string {
	if len(text) <= MaxReason {
		return text
	}
	return strings.ToValidUTF8(text[:MaxReason], "")
}

// Attempt is one HTTP request of a delivery and its outcome.
type Attempt struct {
	Delivery  DeliveryID
	Round     int // from 1 to MaxRound
	Number    int // from 1 within the round, to MaxAttempts
	StartedAt time.Time
	Took      time.Duration // from the start to the last byte read
	Class     Class
	Probe     bool   // it tested whether an outage is over, and used up no attempt
	Status    int    // HTTP status, 0 without an answer
	Error     string // for a person; empty when Class is OK. Holds no secret, query or body

	Request   Sent          // as it was sent; zero if nothing could be sent
	Header    http.Header   // of the answer, bounded by the sender
	Body      []byte        // of the answer, bounded by the sender; nil of a Probe
	Truncated bool          // the answer's body was longer than Body
	RetryHint time.Duration // from Retry-After, 0 if there was none

	Timing      Timing
	Peer        string    // address and port of the other end, empty without a connection
	Reused      bool      // the connection had carried a request before
	CertExpires time.Time // of the receiver's leaf certificate, zero without one
}

// Sent is a request as it was sent, its secrets masked by the sender.
type Sent struct {
	Method string
	URL    string  // with its query, secret values masked
	Header []Field // in the order of their names

	// Body is what was sent, cut by the sender to a bound, if that was not the message's body. Rendered tells the two
	// apart when it is empty.
	Body      []byte
	Rendered  bool // the body came from a template
	Truncated bool // the body was longer than Body
}

// Timing splits the time of an attempt. A phase that did not take place is 0, as the first three are on a
// connection that is reused.
type Timing struct {
	DNS, Connect, TLS time.Duration
	FirstByte         time.Duration // from the start of the attempt to the first byte of the answer
}

// State is where a delivery stands.
type State uint8

// The states of a delivery. Their values are stored: never renumber them.
const (
	Pending   State = 1
	Delivered State = 2
	Failed    State = 3
	Canceled  State = 4
)

var stateNames = map[State]string{Pending: "pending", Delivered: "delivered", Failed: "failed", Canceled: "canceled"}

func (s State) String() string {
	if name, ok := stateNames[s]; ok {
		return name
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Ended reports whether no further attempt is to come in this round.
func (s State) Ended() bool { return s != Pending }

// Class is the kind of an attempt's outcome.
type Class uint8

// The classes of an attempt. Their values are stored: never renumber them.
const (
	ClassOK          Class = 1  // the answer means success
	ClassStatus      Class = 2  // an answer with another status
	ClassExpect      Class = 3  // an answer whose body does not hold what the destination expects
	ClassTimeout     Class = 4  // the attempt's time was over
	ClassDNS         Class = 5  // the name did not resolve
	ClassConnect     Class = 6  // no connection, or it broke before the answer
	ClassTLS         Class = 7  // no trusted TLS session
	ClassProtocol    Class = 8  // what came back is not an HTTP answer within bounds
	ClassBlocked     Class = 9  // the guard refused the address
	ClassRender      Class = 10 // the request could not be built
	ClassAuth        Class = 11 // no token to be had
	ClassInterrupted Class = 12 // cut off by our own stop; uses up no attempt
)

var classNames = map[Class]string{
	ClassOK: "ok", ClassStatus: "status", ClassExpect: "expect", ClassTimeout: "timeout", ClassDNS: "dns",
	ClassConnect: "connect", ClassTLS: "tls", ClassProtocol: "protocol", ClassBlocked: "blocked",
	ClassRender: "render", ClassAuth: "auth", ClassInterrupted: "interrupted",
}

func (c Class) String() string {
	if name, ok := classNames[c]; ok {
		return name
	}
	return fmt.Sprintf("Class(%d)", uint8(c))
}
