package main

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
)

// contract is a relay with one destination, far, and the receiver that it delivers to.
type contract struct {
	far    *farEnd
	ca     *receiver.CA
	ingest string
	admin  string
	config string // path of its config file
	relay  *process
}

// newContract starts a receiver on ip, which no other test uses at the same time, and writes a config whose destination
// has more keys. prepare, which may be nil, is called before the receiver starts. The relay is not started.
func newContract(t *testing.T, ip, more string, prepare func(*receiver.Receiver, *receiver.CA)) *contract {
	t.Helper()
	const host = "far.test"
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
	dir := t.TempDir()
	f := &farEnd{host: host, ip: ip, secret: sign.NewSecret(), caFile: filepath.Join(dir, "ca.pem")}
	writeFile(t, f.caFile, string(ca.PEM()))
	f.Receiver = &receiver.Receiver{Listener: listener, Certificate: cert, Secret: f.secret, KeepLatest: 100_000}
	if prepare != nil {
		prepare(f.Receiver, ca)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("receiver: %v", err)
		}
	})
	ingest, admin := freeAddresses(t)
	c := &contract{far: f, ca: ca, ingest: ingest, admin: admin, config: filepath.Join(dir, "postern.yaml")}
	writeFile(t, c.config, f.config(c.ingest, c.admin, filepath.Join(dir, "data"), more))
	return c
}

// start starts the relay, again if it has ended.
func (c *contract) start(t *testing.T) {
	t.Helper()
	c.relay = startPostern(t, c.admin, "run", "--config", c.config)
}

// post posts to far and returns the id of the message.
func (c *contract) post(t *testing.T, client *http.Client, body string) string {
	t.Helper()
	id, err := post(t.Context(), client, "http://"+c.ingest+"/to/far", body)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// arrived waits for a message and returns it.
func (c *contract) arrived(t *testing.T, id string) receiver.Message {
	t.Helper()
	var m receiver.Message
	waitUntil(t, 30*time.Second, id+" arrives", func() bool {
		found, ok := c.far.Message(id)
		m = found
		return ok
	})
	return m
}
