package listen

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailures(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	peer := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) }
	t.Run("they take bounded memory", func(t *testing.T) {
		f := &failures{}
		for n := range 10 * failurePeers {
			f.add(peer(n), start)
		}
		if got := len(f.byPeer); got > failurePeers+1 {
			t.Errorf("got %d peers remembered, want at most %d", got, failurePeers+1)
		}
	})
	t.Run("a clock that is set back begins a window, and does not freeze the old one", func(t *testing.T) {
		f := &failures{}
		for range 50 {
			f.add(peer(1), start)
		}
		if got := f.add(peer(1), start.Add(-time.Hour)); got.count != 1 || got.wait != 0 || !got.log {
			t.Errorf("got %+v, want the first of a window, with a line", got)
		}
	})
	t.Run("one address has its limit, and leaves the others theirs", func(t *testing.T) {
		f := &failures{}
		for n := 1; n <= failuresAllowed; n++ {
			if got := f.add(peer(1), start); got.count != n || got.wait != 0 {
				t.Fatalf("try %d: got %+v, want it within the limit", n, got)
			}
		}
		if got := f.add(peer(1), start.Add(time.Second)); got.wait != failureWindow-time.Second {
			t.Errorf("got %+v, want to wait for the rest of the window", got)
		}
		if got := f.add(peer(2), start.Add(time.Second)); got.wait != 0 {
			t.Errorf("got %+v for another address, want it within the limit", got)
		}
		if got := f.add(peer(1), start.Add(failureWindow)); got.wait != 0 || got.count != 1 {
			t.Errorf("got %+v in the next window, want a new count", got)
		}
	})
	t.Run("all together have one", func(t *testing.T) {
		f := &failures{}
		for n := 1; n <= failuresInAll; n++ {
			if got := f.add(peer(n), start); got.wait != 0 {
				t.Fatalf("try %d: got %+v, want it within the limit", n, got)
			}
		}
		if got := f.add(peer(failuresInAll+1), start); got.wait != failureWindow || got.count != 1 {
			t.Errorf("got %+v, want the first try of one more address refused", got)
		}
	})
	t.Run("there is at most one line a second, and one a minute beyond the limit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &failures{}
			lines, unsaid := 0, 0
			for range 10 * 60 { // a try every 100 ms for a minute: the limit is reached after 2 s
				got := f.add(peer(1), time.Now())
				if got.log {
					lines++
					unsaid += got.unsaid
				}
				time.Sleep(100 * time.Millisecond)
			}
			if lines != 3 || unsaid != 18 {
				t.Errorf("got %d lines that tell of %d more, want 3 and 18", lines, unsaid)
			}
			if got := f.add(peer(1), time.Now()); !got.log || got.unsaid != 579 {
				t.Errorf("got %+v in the next window, want a line that tells of all the others", got)
			}
		})
	})
}

func TestFindSaysWhichTokenItIs(t *testing.T) {
	var list []Token
	for n := range 100 {
		digest, err := ParseToken(fmt.Sprintf("token-%d", n))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Token{Name: fmt.Sprint(n), Digest: digest})
	}
	all := newTokens(list, nil, nil)
	for n, token := range list {
		if got := all.find(token.Digest); got == nil || got.Name != fmt.Sprint(n) {
			t.Errorf("got %v for the token %d", got, n)
		}
	}
	near := list[7].Digest
	near[len(near)-1] ^= 1
	if got := all.find(near); got != nil {
		t.Errorf("got %q for a digest that differs in one bit, want none", got.Name)
	}
	if got := (tokens)(nil).find(list[0].Digest); got != nil {
		t.Errorf("got %q of no tokens, want none", got.Name)
	}
}

func TestVisitsThatComeTooLateAreCutOff(t *testing.T) {
	v := new(visits)
	first, leave := v.begin(t.Context())
	second, leaveSecond := v.begin(t.Context())
	leave()
	leave() // once more does no harm
	if got := context.Cause(first); got == nil || errors.Is(got, errWithdrawn) {
		t.Errorf("got %v for a request that is over, want it ended, and not for its token", got)
	}
	if second.Err() != nil || len(v.open) != 1 {
		t.Errorf("got %v and %d open, want the second request in progress", second.Err(), len(v.open))
	}
	v.end()
	late, leaveLate := v.begin(t.Context())
	if !errors.Is(context.Cause(second), errWithdrawn) || !errors.Is(context.Cause(late), errWithdrawn) {
		t.Errorf("got %v and %v, want both cut off", context.Cause(second), context.Cause(late))
	}
	leaveSecond()
	leaveLate()
	if len(v.open) != 0 {
		t.Errorf("got %d open after the end, want none", len(v.open))
	}
}

func FuzzBearer(f *testing.F) {
	for _, seed := range []string{"", "Bearer", "Bearer ", "Bearer a", "bearer  a", "Bearer a b", "Basic a", "Bearer a,Bearer b", "Bearer\ta", " Bearer a", "Bearer a="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		token, why := bearer([]string{value})
		if _, twice := bearer([]string{value, value}); twice != tokenMalformed {
			t.Errorf("got %q for two headers, want them refused", twice)
		}
		if why != "" {
			if token, why := bearer([]string{"Bearer " + value}); why == "" && token != strings.TrimLeft(value, " ") {
				t.Errorf("got the token %q of %q", token, value)
			}
			return
		}
		if _, err := ParseToken(token); err != nil {
			t.Errorf("%q: got the token %q, which is none: %v", value, token, err)
		}
		scheme := strings.TrimRight(strings.TrimSuffix(value, token), " ")
		if len(scheme) != len("Bearer") || !strings.HasSuffix(value, " "+token) {
			t.Errorf("%q: got the token %q, which is not all that stands behind the scheme", value, token)
		}
		if again, why := bearer([]string{"Bearer " + token}); why != "" || again != token {
			t.Errorf("%q: got %q and %q when it is sent plainly", value, again, why)
		}
	})
}

func TestPeerOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "[2001:db8:1:2:3::4]:9": "2001:db8:1:2::", "[::ffff:192.0.2.7]:1": "192.0.2.7",
		"@": "invalid IP", "": "invalid IP", "unix:uid=1000,pid=42": "invalid IP", "[fe80::1%eth0]:1": "fe80::",
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
