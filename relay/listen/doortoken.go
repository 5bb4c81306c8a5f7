package listen

import (
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/problem"
)

// The challenges of a refusal (RFC 6750, section 3).
const (
	challenge      = `Bearer realm="postern"`
	challengeWrong = `Bearer realm="postern", error="invalid_token"` // there was one, and it is not valid
)

// refuse answers a request that must not come in for its token.
//
// A right token never comes here, however many wrong ones came from the same address before: otherwise one forgotten
// client with an old token could lock out the apps beside it, just when a token has been replaced in a hurry. What keeps
// guesses from hitting is the length of tokens; what the limits are for is that guessing costs us little: whoever goes on
// gets 429 and a closed connection, and next to no lines in the log.
func (d *door) refuse(r *http.Request, why refusal) error {
	if why == tokenMissing { // no guess at all, such as a browser that has not been told the token yet
		d.metrics.refuse(why)
		return unauthorized(challenge, "a token is required; send it as Authorization: Bearer …")
	}
	tried := d.failures.add(peerOf(r), d.now())
	counted := why
	if tried.wait > 0 {
		counted = tokenThrottled
	}
	d.metrics.refuse(counted)
	if tried.log {
		d.log.Warn("wrong token", zap.String("peer", r.RemoteAddr), zap.String("reason", string(why)),
			zap.Int("failures", tried.count), zap.Bool("throttled", tried.wait > 0), zap.Int("unlogged", tried.unsaid))
	}
	switch {
	case tried.wait > 0:
		seconds := int((tried.wait + time.Second - 1) / time.Second)
		e := problem.New(http.StatusTooManyRequests, "too many wrong tokens; correct the token, a right one is let in at any time").
			RetryAfter(seconds).Closing()
		e.Header.Set("Www-Authenticate", challengeWrong) // other credentials would help (RFC 9110, section 11.6.1)
		return e
	case why == tokenMalformed:
		return unauthorized(challenge, "the Authorization header holds no bearer token; send one header, Authorization: Bearer …")
	default:
		return unauthorized(challengeWrong, "the token is not one of those this listener knows; send the right one as Authorization: Bearer …")
	}
}

func unauthorized(challenge, detail string) error {
	return &problem.Error{
		Status: http.StatusUnauthorized, Detail: detail,
		Header: http.Header{"Www-Authenticate": {challenge}},
	}
}

// journal returns a writer for a request and the func that writes its line into the log, when it is over. with is the
// token that it was let in with, or nil.
func (d *door) journal(w http.ResponseWriter, r *http.Request, with *entry) (http.ResponseWriter, func()) {
	seen, begun := &statusWriter{ResponseWriter: w}, d.now()
	return seen, func() {
		fields := []zap.Field{
			zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Int("status", seen.status),
			zap.String("peer", r.RemoteAddr), zap.Duration("took_seconds", d.now().Sub(begun)),
		}
		if with != nil {
			fields = append(fields, zap.String("token", with.Name))
		}
		d.log.Debug("request served", fields...)
	}
}

// statusWriter knows the status of an answer; 0 before there is one.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	if s.status < 200 { // informational answers come before the one that counts
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s *statusWriter) Write(b []byte) (int, error) {
	if s.status < 200 {
		s.status = http.StatusOK
	}
	return s.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
