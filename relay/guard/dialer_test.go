package guard_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/relay/guard"
)

// answers is a Resolver that gives one set of addresses after the other, and the last one for ever.
type answers struct {
	mu    sync.Mutex // guards the fields below
	sets  [][]netip.Addr
	asked []string
}

func resolver(tb testing.TB, sets ...string) *answers {
	tb.Helper()
	a := &answers{}
	for _, set := range sets {
		var addrs []netip.Addr
		for text := range strings.FieldsSeq(set) {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				tb.Fatal(err)
			}
			addrs = append(addrs, addr)
		}
		a.sets = append(a.sets, addrs)
	}
	return a
}

func (a *answers) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, network+" "+host)
	set := a.sets[0]
	if len(a.sets) > 1 {
		a.sets = a.sets[1:]
	}
	return set, nil
}

func (a *answers) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

// listener is a real listener on port 443 of an address of its own.
type listener struct {
	net.Listener
	addr netip.Addr
}

// listen443 binds an address within 127.78.0.0/16 that nobody else uses.
func listen443(tb testing.TB) *listener {
	tb.Helper()
	var err error
	for i := range 200 {
		addr := netip.AddrFrom4([4]byte{127, 78, byte(1 + i/100), byte(1 + i%100)})
		var l net.Listener
		if l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 443).String()); err == nil {
			tb.Cleanup(func() { l.Close() })
			return &listener{l, addr}
		}
	}
	tb.Fatalf("listen on a loopback address, port 443: %v", err)
	return nil
}

// checkUntouched fails the test if anyone has connected. The kernel queues connections in order, so if the first to
// come out is our own, there was none before.
func (l *listener) checkUntouched(tb testing.TB) {
	tb.Helper()
	own, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	defer own.Close()
	first, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	defer first.Close()
	if got, want := first.RemoteAddr().String(), own.LocalAddr().String(); got != want {
		tb.Errorf("there was a connection from %s", got)
	}
}

// open is the network that holds just the given addresses.
func open(addrs ...netip.Addr) []netip.Prefix {
	var list []netip.Prefix
	for _, a := range addrs {
		list = append(list, netip.PrefixFrom(a, a.BitLen()))
	}
	return list
}

func dial(t *testing.T, d *guard.Dialer, address string) error {
	t.Helper()
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err == nil {
		conn.Close()
	}
	return err
}

func wantBlocked(t *testing.T, err error, host, reason string) {
	t.Helper()
	var blocked *guard.BlockedError
	if !errors.As(err, &blocked) {
		t.Fatalf("got %v, want a *BlockedError", err)
	}
	if blocked.Host != host || !strings.Contains(blocked.Reason, reason) {
		t.Errorf("got host %q and reason %q, want %q and %q", blocked.Host, blocked.Reason, host, reason)
	}
}

func TestRebinding(t *testing.T) {
	t.Run("a name that turns inward after the first attempt is refused from then on", func(t *testing.T) {
		public, private := listen443(t), listen443(t)
		names := resolver(t, public.addr.String(), private.addr.String())
		d := &guard.Dialer{Allow: open(public.addr), Resolver: names}
		if err := dial(t, d, "h.example:443"); err != nil {
			t.Fatalf("first attempt: got %v, want none", err)
		}
		wantBlocked(t, dial(t, d, "h.example:443"), "h.example", "loopback")
		private.checkUntouched(t)
		if got := names.count(); got != 2 {
			t.Errorf("got %d look-ups in two attempts, want 2", got)
		}
	})
	for _, order := range []string{"public private", "private public"} {
		t.Run("mixed answers are refused as a whole, "+order, func(t *testing.T) {
			public, private := listen443(t), listen443(t)
			set := strings.NewReplacer("public", public.addr.String(), "private", private.addr.String()).Replace(order)
			d := &guard.Dialer{Allow: open(public.addr), Resolver: resolver(t, set)}
			err := dial(t, d, "h.example:443")
			wantBlocked(t, err, "h.example", "loopback")
			if !strings.Contains(err.Error(), private.addr.String()) {
				t.Errorf("the error does not name the private address: %v", err)
			}
			public.checkUntouched(t)
			private.checkUntouched(t)
		})
	}
	t.Run("public addresses among which one is metadata are refused", func(t *testing.T) {
		d := &guard.Dialer{Resolver: resolver(t, "8.8.8.8 2a00:1450::1 fd00:ec2::254 1.1.1.1")}
		wantBlocked(t, dial(t, d, "h.example:443"), "h.example", "nothing opens it")
	})
	t.Run("a mapped address is refused as what it means", func(t *testing.T) {
		private := listen443(t)
		d := &guard.Dialer{Resolver: resolver(t, "::ffff:"+private.addr.String())}
		wantBlocked(t, dial(t, d, "h.example:443"), "h.example", "loopback")
		private.checkUntouched(t)
	})
	t.Run("what is really dialled is judged again", func(t *testing.T) {
		l := listen443(t)
		asked := 0
		d := &guard.Dialer{Allow: open(l.addr), Resolver: resolver(t, l.addr.String()), Own: func() []netip.AddrPort {
			if asked++; asked == 1 {
				return nil
			}
			return []netip.AddrPort{netip.AddrPortFrom(l.addr, 443)}
		}}
		wantBlocked(t, dial(t, d, "h.example:443"), "h.example", "Postern itself")
		if asked != 2 {
			t.Errorf("judged %d times, want 2", asked)
		}
		l.checkUntouched(t)
	})
}

func TestDialRefuses(t *testing.T) {
	tests := []struct{ network, address, host, reason string }{
		{"tcp", "h.example:80", "h.example", "port 80 is not 443"},
		{"tcp", "h.example:8443", "h.example", "port 8443 is not 443"},
		{"tcp", "h.example:0443", "h.example", "port 0443 is not 443"},
		{"tcp", "h.example:https", "h.example", "port https is not 443"},
		{"tcp", "h.example:", "h.example", "is not 443"},
		{"tcp", "h.example", "", "not a host and a port"},
		{"tcp", "h.example:443:443", "", "not a host and a port"},
		{"tcp", ":443", "", "host is missing"},
		{"tcp4", "h.example:443", "", "only tcp is"},
		{"udp", "h.example:443", "", "only tcp is"},
		{"unix", "/run/x.sock", "", "only tcp is"},
		{"tcp", "127.0.0.1:443", "127.0.0.1", "loopback"},
		{"tcp", "[::1]:443", "::1", "loopback"},
		{"tcp", "[::ffff:127.0.0.1]:443", "::ffff:127.0.0.1", "another spelling of 127.0.0.1"},
		{"tcp", "[fe80::1%lo]:443", "fe80::1%lo", "zone"},
		{"tcp", "169.254.169.254:443", "169.254.169.254", "nothing opens it"},
		{"tcp", "2130706433:443", "2130706433", "odd spelling of the address 127.0.0.1"},
		{"tcp", "0x7f.1:443", "0x7f.1", "odd spelling of the address 127.0.0.1"},
		{"tcp", "h_x.example:443", "h_x.example", "only letters"},
		{"tcp", "h.example.:443", "h.example.", "ends in a dot"},
	}
	for _, tt := range tests {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			names := resolver(t, "8.8.8.8")
			conn, err := (&guard.Dialer{Resolver: names}).DialContext(t.Context(), tt.network, tt.address)
			if err == nil {
				conn.Close()
			}
			wantBlocked(t, err, tt.host, tt.reason)
			if got := names.count(); got != 0 {
				t.Errorf("got %d look-ups, want 0", got)
			}
		})
	}
	t.Run("more than 32 addresses are refused", func(t *testing.T) {
		set := strings.Repeat("8.8.8.8 ", 33)
		wantBlocked(t, dial(t, &guard.Dialer{Resolver: resolver(t, set)}, "h.example:443"), "h.example", "33 addresses")
	})
	t.Run("no address at all is a DNS error", func(t *testing.T) {
		err := dial(t, &guard.Dialer{Resolver: resolver(t, "")}, "h.example:443")
		var dns *net.DNSError
		if !errors.As(err, &dns) || !dns.IsNotFound {
			t.Errorf("got %v, want a *net.DNSError that says not found", err)
		}
	})
	t.Run("deny closes an address that allow opens", func(t *testing.T) {
		l := listen443(t)
		d := &guard.Dialer{Allow: open(l.addr), Deny: open(l.addr), Resolver: resolver(t, l.addr.String())}
		wantBlocked(t, dial(t, d, "h.example:443"), "h.example", "deny_networks")
		l.checkUntouched(t)
	})
}

func TestOwnListeners(t *testing.T) {
	l := listen443(t)
	tests := []struct {
		name, own string
		blocked   bool
	}{
		{"the very address is refused", l.addr.String() + ":443", true},
		{"the same, mapped, is refused", "[::ffff:" + l.addr.String() + "]:443", true},
		{"all IPv4 addresses are refused", "0.0.0.0:443", true},
		{"all addresses are refused", "[::]:443", true},
		{"another address is not", "127.0.0.1:443", false},
		{"another port is not", l.addr.String() + ":8025", false},
		{"another port on all addresses is not", "0.0.0.0:8025", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &guard.Dialer{
				Allow: open(l.addr), Resolver: resolver(t, l.addr.String()),
				Own: func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(tt.own)} },
			}
			err := dial(t, d, "h.example:443")
			if tt.blocked {
				wantBlocked(t, err, "h.example", "Postern itself listens there")
			} else if err != nil {
				t.Errorf("got %v, want none", err)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	l := listen443(t)
	t.Run("a name in Resolve is not looked up", func(t *testing.T) {
		names := resolver(t, "8.8.8.8")
		d := &guard.Dialer{Allow: open(l.addr), Resolver: names, Resolve: map[string]netip.Addr{"h.example": l.addr}}
		if err := dial(t, d, "H.Example:443"); err != nil {
			t.Errorf("got %v, want none", err)
		}
		if got := names.count(); got != 0 {
			t.Errorf("got %d look-ups, want 0", got)
		}
	})
	t.Run("its address is judged", func(t *testing.T) {
		d := &guard.Dialer{Resolve: map[string]netip.Addr{"h.example": netip.MustParseAddr("10.0.0.1")}}
		wantBlocked(t, dial(t, d, "h.example:443"), "h.example", "private")
	})
	t.Run("Go's resolver reads the hosts file", func(t *testing.T) {
		wantBlocked(t, dial(t, &guard.Dialer{}, "localhost:443"), "localhost", "loopback")
	})
}

func TestInject(t *testing.T) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	names := resolver(t, "8.8.8.8")
	d := &guard.Dialer{Resolver: names, Inject: map[string]func(context.Context) (net.Conn, error){
		"demo.example": func(context.Context) (net.Conn, error) { return near, nil },
	}}
	t.Run("the named host gets the connection, without a look-up", func(t *testing.T) {
		conn, err := d.DialContext(t.Context(), "tcp", "demo.example:443")
		if err != nil || conn != near {
			t.Errorf("got %v, %v; want the injected connection", conn, err)
		}
		if got := names.count(); got != 0 {
			t.Errorf("got %d look-ups, want 0", got)
		}
	})
	t.Run("the port rule holds", func(t *testing.T) {
		wantBlocked(t, dial(t, d, "demo.example:8443"), "demo.example", "port 8443")
	})
	t.Run("other hosts are judged as ever", func(t *testing.T) {
		wantBlocked(t, dial(t, d, "127.0.0.1:443"), "127.0.0.1", "loopback")
	})
}

func TestTrace(t *testing.T) {
	l := listen443(t)
	var got []string
	note := func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		DNSStart:     func(i httptrace.DNSStartInfo) { note("dns %s", i.Host) },
		DNSDone:      func(i httptrace.DNSDoneInfo) { note("dns done %v %v", i.Addrs, i.Err) },
		ConnectStart: func(network, addr string) { note("connect %s %s", network, addr) },
		ConnectDone:  func(network, addr string, err error) { note("connected %s %s %v", network, addr, err) },
	})
	d := &guard.Dialer{Allow: open(l.addr), Resolver: resolver(t, l.addr.String())}
	conn, err := d.DialContext(ctx, "tcp", "h.example:443")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	want := fmt.Sprintf("dns h.example|dns done [{%[1]s }] <nil>|connect tcp %[1]s:443|connected tcp %[1]s:443 <nil>", l.addr)
	if got := strings.Join(got, "|"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	t.Run("Go's resolver reports once", func(t *testing.T) {
		got = nil
		if conn, err := (&guard.Dialer{}).DialContext(ctx, "tcp", "localhost:443"); err == nil {
			conn.Close()
		}
		if len(got) != 2 || got[0] != "dns localhost" || !strings.HasPrefix(got[1], "dns done ") {
			t.Errorf("got %q, want one look-up", got)
		}
	})
}

// hanging is a Resolver that answers when the context ends.
type hanging struct{}

func (hanging) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestDialTimeout(t *testing.T) {
	for _, tt := range []struct{ set, want time.Duration }{{0, 5 * time.Second}, {time.Minute, time.Minute}} {
		t.Run(fmt.Sprintf("a Timeout of %v means %v", tt.set, tt.want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				err := dial(t, &guard.Dialer{Resolver: hanging{}, Timeout: tt.set}, "h.example:443")
				if got := time.Since(start); got != tt.want || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v after %v, want a timeout after %v", err, got, tt.want)
				}
			})
		})
	}
}
