package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/receiver"
)

// TestFaultFlapping has receivers that are well and ill by turns, faster than the breaker can tell, and in each way that a
// receiver can be. All arrives; what was taken without a good answer comes again, under its id.
func TestFaultFlapping(t *testing.T) {
	// The least time there is, since some hang.
	const keys = "timeout: 1s, retry: {attempts: 100, first: 50ms, max: 500ms, factor: 2}, breaker: {failures: 3, probe_every: 100ms}"
	ways := []receiver.Fault{
		{Kind: receiver.Status}, {Kind: receiver.Status, Status: 429, RetryAfter: "0"}, {Kind: receiver.Hang}, {Kind: receiver.ResetBefore},
		{Kind: receiver.ResetAfter}, {Kind: receiver.CutBody}, {Kind: receiver.HugeHeader}, {Kind: receiver.Redirect, Location: "https://elsewhere.test/"},
		{Kind: receiver.Flood}, {Kind: receiver.Slow, Delay: 50 * time.Millisecond},
	}
	s := newSite(t, siteOptions{IP: "127.0.65.16", Config: "log: {level: error}", Destinations: []destination{
		{Name: "flaps", IP: "127.0.65.17", Keys: keys}, {Name: "flaps1", IP: "127.0.65.18", Keys: keys, HTTP1: true},
		{Name: "steady", IP: "127.0.65.19"},
	}})
	p := s.start(t)
	l, r := newLedger(), seeded(t)
	names := []string{"flaps", "flaps1", "steady"}
	load := s.load(r, l, 2, func(r *rand.Rand, n int) outgoing {
		return outgoing{path: "/to/" + names[n/2%len(names)], body: uniqueBody(r, "flapping", n, 200)}
	})
	// After a hang nothing is on its way for a second, so that what comes next has nobody to harm; in an order that stays,
	// that might be what loses answers. And a short run may lose none by chance: it goes on until it has.
	turns, begin := 0, time.Now()
	least, most := pick(2*time.Second, time.Minute), 2*time.Minute
	more := func() bool {
		is := time.Since(begin)
		return is < least || turns < len(ways) || is < most && s.compare(l).Twice == 0
	}
	for ; more(); turns++ {
		if turns%len(ways) == 0 {
			r.Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
		}
		for i, name := range names[:2] {
			s.fars[name].SetFault(ways[(turns+i)%len(ways)])
		}
		time.Sleep(time.Duration(20+r.IntN(100)) * time.Millisecond)
		for _, name := range names[:2] {
			s.fars[name].SetFault(receiver.Fault{})
		}
		time.Sleep(time.Duration(20+r.IntN(100)) * time.Millisecond)
	}
	load.stop()
	c := s.settle(l, 60*time.Second)
	c.check(t)
	for _, id := range s.fars["steady"].ids() {
		if n := len(s.fars["steady"].arrivals(id)); n != 1 {
			t.Errorf("the steady receiver got %s %d times", id, n)
		}
	}
	if c.Twice == 0 {
		t.Errorf("got %v: no answer was lost, so that this tests little", c)
	}
	waitUntil(t, 60*time.Second, "all deliveries have ended", func() bool { // what has arrived may have to come again
		list, err := s.client().Destinations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			if d.LastHour.Failed > 0 {
				t.Fatalf("%s: %d deliveries have failed, want none", d.Name, d.LastHour.Failed)
			}
		}
		return !slices.ContainsFunc(list, func(d admin.Destination) bool { return d.Pending > 0 })
	})
	c = s.compare(l)
	c.check(t)
	p.stop(t)
	report(t, "receivers", "2 receivers flapped %d times, in %d ways, over HTTP/1.1 and HTTP/2, beside a steady one: %s", turns, len(ways), c)
}
