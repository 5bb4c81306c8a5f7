package listen

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestClientCertificates(t *testing.T) {
	start := func(t *testing.T) (*authorityFiles, *clock, *front) {
		a, c := newAuthorityFiles(t), &clock{now: time.Now()}
		files := a.valid(t, "relay.example.com")
		files.CA = a.caFile
		return a, c, newFilesFront(t, Options{Now: c.Now, TLS: &TLS{Files: files}})
	}
	t.Run("whoever shows one of the authority comes in, and is named in the log", func(t *testing.T) {
		a, _, f := start(t)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := &tls.Config{RootCAs: a.ca.Pool(), MaxVersion: version, Certificates: []tls.Certificate{a.client(t, "shop")}}
			if status, _, err := f.get(t, "https://relay.example.com/", config); err != nil || status != 200 {
				t.Errorf("version %x: got %d, error %v", version, status, err)
			}
		}
		lines := f.logs.FilterMessage("client connected").All()
		if len(lines) != 2 || !strings.Contains(fmt.Sprint(lines[0].ContextMap()["subject"]), "shop") {
			t.Errorf("got lines %v, want one for each connection with the subject", lines)
		}
	})
	t.Run("nobody else comes in", func(t *testing.T) {
		a, _, f := start(t)
		stranger := newAuthorityFiles(t)
		server, err := a.ca.Issue("relay.example.com")
		if err != nil {
			t.Fatal(err)
		}
		for name, certs := range map[string][]tls.Certificate{
			"without one": nil, "of another authority": {stranger.client(t, "shop")}, "for servers only": {server},
		} {
			config := &tls.Config{RootCAs: a.ca.Pool(), Certificates: certs}
			if status, body, err := f.get(t, "https://relay.example.com/", config); err == nil {
				t.Errorf("%s: got %d %q, want no answer", name, status, body)
			}
		}
	})
	t.Run("a session is not resumed past a change of the authorities", func(t *testing.T) {
		a, c, f := start(t)
		config := &tls.Config{
			RootCAs: a.ca.Pool(), Certificates: []tls.Certificate{a.client(t, "shop")}, ClientSessionCache: tls.NewLRUClientSessionCache(8),
		}
		if status, _, err := f.get(t, "https://relay.example.com/", config); err != nil || status != 200 {
			t.Fatalf("got %d, error %v", status, err)
		}
		other := newAuthorityFiles(t)
		a.write(t, "ca.pem", other.ca.PEM())
		c.advance(time.Minute)
		if status, _, err := f.get(t, "https://relay.example.com/", config); err == nil {
			t.Errorf("with a certificate of the earlier authority: got %d, want no answer", status)
		}
		config.Certificates = []tls.Certificate{other.client(t, "shop")}
		if status, _, err := f.get(t, "https://relay.example.com/", config); err != nil || status != 200 {
			t.Errorf("with one of the new authority: got %d, error %v", status, err)
		}
	})
	t.Run("sessions are resumed where nobody has to show anything, and only there", func(t *testing.T) {
		a, _, f := start(t)
		open := newFilesFront(t, Options{TLS: &TLS{Files: a.valid(t, "relay.example.com")}})
		for _, c := range []struct {
			f    *front
			want bool
		}{{open, true}, {f, false}} {
			cache := tls.NewLRUClientSessionCache(8)
			for n := range 2 {
				app := newKeptClient(t, c.f, &tls.Config{RootCAs: a.ca.Pool(), Certificates: []tls.Certificate{a.client(t, "shop")}, ClientSessionCache: cache})
				app.want(t, 200)
				app.client.CloseIdleConnections()
				if want := c.want && n == 1; app.resumed != want {
					t.Errorf("connection %d: resumed %t, want %t", n, app.resumed, want)
				}
			}
		}
	})
	t.Run("a connection does not outlive the authority that let it in", func(t *testing.T) {
		for _, protocol := range []string{"h2", "http/1.1"} {
			a, c, f := start(t)
			other := newAuthorityFiles(t)
			app := newKeptClient(t, f, &tls.Config{
				RootCAs: a.ca.Pool(), Certificates: []tls.Certificate{a.client(t, "shop")}, NextProtos: []string{protocol},
			})
			app.want(t, 200)
			a.write(t, "ca.pem", append(a.ca.PEM(), other.ca.PEM()...))
			c.advance(time.Minute)
			app.want(t, 200) // there is one more
			a.write(t, "ca.pem", other.ca.PEM())
			c.advance(time.Minute)
			app.want(t, 403)
			if status, _, err := app.post(t); err == nil {
				t.Errorf("%s: on a new connection: got %d, want no answer", protocol, status)
			}
			if app.dialed != 2 {
				t.Errorf("%s: got %d connections, want the one of all requests and the one that was refused", protocol, app.dialed)
			}
			if lines := f.logs.FilterMessage("client certificate no longer accepted").All(); len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0].ContextMap()["subject"]), "shop") {
				t.Errorf("%s: got lines %v, want one with the subject", protocol, lines)
			}
		}
	})
	t.Run("nor its client's certificate", func(t *testing.T) {
		a, c, f := start(t)
		app := newKeptClient(t, f, &tls.Config{RootCAs: a.ca.Pool(), Certificates: []tls.Certificate{a.client(t, "shop")}})
		app.want(t, 200)
		c.advance(100 * 365 * 24 * time.Hour)
		app.want(t, 403)
		if status, _, err := app.post(t); err == nil {
			t.Errorf("on a new connection: got %d, want no answer", status)
		}
	})
}

// keptClient is a client that keeps its connection.
type keptClient struct {
	client  *http.Client
	dialed  int
	resumed bool // the latest request went over a session that was resumed
}

func newKeptClient(t *testing.T, f *front, config *tls.Config) *keptClient {
	t.Helper()
	k := &keptClient{}
	transport := &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: config.NextProtos == nil || config.NextProtos[0] == "h2",
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			k.dialed++
			return (&net.Dialer{}).DialContext(ctx, "tcp", f.Addr().String())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	k.client = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return k
}

func (k *keptClient) post(t *testing.T) (status int, body string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://relay.example.com/", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	k.resumed = resp.TLS.DidResume
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func (k *keptClient) want(t *testing.T, want int) {
	t.Helper()
	if status, body, err := k.post(t); err != nil || status != want {
		t.Errorf("got %d %q, error %v; want %d", status, body, err, want)
	}
}
