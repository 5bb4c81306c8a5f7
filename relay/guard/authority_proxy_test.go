package guard_test

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/guard"
)

func TestAnAuthorityIsReachedThroughTheProxyAtItsOwnPort(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, "acme.test", time.Now().Add(time.Hour))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "directory") }))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(s.Listener.Addr().String())
	directory := &url.URL{Scheme: "https", Host: fmt.Sprintf("acme.test:%d", at.Port()), Path: "/dir"}

	proxy := serveProxy(t, nil, nil)
	client, err := guard.NewAuthorityClient(directory, &guard.Dialer{
		Allow:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Resolve: map[string]netip.Addr{"acme.test": at.Addr()}, Proxy: proxy.use(t),
	}, guard.TLSFiles{CA: caFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	resp, err := client.Get(directory.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "directory" {
		t.Errorf("got %q, error %v; want the directory", text, err)
	}
	if got, want := proxy.targets(), at.String(); got != want {
		t.Errorf("the proxy was asked for %q, want %q", got, want)
	}
}
