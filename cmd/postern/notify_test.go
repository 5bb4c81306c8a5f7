package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/relay"
)

// manager is what systemd is to the process: a socket that takes messages.
type manager struct {
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &manager{conn, path}
}

// await returns the assignments of the next message that holds the wanted one; others come before it or not.
func (m *manager) await(t *testing.T, want string) []string {
	t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for range 1000 {
		buffer := make([]byte, 4096)
		n, err := m.conn.Read(buffer)
		if err != nil {
			t.Fatalf("wait for %s: %v; seen %q", want, err, seen)
		}
		lines := strings.Split(string(buffer[:n]), "\n")
		if slices.Contains(lines, want) {
			return lines
		}
		seen = append(seen, string(buffer[:n]))
	}
	t.Fatalf("no %s among %q", want, seen)
	return nil
}

func TestSupervisorIsTold(t *testing.T) {
	m := newManager(t)
	dir := t.TempDir()
	_, admin := freeAddresses(t)
	file := filepath.Join(dir, "postern.yaml")
	text := fmt.Sprintf("listen: {ingest: \"unix://%[1]s/in.sock\", admin: \"%[2]s\"}\nstore: {path: \"%[1]s/data\"}\ndestinations: {a: {url: https://a.test/}}\n", dir, admin)
	writeFile(t, file, text)
	t.Setenv("NOTIFY_SOCKET", m.path)
	t.Setenv("WATCHDOG_USEC", "200000")
	begun := monotonic(t)
	p := launchPostern(t, "run", "--config", file)

	m.await(t, "STATUS=opening the store")
	m.await(t, "READY=1")
	if err := healthcheck(t, admin); err != nil {
		t.Errorf("told of as ready, and it is not: %v", err)
	}
	m.await(t, "WATCHDOG=1")
	m.await(t, "WATCHDOG=1")
	for round, config := range []struct{ text, status string }{
		{"destinations: {", "STATUS=serving by the earlier config: the latest one was refused, see the log"},
		{text + "log: {level: debug}\n", "STATUS=serving"},
	} {
		writeFile(t, file, config.text)
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		lines := m.await(t, "RELOADING=1")
		at := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "MONOTONIC_USEC=") })
		if at < 0 {
			t.Fatalf("reload %d: got %q, want the time on the monotonic clock", round, lines)
		}
		usec, err := strconv.ParseInt(strings.TrimPrefix(lines[at], "MONOTONIC_USEC="), 10, 64)
		if now := monotonic(t); err != nil || usec < begun || usec > now {
			t.Errorf("reload %d: got %q, want a time from %d to %d", round, lines[at], begun, now)
		}
		if lines := m.await(t, config.status); !slices.Contains(lines, "READY=1") {
			t.Errorf("reload %d: got %q, want READY=1 too", round, lines)
		}
	}
	p.stop(t)
	m.await(t, "STOPPING=1")
}

func monotonic(t *testing.T) int64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/uptime") // the clock of uptime goes on in a suspend as well, so it is never behind
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(raw))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return int64((seconds + 0.01) * 1e6)
}

func TestWatchdog(t *testing.T) {
	const every = time.Second
	ask := func(t *testing.T, alive func(context.Context) error) (told []error) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*every+every/2)
			defer cancel()
			keepQuiet(ctx, every, alive, func(err error) { told = append(told, err) })
		})
		return told
	}
	t.Run("a relay that lives is told of in each interval", func(t *testing.T) {
		if got := ask(t, func(context.Context) error { return nil }); !slices.Equal(got, []error{nil, nil, nil}) {
			t.Errorf("got %v, want three times nil", got)
		}
	})
	t.Run("one that says that it does not is not", func(t *testing.T) {
		dead := errors.New("dead")
		if got := ask(t, func(context.Context) error { return dead }); !slices.Equal(got, []error{dead, dead, dead}) {
			t.Errorf("got %v, want its error three times", got)
		}
	})
	t.Run("one that says nothing in time is not either", func(t *testing.T) {
		got := ask(t, func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
		if len(got) == 0 || slices.Contains(got, nil) {
			t.Errorf("got %v, want errors only", got)
		}
	})
}

// TestSocketActivation starts the program as systemd does, with open sockets.
func TestSocketActivation(t *testing.T) {
	far := newFarEnd(t, "127.0.0.86", "activated.test")
	dir := t.TempDir()
	ingest, admin := listenOn(t, "tcp", "127.0.0.1:0"), listenOn(t, "unix", filepath.Join(dir, "admin.sock"))
	file := filepath.Join(dir, "postern.yaml")
	// Where the config says that it listens does not matter: that port is taken.
	writeFile(t, file, far.config(ingest.Addr().String(), "127.0.0.1:0", filepath.Join(dir, "data"), ""))
	url := "http://" + ingest.Addr().String() + "/to/far"
	client := httpClient(t)
	accepted := map[string]string{}

	t.Run("it serves the sockets that it is given", func(t *testing.T) {
		p := activate(t, file, []string{"ingest", "admin"}, ingest, admin)
		waitUntil(t, 30*time.Second, "the relay is ready", func() bool { return healthcheckBy(admin.Addr().String()) == nil })
		for n := range 3 {
			body := fmt.Sprintf(`{"n":%d}`, n)
			id, err := post(t.Context(), client, url, body)
			if err != nil {
				t.Fatal(err)
			}
			accepted[id] = body
		}
		waitUntil(t, 30*time.Second, "the messages arrive", func() bool { return far.has(accepted) })
		p.stop(t)
	})
	t.Run("a post while it is away waits for the next start", func(t *testing.T) {
		answered := make(chan error, 1)
		go func() {
			_, err := post(context.Background(), client, url, `{"n":"between"}`)
			answered <- err
		}()
		p := activate(t, file, []string{"ingest", "admin"}, ingest, admin)
		if err := <-answered; err != nil {
			t.Errorf("got %v, want the post accepted after the start", err)
		}
		p.stop(t)
	})
	for name, names := range map[string][]string{
		`there is no listener "web"`:         {"ingest", "web"},
		`there is no listener ""`:            {"", "admin"},
		"LISTEN_FDNAMES names 1":             {"ingest"},
		"LISTEN_FDNAMES names 3":             {"ingest", "admin", "https"},
		`there are two sockets for "ingest"`: {"ingest", "ingest"},
	} {
		t.Run("what cannot be is refused: "+name, func(t *testing.T) {
			p := activate(t, file, names, ingest, admin)
			if code := exitCodeOf(t, p); code != exitUsage || !strings.Contains(p.log.String(), name) {
				t.Errorf("got exit code %d:\n%s\nwant %d, and %s", code, p.log, exitUsage, name)
			}
		})
	}
	t.Run("the rule for tokens holds for what is handed over", func(t *testing.T) {
		open := listenOn(t, "tcp", "0.0.0.0:0")
		p := activate(t, file, []string{"ingest"}, open)
		if code := exitCodeOf(t, p); code != exitUsage || !strings.Contains(p.log.String(), "set listen.tokens") {
			t.Errorf("got exit code %d:\n%s\nwant %d, for want of a token", code, p.log, exitUsage)
		}
	})
	t.Run("a socket for a listener that is not in the config is refused", func(t *testing.T) {
		p := activate(t, file, []string{"ingest", "admin", "https"}, ingest, admin, listenOn(t, "tcp", "127.0.0.1:0"))
		if code := exitCodeOf(t, p); code != exitUsage || !strings.Contains(p.log.String(), "no listen.https in the config; add listen.https") {
			t.Errorf("got exit code %d:\n%s\nwant %d, and what to do", code, p.log, exitUsage)
		}
	})
	t.Run("what is no listener is refused", func(t *testing.T) {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer packets.Close()
		connected, err := net.Dial("tcp", ingest.Addr().String()) // as Accept=yes hands over
		if err != nil {
			t.Fatal(err)
		}
		defer connected.Close()
		for _, conn := range []interface{ File() (*os.File, error) }{packets.(*net.UDPConn), connected.(*net.TCPConn)} {
			f, err := conn.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			sockets, err := namedSockets([]*os.File{os.NewFile(dup(t, f), "ingest")})
			if err == nil || !strings.Contains(err.Error(), "does not take connections") || sockets != (relay.Sockets{}) {
				t.Errorf("got %v, %v; want an error and no socket", sockets, err)
			}
		}
	})
	t.Run("what is closed is refused", func(t *testing.T) {
		f, err := ingest.File()
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if sockets, err := namedSockets([]*os.File{f}); err == nil || sockets != (relay.Sockets{}) {
			t.Errorf("got %v, %v; want an error and no socket", sockets, err)
		}
	})
}

func TestSocketNames(t *testing.T) {
	const pid = 4711
	for _, tc := range []struct {
		rule, owner, fds, names string
		want                    []string
		refused                 bool
	}{
		{rule: "nobody hands over anything"},
		{rule: "variables of another process are not ours", owner: "4710", fds: "2", names: "ingest:admin"},
		{rule: "no sockets are none", owner: "4711", fds: "0"},
		{rule: "each has its name", owner: "4711", fds: "2", names: "ingest:admin", want: []string{"ingest", "admin"}},
		{rule: "a name may be empty here", owner: "4711", fds: "2", names: ":admin", want: []string{"", "admin"}},
		{rule: "the number of the process has to be one", owner: "self", fds: "1", names: "ingest", refused: true},
		{rule: "and above 0", owner: "0", fds: "1", names: "ingest", refused: true},
		{rule: "so has the number of sockets", owner: "4711", fds: "two", names: "ingest:admin", refused: true},
		{rule: "which is not missing", owner: "4711", names: "ingest", refused: true},
		{rule: "nor negative", owner: "4711", fds: "-1", refused: true},
		{rule: "nor without bounds", owner: "4711", fds: "2147483647", names: "ingest", refused: true},
		{rule: "a name too few is refused", owner: "4711", fds: "2", names: "ingest", refused: true},
		{rule: "a name too many is refused", owner: "4711", fds: "1", names: "ingest:admin", refused: true},
		{rule: "no names at all are refused", owner: "4711", fds: "1", refused: true},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			got, err := socketNames(environment(tc.owner, tc.fds, tc.names), pid)
			if !slices.Equal(got, tc.want) || (err != nil) != tc.refused {
				t.Errorf("got %q, %v; want %q, refused %t", got, err, tc.want, tc.refused)
			}
		})
	}
}

// environment holds the variables that tell of sockets.
func environment(owner, fds, names string) func(string) string {
	return func(name string) string {
		return map[string]string{"LISTEN_PID": owner, "LISTEN_FDS": fds, "LISTEN_FDNAMES": names}[name]
	}
}

func FuzzSocketNames(f *testing.F) {
	f.Add("4711", "2", "ingest:admin")
	f.Add("4711", "99999999999999999999", ":::")
	f.Add("", "1", "ingest")
	f.Fuzz(func(t *testing.T, owner, fds, names string) {
		got, err := socketNames(environment(owner, fds, names), 4711)
		switch {
		case err != nil && got != nil:
			t.Errorf("got %q beside the error %v", got, err)
		case len(got) > maxSockets:
			t.Errorf("got %d sockets, want no more than %d", len(got), maxSockets)
		case len(got) > 0 && strings.Join(got, ":") != names:
			t.Errorf("got %q of %q", got, names)
		}
	})
}

func TestNotify(t *testing.T) {
	receive := func(t *testing.T, socket string) {
		t.Helper()
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := notify(socket, "READY=1\nSTATUS=x", time.Second); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 100)
		n, err := conn.Read(buffer)
		if got := string(buffer[:n]); err != nil || got != "READY=1\nSTATUS=x" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	t.Run("a path is told", func(t *testing.T) { receive(t, filepath.Join(t.TempDir(), "notify")) })
	t.Run("an abstract name is told", func(t *testing.T) { receive(t, fmt.Sprintf("@postern-test-%d", os.Getpid())) })
	for _, socket := range []string{"vsock:2:1234", "notify", filepath.Join(t.TempDir(), "missing")} {
		t.Run("nobody takes it at "+filepath.Base(socket), func(t *testing.T) {
			if err := notify(socket, "READY=1", time.Second); err == nil {
				t.Error("got no error")
			}
		})
	}
	t.Run("one that hangs does not hang us", func(t *testing.T) {
		m := newManager(t) // nobody reads
		for range 100_000 {
			if err := notify(m.path, "STATUS="+strings.Repeat("x", 4000), 50*time.Millisecond); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("got %v, want that the time is over", err)
				}
				return
			}
		}
		t.Error("the socket took all there was")
	})
}

// fileListener is a listener that can be handed on.
type fileListener interface {
	net.Listener
	File() (*os.File, error)
}

func listenOn(t *testing.T, network, address string) fileListener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(fileListener)
}

func dup(t *testing.T, f *os.File) uintptr {
	t.Helper()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return uintptr(fd)
}

// activate starts the program with sockets and their names. The variable with the process's own number is set by a
// shell that becomes the program.
func activate(t *testing.T, config string, names []string, listeners ...fileListener) *process {
	t.Helper()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec postern run --config "$0"`, config)
	cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(listeners)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	for _, l := range listeners {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return launch(t, cmd)
}

// exitCodeOf waits for a process that ends by itself.
func exitCodeOf(t *testing.T, p *process) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		t.Fatalf("it did not end:\n%s", p.log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// healthcheckBy asks the admin listener on a Unix socket.
func healthcheckBy(socket string) error {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Get("http://localhost/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
