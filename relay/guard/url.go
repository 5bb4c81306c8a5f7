package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// MaxURL is the length of the longest URL in bytes.
const MaxURL = 2048

// ParseURL reads the URL of a target and applies the URL rule: https only; no user name or password; no port but
// 443, which is taken out of the result; a host that is a name of letters, digits and hyphens, or a canonical
// address literal that Judge lets pass with allow (localhost counts as the address it means); no fragment; at most
// MaxURL bytes; and only characters that RFC 3986 knows, all else percent-encoded. The scheme and the host of the
// result are lower case, an IPv6 literal is in its shortest form.
//
// Errors are for a person: what is wrong, a semicolon, what to write instead. They hold no user info, path or
// query, where secrets may be.
func ParseURL(s string, allow []netip.Prefix) (*url.URL, error) {
	if len(s) > MaxURL {
		return nil, fmt.Errorf("the URL has %d bytes; at most %d are allowed", len(s), MaxURL)
	}
	if strings.TrimSpace(s) != s {
		return nil, errors.New("the URL has white space around it; remove it")
	}
	const scheme = "https://"
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return nil, errors.New("only https is allowed; write https://…")
	}
	authority, rest := s[len(scheme):], ""
	if i := strings.IndexAny(authority, `/?#\`); i >= 0 {
		authority, rest = authority[:i], authority[i:]
	}
	// First of all, so that no later error shows a password.
	if strings.Contains(authority, "@") {
		return nil, errors.New("a user name or password in the URL is not allowed; remove it and use auth.basic")
	}
	if err := checkRest(rest); err != nil {
		return nil, err
	}
	hostText, err := cutPort(authority)
	if err != nil {
		return nil, err
	}
	host := strings.ToLower(hostText)
	addr, err := parseBracketed(host)
	if err != nil {
		return nil, err
	}
	if err := checkTarget(host, addr, allow); err != nil {
		return nil, err
	}
	if addr.Is6() {
		host = "[" + addr.String() + "]"
	}
	u, err := url.Parse(scheme + host + rest)
	if err != nil {
		// Not wrapped: it prints the URL with its query.
		return nil, errors.New("the URL is malformed; write https://host/path")
	}
	if u.Host != host || u.User != nil || u.Scheme != "https" {
		return nil, errors.New("the URL can be read in two ways; write https://host/path")
	}
	return u, nil
}

// checkRest looks at what follows the authority.
func checkRest(rest string) error {
	for i, c := range rest {
		switch {
		case c == '%' && !isEscape(rest[i:]):
			return errors.New("a % without two hexadecimal digits behind it is not allowed; write %25 for the character")
		case c == '#':
			return errors.New("a fragment (#…) is not allowed, since it is never sent; remove it")
		case c == '\\':
			return errors.New("a backslash is not allowed; write / or %5C")
		case c <= ' ' || c == 0x7f:
			return fmt.Errorf("the character %q is not allowed; percent-encode it", c)
		case c > 0x7f:
			return errors.New("a character that is not ASCII is not allowed; percent-encode it")
		case strings.ContainsRune("\"<>^`{|}", c):
			return fmt.Errorf("the character %q is not allowed; percent-encode it", c)
		}
	}
	return nil
}

func isEscape(s string) bool {
	const hex = "0123456789abcdefABCDEF"
	return len(s) >= 3 && strings.IndexByte(hex, s[1]) >= 0 && strings.IndexByte(hex, s[2]) >= 0
}

// cutPort takes the port, if it is empty or 443, off an authority without user info.
func cutPort(authority string) (host string, err error) {
	portText, found := "", false
	if strings.HasPrefix(authority, "[") {
		end := strings.IndexByte(authority, ']')
		if end < 0 {
			return "", errors.New("the [ of the host has no ]; write https://[address]/")
		}
		var after string
		host, after = authority[:end+1], authority[end+1:]
		if portText, found = strings.CutPrefix(after, ":"); !found && after != "" {
			return "", errors.New("only a / may follow the ] of the host; write https://[address]/")
		}
	} else {
		if _, err := netip.ParseAddr(authority); err == nil && strings.Count(authority, ":") > 1 {
			return "", fmt.Errorf("an IPv6 address needs brackets; write https://[%s]/", authority)
		}
		host, portText, _ = strings.Cut(authority, ":")
	}
	if host == "" || host == "[]" {
		return "", errors.New("the host is missing; write https://host/path")
	}
	if portText != "" && portText != "443" {
		return "", portError(portText)
	}
	return host, nil
}

// portError shows what looks like a port. Anything else may be the half of a password that someone forgot to
// encode, as in https://user:pass/word@host/.
func portError(portText string) error {
	if len(portText) > len("80:443") || strings.Trim(portText, "0123456789+-:") != "" {
		return errors.New("a custom port is not allowed; remove the colon of the host and what follows (443 is implied)")
	}
	return fmt.Errorf("custom port %s is not allowed; remove it (443 is implied)", portText)
}

// parseBracketed reads a host as it stands in a URL, where brackets mark IPv6 and nothing else.
func parseBracketed(host string) (netip.Addr, error) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		return parseIPv6(strings.TrimSuffix(inner, "]"))
	}
	return parseHost(host)
}

// checkTarget judges what is known of a target before any look-up.
func checkTarget(host string, addr netip.Addr, allow []netip.Prefix) error {
	if addr.IsValid() {
		return Judge(addr, allow, nil)
	}
	// RFC 6761, section 6.3: these names mean loopback everywhere.
	if host != "localhost" && !strings.HasSuffix(host, ".localhost") {
		return nil
	}
	err := Judge(netip.AddrFrom4([4]byte{127, 0, 0, 1}), allow, nil)
	if err == nil || Judge(netip.IPv6Loopback(), allow, nil) == nil {
		return nil
	}
	return fmt.Errorf("%s is this machine: %w", host, err)
}

// printable returns s if it is short and plain, and else a quoted and shortened form of it.
func printable(s string) string {
	const most = 64
	cut := s
	if len(cut) > most {
		cut = cut[:most] + "…"
	}
	for i := range len(cut) {
		if c := cut[i]; c <= ' ' || c >= 0x7f {
			return fmt.Sprintf("%+q", cut)
		}
	}
	return cut
}
