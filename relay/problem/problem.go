// Package problem is how Postern says no over HTTP: as problem details (RFC 9457). A [Handler] returns an error, and
// [Serve] writes it, so that there is one place where an error becomes an answer. An [Error] keeps two texts apart:
// Detail is for the client and says what to do, Cause is for the log. Any other error becomes a 500 that tells
// nothing of the inside.
package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"strconv"
	"unicode/utf8"

	"go.uber.org/zap"
)

// MediaType is the type of the answers (RFC 9457, section 3).
const MediaType = "application/problem+json"

// maxDetail bounds the detail of an answer in bytes: it may quote what the client sent.
const maxDetail = 1024

// Error is an answer that is no success. Its methods may be called from several goroutines; Write does not change it.
type Error struct {
	Status int         // 400 to 599; anything else means 500
	Title  string      // short, the same for each occurrence; empty means the text of the status
	Detail string      // for the client: what is wrong and what to do; no internals, no secret
	Header http.Header // added to the answer, such as Retry-After or Allow; nil adds none
	Close  bool        // end the connection after the answer, since the request was not read to its end
	Cause  error       // for the log only; nil if the client's text says all
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%d %s", e.Status, e.title())
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Cause }

func (e *Error) title() string {
	if e.Title != "" {
		return e.Title
	}
	return http.StatusText(e.Status)
}

// New returns an Error with a status and a detail that is formatted as by fmt.Sprintf.
func New(status int, format string, args ...any) *Error {
	return &Error{Status: status, Detail: fmt.Sprintf(format, args...)}
}

// RetryAfter returns e with a Retry-After header (RFC 9110, section 10.2.3) of some seconds, at least 1.
// It changes e, which must not be shared yet.
func (e *Error) RetryAfter(seconds int) *Error {
	e.setHeader("Retry-After", strconv.Itoa(max(seconds, 1)))
	return e
}

// Allow returns e with an Allow header (RFC 9110, section 10.2.1), as a 405 must have one. It changes e, which must
// not be shared yet.
func (e *Error) Allow(methods string) *Error {
	e.setHeader("Allow", methods)
	return e
}

// Closing returns e with Close set. It changes e, which must not be shared yet.
func (e *Error) Closing() *Error {
	e.Close = true
	return e
}

func (e *Error) setHeader(key, value string) {
	if e.Header == nil {
		e.Header = make(http.Header, 1)
	}
	e.Header.Set(key, value)
}

// Handler answers a request, or returns an error before it has written anything.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Serve runs h and writes the error it returns. A panic becomes a 500 and a line in the log with its stack, and the
// connection goes on; http.ErrAbortHandler is passed on. If h had begun an answer before it failed, the connection
// is cut, since the client must not take half an answer for a whole one. A nil log logs nothing.
func Serve(w http.ResponseWriter, r *http.Request, log *zap.Logger, h Handler) {
	tracked := &tracker{ResponseWriter: w}
	err := protect(tracked, r, log, h)
	if err == nil {
		return
	}
	if tracked.begun {
		if log != nil {
			log.Error("answer broken off", zap.String("path", r.URL.Path), zap.Error(err))
		}
		panic(http.ErrAbortHandler)
	}
	Write(w, r, log, err)
}

// errPanicked stands for a panic that has been logged.
var errPanicked = errors.New("handler panicked")

func protect(w http.ResponseWriter, r *http.Request, log *zap.Logger, h Handler) (err error) {
	defer func() {
		switch p := recover(); {
		case p == nil:
		case p == http.ErrAbortHandler:
			panic(p)
		default:
			if log != nil {
				log.Error("handler panicked", zap.String("method", r.Method), zap.String("path", r.URL.Path),
					zap.String("reason", PanicReason(p)), zap.Stack("stack"))
			}
			err = errPanicked
		}
	}()
	return h(w, r)
}

// PanicReason says what a panic was about, by the value that recover has returned, for a log: the runtime's own texts
// hold numbers and types alone, and of any other value, which may be about a message or a secret, the type says enough.
// The stack beside it is better zap.Stack than debug.Stack, which shows the arguments of functions too.
func PanicReason(value any) string {
	if err, ok := value.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("a value of type %T", value)
}

// tracker knows whether an answer has begun.
type tracker struct {
	http.ResponseWriter
	begun bool
}

func (t *tracker) WriteHeader(status int) {
	t.begun = t.begun || status >= 200
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracker) Write(b []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (t *tracker) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// details are the members of the answer (RFC 9457, section 3.1). The type is always about:blank: the status says
// what kind of problem it is (section 4.2.1).
type details struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Write answers with err: an *Error as it says, anything else as a 500. A status from 500 on is logged with its
// cause, 500 itself as an error and the rest as a warning. A nil log logs nothing. Nothing may have been written
// to w before.
func Write(w http.ResponseWriter, r *http.Request, log *zap.Logger, err error) {
	var e *Error
	if !errors.As(err, &e) || e.Status < 400 || e.Status > 599 {
		e = &Error{
			Status: http.StatusInternalServerError, Cause: err,
			Detail: "Postern could not answer because of an error of its own; its log tells more",
		}
	}
	if log != nil && e.Status >= http.StatusInternalServerError && !errors.Is(err, errPanicked) {
		level := zap.WarnLevel
		if e.Status == http.StatusInternalServerError {
			level = zap.ErrorLevel
		}
		if line := log.Check(level, "request refused"); line != nil {
			line.Write(zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Int("status", e.Status),
				zap.String("peer", r.RemoteAddr), zap.String("reason", e.Detail), zap.Error(e.Cause))
		}
	}

	body, jsonErr := json.Marshal(details{Type: "about:blank", Title: e.title(), Status: e.Status, Detail: bounded(e.Detail)})
	if jsonErr != nil {
		panic(jsonErr) // strings and a number always encode
	}
	h := w.Header()
	maps.Copy(h, e.Header)
	h.Set("Content-Type", MediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if e.Close {
		h.Set("Connection", "close")
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// bounded cuts s to maxDetail bytes, at the start of a character.
func bounded(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	cut := maxDetail
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
