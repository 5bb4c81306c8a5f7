package guard

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// peer says what happens to who dials it.
type peer struct {
	after time.Duration // 0 means at once
	err   error         // nil means a connection
}

// network is a fake that notes who was dialled when, and which connections were closed.
type network struct {
	peers map[string]peer
	start time.Time

	mu     sync.Mutex // guards the fields below
	dialed []string
	open   int
}

type fakeConn struct {
	net.Conn
	addr string
	n    *network
}

func (c *fakeConn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.n.open--
	return nil
}

func (n *network) dial(ctx context.Context, addr netip.Addr) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, addr.String()+"@"+time.Since(n.start).String())
	n.mu.Unlock()
	p := n.peers[addr.String()]
	if p.after > 0 {
		timer := time.NewTimer(p.after)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if p.err != nil {
		return nil, p.err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open++
	return &fakeConn{addr: addr.String(), n: n}, nil
}

func TestRace(t *testing.T) {
	const never = time.Hour
	refused := errors.New("refused")
	tests := []struct {
		name   string
		addrs  string
		peers  map[string]peer
		won    string // address, or empty for an error
		dialed string
		took   time.Duration
		err    error
	}{
		{"one address is dialled", "1.1.1.1", nil, "1.1.1.1", "1.1.1.1@0s", 0, nil},
		{"the second of a family follows the first at once", "1.1.1.1 1.1.1.2",
			map[string]peer{"1.1.1.1": {err: refused}}, "1.1.1.2", "1.1.1.1@0s 1.1.1.2@0s", 0, nil},
		{"the first error is the one that is told", "1.1.1.1 1.1.1.2",
			map[string]peer{"1.1.1.1": {err: refused}, "1.1.1.2": {err: errors.New("other")}}, "", "1.1.1.1@0s 1.1.1.2@0s", 0, refused},
		{"an address that hangs gets its share of the time", "1.1.1.1 1.1.1.2",
			map[string]peer{"1.1.1.1": {after: never}}, "1.1.1.2", "1.1.1.1@0s 1.1.1.2@2.5s", 2500 * time.Millisecond, nil},
		{"a share is no less than 2 s", "1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4",
			map[string]peer{"1.1.1.1": {after: never}}, "1.1.1.2", "1.1.1.1@0s 1.1.1.2@2s", 2 * time.Second, nil},
		{"the other family waits if the first is quick", "2a00::1 1.1.1.1",
			map[string]peer{"2a00::1": {after: 299 * time.Millisecond}}, "2a00::1", "2a00::1@0s", 299 * time.Millisecond, nil},
		{"the other family begins after 300 ms and may win", "2a00::1 1.1.1.1",
			map[string]peer{"2a00::1": {after: never}}, "1.1.1.1", "2a00::1@0s 1.1.1.1@300ms", 300 * time.Millisecond, nil},
		{"the first family may still win", "2a00::1 1.1.1.1",
			map[string]peer{"2a00::1": {after: 400 * time.Millisecond}, "1.1.1.1": {after: never}}, "2a00::1",
			"2a00::1@0s 1.1.1.1@300ms", 400 * time.Millisecond, nil},
		{"the other family begins at once if the first has failed", "2a00::1 1.1.1.1",
			map[string]peer{"2a00::1": {err: refused}}, "1.1.1.1", "2a00::1@0s 1.1.1.1@0s", 0, nil},
		{"IPv4 may be first", "1.1.1.1 2a00::1",
			map[string]peer{"1.1.1.1": {err: refused}}, "2a00::1", "1.1.1.1@0s 2a00::1@0s", 0, nil},
		{"both families may fail", "2a00::1 1.1.1.1",
			map[string]peer{"2a00::1": {err: refused}, "1.1.1.1": {after: time.Second, err: errors.New("other")}}, "",
			"2a00::1@0s 1.1.1.1@0s", time.Second, refused},
		{"a failure after the other has begun waits for the other", "2a00::1 1.1.1.1",
			map[string]peer{"2a00::1": {after: 500 * time.Millisecond, err: refused}, "1.1.1.1": {after: time.Second}}, "1.1.1.1",
			"2a00::1@0s 1.1.1.1@300ms", 1300 * time.Millisecond, nil},
		{"the end of the time ends all", "2a00::1 1.1.1.1",
			map[string]peer{"2a00::1": {after: never}, "1.1.1.1": {after: never}}, "",
			"2a00::1@0s 1.1.1.1@300ms", 5 * time.Second, context.DeadlineExceeded},
		{"two that connect at the same time leave one connection", "2a00::1 1.1.1.1",
			map[string]peer{"2a00::1": {after: 310 * time.Millisecond}, "1.1.1.1": {after: 10 * time.Millisecond}}, "*",
			"2a00::1@0s 1.1.1.1@300ms", 310 * time.Millisecond, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{peers: tt.peers, start: time.Now()}
				var addrs []netip.Addr
				for text := range strings.FieldsSeq(tt.addrs) {
					addrs = append(addrs, netip.MustParseAddr(text))
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				conn, err := race(ctx, addrs, n.dial)
				if got := time.Since(n.start); got != tt.took {
					t.Errorf("took %v, want %v", got, tt.took)
				}
				if got := strings.Join(n.dialed, " "); got != tt.dialed {
					t.Errorf("dialled %s, want %s", got, tt.dialed)
				}
				if tt.won == "" {
					if conn != nil || !errors.Is(err, tt.err) || n.open != 0 {
						t.Errorf("got %v, %v, %d open; want error %v", conn, err, n.open, tt.err)
					}
					return
				}
				if err != nil || n.open != 1 {
					t.Fatalf("got %v, %d open; want one connection", err, n.open)
				}
				winners := []string{tt.won}
				if tt.won == "*" {
					winners = strings.Fields(tt.addrs)
				}
				if got := conn.(*fakeConn).addr; !slices.Contains(winners, got) {
					t.Errorf("%s won, want %s", got, tt.won)
				}
			})
		})
	}
}
