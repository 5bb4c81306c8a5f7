package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFaultDiskSync has a sync fail, of the log (msync) or of its folder (fsync). Nothing that waits for it is answered with
// 202, the relay ends with code 5, and the next start has all that was.
func TestFaultDiskSync(t *testing.T) {
	if !full() {
		return
	}
	need(t, "strace")
	for _, call := range []string{"msync", "fsync"} {
		t.Run(call, func(t *testing.T) {
			s, l := newSite(t, siteOptions{
				IP: "127.0.63.1", Program: plainPostern(t), Destinations: []destination{{Name: "far", IP: "127.0.63.2"}},
			}), newLedger()
			chance := seeded(t)
			const rounds = 15
			for round := range rounds {
				p := s.start(t)
				app := s.load(chance, l, 6, plainPosts("far", fmt.Sprint(call, round), 300))
				before := l.count()
				waitUntil(t, 20*time.Second, "messages are accepted", func() bool { return l.count() > before+10 })
				if call == "fsync" {
					s.stirFolder(t, p)
				}
				if round%3 == 0 {
					// One post alone, whose sync is the next.
					app.stop()
					waitUntil(t, 20*time.Second, "nothing is pending", func() bool { return s.compare(l).Missing == 0 })
				}
				nth := 1 + (round%3)*chance.IntN(60)
				p.inject(t, fmt.Sprintf("%s:error=EIO:when=%d+", call, nth))
				if round%3 == 0 {
					status, err := l.post(t.Context(), &http.Client{Timeout: 20 * time.Second}, s, plainPosts("far", "alone", 10)(chance, round))
					if err == nil && status == http.StatusAccepted {
						t.Errorf("a post whose %s failed was answered with 202", call)
					}
				}
				p.wait(t, 30*time.Second)
				if p.code() != 5 {
					t.Errorf("exit code after a failed %s: got %d, want 5; it printed:\n%s", call, p.code(), p.log)
				}
				app.stop()
			}
			p := s.start(t)
			tally := s.settle(l, 60*time.Second)
			tally.check(t)
			p.stop(t)
			report(t, "disk", "%s fails with EIO from the n-th on, under load and for a post alone, %d rounds: each ended with code 5; %v", call, rounds, tally)
		})
	}
}

// stirFolder makes it look as if something had come into the database's folder again and again, until the process or the
// test ends: else hardly a commit has to sync the folder.
func (s *site) stirFolder(t *testing.T, p *process) {
	t.Helper()
	folder := filepath.Join(s.Data, "badger")
	ended := make(chan struct{})
	t.Cleanup(func() { <-ended })
	go func() {
		defer close(ended)
		for !p.ended() && t.Context().Err() == nil {
			now := time.Now()
			if err := os.Chtimes(folder, now, now); err != nil {
				t.Errorf("stir folder: %v", err)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
}

// inject has strace change system calls of the process from now on, until it ends. It returns when strace follows it.
func (p *process) inject(t *testing.T, what string) (stop func()) {
	t.Helper()
	call, _, _ := strings.Cut(what, ":")
	pid := p.cmd.Process.Pid // a command before it, such as nsenter, has become the relay itself
	cmd := exec.Command("strace", "-f", "-qq", "-o", os.DevNull, "-p", strconv.Itoa(pid), "-e", "trace="+call, "-e", "inject="+what)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it ends with the process
	}()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		<-ended
	}
	t.Cleanup(stop)
	waitUntil(t, 20*time.Second, "strace follows each thread", func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil || len(tasks) == 0 {
			return p.ended()
		}
		for _, task := range tasks {
			text, err := os.ReadFile(task)
			if err == nil && !strings.Contains(string(text), fmt.Sprintf("TracerPid:\t%d", cmd.Process.Pid)) {
				return false
			}
		}
		return true
	})
	return stop
}

// TestFaultDiskSlow has each sync take long. Posts wait for it, and nothing else goes wrong.
func TestFaultDiskSlow(t *testing.T) {
	if !full() {
		return
	}
	need(t, "strace")
	s, l := newSite(t, siteOptions{
		IP: "127.0.63.1", Program: plainPostern(t), Destinations: []destination{{Name: "far", IP: "127.0.63.2"}},
	}), newLedger()
	p := s.start(t)
	stop := p.inject(t, "msync:delay_exit=700000")
	app := s.load(seeded(t), l, 16, plainPosts("far", "slow", 300))
	time.Sleep(30 * time.Second)
	app.stop()
	if !s.isReady() || l.lost > 0 || len(l.refused) > 0 {
		t.Errorf("ready %t, %d posts without an answer, refused: %v; want each accepted in its time", s.isReady(), l.lost, l.refused)
	}
	tally := s.settle(l, 2*time.Minute)
	stop()
	tally.check(t)
	p.stop(t)
	report(t, "disk", "each sync takes 0.7 s, for 30 s of load: %v, none refused", tally)
}

// TestFaultDiskFrozen freezes the file system under load, for a while that ends before a commit counts as failed, and for
// one that does not.
func TestFaultDiskFrozen(t *testing.T) {
	if !full() {
		return
	}
	need(t, "fsfreeze")
	v := newVolume(t, "nodiscard", 600)
	s, l := newDisk(t, v, siteOptions{}), newLedger()
	app := s.load(seeded(t), l, 4, plainPosts("far", "frozen", 300))
	p := v.start(s)
	moving := func() {
		before := l.count()
		waitUntil(t, 30*time.Second, "messages are accepted", func() bool { return l.count() > before+20 })
	}
	moving()
	for _, seconds := range []time.Duration{5, 15} {
		before := l.frozen(t, v, seconds*time.Second)
		if got := l.count() - before; got > 4 {
			t.Errorf("%d messages were answered with 202 while the disk was frozen", got)
		}
		v.must("fsfreeze", "-u", v.path)
		moving()
	}
	before := l.frozen(t, v, 75*time.Second)
	if got := l.count() - before; got > 4 {
		t.Errorf("%d messages were answered with 202 while the disk was frozen", got)
	}
	v.must("fsfreeze", "-u", v.path)
	p.wait(t, 30*time.Second)
	if p.code() != 5 {
		t.Errorf("exit code after a commit of more than a minute: got %d, want 5; it printed:\n%s", p.code(), p.log)
	}
	p = v.start(s)
	moving()
	app.stop()
	tally := s.settle(l, 60*time.Second)
	tally.check(t)
	p.stop(t)
	report(t, "disk", "frozen under load for 5 s and 15 s, and it went on; for 75 s, and it ended with code 5 once thawed: %v", tally)
}

// frozen freezes a volume for some time, and returns how many messages had been accepted a moment after. The caller thaws it.
func (l *ledger) frozen(t *testing.T, v *volume, d time.Duration) int {
	t.Helper()
	v.must("fsfreeze", "-f", v.path)
	t.Cleanup(func() { _ = v.run("fsfreeze", "-u", v.path) }) // a process in a write to it cannot be killed
	time.Sleep(500 * time.Millisecond)
	before := l.count()
	time.Sleep(d - 500*time.Millisecond)
	return before
}

// TestFaultDiskReadOnly has ext4 meet an error of its own under load and become read-only, or shut down, after which all
// of its calls fail. The relay ends, and on the mended disk a start has all that was answered with 202.
func TestFaultDiskReadOnly(t *testing.T) {
	if !full() {
		return
	}
	for name, hurt := range map[string]func(*volume){"read-only": (*volume).makeReadOnly, "shut down": (*volume).shutDown} {
		t.Run(name, func(t *testing.T) {
			ended := map[string]int{}
			var total tally
			const rounds = 5
			for round := range rounds {
				t.Run(fmt.Sprint("round ", round+1), func(t *testing.T) {
					c, end := testHurt(t, fmt.Sprint(name, round), hurt)
					ended[end]++
					total.Accepted, total.Missing, total.Altered, total.Twice = total.Accepted+c.Accepted, total.Missing+c.Missing,
						total.Altered+c.Altered, total.Twice+c.Twice
				})
			}
			report(t, "disk", "ext4 %s under load, %d rounds: it ended with %v; on the mended disk %v", name, rounds, ended, total)
		})
	}
}

// testHurt is one life of a relay on a file system that is hurt under load, and the next one on what is left of it.
func testHurt(t *testing.T, tag string, hurt func(*volume)) (c tally, end string) {
	t.Helper()
	v := newVolume(t, "nodiscard,errors=remount-ro", 600)
	s, l := newDisk(t, v, siteOptions{}), newLedger()
	p := v.start(s)
	p.log.allowFatal()
	app := s.load(seeded(t), l, 6, plainPosts("far", tag, 1000))
	waitUntil(t, 30*time.Second, "messages are accepted", func() bool { return l.count() > 50 })
	hurt(v)
	p.wait(t, 90*time.Second)
	app.stop()
	wantFatal(t, p)
	end = p.cmd.ProcessState.String()
	v.remount()
	p = v.start(s)
	c = s.settle(l, 60*time.Second)
	c.check(t)
	p.stop(t)
	return c, end
}

// makeReadOnly has ext4 believe that it has met an error.
func (v *volume) makeReadOnly() {
	v.t.Helper()
	device := filepath.Base(v.device())
	if err := os.WriteFile("/sys/fs/ext4/"+device+"/trigger_fs_error", []byte("1"), 0); err != nil {
		v.t.Fatal(err)
	}
}

// shutDown ends a file system as the loss of its device does: what is not on the disk yet is lost.
func (v *volume) shutDown() {
	v.t.Helper()
	d, err := os.Open(v.root)
	if err != nil {
		v.t.Fatal(err)
	}
	defer d.Close()
	const ioctlShutdown, withoutLog = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN
	if err := unix.IoctlSetPointerInt(int(d.Fd()), ioctlShutdown, withoutLog); err != nil {
		v.t.Fatalf("shut down: %v", err)
	}
}

// device returns the loop device of a volume.
func (v *volume) device() string {
	v.t.Helper()
	out, err := exec.Command("losetup", "-j", v.path+".ext4", "-n", "-O", "NAME").Output()
	name := strings.TrimSpace(string(out))
	if err != nil || !strings.HasPrefix(name, "/dev/loop") {
		v.t.Fatalf("loop device: %q, %v", out, err)
	}
	return name
}

// remount mends a volume that is ext4, and mounts it again.
func (v *volume) remount() {
	v.t.Helper()
	v.must("umount", v.path)
	waitUntil(v.t, 20*time.Second, "the loop device is let go", func() bool {
		out, err := exec.Command("losetup", "-j", v.path+".ext4").Output()
		return err == nil && len(out) == 0
	})
	out, err := exec.Command("fsck.ext4", "-p", v.path+".ext4").CombinedOutput()
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() > 1) { // 1: faults were mended
		v.t.Fatalf("fsck.ext4: %v: %s", err, out)
	}
	v.must("mount", "-o", "loop,errors=remount-ro", v.path+".ext4", v.path)
}
