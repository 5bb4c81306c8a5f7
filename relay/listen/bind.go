package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	unixScheme = "unix://"
	socketMode = 0o600 // its owner only: whoever can connect can post (threat T58)

	// staleTimeout bounds the question whether somebody serves a socket file.
	staleTimeout = time.Second
)

// bind opens the listener of an address of Options.
func bind(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		listener, err := bindUnix(path)
		if err != nil {
			return nil, fmt.Errorf("listen on %q: %w", address, err)
		}
		return listener, nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("listen on %q: want host:port or unix:///path", address)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", address, withoutAddress(err))
	}
	return listener, nil
}

func bindUnix(path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the path of a socket starts with /, as in unix:///run/postern/ingest.sock")
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// On Linux the mode of the descriptor becomes that of the file, so there is no moment in which others could
	// connect. The Chmod is for systems where it does not.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), socketMode) })
	}}
	listener, err := lc.Listen(context.Background(), "unix", path) // binding a path waits for nothing
	if err != nil {
		return nil, withoutAddress(err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
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
