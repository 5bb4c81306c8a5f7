package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// keptOpen is a request after which a connection is idle, and may be used again.
const keptOpen = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

// TestFaultIdleConnections has far more connections at ingest than it takes, which ask for nothing. Posts on new
// connections go on all the while.
func TestFaultIdleConnections(t *testing.T) {
	crowdSize, posts := pick(300, 20_000), pick(10, 500)
	o := siteOptions{IP: "127.0.65.1", Config: "log: {level: error}", Destinations: []destination{{Name: "far", IP: "127.0.65.2"}}}
	var wrap []string
	if full() {
		o.Program = plainPostern(t) // the race detector takes memory of its own
	} else {
		wrap = limited(656) // so that a hundred connections are all that it takes
	}
	s := newSite(t, o)
	p := s.launch(t, wrap...)
	p.ready(t, 30*time.Second)
	l := newLedger()
	quiet := s.newcomers(t, l, "far", posts, 300, 30*time.Second)
	before := p.usage(t)
	silent := gatherElsewhere(t, s.ingest, crowdSize/2, "")
	asked := gatherElsewhere(t, s.ingest, crowdSize/2, keptOpen)
	during := p.usage(t)
	crowded := s.newcomers(t, l, "far", posts, 300, 30*time.Second)
	opened := silent.opened + asked.opened
	if opened < crowdSize*9/10 {
		t.Errorf("only %d of %d connections were opened: this tests nothing", opened, crowdSize)
	}
	silent.disperse()
	asked.disperse()
	waitUntil(t, 90*time.Second, "the descriptors are given back", func() bool {
		time.Sleep(100 * time.Millisecond)
		return p.usage(t).files <= before.files+16
	})
	after := p.usage(t)
	c := s.settle(l, 60*time.Second)
	c.check(t)
	p.stop(t)
	report(t, "resources", "%d idle connections at ingest, which takes fewer: posts on new connections answered in %v, without the crowd in %v; %s; before: %v; with the crowd: %v; after: %v",
		opened, crowded, quiet, c, before, during, after)
}

// TestFaultDescriptors gives the relay few descriptors, and has apps and receivers that hang ask for many times as many.
// Connections must be what is refused: the store never goes without, nothing accepted is lost, and when the crowds have left
// all is as before.
func TestFaultDescriptors(t *testing.T) {
	const limit = 400                                      // of which 72 connections may go out
	pending, many := pick(100, 2000), pick(limit/8, limit) // what is slow waits its turn for 5 s and a place, of 36
	hanging := destination{Name: "hangs", IP: "127.0.65.4", HTTP1: true, Keys: "timeout: 60s, concurrency: 1024, breaker: none, retry: {schedule: [0s, 1h]}"}
	s := newSite(t, siteOptions{IP: "127.0.65.3", Config: "log: {level: error}",
		Destinations: []destination{{Name: "far", IP: "127.0.65.5"}, hanging}})
	allow(t, 8192)
	p := s.launchWith(t, []string{"--drain", "1s"}, limited(limit)...)
	p.ready(t, 30*time.Second)
	before := p.usage(t)
	l := newLedger()
	s.fars["hangs"].SetFault(hangs())
	lost := newLedger() // of the receiver that hangs: no promise but to keep them
	client := newcomerClient()
	r := seeded(t)
	for n := range pending {
		if status, err := lost.post(t.Context(), client, s, outgoing{path: "/to/hangs", body: uniqueBody(r, "hangs", n, 100)}); err != nil || status != 202 {
			t.Fatalf("post to the receiver that hangs: %d, %v", status, err)
		}
	}
	slow := gather(t, s.ingest, many, "POST /to/far HTTP/1.1\r\nHost: localhost\r\nX-A: ")
	asking := gather(t, s.admin, many, keptOpen)
	// In the long form enough that the store has to begin new files.
	crowded := s.newcomers(t, l, "far", pick(10, 400), pick(100<<10, 500<<10), 2*time.Minute)
	during := len(openFiles(t, p))
	slow.disperse()
	asking.disperse()
	s.fars["hangs"].SetFault(none())
	c := s.settle(l, 60*time.Second)
	c.check(t)
	if during > limit {
		t.Errorf("%d descriptors, and the limit is %d", during, limit)
	}
	if p.ended() {
		t.Fatalf("the relay has ended with code %d", p.code())
	}
	after := p.usage(t)
	p.stop(t)
	if log := p.log.String(); strings.Contains(log, "store failed") {
		t.Errorf("the store was starved:\n%s", log)
	}
	report(t, "resources", "%d descriptors for the relay, %d slow posts, %d connections at admin and %d attempts that hang: %d open at the worst, large posts answered in %v, %s; before: %v; after: %v",
		limit, many, many, pending, during, crowded, c, before, after)
}

// TestFaultSlowApps has apps that send their headers and bodies byte by byte, or many requests of which they never read an
// answer. They are cut off in time, and good posts are answered all the while.
func TestFaultSlowApps(t *testing.T) {
	s := newSite(t, siteOptions{IP: "127.0.65.6", Config: "log: {level: error}", Destinations: []destination{{Name: "far", IP: "127.0.65.7"}}})
	p := s.start(t)
	each := pick(10, 500)
	allow(t, 8192)
	l := newLedger()
	quiet := s.newcomers(t, l, "far", pick(10, 300), 300, 20*time.Second)
	begun := time.Now()
	silent := gather(t, s.ingest, each, "")
	headers := gather(t, s.ingest, each, "POST /to/far HTTP/1.1\r\nHost: localhost\r\nX-A: ")
	bodies := gather(t, s.ingest, each, "POST /to/far HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx")
	deaf := gather(t, s.ingest, each, strings.Repeat(keptOpen, 20_000))
	crowded := s.newcomers(t, l, "far", pick(10, 300), 300, 20*time.Second)
	cut := func(what string, c *crowd, bound time.Duration) string {
		t.Helper()
		waitUntil(t, bound, what+" are cut off", func() bool { return c.alive() == 0 })
		return fmt.Sprintf("%s after %.0f s", what, time.Since(begun).Seconds())
	}
	// The times of relay/listen: 5 s for headers, 30 s for a body, 60 s for an answer; and as much again for a busy machine.
	ended := []string{cut("those that are silent", silent, 30*time.Second), cut("slow headers", headers, 30*time.Second)}
	if full() {
		ended = append(ended, cut("slow bodies", bodies, 2*time.Minute))
		time.Sleep(time.Until(begun.Add(65 * time.Second))) // to look is to read
		ended = append(ended, cut("those that never read", deaf, 2*time.Minute))
	}
	for _, c := range []*crowd{bodies, deaf} {
		c.disperse() // else they have the time of the drain
	}
	c := s.settle(l, 60*time.Second)
	c.check(t)
	p.stop(t)
	report(t, "resources", "%d each of apps that are silent, slow in headers, slow in bodies, and that never read: cut off: %s; posts beside them answered in %v, without them in %v; %s",
		each, strings.Join(ended, ", "), crowded, quiet, c)
}
