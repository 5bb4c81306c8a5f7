package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is what a DNS server says about one name.
type zone struct {
	answers []string      // addresses by spaces for each question for IPv4, the last one for all further; empty for none
	code    string        // in place of an answer: "nxdomain", "servfail", "garbage", or "silent"
	times   int           // how many questions meet the code, and 0 means all
	delay   time.Duration // before each answer

	turn  int // questions for IPv4 since the answers began from the first one
	asked int // and in all
}

// dnsServer is a small DNS server on port 53 of a loopback address.
type dnsServer struct {
	conn net.PacketConn
	over chan struct{}
	work sync.WaitGroup

	mu    sync.Mutex // guards zones
	zones map[string]*zone
}

// newDNS serves the zones until the end of the test.
func newDNS(t *testing.T, ip string, zones map[string]*zone) *dnsServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(ip, "53"))
	if err != nil {
		t.Fatalf("listen (port 53 needs root or CAP_NET_BIND_SERVICE): %v", err)
	}
	s := &dnsServer{conn: conn, over: make(chan struct{}), zones: zones}
	s.work.Go(func() {
		for {
			question := make([]byte, 1500)
			n, from, err := conn.ReadFrom(question)
			if err != nil {
				return // the end of the test
			}
			s.work.Go(func() { s.answer(question[:n], from) })
		}
	})
	t.Cleanup(func() {
		close(s.over)
		_ = conn.Close()
		s.work.Wait()
	})
	return s
}

// asked is how often an address of a name was asked for.
func (s *dnsServer) asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zones[name].asked
}

func (s *dnsServer) answer(question []byte, to net.Addr) {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return
	}
	q := m.Questions[0]
	s.mu.Lock()
	z := s.zones[strings.TrimSuffix(q.Name.String(), ".")]
	if z == nil {
		z = &zone{code: "nxdomain"}
	}
	four := q.Type == dnsmessage.TypeA
	if four {
		z.turn++
		z.asked++
	}
	code, turn := z.code, max(z.turn, 1)
	if z.times > 0 && turn > z.times {
		code = ""
	}
	var addrs []string
	if len(z.answers) > 0 {
		addrs = strings.Fields(z.answers[min(turn, len(z.answers))-1])
	}
	delay := z.delay
	s.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-s.over:
			return
		}
	}
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true}
	m.Additionals = nil
	switch code {
	case "silent":
		return
	case "garbage":
		_, _ = s.conn.WriteTo([]byte("no answer at all"), to)
		return
	case "nxdomain":
		m.RCode = dnsmessage.RCodeNameError
	case "servfail":
		m.RCode = dnsmessage.RCodeServerFailure
	default:
		for _, text := range addrs {
			addr := netip.MustParseAddr(text)
			head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
			switch {
			case four && addr.Is4():
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: addr.As4()}})
			case q.Type == dnsmessage.TypeAAAA && addr.Is6():
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
			}
		}
	}
	if text, err := m.Pack(); err == nil {
		_, _ = s.conn.WriteTo(text, to)
	}
}

// resolveBy has the processes that this goroutine starts ask one DNS server alone.
func resolveBy(t *testing.T, ip string) {
	t.Helper()
	ownMounts(t)
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+ip+"\noptions timeout:2 attempts:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const resolv = "/etc/resolv.conf"
	if err := syscall.Mount(file, resolv, "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("mount over %s: %v", resolv, err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(resolv, syscall.MNT_DETACH) })
}

// TestFaultDNS has the names of receivers resolve in all the wrong ways, at the same time, while a destination beside them
// goes on. Nothing is ever sent to an address that the guard does not allow, whatever the name led to before.
func TestFaultDNS(t *testing.T) {
	const good, resetting, inner, server = "127.0.65.11", "127.0.65.12", "127.0.65.13", "127.0.65.10"
	type attempt struct{ class, text string }
	cases := []struct {
		name  string
		zone  zone
		state string
		want  []attempt
	}{
		{"no such name", zone{code: "nxdomain"}, "failed", []attempt{{"dns", "no such host"}, {"dns", "no such host"}}},
		{"a server that fails", zone{code: "servfail"}, "failed", []attempt{{"dns", "could not say"}, {"dns", "could not say"}}},
		{"a server that fails at first", zone{code: "servfail", times: 1, answers: []string{good}}, "delivered", []attempt{{"dns", ""}, {"ok", ""}}},
		{"a server that says nothing", zone{code: "silent"}, "failed", []attempt{{"dns", "in time"}, {"dns", "in time"}}},
		{"a server that answers no DNS", zone{code: "garbage"}, "failed", []attempt{{"dns", ""}, {"dns", ""}}},
		{"a name without an address", zone{}, "failed", []attempt{{"dns", ""}, {"dns", ""}}},
		{"a slow server", zone{delay: 400 * time.Millisecond, answers: []string{good}}, "delivered", []attempt{{"ok", ""}}},
		{"an address that nobody has", zone{answers: []string{"127.0.65.250"}}, "failed", []attempt{{"connect", "refused"}, {"connect", "refused"}}},
		{"rebinding to a private address", zone{answers: []string{resetting, inner}}, "failed", []attempt{{"connect", "reset"}, {"blocked", inner}}},
		{"rebinding to the metadata address", zone{answers: []string{resetting, "169.254.169.254"}}, "failed", []attempt{{"connect", "reset"}, {"blocked", "169.254.169.254"}}},
		{"a private address among others", zone{answers: []string{good + " " + inner}}, "failed", []attempt{{"blocked", inner}}},
		{"a private address that is written as IPv6", zone{answers: []string{good + " ::ffff:" + inner}}, "failed", []attempt{{"blocked", inner}}},
		{"more addresses than anybody has", zone{answers: []string{strings.Repeat(good+" ", 40)}}, "failed", []attempt{{"blocked", "40 addresses"}}},
		{"another receiver's address after a failure", zone{answers: []string{resetting, good}}, "delivered", []attempt{{"connect", "reset"}, {"ok", ""}}},
	}
	resolveBy(t, server)
	s := newSite(t, siteOptions{IP: "127.0.65.14", Config: "log: {level: error}", Destinations: []destination{{Name: "healthy", IP: "127.0.65.15"}}})
	zones, names := map[string]*zone{}, []string(nil)
	var lines strings.Builder
	for n := range cases {
		name := fmt.Sprintf("name-%d.dns.test", n)
		names = append(names, name)
		zones[name] = &cases[n].zone
		fmt.Fprintf(&lines, "  dns-%d: {url: \"https://%s/hook\", tls: {ca_file: %q}, allow_networks: [127.0.65.11/32, 127.0.65.12/32, 127.0.65.250/32], "+
			"breaker: none, timeout: 20s, retry: {schedule: [0s, 50ms], jitter: 0}}\n", n, name, s.caFile)
	}
	dns := newDNS(t, server, zones)
	cert, err := s.ca.Issue(names...)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	// On a connection that stays, the next message would go without a question.
	taker := newRogue(t, good, config, answers("HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
	newRogue(t, resetting, config, after((*rogueLine).reset))
	private := newRogue(t, inner, config, answers(created))
	writeFile(t, s.config, s.text()+lines.String())
	p := s.start(t)
	l, client := newLedger(), appClient(t)
	load := s.load(seeded(t), l, 1, plainPosts("healthy", "dns", 100))
	ids := make([][]string, len(cases))
	for range pick(1, 10) {
		for n := range cases {
			a, err := s.postTo(t.Context(), client, fmt.Sprintf("dns-%d", n), "{}")
			if err != nil {
				t.Fatal(err)
			}
			ids[n] = append(ids[n], a.Deliveries[0].ID)
			if full() {
				waitUntil(t, 60*time.Second, "the delivery has ended", func() bool { // each meets the answers from the first one
					d, err := s.client().Delivery(t.Context(), a.Deliveries[0].ID)
					return err == nil && d.State != "pending"
				})
				dns.again(names[n])
			}
		}
	}
	attempts := 0
	for n := range cases {
		tc := &cases[n] // its zone is being asked
		for _, id := range ids[n] {
			var got []string
			waitUntil(t, 60*time.Second, tc.name+": the delivery has ended", func() bool {
				d, err := s.client().Delivery(t.Context(), id)
				if err != nil || d.State == "pending" {
					return false
				}
				got = append(got[:0], d.State)
				for _, a := range d.History {
					got = append(got, a.Class+" "+a.Error)
				}
				return true
			})
			attempts += len(got) - 1
			right := len(got) == len(tc.want)+1 && got[0] == tc.state
			for i := 0; right && i < len(tc.want); i++ {
				right = strings.HasPrefix(got[i+1], tc.want[i].class+" ") && strings.Contains(got[i+1], tc.want[i].text)
			}
			if !right {
				t.Errorf("%s: got %q, want %s after %q", tc.name, got, tc.state, tc.want)
			}
		}
		if got := dns.asked(names[n]); got < len(ids[n]) {
			t.Errorf("%s: the server was asked %d times for %d messages: this tests nothing", tc.name, got, len(ids[n]))
		}
	}
	load.stop()
	if private.conns.Load() > 0 {
		t.Errorf("%d connections came to an address that is not allowed", private.conns.Load())
	}
	if taker.requests.Load() == 0 {
		t.Error("no request came to the address that is allowed: this tests nothing")
	}
	c := s.settle(l, 60*time.Second)
	c.check(t)
	p.stop(t)
	report(t, "receivers", "%d ways of DNS to be wrong (failing, silent, slow, rebinding to private addresses), %d attempts, each on record as documented, none to an address that is not allowed; beside them: %s",
		len(cases), attempts, c)
}

// again begins the answers about a name from the first one.
func (s *dnsServer) again(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones[name].turn = 0
}
