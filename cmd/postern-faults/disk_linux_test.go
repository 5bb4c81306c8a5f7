package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const mib = 1 << 20

// TestFaultDiskSpace takes the disk's space and inodes away under load, and gives them back. Below the reserve ingest answers
// 507 and deliveries go on, and with room it recovers by itself.
func TestFaultDiskSpace(t *testing.T) {
	t.Run("tmpfs", func(t *testing.T) { testSpace(t, newVolume(t, "size=500m,nr_inodes=5000", 0)) })
	if full() {
		t.Run("ext4", func(t *testing.T) { testSpace(t, newVolume(t, "nodiscard", 600)) })
	}
}

func testSpace(t *testing.T, v *volume) {
	s, l := newDisk(t, v, siteOptions{}), newLedger()
	chance := seeded(t)
	p := v.start(s)
	far := s.fars["far"]
	app := s.load(chance, l, 4, plainPosts("far", "space", 500))
	waitUntil(t, 20*time.Second, "messages are accepted", func() bool { return l.count() > 20 })

	// without takes room away, and waits until ingest has noticed that.
	without := func(name string, take func()) {
		earlier := l.refusedWith(http.StatusInsufficientStorage)
		take()
		waitUntil(t, 20*time.Second, "ingest answers 507 without "+name, func() bool { return l.refusedWith(http.StatusInsufficientStorage) > earlier })
	}
	for round := range pick(1, 5) {
		for name, take := range map[string]func(){
			"space": func() { v.fill(180 * mib) }, "inodes": func() { v.fillInodes(40) },
		} {
			far.Outage(true)
			before := l.count()
			waitUntil(t, 20*time.Second, "messages pile up", func() bool { return l.count() >= before+20 })
			without(name, take)
			if s.isReady() {
				t.Errorf("round %d: ready without %s", round, name)
			}
			arrived, none := len(far.ids()), l.count()
			far.Outage(false)
			waitUntil(t, 30*time.Second, "deliveries go on without "+name, func() bool { return len(far.ids()) >= arrived+20 })
			if got := l.count() - none; got > 4 { // those in flight when it was taken
				t.Errorf("%d messages were accepted without %s", got, name)
			}
			again := l.count()
			v.clear()
			waitUntil(t, 20*time.Second, "messages are accepted with room again", func() bool { return l.count() > again+20 })
		}
		// To the last byte, slowly enough to be seen: nothing dies of it, for nothing is written.
		without("space", func() { v.fill(60 * mib) })
		v.fill(0)
		time.Sleep(pick(300*time.Millisecond, 10*time.Second))
		if p.ended() {
			t.Errorf("round %d: the relay died of a full disk that it had seen coming, with code %d", round, p.code())
		}
		again := l.count()
		v.clear()
		waitUntil(t, 20*time.Second, "messages are accepted with room again", func() bool { return l.count() > again+20 })
	}
	app.stop()
	tally := s.settle(l, 60*time.Second)
	tally.check(t)
	p.stop(t)

	// Full at the start: it says so and exits with 1, and with room it starts.
	v.fill(50 * mib)
	p = s.launchWith(t, nil, v.enter...)
	p.wait(t, 30*time.Second)
	if p.code() != 1 || !strings.Contains(p.log.String(), "make room") {
		t.Errorf("start on a full disk: code %d, want 1 and what to do:\n%s", p.code(), p.log)
	}
	v.clear()
	v.start(s).stop(t)
	report(t, "disk", "full by others to below the reserve, to the last byte, at the start, and out of inodes, %d rounds: %v; %d posts got 507, "+
		"deliveries went on, room was noticed each time", pick(1, 5), tally, l.refusedWith(http.StatusInsufficientStorage))
}

// refusedWith returns how many posts were answered with a status.
func (l *ledger) refusedWith(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused[status]
}

// TestFaultDiskTaken takes all of the disk's space between two looks of the relay at it. The kernel may kill the relay by
// SIGBUS then; what was answered with 202 is there when it has room again.
func TestFaultDiskTaken(t *testing.T) {
	if !full() {
		return
	}
	for name, v := range map[string]*volume{
		"tmpfs": newVolume(t, "size=400m", 0), "ext4": newVolume(t, "nodiscard", 500),
	} {
		t.Run(name, func(t *testing.T) {
			v.t = t
			s, l := newDisk(t, v, siteOptions{Program: plainPostern(t)}), newLedger()
			died, chance := 0, seeded(t)
			const rounds = 8
			app := s.load(chance, l, 8, plainPosts("far", name, 3000))
			for range rounds {
				p := v.start(s)
				p.log.allowFatal()
				before := l.count()
				waitUntil(t, 20*time.Second, "messages are accepted", func() bool { return l.count() > before+20 })
				time.Sleep(time.Duration(chance.IntN(500)) * time.Millisecond)
				v.fill(0)
				time.Sleep(time.Second)
				if p.ended() {
					died++
					wantFatal(t, p)
				} else {
					p.kill(t)
				}
				v.clear()
			}
			app.stop()
			p := v.start(s)
			tally := s.settle(l, 60*time.Second)
			tally.check(t)
			p.stop(t)
			report(t, "disk", "all space taken in one moment under load on %s, %d rounds, %d of them ended the relay by SIGBUS: %v", name, rounds, died, tally)
		})
	}
}

// wantFatal expects an end by a failed disk (5) or by the kernel, as it is documented: SIGABRT (134).
func wantFatal(t *testing.T, p *process) {
	t.Helper()
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if p.code() != 5 && (!ok || !status.Signaled() || status.Signal() != syscall.SIGABRT) {
		t.Errorf("the relay ended with code %d (%v), want 5 or SIGABRT; it printed:\n%s", p.code(), p.cmd.ProcessState, p.log)
	}
}

// TestFaultDiskFull has the app itself fill the disk, with bodies that nobody takes: it gets 507 at the reserve, and when
// they have been delivered and swept there is room again.
func TestFaultDiskFull(t *testing.T) {
	if !full() {
		return
	}
	v := newVolume(t, "size=500m", 0)
	s, l := newDisk(t, v, siteOptions{Store: "retention: 1s"}), newLedger()
	p := v.start(s)
	s.fars["far"].Outage(true)
	var n atomic.Int64
	big := func() outgoing {
		return outgoing{path: "/to/far", body: fmt.Appendf(nil, `{"n":%d,"pad":%q}`, n.Add(1), strings.Repeat("x", 900_000))}
	}
	client := &http.Client{Timeout: 30 * time.Second}
	status := 0
	for range 2000 {
		var err error
		if status, err = l.post(t.Context(), client, s, big()); err != nil {
			t.Fatal(err)
		}
		if status == http.StatusInsufficientStorage {
			break
		}
	}
	if status != http.StatusInsufficientStorage || l.count() < 50 {
		t.Fatalf("after %d messages: got %d, want 507", l.count(), status)
	}
	before := l.count()
	s.fars["far"].Outage(false)
	tally := s.settle(l, 120*time.Second)
	tally.check(t)
	waitUntil(t, 5*time.Minute, "there is room again", func() bool {
		status, err := l.post(t.Context(), client, s, big())
		return err == nil && status == http.StatusAccepted
	})
	if tally = s.settle(l, 60*time.Second); l.count() <= before {
		t.Error("nothing more was accepted")
	}
	tally.check(t)
	p.stop(t)
	report(t, "disk", "filled by us with %d bodies of 0.9 MB until 507; delivered, swept, and room again by itself: %v", before, tally)
}
