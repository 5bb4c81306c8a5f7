// Package sign makes and verifies the signatures of webhooks, and knows the formats of their secrets. It is pure:
// it reads no clock, no file and no network, and never prints a secret.
//
// A [Signer] turns one request into the headers that prove it. [Standard] is Standard Webhooks v1, the default
// choice; [HMAC] signs the bare body in a header of the user's choosing, for receivers that already have a
// verifier of that kind. Signatures are made over exactly the bytes that will be sent.
package sign

import "time"

// The headers of Standard Webhooks (spec/standard-webhooks.md, "Webhook headers"). Every request carries the
// first two, whatever else signs it; whoever builds the request sets them, from the same Input that is signed.
const (
	HeaderID        = "webhook-id"        // the message's id, the same for all attempts
	HeaderTimestamp = "webhook-timestamp" // the attempt's time in Unix seconds
	HeaderSignature = "webhook-signature" // space-separated list of signatures
)

// Input is what is signed of one request.
type Input struct {
	ID   string    // value of webhook-id
	Time time.Time // of this attempt; its Unix seconds are the value of webhook-timestamp
	Body []byte    // exactly as sent; only read, and not kept
}

// Header is one header to set on the request.
type Header struct {
	Name  string
	Value string
}

// Signer makes the headers that prove a request. Implementations may be used from several goroutines.
type Signer interface {
	// Sign returns headers to set, which the caller owns. An error means that this Input can never be signed.
	Sign(in Input) ([]Header, error)
}
