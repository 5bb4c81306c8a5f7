package listen_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/listen"
)

// openSocket opens a server at a socket in a folder that every user may enter.
func openSocket(t *testing.T, o listen.Options) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "listen")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "in.sock")
	o.Address = "unix://" + path
	start(t, o)
	return path
}

func TestSocketModeAndGroup(t *testing.T) {
	own := os.Getegid()
	group := own // another one takes root
	if os.Geteuid() == 0 {
		group = 54321
	}
	for _, tc := range []struct {
		name  string
		mode  fs.FileMode
		group string
		want  fs.FileMode
		gid   int
	}{
		{"the owner alone by default", 0, "", 0o600, own},
		{"a group of its own", 0o660, strconv.Itoa(group), 0o660, group},
		{"a group and no write bit for it", 0, strconv.Itoa(group), 0o600, group},
		{"everybody", 0o666, "", 0o666, own},
	} {
		t.Run(tc.name, func(t *testing.T) {
			old := syscall.Umask(0o077) // the mode that was asked for counts, whatever the mask
			defer syscall.Umask(old)
			path := openSocket(t, listen.Options{SocketMode: tc.mode, SocketGroup: tc.group})
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != tc.want {
				t.Errorf("got the mode %04o, want %04o", got, tc.want)
			}
			if got := int(info.Sys().(*syscall.Stat_t).Gid); got != tc.gid {
				t.Errorf("got the group %d, want %d", got, tc.gid)
			}
			if os.Geteuid() != 0 {
				return // only root can be somebody else
			}
			for _, who := range []struct {
				name     string
				uid, gid int
				want     bool
			}{
				{"the owner", 0, own, true},
				{"another user", 12345, 12345, tc.want&0o002 != 0},
				{"another user of that group", 12345, group, tc.gid == group && tc.want&0o020 != 0 || tc.want&0o002 != 0},
			} {
				err := connectAs(path, who.uid, who.gid)
				if (err == nil) != who.want || err != nil && !errors.Is(err, syscall.EACCES) {
					t.Errorf("%s: got %v, want let in = %t", who.name, err, who.want)
				}
			}
		})
	}
	t.Run("a group by its name", func(t *testing.T) {
		known, err := user.LookupGroupId(strconv.Itoa(own))
		if err != nil {
			t.Fatalf("the group of this process has no name: %v", err)
		}
		path := openSocket(t, listen.Options{SocketGroup: known.Name})
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := int(info.Sys().(*syscall.Stat_t).Gid); got != own {
			t.Errorf("got the group %d, want %d", got, own)
		}
	})
}

func TestTheLogNamesWhoIsAtAUnixSocket(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	s, _ := start(t, listen.Options{
		Address: "unix://" + filepath.Join(t.TempDir(), "in.sock"), Log: zap.New(core), Tokens: tokens(t, "right"),
	})
	exchange(t, s, "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\nConnection: close\r\n\r\n")
	want := fmt.Sprintf("unix:uid=%d,pid=%d", os.Getuid(), os.Getpid())
	for _, message := range []string{"wrong token", "request served"} {
		lines := logs.FilterMessage(message).All()
		if len(lines) != 1 || lines[0].ContextMap()["peer"] != want {
			t.Errorf("got %v, want one line about the peer %s", lines, want)
		}
	}
}

// connectAs connects to a socket as another user, who is in one group. It takes a thread of its own, which ends with it:
// in Linux a thread has its own user, as long as nobody asks for the whole process to change.
func connectAs(path string, uid, gid int) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends
		result <- func() error {
			if _, _, e := syscall.RawSyscall(syscall.SYS_SETGROUPS, 0, 0, 0); e != 0 {
				return e
			}
			if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
				return e
			}
			if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
				return e
			}
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer func() { _ = syscall.Close(fd) }()
			return syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
		}()
	}()
	return <-result
}
