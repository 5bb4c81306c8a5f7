package guard_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/guard"
)

func TestParseProxy(t *testing.T) {
	tests := []struct{ text, want string }{
		{"http://proxy.internal:3128", "http://proxy.internal:3128"},
		{"http://proxy.internal", "http://proxy.internal:80"},
		{"https://proxy.internal", "https://proxy.internal:443"},
		{"https://proxy.internal:8443/", "https://proxy.internal:8443"},
		{"HTTP://Proxy.INTERNAL:3128", "http://proxy.internal:3128"},
		{"http://proxy:", "http://proxy:80"},
		{"http://localhost:3128", "http://localhost:3128"},
		{"http://127.0.0.1:1", "http://127.0.0.1:1"},
		{"http://10.1.2.3:65535", "http://10.1.2.3:65535"},
		{"http://8.8.8.8:8080", "http://8.8.8.8:8080"},
		{"http://[::1]:3128", "http://[::1]:3128"},
		{"http://[FD12::1]", "http://[fd12::1]:80"},
		{"http://user:s3cret@proxy:3128", "http://proxy:3128"},
		{"http://s3cret@proxy:3128", "http://proxy:3128"},
		{"https://:s3cret@proxy", "https://proxy:443"},
		{"http://u%40x:s3cret%2F%3F%23%3A%25@proxy:3128", "http://proxy:3128"},
		{"http://user:s3cret:more@proxy:3128", "http://proxy:3128"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			p, err := guard.ParseProxy(tt.text)
			if err != nil {
				t.Fatalf("got %v, want none", err)
			}
			if got := p.String(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			d := guard.Dialer{Proxy: p}
			for _, shown := range []string{fmt.Sprint(p), fmt.Sprintf("%#v %+v %#v %+v", p, p, d, d), fmt.Sprintf("%+v %#v", *p, *p)} {
				if strings.Contains(shown, "s3cret") || strings.Contains(shown, "Basic") {
					t.Errorf("printing it shows the credentials: %s", shown)
				}
			}
		})
	}
}

func TestParseProxyRefuses(t *testing.T) {
	const (
		scheme = "write http://host:port or https://host:port"
		ends   = "ends with its host and port"
		port   = "not a number from 1 to 65535"
		name   = "neither a name of letters"
	)
	tests := []struct{ text, want string }{
		{"", scheme}, {"s3cret.internal:3128", scheme}, {"//s3cret:3128", scheme}, {"socks5://s3cret:1080", scheme},
		{"http:/s3cret", scheme}, {"ftp://s3cret", scheme}, {" http://s3cret", scheme}, {"httpss://s3cret", scheme},
		{"http://", "host is missing"}, {"http://:3128", "host is missing"}, {"http://[]:3128", "host is missing"},
		{"http://user:s3cret@", "host is missing"}, {"http://user:s3cret@:3128", "host is missing"}, {"http:///", "host is missing"},
		{"http://proxy/s3cret", ends}, {"http://proxy//", ends}, {"http://proxy?s3cret", ends}, {"http://proxy#s3cret", ends},
		{`http://proxy\s3cret`, ends}, {"http://user:s3cret/x@proxy", ends}, {"http://user:s3cret?@proxy", ends},
		{"http://proxy:s3cret", port}, {"http://proxy:0", port}, {"http://proxy:65536", port}, {"http://proxy:080", port},
		{"http://proxy:+80", port}, {"http://proxy:-1", port}, {"http://user:s3cret", port},
		{"http://a:b:c", "more than one colon"}, {"http://::1", "more than one colon"}, {"http://[::1]s3cret", "only a colon and the port"},
		{"http://[::1]:x", port}, {"http://::1]:80", name},
		{"http://user:s3@cret@proxy", "write it as %40"}, {"http://user:s3cret%@proxy", "write %25"}, {"http://user%zz:s3cret@proxy", "write %25"},
		{"http://us%3Aer:s3cret@proxy", "holds a colon"}, {"http://user:s3cret%0d%0aX:y@proxy", "control character"},
		{"http://user%00:s3cret@proxy", "control character"}, {"http://user:s3cret\x7f@proxy", "control character"},
		{"http://pro xy", name}, {"http://pröxy", name}, {"http://proxy.", name}, {"http://my_proxy", name}, {"http://0x7f.1", name},
		{"http://2130706433:80", name}, {"http://[::1%25lo]", name}, {"http://[1.2.3.4]", name}, {"http://a\r\nb", name},
		{"http://169.254.169.254:80", "nothing opens it"}, {"http://0.0.0.0:3128", "nothing opens it"}, {"http://[::]:3128", "nothing opens it"},
		{"http://[fe80::1]:3128", "nothing opens it"}, {"http://255.255.255.255", "nothing opens it"}, {"http://224.0.0.1", "nothing opens it"},
		{"http://" + strings.Repeat("a", 2042), "has 2049 bytes; at most 2048"},
	}
	for _, tt := range tests {
		label := tt.text
		if len(label) > 60 {
			label = label[:60]
		}
		t.Run(label, func(t *testing.T) {
			p, err := guard.ParseProxy(tt.text)
			if err == nil {
				t.Fatalf("got %v, want an error with %q", p, tt.want)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			if strings.Contains(err.Error(), "s3") || strings.Contains(err.Error(), "cret") {
				t.Errorf("the error quotes what may be secret: %v", err)
			}
		})
	}
}

func FuzzParseProxy(f *testing.F) {
	for _, seed := range []string{
		"http://proxy:3128", "https://user:pw@proxy", "http://[::1]:1/", "http://a%40b:c%00@d", "http://169.254.169.254", "HTTPS://A.b:",
		"http://u:p@[fd00::1]:65535", "socks5://x", "http://a@b@c", "http://:@h:1", "http://1.2.3.4:080",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := guard.ParseProxy(s)
		if err != nil {
			return
		}
		text := p.String()
		scheme, rest, _ := strings.Cut(text, "://")
		if scheme != "http" && scheme != "https" || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789-.:[]") != "" {
			t.Errorf("%q: got %q", s, text)
		}
		if at, err := netip.ParseAddrPort(rest); err == nil && (at.Port() == 0 || at.Addr().IsLinkLocalUnicast() || at.Addr().IsUnspecified()) {
			t.Errorf("%q: proxy at %v passes", s, at)
		}
		again, err := guard.ParseProxy(text)
		if err != nil || again.String() != text {
			t.Errorf("%q: %q does not pass again: %v, %v", s, text, again, err)
		}
	})
}
