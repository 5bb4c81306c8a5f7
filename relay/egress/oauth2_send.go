package egress

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/postern-relay/postern/store"
)

// sendWithToken sends req with a token. If the receiver answers 401, it sends the same once more with a fresh token:
// whoever issues tokens may also take them back before their time. The attempt is then what came of the second
// request, our own stop included, and its time covers both.
func (s *Sender) sendWithToken(ctx context.Context, begin time.Time, req *http.Request, j job, a *store.Attempt) {
	used, err := s.tokens.get(ctx, s.opt.Now)
	if err != nil {
		s.noToken(ctx, a, err)
		return
	}
	spanEvent(ctx, "token ready")
	again := copyRequest(req)
	req.Header["Authorization"] = []string{bearerPrefix + used.value}
	a.Request = s.sent(req, j.showBody) // the second request differs from it in the token alone
	blank := *a
	s = s.hiding(used.value)
	s.roundTrip(ctx, begin, req, a)
	if !unauthorized(a) {
		return
	}
	fresh, err := s.tokens.renew(ctx, s.opt.Now, used)
	if err != nil {
		s.notRenewed(a, err)
		return
	}
	spanEvent(ctx, "fresh token ready after 401")
	*a = blank
	again.Header["Authorization"] = []string{bearerPrefix + fresh.value}
	s = s.hiding(fresh.value)
	s.roundTrip(ctx, begin, again, a)
	if unauthorized(a) {
		s.tokens.useless(fresh, s.opt.Now())
		a.Error += "; a fresh token did not help"
	}
}

func unauthorized(a *store.Attempt) bool {
	return a.Class == store.ClassStatus && a.Status == http.StatusUnauthorized
}

// copyRequest copies a request that has not been sent, to send it as well: the transport may go on with the headers
// and the body of one that is over.
func copyRequest(r *http.Request) *http.Request {
	c := *r
	c.Header = maps.Clone(r.Header)
	if body, ok := r.Body.(*payload); ok {
		same := *body
		c.Body = &same
	}
	return &c
}

// noToken records an attempt that ended before its request.
func (s *Sender) noToken(ctx context.Context, a *store.Attempt, err error) {
	if failed, ok := errors.AsType[*tokenError](err); ok {
		a.Class, a.Error = failed.class, failed.Error()
		a.RetryHint = failed.hint(s.opt.Now())
		return
	}
	if context.Cause(ctx) == errDeadline {
		a.Class = store.ClassAuth
		a.Error = fmt.Sprintf("no token from %q within %v, the time of the attempt", s.tokens.opt.TokenURL.Hostname(), s.opt.Timeout)
		return
	}
	a.Class, a.Error = store.ClassInterrupted, "cut off by the stop of Postern while waiting for a token"
}

// notRenewed adds to an attempt that was answered 401 why there was no second request. The answer stays on record.
func (s *Sender) notRenewed(a *store.Attempt, err error) {
	failed, ok := errors.AsType[*tokenError](err)
	switch {
	case ok:
		a.Class = failed.class
		a.Error = clip(a.Error+"; "+failed.Error(), maxError)
		a.RetryHint = max(a.RetryHint, failed.hint(s.opt.Now()))
	case errors.Is(err, errCalm):
		a.Error += "; " + errCalm.Error()
	default:
		a.Error += "; the time was over before there was a fresh token"
	}
}

// hint is how long to wait from now, and 0 if the endpoint did not say.
func (e *tokenError) hint(now time.Time) time.Duration {
	if e.retryAt.IsZero() {
		return 0
	}
	return max(e.retryAt.Sub(now), 0)
}

// hiding returns a Sender that keeps more secrets out of its records.
func (s *Sender) hiding(more ...string) *Sender {
	c := *s
	c.secrets = withSecrets(s.secrets, more...)
	return &c
}
