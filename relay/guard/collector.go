package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
)

// maxCollectorConns is how many connections to a collector there are at a time.
const maxCollectorConns = 2

// ParseCollectorURL reads the base URL of a collector of Postern's own signals. That is no target: nothing of a message
// goes there, and only the config names it. So its port is free and its address may be private, but what leaves this
// machine is https: http is for localhost and loopback literals. No user info, no query, no fragment; link-local and
// metadata addresses are refused as everywhere. The scheme and the host of the result are lower case, and its path does
// not end in a slash.
//
// Errors are for a person, as those of ParseURL.
func ParseCollectorURL(s string) (*url.URL, error) {
	if len(s) > MaxURL {
		return nil, fmt.Errorf("the URL has %d bytes; at most %d are allowed", len(s), MaxURL)
	}
	if strings.TrimSpace(s) != s {
		return nil, errors.New("the URL has white space around it; remove it")
	}
	scheme, rest, ok := strings.Cut(s, "://")
	scheme = strings.ToLower(scheme)
	if !ok || scheme != "http" && scheme != "https" {
		return nil, errors.New("not the URL of a collector; write one such as http://127.0.0.1:4318")
	}
	authority := rest
	if i := strings.IndexAny(rest, `/?#\`); i >= 0 {
		authority, rest = rest[:i], rest[i:]
	} else {
		rest = ""
	}
	if strings.Contains(authority, "@") {
		return nil, errors.New("a user name or password in the URL is not allowed; remove it and use headers")
	}
	if strings.Contains(rest, "?") {
		return nil, errors.New("a query (?…) is not allowed; remove it and use headers")
	}
	if err := checkRest(rest); err != nil {
		return nil, err
	}
	host, err := collectorHost(scheme, strings.ToLower(authority))
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(scheme + "://" + host + strings.TrimRight(rest, "/"))
	if err != nil || u.Host != host || u.User != nil || u.Scheme != scheme {
		return nil, errors.New("the URL is malformed; write one such as http://127.0.0.1:4318")
	}
	return u, nil
}

// collectorHost reads and judges an authority without user info. It returns host and port as in a URL.
func collectorHost(scheme, authority string) (string, error) {
	hostText, portText := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		hostText, portText = authority[:i], authority[i:]
		if n, err := strconv.Atoi(portText[1:]); err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != portText[1:] {
			return "", errors.New("the port is not a number from 1 to 65535; correct it")
		}
	}
	addr, err := parseBracketed(hostText)
	switch {
	case err != nil:
		return "", err
	case hostText == "localhost":
	case addr.IsValid():
		if reason := judgeCollector(addr, nil, scheme); reason != "" {
			return "", &BlockedError{Addr: addr.Unmap(), Reason: reason}
		}
	case scheme == "http":
		return "", errors.New("http is for a collector on loopback only, such as http://127.0.0.1:4318; write https://… for any other host")
	}
	if addr.Is6() {
		hostText = "[" + addr.String() + "]"
	}
	return hostText + portText, nil
}

// judgeCollector returns why an address may not be a collector's, or nothing.
func judgeCollector(addr netip.Addr, deny []netip.Prefix, scheme string) string {
	addr = addr.Unmap()
	if scheme == "http" && !addr.IsLoopback() {
		return "http is for a collector on loopback only; write https://…"
	}
	everywhere := [...]netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	return judge(addr, everywhere[:], deny)
}

// CollectorOptions says how a collector is reached. The zero value reaches any that ParseCollectorURL lets pass.
type CollectorOptions struct {
	Deny    []netip.Prefix        // networks that stay closed, as in Dialer
	Resolve map[string]netip.Addr // addresses of names, as in Dialer
}

// NewCollectorClient makes a client for one collector. It follows no redirect, uses no proxy, neither the config's nor
// the environment's, verifies certificates, unpacks nothing, and judges the address that it dials by the rules of
// ParseCollectorURL. Requests have no time limit of their own. CloseIdleConnections it when the collector goes.
func NewCollectorClient(u *url.URL, o CollectorOptions) *http.Client {
	c := collector{scheme: u.Scheme, dialer: Dialer{Deny: o.Deny, Resolve: o.Resolve}}
	t := TransportOptions{MaxConnsPerHost: maxCollectorConns}.transport(c.dial)
	if u.Scheme == "https" {
		t.RegisterProtocol("http", plain{})
	}
	return newClient(t)
}

// collector dials one.
type collector struct {
	scheme string
	dialer Dialer // for its rules and look-ups
}

// dial connects to host and port. All addresses of the host are judged, and what is really dialled once more.
func (c *collector) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil || network != "tcp" {
		return nil, &BlockedError{Reason: "the address is not a host and a port of TCP"}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errDialTimeout)
	defer cancel()
	host = strings.ToLower(host)
	literal, err := parseHost(host)
	if err != nil {
		return nil, &BlockedError{Host: printable(host), Reason: err.Error()}
	}
	addrs := []netip.Addr{literal.Unmap()}
	if host == "localhost" { // RFC 6761, section 6.3; an image from scratch may have nobody to ask
		addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	} else if !literal.IsValid() {
		if addrs, err = c.dialer.lookUp(ctx, host); err != nil {
			return nil, err
		}
	}
	for _, addr := range addrs {
		if err := c.judge(host, addr); err != nil {
			return nil, err
		}
	}
	conn, err := race(ctx, addrs, func(ctx context.Context, addr netip.Addr) (net.Conn, error) {
		dialer := net.Dialer{ControlContext: func(_ context.Context, _, dialled string, _ syscall.RawConn) error {
			target, err := netip.ParseAddrPort(dialled)
			if err != nil {
				return &BlockedError{Host: host, Reason: "what is dialled is not an address and a port"}
			}
			return c.judge(host, target.Addr())
		}}
		return dialer.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), portText))
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %q: %w", host, err)
	}
	return conn, nil
}

func (c *collector) judge(host string, addr netip.Addr) error {
	if reason := judgeCollector(addr, c.dialer.Deny, c.scheme); reason != "" {
		return &BlockedError{Host: host, Addr: addr.Unmap(), Reason: reason}
	}
	return nil
}
