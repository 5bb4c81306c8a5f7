package listen

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ParseName reads the name of a host that a certificate is to be obtained for, and returns it in lower case: labels of
// letters, digits and hyphens (RFC 1123, section 2.1), at most 63 bytes each and 253 together. Addresses and wildcards
// are refused, since an authority cannot check them by a connection to the name. Errors are for a person.
func ParseName(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	switch {
	case name == "":
		return "", errors.New("the name is empty; write one such as relay.example.com")
	case strings.ContainsAny(name, "*"):
		return "", errors.New("a wildcard is not possible here; write each name by itself")
	case strings.ContainsAny(name, ":/"):
		return "", errors.New("not the name of a host; write it without scheme, port and path")
	case len(name) > 253:
		return "", fmt.Errorf("the name has %d bytes; at most 253 are allowed", len(name))
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", errors.New("an address has no certificate of its own; write the name that apps use")
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-':
			return "", errors.New("not the name of a host; write one such as relay.example.com")
		case strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
			return "", errors.New("a name consists of letters, digits, hyphens and dots; write others in Punycode (xn--…)")
		}
	}
	if last := name[strings.LastIndexByte(name, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return "", errors.New("not the name of a host, since it ends in a number; write one such as relay.example.com")
	}
	return name, nil
}
