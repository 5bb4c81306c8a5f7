package listen

import "net"

// unixPeer is who is at the other end of a Unix socket. There a client has no address, and net calls all of them @.
type unixPeer string

func (unixPeer) Network() string  { return "unix" }
func (p unixPeer) String() string { return string(p) }

// peerAddr returns the address of the other end of a connection; for a Unix socket that is the process which has
// connected, as far as the system tells.
func peerAddr(conn net.Conn) net.Addr {
	if c, ok := conn.(*net.UnixConn); ok {
		return unixPeerOf(c)
	}
	return conn.RemoteAddr()
}
