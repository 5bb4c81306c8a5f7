// Package egress makes one attempt: it loads the message, renders the request, signs exactly the bytes it will
// send, adds authorization, sends, and judges what came back.
//
// Its main type is [Sender], one for each destination. Send returns a store.Attempt and never an error, because
// whatever can happen to a request is an outcome. It promises that an attempt is one request on the wire (and one
// more after a 401 if tokens come from an OAuth 2.0 server, see [OAuth2]), that nothing is followed or sent again in
// silence, that bytes and time are bounded by the destination's options whatever the receiver does, and that no secret
// of the request comes back in the record of its attempt.
//
// Bodies and header values may be templates, see [Options]. They see the message, call pure functions, and are bounded
// in output, time and memory; a body is never read as one. What comes from the app and is sent on, by a template, as a
// header or as a path, cannot make another request of it: the message fails, and nothing is sent.
//
// The record of an attempt has the request as it was sent: every header that the receiver saw, and the body if a
// template made it. Credentials, what the config takes from elsewhere, and values whose names tell that they are secret
// are *** in it; signatures are no secrets. Values that Options.Redact selects are in no recorded body. The body of a
// message is the store's, and match.RedactJSON is for it too.
//
// For a person, Test makes an attempt for a message that nobody has posted, and Render shows without sending what it
// would send, what each signer signs, and a command for curl. That one is to be pasted into a POSIX shell: it holds no
// secret but takes them from parameters such as SECRET_AUTHORIZATION or SECRET_BODY, and is refused by the shell while
// these are not set; a body that is to be read from a file has *** in their place. Signatures in it are good for as long
// as the receiver takes their time. What is not of the request but of the connection (a client certificate, a private
// authority, a proxy) is not in it.
package egress

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	oteltrace "go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// Bounds of the options, and what their zero values mean.
const (
	DefaultTimeout      = 30 * time.Second
	MaxTimeout          = 10 * time.Minute
	DefaultKeepResponse = 16 << 10
	MaxKeepResponse     = 64 << 10
	DefaultUserAgent    = "Postern/1"
)

// Options shape every request to one destination. A Sender keeps them, so they must not change after New.
//
// Templates are those of text/template. They see .ID, .DeliveryID, .Event, .Destination, .Timestamp (of acceptance,
// RFC 3339 in UTC), .ContentType and .Key of the message, .Body (text, inserted as it is), .Data (the body as JSON), and
// .Header "Name" (a header that is sent on). Functions: json, base64 and urlquery encode a value; hmac "sha256" key text
// (or sha1, sha512) is lower-case hexadecimal; now, with a layout of package time if you like, is the time of the
// attempt; unix makes seconds of an RFC 3339 time; default "x" value stands in for what is missing, null or empty; lower,
// upper, print, printf, index, len, slice, and, or, not, eq, ne, lt, le, gt and ge are as in Go, but that numbers compare
// by value whatever their form, that index of what is not there is missing, and that printf knows no * and no width
// above 99. Texts are written as they are, all else as JSON, numbers as the app wrote them. To write what is missing or
// null is an error, but json writes null as null. A body that is not JSON when its content type says so is an error too.
// One rendering makes at most 1 MiB, goes through at most 16 MiB of its values and loops, and lasts at most 100 ms.
type Options struct {
	URL         *url.URL          // required; as guard.ParseURL returned it
	Transport   http.RoundTripper // made by guard.NewTransport; may be nil only in a Sender that never sends
	Method      string            // POST, PUT, PATCH, DELETE or GET; empty means POST. GET carries no body, and signs none
	ContentType string            // empty means as the app posted it, or application/octet-stream if it named none
	UserAgent   string            // empty means DefaultUserAgent; a User-Agent in Header goes before it
	Body        string            // template of the body, see above; empty sends the body as the app posted it
	Header      []Header          // added to each request, in addition to what egress sets itself
	Auth        Auth              // at most one kind
	Signers     []sign.Signer     // each adds its headers
	Success     Success           // the statuses that mean delivered; the zero value is 2xx
	Timeout     time.Duration     // of the whole attempt, the answer's body included; 0 means DefaultTimeout

	// KeepResponse is how many bytes of an answer's body are kept, at most MaxKeepResponse; 0 means
	// DefaultKeepResponse and a negative number keeps none.
	KeepResponse int

	// ForwardHeader names the headers of the app's request that are sent on, by the rules of CheckForwardHeader. One
	// that Header, Auth or Signers set is not. Traceparent, Tracestate and Ce-… are sent on without being named.
	ForwardHeader []string

	// ForwardPath appends store.Message.Path to the URL: the path with one slash in between, the query with an
	// ampersand. False drops it.
	ForwardPath bool

	// Expect holds what the body of a success must hold; all must. With any, a success with more than 64 KiB of body,
	// or a body that is not JSON or cannot be read, is none.
	Expect []*match.Expectation

	// Redact selects values that are replaced by "***" in what is recorded of bodies: those of answers, and those that
	// Body makes. Nothing else of the body is lost, unless it begins like JSON and is none, as one of more than 64 KiB that
	// is read in part: then all of it. See match.RedactJSON.
	Redact []*match.Path

	OmitBody bool // what Body makes is not recorded, where the bodies of messages are not to be kept

	// PlainHeader names those of Header whose values are no secrets: what the config shows to everyone. Values of 8 bytes
	// or more of others are, and are masked wherever they come up. So are, whatever is said here, those of headers whose
	// names tell it, such as X-Api-Key.
	PlainHeader []string

	// Secrets are further texts that no record may hold, such as what references in URL, Body and Expect stand for. Those
	// of less than 6 bytes are not looked for. Of a URL these are its path and its query, together and each alone, and the
	// parts of the path from 16 bytes on.
	Secrets []string

	// Tracer makes the spans of attempts; it is asked for each. Its provider takes its ids from SpanIDs. A request carries
	// the traceparent of its span, unless Header sets one. nil, and a func that returns nil, mean that there are no spans:
	// the message's own is sent on.
	Tracer func() oteltrace.Tracer

	Messages store.Loader     // may be nil only in a Sender that never sends what is in a store
	Now      func() time.Time // wall clock; nil means time.Now
	Log      *zap.Logger      // with the destination's name; nil logs nothing
}

// Header is one header field of a request. Its value may be a secret: it is never logged, and recorded only in so far as
// it is none, see Options.PlainHeader. A value with "{{" in it is a template unless it is Literal, and what it makes is the
// value, without white space around it; a name is never one.
type Header struct {
	Name, Value string

	Literal bool // Value is no template, whatever stands in it
}

// Sender makes the attempts of one destination. Use New. Its methods may be called from many goroutines at once.
type Sender struct {
	opt      Options
	request  *http.Request       // what all requests have in common; only ever copied
	header   map[string][]string // the same for their headers; its slices are shared and never written to
	kept     int                 // bytes of an answer's body that are kept
	secrets  []string            // what must not come back in the record of an attempt, longest first
	overread int                 // length of the longest secret, with escapes in it
	buffers  *sync.Pool          // of *[]byte, for answers
	tokens   *tokens             // of OAuth2; nil without

	templates templates
	taken     map[string]bool // headers, in canonical form, that the config, auth or a signature sets
	masks     masks
	forward   map[string]bool // headers, in canonical form, to send on from the app's request
}

// minRead is how much of an answer is read even if less is kept: a body that is read to its end leaves the
// connection usable for the next attempt.
const minRead = 4 << 10

// New checks the options and returns a Sender for them. It starts nothing and reaches nothing, so it serves to
// validate options as well. What it returns joins an *OptionError for each fault.
func New(o Options) (*Sender, error) {
	var errs []error
	fault := func(option string, err error) {
		if err != nil {
			errs = append(errs, &OptionError{option, err})
		}
	}
	fault("url", checkURL(o.URL))
	if o.Method == "" {
		o.Method = http.MethodPost
	}
	fault("method", CheckMethod(o.Method))
	if o.UserAgent == "" {
		o.UserAgent = DefaultUserAgent
	}
	fault("user_agent", checkValue(o.UserAgent))
	fault("content_type", CheckContentType(o.ContentType))
	switch {
	case o.Timeout == 0:
		o.Timeout = DefaultTimeout
	case o.Timeout < 0 || o.Timeout > MaxTimeout:
		fault("timeout", fmt.Errorf("%v is out of range; write a duration up to %v", o.Timeout, MaxTimeout))
	}
	if o.KeepResponse > MaxKeepResponse {
		fault("keep.response", fmt.Errorf("%d bytes are too many; write at most %d", o.KeepResponse, MaxKeepResponse))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	s := &Sender{opt: o, kept: o.KeepResponse}
	if s.kept == 0 {
		s.kept = DefaultKeepResponse
	}
	s.kept = max(s.kept, 0)

	header, taken, faults := o.requestHeader()
	errs = append(errs, faults...)
	s.templates, faults = o.templates()
	errs = append(errs, faults...)
	s.forward, faults = o.forward()
	errs = append(errs, faults...)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.header, s.taken = header, taken
	s.request = &http.Request{
		Method: o.Method, URL: o.URL, Host: o.URL.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	s.secrets = o.secrets(s.templates)
	s.masks = s.newMasks()
	if len(s.secrets) > 0 {
		s.overread = 2 * len(s.secrets[0]) // it may have escapes that we would not write
	}
	s.overread = max(s.overread, 2*s.longestOfApp())
	if o.Auth.OAuth2 != nil {
		s.tokens = newTokens(*o.Auth.OAuth2, o.UserAgent, s.secrets, o.Log)
		s.overread = max(s.overread, maxToken)
	}
	size := max(s.kept+1+s.overread, minRead)
	if len(o.Expect)+len(o.Redact) > 0 {
		size = max(size, maxExpect+1)
	}
	s.buffers = &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
	if err := errors.Join(s.trySample()...); err != nil {
		return nil, err
	}
	return s, nil
}

// OptionError says which option is wrong. It holds no secret.
type OptionError struct {
	Option string // its key in the config of a destination, such as timeout or headers.X-Team
	Err    error  // what is wrong, and what to write instead
}

func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }

func (e *OptionError) Unwrap() error { return e.Err }

func optionError(option, format string, args ...any) *OptionError {
	return &OptionError{option, fmt.Errorf(format, args...)}
}

// CheckMethod reports whether a destination may use the method.
func CheckMethod(method string) error {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodGet:
		return nil
	}
	return fmt.Errorf("%q is not supported; write POST, PUT, PATCH, DELETE or GET", method)
}

// checkURL is no second URL rule: it holds for whatever guard.ParseURL returns.
func checkURL(u *url.URL) error {
	switch {
	case u == nil:
		return errors.New("missing")
	case u.Scheme != "https" || u.Host == "" || u.Port() != "" || u.User != nil || u.Opaque != "":
		return errors.New("not judged by the guard")
	}
	return nil
}

// requestHeader returns the headers that are the same in all requests, and refuses names that are set twice: what
// would win is not for a reader of the config to guess. taken are their names, in canonical form, with those of
// signatures and templates. Each of faults is an *OptionError.
func (o Options) requestHeader() (header map[string][]string, taken map[string]bool, faults []error) {
	owner := make(map[string]string)
	joins := make(map[string]string) // how several signers share a header
	taken = make(map[string]bool)
	claim := func(name, by string) bool {
		name = http.CanonicalHeaderKey(name)
		if earlier, taken := owner[name]; taken {
			faults = append(faults, optionError(by, "%s is set by %s already; remove one of them", name, earlier))
			return false
		}
		owner[name], taken[name] = by, true
		return true
	}
	header = map[string][]string{"User-Agent": {trimValue(o.UserAgent)}}
	name, value, authFaults := o.Auth.header()
	switch {
	case len(authFaults) > 0:
		faults = append(faults, authFaults...)
	case name != "" && claim(name, "auth") && value != "": // the value of OAuth2 is made by each attempt
		header[headerKey(name)] = []string{trimValue(value)}
	}
	for i, signer := range o.Signers {
		by := fmt.Sprintf("sign[%d]", i)
		for _, h := range signer.Headers() {
			name := http.CanonicalHeaderKey(h.Name)
			if h.Join != "" && joins[name] == h.Join {
				continue
			}
			if claim(name, by) {
				joins[name] = h.Join
			}
		}
	}
	for _, h := range o.Header {
		by := "headers." + h.Name
		value := h.Value
		if h.isTemplate() {
			value = "" // is checked when it has been made
		}
		if err := CheckHeader(h.Name, value); err != nil {
			faults = append(faults, &OptionError{by, err})
			continue
		}
		if http.CanonicalHeaderKey(h.Name) == "Authorization" && o.Auth.set() {
			faults = append(faults, optionError(by, "auth makes the authorization of this destination; remove one of them"))
			continue
		}
		if claim(h.Name, by) && !h.isTemplate() {
			header[headerKey(h.Name)] = []string{trimValue(h.Value)}
		}
	}
	return header, taken, faults
}
