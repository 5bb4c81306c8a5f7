package listen

import (
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func TestConnsFor(t *testing.T) {
	for files, want := range map[uint64]int{
		0: 16, 256: 16, 257: 16, 290: 17, 1024: 384, 8448: 4096, 8446: 4095, 1 << 40: 4096, 1<<64 - 1: 4096,
	} {
		if got := connsFor(files); got != want {
			t.Errorf("a limit of %d: got %d connections, want %d", files, got, want)
		}
	}
}

func TestFailuresTakeBoundedMemory(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	tk := &tokens{now: func() time.Time { return now }, failures: make(map[netip.Addr]int)}
	for n := range 10 * failurePeers {
		tk.fail(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}))
	}
	if got := len(tk.failures); got > failurePeers+1 {
		t.Errorf("got %d peers remembered, want at most %d", got, failurePeers+1)
	}
	now = now.Add(-time.Hour) // a clock that is set back begins a new window, and does not freeze the old one
	if got := tk.fail(netip.AddrFrom4([4]byte{10})); got != 1 {
		t.Errorf("got count %d in a new window, want 1", got)
	}
}

func TestPeerOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "[2001:db8:1:2:3::4]:9": "2001:db8:1:2::", "[::ffff:192.0.2.7]:1": "192.0.2.7",
		"@": "invalid IP", "": "invalid IP", "[fe80::1%eth0]:1": "fe80::",
	} {
		if got := peerOf(&http.Request{RemoteAddr: remote}).String(); got != want {
			t.Errorf("%q: got %q, want %q", remote, got, want)
		}
	}
}

func FuzzSplitHost(f *testing.F) {
	for _, seed := range []string{"localhost", "127.0.0.1:80", "[::1]:80", "[::1]", "", ":", "[", "[]", "a:b:c", "]:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := splitHost(s)
		if err != nil {
			return
		}
		if spelled := []string{host, "[" + host + "]", host + ":" + port, "[" + host + "]:" + port}; s != spelled[0] && s != spelled[1] && s != spelled[2] && s != spelled[3] {
			t.Errorf("splitHost(%q): got %q and %q, which do not make it up again", s, host, port)
		}
	})
}
