package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// machine is what a power cut is made with: a disk in a file, with the file system on it that the relay writes to.
//
// What is "on the disk" when the power goes? The relay writes to the page cache of the inner file system, which a cut
// loses; that file system writes to a loop device, which writes to a file on an xfs. A clone of that file (FICLONE, which
// waits for the writes in progress and lets none begin) is a picture of the device at one moment: all writes that the
// device had taken, in the order in which it took them, and nothing of what was in the page cache above it. The page
// cache between the loop device and the xfs counts as "on the disk" there: the clone writes it out first. So this is a
// disk without a cache of its own.
//
// Real disks have one, and lose what was not flushed. For that, cached puts one more file system between: the loop device
// of the relay's file system writes to a file on it, through its page cache, and only a flush (which the loop device turns
// into an fsync) brings that to the outer loop device. The clone is of the outer one's file: it loses whatever the inner
// file system has written and not flushed, but for what the kernel happened to write back before.
type machine struct {
	kind    string // ext4 or xfs: the relay's file system
	cached  bool
	options []string // for mounting the relay's file system
	dir     string
	base    string // folder of the xfs
	disk    string // the file that is cloned
	mounted int
}

const (
	outerSize = 24 << 30 // bytes; what is not written takes no room
	diskSize  = 3 << 30
	innerSize = 2 << 30
)

// newMachine makes the disks and mounts them. It needs a namespace of its own, see ownMounts.
func newMachine(t *testing.T, kind string, cached bool, options ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{kind: kind, cached: cached, options: options, dir: dir, base: filepath.Join(dir, "base")}
	m.disk = filepath.Join(m.base, "disk")
	makeDisk(t, filepath.Join(dir, "xfs"), "xfs", outerSize)
	mountDisk(t, filepath.Join(dir, "xfs"), m.base)
	if !cached {
		makeDisk(t, m.disk, kind, innerSize)
		return m
	}
	makeDisk(t, m.disk, "ext4", diskSize)
	between := filepath.Join(dir, "between")
	mountDisk(t, m.disk, between)
	makeDisk(t, filepath.Join(between, "inner"), kind, innerSize)
	run(t, "umount", between)
	return m
}

// mount mounts a disk, the machine's own or a clone of it, and returns the folder of the relay's file system. unmount
// undoes it.
func (m *machine) mount(t *testing.T, disk string) (folder string, unmount func()) {
	t.Helper()
	m.mounted++
	folder = filepath.Join(m.dir, fmt.Sprintf("mounted-%d", m.mounted))
	if !m.cached {
		mountDisk(t, disk, folder, m.options...)
		return folder, func() { run(t, "umount", folder) }
	}
	between := folder + "-between"
	mountDisk(t, disk, between)
	mountDisk(t, filepath.Join(between, "inner"), folder, m.options...)
	return folder, func() { run(t, "umount", folder, between) }
}

// cut is a picture of the disk at one moment.
type cut struct {
	file  string
	begun time.Time // before it
}

// cut takes a picture. The relay goes on.
func (m *machine) cut(t *testing.T, n int) cut {
	t.Helper()
	c := cut{file: filepath.Join(m.base, fmt.Sprintf("cut-%d", n)), begun: time.Now()}
	run(t, "cp", "--reflink=always", m.disk, c.file)
	return c
}

// TestFaultPower cuts the power under load, again and again: each cut is a picture of the disk at that moment, on which
// another relay is started. What had been answered with 202 before the picture was begun must be there and arrive. It is
// run in full only.
func TestFaultPower(t *testing.T) {
	if !full() {
		return
	}
	for _, tc := range []struct {
		name, kind string
		cached     bool
		cuts       int
	}{
		{"ext4", "ext4", false, 24},
		{"xfs", "xfs", false, 16},
		{"ext4 on a disk that loses its cache too", "ext4", true, 24},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ownMounts(t)
			m := newMachine(t, tc.kind, tc.cached)
			total := testPower(t, m, tc.cuts, nil)
			total.check(t)
			if total.Refused > 0 {
				t.Errorf("%d of %d starts were refused", total.Refused, tc.cuts)
			}
			report(t, "power", "%s, %d cuts under load: %s", tc.name, tc.cuts, total)
		})
	}
	t.Run("a relay whose syncs do nothing loses messages", func(t *testing.T) {
		ownMounts(t)
		need(t, "strace")
		m := newMachine(t, "ext4", false)
		total := testPower(t, m, 3, []string{"strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=msync,fsync,fdatasync,sync_file_range",
			"-e", "inject=msync,fsync,fdatasync,sync_file_range:retval=0"})
		if total.Missing == 0 {
			t.Errorf("nothing was lost (%s): the cuts prove nothing", total)
		}
		report(t, "power", "control, ext4 and a relay whose syncs do nothing, 3 cuts: %s; it must lose some, and does", total)
	})
	t.Run("a file system that never flushes its disk's cache loses messages", func(t *testing.T) {
		ownMounts(t)
		m := newMachine(t, "ext4", true, "nobarrier")
		total := testPower(t, m, 3, nil)
		if total.Missing == 0 {
			t.Errorf("nothing was lost (%s): the cuts of the disk's cache prove nothing", total)
		}
		report(t, "power", "control, ext4 that never flushes, on a disk that loses its cache too, 3 cuts: %s; it must lose some, and does", total)
	})
}

// powerTally is what became, over all cuts, of what had been accepted before each.
type powerTally struct {
	Checked int // messages, each once for each cut
	Missing int // of them, those that were not there, or did not arrive
	Altered int // arrivals with another body
	Pending int // deliveries that the cut left pending
	Again   int // deliveries that had arrived before the cut, and arrived again after it
	Refused int // starts that did not work
}

// String says it in the words of the summary.
func (p powerTally) String() string {
	return fmt.Sprintf("%d accepted before them were looked for, %d missing, %d altered; %d deliveries were pending, %d arrived a second "+
		"time under the same id; %d starts refused", p.Checked, p.Missing, p.Altered, p.Pending, p.Again, p.Refused)
}

func (p powerTally) check(t *testing.T) {
	t.Helper()
	if p.Missing > 0 || p.Altered > 0 {
		t.Errorf("got %s, want nothing missing or altered", p)
	}
	if p.Checked == 0 || p.Pending == 0 {
		t.Errorf("got %s: this tests nothing", p)
	}
}

// testPower runs a storm on the machine and cuts the power so often; then it looks at what is on each picture. The wrap is
// a command before the relay, or nil.
func testPower(t *testing.T, m *machine, cuts int, wrap []string) powerTally {
	folder, unmount := m.mount(t, m.disk)
	st := newStorm(t, "127.0.62.", "", plainPostern(t))
	st.Data = filepath.Join(folder, "data")
	var pictures []cut
	life := 0
	begin := func() *process {
		life++
		st.begin(life)
		return st.launch(t, wrap...)
	}
	p := begin()
	st.ready(p)
	time.Sleep(500 * time.Millisecond)
	for n := range cuts {
		time.Sleep(time.Duration(st.chance.IntN(1500)) * time.Millisecond)
		if n%8 == 7 { // a picture of a start after a kill
			st.kill(p)
			p = begin()
			time.Sleep(time.Duration(st.chance.IntN(200)) * time.Millisecond)
			pictures = append(pictures, m.cut(t, n))
			st.ready(p)
			continue
		}
		pictures = append(pictures, m.cut(t, n))
	}
	st.kill(p)
	st.stopped()
	st.app.stopping()
	st.app.workers.Wait()
	st.others.Wait()
	unmount()

	later := siteOptions{IP: "127.0.62.11", Program: st.Program, Config: st.Config, Destinations: slices.Clone(st.Destinations)}
	for i := range later.Destinations {
		later.Destinations[i].IP = fmt.Sprintf("127.0.62.%d", 12+i)
	}
	after := newSite(t, later)
	var total powerTally
	for n, picture := range pictures {
		after.life = n + 1
		total.add(wake(t, after, m, st, picture))
	}
	return total
}

// wake starts the relay of after on a picture, has it deliver what is pending, and looks for what had been accepted
// before the picture was begun.
func wake(t *testing.T, after *site, m *machine, st *storm, picture cut) (n powerTally) {
	before := st.ledger.messages()
	for id, a := range before {
		if !a.at.Before(picture.begun) {
			delete(before, id)
		}
	}
	n.Checked = len(before)
	folder, unmount := m.mount(t, picture.file)
	defer func() {
		unmount()
		if err := os.Remove(picture.file); err != nil {
			t.Error(err)
		}
	}()
	after.Data = filepath.Join(folder, "data")
	after.configure(t)
	p := after.launch(t)
	waitUntil(t, 30*time.Second, "postern is ready or has ended", func() bool { return p.ended() || after.isReady() })
	if p.ended() {
		t.Logf("the start on a picture ended with code %d:\n%s", p.code(), p.log)
		n.Refused, n.Missing = 1, len(before)
		return n
	}
	if _, err := after.client().Resume(t.Context(), "right"); err != nil {
		t.Errorf("resume: %v", err)
	}
	waitUntil(t, 2*time.Minute, "what is pending is delivered", func() bool {
		o, err := after.client().Overview(t.Context())
		return err == nil && o.Pending == 0
	})
	p.stop(t)
	there := map[string]exportedMessage{}
	after.export(t, func(m exportedMessage) { there[m.ID] = m })
	life, again := fmt.Sprint(after.life), map[string]int{}
	for id, a := range before {
		x, ok := there[id]
		if !ok {
			n.Missing++
			continue
		}
		for _, d := range x.Deliveries {
			early := slices.DeleteFunc(slices.Clone(st.fars[d.To].arrivals(id)), func(a arrival) bool { return a.at.After(picture.begun) })
			late := slices.DeleteFunc(slices.Clone(after.fars[d.To].arrivals(id)), func(a arrival) bool { return a.life != life })
			if d.State != "delivered" || len(early)+len(late) == 0 && len(st.fars[d.To].arrivals(id)) == 0 {
				n.Missing++
			}
			if slices.ContainsFunc(slices.Concat(early, late), func(b arrival) bool { return b.digest != a.digest }) {
				n.Altered++
			}
			if n.Pending += len(late); len(early) > 0 && len(late) > 0 && late[0].replay == "" {
				again[d.To]++
			}
		}
	}
	for name, count := range again {
		if n.Again += count; count > inFlight {
			t.Errorf("%s: after a cut %d came again, more than the %d that can be in flight", name, count, inFlight)
		}
	}
	return n
}

// add adds another tally.
func (p *powerTally) add(more powerTally) {
	p.Checked, p.Missing, p.Altered = p.Checked+more.Checked, p.Missing+more.Missing, p.Altered+more.Altered
	p.Pending, p.Again, p.Refused = p.Pending+more.Pending, p.Again+more.Again, p.Refused+more.Refused
}
