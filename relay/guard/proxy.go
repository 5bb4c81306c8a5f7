package guard

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxProxy is the length of the longest text that ParseProxy reads, in bytes.
const maxProxy = 2048

// Proxy is a server that tunnels connections by CONNECT (RFC 9110, section 9.3.6). ParseProxy makes it; it may be
// used by several Dialers and goroutines. Printing it shows no user name or password.
type Proxy struct {
	// RootCAs are the roots that an https proxy's certificate is verified against; nil means the system's. Set it
	// before use.
	RootCAs *x509.CertPool

	secure bool       // TLS to the proxy itself
	host   string     // lower case
	addr   netip.Addr // of host, if that is an address
	port   uint16

	// basic is the value of Proxy-Authorization, nil for none. A pointer, since fmt does not follow those within a
	// struct.
	basic *string
}

// ParseProxy reads the URL of a proxy: http://host or https://host, the latter with TLS to the proxy, whose
// certificate is always verified. A port may follow, without one it is 80 or 443; and user:password@ may stand before
// the host, both percent-encoded, for Basic authentication (RFC 7617). Host and port are not bound by the rules for
// targets: a proxy may be in a private network or on this machine. Only addresses that nothing opens, such as
// link-local and metadata ones, are refused.
//
// Errors are for a person: what is wrong, a semicolon, what to write instead. They quote nothing behind the scheme,
// for where passwords are not encoded properly any part can be one.
func ParseProxy(text string) (*Proxy, error) {
	if len(text) > maxProxy {
		return nil, fmt.Errorf("the proxy's URL has %d bytes; at most %d are allowed", len(text), maxProxy)
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if scheme = strings.ToLower(scheme); !ok || scheme != "http" && scheme != "https" {
		return nil, errors.New("only a proxy that speaks HTTP is supported; write http://host:port or https://host:port")
	}
	p := &Proxy{secure: scheme == "https", port: 80}
	if p.secure {
		p.port = 443
	}
	authority := strings.TrimSuffix(rest, "/")
	if strings.ContainsAny(authority, `/?#\`) {
		return nil, errors.New(`a proxy's URL ends with its host and port; remove what follows, and write / ? # and \ in a user name or password as %2F %3F %23 and %5C`)
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		if err := p.setUser(authority[:at]); err != nil {
			return nil, err
		}
		authority = authority[at+1:]
	}
	if err := p.setHost(authority); err != nil {
		return nil, err
	}
	return p, nil
}

// setUser reads user info, user:password in percent-encoding.
func (p *Proxy) setUser(info string) error {
	if strings.Contains(info, "@") {
		return errors.New("the proxy's user name or password holds an @; write it as %40")
	}
	userText, passwordText, _ := strings.Cut(info, ":")
	user, err := url.PathUnescape(userText)
	password, err2 := url.PathUnescape(passwordText)
	switch {
	case err != nil || err2 != nil:
		return errors.New("the proxy's user name or password has a % without two hexadecimal digits behind it; write %25 for the character")
	case strings.Contains(user, ":"):
		return errors.New("the proxy's user name holds a colon, which Basic authentication cannot express; use another name")
	case strings.ContainsFunc(user+password, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("the proxy's user name or password holds a control character, which Basic authentication forbids; remove it")
	}
	value := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	p.basic = &value
	return nil
}

// setHost reads host and port.
func (p *Proxy) setHost(authority string) error {
	host, portText := authority, ""
	if end := strings.LastIndexByte(authority, ']'); end >= 0 {
		host, portText = authority[:end+1], authority[end+1:]
		if portText != "" && portText[0] != ':' {
			return errors.New("only a colon and the port may follow the ] of the proxy's host; write http://[address]:port")
		}
		portText = strings.TrimPrefix(portText, ":")
	} else if strings.Count(authority, ":") > 1 {
		return errors.New("the proxy's host has more than one colon; put an IPv6 address into brackets, and encode a colon in a password as %3A")
	} else {
		host, portText, _ = strings.Cut(authority, ":")
	}
	if host == "" || host == "[]" {
		return errors.New("the proxy's host is missing; write http://host:port")
	}
	if portText != "" {
		// ParseUint alone would read +1 and 01.
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || port == 0 || strconv.FormatUint(port, 10) != portText {
			return errors.New("the proxy's port is not a number from 1 to 65535; write http://host:port")
		}
		p.port = uint16(port)
	}
	addr, err := parseBracketed(strings.ToLower(host))
	if err != nil {
		return errors.New("the proxy's host is neither a name of letters, digits, hyphens and dots nor an address; write http://host:port")
	}
	p.host, p.addr = strings.ToLower(host), addr
	if addr.IsValid() {
		p.host = addr.String()
		if reason := judgeProxy(addr); reason != "" {
			return fmt.Errorf("the proxy's address is not allowed: %s; write that of a proxy", reason)
		}
	}
	return nil
}

// String returns the URL of the proxy without user name and password.
func (p *Proxy) String() string {
	scheme := "http://"
	if p.secure {
		scheme = "https://"
	}
	return scheme + p.hostPort()
}

// GoString is String, so that %#v shows no more than %v.
func (p *Proxy) GoString() string { return p.String() }

func (p *Proxy) hostPort() string { return net.JoinHostPort(p.host, strconv.Itoa(int(p.port))) }

// judgeProxy returns why a proxy cannot be at an unmapped address, or nothing: all is open but what nothing opens.
func judgeProxy(addr netip.Addr) string {
	everything := []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	return judge(addr, everything, nil)
}

// ProxyError says that the proxy, and not the target, kept a connection from being made. It is found by errors.As.
type ProxyError struct {
	Proxy  string // host and port of the proxy
	Status int    // its answer to CONNECT, if that is what went wrong; else 0
	Reason string // what went wrong, for a person; it holds no credentials and nothing that the proxy wrote
	Err    error  // the cause, or nil
}

// Error begins with "proxy" and its host and port.
func (e *ProxyError) Error() string { return "proxy " + e.Proxy + ": " + e.Reason }

func (e *ProxyError) Unwrap() error { return e.Err }

func (p *Proxy) failed(doing string, err error) *ProxyError {
	if errors.Is(err, context.DeadlineExceeded) {
		return &ProxyError{Proxy: p.hostPort(), Reason: doing + ": no answer in time", Err: err}
	}
	return &ProxyError{Proxy: p.hostPort(), Reason: doing + ": " + err.Error(), Err: err}
}
