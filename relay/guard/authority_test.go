package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

func TestParseAuthorityURL(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, c := range []struct{ text, want string }{
		{"https://acme.example.com/directory", "https://acme.example.com/directory"},
		{"https://ACME.example.com:443/directory", "https://acme.example.com/directory"},
		{"https://acme.example.com:9000/acme/acme/directory", "https://acme.example.com:9000/acme/acme/directory"},
		{"https://acme.example.com:1", "https://acme.example.com:1"},
		{"https://acme.example.com:65535?a=b:c", "https://acme.example.com:65535?a=b:c"},
		{"https://127.0.0.1:14000/dir", "https://127.0.0.1:14000/dir"},
		{"https://[::1]:14000/dir", "https://[::1]:14000/dir"},
		{"https://[::1]/dir", "https://[::1]/dir"},
	} {
		u, err := ParseAuthorityURL(c.text, loopback)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
		} else if got := u.String(); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"http://acme.example.com/directory", "only https"},
		{"acme.example.com:9000/dir", "only https"},
		{"https://acme.example.com:0/dir", "port is not a number"},
		{"https://acme.example.com:65536/dir", "port is not a number"},
		{"https://acme.example.com:+80/dir", "port is not a number"},
		{"https://acme.example.com:080/dir", "port is not a number"},
		{"https://acme.example.com:/dir", "port is not a number"},
		{"https://user:secret@acme.example.com:9000/dir", "user name or password"},
		{"https://acme.example.com:1:2/dir", "custom port"},
		{"https://10.0.0.1:9000/dir", "allow_networks"},
		{"https://169.254.169.254:9000/dir", "nothing opens it"},
		{"https://2130706433:9000/dir", "odd spelling"},
		{"https://acme.example.com:9000/dir#x", "fragment"},
		{"", "only https"},
		{"https://:9000/", "host is missing"},
	} {
		u, err := ParseAuthorityURL(c.text, loopback)
		if err == nil {
			t.Errorf("%q: got %s, want an error", c.text, u)
		} else if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got error %q, want one with %q", c.text, err, c.want)
		}
	}
}

func FuzzParseAuthorityURL(f *testing.F) {
	for _, s := range []string{"https://a.example:9000/x", "https://[::1]:1", "https://[::1]", "https://a:b@c:1", "https://:", "[:", "://", "https://a:1:2", "https://]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseAuthorityURL(s, nil)
		if err != nil {
			return
		}
		if u.Scheme != "https" || u.User != nil || u.Hostname() == "" || u.Fragment != "" {
			t.Fatalf("%q: got %s", s, u)
		}
		withoutPort := *u
		withoutPort.Host = strings.TrimSuffix(u.Host, ":"+u.Port())
		if _, err := ParseURL(withoutPort.String(), nil); err != nil {
			t.Fatalf("%q: but for its port, %s is not allowed: %v", s, u, err)
		}
	})
}

// directoryServer is a server with the certificate of a private authority. It answers requests by handler.
func directoryServer(t *testing.T, handler http.HandlerFunc) (base *url.URL, caFile string) {
	t.Helper()
	ca, err := receiver.NewCA("directory tests")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue("acme.test", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	base, err = url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	base.Host = net.JoinHostPort("acme.test", base.Port())
	return base, caFile
}

func TestAuthorityClient(t *testing.T) {
	var asked atomic.Int64
	base, caFile := directoryServer(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/dir", http.StatusFound)
		case "/long":
			_, _ = w.Write(make([]byte, maxAuthorityAnswer+1))
		default:
			fmt.Fprint(w, "directory")
		}
	})
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	resolve := map[string]netip.Addr{"acme.test": netip.MustParseAddr("127.0.0.1"), "other.test": netip.MustParseAddr("127.0.0.1")}
	newClient := func(t *testing.T, allow []netip.Prefix) *http.Client {
		t.Helper()
		c, err := NewAuthorityClient(base, &Dialer{Allow: allow, Resolve: resolve}, TLSFiles{CA: caFile})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	get := func(t *testing.T, c *http.Client, u string) (*http.Response, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Do(req)
	}
	t.Run("the directory's own host and port are asked, in any case of letters", func(t *testing.T) {
		c := newClient(t, loopback)
		for _, u := range []string{base.String() + "/dir", strings.Replace(base.String(), "acme.test", "ACME.test", 1)} {
			resp, err := get(t, c, u)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			if err != nil || string(text) != "directory" {
				t.Errorf("%s: got %q, error %v", u, text, err)
			}
			resp.Body.Close()
		}
	})
	t.Run("nobody else is asked", func(t *testing.T) {
		before := asked.Load()
		c := newClient(t, loopback)
		for _, u := range []string{
			"https://other.test:" + base.Port() + "/dir", // another host at the same place
			"https://acme.test/dir",                      // another port
			"http://" + base.Host + "/dir",
			"https://127.0.0.1:" + base.Port() + "/dir",
			"https://169.254.169.254/latest/meta-data",
		} {
			resp, err := get(t, c, u)
			if err == nil {
				resp.Body.Close()
			}
			if _, ok := errors.AsType[*BlockedError](err); !ok {
				t.Errorf("%s: got error %v, want a *BlockedError", u, err)
			}
		}
		if got := asked.Load() - before; got != 0 {
			t.Errorf("%d requests arrived, want none", got)
		}
	})
	t.Run("an address that no network opens is not dialled", func(t *testing.T) {
		before := asked.Load()
		resp, err := get(t, newClient(t, nil), base.String()+"/dir")
		if err == nil {
			resp.Body.Close()
		}
		if _, ok := errors.AsType[*BlockedError](err); !ok || asked.Load() != before {
			t.Errorf("got error %v and %d requests, want a *BlockedError and none", err, asked.Load()-before)
		}
	})
	t.Run("a redirect is the answer", func(t *testing.T) {
		resp, err := get(t, newClient(t, loopback), base.String()+"/redirect")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got, want := resp.StatusCode, http.StatusFound; got != want {
			t.Errorf("status: got %d, want %d", got, want)
		}
	})
	t.Run("a long answer breaks off", func(t *testing.T) {
		resp, err := get(t, newClient(t, loopback), base.String()+"/long")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, resp.Body)
		if _, ok := errors.AsType[*http.MaxBytesError](err); !ok || n != maxAuthorityAnswer {
			t.Errorf("got %d bytes, error %v; want %d and a *http.MaxBytesError", n, err, maxAuthorityAnswer)
		}
	})
	t.Run("a certificate of another authority is refused", func(t *testing.T) {
		_, other := directoryServer(t, func(http.ResponseWriter, *http.Request) {})
		c, err := NewAuthorityClient(base, &Dialer{Allow: loopback, Resolve: resolve}, TLSFiles{CA: other})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := get(t, c, base.String()+"/dir")
		if err == nil {
			resp.Body.Close()
			t.Error("got no error")
		}
	})
	t.Run("the file of roots is read again when it changes", func(t *testing.T) {
		_, other := directoryServer(t, func(http.ResponseWriter, *http.Request) {})
		file, now := filepath.Join(t.TempDir(), "ca.pem"), time.Now()
		use := func(from string) {
			t.Helper()
			text, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(file, text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			now = now.Add(time.Minute)
		}
		use(other)
		c, err := NewAuthorityClient(base, &Dialer{Allow: loopback, Resolve: resolve}, TLSFiles{CA: file, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			roots string
			want  bool
		}{{other, false}, {caFile, true}, {other, false}} {
			use(step.roots)
			resp, err := get(t, c, base.String()+"/dir")
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != step.want {
				t.Errorf("with %s: got error %v, want an answer: %t", step.roots, err, step.want)
			}
		}
	})
	t.Run("our own listener is not the authority", func(t *testing.T) {
		own := func() []netip.AddrPort {
			return []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:" + base.Port())}
		}
		c, err := NewAuthorityClient(base, &Dialer{Allow: loopback, Resolve: resolve, Own: own}, TLSFiles{CA: caFile})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := get(t, c, base.String()+"/dir")
		if err == nil {
			resp.Body.Close()
		}
		if blocked, ok := errors.AsType[*BlockedError](err); !ok || !strings.Contains(blocked.Reason, "itself") {
			t.Errorf("got error %v, want one that says that Postern itself listens there", err)
		}
	})
	t.Run("a file of roots that is not there is an error", func(t *testing.T) {
		_, err := NewAuthorityClient(base, &Dialer{}, TLSFiles{CA: filepath.Join(t.TempDir(), "none.pem")})
		if file, ok := errors.AsType[*FileError](err); !ok || file.Option != "ca_file" {
			t.Errorf("got error %v, want a *FileError of ca_file", err)
		}
	})
	t.Run("the end of the context ends a request", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.String()+"/dir", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := newClient(t, loopback).Do(req)
		if err == nil {
			resp.Body.Close()
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want context.Canceled", err)
		}
	})
}
