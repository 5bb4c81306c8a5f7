package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

func hangs() receiver.Fault { return receiver.Fault{Kind: receiver.Hang} }

func none() receiver.Fault { return receiver.Fault{} }

// newcomerClient uses each connection once.
func newcomerClient() *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

// openFiles lists the descriptors of a process.
func openFiles(t *testing.T, p *process) []os.DirEntry {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// TestFaultStreams has many more clients ask for the stream of changes than there may be, and none of them ever reads. The
// others are refused, those that got one are cut off, and neither posts nor the API notice.
func TestFaultStreams(t *testing.T) {
	const most = 100 // streams at a time, by docs/threats.md, T57
	clients := pick(150, 1000)
	allow(t, 8192)
	o := siteOptions{IP: "127.0.65.8", Config: "log: {level: error}", Destinations: []destination{{Name: "far", IP: "127.0.65.9"}}}
	if full() {
		o.Program = plainPostern(t)
	}
	s := newSite(t, o)
	p := s.start(t)
	l := newLedger()
	quiet := s.newcomers(t, l, "far", pick(10, 300), 300, 20*time.Second)
	before := p.usage(t)
	deaf := gather(t, s.admin, clients, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	waitUntil(t, 20*time.Second, fmt.Sprintf("one stream more than the %d that were asked for is refused", clients), func() bool {
		late := gather(t, s.admin, 1, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
		defer late.disperse()
		return late.count() == 1 && strings.Contains(firstLine(late.conns[0]), " 503 ")
	})
	crowded := s.newcomers(t, l, "far", pick(10, 300), 300, 20*time.Second)
	worst := p.usage(t)
	freed := "not waited for"
	if full() { // each takes some megabytes of changes before the kernel holds no more of it
		freed = s.untilStreamsAreCut(t, p, l, &worst)
	}
	deaf.disperse()
	c := s.settle(l, 60*time.Second)
	c.check(t)
	p.stop(t)
	report(t, "resources", "%d clients asked for the stream of changes and never read: at most %d got one; cut off: %s; posts answered in %v, without them in %v; %s; before: %v; at the worst: %v",
		clients, most, freed, crowded, quiet, c, before, worst)
}

// untilStreamsAreCut posts until the relay has cut off streams that are not read, so that there is a place for another one.
func (s *site) untilStreamsAreCut(t *testing.T, p *process, l *ledger, worst *usage) string {
	t.Helper()
	begun := time.Now()
	load := s.load(seeded(t), l, 8, plainPosts("far", "stream", 300))
	defer load.stop()
	waitUntil(t, 5*time.Minute, "the streams that are not read are cut off", func() bool {
		time.Sleep(200 * time.Millisecond)
		now := p.usage(t)
		worst.resident, worst.anonymous = max(worst.resident, now.resident), max(worst.anonymous, now.anonymous)
		worst.goroutines, worst.files = max(worst.goroutines, now.goroutines), max(worst.files, now.files)
		again := gather(t, s.admin, 1, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
		defer again.disperse()
		return again.count() == 1 && strings.Contains(firstLine(again.conns[0]), " 200 ")
	})
	return fmt.Sprintf("after %.0f s of load", time.Since(begun).Seconds())
}
