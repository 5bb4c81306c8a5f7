package guard

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	authorityTimeout   = 30 * time.Second // for one request, its answer included
	maxAuthorityAnswer = 1 << 20          // bytes of an answer; a chain of certificates has some 10 KiB
	maxAuthorityConns  = 2
)

// ParseAuthorityURL reads the URL of a certificate authority's directory (RFC 8555, section 7.1.1) by the rules of
// ParseURL, with one exception: the port is free. No message goes there, only the config names it, and private
// authorities rarely have the port 443. What the result says is all that NewAuthorityClient talks to.
//
// Errors are for a person, as those of ParseURL.
func ParseAuthorityURL(s string, allow []netip.Prefix) (*url.URL, error) {
	authority, rest, begin := s, "", 0
	if i := strings.Index(s, "://"); i >= 0 {
		begin = i + len("://")
		authority = s[begin:]
	}
	if i := strings.IndexAny(authority, `/?#\`); i >= 0 {
		authority, rest = authority[:i], authority[i:]
	}
	i := strings.LastIndexByte(authority, ':')
	if i < strings.LastIndexByte(authority, ']') || i < 0 || strings.Count(authority[:i], ":") > 0 && authority[0] != '[' ||
		strings.Contains(authority, "@") {
		return ParseURL(s, allow)
	}
	n, err := strconv.ParseUint(authority[i+1:], 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != authority[i+1:] {
		return nil, errors.New("the port is not a number from 1 to 65535; correct it")
	}
	u, err := ParseURL(s[:begin]+authority[:i]+rest, allow)
	if err != nil {
		return nil, err
	}
	if n != port {
		u.Host += ":" + strconv.FormatUint(n, 10)
	}
	return u, nil
}

// NewAuthorityClient makes the client for one certificate authority. It asks nobody but the host and port of the
// directory, whatever addresses the directory hands out: they come from the network, and would otherwise be a way to
// the inside (T8). The rest is as for a destination: https, no redirect, the address rule of d, which it does not
// change, its proxy, certificates always verified, by the roots in files if it names some, which are followed. A request
// takes at most 30 s, and an answer has at most 1 MiB; beyond that it breaks off.
//
// The error joins a *FileError for each fault of the files. CloseIdleConnections the client when it is done.
func NewAuthorityClient(directory *url.URL, d *Dialer, files TLSFiles) (*http.Client, error) {
	only, err := strconv.ParseUint(portOf(directory), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port of %q: %w", directory.Host, err)
	}
	own := *d
	own.only = uint16(only)
	t, err := LoadTransport(TransportOptions{Dialer: &own, MaxConnsPerHost: maxAuthorityConns}, files)
	if err != nil {
		return nil, err
	}
	client := newClient(&authority{Transport: t, directory: directory})
	client.Timeout = authorityTimeout
	return client, nil
}

// portOf returns the port of an https URL.
func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return strconv.Itoa(port)
}

// authority is the transport to the place of a directory.
type authority struct {
	*Transport
	directory *url.URL
}

func (a *authority) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" || !strings.EqualFold(r.URL.Hostname(), a.directory.Hostname()) || portOf(r.URL) != portOf(a.directory) {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, &BlockedError{
			Host:   printable(r.URL.Host),
			Reason: fmt.Sprintf("the authority's directory is at %s, and nobody else is asked", a.directory.Host),
		}
	}
	resp, err := a.Transport.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAuthorityAnswer)
	}
	return resp, err
}
