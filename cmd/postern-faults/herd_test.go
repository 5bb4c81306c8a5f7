package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/receiver"
)

const (
	// herdAnswer is how long a receiver of a herd takes to answer: what comes to it within that time is in flight at once.
	herdAnswer = 20 * time.Millisecond

	// herdBurst is how much of a rate a lane may make up for at once.
	herdBurst = 20 * time.Millisecond
)

// herd is a relay with some destinations that have a rate and a concurrency, and a backlog for each of them.
type herd struct {
	*site
	t           *testing.T
	ledger      *ledger
	chance      *rand.Rand
	names       []string
	rate        int
	concurrency int
}

// newHerd makes the receivers, which are out.
func newHerd(t *testing.T, prefix string, destinations, rate, concurrency int, keys string) *herd {
	t.Helper()
	h := &herd{t: t, ledger: newLedger(), chance: seeded(t), rate: rate, concurrency: concurrency}
	o := siteOptions{IP: prefix + "1", Config: "log: {format: json, level: warn}", Program: plainPostern(t)}
	for n := range destinations {
		name := fmt.Sprintf("herd%d", n)
		h.names = append(h.names, name)
		o.Destinations = append(o.Destinations, destination{
			Name: name, IP: fmt.Sprintf("%s%d", prefix, n+2), Keys: fmt.Sprintf("rate: %d/s, concurrency: %d, %s", rate, concurrency, keys),
		})
	}
	h.site = newSite(t, o)
	h.outage(true)
	return h
}

// outage has all receivers be out, or back.
func (h *herd) outage(out bool) {
	for _, f := range h.fars {
		f.SetFault(receiver.Fault{Kind: receiver.Slow, Delay: herdAnswer})
		f.Outage(out)
	}
}

// fill posts so many messages to each destination, as fast as it can.
func (h *herd) fill(each int, tag string) {
	h.t.Helper()
	var posting sync.WaitGroup
	for n, name := range h.names {
		r := rand.New(rand.NewPCG(h.chance.Uint64(), uint64(n)))
		posting.Go(func() {
			client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for sent := 0; sent < each; {
				o := outgoing{path: "/batch", header: http.Header{"Content-Type": {"application/x-ndjson"}}}
				for ; len(o.parts) < 500 && sent < each; sent++ {
					data := uniqueBody(r, tag+name, sent, 100)
					o.parts, o.lines = append(o.parts, data), append(o.lines, "")
					o.body = fmt.Appendf(o.body, `{"to":%q,"data":%s}`+"\n", name, data)
				}
				if status, err := h.ledger.post(context.Background(), client, h.site, o); err != nil || status != http.StatusAccepted {
					h.t.Errorf("post: %d, %v; want 202", status, err)
					return
				}
			}
		})
	}
	posting.Wait()
}

// since returns the times at which requests were taken from a moment on, by the destination.
func (h *herd) since(begin time.Time) map[string][]time.Time {
	all := map[string][]time.Time{}
	for _, name := range h.names {
		f := h.fars[name]
		f.mu.Lock()
		for _, arrivals := range f.arrived {
			for _, a := range arrivals {
				if !a.at.Before(begin) {
					all[name] = append(all[name], a.at)
				}
			}
		}
		f.mu.Unlock()
		slices.SortFunc(all[name], time.Time.Compare)
	}
	return all
}

// densest returns the most times within any span of that length.
func densest(times []time.Time, span time.Duration) (most int) {
	first := 0
	for last := range times {
		for times[last].Sub(times[first]) >= span {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// holds checks what was taken from a moment on against rate and concurrency, and returns what was taken in the densest
// second, and within the time of an answer, of any destination. slack is what a restart may add.
func (h *herd) holds(what string, begin time.Time, slack int) (second, atOnce int) {
	h.t.Helper()
	for name, times := range h.since(begin) {
		s, c := densest(times, time.Second), densest(times, herdAnswer)
		// Times are those of the receiver: what waits there for a processor arrives a little closer together.
		if most := int(float64(h.rate)*(time.Second+2*herdBurst).Seconds()) + 2 + slack; s > most {
			h.t.Errorf("%s: %s got %d requests within a second, want at most %d", what, name, s, most)
		}
		if c > h.concurrency+slack {
			h.t.Errorf("%s: %s got %d requests within the %s that one takes, want at most %d at a time", what, name, c, herdAnswer, h.concurrency)
		}
		second, atOnce = max(second, s), max(atOnce, c)
	}
	return second, atOnce
}

// drained waits until all that was accepted has arrived, and nothing is pending.
func (h *herd) drained(within time.Duration) tally {
	h.t.Helper()
	c := h.settle(h.ledger, within)
	waitUntil(h.t, within, "nothing is pending", func() bool {
		o, err := h.client().Overview(context.Background())
		return err == nil && o.Pending == 0
	})
	return c
}

// TestFaultHerd has receivers be out for long while posts come at a high rate, and back. From the first second rate and
// concurrency hold, and what is posted meanwhile arrives within the time that what waits before it takes.
func TestFaultHerd(t *testing.T) {
	top, each, rate, atATime := t, pick(150, 20_000), pick(300, 1000), pick(12, 32)
	h := newHerd(t, "127.0.66.", 3, rate, atATime, "retry: {attempts: 100, first: 200ms, max: 1s, factor: 2, jitter: 0.5}, breaker: {failures: 5, probe_every: 500ms}")
	p := h.start(t)
	h.fill(each, "outage")
	time.Sleep(pick(time.Second, time.Minute))

	// All come back at once, and apps go on posting.
	back := time.Now()
	h.outage(false)
	fresh := newLedger()
	app := h.load(h.chance, fresh, 2, func(r *rand.Rand, n int) outgoing {
		time.Sleep(20 * time.Millisecond)
		return plainPosts(h.names[n%len(h.names)], "fresh", 100)(r, n)
	})
	time.Sleep(time.Duration(each) * time.Second / time.Duration(rate) / 2)
	app.stop()
	for id, a := range fresh.messages() {
		h.ledger.mu.Lock()
		h.ledger.accepted[id], h.ledger.posted[a.digest] = a, true
		h.ledger.mu.Unlock()
	}
	bound := pick(30*time.Second, 15*time.Minute) // of a machine that has little to give
	c := h.drained(bound)
	second, atOnce := h.holds("back", back, 0)
	drained := h.lastArrival().Sub(back)
	longest, last := h.waits(fresh)
	if longest > drained+time.Second {
		t.Errorf("what was posted during the recovery waited up to %s, want no more than the %s that all of it took", longest, drained)
	}
	if n := h.overtaken(fresh); n > atATime {
		t.Errorf("one that was posted during the recovery saw %d arrive that were posted a second later, want at most %d", n, atATime)
	}
	report(t, "herd", "%d destinations back at once with %d pending each, %d/s and %d at a time: at most %d in a second, %d at once, "+
		"from the first second; drained in %s; %d posted meanwhile waited at most %s, the last %s, none overtaken", len(h.names), each, rate, atATime, second, atOnce,
		drained.Round(100*time.Millisecond), fresh.count(), longest.Round(time.Millisecond), last.Round(time.Millisecond))
	c.check(t)

	t.Run("a restart with a backlog", func(t *testing.T) {
		h.t = t
		h.outage(true)
		h.fill(each, "restart")
		p.kill(t)
		h.outage(false)
		begin := time.Now()
		p = h.start(top) // it goes on for the other parts
		c := h.drained(bound)
		second, atOnce := h.holds("restart", begin, 0)
		report(t, "herd", "kill -9 and a start with %d pending for each of %d receivers that are back: at most %d in a second, %d at once: %s",
			each, len(h.names), second, atOnce, c)
		c.check(t)
	})
	t.Run("a long pause ends", func(t *testing.T) {
		h.t = t
		for _, name := range h.names {
			if _, err := h.client().Pause(t.Context(), name, "maintenance"); err != nil {
				t.Fatal(err)
			}
		}
		h.fill(each, "pause")
		begin := time.Now()
		for _, name := range h.names {
			if _, err := h.client().Resume(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		c := h.drained(bound)
		second, atOnce := h.holds("resume", begin, 0)
		report(t, "herd", "%d destinations resumed at once with %d pending each: at most %d in a second, %d at once: %s", len(h.names), each, second, atOnce, c)
		c.check(t)
	})
	t.Run("thousands are replayed", func(t *testing.T) {
		h.t = t
		begin := time.Now()
		filter := admin.DeliveryFilter{Destination: h.names[0], State: "delivered"}
		dry, err := h.client().ReplayAll(t.Context(), admin.BulkReplay{Filter: filter, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		done, err := h.client().ReplayAll(t.Context(), admin.BulkReplay{Filter: filter, ExpectCount: &dry.Matched})
		if err != nil || done.Replayed != dry.Matched || dry.Matched < 3*each {
			t.Fatalf("got %+v after %+v, error %v; want all replayed", done, dry, err)
		}
		waitUntil(t, bound, "all replayed have arrived again", func() bool { return len(h.since(begin)[h.names[0]]) >= dry.Matched })
		second, atOnce := h.holds("replay", begin, 0)
		report(t, "herd", "%d deliveries replayed at once: each came once more, at most %d in a second, %d at once", done.Replayed, second, atOnce)
	})
	p.stop(t)
}

// waits returns the longest time from a post to its arrival, and that of the post that was accepted last.
func (h *herd) waits(l *ledger) (longest, last time.Duration) {
	var latest time.Time
	for id, entry := range l.messages() {
		for _, name := range entry.to {
			if arrivals := h.fars[name].arrivals(id); len(arrivals) > 0 {
				wait := arrivals[0].at.Sub(entry.at)
				longest = max(longest, wait)
				if entry.at.After(latest) {
					latest, last = entry.at, wait
				}
			}
		}
	}
	return longest, last
}

// lastArrival returns when the last request was taken.
func (h *herd) lastArrival() (last time.Time) {
	for _, times := range h.since(time.Time{}) {
		if len(times) > 0 && times[len(times)-1].After(last) {
			last = times[len(times)-1]
		}
	}
	return last
}

// overtaken returns how many messages of one destination arrived before another one that had been accepted a second before
// them, at most.
func (h *herd) overtaken(l *ledger) (most int) {
	type passage struct{ accepted, arrived time.Time }
	passages := map[string][]passage{}
	for id, entry := range l.messages() {
		for _, name := range entry.to {
			if arrivals := h.fars[name].arrivals(id); len(arrivals) > 0 {
				passages[name] = append(passages[name], passage{entry.at, arrivals[0].at})
			}
		}
	}
	for _, all := range passages {
		for _, one := range all {
			n := 0
			for _, other := range all {
				if other.accepted.Sub(one.accepted) > time.Second && other.arrived.Before(one.arrived) {
					n++
				}
			}
			most = max(most, n)
		}
	}
	return most
}
