package listen

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/problem"
)

const (
	failuresAllowed = 20          // wrong tokens of one peer, in one window
	failureWindow   = time.Minute // how long a failure counts
	failurePeers    = 1024        // peers that are told apart in one window; the others share one count
	challenge       = `Bearer realm="postern"`
)

// tokens checks bearer tokens. A right one always passes, however many wrong ones came from the same peer before:
// otherwise one forgotten client with an old token could lock out the app beside it. What a peer that goes on
// guessing gets is 429 and a closed connection, and no more lines in the log.
type tokens struct {
	digests [][sha256.Size]byte
	log     *zap.Logger
	now     func() time.Time

	mu       sync.Mutex // guards the fields below
	since    time.Time  // begin of the window
	failures map[netip.Addr]int
}

// newTokens returns nil if there are no tokens to ask for.
func newTokens(list []string, now func() time.Time, log *zap.Logger) (*tokens, error) {
	if len(list) == 0 {
		return nil, nil
	}
	t := &tokens{log: log, now: now, failures: make(map[netip.Addr]int)}
	for _, token := range list {
		if err := CheckToken(token); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
		t.digests = append(t.digests, sha256.Sum256([]byte(token)))
	}
	return t, nil
}

// CheckToken returns an error for a text that cannot be sent as a bearer token. It does not repeat the text.
func CheckToken(token string) error {
	if token == "" || strings.Trim(token, tokenChars) != "" {
		return errors.New("a token must be one or more of the characters A-Z a-z 0-9 - . _ ~ + / =")
	}
	return nil
}

// tokenChars are those of b64token (RFC 6750, section 2.1).
const tokenChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="

// check returns nil if the request carries one of the tokens, in its Authorization header: a token in the URL would
// end up in logs, and is not looked at.
func (t *tokens) check(r *http.Request) error {
	given := r.Header["Authorization"]
	if len(given) == 0 {
		return refusal("a token is required; send it as Authorization: Bearer …")
	}
	if len(given) == 1 && t.known(given[0]) {
		return nil
	}
	peer := peerOf(r)
	failures := t.fail(peer)
	if failures > failuresAllowed {
		return problem.New(http.StatusTooManyRequests, "too many wrong tokens from this address; correct the token and wait").
			RetryAfter(int(failureWindow / time.Second)).Closing()
	}
	t.log.Warn("wrong token", zap.String("peer", peer.String()), zap.Int("failures", failures))
	return refusal("the token is not one of those this listener knows; send the right one as Authorization: Bearer …")
}

func refusal(detail string) error {
	return &problem.Error{
		Status: http.StatusUnauthorized, Detail: detail,
		Header: http.Header{"Www-Authenticate": {challenge}},
	}
}

// known compares with every token, and in constant time: how long it takes tells nothing of how near a guess was.
func (t *tokens) known(authorization string) bool {
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	given := sha256.Sum256([]byte(strings.TrimLeft(token, " ")))
	found := 0
	for i := range t.digests {
		found |= subtle.ConstantTimeCompare(given[:], t.digests[i][:])
	}
	return found == 1
}

// fail counts a failure of a peer and returns how many there were in this window. Its memory is bounded: peers
// beyond the first failurePeers share the count of the zero address.
func (t *tokens) fail(peer netip.Addr) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := t.now(); now.Sub(t.since) >= failureWindow || now.Before(t.since) {
		t.since = now
		clear(t.failures)
	}
	if _, seen := t.failures[peer]; !seen && len(t.failures) >= failurePeers {
		peer = netip.Addr{}
	}
	t.failures[peer]++
	return t.failures[peer]
}

// peerOf returns the address that failures are counted for: for IPv6 the network of 64 bits, since one host has all
// of it, and the zero address for a Unix socket.
func peerOf(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		network, err := ip.Prefix(64)
		if err != nil {
			return netip.Addr{}
		}
		return network.Addr()
	}
	return ip
}
