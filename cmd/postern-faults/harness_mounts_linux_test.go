package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// ownMounts gives the goroutine of a test a mount namespace of its own: what it mounts nobody else sees, and it is gone
// with the test, however that ends. Only this goroutine and the processes that it starts are in it: so files below a mount
// are read and written by them, and not in a subtest or another goroutine. It needs root.
func ownMounts(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the goroutine, and the namespace with its last process
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		t.Fatalf("this test mounts file systems, for which it must be run as root: unshare: %v", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make mounts private: %v", err)
	}
}

// makeDisk makes a file of so many bytes, without taking them yet, with a file system in it: ext4 or xfs, whose files can
// be cloned.
func makeDisk(t testing.TB, file, kind string, size int64) {
	t.Helper()
	need(t, "mkfs."+kind)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	args := map[string][]string{
		"ext4": {"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"}, // else a thread goes on writing it
		"xfs":  {"mkfs.xfs", "-q", "-m", "reflink=1"},
	}[kind]
	run(t, append(args, file)...)
}

// mountDisk mounts such a file on a folder, which it makes, by a loop device that is given back when it is unmounted. It
// is unmounted at the end of the test.
func mountDisk(t testing.TB, file, folder string, options ...string) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-o", strings.Join(append([]string{"loop"}, options...), ","), file, folder)
	t.Cleanup(func() { _ = exec.Command("umount", "-l", folder).Run() }) // it may be unmounted already
}

// run runs a command of the system, which must succeed.
func run(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}
