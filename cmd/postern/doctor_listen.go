package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay"
)

// answerTime is how long a Unix socket may take to connect.
const answerTime = time.Second

// listen looks at the addresses that apps and people come to: whether Postern can listen there, or, if one runs, does.
// It returns where the https listener answers; empty if it does not.
func (d *doctor) listen(ctx context.Context, cfg *config.Config, runs bool) (served string) {
	d.listener(ctx, "ingest", cfg.Listen.Ingest, who(len(cfg.Listen.Tokens), cfg.Listen, cfg.Listen.Ingest, "post"), cfg.Listen, runs)
	d.listener(ctx, "admin", cfg.Listen.Admin, who(len(cfg.Listen.AdminTokens), cfg.Listen, cfg.Listen.Admin, "look and steer"), cfg.Listen, runs)
	https := cfg.Listen.HTTPS
	if https == nil {
		return ""
	}
	if used := d.listener(ctx, "https", https.Address, who(len(cfg.Listen.Tokens), cfg.Listen, https.Address, "post"), cfg.Listen, runs); !used || !runs {
		return ""
	}
	return onLoopback(https.Address)
}

// who says who gets in by a listener.
func who(tokens int, l config.Listen, address, may string) string {
	switch {
	case tokens > 0:
		return fmt.Sprintf("to %s takes a token (%d set)", may, tokens)
	case strings.HasPrefix(address, unixScheme):
		return fmt.Sprintf("who may write to the socket (mode %#o) may %s", l.SocketMode, may)
	}
	return fmt.Sprintf("every account of this machine may %s, for there is no token", may)
}

const unixScheme = "unix://"

// listener looks at one address, and reports whether somebody listens there.
func (d *doctor) listener(ctx context.Context, check, address, who string, l config.Listen, runs bool) (used bool) {
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		return d.unixSocket(ctx, check, path, who, l, runs)
	}
	switch err := d.host.bind(ctx, address); {
	case err == nil && runs:
		d.add(check, relay.Warning, "a Postern runs, and nobody listens at "+address, "compare its config with this one; or it has been given another socket by systemd")
	case err == nil:
		d.add(check, relay.Fine, address+" is free; "+who, "")
	case errors.Is(err, syscall.EADDRINUSE) && runs:
		d.add(check, relay.Fine, address+" is in use, as it has to be; "+who, "")
		return true
	case errors.Is(err, syscall.EADDRINUSE):
		d.add(check, relay.Warning, "no Postern has the store, and "+address+" is in use",
			"if systemd keeps it for Postern, all is well; else see who it is (ss -ltnp), or listen elsewhere")
		return true
	case runs: // it may have been given the socket, or have more rights
		d.add(check, relay.Fine, fmt.Sprintf("%s cannot be looked at by this account: %v; %s", address, err, who), "")
		return true
	case errors.Is(err, fs.ErrPermission):
		d.add(check, relay.Problem, fmt.Sprintf("this account may not listen at %s: %v", address, err),
			"ports below 1024 need the capability CAP_NET_BIND_SERVICE, a socket of systemd, or net.ipv4.ip_unprivileged_port_start; or listen at a higher one and pass the port on")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		d.add(check, relay.Problem, address+" is no address of this machine", "name one that it has (ip address), or a port alone for all of them")
	default:
		d.add(check, relay.Problem, fmt.Sprintf("one cannot listen at %s: %v", address, err), "name another address")
	}
	return false
}

// errLooked ends a listener before it takes anything.
var errLooked = errors.New("looked")

// bindable reports why nobody can listen at an address. It makes the socket that a listener would have and gives it the
// address, without taking connections.
func bindable(ctx context.Context, address string) error {
	var bound error
	lc := net.ListenConfig{Control: func(network, resolved string, c syscall.RawConn) error {
		at, err := socketAddress(network, resolved)
		if err != nil {
			return err
		}
		if err := c.Control(func(fd uintptr) { bound = unix.Bind(int(fd), at) }); err != nil {
			return err
		}
		return errLooked
	}}
	l, err := lc.Listen(ctx, "tcp", address)
	if err == nil { // which cannot be, and is to leave nothing behind
		return l.Close()
	}
	if !errors.Is(err, errLooked) {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			return op.Err
		}
		return err
	}
	return bound
}

// socketAddress turns an address, as net has resolved it, into the kernel's form. Without a host it is all addresses.
func socketAddress(network, resolved string) (unix.Sockaddr, error) {
	if strings.HasPrefix(resolved, ":") {
		resolved = map[string]string{"tcp4": "0.0.0.0", "tcp6": "[::]"}[network] + resolved
	}
	at, err := netip.ParseAddrPort(resolved)
	switch {
	case err != nil:
		return nil, err
	case network == "tcp6":
		return &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}, nil
	}
	return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().Unmap().As4()}, nil
}

// onLoopback is where this machine reaches a listener by its own address, or by loopback if that is all of them.
func onLoopback(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// unixSocket looks at the file of a Unix socket and at the folder that it is, or is to be, in.
func (d *doctor) unixSocket(ctx context.Context, check, path, who string, l config.Listen, runs bool) (used bool) {
	dir := filepath.Dir(path)
	info, err := d.host.stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.add(check, relay.Problem, fmt.Sprintf("the folder %s, for the socket, is not there", dir), "make it: RuntimeDirectory= in systemd, or install -d")
		return false
	case err != nil:
		d.add(check, relay.Problem, err.Error(), "let Postern's account enter that folder")
		return false
	case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
		d.add(check, relay.Warning, fmt.Sprintf("every user of this machine may write in %s, and put another socket into the place of %s", dir, path), "chmod o-w "+dir)
	}
	if group := l.SocketGroup; group != "" {
		if why := d.host.group(group); why != "" {
			d.add(check, relay.Problem, why, "name another one in listen.socket_group, or make Postern's account a member")
		}
	}
	info, err = d.host.stat(path)
	switch {
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		d.add(check, relay.Problem, path+" is there, and is no socket", "move it away, or choose another path")
		return false
	case err == nil:
		used = answers(ctx, path)
	case !errors.Is(err, fs.ErrNotExist):
		d.add(check, relay.Problem, err.Error(), "let Postern's account enter that folder")
		return false
	}
	switch {
	case used && runs:
		d.add(check, relay.Fine, path+" is in use, as it has to be; "+who, "")
	case used:
		d.add(check, relay.Warning, "no Postern has the store, and somebody serves "+path, "if systemd keeps it for Postern, all is well; else see who it is (ss -lxp), or choose another path")
	case runs:
		d.add(check, relay.Warning, "a Postern runs, and nobody answers at "+path, "compare its config with this one; or it has been given another socket by systemd")
	case !d.host.writable(dir):
		d.add(check, relay.Problem, fmt.Sprintf("this account may not make a socket in %s", dir), "let Postern's account write in that folder, or choose another path")
	case err == nil:
		d.add(check, relay.Fine, path+" was left behind by a Postern that was killed, and the next start replaces it; "+who, "")
	default:
		d.add(check, relay.Fine, path+" is free; "+who, "")
	}
	return used
}

// answers reports whether somebody serves a Unix socket, or would if this account were let in.
func answers(ctx context.Context, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close() // it only told that somebody is there
	}
	return err == nil || !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}

// groupFault says why this account cannot give a file to a group; empty if it can.
func groupFault(name string) string {
	id, err := strconv.ParseUint(name, 10, 31)
	if err != nil {
		found, err := user.LookupGroup(name)
		if err != nil {
			return fmt.Sprintf("there is no group %q on this machine", name)
		}
		if id, err = strconv.ParseUint(found.Gid, 10, 31); err != nil {
			return fmt.Sprintf("the group %q has no number here", name)
		}
	}
	if unix.Geteuid() == 0 || unix.Getegid() == int(id) {
		return ""
	}
	if members, err := unix.Getgroups(); err != nil || !slices.Contains(members, int(id)) {
		return fmt.Sprintf("this account is no member of the group %q, so it cannot give the socket to it", name)
	}
	return ""
}
