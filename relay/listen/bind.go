package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	unixScheme  = "unix://"
	privateMode = 0o600 // its owner only: whoever can connect can post (threat T58)

	// safePath is what the path of a socket may have on every system, in bytes.
	safePath = 100

	// staleTimeout bounds the question whether somebody serves a socket file.
	staleTimeout = time.Second
)

// bind opens the listener of an address of Options. Mode and group are for a Unix socket.
func bind(address string, mode fs.FileMode, group string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		listener, err := bindUnix(path, mode, group)
		if err != nil {
			return nil, fmt.Errorf("listen on %q: %w", address, err)
		}
		return listener, nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, &ConfigError{fmt.Errorf("listen on %q: want host:port or unix:///path", address)}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", address, withoutAddress(err))
	}
	return listener, nil
}

func bindUnix(path string, mode fs.FileMode, group string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, &ConfigError{errors.New("the path of a socket starts with /, as in unix:///run/postern/ingest.sock")}
	}
	if mode == 0 {
		mode = privateMode
	}
	if mode&^fs.ModePerm != 0 {
		return nil, &ConfigError{fmt.Errorf("the mode %o of the socket is not one of permissions; write one such as 0660", mode)}
	}
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// On Linux the mode of the descriptor becomes that of the file. So there is no moment in which others could connect,
	// nor one in which the group of the process could, before the file has its own. The first Chmod is for systems where
	// the descriptor's mode says nothing.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), privateMode) })
	}}
	listener, err := lc.Listen(context.Background(), "unix", path) // binding a path waits for nothing
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no folder %q; make it, for Postern to write to alone", filepath.Dir(path))
	case errors.Is(err, syscall.EINVAL) && len(path) > safePath:
		return nil, &ConfigError{fmt.Errorf("the path is longer than sockets may have here; write at most %d bytes", safePath)}
	case err != nil:
		return nil, withoutAddress(err)
	}
	err = os.Chmod(path, privateMode)
	if err == nil && gid != noGroup {
		if err = os.Chown(path, -1, gid); errors.Is(err, fs.ErrPermission) {
			err = &ConfigError{fmt.Errorf("give the socket to group %q: %w; make it a group of the user that runs Postern", group, fs.ErrPermission)}
		}
	}
	if err == nil && mode != privateMode {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// noGroup is the number of no group, which leaves a file's as it is.
const noGroup = -1

// groupID returns the number of a group by its name or number; an empty one is noGroup.
func groupID(group string) (int, error) {
	if group == "" {
		return noGroup, nil
	}
	if id, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(id), nil
	}
	found, err := user.LookupGroup(group)
	if err != nil {
		return noGroup, &ConfigError{fmt.Errorf("there is no group %q on this machine; write the name or number of one", group)}
	}
	id, err := strconv.ParseUint(found.Gid, 10, 31)
	if err != nil {
		return noGroup, &ConfigError{fmt.Errorf("the group %q has the number %q here, which is none", group, found.Gid)}
	}
	return int(id), nil
}

// removeStale removes the socket file that a process left behind when it was killed. It touches nothing else: not a
// socket that somebody serves, nor a file of another kind.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at the old socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file of that name, and it is no socket; remove it or choose another path")
	}
	conn, err := net.DialTimeout("unix", path, staleTimeout)
	switch {
	case err == nil:
		_ = conn.Close() // it only told that somebody answers
		return errors.New("another process serves that socket; stop it or choose another path")
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the old socket: %w", err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return fmt.Errorf("ask whether the old socket is served: %w", withoutAddress(err))
	}
}

// withoutAddress strips what net says about the address, which the caller says better.
func withoutAddress(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
