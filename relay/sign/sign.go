// Package sign makes and verifies the signatures of webhooks, and knows the formats of their secrets. It is pure:
// it reads no clock, no file and no network, and never prints a secret.
//
// A [Signer] turns one request into the headers that prove it. [Standard] is Standard Webhooks v1 and v1a, the
// default choice. For receivers that already have a verifier of another kind there are [HMAC], which signs the bare
// body in a header of the user's choosing, [Timestamped], which signs time and body, and [Profile], which knows by
// name what well-known products expect. [RFC9421] signs the whole request: HTTP Message Signatures. Signatures are
// made over exactly the bytes that will be sent.
//
// [Diagnose] is the other end: it checks a captured request and says what is wrong with it. [NewKey] makes secrets.
package sign

import (
	"errors"
	"net/http"
	"net/url"
	"time"
)

// The headers of Standard Webhooks (spec/standard-webhooks.md, "Webhook headers"). Every request carries the
// first two, whatever else signs it; whoever builds the request sets them, from the same Input that is signed.
const (
	HeaderID        = "webhook-id"        // the message's id, the same for all attempts
	HeaderTimestamp = "webhook-timestamp" // the attempt's time in Unix seconds
	HeaderSignature = "webhook-signature" // space-separated list of signatures
)

// Tolerance is how far a timestamp may be from the verifier's clock, either way.
const Tolerance = 5 * time.Minute

// What a verifier has to say about a request, to be told apart by errors.Is.
var (
	ErrMissingHeader = errors.New("a signature header is missing")
	ErrBadHeader     = errors.New("a signature header cannot be read")
	ErrBadTimestamp  = errors.New("the timestamp is not a number of Unix seconds")
	ErrTooOld        = errors.New("the timestamp is too old")
	ErrTooNew        = errors.New("the timestamp is in the future")
	ErrNoMatch       = errors.New("no signature matches")
	ErrBadDigest     = errors.New("the Content-Digest is not that of the body")
	ErrNotCovered    = errors.New("the signature does not cover the body")
)

// Input is what is signed of one request. All of it is only read, and not kept.
type Input struct {
	ID   string    // value of webhook-id
	Time time.Time // of this attempt; its Unix seconds are the value of webhook-timestamp
	Body []byte    // exactly as sent

	// What follows is needed by RFC9421 alone, which refuses an Input without Method and URL.
	Method string   // as sent
	URL    *url.URL // absolute; its host is the one that the Host header will name
	// Header is all that will be sent but what signers add, and so the same for each signer of a request: none can cover
	// the signature of another. Keys are in canonical form; may be nil.
	Header http.Header
}

// Header is one header to set on the request.
type Header struct {
	Name  string
	Value string

	// Join is what to put between the values of several signers that set a header of this name: ", " for the
	// dictionaries of Structured Fields. Values that are identical are sent once. Empty: no other signer, and
	// nothing else, may set this header.
	Join string
}

// Signer makes the headers that prove a request. Implementations may be used from several goroutines.
type Signer interface {
	// Headers returns the headers that Sign sets, whatever it signs, without their values.
	Headers() []Header
	// Sign returns headers to set, which the caller owns. An error means that this Input can never be signed; it
	// holds no secret and no value of a header.
	Sign(in Input) ([]Header, error)
}

// Explainer is a Signer that can show what it signs, for a person whose receiver sees something else. All signers of
// this package are.
type Explainer interface {
	Signer
	// Base returns the bytes that Sign makes its signatures of, which the caller owns: with several keys all sign the
	// same. The error is that of Sign. They are as secret as what is signed of the Input: its body, its URL, its headers.
	Base(in Input) ([]byte, error)
}

var (
	_ Explainer = (*Standard)(nil)
	_ Explainer = (*HMAC)(nil)
	_ Explainer = (*Timestamped)(nil)
	_ Explainer = (*Profile)(nil)
	_ Explainer = (*RFC9421)(nil)
)
