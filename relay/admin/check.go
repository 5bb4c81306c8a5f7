package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const (
	checkTimeout   = 3 * time.Second
	maxHealthBytes = 64 << 10
	unixScheme     = "unix://"
)

// ErrAddress says that a text is not the address of an admin listener.
var ErrAddress = errors.New("not an address; want host:port or unix:///path")

var errCheckTimeout = fmt.Errorf("no answer within %v", checkTimeout)

// CheckHealth asks the relay whose admin listener has the given address, host:port or unix:///path as in its config,
// whether it is ready. It returns nil if so, else an error with the reasons or with what was wrong with the answer.
// An address that means all interfaces is asked on loopback. It takes at most 3 s, uses no proxy and follows no
// redirect. A malformed address is ErrAddress.
func CheckHealth(ctx context.Context, address string) error {
	if err := checkHealth(ctx, address); err != nil {
		return fmt.Errorf("ask %s for its health: %w", address, err)
	}
	return nil
}

func checkHealth(ctx context.Context, address string) error {
	network, dialed, host, err := healthTarget(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, errCheckTimeout)
	defer cancel()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+readyPath, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, dialed)
		},
	}
	resp, err := transport.RoundTrip(req) // no http.Client: there is nothing to follow and no cookie to keep
	if err != nil {
		return healthFailure(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHealthBytes))
	if err != nil {
		return healthFailure(ctx, err)
	}
	return judgeHealth(resp.StatusCode, body)
}

// judgeHealth returns nil if an answer of /readyz says that the relay is ready.
func judgeHealth(status int, body []byte) error {
	var answer health
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the answer has the status %d and is not of Postern; check the address", status)
	}
	switch {
	case status == http.StatusOK && answer.Status == statusReady:
		return nil
	case status == http.StatusServiceUnavailable && len(answer.Reasons) > 0:
		return fmt.Errorf("not ready: %s", strings.Join(answer.Reasons, "; "))
	default:
		return fmt.Errorf("the answer has the status %d and does not say ready; check the address", status)
	}
}

// healthTarget returns how to dial an address, and the host to ask for.
func healthTarget(address string) (network, dialed, host string, err error) {
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		return "unix", path, "localhost", nil
	}
	name, port, err := net.SplitHostPort(address)
	if err != nil || port == "" || strings.Contains(name, "/") {
		return "", "", "", ErrAddress
	}
	if ip, err := netip.ParseAddr(name); name == "" || err == nil && ip.IsUnspecified() {
		name = "127.0.0.1"
		if ip.Is6() {
			name = "::1"
		}
	}
	joined := net.JoinHostPort(name, port)
	return "tcp", joined, joined, nil
}

// healthFailure says why there was no answer, without the URL that net/http adds.
func healthFailure(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
