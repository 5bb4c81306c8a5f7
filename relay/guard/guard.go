// Package guard says where a request may go, and is the only way out. It holds the URL rule ([ParseURL]), the
// address rule ([Judge]), the only dialer for the outside ([Dialer]), directly or through a proxy of the config
// ([Proxy]), and the only factory of HTTP clients that use it ([NewTransport], [NewClient], and [LoadTransport] for
// certificates in files).
//
// The promise: https only, port 443 only, no user info, no redirect, no proxy from the environment, certificates
// always verified; and no connection to an address that is not public, unless the destination's allow_networks
// opens it. Link-local and metadata addresses are never opened. Each rule is applied where a config is loaded, for
// the sake of a clear error, and once more where a connection is made, for the sake of safety:
//
//	config:  ParseURL ─► scheme, port, host, address literals
//	dial:    DialContext ─► port, host ─► look up ─► Judge each address, refuse all if one is refused
//	                                                  ├► connect ─► ControlContext: Judge what is really dialled
//	                                                  └► proxy ─► CONNECT to the judged address, never to the name
package guard

import (
	"fmt"
	"net/netip"
)

// BlockedError says that the guard refused a target; nothing was sent to it. It is found by errors.As.
type BlockedError struct {
	Host   string     // name or address as asked for; may be empty
	Addr   netip.Addr // the refused address, in its plain form; invalid when no address was the reason
	Reason string     // why, for a person, and what opens it if something does
}

// Error names the host, its address and the reason. It holds nothing else of a URL.
func (e *BlockedError) Error() string {
	switch {
	case !e.Addr.IsValid() && e.Host == "":
		return e.Reason
	case !e.Addr.IsValid():
		return fmt.Sprintf("host %q is not allowed: %s", e.Host, e.Reason)
	case e.Host == "" || e.Host == e.Addr.String():
		return fmt.Sprintf("address %s is not allowed: %s", e.Addr, e.Reason)
	default:
		return fmt.Sprintf("host %q has address %s, which is not allowed: %s", e.Host, e.Addr, e.Reason)
	}
}
