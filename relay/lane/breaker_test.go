package lane

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func TestWhatAnOutcomeSaysAboutTheReceiver(t *testing.T) {
	for _, tt := range []struct {
		class  store.Class
		status int
		want   health
		poison bool // only meant where want is healthDown
	}{
		{class: store.ClassOK, status: 200, want: healthUp},
		{class: store.ClassOK, status: 503, want: healthUp}, // the config says so
		{class: store.ClassStatus, status: 199, want: healthUnknown},
		{class: store.ClassStatus, status: 200, want: healthUp},
		{class: store.ClassStatus, status: 302, want: healthUp},
		{class: store.ClassStatus, status: 400, want: healthUp},
		{class: store.ClassStatus, status: 410, want: healthUp},
		{class: store.ClassStatus, status: 428, want: healthUp},
		{class: store.ClassStatus, status: 429, want: healthDown},
		{class: store.ClassStatus, status: 430, want: healthUp},
		{class: store.ClassStatus, status: 499, want: healthUp},
		{class: store.ClassStatus, status: 500, want: healthDown, poison: true},
		{class: store.ClassStatus, status: 501, want: healthDown, poison: true},
		{class: store.ClassStatus, status: 502, want: healthDown},
		{class: store.ClassStatus, status: 503, want: healthDown},
		{class: store.ClassStatus, status: 504, want: healthDown},
		{class: store.ClassStatus, status: 505, want: healthDown, poison: true},
		{class: store.ClassStatus, status: 999, want: healthDown, poison: true},
		{class: store.ClassExpect, status: 200, want: healthUp},
		{class: store.ClassExpect, status: 500, want: healthDown, poison: true},
		{class: store.ClassTimeout, want: healthDown},
		{class: store.ClassTimeout, status: 200, want: healthDown}, // the body did not come
		{class: store.ClassDNS, want: healthDown},
		{class: store.ClassConnect, want: healthDown},
		{class: store.ClassTLS, want: healthDown},
		{class: store.ClassAuth, want: healthDown},
		{class: store.ClassProtocol, want: healthUnknown},
		{class: store.ClassBlocked, want: healthUnknown},
		{class: store.ClassRender, want: healthUnknown},
		{class: store.ClassInterrupted, want: healthUnknown},
	} {
		if got := weigh(tt.class, tt.status); got != tt.want {
			t.Errorf("%s %d: got health %d, want %d", tt.class, tt.status, got, tt.want)
		}
		if tt.want == healthDown {
			if got := perhapsPoison(tt.class, tt.status); got != tt.poison {
				t.Errorf("%s %d: got perhaps poison: %t, want %t", tt.class, tt.status, got, tt.poison)
			}
		}
	}
}

// script drives a pace by words, one attempt after the other: "a:500" is an attempt of delivery a that is answered with
// 500, "b:timeout" one of delivery b of that class. It skips the time that the pace asks for.
type script struct {
	t  *testing.T
	p  *pace
	at time.Duration
}

func newScript(t *testing.T, l *Lane, concurrency int) *script {
	return &script{t: t, p: newPace(l, concurrency)}
}

var scriptClasses = map[string]ending{
	"ok": {class: store.ClassOK, status: 200}, "404": {class: store.ClassStatus, status: 404},
	"429": {class: store.ClassStatus, status: 429}, "500": {class: store.ClassStatus, status: 500},
	"502": {class: store.ClassStatus, status: 502}, "503": {class: store.ClassStatus, status: 503},
	"503+10s": {class: store.ClassStatus, status: 503, hint: 10 * time.Second},
	"500+10s": {class: store.ClassStatus, status: 500, hint: 10 * time.Second},
	"429+2h":  {class: store.ClassStatus, status: 429, hint: 2 * time.Hour},
	"timeout": {class: store.ClassTimeout}, "auth": {class: store.ClassAuth}, "expect": {class: store.ClassExpect, status: 200},
	"protocol": {class: store.ClassProtocol}, "blocked": {class: store.ClassBlocked}, "render": {class: store.ClassRender},
	"interrupted": {class: store.ClassInterrupted},
}

// begin begins an attempt of a delivery as soon as it may, alone.
func (s *script) begin(id byte) (e ending, probe time.Duration) {
	s.t.Helper()
	wait := s.p.admit(s.at, s.at, 0)
	if wait >= never/2 {
		s.t.Fatal("nothing may begin before another attempt has ended")
	}
	s.at += max(0, wait)
	e.id = store.DeliveryID{id}
	e.seq, probe = s.p.begin(s.at)
	return e, probe
}

func (s *script) end(e ending, how string) {
	s.t.Helper()
	o, ok := scriptClasses[how]
	if !ok {
		s.t.Fatalf("no outcome %q", how)
	}
	o.seq, o.id = e.seq, e.id
	s.p.end(o, s.at)
}

func (s *script) run(words string) {
	s.t.Helper()
	for _, word := range strings.Fields(words) {
		id, how, _ := strings.Cut(word, ":")
		e, _ := s.begin(id[0])
		s.end(e, how)
	}
}

func TestBreaker(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words string
		want  BreakerState
		limit int           // allowed in the end
		at    time.Duration // when the last attempt was made
	}{
		{name: "one failure less does not open it", words: "a:timeout b:timeout", limit: 8},
		{name: "failures in a row open it", words: "a:timeout b:502 c:500", want: BreakerOpen, limit: 8},
		{name: "missing tokens open it", words: "a:auth b:auth c:auth", want: BreakerOpen, limit: 8},
		{name: "a success ends the row", words: "a:timeout b:timeout c:ok d:timeout e:timeout", limit: 8},
		{name: "a 404 ends the row", words: "a:timeout b:timeout c:404 d:timeout e:timeout", limit: 8},
		{name: "an answer that does not hold what is expected ends the row", words: "a:timeout b:timeout c:expect d:timeout", limit: 8},
		{name: "what says nothing neither counts nor ends the row", words: "a:timeout b:protocol c:blocked d:render e:interrupted f:timeout", limit: 8},
		{name: "nor does it save the row", words: "a:timeout b:protocol c:blocked d:render e:interrupted f:timeout g:timeout", want: BreakerOpen, limit: 8},
		{name: "one message answered 500 does not open it", words: "a:500 a:500 a:500 a:500", limit: 8},
		{name: "nor among successes of others", words: "a:500 b:ok a:500 c:ok a:500 d:ok a:500", limit: 8},
		{name: "nor do two that are answered 500 in turn", words: "a:500 b:500 a:500 b:500 b:500 a:500 a:500 b:500", limit: 8},
		{name: "nor two among outages of one of them", words: "a:timeout b:500 a:500 b:500 a:500", limit: 8},
		{name: "three messages answered 500 open it", words: "a:500 b:500 a:500 c:500", want: BreakerOpen, limit: 8},
		{name: "a success between lets each count again", words: "a:500 b:500 c:ok a:500 b:500 c:500", want: BreakerOpen, limit: 8},
		{name: "a success between ends the row of answers too", words: "a:500 b:500 c:ok d:500 a:500 b:ok", limit: 8},
		{name: "one message that times out opens it", words: "a:timeout a:timeout a:timeout", want: BreakerOpen, limit: 8},
		{name: "one message answered 502 opens it", words: "a:502 a:502 a:502", want: BreakerOpen, limit: 8},
		{name: "a failed probe keeps it open", words: "a:502 a:502 a:502 b:500 c:502", want: BreakerOpen, limit: 8, at: 20 * time.Second},
		{name: "a successful probe closes it, and one attempt is allowed", words: "a:502 a:502 a:502 b:ok", limit: 1, at: 10 * time.Second},
		{name: "a probe answered 404 closes it", words: "a:502 a:502 a:502 b:404", limit: 1, at: 10 * time.Second},
		{name: "a probe that says nothing keeps it open", words: "a:502 a:502 a:502 b:protocol c:blocked d:interrupted", want: BreakerOpen, limit: 8, at: 30 * time.Second},
		{name: "a probe that could not be built is followed by another", words: "a:502 a:502 a:502 b:render c:render d:ok", limit: 1, at: 10 * time.Second},
		{name: "recovery doubles with each success", words: "a:502 a:502 a:502 b:ok c:ok d:404", limit: 4, at: 10 * time.Second},
		{name: "recovery ends at the concurrency", words: "a:502 a:502 a:502 b:ok c:ok d:ok e:ok f:ok g:ok", limit: 8, at: 10 * time.Second},
		{name: "one outage during recovery opens it", words: "a:502 a:502 a:502 b:ok c:ok d:timeout", want: BreakerOpen, limit: 2, at: 10 * time.Second},
		{name: "one outage after recovery does not", words: "a:502 a:502 a:502 b:ok c:ok d:ok e:ok f:timeout", limit: 8, at: 10 * time.Second},
		{name: "the message that failed last, answered 500 again, does not open it during recovery", words: "a:502 b:502 c:502 d:500 e:ok d:500", limit: 1, at: 20 * time.Second},
		{name: "nor do several that failed as probes, whatever succeeds between", words: "a:502 b:502 c:502 d:500 e:500 f:500 g:ok d:500 h:ok e:500 f:500 d:500", limit: 2, at: 40 * time.Second},
		{name: "of those that failed as probes the latest are known", words: "a:502 b:502 c:502 d:500 e:500 f:500 i:500 g:ok d:500", want: BreakerOpen, limit: 1, at: 50 * time.Second},
		{name: "after recovery all count again", words: "a:502 b:502 c:502 d:500 e:ok f:ok g:ok h:ok d:500 a:500 b:500", want: BreakerOpen, limit: 8, at: 20 * time.Second},
		{name: "Retry-After holds the probe", words: "a:502 a:502 a:503+10s b:503+10s", want: BreakerOpen, limit: 1, at: 10 * time.Second},
		{name: "Retry-After of an hour and more holds the probe for an hour", words: "a:502 a:502 a:429+2h b:502", want: BreakerOpen, limit: 1, at: time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, &Lane{Breaker: Breaker{Failures: 3, ProbeEvery: 10 * time.Second}}, 8)
			s.run(tt.words)
			if got := s.p.breaker.state; got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if got := s.p.limit; got != tt.limit {
				t.Errorf("got limit %d, want %d", got, tt.limit)
			}
			if s.at != tt.at {
				t.Errorf("got the last attempt at %s, want %s", s.at, tt.at)
			}
		})
	}
}

func TestNoBreaker(t *testing.T) {
	for _, failures := range []int{0, -1} {
		s := newScript(t, &Lane{Breaker: Breaker{Failures: failures}}, 8)
		s.run(strings.Repeat("a:timeout b:timeout ", 1000))
		if got := s.p.breaker.state; got != BreakerClosed || s.at != 0 {
			t.Errorf("failures %d: got %s at %s, want closed at 0s", failures, got, s.at)
		}
	}
}

func TestProbesAreHalfAMinuteApartByDefault(t *testing.T) {
	s := newScript(t, &Lane{Breaker: Breaker{Failures: 1}}, 8)
	s.run("a:timeout b:timeout c:timeout")
	if want := 2 * 30 * time.Second; s.at != want {
		t.Errorf("got the second probe at %s, want %s", s.at, want)
	}
}

func TestStragglersDoNotMoveTheBreaker(t *testing.T) {
	l := &Lane{Breaker: Breaker{Failures: 1, ProbeEvery: time.Second}}
	t.Run("a success that was begun before the opening does not close it", func(t *testing.T) {
		s := newScript(t, l, 8)
		early, _ := s.begin('a')
		s.run("b:timeout")
		s.end(early, "ok")
		if got := s.p.breaker.state; got != BreakerOpen {
			t.Errorf("got %s, want open", got)
		}
	})
	t.Run("while the probe is in flight, nothing else may begin, and other ends do not count as its own", func(t *testing.T) {
		s := newScript(t, l, 8)
		early, _ := s.begin('a')
		s.run("b:timeout")
		probe, every := s.begin('c')
		if every != time.Second {
			t.Errorf("got a probe every %s, want 1s", every)
		}
		if got := s.p.admit(s.at, s.at, 1); got != never {
			t.Errorf("got %s to wait during the probe, want for ever", got)
		}
		s.end(early, "ok")
		if got := s.p.breaker.state; got != BreakerProbing {
			t.Errorf("got %s, want probing", got)
		}
		s.end(probe, "ok")
		if got := s.p.breaker.state; got != BreakerClosed {
			t.Errorf("got %s, want closed", got)
		}
	})
	t.Run("a failure that was begun before the opening does not open it again", func(t *testing.T) {
		s := newScript(t, l, 8)
		early, _ := s.begin('a')
		s.run("b:timeout c:ok")
		s.end(early, "timeout")
		if got := s.p.breaker.state; got != BreakerClosed {
			t.Errorf("got %s, want closed", got)
		}
		s.run("d:timeout")
		if got := s.p.breaker.state; got != BreakerOpen {
			t.Errorf("got %s after a failure begun later, want open", got)
		}
	})
}

func TestBreakerStateString(t *testing.T) {
	for s, want := range map[BreakerState]string{
		BreakerClosed: "closed", BreakerOpen: "open", BreakerProbing: "probing", 3: "BreakerState(3)",
	} {
		if got := s.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
