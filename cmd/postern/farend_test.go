package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
)

// farEnd is a receiver on port 443 of a loopback address of its own: what the real binary delivers to in tests.
type farEnd struct {
	*receiver.Receiver
	host   string
	ip     string
	secret string
	caFile string
}

// newFarEnd starts a receiver for host on ip, which no other test uses, and stops it at the end of the test.
func newFarEnd(t *testing.T, ip, host string) *farEnd {
	t.Helper()
	ca, err := receiver.NewCA("postern tests")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(host)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "443"))
	if err != nil {
		t.Fatalf("%v; Postern delivers to port 443 only, so this test must bind it: run it as root, or once "+
			"`sysctl net.ipv4.ip_unprivileged_port_start=443`", err)
	}
	f := &farEnd{host: host, ip: ip, secret: sign.NewSecret(), caFile: filepath.Join(t.TempDir(), "ca.pem")}
	f.Receiver = &receiver.Receiver{Listener: listener, Certificate: cert, Secret: f.secret}
	writeFile(t, f.caFile, string(ca.PEM()))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("receiver: %v", err)
		}
	})
	return f
}

// config returns a config file for one destination, far, that delivers here; more is added to the destination.
func (f *farEnd) config(ingest, admin, data, more string) string {
	return fmt.Sprintf(`
listen: {ingest: "%s", admin: "%s"}
store: {path: %q}
log: {format: json, level: info}
egress: {resolve: {%s: %s}}
destinations:
  far:
    url: https://%s/hook
    tls: {ca_file: %q}
    allow_networks: [127.0.0.0/8]
    sign: [{standard: {secrets: [%s]}}]
    %s
`, ingest, admin, data, f.host, f.ip, f.host, f.caFile, f.secret, more)
}

// has reports whether all of the messages have arrived.
func (f *farEnd) has(ids map[string]string) bool {
	for id := range ids {
		if _, ok := f.Message(id); !ok {
			return false
		}
	}
	return true
}

// messageID reads the id from the answer to a post.
func messageID(answer []byte) (string, error) {
	var v struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(answer, &v); err != nil {
		return "", fmt.Errorf("read answer %q: %w", answer, err)
	}
	return v.ID, nil
}

// freeAddresses returns two loopback addresses that were free a moment ago, for ingest and admin.
func freeAddresses(t *testing.T) (ingest, admin string) {
	t.Helper()
	ports, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0], ports[1]
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// waitUntil asks until ok says yes, and fails the test if that takes longer than d.
func waitUntil(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", d, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// syncBuffer is a buffer that a process can write to while the test reads it.
type syncBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
