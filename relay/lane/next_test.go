package lane

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

var epoch = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

func schedule(t testing.TB, jitter float64, maxAge time.Duration, delays ...time.Duration) Schedule {
	t.Helper()
	s, err := NewSchedule(delays, jitter, maxAge)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pending returns a delivery accepted at the epoch that has used up some attempts.
func pending(attempts int) store.Delivery {
	m := store.Message{ID: store.MessageID{6: 0x70, 8: 0x80}, AcceptedAt: epoch, Recipients: []store.Recipient{{Destination: "alerts"}}}
	d := m.Delivery(0)
	d.Attempts, d.Made = attempts, attempts
	return d
}

func TestNext(t *testing.T) {
	five := schedule(t, 0, 0, 0, time.Minute, 5*time.Minute, 15*time.Minute, 2*time.Hour)
	jitter := schedule(t, 0.2, 0, 0, time.Minute, time.Minute)
	aged := schedule(t, 0, time.Hour, 0, time.Minute, time.Minute)
	single := schedule(t, 0, time.Hour, time.Minute)
	double := schedule(t, 0, time.Hour, 0, time.Minute)
	const ms = time.Millisecond

	for _, tt := range []struct {
		name     string
		schedule Schedule
		attempts int           // used up before
		round    int           // 0 means 1
		probed   int           // probes that failed before
		a        store.Attempt // its outcome
		at       time.Duration // end of the attempt after acceptance
		rnd      float64
		probe    time.Duration // to the next probe, if the attempt is one
		state    store.State
		used     int           // attempts used up after
		due      time.Duration // after acceptance, when pending
		reason   string
	}{
		{name: "success delivers", a: store.Attempt{Class: store.ClassOK, Status: 200}, at: ms, state: store.Delivered, used: 1},
		{name: "success with status 410 delivers", a: store.Attempt{Class: store.ClassOK, Status: 410}, state: store.Delivered, used: 1},
		{name: "success at the last attempt delivers", schedule: five, attempts: 4, a: store.Attempt{Class: store.ClassOK}, state: store.Delivered, used: 5},
		{name: "success ignores Retry-After", schedule: five, a: store.Attempt{Class: store.ClassOK, RetryHint: time.Minute}, state: store.Delivered, used: 1},
		{name: "410 fails", schedule: five, a: store.Attempt{Class: store.ClassStatus, Status: 410}, state: store.Failed, used: 1, reason: "receiver answered 410 Gone"},
		{name: "409 retries", schedule: five, a: store.Attempt{Class: store.ClassStatus, Status: 409}, state: store.Pending, used: 1, due: time.Minute},
		{name: "411 retries", schedule: five, a: store.Attempt{Class: store.ClassStatus, Status: 411}, state: store.Pending, used: 1, due: time.Minute},
		{name: "302 retries", schedule: five, a: store.Attempt{Class: store.ClassStatus, Status: 302}, state: store.Pending, used: 1, due: time.Minute},
		{name: "blocked fails at once", schedule: five, a: store.Attempt{Class: store.ClassBlocked, Error: "10.0.0.1 is private"}, state: store.Failed, used: 1, reason: "refused by the guard: 10.0.0.1 is private"},
		{name: "a request that cannot be built fails at once", schedule: five, a: store.Attempt{Class: store.ClassRender, Error: "no body"}, state: store.Failed, used: 1, reason: "request could not be built: no body"},
		{name: "interruption uses up nothing", schedule: five, attempts: 3, a: store.Attempt{Class: store.ClassInterrupted}, at: time.Hour, state: store.Pending, used: 3, due: time.Hour},
		{name: "interruption at the only attempt uses up nothing", a: store.Attempt{Class: store.ClassInterrupted}, at: 5 * ms, state: store.Pending, due: 5 * ms},
		{name: "interruption ignores Retry-After and age", schedule: aged, a: store.Attempt{Class: store.ClassInterrupted, RetryHint: time.Hour}, at: 2 * time.Hour, state: store.Pending, due: 2 * time.Hour},
		{name: "timeout retries", schedule: five, a: store.Attempt{Class: store.ClassTimeout}, at: 30 * time.Second, state: store.Pending, used: 1, due: 90 * time.Second},
		{name: "dns retries", schedule: five, attempts: 1, a: store.Attempt{Class: store.ClassDNS}, state: store.Pending, used: 2, due: 5 * time.Minute},
		{name: "connect retries", schedule: five, attempts: 2, a: store.Attempt{Class: store.ClassConnect}, state: store.Pending, used: 3, due: 15 * time.Minute},
		{name: "tls retries", schedule: five, attempts: 3, a: store.Attempt{Class: store.ClassTLS}, state: store.Pending, used: 4, due: 2 * time.Hour},
		{name: "protocol retries", schedule: five, a: store.Attempt{Class: store.ClassProtocol}, state: store.Pending, used: 1, due: time.Minute},
		{name: "expectation not met retries", schedule: five, a: store.Attempt{Class: store.ClassExpect, Status: 200}, state: store.Pending, used: 1, due: time.Minute},
		{name: "no token retries", schedule: five, a: store.Attempt{Class: store.ClassAuth}, state: store.Pending, used: 1, due: time.Minute},
		{name: "the last attempt fails", schedule: five, attempts: 4, a: store.Attempt{Class: store.ClassStatus, Status: 503}, state: store.Failed, used: 5, reason: "no success in 5 of 5 attempts; last: status 503"},
		{name: "no schedule means one attempt", a: store.Attempt{Class: store.ClassTimeout, Error: "no answer in 30s"}, state: store.Failed, used: 1, reason: "no success in 1 of 1 attempts; last: no answer in 30s"},
		{name: "a schedule made shorter meanwhile fails", schedule: aged, attempts: 7, a: store.Attempt{Class: store.ClassTLS}, state: store.Failed, used: 8, reason: "no success in 8 of 3 attempts; last: tls"},
		{name: "Retry-After below the schedule changes nothing", schedule: five, a: store.Attempt{Class: store.ClassStatus, Status: 503, RetryHint: 59 * time.Second}, state: store.Pending, used: 1, due: time.Minute},
		{name: "Retry-After above the schedule delays", schedule: five, a: store.Attempt{Class: store.ClassStatus, Status: 400, RetryHint: 61 * time.Second}, state: store.Pending, used: 1, due: 61 * time.Second},
		{name: "Retry-After of an hour is kept", schedule: five, a: store.Attempt{Class: store.ClassStatus, Status: 429, RetryHint: time.Hour}, state: store.Pending, used: 1, due: time.Hour},
		{name: "Retry-After above an hour is an hour", schedule: five, a: store.Attempt{Class: store.ClassStatus, Status: 429, RetryHint: time.Hour + ms}, state: store.Pending, used: 1, due: time.Hour},
		{name: "the bound of Retry-After does not shorten the schedule", schedule: five, attempts: 3, a: store.Attempt{Class: store.ClassStatus, Status: 429, RetryHint: 3 * time.Hour}, state: store.Pending, used: 4, due: 2 * time.Hour},
		{name: "jitter at its least is none", schedule: jitter, a: store.Attempt{Class: store.ClassTLS}, state: store.Pending, used: 1, due: time.Minute},
		{name: "jitter at its most is its share", schedule: jitter, a: store.Attempt{Class: store.ClassTLS}, rnd: 1, state: store.Pending, used: 1, due: 72 * time.Second},
		{name: "jitter lengthens Retry-After", schedule: jitter, a: store.Attempt{Class: store.ClassTLS, RetryHint: 10 * time.Minute}, rnd: 0.5, state: store.Pending, used: 1, due: 11 * time.Minute},
		{name: "an attempt at the end of the age is made", schedule: aged, a: store.Attempt{Class: store.ClassTLS}, at: 59 * time.Minute, state: store.Pending, used: 1, due: time.Hour},
		{name: "an attempt behind the age is not made", schedule: aged, a: store.Attempt{Class: store.ClassTLS}, at: 59*time.Minute + ms, state: store.Failed, used: 1, reason: "the next attempt would come more than 1h0m0s after the first; last: tls"},
		{name: "a replay has an age of its own", schedule: aged, round: 2, a: store.Attempt{Class: store.ClassTLS}, at: 59*time.Minute + ms, state: store.Failed, used: 1, reason: "the next attempt would come more than 1h0m0s after the first; last: tls"},
		{name: "a failed probe uses up nothing", schedule: five, attempts: 3, probe: time.Second, a: store.Attempt{Class: store.ClassConnect}, state: store.Pending, used: 3, due: time.Second},
		{name: "a failed probe at the last attempt uses up nothing", schedule: five, attempts: 4, probe: time.Second, a: store.Attempt{Class: store.ClassStatus, Status: 500}, state: store.Pending, used: 4, due: time.Second},
		{name: "a failed probe by a schedule of one attempt is that attempt", probe: time.Second, a: store.Attempt{Class: store.ClassStatus, Status: 500}, state: store.Failed, used: 1, reason: "no success in 1 of 1 attempts; last: status 500"},
		{name: "a probe without a token by a schedule of one delay is its attempt", schedule: single, probe: time.Second, a: store.Attempt{Class: store.ClassAuth}, state: store.Failed, used: 1, reason: "no success in 1 of 1 attempts; last: auth"},
		{name: "a probe by a schedule of two attempts uses up nothing", schedule: double, probe: time.Second, a: store.Attempt{Class: store.ClassAuth}, state: store.Pending, due: time.Second},
		{name: "the third failed probe is followed by one after four times as long", schedule: five, probe: time.Second, probed: 2, a: store.Attempt{Class: store.ClassConnect}, state: store.Pending, due: 4 * time.Second},
		{name: "Retry-After delays the next probe beyond that", schedule: five, probe: time.Second, probed: 2, a: store.Attempt{Class: store.ClassStatus, Status: 429, RetryHint: 5 * time.Second}, state: store.Pending, due: 5 * time.Second},
		{name: "a failed probe has no jitter", schedule: jitter, probe: time.Second, a: store.Attempt{Class: store.ClassTLS}, rnd: 1, state: store.Pending, due: time.Second},
		{name: "Retry-After delays the next probe", schedule: five, probe: time.Second, a: store.Attempt{Class: store.ClassStatus, Status: 429, RetryHint: time.Minute}, state: store.Pending, due: time.Minute},
		{name: "Retry-After delays the next probe by an hour at most", schedule: five, probe: time.Second, a: store.Attempt{Class: store.ClassStatus, Status: 503, RetryHint: 2 * time.Hour}, state: store.Pending, due: time.Hour},
		{name: "Retry-After does not hasten the next probe", schedule: five, probe: time.Minute, a: store.Attempt{Class: store.ClassStatus, Status: 503, RetryHint: time.Second}, state: store.Pending, due: time.Minute},
		{name: "a probe without a token uses up nothing", schedule: five, probe: time.Second, a: store.Attempt{Class: store.ClassAuth}, state: store.Pending, due: time.Second},
		{name: "a probe that says nothing uses up nothing", schedule: five, probe: time.Second, a: store.Attempt{Class: store.ClassProtocol}, state: store.Pending, due: time.Second},
		{name: "a failed probe at the end of the age is followed by another", schedule: aged, probe: time.Minute, a: store.Attempt{Class: store.ClassTLS}, at: 59 * time.Minute, state: store.Pending, due: time.Hour},
		{name: "a failed probe behind the age is not", schedule: aged, probe: time.Minute, a: store.Attempt{Class: store.ClassTLS}, at: 59*time.Minute + ms, state: store.Failed, reason: "the next attempt would come more than 1h0m0s after the first; last: tls"},
		{name: "a probe that succeeds delivers, and is an attempt", schedule: five, probe: time.Second, a: store.Attempt{Class: store.ClassOK}, state: store.Delivered, used: 1},
		{name: "a probe answered 404 is an attempt like any other", schedule: five, probe: time.Second, a: store.Attempt{Class: store.ClassStatus, Status: 404}, state: store.Pending, used: 1, due: time.Minute},
		{name: "a probe answered 404 at the last attempt fails", schedule: five, attempts: 4, probe: time.Second, a: store.Attempt{Class: store.ClassStatus, Status: 404}, state: store.Failed, used: 5, reason: "no success in 5 of 5 attempts; last: status 404"},
		{name: "a probe answered 410 fails", schedule: five, probe: time.Second, a: store.Attempt{Class: store.ClassStatus, Status: 410}, state: store.Failed, used: 1, reason: "receiver answered 410 Gone"},
		{name: "a probe that the guard refuses fails", schedule: five, probe: time.Second, a: store.Attempt{Class: store.ClassBlocked, Error: "no"}, state: store.Failed, used: 1, reason: "refused by the guard: no"},
		{name: "a probe that is cut off is due at once", schedule: five, probe: time.Minute, a: store.Attempt{Class: store.ClassInterrupted}, at: ms, state: store.Pending, due: ms},
		{name: "a due time is rounded up", schedule: five, a: store.Attempt{Class: store.ClassTLS}, at: 1, state: store.Pending, used: 1, due: time.Minute + ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := pending(tt.attempts)
			before.Round = max(1, tt.round)
			before.BegunAt = epoch
			before.Made += tt.probed
			if tt.probe == 0 {
				before.Made += 2 // two interrupted ones
			}
			now := epoch.Add(tt.at).In(time.FixedZone("elsewhere", 3600))
			got := next(before, tt.a, tt.schedule, now, tt.rnd, tt.probe)

			want := before
			want.State, want.Attempts, want.Made, want.Reason = tt.state, tt.used, before.Made+1, tt.reason
			if tt.state == store.Pending {
				want.DueAt = epoch.Add(tt.due)
			} else {
				want.DueAt, want.EndedAt = time.Time{}, epoch.Add(tt.at)
			}
			if got != want {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestTheAgeCountsFromTheFirstAttemptOfTheRound(t *testing.T) {
	aged := schedule(t, 0, time.Hour, 0, time.Minute, time.Minute)
	failure := store.Attempt{Class: store.ClassTLS}
	late := epoch.Add(1000 * time.Hour)
	for _, round := range []int{1, 2} {
		fresh := pending(0)
		fresh.Round = round

		d := next(fresh, store.Attempt{Class: store.ClassInterrupted, StartedAt: late}, aged, late, 0, 0)
		if !d.BegunAt.IsZero() {
			t.Errorf("round %d: got begun at %s after an interruption, want not begun", round, d.BegunAt)
		}
		failure.StartedAt = late.Add(time.Hour + 1500*time.Microsecond).In(time.FixedZone("elsewhere", 3600))
		begun := late.Add(time.Hour + time.Millisecond)
		d = next(d, failure, aged, late.Add(time.Hour+30*time.Second), 0, 0)
		if d.State != store.Pending || d.BegunAt != begun {
			t.Errorf("round %d: got %s, begun at %s, after the first failure; want pending, begun at %s", round, d.State, d.BegunAt, begun)
		}
		last := begun.Add(59 * time.Minute)
		if got := next(d, failure, aged, last, 0, 0); got.State != store.Pending || got.BegunAt != begun {
			t.Errorf("round %d: got %s, begun at %s; want pending, and the beginning as it was", round, got.State, got.BegunAt)
		}
		if got := next(d, failure, aged, last.Add(time.Millisecond), 0, 0); got.State != store.Failed || got.BegunAt != begun {
			t.Errorf("round %d: got %s, begun at %s; want failed, and the beginning as it was", round, got.State, got.BegunAt)
		}
	}
	t.Run("a beginning that is unknown or in the future is the end", func(t *testing.T) {
		for _, at := range []time.Time{{}, epoch.Add(time.Second)} {
			failure.StartedAt = at
			if got := next(pending(0), failure, aged, epoch, 0, 0).BegunAt; got != epoch {
				t.Errorf("started at %s: got begun at %s, want %s", at, got, epoch)
			}
		}
	})
}

func TestProbesOfOneDeliveryGrowApart(t *testing.T) {
	for _, tt := range []struct {
		every time.Duration
		n     int
		want  time.Duration
	}{
		{every: 30 * time.Second, n: 0, want: 30 * time.Second},
		{every: 30 * time.Second, n: 1, want: 30 * time.Second},
		{every: 30 * time.Second, n: 2, want: time.Minute},
		{every: 30 * time.Second, n: 5, want: 8 * time.Minute},
		{every: 30 * time.Second, n: 6, want: 10 * time.Minute},
		{every: 30 * time.Second, n: store.MaxAttempts, want: 10 * time.Minute},
		{every: 10 * time.Minute, n: 9, want: 10 * time.Minute},
		{every: 24 * time.Hour, n: 9, want: 24 * time.Hour},
		{every: 1, n: store.MaxAttempts, want: 10 * time.Minute},
	} {
		if got := probeDelay(tt.every, tt.n); got != tt.want {
			t.Errorf("every %s, %d in vain: got %s, want %s", tt.every, tt.n, got, tt.want)
		}
	}
}

func TestAttemptsOnRecordHaveABound(t *testing.T) {
	endless := schedule(t, 0, 0, 0, time.Second)
	for _, tt := range []struct {
		name  string
		made  int // before
		a     store.Attempt
		probe time.Duration
		want  store.State
	}{
		{name: "a probe below the bound", made: maxMade - 2, a: store.Attempt{Class: store.ClassConnect}, probe: time.Second, want: store.Pending},
		{name: "a probe at the bound", made: maxMade - 1, a: store.Attempt{Class: store.ClassConnect}, probe: time.Second, want: store.Failed},
		{name: "an attempt below the bound", made: maxMade - 2, a: store.Attempt{Class: store.ClassConnect}, want: store.Pending},
		{name: "an attempt at the bound", made: maxMade - 1, a: store.Attempt{Class: store.ClassConnect}, want: store.Failed},
		{name: "an interruption below the bound", made: maxMade - 2, a: store.Attempt{Class: store.ClassInterrupted}, want: store.Pending},
		{name: "an interruption at the bound", made: maxMade - 1, a: store.Attempt{Class: store.ClassInterrupted}, want: store.Failed},
		{name: "a success at the bound", made: maxMade - 1, a: store.Attempt{Class: store.ClassOK}, want: store.Delivered},
		{name: "a success far beyond it", made: store.MaxAttempts, a: store.Attempt{Class: store.ClassOK}, want: store.Delivered},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := pending(0)
			d.Made = tt.made
			got := next(d, tt.a, endless, epoch, 0, tt.probe)
			if got.State != tt.want {
				t.Errorf("got %s (%s), want %s", got.State, got.Reason, tt.want)
			}
			if tt.want == store.Failed && !strings.Contains(got.Reason, "50000 attempts on record") {
				t.Errorf("got reason %q, want one with the number", got.Reason)
			}
		})
	}
	if maxMade > store.MaxAttempts*9/10 {
		t.Errorf("got a bound of %d, want it well below %d", maxMade, store.MaxAttempts)
	}
}

func TestNewSchedule(t *testing.T) {
	many := func(n int) []time.Duration { return make([]time.Duration, n) }
	for _, tt := range []struct {
		name   string
		delays []time.Duration
		jitter float64
		maxAge time.Duration
		fault  string // empty if there is none
	}{
		{name: "empty is allowed"},
		{name: "most attempts are allowed", delays: many(MaxAttempts)},
		{name: "one attempt more is refused", delays: many(MaxAttempts + 1), fault: "1001 attempts are too many"},
		{name: "the longest delay is allowed", delays: []time.Duration{0, MaxDelay}},
		{name: "a longer delay is refused", delays: []time.Duration{0, MaxDelay + 1}, fault: "before attempt 2 is out of range"},
		{name: "a negative delay is refused", delays: []time.Duration{-1}, fault: "before attempt 1 is out of range"},
		{name: "full jitter is allowed", jitter: 1},
		{name: "more jitter is refused", jitter: 1.0001, fault: "jitter 1.0001 is out of range"},
		{name: "negative jitter is refused", jitter: -0.0001, fault: "is out of range"},
		{name: "jitter that is no number is refused", jitter: math.NaN(), fault: "jitter NaN is out of range"},
		{name: "a negative age is refused", maxAge: -1, fault: "is negative"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewSchedule(tt.delays, tt.jitter, tt.maxAge)
			checkFault(t, err, tt.fault)
		})
	}
	t.Run("the caller keeps its slice", func(t *testing.T) {
		delays := []time.Duration{time.Second}
		s := schedule(t, 0, time.Hour, delays...)
		delays[0] = time.Minute
		if got := s.First(); got != time.Second {
			t.Errorf("got first delay %s, want 1s", got)
		}
		if got := s.MaxAge(); got != time.Hour {
			t.Errorf("got maximum age %s, want 1h", got)
		}
	})
	t.Run("the zero value is one attempt at once", func(t *testing.T) {
		if got := (Schedule{}).Attempts(); got != 1 {
			t.Errorf("got %d attempts, want 1", got)
		}
		if got := (Schedule{}).First(); got != 0 {
			t.Errorf("got first delay %s, want 0", got)
		}
	})
}

func TestExponential(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name     string
		attempts int
		first    time.Duration
		longest  time.Duration
		factor   float64
		want     []time.Duration
		fault    string
	}{
		{name: "delays double up to the longest", attempts: 6, first: s, longest: 7 * s, factor: 2, want: []time.Duration{0, s, 2 * s, 4 * s, 7 * s, 7 * s}},
		{name: "one attempt has no delay", attempts: 1, first: s, longest: s, factor: 2, want: []time.Duration{0}},
		{name: "factor 1 is constant", attempts: 3, first: s, longest: 9 * s, factor: 1, want: []time.Duration{0, s, s}},
		{name: "no first delay is none ever", attempts: 3, longest: 9 * s, factor: 3, want: []time.Duration{0, 0, 0}},
		{name: "a huge factor does not overflow", attempts: 4, first: s, longest: MaxDelay, factor: 1e300, want: []time.Duration{0, s, MaxDelay, MaxDelay}},
		{name: "no attempts are refused", longest: s, factor: 2, fault: "0 attempts"},
		{name: "too many attempts are refused", attempts: MaxAttempts + 1, factor: 2, fault: "1001 attempts"},
		{name: "a negative first delay is refused", attempts: 2, first: -1, factor: 2, fault: "first delay -1ns"},
		{name: "a first delay above the longest is refused", attempts: 2, first: 2 * s, longest: s, factor: 2, fault: "longest delay 1s"},
		{name: "a longest delay above the bound is refused", attempts: 2, longest: MaxDelay + 1, factor: 2, fault: "longest delay"},
		{name: "a factor below 1 is refused", attempts: 2, factor: 0.99, fault: "factor 0.99"},
		{name: "a factor that is no number is refused", attempts: 2, factor: math.NaN(), fault: "factor NaN"},
		{name: "an infinite factor is refused", attempts: 2, factor: math.Inf(1), fault: "factor +Inf"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Exponential(tt.attempts, tt.first, tt.longest, tt.factor)
			checkFault(t, err, tt.fault)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func checkFault(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("got error %q, want none", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got error %v, want one with %q", err, want)
	}
}
