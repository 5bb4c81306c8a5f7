package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// site is the far end of an example: an HTTPS server on port 443 of one address that is every host of the config. It
// speaks HTTP/1.1 only and keeps each request as the bytes that came.
type site struct {
	ip     string
	caFile string
	tokens *receiver.TokenServer // answers POST /oauth/token; nil means nobody does

	mu       sync.Mutex // guards the fields below
	answer   func(wireRequest) siteAnswer
	requests []wireRequest
}

// siteAnswer is what a site answers; the zero value is 200 without a body.
type siteAnswer struct {
	status int
	body   string
}

// wireRequest is one request as it arrived.
type wireRequest struct {
	at     time.Time
	raw    string // request line, headers and body
	host   string
	target string
	header http.Header
	body   string
}

// siteOptions are what differs between sites.
type siteOptions struct {
	hosts      []string              // that its certificate is for
	selfSigned bool                  // the certificate is signed by itself and not by the authority in caFile
	tokens     *receiver.TokenServer // see site
}

// newSite starts a site on ip, which no other test uses at the same time, and stops it at the end of the test.
func newSite(t *testing.T, ip string, o siteOptions) *site {
	t.Helper()
	ca, err := receiver.NewCA("postern tests")
	if err != nil {
		t.Fatal(err)
	}
	issue := ca.Issue
	if o.selfSigned {
		issue = receiver.SelfSigned
	}
	cert, err := issue(o.hosts...)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "443"))
	if err != nil {
		t.Fatalf("%v; Postern delivers to port 443 only, so this test must bind it: run it as root, or once "+
			"`sysctl net.ipv4.ip_unprivileged_port_start=443`", err)
	}
	s := &site{ip: ip, caFile: filepath.Join(t.TempDir(), "ca.pem"), tokens: o.tokens}
	writeFile(t, s.caFile, string(ca.PEM()))
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, tapKey{}, c) },
	}
	done := make(chan error, 1)
	go func() {
		done <- server.Serve(&tapListener{listener, &tls.Config{
			Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		}})
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close site: %v", err)
		}
		<-done
	})
	return s
}

// ServeHTTP keeps the request and answers it.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "read body", http.StatusBadRequest)
		return
	}
	got := wireRequest{
		at: at, raw: r.Context().Value(tapKey{}).(*tapConn).take(),
		host: r.Host, target: r.URL.RequestURI(), header: r.Header, body: string(body),
	}
	s.mu.Lock()
	s.requests = append(s.requests, got)
	judge := s.answer
	s.mu.Unlock()
	if s.tokens != nil && r.URL.Path == "/oauth/token" {
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.tokens.ServeHTTP(w, r)
		return
	}
	var answer siteAnswer
	if judge != nil {
		answer = judge(got)
	}
	if answer.status == 0 {
		answer.status = http.StatusOK
	}
	if answer.body != "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(answer.status)
	_, _ = io.WriteString(w, answer.body) // whoever has gone needs no answer
}

// answers sets how requests that arrive from now on are answered.
func (s *site) answers(judge func(wireRequest) siteAnswer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = judge
}

// to returns the requests to a host, in the order of their arrival; all of them for an empty host.
func (s *site) to(host string) []wireRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := slices.Clone(s.requests)
	return slices.DeleteFunc(found, func(r wireRequest) bool { return host != "" && r.host != host })
}

// await returns the requests to a host as soon as there are n of them, or more.
func (s *site) await(t *testing.T, host string, n int) []wireRequest {
	t.Helper()
	var found []wireRequest
	waitUntil(t, 30*time.Second, "requests to "+host, func() bool {
		found = s.to(host)
		return len(found) >= n
	})
	return found
}

// sorted returns the request as the files of the examples show it: lines end in LF, and the headers are in order.
func (r wireRequest) sorted(t *testing.T) string {
	t.Helper()
	head, body, ok := strings.Cut(r.raw, "\r\n\r\n")
	if !ok {
		t.Fatalf("not a whole request: %q", r.raw)
	}
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n") + "\n\n" + body
}

// tapKey is where a request's context holds its connection.
type tapKey struct{}

// tapListener makes TLS connections that keep what they have read.
type tapListener struct {
	net.Listener
	config *tls.Config
}

// Accept does not wait for the handshake: the first read does.
func (l *tapListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tapConn{Conn: tls.Server(c, l.config)}, nil
}

type tapConn struct {
	net.Conn
	mu   sync.Mutex // guards read
	read []byte
}

func (c *tapConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = append(c.read, b[:n]...)
	return n, err
}

// take returns what was read since the last call: a request, if it is called when its body has been read. The next
// one does not come before this one is answered.
func (c *tapConn) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := string(c.read)
	c.read = nil
	return taken
}
