package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// volume is a small file system in a mount namespace of its own. Nobody else sees it, and it is gone when the test's
// process is, however that ends.
type volume struct {
	t     *testing.T
	path  string // where it is mounted, for processes within
	enter []string
	root  string // where this process sees it
}

// newVolume makes a volume. With image, a size in MiB, it is ext4 on a loop device; else it is a tmpfs of the options.
func newVolume(t *testing.T, options string, image int) *volume {
	t.Helper()
	need(t, "unshare", "nsenter", "mount")
	v := &volume{t: t, path: filepath.Join(t.TempDir(), "disk")}
	if err := os.Mkdir(v.path, 0o700); err != nil {
		t.Fatal(err)
	}
	mount := fmt.Sprintf("mount -t tmpfs -o %s tmpfs %q", options, v.path)
	if image > 0 {
		need(t, "mkfs.ext4", "losetup")
		file := v.path + ".ext4"
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(int64(image) << 20); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", file).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4: %v: %s", err, out)
		}
		mount = fmt.Sprintf("mount -o loop,%s %q %q", options, file, v.path)
	}
	// The holder waits for the end of its standard input, which is that of this process.
	holder := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", mount+" && echo mounted && exec cat")
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	holder.Stderr = &complaints
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = holder.Wait() // sh, or cat, has nothing to say
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "mounted\n" {
		t.Fatalf("this test needs root and its own mounts: %s: %q %v %s", mount, line, err, complaints.String())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	v.enter = []string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", holder.Process.Pid), "--"}
	v.root = fmt.Sprintf("/proc/%d/root%s", holder.Process.Pid, v.path)
	return v
}

// run runs a command within.
func (v *volume) run(command ...string) error {
	args := append(v.enter[:len(v.enter):len(v.enter)], command...)
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
	}
	return nil
}

// must is run for what has to work.
func (v *volume) must(command ...string) {
	v.t.Helper()
	if err := v.run(command...); err != nil {
		v.t.Fatal(err)
	}
}

// free returns the free bytes and inodes.
func (v *volume) free() (bytes, inodes int64) {
	v.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(v.root, &st); err != nil {
		v.t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Ffree)
}

// fill leaves so many free bytes, by a file of somebody else. It may be called again, with more or less.
func (v *volume) fill(leave int64) {
	v.t.Helper()
	f, err := os.OpenFile(filepath.Join(v.root, "filler"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	// Others write too: a few tries come near enough.
	for range 20 {
		info, err := f.Stat()
		if err != nil {
			v.t.Fatal(err)
		}
		free, _ := v.free()
		size := info.Size() + free - leave
		if size > info.Size() {
			err = unix.Fallocate(int(f.Fd()), 0, info.Size(), size-info.Size())
		} else {
			err = f.Truncate(max(size, 0))
		}
		switch {
		case err == nil:
			return
		case err != syscall.ENOSPC:
			v.t.Fatalf("fill: %v", err)
		}
	}
	if leave > 0 {
		v.t.Fatal("fill: there is less space each time")
	}
	// The last blocks.
	for raw := make([]byte, 1<<20); len(raw) > 0; {
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			v.t.Fatal(err)
		}
		if _, err := f.Write(raw); err != nil {
			raw = raw[:len(raw)/2]
		}
	}
}

// clear removes what fill and fillInodes have made.
func (v *volume) clear() {
	v.t.Helper()
	for _, name := range []string{"filler", "inodes"} {
		if err := os.RemoveAll(filepath.Join(v.root, name)); err != nil {
			v.t.Fatal(err)
		}
	}
}

// fillInodes leaves so many free inodes.
func (v *volume) fillInodes(leave int64) {
	v.t.Helper()
	dir := filepath.Join(v.root, "inodes")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		v.t.Fatal(err)
	}
	_, inodes := v.free()
	for n := range inodes - leave {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), nil, 0o600)
		if err == nil {
			continue
		}
		if pathErr, ok := err.(*os.PathError); ok && pathErr.Err == syscall.ENOSPC {
			return
		}
		v.t.Fatal(err)
	}
}

// newDisk makes a site whose store is on a volume, with one destination.
func newDisk(t *testing.T, v *volume, o siteOptions) *site {
	t.Helper()
	o.Data = filepath.Join(v.path, "data")
	if o.IP == "" {
		o.IP = "127.0.63.1"
	}
	o.Destinations = []destination{{
		Name: "far", IP: "127.0.63.2", Keys: "breaker: none, retry: {attempts: 100, first: 50ms, max: 5s, factor: 2}", // it is away for long
	}}
	return newSite(t, o)
}

// start runs the relay of a site within, and returns when it is ready.
func (v *volume) start(s *site, flags ...string) *process {
	v.t.Helper()
	p := s.launchWith(v.t, flags, v.enter...)
	p.ready(v.t, 30*time.Second)
	return p
}
