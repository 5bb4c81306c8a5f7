package egress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/postern-relay/postern/store"
)

// Bounds of the exchange with a token endpoint.
const (
	tokenTimeout   = 10 * time.Second
	maxTokenAnswer = 64 << 10 // bytes
	maxTokenText   = 256      // bytes that are kept of what it says about an error
	maxToken       = maxHeaderValue - len(bearerPrefix)
	bearerPrefix   = "Bearer "
)

// Lives of tokens. One without expires_in is kept for a bounded time all the same, since what the server means by
// its silence stands in its documentation at best (RFC 6749, section 5.1).
const (
	unknownLife = 10 * time.Minute
	longestLife = 24 * time.Hour
	mostEarly   = time.Minute // before its end, from which on a token is not used
)

var errTokenTime = errors.New("the token endpoint's time is over")

// token is one access token. It never changes.
type token struct {
	value string
	until time.Time // when it is no longer used
}

// tokenError says why there is no token. Its text names the endpoint and holds no secret.
type tokenError struct {
	class   store.Class // ClassAuth or ClassBlocked
	host    string      // of the endpoint
	secrets int         // how many it was asked with, one after the other
	text    string      // what came of the last one
	retryAt time.Time   // before which the endpoint does not want to be asked; zero if it did not say
	client  bool        // it refused the client, so another secret of the client's may help
	silent  bool        // it gave no whole answer
}

// Is makes one of a silent endpoint ErrNoAnswer.
func (e *tokenError) Is(target error) bool { return target == ErrNoAnswer && e.silent }

func (e *tokenError) Error() string {
	with := ""
	if e.secrets > 1 {
		with = fmt.Sprintf(" with %d client secrets, one after the other", e.secrets)
	}
	return fmt.Sprintf("no token from %q%s: %s", e.host, with, e.text)
}

// exchange makes one request to a token endpoint and keeps what came of it. It stands between the OAuth2 library
// and the client, for the library bounds an answer at 1 MiB only and shows it in its errors.
type exchange struct {
	next      http.RoundTripper
	userAgent string

	phase      phase // how far the request came
	failure    error // of the transport
	status     int   // 0 without an answer
	retryAfter string
	tooLarge   bool
}

var errAnswerTooLarge = errors.New("answer too large")

func (e *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	t := &trace{begin: time.Now()}
	r = r.Clone(httptrace.WithClientTrace(r.Context(), t.hooks()))
	r.Header.Set("User-Agent", e.userAgent)
	r.Header.Set("Accept", "application/json")
	resp, err := e.next.RoundTrip(r)
	e.phase = t.end().phase
	if err != nil {
		e.failure = err
		return nil, err
	}
	defer resp.Body.Close()
	e.status, e.retryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	if isSuccess(resp.StatusCode) { // of a refusal the status alone says enough
		if err != nil {
			e.failure = err
			return nil, err
		}
		if len(body) > maxTokenAnswer {
			e.tooLarge = true
			return nil, errAnswerTooLarge
		}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

func isSuccess(status int) bool { return status >= 200 && status <= 299 }

// fetch asks the token endpoint for a token, with each secret of the client's at most once: the next one only when the
// endpoint refuses the client. An error is a *tokenError, of the last secret asked with.
func (t *tokens) fetch(ctx context.Context, now func() time.Time) (*token, error) {
	t.mu.Lock()
	used := t.secret
	t.mu.Unlock()
	for asked := 1; ; asked++ {
		got, failed := t.ask(ctx, now, t.configs[used])
		switch {
		case failed == nil:
			t.keep(used)
			return got, nil
		case !failed.client || asked == len(t.configs):
			failed.secrets = asked
			return nil, failed
		}
		if t.opt.Refused != nil {
			t.opt.Refused()
		}
		used = (used + 1) % len(t.configs)
	}
}

// keep has the secret that the endpoint has taken be the first to ask with.
func (t *tokens) keep(secret int) {
	t.mu.Lock()
	changed := t.secret != secret
	t.secret = secret
	t.mu.Unlock()
	if changed {
		t.log.Warn("client secret refused, another one is in use now",
			zap.String("token_endpoint", t.opt.TokenURL.Hostname()), zap.Int("entry", secret+1))
	}
}

// ask makes one request to the token endpoint.
func (t *tokens) ask(ctx context.Context, now func() time.Time, config clientcredentials.Config) (*token, *tokenError) {
	begin := now()
	e := &exchange{next: t.opt.Client.Transport, userAgent: t.userAgent}
	client := &http.Client{
		Transport:     e,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	got, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		return nil, t.failed(ctx, e, err, now())
	}
	value := got.AccessToken
	if kind := got.TokenType; kind != "" && !strings.EqualFold(kind, "bearer") {
		return nil, t.refuse(store.ClassAuth, "its token is not of type Bearer, and only those can be sent"+store.Quote+t.quoted(kind, 64))
	}
	if err := checkToken(value); err != nil {
		return nil, t.refuse(store.ClassAuth, err.Error())
	}
	life := tokenLife(got.Extra("expires_in"))
	// Counted from before the request: the server's clock started somewhere in between.
	return &token{value: value, until: begin.Add(life - min(life/10, mostEarly))}, nil
}

// checkToken reports whether a token can be sent. Its error does not hold it.
func checkToken(value string) error {
	if len(value) > maxToken {
		return fmt.Errorf("its token has %d bytes; at most %d can be sent", len(value), maxToken)
	}
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c >= 0x7f {
			return fmt.Errorf("byte %d of its token is not a printable ASCII character", i+1)
		}
	}
	return nil
}

// tokenLife reads expires_in (RFC 6749, section 5.1) as the library found it: a number or a text of seconds. What is
// missing, no number or not positive means unknownLife: 0 stands for "never" with some servers.
func tokenLife(expiresIn any) time.Duration {
	var seconds float64
	switch v := expiresIn.(type) {
	case float64:
		seconds = v
	case int64:
		seconds = float64(v)
	case string:
		if n, err := strconv.ParseFloat(v, 64); err == nil {
			seconds = n
		}
	}
	switch {
	case math.IsNaN(seconds) || seconds <= 0:
		return unknownLife
	case seconds >= longestLife.Seconds():
		return longestLife
	}
	return time.Duration(seconds * float64(time.Second))
}

// quoted makes a text that the endpoint wrote fit to stand in one of ours: printable, of at most n bytes, and masked before
// it is cut. Beside what a request may hold, it hides the token that the endpoint has given out before.
func (t *tokens) quoted(text string, n int) string {
	t.mu.Lock()
	current := t.current
	t.mu.Unlock()
	secrets := t.secrets
	if current != nil {
		secrets = withSecrets(secrets, current.value)
	}
	return clip(clean(maskSecrets(text, secrets)), n)
}

// refuse makes the error of a fetch. What the endpoint wrote is quoted in text.
func (t *tokens) refuse(class store.Class, text string) *tokenError {
	return &tokenError{class: class, host: t.opt.TokenURL.Hostname(), text: clean(maskSecrets(text, t.secrets))}
}

// failed says why the library has no token. The library's text is never shown: it may hold the answer.
func (t *tokens) failed(ctx context.Context, e *exchange, err error, now time.Time) *tokenError {
	switch {
	case e.tooLarge:
		return t.refuse(store.ClassAuth, fmt.Sprintf("its answer is larger than %d KiB", maxTokenAnswer>>10))
	case e.failure != nil:
		failed := t.unreachable(ctx, e)
		failed.silent = failed.class != store.ClassBlocked
		return failed
	}
	var failed *tokenError
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		text := "answered " + strconv.Itoa(e.status)
		if name := http.StatusText(e.status); name != "" {
			text += " " + name
		}
		said := []string{refused.ErrorCode, refused.ErrorDescription}
		if isErrorCode(refused.ErrorCode) {
			text += ", error " + refused.ErrorCode
			said = said[1:]
		}
		if e.status >= 300 && e.status <= 399 {
			text += "; redirects are never followed, so write the new address as token_url if you trust it"
		}
		said = slices.DeleteFunc(said, func(s string) bool { return s == "" })
		if len(said) > 0 {
			text += store.Quote + t.quoted(strings.Join(said, ": "), maxTokenText)
		}
		failed = t.refuse(store.ClassAuth, text)
		// RFC 6749, section 5.2: a client that is not known may be told so by 401, and must be if it used the header.
		failed.client = e.status == http.StatusUnauthorized || e.status == http.StatusBadRequest && refused.ErrorCode == "invalid_client"
	} else {
		failed = t.refuse(store.ClassAuth, "its answer holds no access_token that can be read (RFC 6749, section 5.1)")
	}
	if hint, ok := retryAfter(e.retryAfter, now); ok {
		failed.retryAt = now.Add(hint)
	}
	return failed
}

// isErrorCode reports whether code is one of RFC 6749, section 5.2, and so no text of the endpoint's own.
func isErrorCode(code string) bool {
	switch code {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope":
		return true
	}
	return false
}

// unreachable is for an endpoint that gave no whole answer.
func (t *tokens) unreachable(ctx context.Context, e *exchange) *tokenError {
	if _, text, ok := blocked(e.failure); ok {
		return t.refuse(store.ClassBlocked, text)
	}
	if ctx.Err() != nil {
		where := e.phase.String()
		if e.status != 0 {
			where = phaseAnswer.String()
		}
		return t.refuse(store.ClassAuth, fmt.Sprintf("no answer within %v; the time was over %s", tokenTimeout, where))
	}
	if e.status != 0 {
		return t.refuse(store.ClassAuth, "its answer broke off")
	}
	_, text := classify(e.failure, e.phase)
	// The texts are written for the receiver, and this is someone else.
	return t.refuse(store.ClassAuth, strings.ReplaceAll(text, "the receiver", "the token endpoint"))
}

// configs turns the options into those of the library, one for each secret.
func (o *OAuth2) configs() []clientcredentials.Config {
	c := clientcredentials.Config{
		ClientID: o.ClientID, TokenURL: o.TokenURL.String(), Scopes: o.Scopes, AuthStyle: oauth2.AuthStyleInHeader,
	}
	if o.SecretIn == SecretInBody {
		c.AuthStyle = oauth2.AuthStyleInParams
	}
	if o.Audience != "" {
		c.EndpointParams = map[string][]string{"audience": {o.Audience}}
	}
	all := make([]clientcredentials.Config, len(o.ClientSecrets))
	for i, secret := range o.ClientSecrets {
		all[i] = c
		all[i].ClientSecret = secret
	}
	return all
}
