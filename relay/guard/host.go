package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Bounds of a name (RFC 1035, section 2.3.4).
const (
	maxName  = 253
	maxLabel = 63
)

// parseHost reads a lower-case host without brackets. It returns the address if the host is a canonical address
// literal, and the invalid address if it is a name. A host that some program reads as an address although it is
// no canonical literal is neither.
func parseHost(host string) (netip.Addr, error) {
	if strings.Contains(host, ":") {
		return parseIPv6(host)
	}
	for i := range len(host) {
		if host[i] >= 0x80 {
			return netip.Addr{}, unicodeError(host)
		}
	}
	if len(host) > maxName {
		return netip.Addr{}, fmt.Errorf("the host has %d bytes; at most %d are allowed", len(host), maxName)
	}
	// The URL standard (url.spec.whatwg.org, "ends in a number checker"): such a host is an IPv4 address or an
	// error, never a name. Resolvers and browsers read 0x7f.1 as 127.0.0.1.
	if endsInNumber(host) {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return netip.Addr{}, spellingError(host)
		}
		return addr, nil
	}
	return netip.Addr{}, checkName(host)
}

func parseIPv6(host string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil || !addr.Is6() {
		return netip.Addr{}, errors.New("only an IPv6 address may stand in brackets, such as [2001:db8::1]; write others without")
	}
	if addr.Zone() != "" {
		return netip.Addr{}, errors.New("an address with a zone (%…) is not allowed; remove the zone")
	}
	if addr.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s is another spelling of %s; write that", host, addr.Unmap())
	}
	return addr, nil
}

func unicodeError(host string) error {
	ascii, err := idna.Lookup.ToASCII(host)
	if err != nil {
		return errors.New("the host is not ASCII, and no international name either; write its xn--… form")
	}
	if endsInNumber(ascii) {
		return spellingError(ascii)
	}
	return fmt.Errorf("the host is not ASCII; write its punycode form %s", printable(ascii))
}

// spellingError says which address a host means that ends in a number.
func spellingError(host string) error {
	if addr, ok := readIPv4(host); ok {
		return fmt.Errorf("%s is an odd spelling of the address %s; write a name, or that address if it may be reached",
			printable(host), addr)
	}
	return fmt.Errorf("host %s ends in a number and is not an address; write a name or four decimal numbers",
		printable(host))
}

func checkName(host string) error {
	if host == "" {
		return errors.New("the host is missing; write https://host/path")
	}
	if strings.HasSuffix(host, ".") {
		return errors.New("the host ends in a dot; remove it")
	}
	international := false
	for label := range strings.SplitSeq(host, ".") {
		if err := checkLabel(label); err != nil {
			return err
		}
		international = international || strings.HasPrefix(label, "xn--")
	}
	if international {
		if ascii, err := idna.Lookup.ToASCII(host); err != nil || ascii != host {
			return fmt.Errorf("host %s has a part xn--… that is no valid punycode; correct it", host)
		}
	}
	return nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("the host has an empty part; write names separated by single dots")
	case len(label) > maxLabel:
		return fmt.Errorf("a part of the host has %d bytes; at most %d are allowed", len(label), maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Errorf("part %q of the host begins or ends with a hyphen; remove it", label)
	}
	for i := range len(label) {
		if c := label[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return fmt.Errorf("the host holds %q; only letters, digits, hyphens and dots are allowed", c)
		}
	}
	return nil
}

// endsInNumber is the "ends in a number checker" of the URL standard.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" {
		return false
	}
	digits := true
	for i := range len(last) {
		digits = digits && '0' <= last[i] && last[i] <= '9'
	}
	_, ok := readNumber(last)
	return digits || ok
}

// readIPv4 is the "IPv4 parser" of the URL standard, which reads what inet_aton reads: one to four parts, each
// decimal, octal or hexadecimal, the last filling what the others leave.
func readIPv4(host string) (netip.Addr, bool) {
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		n, ok := readNumber(part)
		if !ok {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			if n > 255 {
				return netip.Addr{}, false
			}
			value |= n << (8 * (3 - i))
			continue
		}
		if n >= 1<<(8*(5-len(parts))) {
			return netip.Addr{}, false
		}
		value |= n
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

// readNumber is the "IPv4 number parser" of the URL standard. Numbers above 32 bits are read as the largest.
func readNumber(s string) (uint64, bool) {
	if s == "" {
		return 0, false
	}
	base := 10
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		s, base = hex, 16
	} else if len(s) > 1 && s[0] == '0' {
		s, base = s[1:], 8
	}
	if s == "" {
		return 0, true
	}
	if strings.Trim(s, "0123456789abcdef") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 1<<64 - 1, true
	}
	return n, err == nil
}
