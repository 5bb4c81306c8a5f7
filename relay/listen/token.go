package listen

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Token is a bearer token (RFC 6750, section 2.1) that a listener lets in.
type Token struct {
	Name   string // what log and metrics call it, unique within a list; required
	Digest Digest // of the token itself, from ParseToken; required
	Holder any    // what HolderOf returns for a request that brings the token; nil for nothing
}

// Digest is what a listener keeps of a token: its SHA-256.
type Digest [sha256.Size]byte

// ParseToken returns the digest of a token, or an error for a text that cannot be sent as one. It does not repeat the
// text.
func ParseToken(text string) (Digest, error) {
	if !isToken(text) {
		return Digest{}, errors.New("a token must be one or more of the characters A-Z a-z 0-9 - . _ ~ + / =")
	}
	return sha256.Sum256([]byte(text)), nil
}

// tokenChars are those of b64token (RFC 6750, section 2.1).
const tokenChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="

func isToken(text string) bool { return text != "" && strings.Trim(text, tokenChars) == "" }

// HolderOf returns the Holder of the token that a request was let in with, by the request's context; nil without a
// token, or for one without a Holder.
func HolderOf(ctx context.Context) any {
	return ctx.Value(holderKey{})
}

type holderKey struct{}

// tokens are those of one listener. They never change.
type tokens []*entry

// entry is one token in force.
type entry struct {
	Token
	visits   *visits            // shared with the entry of the same token in earlier and later lists
	requests prometheus.Counter // nil counts nothing
}

// checkTokens says what is wrong with a list of tokens.
func checkTokens(list []Token) error {
	var none Digest
	names, digests := map[string]bool{}, map[Digest]bool{}
	for _, t := range list {
		switch {
		case t.Name == "" || subtle.ConstantTimeCompare(t.Digest[:], none[:]) == 1:
			return errors.New("listen: a token needs a name and a digest")
		case names[t.Name]:
			return fmt.Errorf("listen: two tokens are called %q", t.Name)
		case digests[t.Digest]:
			return fmt.Errorf("listen: the token %q is the same as another one", t.Name)
		}
		names[t.Name], digests[t.Digest] = true, true
	}
	return nil
}

// newTokens returns nil if there are no tokens to ask for. A token that was in force before keeps its visits.
func newTokens(list []Token, before tokens, m *doorMetrics) tokens {
	known := map[Digest]*visits{}
	for _, e := range before {
		known[e.Digest] = e.visits
	}
	var all tokens
	for _, t := range list {
		v := known[t.Digest]
		if v == nil {
			v = new(visits)
		}
		all = append(all, &entry{Token: t, visits: v, requests: m.requestsOf(t.Name)})
	}
	return all
}

// find compares with every token, and in constant time: how long it takes tells nothing of how near a guess was, nor of
// which token it is. It returns nil for a token that is not among them.
func (t tokens) find(given Digest) *entry {
	at := -1
	for i, e := range t {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(given[:], e.Digest[:]), i, at)
	}
	if at < 0 {
		return nil
	}
	return t[at]
}

// retire cuts off the requests of all tokens that are not in the list after.
func (t tokens) retire(after tokens) {
	kept := map[*visits]bool{}
	for _, e := range after {
		kept[e.visits] = true
	}
	for _, e := range t {
		if !kept[e.visits] {
			e.visits.end()
		}
	}
}

// bearer reads the token out of the Authorization header (RFC 6750, section 2.1): a token in the URL would end up in
// logs, and is not looked at. why is empty if there is one.
func bearer(values []string) (token string, why refusal) {
	if len(values) == 0 {
		return "", tokenMissing
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	token = strings.TrimLeft(rest, " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || !isToken(token) {
		return "", tokenMalformed
	}
	return token, ""
}

// authenticate returns the token that a request brings, or nil with the reason why it must not come in.
func (t tokens) authenticate(r *http.Request) (*entry, refusal) {
	text, why := bearer(r.Header["Authorization"])
	if why != "" {
		return nil, why
	}
	if e := t.find(sha256.Sum256([]byte(text))); e != nil {
		return e, ""
	}
	return nil, tokenUnknown
}

// errWithdrawn ends the requests that are in progress when their token is taken out of the list: a stream would
// otherwise go on for as long as its client likes.
var errWithdrawn = errors.New("the token was taken out of the config")

// visits are the requests of one token that are in progress.
type visits struct {
	mu    sync.Mutex // guards the fields below
	open  map[*visit]bool
	ended bool // the token is not in force any more
}

// visit is one request.
type visit struct{ cancel context.CancelCauseFunc }

// begin notes a request. The context that it returns ends with the token; leave is to be called when the request is
// over.
func (v *visits) begin(ctx context.Context) (_ context.Context, leave func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	one := &visit{cancel}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		cancel(errWithdrawn)
		return ctx, func() {}
	}
	if v.open == nil {
		v.open = map[*visit]bool{}
	}
	v.open[one] = true
	return ctx, func() {
		v.mu.Lock()
		delete(v.open, one)
		v.mu.Unlock()
		cancel(nil)
	}
}

// end cuts off the requests in progress, and those that come too late.
func (v *visits) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ended = true
	for one := range v.open {
		one.cancel(errWithdrawn)
	}
	v.open = nil
}
