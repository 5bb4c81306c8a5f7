package admin

import (
	"bytes"
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
	clientTimeout  = 3 * time.Second
	maxAnswerBytes = 1 << 20
	unixScheme     = "unix://"
)

// ErrAddress says that a text is not the address of an admin listener.
var ErrAddress = errors.New("not an address; want host:port or unix:///path")

var errClientTimeout = fmt.Errorf("no answer within %v", clientTimeout)

// Client asks a relay through its admin listener. A call takes at most 3 s, uses no proxy and follows no redirect.
// A malformed Address is ErrAddress.
type Client struct {
	// Address is that of the listener as in its config, host:port or unix:///path. One that means all interfaces is
	// asked on loopback.
	Address string
}

// Health asks whether the relay is ready. It returns nil if so, else an error with the reasons or with what was wrong
// with the answer.
func (c Client) Health(ctx context.Context) error {
	status, body, err := c.do(ctx, http.MethodGet, readyPath, nil)
	if err == nil {
		err = judgeHealth(status, body)
	}
	if err != nil {
		return fmt.Errorf("ask %s for its health: %w", c.Address, err)
	}
	return nil
}

// Pause holds a destination; an empty reason leaves it to the relay to give one.
func (c Client) Pause(ctx context.Context, name, reason string) (Destination, error) {
	var body []byte
	if reason != "" {
		var err error
		if body, err = json.Marshal(pauseRequest{Reason: reason}); err != nil {
			return Destination{}, fmt.Errorf("pause %q: %w", name, err)
		}
	}
	return c.steer(ctx, name, "pause", body)
}

// Resume lets a destination go on.
func (c Client) Resume(ctx context.Context, name string) (Destination, error) {
	return c.steer(ctx, name, "resume", nil)
}

func (c Client) steer(ctx context.Context, name, action string, body []byte) (Destination, error) {
	var d Destination
	status, answer, err := c.do(ctx, http.MethodPost, destinationsPath+"/"+url.PathEscape(name)+"/"+action, body)
	if err == nil {
		err = decode(status, answer, &d)
	}
	if err != nil {
		return Destination{}, fmt.Errorf("%s %q through %s: %w", action, name, c.Address, err)
	}
	return d, nil
}

// decode reads an answer into v, or returns what a problem says.
func decode(status int, answer []byte, v any) error {
	if status == http.StatusOK {
		if err := json.Unmarshal(answer, v); err == nil {
			return nil
		}
	}
	var refused struct{ Detail string }
	if err := json.Unmarshal(answer, &refused); err == nil && refused.Detail != "" {
		return errors.New(refused.Detail)
	}
	return fmt.Errorf("the answer has the status %d and is not of Postern; check the address", status)
}

// do makes one request and reads its answer.
func (c Client) do(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	network, dialed, host, err := dialTarget(c.Address)
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, clientTimeout, errClientTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
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
		return 0, nil, failure(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return 0, nil, failure(ctx, err)
	}
	return resp.StatusCode, answer, nil
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

// dialTarget returns how to dial an address, and the host to ask for.
func dialTarget(address string) (network, dialed, host string, err error) {
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

// failure says why there was no answer, without the URL that net/http adds.
func failure(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
