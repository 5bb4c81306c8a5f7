package listen_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/listen"
)

// elsewhere returns a listener on loopback that says to be at another address.
func elsewhere(t testing.TB, ip string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return displaced{l, &net.TCPAddr{IP: net.ParseIP(ip), Port: l.Addr().(*net.TCPAddr).Port}}
}

type displaced struct {
	net.Listener
	address net.Addr
}

func (d displaced) Addr() net.Addr { return d.address }

// odd is a listener of a kind that there is no rule for.
type odd struct{ net.Listener }

func (odd) Addr() net.Addr { return &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct {
		name string
		o    listen.Options
		want string
	}{
		{"a missing handler", listen.Options{Address: "127.0.0.1:0"}, "Handler is required"},
		{"an address without a port", listen.Options{Address: "127.0.0.1", Handler: &echo{}}, "want host:port or unix:///path"},
		{"a relative socket", listen.Options{Address: "unix://a.sock", Handler: &echo{}}, "starts with /"},
		{"a file in the socket's place", listen.Options{Address: "unix://" + file, Handler: &echo{}}, "it is no socket"},
		{"a port in use", listen.Options{Address: taken.Addr().String(), Handler: &echo{}}, "address already in use"},
		{"all addresses without a token", listen.Options{Listener: elsewhere(t, "0.0.0.0"), Handler: &echo{}}, "a token is required"},
		{"all IPv6 addresses without a token", listen.Options{Listener: elsewhere(t, "::"), Handler: &echo{}}, "a token is required"},
		{"an address of a network without a token", listen.Options{Listener: elsewhere(t, "192.0.2.7"), Handler: &echo{}}, "a token is required"},
		{"an IPv4 address in IPv6 form without a token", listen.Options{Listener: elsewhere(t, "::ffff:192.0.2.7"), Handler: &echo{}}, "a token is required"},
		{"a listener of another kind", listen.Options{Listener: odd{elsewhere(t, "127.0.0.1")}, Handler: &echo{}}, "want a TCP or a Unix socket"},
		{"a token without a name", listen.Options{Address: "127.0.0.1:0", Handler: &echo{}, Tokens: []listen.Token{{Digest: listen.Digest{1}}}}, "needs a name"},
		{"a token without a digest", listen.Options{Address: "127.0.0.1:0", Handler: &echo{}, Tokens: []listen.Token{{Name: "a"}}}, "needs a name and a digest"},
		{"two tokens of one name", listen.Options{Address: "127.0.0.1:0", Handler: &echo{}, Tokens: []listen.Token{{Name: "a", Digest: listen.Digest{1}}, {Name: "a", Digest: listen.Digest{2}}}}, `two tokens are called "a"`},
		{"one token under two names", listen.Options{Address: "127.0.0.1:0", Handler: &echo{}, Tokens: []listen.Token{{Name: "a", Digest: listen.Digest{1}}, {Name: "b", Digest: listen.Digest{1}}}}, "the same as another"},
		{"a folder that is none", listen.Options{Address: "unix://" + file + ".d/in.sock", Handler: &echo{}}, `there is no folder "` + file + `.d"; make it`},
		{"a path that is too long", listen.Options{Address: "unix:///" + strings.Repeat("a/../", 40) + "in.sock", Handler: &echo{}}, "write at most 100 bytes"},
		{"a mode that is none", listen.Options{Address: "unix://" + file + ".sock", Handler: &echo{}, SocketMode: os.ModeSticky | 0o600}, "not one of permissions"},
		{"a group that is none", listen.Options{Address: "unix://" + file + ".sock", Handler: &echo{}, SocketGroup: "no-such-group"}, `there is no group "no-such-group"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := listen.Open(tc.o)
			if err == nil {
				t.Fatalf("got a server, want an error; close: %v", s.Close())
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want it to say %q", err, tc.want)
			}
		})
	}
	for rule, tc := range map[string]struct {
		o       listen.Options
		forGood bool
	}{
		"want of a token is for good":        {listen.Options{Listener: elsewhere(t, "192.0.2.7"), Handler: &echo{}}, true},
		"so is a listener of another kind":   {listen.Options{Listener: odd{elsewhere(t, "127.0.0.1")}, Handler: &echo{}}, true},
		"so is a group that is not there":    {listen.Options{Address: "unix://" + file + ".sock", Handler: &echo{}, SocketGroup: "no-such-group"}, true},
		"a port in use may be free again":    {listen.Options{Address: taken.Addr().String(), Handler: &echo{}}, false},
		"a folder that is none may be there": {listen.Options{Address: "unix://" + file + ".d/in.sock", Handler: &echo{}}, false},
	} {
		t.Run(rule, func(t *testing.T) {
			_, err := listen.Open(tc.o)
			if _, got := errors.AsType[*listen.ConfigError](err); err == nil || got != tc.forGood {
				t.Errorf("got %v, a *ConfigError: %t; want %t", err, got, tc.forGood)
			}
		})
	}
	t.Run("the tokens that are wanted have the name of their key", func(t *testing.T) {
		_, err := listen.Open(listen.Options{Listener: elsewhere(t, "192.0.2.7"), Handler: &echo{}, TokensKey: "listen.tokens"})
		if err == nil || !strings.Contains(err.Error(), "set listen.tokens, or ") {
			t.Errorf("got %v, want it to name listen.tokens", err)
		}
	})
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in.sock")
	// What a killed process leaves behind: a socket file that nobody serves.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}

	s, err := listen.Open(listen.Options{Address: "unix://" + path, Handler: &echo{}})
	if err != nil {
		t.Fatalf("open over a stale socket: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("got mode %o, want 600", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	t.Run("any Host is fine, no browser gets there", func(t *testing.T) {
		got := exchange(t, s, "POST /to/a HTTP/1.1\r\nHost: whatever\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
		if len(got) != 1 || got[0].StatusCode != http.StatusOK {
			t.Errorf("got %v, want one 200", got)
		}
	})
	t.Run("a socket that is served is left alone", func(t *testing.T) {
		if second, err := listen.Open(listen.Options{Address: "unix://" + path, Handler: &echo{}}); err == nil {
			t.Errorf("got a second server, want an error; close: %v", second.Close())
		} else if !strings.Contains(err.Error(), "another process serves") {
			t.Errorf("got %q, want it to tell of the other process", err)
		}
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v for the file after the end, want it gone", err)
	}
}
