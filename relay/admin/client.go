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
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	healthTimeout  = 3 * time.Second
	clientTimeout  = 30 * time.Second
	maxAnswerBytes = 64 << 20
	unixScheme     = "unix://"
)

// ErrAddress says that a text is not the address of a listener.
var ErrAddress = errors.New("not an address; want host:port or unix:///path")

// ErrCut says that the relay, or what is between, has ended the connection in the middle.
var ErrCut = errors.New("the connection ended before the whole answer was there")

// Client asks a relay through its admin listener. It uses no proxy and follows no redirect. Its methods may be called
// from several goroutines. What the relay refuses is a *Refusal; a malformed Address is ErrAddress.
type Client struct {
	// Address is that of the listener as in its config, host:port or unix:///path. One that means all interfaces is
	// asked on loopback.
	Address string

	// Token is sent as a bearer token; empty sends none.
	Token string

	// Timeout bounds a call. 0 means 3 s for Health, and otherwise 30 s, but for Test, which may take as long as the
	// destination's timeout (at most 11 minutes), and ReplayAll (at most 6 minutes).
	Timeout time.Duration
}

// Refusal is what the relay answered instead of what was asked for.
type Refusal struct {
	Status int           // of the answer
	Detail string        // for a person: what is wrong and what to do
	Errors []ConfigFault // of a refused reload
}

func (r *Refusal) Error() string { return r.Detail }

// NotReady is why a relay is not ready, for a person to read.
type NotReady struct {
	Full  []string // why it takes no messages now; nothing if it does
	HTTPS []string // what keeps apps on other hosts from posting
}

func (e *NotReady) Error() string {
	return "not ready: " + strings.Join(slices.Concat(e.Full, e.HTTPS), "; ")
}

// Health asks whether the relay is ready. It returns nil if so, a *NotReady with the reasons if not, or else what was wrong
// with the answer.
func (c Client) Health(ctx context.Context) error {
	status, body, err := c.do(ctx, healthTimeout, http.MethodGet, readyPath, nil)
	if err == nil {
		err = judgeHealth(status, body)
	}
	if err != nil {
		return fmt.Errorf("ask %s for its health: %w", c.Address, err)
	}
	return nil
}

// judgeHealth returns nil if an answer of /readyz says that the relay is ready.
func judgeHealth(status int, body []byte) error {
	var answer health
	if err := json.Unmarshal(body, &answer); err != nil {
		return foreign(status)
	}
	switch {
	case status == http.StatusOK && answer.Status == statusReady:
		return nil
	case status == http.StatusServiceUnavailable && len(answer.Reasons) > 0:
		full := slices.DeleteFunc(answer.Reasons, func(reason string) bool { return slices.Contains(answer.HTTPS, reason) })
		return &NotReady{Full: full, HTTPS: answer.HTTPS}
	default:
		return fmt.Errorf("the answer has the status %d and does not say ready; check the address", status)
	}
}

// ask makes a request and decodes the answer. what says what is being done, for an error.
func ask[Answer any](ctx context.Context, c Client, timeout time.Duration, what, method, path string, body any) (Answer, error) {
	var answer Answer
	raw, err := c.raw(ctx, timeout, what, method, path, body)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(raw, &answer); err != nil || !ours(raw, reflect.TypeFor[Answer]()) {
		return answer, fmt.Errorf("%s through %s: %w", what, c.Address, foreign(http.StatusOK))
	}
	return answer, nil
}

// ours reports whether a JSON text is an object with any of the keys of a struct. Whatever listens at a wrong address may
// well answer {}, which must not be taken for success.
func ours(raw []byte, t reflect.Type) bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return false
	}
	return slices.ContainsFunc(keysOf(t), func(key string) bool {
		_, ok := members[key]
		return ok
	})
}

// raw makes a request and returns the body of a 200.
func (c Client) raw(ctx context.Context, timeout time.Duration, what, method, path string, body any) ([]byte, error) {
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	status, answer, err := c.do(ctx, timeout, method, path, encoded)
	if err == nil && status != http.StatusOK {
		err = refusal(status, answer)
	}
	if err != nil {
		return nil, fmt.Errorf("%s through %s: %w", what, c.Address, err)
	}
	return answer, nil
}

// refusal returns what a problem says.
func refusal(status int, answer []byte) error {
	var said struct {
		Detail string
		Errors []ConfigFault
	}
	if err := json.Unmarshal(answer, &said); err == nil && said.Detail != "" {
		return &Refusal{Status: status, Detail: said.Detail, Errors: said.Errors}
	}
	return foreign(status)
}

func foreign(status int) error {
	return fmt.Errorf("the answer has the status %d and is not of Postern; check the address", status)
}

// do makes one request and reads its answer.
func (c Client) do(ctx context.Context, timeout time.Duration, method, path string, body []byte) (status int, answer []byte, err error) {
	if c.Timeout > 0 {
		timeout = c.Timeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	resp, err := c.open(ctx, method, path, body)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return 0, nil, failure(ctx, err)
	case len(answer) > maxAnswerBytes:
		return 0, nil, fmt.Errorf("the answer has more than %d bytes", maxAnswerBytes)
	}
	return resp.StatusCode, answer, nil
}

// open makes one request. The caller closes the body of the answer.
func (c Client) open(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	transport, host, err := Transport(c.Address)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", jsonType)
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := transport.RoundTrip(req) // no http.Client: there is nothing to follow and no cookie to keep
	if err != nil {
		return nil, failure(ctx, err)
	}
	return resp, nil
}

// Transport returns how to reach a listener of a relay by its address in the config, host:port or unix:///path, and the
// host to name in the URLs of requests. One that means all interfaces is reached on loopback. It uses no proxy, and
// makes a connection for each request. A malformed address is ErrAddress.
func Transport(address string) (transport http.RoundTripper, host string, err error) {
	network, dialed, host, err := dialTarget(address)
	if err != nil {
		return nil, "", err
	}
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, dialed)
		},
	}, host, nil
}

// dialTarget returns how to dial an address, and the host to ask for.
func dialTarget(address string) (network, dialed, host string, err error) {
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		return "unix", path, "localhost", nil
	}
	name, port, err := net.SplitHostPort(address)
	if err != nil || strings.Contains(name, "/") {
		return "", "", "", ErrAddress
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil { // as in https://host
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
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return ErrCut
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
