package egress

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/oauth2/clientcredentials"
)

// After a request to the token endpoint that did not help, another waits a little, so that a thousand attempts
// become no storm. What the endpoint asks for by Retry-After counts up to longestPause: it may be mended meanwhile.
const (
	tokenPause   = time.Second
	longestPause = time.Minute
)

// tokens keeps the token of one destination. Its methods may be called from several goroutines.
//
//	none ──fetch──► current ──its time is over, or a receiver refused it──► fetch, by the first that needs one
//	                          a fetch failed ──► nobody fetches until the pause is over
type tokens struct {
	opt       OAuth2
	userAgent string
	secrets   []string // not in texts
	log       *zap.Logger
	configs   []clientcredentials.Config // one for each secret of the client's

	mu      sync.Mutex // guards the fields below
	secret  int        // place in configs of the one that was taken last
	current *token     // the newest that was had
	failure error      // of the newest fetch, if that had none
	pause   time.Time  // until which failure stands
	calm    time.Time  // until which it does not matter that a receiver refuses current
	flight  *flight    // in progress
}

// flight is one fetch from the token endpoint, and those who wait for it.
type flight struct {
	cancel  context.CancelFunc
	waiting int           // attempts; guarded by tokens.mu
	done    chan struct{} // closed at its end; the following are set before
	token   *token
	err     error
}

// errCalm is the error of renew when a fresh token was refused a moment ago.
var errCalm = errors.New("a fresh token was refused a moment ago as well")

func newTokens(o OAuth2, userAgent string, secrets []string, log *zap.Logger) *tokens {
	return &tokens{opt: o, userAgent: userAgent, secrets: secrets, log: log, configs: o.configs()}
}

// ready reports whether there is a way to the endpoint.
func (t *tokens) ready() bool { return t.opt.Client != nil && t.opt.Client.Transport != nil }

// get returns a token, from memory or from the endpoint. An error is a *tokenError, or the cause of ctx's end.
func (t *tokens) get(ctx context.Context, now func() time.Time) (*token, error) {
	return t.newer(ctx, now, nil)
}

// renew returns a token other than the refused one, which a receiver has answered 401 to: the one that someone else
// has had meanwhile, or a fresh one. Errors are those of get, and errCalm.
func (t *tokens) renew(ctx context.Context, now func() time.Time, refused *token) (*token, error) {
	t.mu.Lock()
	calm := t.current == refused && now().Before(t.calm)
	t.mu.Unlock()
	if calm {
		return nil, errCalm
	}
	return t.newer(ctx, now, refused)
}

// useless notes that a receiver has refused a token that replaced a refused one: whatever the receiver minds, the
// next token would not help either.
func (t *tokens) useless(refused *token, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == refused {
		t.calm = now.Add(tokenPause)
	}
}

func (t *tokens) newer(ctx context.Context, now func() time.Time, refused *token) (*token, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	t.mu.Lock()
	if t.current != nil && t.current != refused && now().Before(t.current.until) {
		defer t.mu.Unlock()
		return t.current, nil
	}
	if t.failure != nil && now().Before(t.pause) {
		defer t.mu.Unlock()
		return nil, t.failure
	}
	f := t.flight
	if f == nil {
		f = t.startLocked(ctx, now)
	}
	f.waiting++
	t.mu.Unlock()
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		t.leave(f, context.Cause(ctx) != errDeadline)
		return nil, context.Cause(ctx)
	}
}

// startLocked begins a request that does not end with the attempt that begins it. It is bounded by tokenTimeout, and
// nobody waits for its goroutine if all attempts have run out of their time: the token is for the next ones, which
// would otherwise never get it from an endpoint that is slower than an attempt may be.
func (t *tokens) startLocked(ctx context.Context, now func() time.Time) *flight {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), tokenTimeout, errTokenTime)
	t.flight = &flight{cancel: cancel, done: make(chan struct{})}
	go t.fly(ctx, t.flight, now)
	return t.flight
}

func (t *tokens) fly(ctx context.Context, f *flight, now func() time.Time) {
	defer close(f.done)
	defer f.cancel()
	got, err := t.fetch(ctx, now)
	t.mu.Lock()
	defer t.mu.Unlock()
	f.token, f.err = got, err
	if t.flight != f {
		return // given up
	}
	t.flight = nil
	if err == nil {
		t.current, t.failure = got, nil
		return
	}
	t.failure = err
	at := now()
	t.pause = at.Add(tokenPause)
	if failed, ok := errors.AsType[*tokenError](err); ok && failed.retryAt.After(t.pause) {
		t.pause = at.Add(min(failed.retryAt.Sub(at), longestPause))
	}
}

// leave ends the waiting of one attempt. With the last one that our stop has taken away, the request ends too.
func (t *tokens) leave(f *flight, stopped bool) {
	t.mu.Lock()
	f.waiting--
	giveUp := stopped && f.waiting == 0 && t.flight == f
	if giveUp {
		t.flight = nil
		f.cancel()
	}
	t.mu.Unlock()
	if giveUp {
		<-f.done
	}
}
