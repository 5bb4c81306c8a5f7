package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// frontName is the name that the relay has a certificate for.
const frontName = "relay.example.com"

// hostApp is an app on another host: it posts over HTTPS, with a token, and tries again with the same idempotency key
// until it is told that a message is safe.
type hostApp struct {
	client *http.Client
	url    string
	token  string

	mu       sync.Mutex        // guards the fields below
	accepted map[string]string // the body posted, by the id answered
	failed   []string          // why posts had to be made again
	shown    *x509.Certificate // what the relay has shown last
	serials  map[string]bool   // of all that it has shown
}

// newHostApp returns an app that connects to address from an address of its own. It keeps its connections, by HTTP/2, or
// makes one for each post.
func newHostApp(t *testing.T, from, address string, roots *x509.CertPool, token string, keep bool) *hostApp {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: keep, DisableKeepAlives: !keep,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &hostApp{
		client: &http.Client{Transport: transport, Timeout: 10 * time.Second}, url: "https://" + frontName + "/to/far", token: token,
		accepted: map[string]string{}, serials: map[string]bool{},
	}
}

// post makes one post, as often as it takes.
func (a *hostApp) post(ctx context.Context, key, body string) {
	for ctx.Err() == nil {
		err := a.try(ctx, key, body)
		if err == nil || ctx.Err() != nil {
			return
		}
		a.mu.Lock()
		a.failed = append(a.failed, err.Error())
		a.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
}

func (a *hostApp) try(ctx context.Context, key, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.GetBody = nil // each failure is to be seen
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Idempotency-Key", key)
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	id, err := messageID(text)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accepted[id] = body
	a.shown = resp.TLS.PeerCertificates[0]
	a.serials[a.shown.SerialNumber.String()] = true
	return nil
}

// count returns how many messages are safe, and why posts had to be made again.
func (a *hostApp) count() (accepted int, failed []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.accepted), slices.Clone(a.failed)
}

// certificate returns what the relay has shown last, and how many it has shown in all.
func (a *hostApp) certificate() (*x509.Certificate, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.shown, len(a.serials)
}

// goOn posts until the returned func is called, which waits for the last answer.
func (a *hostApp) goOn(t *testing.T, name string) (stop func()) {
	t.Helper()
	const most = 20_000
	ended := make(chan struct{})
	var posting sync.WaitGroup
	posting.Go(func() {
		for n := range most {
			select {
			case <-ended:
				return
			case <-time.After(3 * time.Millisecond):
			}
			key := fmt.Sprintf("%s-%d", name, n)
			a.post(t.Context(), key, fmt.Sprintf(`{"app":%q,"n":%d,"canary":"body-of-an-app"}`, name, n))
		}
	})
	return func() {
		close(ended)
		posting.Wait()
	}
}
