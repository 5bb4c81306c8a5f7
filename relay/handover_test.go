package relay

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/store"
)

func TestWhatHangsHoldsUpNoReload(t *testing.T) {
	with := func(team string) string {
		return `
destinations:
  a: {url: "https://a.test/", concurrency: 1, timeout: 10m, headers: {X-Team: ` + team + `}}
  b: {url: "https://b.test/", headers: {X-Team: ` + team + `}}
`
	}
	r := newRig(t, with("first"))
	r.far.hang("a.test")
	hanging := r.accept(t, "a")
	until(t, "the first attempt is in flight", func() bool { return len(r.far.of("a.test")) == 1 })
	waiting := r.accept(t, "a")
	r.reloadWith(t, with("second"))
	until(t, "what waited is attempted beside what hangs", func() bool { return len(r.far.of("a.test")) == 2 })
	r.awaitState(t, r.accept(t, "b"), store.Delivered)
	for range 5 {
		r.reloadWith(t, with("third"))
		r.reloadWith(t, with("fourth"))
	}
	r.far.open()
	r.awaitState(t, hanging, store.Delivered)
	r.awaitState(t, waiting, store.Delivered)
	requests := r.far.of("a.test")
	var teams []string
	for _, req := range requests {
		teams = append(teams, req.header.Get("X-Team"))
	}
	if want := []string{"first", "second"}; !slices.Equal(teams, want) {
		t.Errorf("got requests of %q, want %q: each one once, and by the config of its beginning", teams, want)
	}
	r.awaitState(t, r.accept(t, "a"), store.Delivered)
	if got := r.far.of("a.test")[2].header.Get("X-Team"); got != "fourth" {
		t.Errorf("got a request of %q, want the fourth", got)
	}
}

func TestADestinationThatGoesAndComesBack(t *testing.T) {
	for name, without := range map[string]string{
		"removed":     "\ndestinations:\n  b: {url: 'https://b.test/', events: ['order.*']}\n",
		"not enabled": edit(t, "a: {", "a: {enabled: false, "),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, twoDestinations)
			r.far.hang("a.test")
			inFlight := r.accept(t, "a")
			until(t, "the attempt is in flight", func() bool { return len(r.far.of("a.test")) == 1 })
			r.reloadWith(t, without)
			held := r.logs.FilterMessage("deliveries held").All()
			if len(held) != 1 || held[0].ContextMap()["destination"] != "a" {
				t.Errorf("got %d lines about what is held, want one about a", len(held))
			}
			status, _ := r.post(t, "/to/a", "{}")
			if want := map[string]int{"removed": 404, "not enabled": 202}[name]; status != want {
				t.Errorf("got %d for a post, want %d", status, want)
			}
			if _, text := r.post(t, "/events/order.paid", "{}"); strings.Contains(text, `"a"`) {
				t.Errorf("an event still goes there: %s", text)
			}
			// Back while the attempt still hangs: it must not be made a second time.
			r.reloadWith(t, twoDestinations)
			next := r.accept(t, "a")
			until(t, "the next is attempted", func() bool { return len(r.far.of("a.test")) >= 2 })
			r.reloadWith(t, without)
			r.far.open()
			r.awaitState(t, inFlight, store.Delivered)
			r.awaitState(t, next, store.Delivered)
			until(t, "nothing of the lane is left", func() bool { return r.lane("a") == nil })

			r.far.answer("a.test", func(int) int { return 500 }) // nothing goes there now
			before := len(r.far.of("a.test"))
			r.awaitState(t, r.accept(t, "b"), store.Delivered)
			r.reloadWith(t, without+"# again\n")
			if got := len(r.far.of("a.test")); got != before {
				t.Errorf("got %d requests while it was gone, want none", got-before)
			}
			r.far.answer("a.test", nil)
			r.reloadWith(t, twoDestinations)
			last := r.accept(t, "a")
			r.awaitState(t, last, store.Delivered)
			until(t, "nothing is left behind", func() bool { return r.memory.Pending() == 0 })
			if doubled := r.far.doubled; len(doubled) != 0 {
				t.Errorf("attempted twice at the same time: %v", doubled)
			}
		})
	}
	t.Run("a retry stays for when it is back", func(t *testing.T) {
		r := newRig(t, twoDestinations)
		r.far.answer("a.test", func(n int) int {
			if n == 1 {
				return 503
			}
			return 200
		})
		r.far.hang("a.test")
		id := r.accept(t, "a")
		until(t, "the attempt is in flight", func() bool { return len(r.far.of("a.test")) == 1 })
		r.reloadWith(t, edit(t, "a: {", "c: {"))
		r.far.open()
		until(t, "the attempt is on record", func() bool { return r.delivery(t, id).Made == 1 })
		until(t, "nothing of the lane is left", func() bool { return r.lane("a") == nil })
		r.reloadWith(t, twoDestinations)
		r.awaitState(t, id, store.Delivered)
	})
	t.Run("a pause lasts, and is ended while it is gone", func(t *testing.T) {
		r := newRig(t, twoDestinations)
		s := steering{r.Relay}
		if err := s.Pause(t.Context(), "a", "by hand"); err != nil {
			t.Fatal(err)
		}
		off := edit(t, "a: {", "a: {enabled: false, ")
		r.reloadWith(t, off)
		until(t, "nothing of the lane is left", func() bool { return r.lane("a") == nil })
		id := r.accept(t, "a")
		r.reloadWith(t, twoDestinations)
		if p := r.lane("a").Stats().Paused; p == nil || p.Reason != "by hand" {
			t.Errorf("got pause %v, want that from before", p)
		}
		r.reloadWith(t, off)
		if err := s.Resume(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		r.reloadWith(t, twoDestinations)
		r.awaitState(t, id, store.Delivered)
	})
}

func TestConnectionsOfAnEarlierConfigAreClosed(t *testing.T) {
	closed := make(chan string, 10)
	o := &outlet{closeIdle: func() { closed <- "" }}
	leave := make(chan struct{})
	o.sender = sendFunc(func() { <-leave })
	var sends sync.WaitGroup
	for range 2 {
		sends.Go(func() { o.Send(context.Background(), store.Delivery{}) })
	}
	until(t, "both are in flight", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.sending == 2
	})
	o.retire()
	if len(closed) != 1 {
		t.Errorf("got %d calls, want one: what is idle goes at once", len(closed))
	}
	leave <- struct{}{}
	leave <- struct{}{}
	sends.Wait()
	if len(closed) != 2 {
		t.Errorf("got %d calls, want one more after the last attempt", len(closed))
	}
}

// sendFunc is a sender that takes its time.
type sendFunc func()

func (f sendFunc) Send(context.Context, store.Delivery) store.Attempt {
	f()
	return store.Attempt{Class: store.ClassOK}
}

func TestAnOutageIsThatOfAURL(t *testing.T) {
	text := func(url, team string) string {
		return `
destinations:
  a: {url: "` + url + `", headers: {X-Team: ` + team + `}, breaker: {failures: 2, probe_every: 1h}, concurrency: 1}
`
	}
	r := newRig(t, text("https://a.test/", "first"))
	r.far.answer("a.test", func(int) int { return 502 })
	var ids []store.DeliveryID
	for range 5 {
		ids = append(ids, r.accept(t, "a"))
	}
	until(t, "the breaker opens", func() bool { return r.lane("a").Stats().Breaker == lane.BreakerOpen })
	r.reloadWith(t, text("https://a.test/", "second"))
	until(t, "a probe has failed", func() bool {
		return len(r.far.of("a.test")) == 3 && r.lane("a").Stats().Breaker == lane.BreakerOpen && r.lane("a").Stats().InFlight == 0
	})
	r.reloadWith(t, text("https://b.test/", "second"))
	delivered := func() (n int) {
		for _, id := range ids {
			if r.delivery(t, id).State == store.Delivered {
				n++
			}
		}
		return n
	}
	// The one that was a probe waits longer, as its record says.
	until(t, "what waited is delivered to the other", func() bool { return delivered() >= 4 })
	if got := len(r.far.of("a.test")); got != 3 {
		t.Errorf("got %d requests to the first, want the 2 that opened the breaker and a probe", got)
	}
}

func TestLinesAreReleasedWhenTheyBlockNoMore(t *testing.T) {
	text := func(onFailure string) string {
		return `
destinations:
  a: {url: "https://a.test/", order: all, order_on_failure: ` + onFailure + `, retry: none}
`
	}
	first := func(n *atomic.Int64) func(int) int {
		return func(int) int {
			if n.Add(1) == 1 {
				return 500
			}
			return 200
		}
	}
	t.Run("that are blocked already", func(t *testing.T) {
		r := newRig(t, text("block"))
		r.far.answer("a.test", first(new(atomic.Int64)))
		head, behind := r.accept(t, "a"), r.accept(t, "a")
		r.awaitState(t, head, store.Failed)
		r.reloadWith(t, text("next"))
		r.awaitState(t, behind, store.Delivered)
	})
	t.Run("whose head fails by the earlier config", func(t *testing.T) {
		r := newRig(t, text("block"))
		r.far.answer("a.test", first(new(atomic.Int64)))
		r.far.hang("a.test")
		head, behind := r.accept(t, "a"), r.accept(t, "a")
		until(t, "the head is in flight", func() bool { return len(r.far.of("a.test")) == 1 })
		r.reloadWith(t, text("next"))
		if got := len(r.far.of("a.test")); got != 1 {
			t.Errorf("got %d requests while the head was in flight, want one", got)
		}
		r.far.open()
		r.awaitState(t, head, store.Failed)
		r.awaitState(t, behind, store.Delivered)
	})
	t.Run("but not while they still do", func(t *testing.T) {
		r := newRig(t, text("block"))
		r.far.answer("a.test", first(new(atomic.Int64)))
		head, behind := r.accept(t, "a"), r.accept(t, "a")
		r.awaitState(t, head, store.Failed)
		r.reloadWith(t, strings.Replace(text("block"), "retry", "headers: {X-Team: data}, retry", 1))
		r.reloadWith(t, "\ndestinations:\n  b: {url: 'https://b.test/'}\n")
		r.reloadWith(t, text("block"))
		if got := r.delivery(t, behind).State; got != store.Pending {
			t.Errorf("got %s behind a head that blocks, want pending", got)
		}
		r.reloadWith(t, "\ndestinations:\n  b: {url: 'https://b.test/'}\n")
		r.reloadWith(t, text("next"))
		r.awaitState(t, behind, store.Delivered)
	})
}
