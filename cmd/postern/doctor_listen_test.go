package main

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay"
)

// heard is one case of the check of listeners.
type heard struct {
	rule   string
	config string // of listen
	host   func(h *host)
	runs   bool
	status relay.Severity
	text   string
	served string
}

func (e heard) want(t *testing.T) {
	t.Helper()
	t.Run(e.rule, func(t *testing.T) {
		cfg, err := config.Parse("postern.yaml", []byte("listen: {"+e.config+"}\ndestinations: {a: {url: https://a.test/}}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		d := &doctor{program: &program{}, host: healthy()}
		d.host.bind = func(context.Context, string) error { return nil }
		if e.host != nil {
			e.host(&d.host)
		}
		served := d.listen(t.Context(), cfg, e.runs)
		var worst relay.Severity
		var lines []string
		for _, f := range d.findings {
			worst = max(worst, f.Status)
			lines = append(lines, fmt.Sprintf("%s %s %s → %s", f.Status, f.Check, f.Detail, f.Advice))
			if f.Status != relay.Fine && f.Advice == "" {
				t.Errorf("nothing is advised: %+v", f)
			}
		}
		text := strings.Join(lines, "\n")
		if worst != e.status || !strings.Contains(text, e.text) || served != e.served {
			t.Errorf("got %s, served at %q:\n%s\nwant %s with %q, served at %q", worst, served, text, e.status, e.text, e.served)
		}
		if strings.Contains(text, "canary") {
			t.Errorf("a secret is in %s", text)
		}
	})
}

func binding(err error) func(*host) {
	return func(h *host) { h.bind = func(context.Context, string) error { return err } }
}

func TestDoctorListeners(t *testing.T) {
	const front = "tokens: [canary-1f0e-0123456789], https: {domains: [relay.example.com], address: "
	for _, e := range []heard{
		{rule: "free ports are fine", status: relay.Fine, text: "127.0.0.1:8025 is free; every account of this machine may post, for there is no token"},
		{rule: "the other listener is told of too", status: relay.Fine, text: "127.0.0.1:8026 is free; every account of this machine may look and steer"},
		{rule: "tokens are counted", config: "tokens: [canary-1f0e-0123456789]", status: relay.Fine, text: "free; to post takes a token (1 set)"},
		{rule: "one in use is a warning, for it may be systemd", host: binding(syscall.EADDRINUSE), status: relay.Warning, text: "ss -ltnp"},
		{rule: "one in use by a Postern that runs is fine", runs: true, host: binding(syscall.EADDRINUSE), status: relay.Fine, text: "in use, as it has to be"},
		{rule: "a free one beside a Postern that runs is a warning", runs: true, status: relay.Warning, text: "nobody listens at 127.0.0.1:8025"},
		{rule: "a port that this account may not have is a problem", host: binding(syscall.EACCES), status: relay.Problem, text: "CAP_NET_BIND_SERVICE"},
		{rule: "unless the Postern that runs has it", runs: true, host: binding(syscall.EACCES), status: relay.Fine, text: "cannot be looked at by this account"},
		{rule: "an address of another machine is a problem", host: binding(syscall.EADDRNOTAVAIL), status: relay.Problem, text: "no address of this machine"},
		{rule: "whatever else there is is a problem", host: binding(syscall.EAFNOSUPPORT), status: relay.Problem, text: "address family not supported"},
		{rule: "the https listener is looked at", config: front + "'127.0.0.1:443'}", status: relay.Fine, text: "ok https 127.0.0.1:443 is free"},
		{
			rule: "where it answers is told", config: front + "'127.0.0.1:443'}", runs: true, host: binding(syscall.EADDRINUSE),
			status: relay.Fine, text: "in use", served: "127.0.0.1:443",
		},
		{
			rule: "all addresses are reached by loopback", config: front + "':443'}", runs: true, host: binding(syscall.EADDRINUSE),
			status: relay.Fine, text: "in use", served: "127.0.0.1:443",
		},
		{rule: "one that others use is not asked", config: front + "':443'}", host: binding(syscall.EADDRINUSE), status: relay.Warning, text: "in use"},
	} {
		e.want(t)
	}
}

func TestDoctorUnixSockets(t *testing.T) {
	dir := t.TempDir()
	at := func(path string) string {
		return fmt.Sprintf("ingest: 'unix://%s', admin: '127.0.0.1:1'", path)
	}
	live, stale := filepath.Join(dir, "live"), filepath.Join(dir, "stale")
	listenOn(t, "unix", live)
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	writeFile(t, filepath.Join(dir, "file"), "")
	open := filepath.Join(dir, "open")
	mkdir(0o777)(t, open)
	sticky := filepath.Join(dir, "sticky")
	mkdir(0o777)(t, sticky)
	if err := os.Chmod(sticky, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	taken := func(h *host) { // the other listener is not what is looked at
		h.bind = func(context.Context, string) error { return syscall.EADDRINUSE }
	}
	for _, e := range []heard{
		{rule: "a place for a socket is fine", config: at(filepath.Join(dir, "new")), text: "is free; who may write to the socket (mode 0600) may post"},
		{rule: "one that a kill has left is fine", config: at(stale), text: "the next start replaces it"},
		{rule: "one that somebody serves is a warning", config: at(live), status: relay.Warning, text: "ss -lxp"},
		{rule: "unless a Postern runs", config: at(live), runs: true, host: taken, text: "in use, as it has to be"},
		{rule: "nobody there beside a Postern that runs is a warning", config: at(stale), runs: true, host: taken, status: relay.Warning, text: "nobody answers"},
		{rule: "a file of that name is a problem", config: at(filepath.Join(dir, "file")), status: relay.Problem, text: "is no socket"},
		{rule: "a folder that is not there is a problem", config: at(filepath.Join(dir, "none", "s")), status: relay.Problem, text: "RuntimeDirectory="},
		{
			rule: "one that this account may not write is a problem", config: at(filepath.Join(dir, "new")),
			host: func(h *host) { h.writable = func(string) bool { return false } }, status: relay.Problem, text: "may not make a socket",
		},
		{rule: "one that all may write is a warning", config: at(filepath.Join(open, "s")), status: relay.Warning, text: "chmod o-w"},
		{rule: "unless they cannot replace what is in it", config: at(filepath.Join(sticky, "s")), text: "is free"},
		{
			rule: "a group that this account cannot give it to is a problem", config: at(filepath.Join(dir, "new")) + ", socket_group: apps",
			host:   func(h *host) { h.group = func(name string) string { return "no " + name } },
			status: relay.Problem, text: "no apps → name another one in listen.socket_group",
		},
	} {
		e.want(t)
	}
	t.Run("groups", func(t *testing.T) {
		if got := groupFault("no-such-group"); !strings.Contains(got, "there is no group") {
			t.Errorf("got %q", got)
		}
		if got := groupFault(strconv.Itoa(os.Getegid())); got != "" {
			t.Errorf("our own: got %q", got)
		}
	})
}

func TestBindable(t *testing.T) {
	taken := listenOn(t, "tcp", "127.0.0.87:0")
	if err := bindable(t.Context(), taken.Addr().String()); err != syscall.EADDRINUSE {
		t.Errorf("in use: got %v, want %v", err, syscall.EADDRINUSE)
	}
	address := taken.Addr().String()
	taken.Close()
	for range 2 { // the first leaves nothing behind
		if err := bindable(t.Context(), address); err != nil {
			t.Errorf("free: got %v", err)
		}
	}
	for _, address := range []string{"192.0.2.1:8025", "nonsense", "127.0.0.1:99999"} {
		if err := bindable(t.Context(), address); err == nil {
			t.Errorf("%s: got no error", address)
		}
	}
	if six, err := net.Listen("tcp", "[::1]:0"); err == nil { // where there is IPv6
		defer six.Close()
		if err := bindable(t.Context(), six.Addr().String()); err != syscall.EADDRINUSE {
			t.Errorf("IPv6: got %v, want %v", err, syscall.EADDRINUSE)
		}
	}
}

func TestSocketAddress(t *testing.T) {
	for _, tc := range []struct {
		network, resolved string
		want              unix.Sockaddr
	}{
		{"tcp4", "127.0.0.1:8025", &unix.SockaddrInet4{Port: 8025, Addr: [4]byte{127, 0, 0, 1}}},
		{"tcp4", ":443", &unix.SockaddrInet4{Port: 443}},
		{"tcp6", ":443", &unix.SockaddrInet6{Port: 443}},
		{"tcp6", "[::1]:443", &unix.SockaddrInet6{Port: 443, Addr: [16]byte{15: 1}}},
	} {
		if got, err := socketAddress(tc.network, tc.resolved); err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s %s: got %+v, %v; want %+v", tc.network, tc.resolved, got, err, tc.want)
		}
	}
	if got, err := socketAddress("tcp4", "nonsense"); err == nil {
		t.Errorf("nonsense: got %+v, want an error", got)
	}
}
