package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// How long the stuck receiver of a ward hangs, and within what a healthy delivery must have arrived meanwhile. If a lane
// could hold up another, the healthy ones would wait for the stuck one. Both are far from what a busy machine makes of a
// delivery that takes a millisecond.
const (
	stuckFor = 10 * time.Minute
	atOnce   = 30 * time.Second
)

// stuck hangs for longer than the test, with its lane full.
func stuck() ailment {
	return ailment{
		name: "hangs all the while", group: "hang", conf: fmt.Sprintf("timeout: %v", stuckFor), class: "timeout",
		serve: after((*rogueLine).hang),
	}
}

// some returns all ailments for the full length, and the first ones of each group for the quick one.
func some(all []ailment) []ailment {
	const quick = 2
	seen := map[string]int{}
	return slices.DeleteFunc(all, func(a ailment) bool {
		seen[a.group]++
		return !full() && seen[a.group] > quick
	})
}

// TestFaultReceivers has a relay deliver to receivers that are ill in all the ways we know, at the same time, and to a
// healthy one beside them. Each attempt must end as it is documented, in its time, with bounded bytes and one request, and
// leave nothing behind; and the healthy one must not notice.
func TestFaultReceivers(t *testing.T) {
	trap := "trap.faults.test"
	ills := append(some(slices.Concat(stages(t), answersWithout(t), words(trap), ofHTTP2(), untrusted())), stuck())
	w := newWard(t, "", ills, func(n int) string { return fmt.Sprintf("127.0.64.%d", n+1) })
	stuck := w.patients[len(w.patients)-1]
	w.patients = w.patients[:len(w.patients)-1]

	alone := w.neighbour(t, pick(50, 1000), atOnce, func() bool { return true })
	before := w.process.usage(t)
	const lane = 2 // its concurrency
	for range 2 * lane {
		stuck.deliveries = append(stuck.deliveries, w.post(t, stuck.destination, "{}"))
	}
	waitUntil(t, 20*time.Second, "the lane of the stuck receiver is full", func() bool { return stuck.requests.Load() == lane })
	w.admit(t, pick(1, 10))
	n, over := 0, false
	crowded := w.neighbour(t, pick(50, 1000), atOnce, func() bool {
		if n++; n%20 == 0 {
			over = w.pending(t) == 0
		}
		return over
	})
	attempts := w.discharge(t, pick(60*time.Second, 5*time.Minute)) // each to a rogue that floods may take all of its 20 s

	// The control: what stands in a lane that is full does not arrive, so what is measured at the healthy one would show it.
	if got := stuck.requests.Load(); got != lane {
		t.Errorf("the stuck receiver has %d requests, want %d in flight and the others waiting", got, lane)
	}
	after := w.process.usage(t)
	w.nothingLeft(t, lane)
	if full() {
		w.onlyStuckLeft(t, lane)
	} else {
		w.process.stop(t)
	}

	groups := map[string]int{}
	for _, p := range w.patients {
		groups[p.group]++
	}
	var list []string
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range groups {
			if !yield(name) {
				return
			}
		}
	}) {
		list = append(list, fmt.Sprintf("%d %s", groups[name], name))
	}
	report(t, "receivers", "%d ways to be ill at once (%s), %d attempts, each on record as documented; the healthy neighbour beside them: %v, alone: %v; before %v, after %v",
		len(w.patients), strings.Join(list, ", "), attempts, crowded, alone, before, after)
}
