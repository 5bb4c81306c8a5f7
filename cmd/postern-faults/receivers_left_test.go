package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nothingLeft waits until the process has no connection to a receiver, but for those to the stuck one. Idle connections end
// after 50 s; the quick form looks only at those which must end at once.
func (w *ward) nothingLeft(t *testing.T, stuck int) {
	t.Helper()
	for _, p := range w.patients {
		if p.serve == nil || p.class == "ok" || p.class == "status" || p.alpn == "h2" || p.body > 0 {
			continue // these may be used again, or their rogue does not look
		}
		waitUntil(t, 10*time.Second, p.name+": the connections of failed attempts are closed", func() bool { return p.held() == 0 })
	}
	if !full() {
		return
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		left := w.process.outgoing(t)
		if left == stuck {
			return
		}
		if time.Now().After(end) {
			for _, p := range w.patients {
				if n := p.held(); n > 0 {
					t.Logf("%s: %d connections are open", p.name, n)
				}
			}
			t.Fatalf("after two minutes %d connections to receivers are open, want the %d to the stuck one", left, stuck)
		}
	}
}

// outgoing returns how many sockets of the process are for port 443 of somebody else.
func (p *process) outgoing(t *testing.T) (n int) {
	t.Helper()
	_, own := p.files(t)
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		const remote, inode = 2, 9 // of the columns, proc_net_tcp(5)
		if f := strings.Fields(line); len(f) > inode && strings.HasSuffix(f[remote], ":01BB") && own[f[inode]] {
			n++
		}
	}
	return n
}

// onlyStuckLeft ends the process and looks where each of its goroutines stood: no attempt or connection may have left one
// behind, but for those that the stuck receiver holds, which show that this look sees them. Their number alone would not
// say so, for a lane keeps the workers that it has once begun.
func (w *ward) onlyStuckLeft(t *testing.T, stuck int) {
	t.Helper()
	standing := w.process.dump(t)
	for _, c := range []struct {
		in   string
		want int
	}{
		{"relay/egress.(*Sender).Send", stuck},
		{"net/http.(*persistConn).readLoop", stuck},
		{"net/http.(*persistConn).writeLoop", stuck},
		{"net/http.(*Transport).dialConn", 0},
		{"net/http.(*http2clientStream)", 0},
		{"net/http.(*http2ClientConn)", 0},
		{"relay/guard.(*gatherConn)", 0},
	} {
		n, where := 0, ""
		for stack, count := range standing {
			if strings.Contains(stack, c.in) {
				n, where = n+count, where+stack+"\n\n"
			}
		}
		if n != c.want {
			t.Errorf("%d goroutines are left in %s, want %d:\n%s", n, c.in, c.want, where)
		}
	}
}

// dump ends the process as a watchdog does, by SIGQUIT, and returns how many goroutines stood at each stack.
func (p *process) dump(t *testing.T) map[string]int {
	t.Helper()
	p.signalGroup(syscall.SIGQUIT)
	p.wait(t, 30*time.Second)
	_, text, found := strings.Cut(p.log.String(), "goroutine profile: total ")
	_, text, _ = strings.Cut(text, "\n")
	standing := map[string]int{}
	for stanza := range strings.SplitSeq(text, "\n\n") {
		head, stack, ok := strings.Cut(stanza, "\n")
		count, _, _ := strings.Cut(head, " @ ")
		if n, err := strconv.Atoi(count); ok && err == nil {
			standing[stack] += n
		}
	}
	if !found || len(standing) == 0 {
		t.Fatalf("SIGQUIT showed no goroutines:\n%s", p.log)
	}
	return standing
}
