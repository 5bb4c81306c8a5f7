package main

import (
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestFaultKill kills the relay, kill -9, again and again over one store, while it is posted to and steered in every way:
// at random moments under load, while it starts and while it stops, when a receiver has just got a request and when the
// app has just got its 202. Each start must work at the first try.
func TestFaultKill(t *testing.T) {
	t.Run("with all records kept", func(t *testing.T) { testKill(t, "", postern(t), pick(6, 150), true) })
	if !full() {
		return
	}
	// Without the race detector there are several times more messages, and merges of tables to be hit.
	t.Run("faster", func(t *testing.T) { testKill(t, "", plainPostern(t), 250, true) })
	t.Run("while ended messages are swept", func(t *testing.T) { testKill(t, "retention: 20s", plainPostern(t), 100, false) })
}

// moments are when a round kills.
var moments = []string{
	"under load", "under load", "under load", "under load", "starting", "starting", "stopping", "stopping", "at an arrival",
	"at an answer", "not at all",
}

func testKill(t *testing.T, storeKeys, program string, rounds int, whole bool) {
	st := newStorm(t, "127.0.61.", storeKeys, program)
	count := map[string]int{}
	var slowest, starts time.Duration
	for round := range rounds {
		moment := moments[st.chance.IntN(len(moments))]
		count[moment]++
		st.begin(round + 1)
		p := st.launch(t)
		if moment == "starting" {
			time.Sleep(time.Duration(st.chance.Int64N(int64(starts)*5/4 + int64(300*time.Millisecond))))
			st.kill(p)
			continue
		}
		st.ready(p)
		starts = time.Since(p.started)
		slowest = max(slowest, starts)
		load := time.Duration(st.chance.IntN(700)) * time.Millisecond
		switch moment {
		case "under load":
			time.Sleep(load)
			st.kill(p)
		case "stopping":
			time.Sleep(load / 2)
			st.hangups(nil)
			p.signalGroup(syscall.SIGTERM)
			time.Sleep(time.Duration(st.chance.IntN(300)) * time.Millisecond)
			p.kill(t)
			st.ended(p, p.code() != 0) // it may have been faster
		case "at an arrival":
			f := st.fars[[]string{"far", "lined", "left", "right"}[st.chance.IntN(4)]]
			f.onArrival(killAfter(p, 1+st.chance.IntN(30), func(kill func()) func(arrival) { return func(arrival) { kill() } }))
			waitEnd(p, 2*time.Second)
			f.onArrival(nil)
			st.kill(p)
		case "at an answer":
			st.ledger.onAccepted(killAfter(p, 1+st.chance.IntN(30), func(kill func()) func() { return kill }))
			waitEnd(p, 2*time.Second)
			st.ledger.onAccepted(nil)
			st.kill(p)
		case "not at all":
			time.Sleep(load)
			st.hangups(nil)
			p.stop(t)
			st.ended(p, false)
		}
	}
	line := st.judge(st.calm(rounds+1), whole)
	if st.ledger.count() < rounds {
		t.Errorf("only %d messages were accepted in %d rounds: this tests nothing", st.ledger.count(), rounds)
	}
	kills := rounds - count["not at all"]
	report(t, "kill", "%d rounds, %d kills (%d under load, %d in start-up, %d in shut-down, %d at an arrival, %d at a 202): %s; each start "+
		"worked at the first try, the slowest in %s", rounds, kills, count["under load"], count["starting"], count["stopping"],
		count["at an arrival"], count["at an answer"], line, slowest.Round(10*time.Millisecond))
}

// killAfter returns a func, in the form that as gives it, that kills a process when it is called for the n-th time.
func killAfter[F any](p *process, n int, as func(func()) F) F {
	var mu sync.Mutex
	return as(func() {
		mu.Lock()
		defer mu.Unlock()
		if n--; n == 0 {
			p.signalGroup(syscall.SIGKILL)
		}
	})
}

// waitEnd waits until a process has ended, or for a time.
func waitEnd(p *process, most time.Duration) {
	select {
	case <-p.exited:
	case <-time.After(most):
	}
}
