package listen

import (
	"fmt"
	"net"
	"syscall"
)

// unixPeerOf names user and process that have connected (SO_PEERCRED in unix(7)). The process may have ended since, and
// is 0 if it is in a namespace that we cannot see.
func unixPeerOf(conn *net.UnixConn) unixPeer {
	const unknown unixPeer = "unix"
	raw, err := conn.SyscallConn()
	if err != nil {
		return unknown
	}
	peer := unknown
	err = raw.Control(func(fd uintptr) {
		if who, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			peer = unixPeer(fmt.Sprintf("unix:uid=%d,pid=%d", who.Uid, who.Pid))
		}
	})
	if err != nil {
		return unknown
	}
	return peer
}
