package guard_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/guard"
)

func TestParseCollectorURL(t *testing.T) {
	for _, tc := range []struct {
		name, text, want string // or a piece of the error
		ok               bool
	}{
		{"http to loopback", "http://127.0.0.1:4318", "http://127.0.0.1:4318", true},
		{"http to all of loopback", "http://127.9.9.9:4318/", "http://127.9.9.9:4318", true},
		{"http to loopback by IPv6", "http://[0:0::1]:4318", "http://[::1]:4318", true},
		{"http to localhost", "HTTP://LocalHost:4318", "http://localhost:4318", true},
		{"no port", "http://localhost", "http://localhost", true},
		{"a path", "https://otel.example.com:4318/team-a/", "https://otel.example.com:4318/team-a", true},
		{"https to a private address", "https://10.1.2.3:4318", "https://10.1.2.3:4318", true},
		{"https to a private address by IPv6", "https://[fd12::7]", "https://[fd12::7]", true},

		{"http to a name", "http://collector:4318", "http is for a collector on loopback only", false},
		{"http to a name below localhost", "http://x.localhost", "http is for a collector on loopback only", false},
		{"http to a private address", "http://10.1.2.3:4318", "http is for a collector on loopback only", false},
		{"http to loopback, oddly spelt", "http://127.1:4318", "127.0.0.1", false},
		{"http to loopback as a number", "http://2130706433:4318", "127.0.0.1", false},
		{"https to metadata", "https://169.254.169.254/", "link-local", false},
		{"https to this host", "https://0.0.0.0/", "this host", false},
		{"https to metadata by IPv6", "https://[fe80::1]/", "link-local", false},
		{"IPv4 within IPv6", "https://[::ffff:10.0.0.1]/", "10.0.0.1", false},
		{"no scheme", "127.0.0.1:4318", "not the URL of a collector", false},
		{"another scheme", "grpc://127.0.0.1:4317", "not the URL of a collector", false},
		{"user info", "https://user:canary@otel.example.com", "user name or password", false},
		{"a query", "https://otel.example.com/?key=canary", "a query", false},
		{"a fragment", "https://otel.example.com/#canary", "a fragment", false},
		{"port 0", "https://otel.example.com:0", "the port", false},
		{"a port too high", "https://otel.example.com:65536", "the port", false},
		{"a port that begins with 0", "https://otel.example.com:0443", "the port", false},
		{"an empty port", "https://otel.example.com:", "the port", false},
		{"no host", "https://:4318", "the host is missing", false},
		{"white space", " https://otel.example.com", "white space", false},
		{"a line break", "https://otel.example.com/a\nb", "not allowed", false},
		{"too long", "https://otel.example.com/" + strings.Repeat("a", guard.MaxURL), "at most", false},
		{"nothing", "", "not the URL of a collector", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u, err := guard.ParseCollectorURL(tc.text)
			switch {
			case !tc.ok && (err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "canary")):
				t.Errorf("got %v, %v; want an error with %q", u, err, tc.want)
			case tc.ok && (err != nil || u.String() != tc.want):
				t.Errorf("got %v, %v; want %s", u, err, tc.want)
			}
		})
	}
}

func FuzzParseCollectorURL(f *testing.F) {
	for _, s := range []string{"http://127.0.0.1:4318", "https://otel.example.com/a", "https://[::1]:1/", "http://x@y", "https://10.0.0.1:65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := guard.ParseCollectorURL(s)
		if err != nil {
			return
		}
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(u.Path, "/") {
			t.Errorf("%q: got %q", s, u)
		}
		if addr, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
			t.Errorf("%q: plain http would go to %q", s, u.Host)
		}
		if again, err := guard.ParseCollectorURL(u.String()); err != nil || again.String() != u.String() {
			t.Errorf("%q: %q is read again as %v, %v", s, u, again, err)
		}
	})
}

// collectorURL parses a URL that is fine.
func collectorURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := guard.ParseCollectorURL(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestCollectorClient(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	port := server.URL[strings.LastIndexByte(server.URL, ':'):]
	get := func(t *testing.T, configured, asked string, o guard.CollectorOptions) (*http.Response, error) {
		t.Helper()
		c := guard.NewCollectorClient(collectorURL(t, configured), o)
		t.Cleanup(c.CloseIdleConnections)
		resp, err := c.Get(asked)
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}

	t.Run("loopback is reached in the clear, without a proxy, and no redirect is followed", func(t *testing.T) {
		for _, u := range []string{server.URL, "http://localhost" + port} {
			before := requests
			resp, err := get(t, u, u, guard.CollectorOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusTemporaryRedirect || requests != before+1 {
				t.Errorf("%s: got %d after %d requests, want 307 after one", u, resp.StatusCode, requests-before)
			}
		}
	})
	for _, tc := range []struct {
		name, configured, asked string
		o                       guard.CollectorOptions
	}{
		{"plain http leaves loopback for nothing", "http://127.0.0.1", "http://127.0.0.1.example" + port, guard.CollectorOptions{
			Resolve: map[string]netip.Addr{"127.0.0.1.example": netip.MustParseAddr("10.0.0.1")},
		}},
		{"a name is not metadata", "https://otel.example", "https://otel.example", guard.CollectorOptions{
			Resolve: map[string]netip.Addr{"otel.example": netip.MustParseAddr("169.254.169.254")},
		}},
		{"a client for https speaks no http", "https://127.0.0.1" + port, server.URL, guard.CollectorOptions{}},
		{"deny_networks holds", server.URL, server.URL, guard.CollectorOptions{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := requests
			_, err := get(t, tc.configured, tc.asked, tc.o)
			if _, ok := errors.AsType[*guard.BlockedError](err); !ok || requests != before {
				t.Errorf("got %v after %d requests, want a BlockedError after none", err, requests-before)
			}
		})
	}
	t.Run("certificates are verified", func(t *testing.T) {
		secure := httptest.NewTLSServer(http.NotFoundHandler())
		defer secure.Close()
		if _, err := get(t, secure.URL, secure.URL, guard.CollectorOptions{}); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v, want an error about the certificate", err)
		}
	})
}
