package guard_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/guard"
)

func TestParseURLTakes(t *testing.T) {
	private := []string{"10.20.0.0/16", "127.0.0.0/8", "fd12::/16"}
	label63 := strings.Repeat("a", 63)
	name253 := strings.Join([]string{label63, label63, label63, strings.Repeat("b", 61)}, ".")
	tests := []struct {
		url, want string // want is the same as url if empty
		allow     []string
	}{
		{url: "https://hooks.example.com"},
		{url: "https://hooks.example.com/"},
		{url: "https://hooks.example.com/a/b.c?d=e&f=%20"},
		{url: "https://hooks.example.com:443/a", want: "https://hooks.example.com/a"},
		{url: "https://hooks.example.com:443", want: "https://hooks.example.com"},
		{url: "https://hooks.example.com:/a", want: "https://hooks.example.com/a"},
		{url: "https://hooks.example.com:443?a=b", want: "https://hooks.example.com?a=b"},
		{url: "HTTPS://Hooks.EXAMPLE.com/Path", want: "https://hooks.example.com/Path"},
		{url: "https://hooks.example.com?x=1"},
		{url: "https://hooks.example.com/?"},
		{url: "https://hooks.example.com/a:8443/b"},
		{url: "https://hooks.example.com/a@b"},
		{url: "https://hooks.example.com/?to=a@b:80"},
		{url: "https://hooks.example.com/http://other/"},
		{url: "https://hooks.example.com//double"},
		{url: "https://hooks.example.com/../up"},
		{url: "https://hooks.example.com/%2e%2e/%0a"},
		{url: "https://hooks.example.com/a;b=c,d'(e)*!$~_-"},
		{url: "https://hooks.example.com/?a[b]=c"},
		{url: "https://receiver/"},
		{url: "https://a-b.c--d.example/"},
		{url: "https://1a.example/"},
		{url: "https://1.2.3.4a/"},
		{url: "https://1.2.3.4.example/"},
		{url: "https://127.0.0.1.nip.io/"},
		{url: "https://0x7f.example/"},
		{url: "https://123.com/"},
		{url: "https://xn--bcher-kva.example/"},
		{url: "https://XN--BCHER-KVA.example/", want: "https://xn--bcher-kva.example/"},
		{url: "https://mylocalhost/"},
		{url: "https://localhost.example.com/"},
		{url: "https://" + label63 + ".example/"},
		{url: "https://" + name253 + "/"},
		{url: "https://8.8.8.8/"},
		{url: "https://8.8.8.8:443/", want: "https://8.8.8.8/"},
		{url: "https://[2001:4860:4860::8888]/"},
		{url: "https://[2001:4860:4860:0:0:0:0:8888]:443/x", want: "https://[2001:4860:4860::8888]/x"},
		{url: "https://[2001:4860:4860::ABCD]", want: "https://[2001:4860:4860::abcd]"},
		{url: "https://10.20.1.1/", allow: private},
		{url: "https://127.0.0.1/", allow: private},
		{url: "https://localhost/", allow: private},
		{url: "https://a.localhost:443/", want: "https://a.localhost/", allow: private},
		{url: "https://localhost/", allow: []string{"::1/128"}},
		{url: "https://[fd12::1]/", allow: private},
		{url: "https://h.example/" + strings.Repeat("a", 2048-len("https://h.example/"))},
	}
	for _, tt := range tests {
		name := tt.url
		if len(name) > 80 {
			name = name[:80]
		}
		t.Run(name, func(t *testing.T) {
			u, err := guard.ParseURL(tt.url, prefixes(t, tt.allow...))
			if err != nil {
				t.Fatalf("got %v, want none", err)
			}
			want := tt.want
			if want == "" {
				want = tt.url
			}
			if got := u.String(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if u.Port() != "" || u.User != nil || u.Scheme != "https" {
				t.Errorf("got port %q, user %v, scheme %q", u.Port(), u.User, u.Scheme)
			}
		})
	}
}

// What errors say, by the rule that refuses.
const (
	onlyHTTPS = "only https is allowed; write https://…"
	userInfo  = "user name or password in the URL is not allowed"
	loopback  = "it is loopback"
	means127  = "odd spelling of the address 127.0.0.1"
	noNumber  = "ends in a number and is not an address"
	onlyLDH   = "only letters, digits, hyphens and dots are allowed"
	encode    = "percent-encode it"
)

func TestParseURLRefuses(t *testing.T) {
	label64 := strings.Repeat("a", 64)
	tests := []struct{ url, want string }{
		// The scheme (T1).
		{"", onlyHTTPS}, {"http://h.example/", onlyHTTPS}, {"http://h.example:443/", onlyHTTPS},
		{"HTTP://h.example/", onlyHTTPS}, {"ftp://h.example/", onlyHTTPS}, {"file:///etc/passwd", onlyHTTPS},
		{"gopher://h.example/", onlyHTTPS}, {"ws://h.example/", onlyHTTPS}, {"wss://h.example/", onlyHTTPS},
		{"unix:///run/x.sock", onlyHTTPS}, {"javascript:alert(1)", onlyHTTPS}, {"data:text/plain,x", onlyHTTPS},
		{"h.example", onlyHTTPS}, {"h.example/path", onlyHTTPS}, {"//h.example/", onlyHTTPS}, {"/path", onlyHTTPS},
		{"https:h.example", onlyHTTPS}, {"https:/h.example/", onlyHTTPS}, {`https:\\h.example\`, onlyHTTPS},
		{"https", onlyHTTPS}, {"https:", onlyHTTPS}, {"httpss://h.example/", onlyHTTPS}, {"xhttps://h.example/", onlyHTTPS},
		{"https+unix://h.example/", onlyHTTPS}, {"ｈttps://h.example/", onlyHTTPS}, {"https ://h.example/", onlyHTTPS},

		// The host is missing.
		{"https://", "host is missing"}, {"https:///path", "host is missing"}, {"https://?x", "host is missing"},
		{"https://:443/", "host is missing"}, {"https:////h.example/", "host is missing"}, {"https://[]/", "host is missing"},

		// The port (T2).
		{"https://h.example:8443/", "custom port 8443 is not allowed; remove it (443 is implied)"},
		{"https://h.example:80/", "custom port 80 is not allowed"}, {"https://h.example:0/", "custom port 0 is"},
		{"https://h.example:0443/", "custom port 0443 is not allowed"}, {"https://h.example:+443/", "custom port +443 is"},
		{"https://h.example:-443/", "custom port -443"}, {"https://h.example:4430/", "custom port 4430"},
		{"https://h.example:44/", "custom port 44 "}, {"https://h.example:65979/", "custom port 65979"},
		{"https://h.example:80:443/", "custom port 80:443"}, {"https://h.example:443:80/", "custom port 443:80"},
		{"https://h.example::443/", "custom port :443"}, {"https://h.example:443:/", "custom port 443:"},
		{"https://h.example:https/", "custom port is not allowed"}, {"https://h.example:443a/", "custom port is not"},
		{"https://h.example: 443/", "custom port is not allowed"}, {"https://h.example:４４３/", "custom port is not"},
		{"https://h.example:0x1bb/", "custom port is not allowed"}, {"https://h.example:443%20/", "custom port is not"},
		{"https://[2001:4860:4860::8888]:8443/", "custom port 8443"}, {"https://8.8.8.8:8443/", "custom port 8443"},
		{"https://h.example:99999999999999999999/", "custom port is not allowed"},
		{"https://user:s3cret/word@h.example/", "custom port is not allowed"},

		// User info (T3).
		{"https://user@h.example/", userInfo}, {"https://user:s3cret@h.example/", userInfo}, {"https://@h.example/", userInfo},
		{"https://:@h.example/", userInfo}, {"https://h.example@evil.example/", userInfo}, {"https://h.example:443@evil/", userInfo},
		{"https://a@b@h.example/", userInfo}, {"https://user:s3cret@h.example:8443/", userInfo},
		{"https://user:s3cret@127.0.0.1/", userInfo}, {"https://us er:s3cret@h.example/", userInfo},

		// Address literals (T4).
		{"https://127.0.0.1/", loopback}, {"https://127.0.0.1:443/", loopback}, {"https://127.1.2.3/", loopback},
		{"https://10.0.0.1/", "it is private (10.0.0.0/8)"}, {"https://172.16.0.1/", "it is private"},
		{"https://192.168.1.1/", "it is private"}, {"https://169.254.169.254/latest/meta-data", "metadata"},
		{"https://168.63.129.16/", "Azure"}, {"https://0.0.0.0/", "this host"}, {"https://100.64.0.1/", "CGNAT"},
		{"https://224.0.0.1/", "multicast"}, {"https://255.255.255.255/", "broadcast"}, {"https://240.0.0.1/", "reserved"},
		{"https://[::1]/", loopback}, {"https://[::]/", "this host"}, {"https://[0:0:0:0:0:0:0:1]/", loopback},
		{"https://[fe80::1]/", "link-local"}, {"https://[fd00:ec2::254]/", "metadata"}, {"https://[fc00::1]/", "ULA"},
		{"https://[ff02::1]/", "multicast"}, {"https://[2001:db8::1]/", "documentation"}, {"https://[2002:7f00:1::]/", "6to4"},
		{"https://[64:ff9b::7f00:1]/", "NAT64"}, {"https://[2001::1]/", "Teredo"}, {"https://[::7f00:1]/", "IPv4 within IPv6"},
		{"https://[::ffff:127.0.0.1]/", "another spelling of 127.0.0.1"}, {"https://[::ffff:7f00:1]/", "another spelling of 127.0.0.1"},
		{"https://[::ffff:8.8.8.8]/", "another spelling of 8.8.8.8; write that"},
		{"https://localhost/", "localhost is this machine"}, {"https://LOCALHOST/", "localhost is this machine"},
		{"https://a.b.localhost/", "is this machine"}, {"https://localhost:443/", "is this machine"},

		// Odd spellings of addresses (T4).
		{"https://2130706433/", means127}, {"https://0x7f000001/", means127}, {"https://0X7F000001/", means127},
		{"https://017700000001/", means127}, {"https://0x7f.1/", means127}, {"https://0177.0.0.1/", means127},
		{"https://127.1/", means127}, {"https://127.0.1/", means127}, {"https://0x7f.0.0.1/", means127},
		{"https://127.0.0.01/", means127}, {"https://127.0.0.0x1/", means127}, {"https://127.0.0.1./", means127},
		{"https://0177.0.0x0.1/", means127}, {"https://00000177.0.0.1/", means127}, {"https://127.000.000.001/", means127},
		{"https://１２７.０.０.１/", means127}, {"https://127。0。0。1/", means127}, {"https://①②⑦.⓪.⓪.①/", means127},
		{"https://0/", "odd spelling of the address 0.0.0.0"}, {"https://0x/", "odd spelling of the address 0.0.0.0"},
		{"https://1/", "odd spelling of the address 0.0.0.1"}, {"https://2852039166/", "odd spelling of the address 169.254.169.254"},
		{"https://0xa9fea9fe/", "169.254.169.254"}, {"https://0x08080808/", "odd spelling of the address 8.8.8.8"},
		{"https://8.8.2056/", "odd spelling of the address 8.8.8.8"}, {"https://010.8.8.8/", "odd spelling of the address 8.8.8.8"},
		{"https://256.0.0.1/", noNumber}, {"https://1.2.3.256/", noNumber}, {"https://1.2.3.4.5/", noNumber},
		{"https://4294967296/", noNumber}, {"https://127.0.0.09/", noNumber}, {"https://1.2.65536/", noNumber},
		{"https://h.example.1/", noNumber}, {"https://h.0x7f/", noNumber}, {"https://99999999999999999999999/", noNumber},
		{"https://1..2/", noNumber}, {"https://-1.2.3.4/", noNumber}, {"https://0x7f.0.0.0x1ffffffffffffffffff/", noNumber},

		// Brackets.
		{"https://[127.0.0.1]/", "only an IPv6 address may stand in brackets"}, {"https://[h.example]/", "in brackets"},
		{"https://[v1.fe80]/", "in brackets"}, {"https://[2001:db8::g]/", "in brackets"}, {"https://[::1/", "has no ]"},
		{"https://[::1%25eth0]/", "zone"}, {"https://[fe80::1%eth0]/", "zone"}, {"https://[2a00::1%251]/", "zone"},
		{"https://[2a00::1]h/", "only a / may follow"}, {"https://[2a00::1].example/", "only a / may follow"},
		{"https://[[2a00::1]]/", "only a / may follow"}, {"https://2a00::1/", "needs brackets; write https://[2a00::1]/"},
		{"https://::1/", "needs brackets"}, {"https://h]/", onlyLDH}, {"https://2a00::1]/", "custom port"},

		// The characters of a name.
		{"https://h_x.example/", onlyLDH}, {"https://h example/", onlyLDH}, {"https://h%2eexample/", onlyLDH},
		{"https://127.0.0.1%2f.example/", onlyLDH}, {"https://127.0.0.1,h.example/", onlyLDH}, {"https://h,example/", onlyLDH},
		{"https://*.example/", onlyLDH}, {"https://h!example/", onlyLDH}, {"https://{{ .Event }}.example/", onlyLDH},
		{"https://h\x00.example/", onlyLDH}, {"https://h\n.example/", onlyLDH}, {"https://h\t/", onlyLDH}, {"https://h\x7f/", onlyLDH},
		{"https://${HOST}/", onlyLDH}, {"https://h;x/", onlyLDH}, {"https://h&x/", onlyLDH}, {"https://<h>/", onlyLDH},
		{"https://h..example/", "empty part"}, {"https://.h.example/", "empty part"}, {"https://h.example./", "ends in a dot"},
		{"https://./", "ends in a dot"}, {"https://-h.example/", "begins or ends with a hyphen"},
		{"https://h-.example/", "begins or ends with a hyphen"}, {"https://" + label64 + ".example/", "has 64 bytes"},
		{"https://" + strings.Repeat("a.", 126) + "aa/", "has 254 bytes"},
		{"https://bücher.example/", "punycode form xn--bcher-kva.example"}, {"https://BÜCHER.example/", "xn--bcher-kva.example"},
		{"https://ｈ.example/", "punycode form h.example"}, {"https://h。example/", "punycode form h.example"},
		{"https://\xff.example/", "not ASCII"}, {"https://\u200b.example/", "not ASCII"}, {"https://a\u202eb/", "not ASCII"},
		{"https://xn--/", "hyphen"}, {"https://xn--a.example/", "valid punycode"}, {"https://xn--99999999999/", "valid punycode"},

		// What follows the host.
		{"https://h.example/#top", "fragment"}, {"https://h.example#", "fragment"}, {"https://h.example/?a=b#c", "fragment"},
		{"https://h.example#@evil.example/", "fragment"}, {`https://h.example\@evil.example/`, "backslash"},
		{`https://h.example/a\b`, "backslash"}, {`https://user:s3cret\@h.example/`, "backslash"},
		{"https://h.example/a b", encode}, {"https://h.example/a\tb", encode}, {"https://h.example/\x00", encode},
		{"https://h.example/a\r\nX: y", encode}, {"https://h.example/ü", encode}, {"https://h.example/\xff", encode},
		{`https://h.example/"`, encode}, {"https://h.example/<a>", encode}, {"https://h.example/{{ .Event }}", encode},
		{"https://h.example/^", encode}, {"https://h.example/a|b", encode}, {"https://h.example/`", encode},
		{"https://h.example/?a=%", "two hexadecimal digits"}, {"https://h.example/%zz", "two hexadecimal digits"},
		{"https://h.example/%2", "two hexadecimal digits"}, {"https://h.example/%u0041", "two hexadecimal digits"},
		{" https://h.example/", "white space around it"}, {"https://h.example/\n", "white space around it"},
		{"\thttps://h.example/", "white space"}, {"https://h.example/\u00a0", "white space"},
		{"https://h.example/" + strings.Repeat("a", 2049-len("https://h.example/")), "has 2049 bytes; at most 2048"},
	}
	if len(tests) < 150 {
		t.Errorf("%d URLs; want at least 150", len(tests))
	}
	for _, tt := range tests {
		name := tt.url
		if len(name) > 80 {
			name = name[:80]
		}
		t.Run(name, func(t *testing.T) {
			u, err := guard.ParseURL(tt.url, nil)
			if err == nil {
				t.Fatalf("got %v, want an error with %q", u, tt.want)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
	t.Run("allowed networks open no link-local literal", func(t *testing.T) {
		for _, s := range []string{"https://169.254.169.254/", "https://[fe80::1]/", "https://[fd00:ec2::254]/"} {
			if u, err := guard.ParseURL(s, prefixes(t, "0.0.0.0/0", "::/0")); err == nil {
				t.Errorf("%s: got %v, want an error", s, u)
			}
		}
	})
}

func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{
		"https://hooks.example.com/a?b=c", "https://8.8.8.8:443/", "https://[2001:4860:4860::8888]/", "https://2130706433/",
		"https://h.example:80:443/", "https://user:pw@h/", "https://xn--bcher-kva.example", "https://bücher.example/",
		"https://[::ffff:127.0.0.1]/", "HTTPS://A.b:/%2f?#", "https://h\\@x/", "https://１２７.０.０.１/", "https://localhost",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := guard.ParseURL(s, nil)
		if err != nil {
			return
		}
		if u.Scheme != "https" || u.Port() != "" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
			t.Errorf("%q: got %q", s, u)
		}
		host := u.Hostname()
		if addr, err := netip.ParseAddr(host); err == nil {
			if guard.Judge(addr, nil, nil) != nil {
				t.Errorf("%q: address %v passes", s, addr)
			}
		} else if host == "" || len(host) > 253 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
			t.Errorf("%q: host %q passes", s, host)
		}
		again, err := guard.ParseURL(u.String(), nil)
		if err != nil || again.String() != u.String() {
			t.Errorf("%q: %q does not pass again: %v, %v", s, u, again, err)
		}
	})
}
