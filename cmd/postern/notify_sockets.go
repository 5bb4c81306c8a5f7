package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/postern-relay/postern/relay"
)

const (
	firstSocket = 3  // the descriptor of the first one (SD_LISTEN_FDS_START)
	maxSockets  = 64 // that are looked at; three can be used
)

// inheritedSockets takes the listeners that systemd has opened for this process (sd_listen_fds(3)), by the names that
// FileDescriptorName= of their units gives them. The variables that tell of them are taken out of the environment, so that
// no child takes them for its own.
func inheritedSockets(log *zap.Logger) (relay.Sockets, error) {
	names, err := socketNames(os.Getenv, os.Getpid())
	for _, name := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		err = errors.Join(err, os.Unsetenv(name))
	}
	if err != nil {
		return relay.Sockets{}, fmt.Errorf("take the sockets of systemd: %w", err)
	}
	var files []*os.File
	for i, name := range names {
		unix.CloseOnExec(firstSocket + i)
		files = append(files, os.NewFile(uintptr(firstSocket+i), name))
	}
	sockets, err := namedSockets(files)
	if err != nil {
		return relay.Sockets{}, fmt.Errorf("take the sockets of systemd: %w", err)
	}
	for name, l := range map[string]net.Listener{"ingest": sockets.Ingest, "admin": sockets.Admin, "https": sockets.HTTPS} {
		if l != nil {
			log.Info("socket taken over", zap.String("name", name), zap.Stringer("address", l.Addr()))
		}
	}
	return sockets, nil
}

// socketNames returns the names of the sockets that are handed to the process pid, in the order of their descriptors; none
// if none are, or if they are for another process, from which this one has the variables. What systemd would not write is
// an error: to go on without the sockets would be to listen elsewhere than was meant.
func socketNames(getenv func(string) string, pid int) ([]string, error) {
	owner := getenv("LISTEN_PID")
	if owner == "" {
		return nil, nil
	}
	if n, err := strconv.ParseUint(owner, 10, 31); err != nil || n == 0 {
		return nil, fmt.Errorf("LISTEN_PID is %q, which is no number of a process", owner)
	} else if int(n) != pid {
		return nil, nil
	}
	count, err := strconv.ParseUint(getenv("LISTEN_FDS"), 10, 31)
	if err != nil || count > maxSockets {
		return nil, fmt.Errorf("LISTEN_FDS is %q, which is no number from 0 to %d", getenv("LISTEN_FDS"), maxSockets)
	}
	var names []string
	if text := getenv("LISTEN_FDNAMES"); text != "" {
		names = strings.Split(text, ":")
	}
	if len(names) != int(count) {
		return nil, fmt.Errorf("LISTEN_FDS tells of %d sockets, and LISTEN_FDNAMES names %d; write FileDescriptorName=ingest, admin or https into each socket unit",
			count, len(names))
	}
	return names, nil
}

// namedSockets makes listeners of files, which it closes. After an error none is left open.
func namedSockets(files []*os.File) (sockets relay.Sockets, err error) {
	places := map[string]*net.Listener{"ingest": &sockets.Ingest, "admin": &sockets.Admin, "https": &sockets.HTTPS}
	for _, f := range files {
		err = errors.Join(err, takeSocket(f, places), f.Close())
	}
	if err != nil {
		for _, l := range places {
			if *l != nil {
				_ = (*l).Close() // nobody has connected to it here
			}
		}
		return relay.Sockets{}, err
	}
	return sockets, nil
}

// takeSocket puts the listener of one file into its place.
func takeSocket(f *os.File, places map[string]*net.Listener) error {
	place, known := places[f.Name()]
	if !known {
		return fmt.Errorf("there is no listener %q; write FileDescriptorName=ingest, admin or https into its socket unit", f.Name())
	}
	if *place != nil {
		return fmt.Errorf("there are two sockets for %q; leave one ListenStream= in its unit", f.Name())
	}
	if accepts, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
		return fmt.Errorf("socket %q: %w", f.Name(), os.NewSyscallError("getsockopt", err))
	} else if accepts == 0 {
		return fmt.Errorf("socket %q does not take connections; write ListenStream= into its unit, and not Accept=yes", f.Name())
	}
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("socket %q: %w", f.Name(), err)
	}
	*place = l
	return nil
}
