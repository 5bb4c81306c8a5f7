package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store/storetest"
)

// ask makes a request to the admin listener and returns the status; the body is closed.
func (r *rig) ask(t *testing.T, method, path, token string) int {
	t.Helper()
	resp := r.openAdmin(t, t.Context(), method, path, token)
	defer resp.Body.Close()
	return resp.StatusCode
}

// openAdmin makes a request to the admin listener.
func (r *rig) openAdmin(t *testing.T, ctx context.Context, method, path, token string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.backAddr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestAdminTokens(t *testing.T) {
	r := newRig(t, boundedRig(""))
	page := r.openAdmin(t, t.Context(), http.MethodGet, "/", "")
	html, err := io.ReadAll(page.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = page.Body.Close()
	at := strings.Index(string(html), "assets/")
	if at < 0 {
		t.Fatalf("the page names no assets: %s", html)
	}
	asset, _, _ := strings.Cut(string(html)[at:], `"`)
	for _, tc := range []struct {
		path string
		open bool // needs no token
	}{
		{"/", true}, {"/" + asset, true}, {"/livez", true}, {"/readyz", true},
		{"/metrics", false}, {"/api/v1/overview", false}, {"/api/v1/openapi.json", false}, {"/api/v1/events", false},
		{"/api/v1/deliveries", false}, {"/api", false}, {"//api/v1/overview", false}, {"/assets/../api/v1/overview", true},
	} {
		t.Run(tc.path, func(t *testing.T) {
			without, with := r.ask(t, http.MethodHead, tc.path, ""), r.ask(t, http.MethodHead, tc.path, opsToken)
			if tc.open && without != with || !tc.open && without != http.StatusUnauthorized {
				t.Errorf("got %d without a token, %d with one; want one needed = %t", without, with, !tc.open)
			}
			if with == http.StatusUnauthorized {
				t.Errorf("got %d with a token", with)
			}
			if strings.Contains(tc.path, "..") && with != http.StatusNotFound {
				t.Errorf("got %d for a path that leads out of the assets, want 404", with)
			}
			if got := r.ask(t, http.MethodHead, tc.path, allToken); !tc.open && got != http.StatusUnauthorized {
				t.Errorf("got %d with a token of ingest, want 401", got)
			}
		})
	}
	t.Run("steering needs one", func(t *testing.T) {
		if got := r.ask(t, http.MethodPost, "/api/v1/destinations/a/pause", ""); got != http.StatusUnauthorized {
			t.Errorf("got %d, want 401", got)
		}
		if got := r.ask(t, http.MethodPost, "/api/v1/destinations/a/pause", ciToken); got != http.StatusOK {
			t.Errorf("got %d with a token, want 200", got)
		}
	})
	t.Run("a token that a reload takes away ends its streams", func(t *testing.T) {
		stream := r.openAdmin(t, t.Context(), http.MethodGet, "/api/v1/events", opsToken)
		defer stream.Body.Close()
		lines := bufio.NewReader(stream.Body)
		if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "retry:") {
			t.Fatalf("got %q, error %v; want a stream", line, err)
		}
		got := r.reloadWith(t, strings.Replace(boundedRig(""), "{name: ops, token: "+opsToken+"}, ", "", 1))
		if !slices.Equal(got.Settings, []string{"listen.admin_tokens"}) {
			t.Errorf("got the settings %v, want the tokens of the admin listener", got.Settings)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(io.Discard, lines)
		}()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatal("the stream goes on")
		}
		if got := r.ask(t, http.MethodGet, "/api/v1/overview", opsToken); got != http.StatusUnauthorized {
			t.Errorf("got %d with the old token, want 401", got)
		}
	})
	t.Run("the metrics say which tokens are used", func(t *testing.T) {
		r.post(t, "/to/a", "{}", "Authorization", "Bearer "+shopToken)
		resp := r.openAdmin(t, t.Context(), http.MethodGet, "/metrics", ciToken)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`postern_token_requests_total{listener="ingest",token="shop"} 1`,
			`postern_token_requests_total{listener="ingest",token="tokens[0]"} 0`,
			`postern_token_requests_total{listener="admin",token="admin_tokens[0]"} `,
			`postern_token_refusals_total{listener="admin",reason="missing"} `,
		} {
			if !strings.Contains(string(text), want) {
				t.Errorf("got no %s", want)
			}
		}
		if strings.Contains(string(text), `token="ops"`) || strings.Contains(string(text), "-token-0123456789") {
			t.Error("got a token that is gone, or one as it is")
		}
	})
}

// displaced is a listener on loopback that says to be at an address that other hosts reach.
type displaced struct{ net.Listener }

func (d displaced) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: d.Listener.Addr().(*net.TCPAddr).Port}
}

// open opens a displaced listener.
func open(t *testing.T) displaced {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return displaced{l}
}

// statusAt asks for a path of a displaced listener without a token.
func (d displaced) statusAt(t *testing.T, path string) int {
	t.Helper()
	resp, err := http.Post("http://"+d.Listener.Addr().String()+path, "text/plain", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestTokensOfAnAddressThatOthersReach has sockets that a service manager has opened: the config says loopback, so it may
// do without tokens, and they may not.
func TestTokensOfAnAddressThatOthersReach(t *testing.T) {
	t.Run("without a token there is no start", func(t *testing.T) {
		for name, sockets := range map[string]Sockets{"ingest": {Ingest: open(t)}, "admin": {Admin: open(t)}} {
			file := filepath.Join(t.TempDir(), "postern.yaml")
			replaceFile(t, file, "listen: {ingest: '127.0.0.1:0', admin: '127.0.0.1:0'}"+twoDestinations)
			_, plan, err := Load(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			r := &Relay{Plan: plan, Store: storetest.NewMemory(storetest.MemoryOptions{}), Sockets: sockets}
			err = r.Run(t.Context())
			key := map[string]string{"ingest": "set listen.tokens,", "admin": "set listen.admin_tokens,"}[name]
			if _, ok := errors.AsType[*ConfigError](err); !ok || !strings.Contains(err.Error(), "a token is required") || !strings.Contains(err.Error(), key) {
				t.Errorf("%s: got %v, want a *ConfigError with %q", name, err, key)
			}
		}
	})
	t.Run("a reload does not take the last one away", func(t *testing.T) {
		ca, err := receiver.NewCA("token tests")
		if err != nil {
			t.Fatal(err)
		}
		certFile, keyFile := writeServerCertificate(t, ca, t.TempDir())
		https := fmt.Sprintf("https: {address: '127.0.0.1:0', cert_file: %q, key_file: %q}", certFile, keyFile)
		front, back := open(t), open(t)
		r := newRig(t, strings.Replace(boundedRig(""), "listen:\n", "listen:\n  "+https+"\n", 1), func(r *rig) {
			r.Sockets = Sockets{Ingest: front, Admin: back}
		})
		got := r.reloadWith(t, "listen: {ingest: '127.0.0.1:0', admin: '127.0.0.1:0', "+https+"}\n"+twoDestinations)
		if want := []string{"listen.admin_tokens", "listen.tokens"}; !slices.Equal(got.NeedRestart, want) {
			t.Errorf("got a restart needed for %v, want %v", got.NeedRestart, want)
		}
		if got := front.statusAt(t, "/to/a"); got != http.StatusUnauthorized {
			t.Errorf("got %d from ingest, want 401 as before", got)
		}
		if got := back.statusAt(t, "/api/v1/reload"); got != http.StatusUnauthorized {
			t.Errorf("got %d from admin, want 401 as before", got)
		}
		if got, answer, err := r.call(t, http.MethodPost, "/to/a", ca.Pool(), "{}"); err != nil || got != http.StatusUnauthorized {
			t.Errorf("got %d %s, error %v from https; want 401: it has the tokens of ingest", got, answer, err)
		}
	})
}
