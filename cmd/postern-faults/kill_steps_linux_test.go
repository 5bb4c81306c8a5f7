package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// steps are the system calls by which the relay changes its files, answers its apps and talks to receivers. A kill at
// the n-th of one of them comes before it has done anything; so the kills at all of them are those between any two steps
// of a commit (pwrite64, msync, fsync), between the commit and the answer, the send and its record (write), and of a
// start or a stop (openat, ftruncate, mmap, renameat, unlinkat, …).
var steps = []string{
	"msync", "fsync", "pwrite64", "write", "ftruncate", "openat", "renameat", "unlinkat", "mkdirat", "mmap", "munmap", "close",
}

// TestFaultKillAtSystemCalls kills the relay at the n-th of each system call that matters, by strace: in its first start
// ever, in later starts, under load, and in stops. After each the relay must start at the first try. It is run in full
// only; the store's own tests kill at the steps of a commit without strace.
func TestFaultKillAtSystemCalls(t *testing.T) {
	if !full() {
		return
	}
	need(t, "strace")
	program := plainPostern(t) // the race detector has calls of its own
	t.Run("of the first start", func(t *testing.T) { testFirstStart(t, program) })
	t.Run("of a busy relay", func(t *testing.T) { testBusy(t, program) })
}

// injected is the command that runs or follows a process and kills it at the n-th of a system call.
func injected(call string, n int, more ...string) []string {
	return append([]string{"strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=" + call,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n)}, more...)
}

// counting is the command that runs a process and writes the system calls it makes to a file.
func counting(file string) []string {
	return []string{"strace", "-f", "-qq", "-o", file, "-e", "trace=" + strings.Join(steps, ",")}
}

// counted reads that file: how many of each there were.
func counted(t *testing.T, file string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // the process, the call with its arguments
		if len(fields) < 2 || strings.HasPrefix(fields[1], "<...") {
			continue // the end of one
		}
		if name, _, ok := strings.Cut(fields[1], "("); ok {
			counts[name]++
		}
	}
	if counts["msync"] == 0 || counts["openat"] == 0 {
		t.Fatalf("of the system calls only %v were seen: this tests nothing", counts)
	}
	return counts
}

// numbers are those of the calls at which to kill, up to most: all of what changes files, and of the others every few.
func numbers(call string, most int) (chosen []int) {
	step := 1
	if slices.Contains([]string{"openat", "mmap", "munmap", "close", "write"}, call) {
		step = 3
	}
	for n := 1; n <= most; n += step {
		chosen = append(chosen, n)
	}
	return chosen
}

// testFirstStart kills a relay that has no folder yet.
func testFirstStart(t *testing.T, program string) {
	s := newSite(t, siteOptions{IP: "127.0.61.11", Program: program, Destinations: []destination{{Name: "far", IP: "127.0.61.12"}}})
	file := filepath.Join(s.dir, "calls")
	p := s.launch(t, counting(file)...)
	p.ready(t, 30*time.Second)
	p.kill(t)
	counts := counted(t, file)
	l, chance, client := newLedger(), seeded(t), appClient(t)
	killed := map[string]int{}
	for _, call := range steps {
		for _, n := range numbers(call, counts[call]) {
			if err := os.RemoveAll(s.Data); err != nil {
				t.Fatal(err)
			}
			p := s.launch(t, injected(call, n)...)
			waitUntil(t, 30*time.Second, "the process is killed or ready", func() bool { return p.ended() || s.isReady() })
			if p.ended() {
				killed[call]++
			}
			p.kill(t)
			p = s.start(t)
			if _, err := l.post(t.Context(), client, s, plainPosts("far", fmt.Sprint(call, n), 100)(chance, n)); err != nil {
				t.Errorf("post after a kill at %s %d: %v", call, n, err)
			}
			s.settle(l, 30*time.Second)
			p.stop(t)
		}
	}
	c := s.compare(l)
	c.check(t)
	report(t, "kill", "%d kills of the first start ever, at %s: %s; each start after it worked at the first try", sum(killed), listed(killed), c)
}

// testBusy kills a relay in a storm: in a start, under load, in a stop.
func testBusy(t *testing.T, program string) {
	st := newStorm(t, "127.0.61.", "", program)
	life := 0
	begin := func() { life++; st.begin(life) }
	begin()
	file := filepath.Join(st.dir, "calls")
	p := st.launch(t, counting(file)...)
	st.ready(p)
	st.kill(p)
	starting := counted(t, file)

	starts, loads, stops := map[string]int{}, map[string]int{}, map[string]int{}
	for _, call := range steps {
		for _, n := range numbers(call, starting[call]) {
			begin()
			p := st.launch(t, injected(call, n)...)
			waitUntil(t, 30*time.Second, "the process is killed or ready", func() bool { return p.ended() || st.isReady() })
			if p.ended() {
				starts[call]++
			}
			st.kill(p)
			if n%4 == 1 { // else the next one that is to be killed is the start after this kill
				begin()
				p := st.launch(t)
				st.ready(p)
				st.kill(p)
			}
		}
		for _, n := range []int{1, 2, 3, 4, 5, 6, 8, 11, 15, 21, 30, 42, 60, 90} {
			begin()
			p := st.launch(t)
			st.ready(p)
			died := st.followed(p, call, n, func() {})
			st.kill(p)
			if !died {
				break // nor would it be at a later one
			}
			loads[call]++
		}
		for _, n := range []int{1, 2, 3, 4, 5, 6, 8, 11, 15, 21} {
			begin()
			p := st.launch(t)
			st.ready(p)
			died := st.followed(p, call, n, func() {
				st.hangups(nil)
				p.signalGroup(syscall.SIGTERM)
			})
			p.kill(t)
			st.ended(p, died || p.code() != 0)
			if !died {
				break
			}
			stops[call]++
		}
	}
	line := st.judge(st.calm(life+1), true)
	for _, call := range []string{"msync", "fsync", "pwrite64", "write"} {
		if starts[call] == 0 || loads[call] == 0 || stops[call] == 0 {
			t.Errorf("kills at %s: %d in starts, %d under load, %d in stops: want some of each", call, starts[call], loads[call], stops[call])
		}
	}
	report(t, "kill", "%d kills in later starts (%s), %d under load (%s), %d in stops (%s): %s", sum(starts), listed(starts), sum(loads),
		listed(loads), sum(stops), listed(stops), line)
}

// followed has strace kill a running process at the n-th of a system call from now on, and calls then when it is
// attached. It reports whether the process was killed so within 5 s.
func (st *storm) followed(p *process, call string, n int, then func()) (died bool) {
	st.t.Helper()
	args := injected(call, n, "-p", fmt.Sprint(p.cmd.Process.Pid))
	tracer := exec.Command(args[0], args[1:]...)
	if err := tracer.Start(); err != nil {
		st.t.Fatal(err)
	}
	attached := func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		return p.ended() || err == nil && !strings.Contains(string(status), "TracerPid:\t0\n")
	}
	waitUntil(st.t, 10*time.Second, "strace follows the process", attached)
	then()
	waitEnd(p, 5*time.Second)
	died = p.ended() && p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	_ = tracer.Process.Kill() // it ends with the process, or has nothing more to do
	_ = tracer.Wait()
	return died
}
