package guard

import (
	"fmt"
	"net/netip"
)

// block is a range of addresses and what it is.
type block struct {
	prefix netip.Prefix
	name   string
}

// Tables, never written to.
var (
	// sealed is never opened by allow_networks: what is at these addresses is the machine, its cloud's control
	// plane or no single host, and never a receiver.
	sealed = blocks(
		"0.0.0.0/8", "this host",
		"169.254.0.0/16", "link-local, with cloud metadata",
		"168.63.129.16/32", "the Azure platform service",
		"192.0.0.192/32", "Oracle Cloud metadata",
		"100.100.100.200/32", "Alibaba Cloud metadata",
		"224.0.0.0/4", "multicast",
		"255.255.255.255/32", "broadcast",
		"::/128", "this host",
		"fe80::/10", "link-local",
		"fd00:ec2::/32", "the Amazon EC2 instance services, with metadata",
		"fd20:ce::254/128", "Google Cloud metadata",
		"ff00::/8", "multicast",
		"::/96", "IPv4 within IPv6",
		"::ffff:0:0:0/96", "IPv4 within IPv6, SIIT",
		"64:ff9b:1::/48", "IPv4 within IPv6, local NAT64",
		"2001::/32", "IPv4 within IPv6, Teredo",
		"2002::/16", "IPv4 within IPv6, 6to4",
	)

	// special is opened by allow_networks and by nothing else: the IPv4 blocks of IANA's special-purpose registry
	// (RFC 6890) that are not globally reachable.
	special = blocks(
		"10.0.0.0/8", "private",
		"100.64.0.0/10", "shared by carriers (CGNAT)",
		"127.0.0.0/8", "loopback",
		"172.16.0.0/12", "private",
		"192.0.0.0/24", "for protocols",
		"192.0.2.0/24", "for documentation",
		"192.88.99.0/24", "the former 6to4 relays",
		"192.168.0.0/16", "private",
		"198.18.0.0/15", "for benchmarks",
		"198.51.100.0/24", "for documentation",
		"203.0.113.0/24", "for documentation",
		"240.0.0.0/4", "reserved",
		"::1/128", "loopback",
		"64:ff9b::/96", "IPv4 within IPv6, NAT64",
		"100::/64", "for discarding",
		"2001::/23", "for protocols",
		"2001:db8::/32", "for documentation",
		"3fff::/20", "for documentation",
		"5f00::/16", "for segment routing",
		"fc00::/7", "private (ULA)",
		"fec0::/10", "the former site-local",
	)

	global6 = netip.MustParsePrefix("2000::/3")     // what IANA has begun to hand out
	nat64   = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052, section 2.1
)

// blocks makes a table from pairs of prefix and name.
func blocks(pairs ...string) []block {
	table := make([]block, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		table = append(table, block{netip.MustParsePrefix(pairs[i]), pairs[i+1]})
	}
	return table
}

// Judge returns nil if a connection to addr may be made, and otherwise a *BlockedError without a host. What may be
// reached is a public unicast address (IANA's special-purpose registries, RFC 6890, and for IPv6 nothing outside
// 2000::/3), or one within allow, the networks that the destination opens; and none within deny, which wins over
// allow. An IPv4-mapped address is judged as the IPv4 address it means, in prefixes too; one with a zone is refused.
//
// Nothing opens link-local, metadata, multicast, this-host and broadcast addresses, nor IPv4 hidden in IPv6. The
// one exception to the last is NAT64 (64:ff9b::/96), without which a pod in an IPv6-only network reaches no IPv4
// receiver: if allow holds the NAT64 prefix, the IPv4 address within is judged by the same rule. An IPv4 prefix in
// allow opens no NAT64 address by itself.
//
// Judge keeps nothing and may be called from several goroutines.
func Judge(addr netip.Addr, allow, deny []netip.Prefix) error {
	addr = addr.Unmap()
	if reason := judge(addr, allow, deny); reason != "" {
		return &BlockedError{Addr: addr, Reason: reason}
	}
	return nil
}

// judge returns why an unmapped address is refused, or nothing.
func judge(addr netip.Addr, allow, deny []netip.Prefix) string {
	switch {
	case !addr.IsValid():
		return "it is no address"
	case addr.Zone() != "":
		return "it has a zone, so it is no address of the outside; nothing opens it"
	}
	if p, ok := within(addr, deny); ok {
		return fmt.Sprintf("deny_networks holds %s", p)
	}
	// ::1 lies in ::/96, the IPv4-compatible addresses, without being one.
	if addr != netip.IPv6Loopback() {
		if b, ok := find(addr, sealed); ok {
			return fmt.Sprintf("it is %s (%s); nothing opens it", b.name, b.prefix)
		}
	}
	if isISATAP(addr) {
		return "it is IPv4 within IPv6, ISATAP; nothing opens it"
	}
	_, allowed := within(addr, allow)
	if allowed && nat64.Contains(addr) {
		bytes := addr.As16()
		inner := netip.AddrFrom4([4]byte(bytes[12:]))
		if reason := judge(inner, allow, deny); reason != "" {
			return fmt.Sprintf("it means %s by NAT64: %s", inner, reason)
		}
		return ""
	}
	if allowed {
		return ""
	}
	if b, ok := find(addr, special); ok {
		return fmt.Sprintf("it is %s (%s); only allow_networks opens it", b.name, b.prefix)
	}
	if addr.Is6() && !global6.Contains(addr) {
		return fmt.Sprintf("it is not in the public part of IPv6 (%s); only allow_networks opens it", global6)
	}
	return ""
}

func find(addr netip.Addr, table []block) (block, bool) {
	for _, b := range table {
		if b.prefix.Contains(addr) {
			return b, true
		}
	}
	return block{}, false
}

func within(addr netip.Addr, prefixes []netip.Prefix) (netip.Prefix, bool) {
	for _, p := range prefixes {
		if unmap(p).Contains(addr) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// unmap turns ::ffff:10.0.0.0/104 into 10.0.0.0/8, which is what its writer meant: Prefix.Contains is false for
// every address otherwise, and a deny that denies nothing would go unnoticed.
func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// isISATAP reports whether the interface identifier is that of an ISATAP tunnel (RFC 5214, section 6.1), which
// ends at the IPv4 address in its last four bytes.
func isISATAP(addr netip.Addr) bool {
	if !addr.Is6() {
		return false
	}
	b := addr.As16()
	return b[8]&^0x03 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// CheckAllow reports a network that cannot be opened by allow_networks, since all of it is sealed. The error is for a
// person.
func CheckAllow(network netip.Prefix) error {
	if network.Addr() == netip.IPv6Loopback() { // see judge
		return nil
	}
	for _, b := range sealed {
		if b.prefix.Bits() <= network.Bits() && b.prefix.Contains(network.Addr()) {
			return fmt.Errorf("%s is %s, which nothing opens; remove it", network, b.name)
		}
	}
	return nil
}
