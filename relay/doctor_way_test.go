package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

func TestExamineClientCertificates(t *testing.T) {
	const day = 24 * time.Hour
	c := newClinic(t)
	asks := func(auth tls.ClientAuthType, version uint16) *tls.Config {
		return &tls.Config{
			Certificates: c.cert(t, -day, 90*day, "asks.test", "wants.test", "twelve.test", "silent.test"), ClientAuth: auth, ClientCAs: c.ca.Pool(), MaxVersion: version,
		}
	}
	c.serve(t, "127.0.7.21", "wants.test", asks(tls.RequireAndVerifyClientCert, tls.VersionTLS13))
	c.serve(t, "127.0.7.22", "asks.test", asks(tls.RequestClientCert, tls.VersionTLS13))
	c.serve(t, "127.0.7.23", "twelve.test", asks(tls.RequireAndVerifyClientCert, tls.VersionTLS12))
	c.serve(t, "127.0.7.24", "silent.test", asks(tls.NoClientCert, tls.VersionTLS13))
	ours, err := c.ca.IssueClient("postern")
	if err != nil {
		t.Fatal(err)
	}
	strangers, err := receiver.NewCA("strangers")
	if err != nil {
		t.Fatal(err)
	}
	strange, err := strangers.IssueClient("stranger")
	if err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string]tls.Certificate{"ours": ours, "strange": strange} {
		cert, key, err := receiver.EncodePEM(pair)
		if err != nil {
			t.Fatal(err)
		}
		c.file(t, name+".pem", cert)
		c.file(t, name+".key", key)
	}
	plan := c.load(t, `
  shown: {url: "https://wants.test/", tls: {cert_file: ours.pem, key_file: ours.key}}
  twelve: {url: "https://twelve.test/", tls: {cert_file: ours.pem, key_file: ours.key}}
  strange: {url: "https://wants.test/", tls: {cert_file: strange.pem, key_file: strange.key}}
  none: {url: "https://wants.test/"}
  none12: {url: "https://twelve.test/"}
  optional: {url: "https://asks.test/"}
  unasked: {url: "https://silent.test/", tls: {cert_file: ours.pem, key_file: ours.key}}
`)
	found := plan.Examine(t.Context(), Examination{})
	for _, tc := range []struct {
		rule, destination, check string
		status                   Severity
		text                     string
	}{
		{"a certificate that is taken is fine", "shown", "client certificate", Fine, "was shown and not refused"},
		{"so it is with TLS 1.2", "twelve", "client certificate", Fine, "was shown and not refused"},
		{"a refusal that comes after the handshake is seen", "strange", "tls", Problem, "does not take our client certificate"},
		{"a missing certificate is a problem where the receiver insists", "none", "tls", Problem, "name one by tls.cert_file"},
		{"so it is with TLS 1.2", "none12", "tls", Problem, "name one by tls.cert_file"},
		{"and a warning where it does not", "optional", "client certificate", Warning, "none is configured"},
		{"one that nobody asks for is fine", "unasked", "client certificate", Fine, "asked for none"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			f := find(t, found, tc.destination, tc.check)
			if f.Status != tc.status || !strings.Contains(f.Detail+" "+f.Advice, tc.text) {
				t.Errorf("got %s %q, advice %q; want %s and %q", f.Status, f.Detail, f.Advice, tc.status, tc.text)
			}
		})
	}
	t.Run("our own certificate's end is looked at by our clock", func(t *testing.T) {
		for late, want := range map[time.Duration]Severity{6 * day: Warning, 8 * day: Problem, -2 * day: Problem} {
			found := plan.Examine(t.Context(), Examination{Only: []string{"shown"}, Now: func() time.Time { return time.Now().Add(late) }})
			if f := find(t, found, "shown", "client certificate"); f.Status != want {
				t.Errorf("%v from now: got %+v, want %s", late, f, want)
			}
		}
	})
}

func TestExamineTokens(t *testing.T) {
	const day = 24 * time.Hour
	c := newClinic(t)
	tokens := &receiver.TokenServer{ClientID: "postern", ClientSecret: "canary-6d41", SecretIn: "header"}
	var fetched atomic.Int64
	c.serveBy(t, "127.0.7.31", "login.test", &tls.Config{Certificates: c.cert(t, -day, 90*day, "login.test")},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fetched.Add(1)
			tokens.ServeHTTP(w, r)
		}))
	c.serve(t, "127.0.7.32", "api.test", &tls.Config{Certificates: c.cert(t, -day, 90*day, "api.test")})
	c.addrs["down.test"] = "127.0.7.33"
	plan := c.load(t, `
  good: {url: "https://api.test/", auth: {oauth2: {client_id: postern, client_secret: "${env:SECRET}", token_url: "https://login.test/token"}}}
  stranger: {url: "https://api.test/", auth: {oauth2: {client_id: stranger, client_secret: "${env:SECRET}", token_url: "https://login.test/token"}}}
  down: {url: "https://api.test/", auth: {oauth2: {client_id: postern, client_secret: "${env:SECRET}", token_url: "https://down.test/token"}}}
`)
	found := plan.Examine(t.Context(), Examination{})
	if f := find(t, found, "good", "token auth"); f.Status != Fine || !strings.Contains(f.Detail, "login.test gave a token") {
		t.Errorf("got %+v, want a token", f)
	}
	if f := find(t, found, "stranger", "token auth"); f.Status != Problem || !strings.Contains(f.Detail, "invalid_client") || !strings.Contains(f.Advice, "client_secret") {
		t.Errorf("got %+v, want what the server says, and what to do", f)
	}
	if f := find(t, found, "down", "token connect"); f.Status != Problem {
		t.Errorf("got %+v, want a problem", f)
	}
	if got := fetched.Load(); got != 2 {
		t.Errorf("the token endpoint got %d requests, want one for each destination that it serves", got)
	}
	if got := c.asked.Load(); got != 0 {
		t.Errorf("the destination got %d requests, want none", got)
	}
	for _, f := range found {
		if strings.Contains(f.Detail+f.Advice, "canary") {
			t.Errorf("a secret is in %+v", f)
		}
	}
}

// TestExamineTokensOfAMuteServer has a token endpoint that takes connections and requests, and answers none.
func TestExamineTokensOfAMuteServer(t *testing.T) {
	const day = 24 * time.Hour
	c := newClinic(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithCancelCause(t.Context())
	c.serveBy(t, "127.0.7.34", "mute.test", &tls.Config{Certificates: c.cert(t, -day, 90*day, "mute.test")},
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			cancel(errors.New("no answer within the time"))
			<-release
		}))
	c.serveBy(t, "127.0.7.35", "broken.test", &tls.Config{Certificates: c.cert(t, -day, 90*day, "broken.test")},
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	c.serve(t, "127.0.7.32", "api.test", &tls.Config{Certificates: c.cert(t, -day, 90*day, "api.test")})
	plan := c.load(t, `
  broken: {url: "https://api.test/", auth: {oauth2: {client_id: postern, client_secret: "${env:SECRET}", token_url: "https://broken.test/token"}}}
  mute: {url: "https://api.test/", auth: {oauth2: {client_id: postern, client_secret: "${env:SECRET}", token_url: "https://mute.test/token"}}}
`)
	found := append(plan.Examine(t.Context(), Examination{Only: []string{"broken"}}), plan.Examine(ctx, Examination{Only: []string{"mute"}})...)
	for name, text := range map[string]string{"mute": "mute.test took the connection and gave no token: no answer within the time", "broken": "broken.test took the connection"} {
		f := find(t, found, name, "token auth")
		if f.Status != Problem || !strings.Contains(f.Detail, text) || strings.Contains(f.Advice, "client_secret") || !strings.Contains(f.Advice, "firewall") {
			t.Errorf("%s: got %+v\nwant %q, and advice about reaching it", name, f, text)
		}
	}
}

func TestExamineThroughAProxy(t *testing.T) {
	c := newClinic(t)
	c.serve(t, "127.0.7.41", "far.test", &tls.Config{Certificates: c.cert(t, -time.Hour, 1000*time.Hour, "far.test")})
	var target atomic.Pointer[string]
	refuse := atomic.Bool{}
	c.accept(t, "127.0.7.42", "proxy.test", func(conn net.Conn) {
		defer conn.Close()
		line := make([]byte, 1024)
		n, err := conn.Read(line)
		if err != nil {
			return
		}
		first, _, _ := strings.Cut(string(line[:n]), "\r\n")
		target.Store(&first)
		if refuse.Load() {
			_, _ = io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\n\r\n")
			return
		}
		far, err := net.Dial("tcp", "127.0.7.41:443")
		if err != nil {
			return
		}
		defer far.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(far, conn) }()
		_, _ = io.Copy(conn, far)
	})
	c.file(t, "postern.yaml", []byte(`
egress: {proxy: "http://user:canary-6d41@127.0.7.42:443", resolve: {far.test: 127.0.7.41}}
defaults: {allow_networks: [127.0.0.0/8], tls: {ca_file: ca.pem}}
destinations: {far: {url: "https://far.test/"}}
`))
	_, plan, err := Load(filepath.Join(c.dir, "postern.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the way goes through the proxy of the config", func(t *testing.T) {
		found := plan.Examine(t.Context(), Examination{})
		if f := find(t, found, "far", "connect"); f.Status != Fine || !strings.Contains(f.Detail, "through http://127.0.7.42:443") || strings.Contains(f.Detail, "canary") {
			t.Errorf("got %+v, want the proxy named, without its password", f)
		}
		if f := find(t, found, "far", "tls"); f.Status != Fine {
			t.Errorf("got %+v, want the receiver's certificate", f)
		}
		if got := target.Load(); got == nil || *got != "CONNECT 127.0.7.41:443 HTTP/1.1" {
			t.Errorf("the proxy was asked for %v, want the judged address", got)
		}
	})
	t.Run("a proxy that refuses is told as such", func(t *testing.T) {
		refuse.Store(true)
		f := find(t, plan.Examine(t.Context(), Examination{}), "far", "connect")
		if f.Status != Problem || !strings.Contains(f.Detail, "403") || !strings.Contains(f.Advice, "egress.proxy") {
			t.Errorf("got %+v, want the proxy's answer and what to look at", f)
		}
	})
}
