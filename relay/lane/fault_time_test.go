package lane

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// fullFaults reports whether the long form of the fault tests was asked for, which make test-faults does.
func fullFaults() bool { return os.Getenv("POSTERN_FAULTS") == "full" }

// setClock is a wall clock that a test sets, and that has no monotonic reading.
type setClock struct {
	mu     sync.Mutex // guards the fields below
	offset time.Duration
	still  time.Time // what it shows while it stands still; zero while it goes
}

// Now returns what the clock shows.
func (c *setClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.still.IsZero() {
		return c.still
	}
	return time.Now().Add(c.offset).Round(0)
}

// set has the clock show the true time and an offset.
func (c *setClock) set(offset time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset, c.still = offset, time.Time{}
}

// stop has the clock stand still.
func (c *setClock) stop() {
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.still = now
}

// clockFar is the receiver of one destination while the clock is set. It notes what comes, by the true time.
type clockFar struct {
	clock  *setClock
	answer func(nth int, at time.Duration) store.Attempt // to the n-th attempt of a delivery, from 1

	mu     sync.Mutex // guards the fields below
	begin  time.Time
	times  []time.Duration
	counts map[store.DeliveryID]int
	flying int
	most   int // in flight at a time
}

func (f *clockFar) Send(ctx context.Context, d store.Delivery) store.Attempt {
	f.mu.Lock()
	at := time.Since(f.begin)
	f.times = append(f.times, at)
	f.counts[d.ID]++
	nth := f.counts[d.ID]
	f.flying++
	f.most = max(f.most, f.flying)
	f.mu.Unlock()
	started := f.clock.Now()
	done := sleep(ctx, 20*time.Millisecond)
	f.mu.Lock()
	f.flying--
	f.mu.Unlock()
	if !done {
		return store.Attempt{Class: store.ClassInterrupted, StartedAt: started}
	}
	a := f.answer(nth, at)
	a.StartedAt = started
	return a
}

// between returns how many attempts began in a span of the true time.
func (f *clockFar) between(from, to time.Duration) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range f.times {
		if at >= from && at < to {
			n++
		}
	}
	return n
}

// densest returns the most attempts that began within any span of that length.
func (f *clockFar) densest(span time.Duration) (most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	times := slices.Sorted(slices.Values(f.times))
	first := 0
	for last := range times {
		for times[last]-times[first] >= span {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// clockStep is what happens to the wall clock.
type clockStep struct {
	name  string
	by    time.Duration // 0 stands still
	mend  bool          // set right again six hours later
	stops bool          // while the lanes are stopped, as between two starts
}

func clockSteps() (all []clockStep) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for _, one := range []struct {
		name string
		by   time.Duration
	}{
		{"minutes", 10 * time.Minute}, {"an hour", time.Hour}, {"a day", day}, {"a year", year}, {"ten years", 10 * year},
	} {
		for _, stops := range []bool{false, true} {
			when := ""
			if stops {
				when = ", between two starts"
			}
			all = append(all,
				clockStep{one.name + " forward" + when, one.by, false, stops},
				clockStep{one.name + " forward and back" + when, one.by, true, stops},
				clockStep{one.name + " back and forward" + when, -one.by, true, stops})
			if one.by <= day {
				all = append(all, clockStep{one.name + " back" + when, -one.by, false, stops})
			}
		}
	}
	epoch := time.Unix(10, 0).Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) // where a bubble begins
	return append(all,
		clockStep{"to the first seconds of 1970, and right", epoch, true, false},
		clockStep{"to before 1970, and right", epoch - year, true, false},
		clockStep{"to the first seconds of 1970 between two starts, and right", epoch, true, true},
		clockStep{"standing still for six hours", 0, true, false})
}

// TestFaultTimeSteps sets the wall clock while deliveries are in each state that they can be in. Nothing that is pending
// may end by that, nothing may come sooner or more at once than rate, concurrency, breaker and Retry-After allow, and all
// has arrived hours later, by however many years the clock was set.
func TestFaultTimeSteps(t *testing.T) {
	steps := clockSteps()
	set, requests, deliveries := 0, 0, 0
	quick := []string{"ten years forward", "an hour back", "a day back and forward, between two starts", "to the first seconds of 1970, and right",
		"standing still for six hours"}
	for _, s := range steps {
		if !fullFaults() && !slices.Contains(quick, s.name) {
			continue
		}
		set++
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, d := testClockStep(t, s)
				requests, deliveries = requests+r, deliveries+d
			})
		})
	}
	t.Attr("fault", fmt.Sprintf("time: the wall clock set in %d ways, by up to ten years, to 1970 and standing still, while lanes run "+
		"and between two starts: %d deliveries due, in retry, held, behind a breaker, paused and in lines, 0 ended by it, all made hours later; "+
		"%d requests, none beyond rate, breaker or Retry-After", set, deliveries, requests))
}

// clockLane is a lane of the test, with what is behind it.
type clockLane struct {
	lane func() *Lane // anew for each start
	far  *clockFar
	ids  []store.DeliveryID
	now  *Lane
	stop func() error
}

func testClockStep(t *testing.T, s clockStep) (requests, deliveries int) {
	const before, wrong = 10 * time.Minute, 6 * time.Hour
	begin, clock := time.Now(), &setClock{}
	mem := storetest.NewMemory(storetest.MemoryOptions{Now: clock.Now})
	fine := func(int, time.Duration) store.Attempt { return store.Attempt{Class: store.ClassOK} }
	lanes := map[string]*clockLane{}
	add := func(name string, l *Lane, answer func(int, time.Duration) store.Attempt) *clockLane {
		far := &clockFar{clock: clock, answer: answer, begin: begin, counts: map[store.DeliveryID]int{}}
		c := &clockLane{far: far}
		c.lane = func() *Lane {
			random := rand.New(rand.NewPCG(1, 2))
			var mu sync.Mutex
			next := &Lane{
				Name: name, Queue: mem, Sender: far, Retry: l.Retry, Concurrency: l.Concurrency, Rate: l.Rate, Breaker: l.Breaker,
				Paused: l.Paused, Outages: mem, Now: clock.Now,
				Rand: func() float64 {
					mu.Lock()
					defer mu.Unlock()
					return random.Float64()
				},
			}
			all, err := mem.Outages(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			next.Outage = all[name]
			return next
		}
		lanes[name] = c
		return c
	}
	post := func(c *clockLane, name string, n int, to store.Recipient) {
		for range n {
			to.Destination = name
			d := acceptFor(t, mem, clock.Now(), to)
			c.ids = append(c.ids, d.ID)
			if c.now != nil {
				c.now.Wake(d.Cursor())
			}
		}
	}

	retries := schedule(t, 0.2, 96*time.Hour, 0, time.Minute, time.Hour, time.Hour, time.Hour, time.Hour)
	steady := add("steady", &Lane{Rate: 1, Concurrency: 2}, fine)
	retrying := add("retrying", &Lane{Rate: 5, Concurrency: 8, Retry: retries}, func(nth int, _ time.Duration) store.Attempt {
		if nth <= 3 {
			return answer(500)
		}
		return store.Attempt{Class: store.ClassOK}
	})
	out := add("out", &Lane{Concurrency: 4, Retry: retries, Breaker: Breaker{Failures: 5, ProbeEvery: 30 * time.Second}},
		func(_ int, at time.Duration) store.Attempt {
			if at < 3*time.Hour {
				return store.Attempt{Class: store.ClassConnect}
			}
			return store.Attempt{Class: store.ClassOK}
		})
	held := add("held", &Lane{Concurrency: 4, Retry: retries}, func(nth int, at time.Duration) store.Attempt {
		if at < 5*time.Minute {
			a := answer(503)
			a.RetryHint = 30 * time.Minute
			return a
		}
		return store.Attempt{Class: store.ClassOK}
	})
	paused := add("paused", &Lane{Concurrency: 4, Rate: 20, Retry: retries, Paused: &store.Pause{At: begin, Reason: "maintenance"}}, fine)
	later := add("later", &Lane{Concurrency: 4, Rate: 20}, fine)
	line := add("line", &Lane{Concurrency: 4, Retry: retries}, func(nth int, _ time.Duration) store.Attempt {
		if nth == 1 {
			return answer(500)
		}
		return store.Attempt{Class: store.ClassOK}
	})
	post(steady, "steady", 600, store.Recipient{})
	post(retrying, "retrying", 100, store.Recipient{})
	post(out, "out", 50, store.Recipient{})
	post(held, "held", 20, store.Recipient{})
	post(paused, "paused", 100, store.Recipient{})
	post(later, "later", 50, store.Recipient{Delay: 2 * time.Hour})
	post(line, "line", 10, store.Recipient{Order: "=a"})

	startAll := func() {
		for _, c := range lanes {
			c.now = c.lane()
			c.stop = start(t, c.now)
		}
	}
	set := func(do func()) {
		if s.stops {
			for name, c := range lanes {
				if err := c.stop(); err != nil {
					t.Errorf("%s: got error %v from Run, want none", name, err)
				}
			}
		}
		do()
		if s.stops {
			startAll()
		}
	}
	startAll()
	time.Sleep(before)
	if s.by == 0 {
		clock.stop()
	} else {
		set(func() { clock.set(s.by) })
	}
	time.Sleep(time.Minute)
	post(steady, "steady", 10, store.Recipient{}) // what is posted meanwhile has the wrong times
	post(line, "line", 5, store.Recipient{Order: "=a"})
	time.Sleep(wrong)
	if s.mend {
		set(func() { clock.set(0) })
	}
	resumed := time.Since(begin)
	paused.now.Resume()
	time.Sleep(9 * time.Hour)
	synctest.Wait()

	afterStart := s.stops && s.by >= 90*time.Hour // its machine may have been off for so long: then the age counts
	for name, c := range lanes {
		deliveries += len(c.ids)
		requests += len(c.far.times)
		for n, id := range c.ids {
			d := current(t, mem, id)
			if d.State == store.Delivered || afterStart && d.State == store.Failed && d.Made > 1 {
				continue
			}
			t.Errorf("%s: delivery %d is %s after %d attempts, due at %s, %q; want it delivered", name, n, d.State, d.Made, d.DueAt, d.Reason)
			break
		}
		if l := c.now; c.far.most > l.concurrency() {
			t.Errorf("%s: got %d at a time, want at most %d", name, c.far.most, l.concurrency())
		}
	}
	starts := 1
	if s.stops {
		starts = 3
	}
	for name, c := range lanes {
		// The rate holds over a restart as well but for what 20 ms hold.
		if rate := c.now.Rate; rate > 0 {
			if got, most := c.far.densest(10*time.Second), int(10*rate)+starts; got > most {
				t.Errorf("%s: got %d attempts within ten seconds, want at most %d", name, got, most)
			}
		}
	}
	// Five that open the breaker, three that were in flight then, and a probe each half a minute; a start may make one at once.
	if got, most := out.far.between(0, 3*time.Hour), 5+3+int(3*time.Hour/(30*time.Second))+starts; got > most {
		t.Errorf("out: got %d attempts in three hours of an outage, want at most %d", got, most)
	}
	if !s.stops && s.by != 0 { // by a note that outlives a restart the hold goes by the wall clock
		if got := held.far.between(time.Second, 30*time.Minute); got != 0 {
			t.Errorf("held: got %d attempts before the time that the receiver has asked for, want none", got)
		}
	}
	if got := paused.far.between(0, resumed); got != 0 {
		t.Errorf("paused: got %d attempts before it was resumed, want none", got)
	}
	if s.by <= 0 {
		if got := later.far.between(0, 2*time.Hour); got != 0 {
			t.Errorf("later: got %d attempts before they were due, want none", got)
		}
	}
	return requests, deliveries
}
