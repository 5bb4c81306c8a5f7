package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-relay/postern/relay/admin"
)

// terminal is a pseudo terminal that a test holds the other end of.
type terminal struct {
	keys *os.File // what is written here is typed
	far  *os.File // standard input, output and error of the program
	seen *syncBuffer
}

func newTerminal(t *testing.T, columns uint16) *terminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(keys.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatalf("unlock pseudo terminal: %v", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatalf("name pseudo terminal: %v", err)
	}
	far, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(far.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatalf("size pseudo terminal: %v", err)
	}
	x := &terminal{keys: keys, far: far, seen: &syncBuffer{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4096)
		for {
			n, err := keys.Read(buffer)
			_, _ = x.seen.Write(buffer[:n])
			if err != nil {
				return // the far end is closed
			}
		}
	}()
	t.Cleanup(func() {
		_ = far.Close()
		<-done
		_ = keys.Close()
	})
	return x
}

// run runs the program at the terminal, types what is to be typed once the question was seen, and returns the exit code.
func (x *terminal) run(t *testing.T, environ []string, question, typed string, args ...string) int {
	t.Helper()
	cmd := exec.Command("postern", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = x.far, x.far, x.far
	cmd.Env = append(os.Environ(), environ...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if question != "" {
		waitUntil(t, 10*time.Second, "the question", func() bool { return strings.Contains(x.seen.String(), question) })
		if _, err := x.keys.WriteString(typed); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait() // the state says how it ended
	return cmd.ProcessState.ExitCode()
}

// TestTerminal runs commands at a pseudo terminal, against the answers of an API.
func TestTerminal(t *testing.T) {
	var replayed, matched atomic.Int32
	api := http.NewServeMux()
	api.HandleFunc("GET /api/v1/deliveries", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(admin.DeliveryPage{Deliveries: []admin.Delivery{
			{ID: "dlv_00000000000000000000000000000001", Destination: "a-destination-with-a-long-name", Event: "order.paid\x1b[2J", State: "failed",
				Last: &admin.Outcome{Class: "timeout", Error: "no answer within 30s"}},
		}})
	})
	api.HandleFunc("POST /api/v1/replay", func(w http.ResponseWriter, r *http.Request) {
		var asked admin.BulkReplay
		_ = json.NewDecoder(r.Body).Decode(&asked)
		chosen := int(matched.Load())
		answer := admin.BulkReplayed{Matched: chosen}
		if !asked.DryRun {
			if asked.ExpectCount == nil || *asked.ExpectCount != chosen {
				t.Errorf("got the expected count %v, want %d", asked.ExpectCount, chosen)
			}
			replayed.Add(1)
			answer.Replayed = chosen
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
	server := httptest.NewServer(api)
	defer server.Close()
	address := server.Listener.Addr().String()

	t.Run("a table fits, has colours, and obeys nothing from outside", func(t *testing.T) {
		x := newTerminal(t, 100)
		if code := x.run(t, []string{"TERM=xterm", "NO_COLOR="}, "", "", "list", "--admin", address); code != exitOK {
			t.Errorf("exit code: got %d", code)
		}
		waitUntil(t, 5*time.Second, "the table", func() bool { return strings.Contains(x.seen.String(), "a-destination-with-a-long-name") })
		text := x.seen.String()
		if !strings.Contains(text, "\x1b[31mfailed") || strings.Contains(text, "\x1b[2J") {
			t.Errorf("got %q, want a red word and no clearing of the screen", text)
		}
		for line := range strings.Lines(text) {
			if plain := stripColours(line); len([]rune(strings.TrimRight(plain, "\r\n"))) > 100 {
				t.Errorf("a line is too long: %q", plain)
			}
		}
	})
	for _, environ := range [][]string{{"NO_COLOR=1", "TERM=xterm"}, {"NO_COLOR=", "TERM=dumb"}} {
		t.Run("no colours with "+strings.Join(environ, " "), func(t *testing.T) {
			x := newTerminal(t, 200)
			x.run(t, environ, "", "", "list", "--admin", address)
			waitUntil(t, 5*time.Second, "the table", func() bool { return strings.Contains(x.seen.String(), "no answer within 30s") })
			if text := x.seen.String(); strings.Contains(text, "\x1b") {
				t.Errorf("got %q", text)
			}
		})
	}
	for _, tc := range []struct {
		name            string
		matched         int32
		question, typed string
		code            int
		want            int32
	}{
		{"n replays nothing", 2, "Replay 2 failed deliveries? [y/N] ", "n\n", exitFailed, 0},
		{"Enter replays nothing", 2, "[y/N] ", "\n", exitFailed, 0},
		{"the end of the input replays nothing", 2, "[y/N] ", "\x04", exitFailed, 0},
		{"y replays", 2, "[y/N] ", "y\n", exitOK, 1},
		{"y is not enough for many", 101, "Type 101 to go on: ", "y\n", exitFailed, 0},
		{"many want their number", 101, "Type 101 to go on: ", "101\n", exitOK, 1},
		{"nothing is not asked about", 0, "", "", exitOK, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			replayed.Store(0)
			matched.Store(tc.matched)
			x := newTerminal(t, 80)
			code := x.run(t, nil, tc.question, tc.typed, "replay", "--admin", address, "--destination", "far")
			if code != tc.code || replayed.Load() != tc.want {
				t.Errorf("got exit code %d and %d replays, want %d and %d; seen:\n%s", code, replayed.Load(), tc.code, tc.want, x.seen)
			}
		})
	}
	t.Run("send does not wait for what nobody types", func(t *testing.T) {
		x := newTerminal(t, 80)
		if code := x.run(t, nil, "", "", "send", "far", "--ingest", "127.0.0.1:1"); code != exitUsage {
			t.Errorf("exit code: got %d, want %d; seen:\n%s", code, exitUsage, x.seen)
		}
	})
}

// stripColours takes the escape sequences of colours out of a text.
func stripColours(text string) string {
	var b strings.Builder
	for text != "" {
		before, after, found := strings.Cut(text, "\x1b[")
		b.WriteString(before)
		if !found {
			break
		}
		_, text, _ = strings.Cut(after, "m")
	}
	return b.String()
}
