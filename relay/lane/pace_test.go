package lane

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func TestMeter(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name  string
		rate  float64
		uses  []time.Duration // when attempts were made
		want  time.Duration   // when the next may be
		every time.Duration
	}{
		{name: "no rate", rate: 0, uses: []time.Duration{time.Hour}, want: 0},
		{name: "a negative rate is none", rate: -1, uses: []time.Duration{time.Hour}, want: 0},
		{name: "a rate that is no number is none", rate: math.NaN(), uses: []time.Duration{time.Hour}, want: 0},
		{name: "the first attempt is free", rate: 2, want: 0, every: 500 * ms},
		{name: "the second is not", rate: 2, uses: []time.Duration{0}, want: 500 * ms, every: 500 * ms},
		{name: "a rate that does not divide a second is rounded down", rate: 3, uses: []time.Duration{0}, want: 333333334, every: 333333334},
		{name: "a rate below one", rate: 0.1, uses: []time.Duration{time.Second}, want: 11 * time.Second, every: 10 * time.Second},
		{name: "idle time is not made up for", rate: 2, uses: []time.Duration{0, time.Minute}, want: time.Minute + 500*ms, every: 500 * ms},
		{name: "the first second has no burst", rate: 1000, uses: []time.Duration{0}, want: ms, every: ms},
		{name: "a timer that fires late costs nothing", rate: 1000, uses: []time.Duration{0, 4 * ms}, want: 2 * ms, every: ms},
		{name: "of idle time 20 ms are made up for", rate: 1000, uses: []time.Duration{time.Second}, want: time.Second - 18*ms, every: ms},
		{name: "at 50 per second nothing is", rate: 50, uses: []time.Duration{time.Second}, want: time.Second + 20*ms, every: 20 * ms},
		{name: "a rate without end is one per nanosecond", rate: math.Inf(1), uses: []time.Duration{0}, want: 1, every: 1},
		{name: "the lowest rate does not overflow", rate: math.SmallestNonzeroFloat64, uses: []time.Duration{time.Hour}, want: never, every: never},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMeter(tt.rate)
			for _, at := range tt.uses {
				m.use(at)
			}
			if got := m.free(); got != tt.want {
				t.Errorf("got the next attempt at %s, want %s", got, tt.want)
			}
			if m.every != tt.every {
				t.Errorf("got one every %s, want %s", m.every, tt.every)
			}
		})
	}
}

func TestMeterNeverExceedsItsRate(t *testing.T) {
	for _, rate := range []float64{0.5, 1, 7, 49, 50, 51, 99, 1000, 33333} {
		m := newMeter(rate)
		var at, idle time.Duration
		var times []time.Duration
		for i := range 4000 {
			if i%1000 == 999 { // a while without traffic, of which no more than the burst is made up for
				idle = 3 * time.Second
			}
			at = max(at, m.free()) + idle
			idle = 0
			m.use(at)
			times = append(times, at)
		}
		// In no span of a second there is more than the rate and the burst.
		most := max(1, rate) + rate*burst.Seconds() + 1
		first := 0
		for last := range times {
			for times[last]-times[first] >= time.Second {
				first++
			}
			if got := float64(last - first + 1); got > most {
				t.Fatalf("rate %v: got %v attempts in a second, want at most %v", rate, got, most)
			}
		}
		if n := int(rate) - 1; n > 0 && n < 999 {
			if got, want := times[n], time.Second; got >= want {
				t.Errorf("rate %v: got attempt %d at %s, want it in the first second", rate, n+1, got)
			}
		}
	}
}

func TestGrid(t *testing.T) {
	const s = time.Second
	type step struct {
		due, at time.Duration
		want    time.Duration
	}
	for _, tt := range []struct {
		name  string
		batch Batch
		steps []step // those that are released are begun
	}{
		{name: "no batches", steps: []step{{due: 3 * s, at: s, want: 3 * s}, {due: -s, at: s, want: -s}}},
		{name: "negative is none", batch: Batch{Every: -s}, steps: []step{{due: 3 * s, at: s, want: 3 * s}}},
		{name: "what is due at the start goes at once", batch: Batch{Every: 5 * s}, steps: []step{{due: -s, at: 0, want: 0}, {due: 0, at: 0, want: 0}}},
		{name: "what is due later waits for the tick", batch: Batch{Every: 5 * s}, steps: []step{{due: 1, at: 1, want: 5 * s}, {due: 1, at: 4 * s, want: 5 * s}, {due: 1, at: 5 * s, want: 5 * s}}},
		{name: "what is due at a tick is released by it", batch: Batch{Every: 5 * s}, steps: []step{{due: 5 * s, at: s, want: 5 * s}, {due: 5*s + 1, at: s, want: 10 * s}}},
		{name: "a tick that was looked at late releases what was due at its time", batch: Batch{Every: 5 * s}, steps: []step{{due: 10 * s, at: 12 * s, want: 10 * s}, {due: 11 * s, at: 12 * s, want: 15 * s}}},
		{name: "what is due in a month waits for a tick of then", batch: Batch{Every: 7 * s}, steps: []step{{due: MaxDelay, at: s, want: 2592002 * s}}},
		{name: "beyond the most waits for the next", batch: Batch{Every: 5 * s, Max: 2}, steps: []step{
			{due: 0, at: 5 * s, want: 5 * s}, {due: 0, at: 6 * s, want: 5 * s}, {due: 0, at: 6 * s, want: 10 * s},
			{due: 0, at: 10 * s, want: 10 * s}, {due: 0, at: 10 * s, want: 10 * s}, {due: 0, at: 10 * s, want: 15 * s},
		}},
		{name: "what was not used is not added", batch: Batch{Every: 5 * s, Max: 2}, steps: []step{
			{due: 0, at: 5 * s, want: 5 * s}, {due: 0, at: 20 * s, want: 20 * s}, {due: 0, at: 20 * s, want: 20 * s}, {due: 0, at: 20 * s, want: 25 * s},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPace(&Lane{Batch: tt.batch}, 8)
			for i, step := range tt.steps {
				got := p.grid.release(step.due, step.at)
				if got != step.want {
					t.Errorf("step %d: got a release at %s, want %s", i, got, step.want)
				}
				if got <= step.at {
					p.begin(step.at)
				}
			}
		})
	}
}

func TestAReceiverThatAsksForLessIsObeyed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words string
		limit int
		held  time.Duration
	}{
		{name: "429 halves the limit", words: "a:429", limit: 8},
		{name: "503 halves the limit", words: "a:503", limit: 8},
		{name: "each further one halves it again", words: "a:429 b:503 c:429", limit: 2},
		{name: "one is always allowed", words: "a:429 b:429 c:429 d:429 e:429 f:429", limit: 1},
		{name: "a success doubles it", words: "a:429 b:429 c:ok", limit: 8},
		{name: "successes end at the concurrency", words: "a:429 b:429 c:ok d:ok e:ok", limit: 16},
		{name: "502 and 500 do not", words: "a:502 b:500 c:timeout d:404", limit: 16},
		{name: "Retry-After holds the lane", words: "a:503+10s", limit: 1, held: 10 * time.Second},
		{name: "for an hour at most", words: "a:429+2h", limit: 1, held: time.Hour},
		{name: "Retry-After of another answer does not", words: "a:500+10s", limit: 16},
		{name: "afterwards it ramps up", words: "a:503+10s b:ok c:ok", limit: 4, held: 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, &Lane{}, 16)
			s.run(tt.words)
			if s.p.limit != tt.limit || s.p.hold != tt.held {
				t.Errorf("got limit %d, held until %s; want %d, %s", s.p.limit, s.p.hold, tt.limit, tt.held)
			}
		})
	}
	t.Run("attempts in flight together halve it once, and do not raise it", func(t *testing.T) {
		s := newScript(t, &Lane{}, 16)
		var flying []ending
		for range 16 {
			e, _ := s.begin('a')
			flying = append(flying, e)
		}
		for i, e := range flying {
			s.end(e, map[bool]string{true: "429", false: "ok"}[i%2 == 0])
		}
		if s.p.limit != 8 {
			t.Errorf("got limit %d, want 8", s.p.limit)
		}
	})
	t.Run("a shorter Retry-After does not end a longer one", func(t *testing.T) {
		s := newScript(t, &Lane{}, 16)
		first, _ := s.begin('a')
		second, _ := s.begin('b')
		s.end(first, "429+2h")
		s.end(second, "503+10s")
		if s.p.hold != time.Hour {
			t.Errorf("got held until %s, want 1h", s.p.hold)
		}
	})
	t.Run("the limit is what may be in flight", func(t *testing.T) {
		s := newScript(t, &Lane{}, 16)
		s.run("a:429")
		for sending, want := range map[int]time.Duration{0: 0, 7: 0, 8: never, 16: never} {
			if got := s.p.admit(0, 0, sending); got != want {
				t.Errorf("%d in flight: got %s to wait, want %s", sending, got, want)
			}
		}
	})
}

func TestAdmitWaitsForTheLastOfAll(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name    string
		lane    *Lane // nil means one without options
		words   string
		resumed time.Duration
		due     time.Duration
		want    time.Duration
	}{
		{name: "nothing to wait for"},
		{name: "due", due: 3 * s, want: 3 * s},
		{name: "a rate token behind due", lane: &Lane{Rate: 0.1}, words: "a:ok", due: 3 * s, want: 10 * s},
		{name: "due behind a rate token", lane: &Lane{Rate: 0.1}, words: "a:ok", due: 13 * s, want: 13 * s},
		{name: "a hold behind due", words: "a:503+10s", due: 3 * s, want: 10 * s},
		{name: "a tick behind a hold", lane: &Lane{Batch: Batch{Every: 4 * s}}, words: "a:503+10s", due: 3 * s, want: 12 * s},
		{name: "a rate token behind a tick", lane: &Lane{Batch: Batch{Every: 4 * s}, Rate: 0.1}, words: "a:ok", due: 3 * s, want: 10 * s},
		{name: "a probe behind due", lane: &Lane{Breaker: Breaker{Failures: 1, ProbeEvery: 30 * s}}, words: "a:timeout", due: 3 * s, want: 30 * s},
		{name: "a tick behind a probe", lane: &Lane{Breaker: Breaker{Failures: 1, ProbeEvery: 30 * s}, Batch: Batch{Every: 7 * s}}, words: "a:timeout", want: 35 * s},
		{name: "a hold behind a probe", lane: &Lane{Breaker: Breaker{Failures: 1, ProbeEvery: 5 * s}}, words: "a:503+10s", want: 10 * s},
		{name: "a tick behind a pause", lane: &Lane{Batch: Batch{Every: 7 * s}}, resumed: 1, want: 7 * s},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := tt.lane
			if l == nil {
				l = &Lane{}
			}
			sc := newScript(t, l, 8)
			sc.run(tt.words)
			sc.p.resumed = tt.resumed
			if got := sc.p.admit(tt.due, sc.at, 0); got != tt.want {
				t.Errorf("got %s to wait, want %s", got, tt.want)
			}
		})
	}
}

// FuzzPace makes attempts as the bytes of the script say, many at a time, with outcomes of all kinds.
func FuzzPace(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 9, 1, 9, 1, 9, 2, 5, 0, 1, 0}, byte(0))
	f.Add([]byte{0, 1, 7, 0, 1, 7, 0, 1, 7, 0, 1, 0, 0, 0, 1, 1}, byte(7))
	f.Add([]byte{0, 0, 0, 0, 0, 1, 4, 1, 3, 1, 5, 2, 40, 0, 1, 0}, byte(3))
	outcomes := []ending{
		scriptClasses["ok"], scriptClasses["404"], scriptClasses["429"], scriptClasses["500"], scriptClasses["503"],
		scriptClasses["503+10s"], scriptClasses["429+2h"], scriptClasses["timeout"], scriptClasses["protocol"],
		scriptClasses["render"], scriptClasses["interrupted"],
	}
	f.Fuzz(func(t *testing.T, steps []byte, options byte) {
		const concurrency = 4
		l := &Lane{}
		if options&1 != 0 {
			l.Rate = 0.5
		}
		if options&2 != 0 {
			l.Batch = Batch{Every: 7 * time.Second, Max: 3}
		}
		if options&4 != 0 {
			l.Breaker = Breaker{Failures: 2, ProbeEvery: 5 * time.Second}
		}
		p := newPace(l, concurrency)
		var at, lastBegun time.Duration
		var flying []ending
		begin := func(id byte) {
			e := ending{id: store.DeliveryID{id}}
			var probe time.Duration
			open := p.breaker.state == BreakerOpen
			e.seq, probe = p.begin(at)
			if open != (probe > 0) {
				t.Fatalf("got a probe: %t, with an open breaker: %t", probe > 0, open)
			}
			if l.Rate > 0 && e.seq > 1 && at-lastBegun < 2*time.Second {
				t.Fatalf("got attempts at %s and %s with a rate of 0.5", lastBegun, at)
			}
			if at < p.hold {
				t.Fatalf("got an attempt at %s, held until %s", at, p.hold)
			}
			lastBegun = at
			flying = append(flying, e)
		}
		for i := 0; i+1 < len(steps); i += 2 {
			x := int(steps[i+1])
			switch steps[i] % 3 {
			case 0:
				if len(flying) < concurrency && p.admit(at, at, len(flying)) <= 0 {
					begin(byte(x))
				}
			case 1:
				if len(flying) > 0 {
					e, o := flying[x%len(flying)], outcomes[x%len(outcomes)]
					flying = slices.Delete(flying, x%len(flying), x%len(flying)+1)
					o.seq, o.id = e.seq, e.id
					p.end(o, at)
				}
			case 2:
				at += time.Duration(x) * 100 * time.Millisecond
			}
			if p.limit < 1 || p.limit > concurrency {
				t.Fatalf("got limit %d, want 1 to %d", p.limit, concurrency)
			}
			if p.breaker.failures <= 0 && p.breaker.state != BreakerClosed {
				t.Fatalf("got a breaker that is %s, want none", p.breaker.state)
			}
		}
		// When nothing is in flight any more, it is known when the next attempt may begin, and then it may.
		for _, e := range flying {
			e.class = store.ClassTimeout
			p.end(e, at)
		}
		flying = nil
		due := at
		wait := p.admit(due, at, 0)
		if most := maxHint + time.Minute; wait > most {
			t.Fatalf("got %s to wait with nothing in flight, want at most %s", wait, most)
		}
		at += max(0, wait)
		if more := p.admit(due, at, 0); more > 0 {
			t.Fatalf("got %s more to wait after %s", more, wait)
		}
		begin(0)
	})
}

func TestPaceAllocatesNothing(t *testing.T) {
	for name, l := range map[string]*Lane{
		"off": {},
		"on":  {Rate: 1e6, Batch: Batch{Every: 1, Max: 9}, Breaker: Breaker{Failures: 3}},
	} {
		p := newPace(l, 8)
		var at time.Duration
		got := testing.AllocsPerRun(1000, func() {
			at += max(1, p.admit(0, at, 0))
			e := ending{class: 1}
			e.seq, _ = p.begin(at)
			p.end(e, at)
		})
		if got != 0 {
			t.Errorf("%s: got %v allocations for each attempt, want 0", name, got)
		}
	}
}

func BenchmarkPace(b *testing.B) {
	p := newPace(&Lane{}, 8)
	at := time.Duration(0)
	for b.Loop() {
		at++
		if p.admit(0, at, 1) > 0 {
			b.Fatal("something to wait for")
		}
		e := ending{class: 1}
		e.seq, _ = p.begin(at)
		p.end(e, at)
	}
}
