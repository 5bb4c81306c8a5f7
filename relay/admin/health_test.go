package admin_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/admin"
)

func TestHealth(t *testing.T) {
	for _, tc := range []struct {
		name, method, path string
		reasons            []string
		status             int
		want               string // the body, or part of a problem's
	}{
		{"alive", "GET", "/livez", nil, 200, `{"status":"alive"}` + "\n"},
		{"alive although not ready", "GET", "/livez", []string{"stopping"}, 200, `{"status":"alive"}` + "\n"},
		{"ready", "GET", "/readyz", nil, 200, `{"status":"ready"}` + "\n"},
		{"not ready", "GET", "/readyz", []string{"stopping", "the store has failed"}, 503,
			`{"status":"not ready","reasons":["stopping","the store has failed"]}` + "\n"},
		{"a reason is text", "GET", "/readyz", []string{`<b>"`}, 503, `["\u003cb\u003e\""]`},
		{"HEAD", "HEAD", "/readyz", []string{"stopping"}, 503, ""},
		{"POST", "POST", "/readyz", nil, 405, "use GET"},
		{"the root lists the paths", "GET", "/", nil, 404, "/livez (the process runs), /readyz (it takes messages) and /api/v1/openapi.json"},
		{"no profiles", "GET", "/debug/pprof/", nil, 404, "nothing at this path"},
		{"no variables", "GET", "/debug/vars", nil, 404, "nothing at this path"},
		{"a path below", "GET", "/readyz/", nil, 404, "nothing at this path"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewServer(&admin.Handler{Full: func() []string { return tc.reasons }})
			defer server.Close()
			req, err := http.NewRequestWithContext(t.Context(), tc.method, server.URL+tc.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.status || !strings.Contains(string(body), tc.want) || tc.want == "" && len(body) > 0 {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, tc.status, tc.want)
			}
			for key, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
				if got := resp.Header.Get(key); got != want {
					t.Errorf("got %s %q, want %q", key, got, want)
				}
			}
		})
	}
	t.Run("ready without a func to ask", func(t *testing.T) {
		server := httptest.NewServer(&admin.Handler{})
		defer server.Close()
		if err := (admin.Client{Address: server.Listener.Addr().String()}).Health(t.Context()); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	})
}

// serve runs a handler on a listener until the test ends.
func serve(t testing.TB, l net.Listener, h http.Handler) {
	t.Helper()
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	server.Start()
	t.Cleanup(server.Close)
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestHealthClient(t *testing.T) {
	ready := &admin.Handler{}
	unready := &admin.Handler{
		Full:  func() []string { return []string{"stopping", "the disk is full"} },
		HTTPS: func() []string { return []string{"no certificate"} },
	}

	tcp := listen(t, "tcp", "127.0.0.1:0")
	serve(t, tcp, ready)
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "admin.sock")
	serve(t, listen(t, "unix", socket), ready)
	refusing := listen(t, "tcp", "127.0.0.1:0")
	serve(t, refusing, unready)
	foreign := listen(t, "tcp", "127.0.0.1:0")
	serve(t, foreign, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	redirecting := listen(t, "tcp", "127.0.0.1:0")
	serve(t, redirecting, http.RedirectHandler("http://"+tcp.Addr().String()+"/readyz", http.StatusFound))
	odd := listen(t, "tcp", "127.0.0.1:0")
	serve(t, odd, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"fine"}`) }))
	nobody := listen(t, "tcp", "127.0.0.1:0")
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}

	for _, tc := range []struct{ name, address, want string }{
		{"TCP", tcp.Addr().String(), ""},
		{"all IPv4 addresses are asked on loopback", "0.0.0.0:" + port, ""},
		{"all addresses are asked on loopback", ":" + port, ""},
		{"a socket", "unix://" + socket, ""},
		{"not ready tells the reasons", refusing.Addr().String(), "not ready: stopping; the disk is full; no certificate"},
		{"another server", foreign.Addr().String(), "is not of Postern"},
		{"a redirect is not followed", redirecting.Addr().String(), "the status 302"},
		{"another kind of ready", odd.Addr().String(), "does not say ready"},
		{"nobody", nobody.Addr().String(), "connection refused"},
		{"no socket", "unix:///nowhere/admin.sock", "no such file"},
		{"no port", "127.0.0.1", "want host:port"},
		{"a URL", "https://127.0.0.1", "want host:port"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := (admin.Client{Address: tc.address}).Health(t.Context())
			if tc.want == "" {
				if err != nil {
					t.Errorf("got %v, want nil", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.address) {
				t.Errorf("got %v, want it to name the address and say %q", err, tc.want)
			}
		})
	}
	t.Run("what keeps away other hosts only is told apart", func(t *testing.T) {
		err := (admin.Client{Address: refusing.Addr().String()}).Health(t.Context())
		unready, ok := errors.AsType[*admin.NotReady](err)
		if !ok || !slices.Equal(unready.Full, []string{"stopping", "the disk is full"}) || !slices.Equal(unready.HTTPS, []string{"no certificate"}) {
			t.Errorf("got %+v, %v", unready, err)
		}
	})
	t.Run("a context that has ended", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := (admin.Client{Address: tcp.Addr().String()}).Health(ctx); err == nil {
			t.Error("got nil, want an error")
		}
	})
}

func TestHealthClientIsBounded(t *testing.T) {
	silent := listen(t, "tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	defer silent.Close()
	err := (admin.Client{Address: silent.Addr().String()}).Health(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no answer within 3s") {
		t.Errorf("got %v, want it to tell of the bound", err)
	}
}
