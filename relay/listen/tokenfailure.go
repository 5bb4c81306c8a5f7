package listen

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	failuresAllowed = 20          // failed tries of one address in a window
	failuresInAll   = 200         // of all addresses together
	failureWindow   = time.Minute // how long a failure counts
	failurePeers    = 1024        // addresses that are told apart in one window; the others share one count

	failureLogEvery = time.Second // at most one line for each such time
)

// failures counts tries with a token that is none of ours. Its memory is bounded: addresses beyond the first failurePeers
// share the count of the zero address.
type failures struct {
	mu     sync.Mutex // guards the fields below
	since  time.Time  // begin of the window
	all    int
	byPeer map[netip.Addr]int
	logged time.Time // when the last line was written
	quiet  int       // failures without a line since then
	told   bool      // in this window there was a line beyond a limit
}

// failure is what is known of a failed try.
type failure struct {
	count  int           // of this address in this window
	wait   time.Duration // until the window ends; 0 for a try within the limits
	log    bool          // a line is due
	unsaid int           // failures before it that had none
}

// add counts a failed try of an address.
func (f *failures) add(peer netip.Addr, now time.Time) failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.since) >= failureWindow || now.Before(f.since) { // a clock that is set back begins a window too
		f.since, f.all, f.told = now, 0, false
		f.byPeer = make(map[netip.Addr]int)
	}
	if _, seen := f.byPeer[peer]; !seen && len(f.byPeer) >= failurePeers {
		peer = netip.Addr{}
	}
	f.byPeer[peer]++
	f.all++
	out := failure{count: f.byPeer[peer]}
	if out.count > failuresAllowed || f.all > failuresInAll {
		out.wait = failureWindow - now.Sub(f.since)
	}
	// Whoever goes on beyond a limit is worth one line in a window, and not one every second.
	since := now.Sub(f.logged)
	if (since < 0 || since >= failureLogEvery) && (out.wait == 0 || !f.told) {
		out.log, out.unsaid = true, f.quiet
		f.logged, f.quiet, f.told = now, 0, f.told || out.wait > 0
	} else {
		f.quiet++
	}
	return out
}

// peerOf returns the address that failures are counted for: for IPv6 the network of 64 bits, since one host has all
// of it, and the zero address for a Unix socket.
func peerOf(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		network, err := ip.Prefix(64)
		if err != nil {
			return netip.Addr{}
		}
		return network.Addr()
	}
	return ip
}
