package guard_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/guard"
)

// forbidden is one address just inside each edge of a block, and those that attackers use.
var forbidden = strings.Fields(`
	0.0.0.0 0.0.0.1 0.1.2.3 0.255.255.255
	10.0.0.0 10.0.0.1 10.20.30.40 10.255.255.255
	100.64.0.0 100.64.0.1 100.100.100.200 100.127.255.255
	127.0.0.0 127.0.0.1 127.0.0.53 127.0.1.1 127.255.255.255
	168.63.129.16
	169.254.0.0 169.254.0.1 169.254.169.253 169.254.169.254 169.254.170.2 169.254.170.23 169.254.255.255
	172.16.0.0 172.16.0.1 172.17.0.1 172.31.255.255
	192.0.0.0 192.0.0.1 192.0.0.8 192.0.0.170 192.0.0.192 192.0.0.255
	192.0.2.0 192.0.2.1 192.0.2.255
	192.88.99.0 192.88.99.1 192.88.99.255
	192.168.0.0 192.168.0.1 192.168.1.1 192.168.255.255
	198.18.0.0 198.18.0.1 198.19.255.255
	198.51.100.0 198.51.100.1 198.51.100.255
	203.0.113.0 203.0.113.1 203.0.113.255
	224.0.0.0 224.0.0.1 224.0.0.251 232.1.2.3 239.255.255.250 239.255.255.255
	240.0.0.0 240.0.0.1 250.1.2.3 255.255.255.254 255.255.255.255
	:: ::1 ::2 ::7f00:1 ::a00:1 ::127.0.0.1 ::169.254.169.254 ::8.8.8.8 ::ffff
	::ffff:0.0.0.0 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:192.168.1.1 ::ffff:100.64.0.1
	::ffff:255.255.255.255 ::ffff:168.63.129.16 ::ffff:7f00:1
	::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8 ::ffff:0:a9fe:a9fe
	64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b::8.8.8.8 64:ff9b::
	64:ff9b:1:: 64:ff9b:1::7f00:1 64:ff9b:1:ffff:ffff:ffff:ffff:ffff 64:ff9b:2::1
	100:: 100::1 100::ffff:ffff:ffff:ffff 100:0:0:1::1
	1::1 400::1 800::1 1000::1 1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
	2001:: 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001::1 2001:1::1 2001:2::1 2001:3::1 2001:4:112::1
	2001:10::1 2001:20::1 2001:30::1 2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff
	2001:db8:: 2001:db8::1 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff
	2002:: 2002:7f00:1::1 2002:a00:1::1 2002:a9fe:a9fe::1 2002:808:808::1 2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff
	3fff:: 3fff::1 3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff
	2a00:1450::5efe:7f00:1 2a00:1450::200:5efe:a00:1 fe80::5efe:c0a8:101
	4000::1 5f00:: 5f00::1 5f00:ffff::1 6000::1 8000::1 a000::1 c000::1 e000::1 f000::1 f800::1 fbff::1
	fc00:: fc00::1 fd00::1 fd00:ec2::253 fd00:ec2::254 fd20:ce::254 fd12:3456:789a::1 fdff:ffff::1
	fe00::1 fe7f::1 fe80:: fe80::1 fe80::a9fe:a9fe febf:ffff::1 fec0:: fec0::1 feff::1
	ff00::1 ff01::1 ff02::1 ff02::fb ff05::2 ff0e::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
`)

// allowed is one address just outside each edge, and well-known public ones.
var allowed = strings.Fields(`
	1.0.0.0 1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34
	100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 140.82.112.3
	168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0
	191.255.255.255 192.0.1.0 192.0.1.255 192.0.3.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0
	198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
	::ffff:8.8.8.8 ::ffff:1.1.1.1
	2000:: 2001:200::1 2001:db7:ffff:ffff:ffff:ffff:ffff:ffff 2001:db9::1 2001:4860:4860::8888 2003::1
	2400:cb00::1 2600:1f18::1 2606:4700:4700::1111 2620:fe::fe 2800:3f0::1 2a00:1450:4001:81b::200e 2c0f:fb50::1
	3ffe::1 3fff:1000::1 3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
`)

func prefixes(tb testing.TB, texts ...string) []netip.Prefix {
	tb.Helper()
	var list []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			tb.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

func TestJudge(t *testing.T) {
	if len(forbidden) < 131 || len(allowed) < 40 {
		t.Errorf("%d forbidden and %d allowed addresses; want at least 131 and 40", len(forbidden), len(allowed))
	}
	for _, text := range forbidden {
		t.Run(text+" is refused", func(t *testing.T) {
			addr := netip.MustParseAddr(text)
			err := guard.Judge(addr, nil, nil)
			var blocked *guard.BlockedError
			if !errors.As(err, &blocked) {
				t.Fatalf("got %v, want a *BlockedError", err)
			}
			if blocked.Addr != addr.Unmap() || blocked.Reason == "" {
				t.Errorf("got address %v and reason %q", blocked.Addr, blocked.Reason)
			}
			if !strings.Contains(blocked.Reason, "opens it") {
				t.Errorf("the reason does not say what opens it: %q", blocked.Reason)
			}
		})
	}
	for _, text := range allowed {
		t.Run(text+" is public", func(t *testing.T) {
			if err := guard.Judge(netip.MustParseAddr(text), nil, nil); err != nil {
				t.Errorf("got %v, want none", err)
			}
		})
	}
}

func TestJudgeNetworks(t *testing.T) {
	all := []string{"0.0.0.0/0", "::/0"}
	tests := []struct {
		name, addr  string
		allow, deny []string
		want        string // in the error; empty means none
	}{
		{"allow opens a private network", "10.20.0.1", []string{"10.20.0.0/16"}, nil, ""},
		{"allow opens no more than it says", "10.21.0.1", []string{"10.20.0.0/16"}, nil, "private (10.0.0.0/8)"},
		{"allow opens loopback", "127.0.0.1", []string{"127.0.0.0/8"}, nil, ""},
		{"allow opens IPv6 loopback", "::1", []string{"::1/128"}, nil, ""},
		{"allow of IPv4 opens no IPv6 loopback", "::1", []string{"127.0.0.0/8"}, nil, "loopback"},
		{"allow opens a ULA network", "fd12::1", []string{"fd12::/16"}, nil, ""},
		{"allow opens a mapped address", "::ffff:10.0.0.1", []string{"10.0.0.0/8"}, nil, ""},
		{"a mapped network in allow is the IPv4 one", "10.0.0.1", []string{"::ffff:10.0.0.0/104"}, nil, ""},
		{"a public address needs no allow", "8.8.8.8", []string{"10.0.0.0/8"}, nil, ""},
		{"nothing opens link-local", "169.254.1.1", append(all, "169.254.0.0/16"), nil, "nothing opens it"},
		{"nothing opens metadata", "169.254.169.254", append(all, "169.254.169.254/32"), nil, "nothing opens it"},
		{"nothing opens Azure's metadata", "168.63.129.16", append(all, "168.63.129.16/32"), nil, "nothing opens it"},
		{"nothing opens Oracle's metadata", "192.0.0.192", append(all, "192.0.0.192/32"), nil, "nothing opens it"},
		{"nothing opens Alibaba's metadata", "100.100.100.200", append(all, "100.64.0.0/10"), nil, "nothing opens it"},
		{"nothing opens Amazon's IPv6 metadata", "fd00:ec2::254", append(all, "fd00:ec2::254/128"), nil, "nothing opens it"},
		{"nothing opens Google's IPv6 metadata", "fd20:ce::254", append(all, "fd20:ce::254/128"), nil, "nothing opens it"},
		{"nothing opens IPv6 link-local", "fe80::1", append(all, "fe80::/10"), nil, "nothing opens it"},
		{"nothing opens a mapped link-local address", "::ffff:169.254.169.254", all, nil, "nothing opens it"},
		{"nothing opens this host", "0.0.0.0", append(all, "0.0.0.0/32"), nil, "nothing opens it"},
		{"nothing opens IPv6 this host", "::", append(all, "::/128"), nil, "nothing opens it"},
		{"nothing opens multicast", "224.0.0.1", all, nil, "nothing opens it"},
		{"nothing opens IPv6 multicast", "ff02::1", all, nil, "nothing opens it"},
		{"nothing opens broadcast", "255.255.255.255", all, nil, "nothing opens it"},
		{"nothing opens 6to4", "2002:a00:1::1", append(all, "10.0.0.0/8", "2002::/16"), nil, "nothing opens it"},
		{"nothing opens Teredo", "2001:0:4136:e378::1", append(all, "2001::/32"), nil, "nothing opens it"},
		{"nothing opens SIIT", "::ffff:0:10.0.0.1", append(all, "::ffff:0:0:0/96"), nil, "nothing opens it"},
		{"nothing opens IPv4-compatible addresses", "::10.0.0.1", append(all, "10.0.0.0/8", "::/96"), nil, "nothing opens it"},
		{"nothing opens ISATAP", "fd12::5efe:a00:1", append(all, "fd12::/16"), nil, "nothing opens it"},
		{"nothing opens local NAT64", "64:ff9b:1::a00:1", append(all, "64:ff9b:1::/48"), nil, "nothing opens it"},
		{"allow of the inner network opens no NAT64", "64:ff9b::a00:1", []string{"10.0.0.0/8"}, nil, "NAT64"},
		{"allow of NAT64 opens what is public within", "64:ff9b::808:808", []string{"64:ff9b::/96"}, nil, ""},
		{"allow of NAT64 opens nothing private within", "64:ff9b::a00:1", []string{"64:ff9b::/96"}, nil, "it means 10.0.0.1 by NAT64"},
		{"allow of NAT64 opens no metadata within", "64:ff9b::a9fe:a9fe", append(all, "64:ff9b::/96"), nil, "nothing opens it"},
		{"allow of both opens a private address within", "64:ff9b::a00:1", []string{"64:ff9b::/96", "10.0.0.0/8"}, nil, ""},
		{"deny holds within NAT64", "64:ff9b::808:808", []string{"64:ff9b::/96"}, []string{"8.8.8.0/24"}, "deny_networks holds 8.8.8.0/24"},
		{"deny closes a public network", "8.8.8.8", nil, []string{"8.8.8.0/24"}, "deny_networks holds 8.8.8.0/24"},
		{"deny wins over allow", "10.0.0.1", []string{"10.0.0.0/8"}, []string{"10.0.0.0/24"}, "deny_networks holds 10.0.0.0/24"},
		{"deny closes a mapped address", "::ffff:8.8.8.8", nil, []string{"8.8.8.0/24"}, "deny_networks"},
		{"a mapped network in deny is the IPv4 one", "8.8.8.8", nil, []string{"::ffff:8.8.8.0/120"}, "deny_networks"},
		{"allow of a reserved block opens it", "250.0.0.1", []string{"240.0.0.0/4"}, nil, ""},
		{"allow of unassigned IPv6 opens it", "4000::1", []string{"4000::/16"}, nil, ""},
		{"an address with a zone is refused", "fe80::1%eth0", all, nil, "zone"},
		{"a public address with a zone is refused", "2a00:1450::1%1", all, nil, "zone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := guard.Judge(netip.MustParseAddr(tt.addr), prefixes(t, tt.allow...), prefixes(t, tt.deny...))
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	t.Run("no address is refused", func(t *testing.T) {
		if err := guard.Judge(netip.Addr{}, prefixes(t, all...), nil); err == nil {
			t.Error("got no error")
		}
	})
}

func TestBlockedError(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	tests := []struct {
		name string
		err  guard.BlockedError
		want string
	}{
		{"host and address", guard.BlockedError{Host: "a.example", Addr: addr, Reason: "r"},
			`host "a.example" has address 10.0.0.1, which is not allowed: r`},
		{"address alone", guard.BlockedError{Addr: addr, Reason: "r"}, "address 10.0.0.1 is not allowed: r"},
		{"a literal as host", guard.BlockedError{Host: "10.0.0.1", Addr: addr, Reason: "r"}, "address 10.0.0.1 is not allowed: r"},
		{"host alone", guard.BlockedError{Host: "a.example", Reason: "r"}, `host "a.example" is not allowed: r`},
		{"reason alone", guard.BlockedError{Reason: "r"}, "r"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// FuzzJudge compares the allow-list with what package netip knows about addresses.
func FuzzJudge(f *testing.F) {
	for _, text := range append(forbidden, allowed...) {
		b := netip.MustParseAddr(text).As16()
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok || guard.Judge(addr, nil, nil) != nil {
			return
		}
		a := addr.Unmap()
		if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
			t.Errorf("%v passes", addr)
		}
		all := []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
		if guard.Judge(addr, nil, all) == nil {
			t.Errorf("%v passes though all is denied", addr)
		}
	})
}

func TestCheckAllow(t *testing.T) {
	for network, want := range map[string]bool{
		"10.0.0.0/8": true, "127.0.0.0/8": true, "0.0.0.0/0": true, "::1/128": true, "fd00::/8": true, "64:ff9b::/96": true,
		"169.254.0.0/16": false, "169.254.169.254/32": false, "168.63.129.16/32": false, "fe80::/10": false, "fd00:ec2::254/128": false, "2002::/16": false,
	} {
		if err := guard.CheckAllow(netip.MustParsePrefix(network)); (err == nil) != want {
			t.Errorf("%s: got %v, want allowed %t", network, err, want)
		}
	}
}
