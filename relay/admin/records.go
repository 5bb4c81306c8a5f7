package admin

import (
	"time"
)

// Delivery is one message on its way to one destination.
type Delivery struct {
	// ID of the delivery, dlv_ and 32 hexadecimal digits.
	ID string `json:"id"`
	// MessageID of its message, msg_ and 32 hexadecimal digits: the webhook-id of every attempt.
	MessageID string `json:"message_id"`
	// Destination by its name in the config.
	Destination string `json:"destination"`
	// Event type of the message, empty for a post to the destination by name.
	Event string `json:"event"`
	// State in which the delivery is.
	State string `json:"state" jsonschema:"enum=pending,enum=delivered,enum=failed,enum=canceled"`
	// Round of attempts, from 1; a replay begins the next.
	Round int `json:"round"`
	// Attempts that are used up in this round.
	Attempts int `json:"attempts"`
	// Made attempts of this round, with those that were interrupted and used up none.
	Made int `json:"made"`
	// AcceptedAt is when the message was accepted.
	AcceptedAt time.Time `json:"accepted_at"`
	// DueAt is from when the next attempt may be made; only while pending.
	DueAt time.Time `json:"due_at,omitzero"`
	// EndedAt is when the delivery ended; not while pending.
	EndedAt time.Time `json:"ended_at,omitzero"`
	// Reason for which it failed or was canceled.
	Reason string `json:"reason,omitempty"`
	// Held says why no attempt is made although the delivery is pending; absent if nothing holds it.
	Held Held `json:"held,omitempty" jsonschema:"enum=paused,enum=breaker,enum=not in config,enum=disabled,enum=order"`
	// Blocking means that it has failed and those behind it in its line wait until it is replayed or canceled.
	Blocking bool `json:"blocking"`
	// OrderKey is the ordering key whose line it stands in.
	OrderKey string `json:"order_key,omitempty"`
	// Last is what came of the latest attempt, null before the first.
	Last *Outcome `json:"last" jsonschema:"nullable"`
}

// Held is why a pending delivery is not attempted.
type Held string

// What holds a delivery. The empty text stands for nothing.
const (
	HeldPaused      Held = "paused"        // its destination is paused
	HeldBreaker     Held = "breaker"       // an outage of its receiver
	HeldNotInConfig Held = "not in config" // its destination is gone
	HeldDisabled    Held = "disabled"      // its destination is not enabled
	HeldOrder       Held = "order"         // another one before it in its line
)

// Outcome is what came of an attempt, in short.
type Outcome struct {
	// At is when the attempt began.
	At time.Time `json:"at"`
	// Class of the outcome.
	Class string `json:"class" jsonschema:"enum=ok,enum=status,enum=expect,enum=timeout,enum=dns,enum=connect,enum=tls,enum=protocol,enum=blocked,enum=render,enum=auth,enum=interrupted"`
	// Status of the HTTP answer; absent without one.
	Status int `json:"status,omitempty"`
	// Error for a person; absent after a success.
	Error string `json:"error,omitempty"`
}

// DeliveryPage is a part of the list of deliveries.
type DeliveryPage struct {
	// Deliveries that pass the filter, the latest accepted first. There may be more even if there are fewer than asked for.
	Deliveries []Delivery `json:"deliveries"`
	// NextCursor is the cursor of the next page, null at the end.
	NextCursor *string `json:"next_cursor" jsonschema:"nullable"`
}

// DeliveryDetail is a delivery with its message and its attempts.
type DeliveryDetail struct {
	Delivery
	// Message that is delivered.
	Message Message `json:"message"`
	// History of the attempts, oldest first, the last 200.
	History []Attempt `json:"history"`
}

// Message is what the app posted.
type Message struct {
	// ID of the message, msg_ and 32 hexadecimal digits.
	ID string `json:"id"`
	// Event type, empty for a post to a destination by name.
	Event string `json:"event"`
	// ContentType as posted, empty for none.
	ContentType string `json:"content_type"`
	// AcceptedAt is when it was accepted.
	AcceptedAt time.Time `json:"accepted_at"`
	// SizeBytes of the body as posted.
	SizeBytes int `json:"size_bytes"`
	// Key is the ordering key.
	Key string `json:"key,omitempty"`
	// Path that followed the destination's name in the app's request; values of its query are masked.
	Path string `json:"path,omitempty"`
	// Headers of the app's request that may be sent on; values of those that look like secrets are masked.
	Headers []Header `json:"headers"`
	Content
	// BodyTruncated means that there is more of the body than is shown; the whole is at /messages/{id}/body.
	BodyTruncated bool `json:"body_truncated"`
	// BodyRemoved means that the body is no longer kept (keep.body).
	BodyRemoved bool `json:"body_removed"`
	// Deliveries of the message; only in the answer to a request for it.
	Deliveries []Delivery `json:"deliveries,omitempty"`
}

// Content is the beginning of a body: as text if it is UTF-8, else in base64; neither if it is empty.
type Content struct {
	// Body as text.
	Body string `json:"body,omitempty"`
	// BodyBase64 is the body in base64, if it is not UTF-8.
	BodyBase64 []byte `json:"body_base64,omitempty"`
}

// Header is one header field.
type Header struct {
	// Name of the field.
	Name string `json:"name"`
	// Value of the field, *** if it is secret.
	Value string `json:"value"`
}

// Attempt is one HTTP request of a delivery and its outcome.
type Attempt struct {
	// Round of the delivery, from 1.
	Round int `json:"round"`
	// Number within the round, from 1; 0 in a test.
	Number int `json:"number"`
	// StartedAt is when it began.
	StartedAt time.Time `json:"started_at"`
	// TookSeconds from the start to the last byte read.
	TookSeconds float64 `json:"took_seconds"`
	// Class of the outcome.
	Class string `json:"class" jsonschema:"enum=ok,enum=status,enum=expect,enum=timeout,enum=dns,enum=connect,enum=tls,enum=protocol,enum=blocked,enum=render,enum=auth,enum=interrupted"`
	// Status of the HTTP answer; absent without one.
	Status int `json:"status,omitempty"`
	// Error for a person; absent after a success.
	Error string `json:"error,omitempty"`
	// Probe means that it tested whether an outage is over, and used up no attempt.
	Probe bool `json:"probe"`
	// Request as it was sent, null if none was.
	Request *Request `json:"request" jsonschema:"nullable"`
	// Response that came back, null if none did.
	Response *Response `json:"response" jsonschema:"nullable"`
	// RetryHintSeconds is what the receiver asked for by Retry-After.
	RetryHintSeconds float64 `json:"retry_hint_seconds,omitempty"`
	// Timing splits the time.
	Timing Timing `json:"timing"`
	// Peer is the address and port of the other end; absent without a connection.
	Peer string `json:"peer,omitempty"`
	// Reused means that the connection had carried a request before.
	Reused bool `json:"reused"`
	// CertificateExpiresAt is the end of validity of the receiver's certificate.
	CertificateExpiresAt time.Time `json:"certificate_expires_at,omitzero"`
}

// Timing splits the time of an attempt; a phase that did not take place is 0.
type Timing struct {
	// DNSSeconds to resolve the name.
	DNSSeconds float64 `json:"dns_seconds"`
	// ConnectSeconds to connect.
	ConnectSeconds float64 `json:"connect_seconds"`
	// TLSSeconds of the handshake.
	TLSSeconds float64 `json:"tls_seconds"`
	// FirstByteSeconds from the start of the attempt to the first byte of the answer.
	FirstByteSeconds float64 `json:"first_byte_seconds"`
	// TotalSeconds of the attempt.
	TotalSeconds float64 `json:"total_seconds"`
}

// Request is an HTTP request as it was or would be sent, with its secrets masked.
type Request struct {
	// Method of the request.
	Method string `json:"method"`
	// URL with its query, secret values masked.
	URL string `json:"url"`
	// Headers in the order of their names.
	Headers []Header `json:"headers"`
	Content
	// Truncated means that the body was longer.
	Truncated bool `json:"truncated"`
	// BodyIsMessage means that the body is that of the message; in a history it is not repeated then.
	BodyIsMessage bool `json:"body_is_message"`
}

// Response is an HTTP answer.
type Response struct {
	// Status of the answer.
	Status int `json:"status"`
	// Headers in the order of their names; values of those that look like secrets are masked.
	Headers []Header `json:"headers"`
	Content
	// Truncated means that the body was longer.
	Truncated bool `json:"truncated"`
}

// Sample is a message that is in no store: for a test, or to see what would be sent. Without a body it is a small JSON
// object.
type Sample struct {
	// Event type; postern.test if absent.
	Event string `json:"event,omitempty" jsonschema:"maxLength=255"`
	// ContentType of the body; application/json if absent.
	ContentType string `json:"content_type,omitempty" jsonschema:"maxLength=255"`
	// Body as text.
	Body string `json:"body,omitempty"`
	// BodyBase64 is the body in base64, instead of Body.
	BodyBase64 []byte `json:"body_base64,omitempty"`
	// Headers as if the app had sent them; those that forward_headers names are sent on.
	Headers map[string]string `json:"headers,omitempty" jsonschema:"maxProperties=50"`
}

// Exchange is a request and what came back.
type Exchange struct {
	// Request as it was sent, with its body; null if none was.
	Request *Request `json:"request" jsonschema:"nullable"`
	// Attempt that it was.
	Attempt Attempt `json:"attempt"`
	// Would tells what became of a delivery after such an attempt, if it were its first.
	Would string `json:"would" jsonschema:"enum=delivered,enum=retried,enum=failed"`
}

// Render is a request that was not sent.
type Render struct {
	// Request as it would be sent now.
	Request Request `json:"request"`
	// SignatureBases are what each signer signs.
	SignatureBases []SignatureBase `json:"signature_bases"`
	// Curl is a command line that sends the request; secrets stand in it as variables, signatures as they are.
	Curl string `json:"curl"`
	// BodyFile is the name of the file in which the command line looks for the body: the one that /messages/{id}/body
	// gives, or the sample. Absent if the command line holds the body itself.
	BodyFile string `json:"body_file,omitempty"`
}

// SignatureBase is the bytes that a signature is over.
type SignatureBase struct {
	// Signer by its key in the config, such as sign[0].standard.
	Signer string `json:"signer"`
	// Base as text; empty if it cannot be shown, or not as text.
	Base string `json:"base"`
	// BaseBase64 is the base in base64, if it is not UTF-8.
	BaseBase64 []byte `json:"base_base64,omitempty"`
}
