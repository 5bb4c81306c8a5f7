package main

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is the program, running for a test.
type process struct {
	cmd     *exec.Cmd
	site    *site
	log     *logBuffer    // what it has printed, the end of it
	started time.Time     // when it was begun
	exited  chan struct{} // closed when it has ended
}

// start runs the relay and returns when it is ready. That it becomes ready at the first try, within 30 s, is a promise.
func (s *site) start(t *testing.T) *process {
	t.Helper()
	p := s.launch(t)
	p.ready(t, 30*time.Second)
	return p
}

// launch begins to run the relay and does not wait. The wrap, if there is one, is a command before it, such as strace
// with its flags. What is left of the process at the end of the test is killed.
func (s *site) launch(t *testing.T, wrap ...string) *process {
	t.Helper()
	return s.launchWith(t, nil, wrap...)
}

// launchWith is launch for a process with further flags of postern run.
func (s *site) launchWith(t *testing.T, flags []string, wrap ...string) *process {
	t.Helper()
	args := append(append(append([]string(nil), wrap...), s.Program, "run", "--config", s.config), flags...)
	p := &process{cmd: exec.Command(args[0], args[1:]...), site: s, log: &logBuffer{}, exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else the race detector sleeps for a second at the end
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that a wrap and the relay end together
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start postern: %v", err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the state says how it ended
	}()
	t.Cleanup(func() {
		ended := p.ended()
		p.signalGroup(syscall.SIGKILL)
		<-p.exited
		if found := p.log.found(); found != "" {
			t.Errorf("postern printed %q:\n%s", found, p.log)
		} else if t.Failed() && !ended { // those before it have ended as they should
			t.Logf("postern printed:\n%s", p.log)
		}
	})
	return p
}

// ready waits until the relay says that it is ready, and fails the test if it ends before.
func (p *process) ready(t *testing.T, within time.Duration) {
	t.Helper()
	waitUntil(t, within, "postern is ready", func() bool {
		if p.ended() {
			t.Fatalf("postern ended with code %d before it was ready:\n%s", p.code(), p.log)
		}
		return p.site.isReady()
	})
}

// isReady asks the relay once.
func (s *site) isReady() bool {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + s.admin + "/readyz")
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// code returns the exit code of a process that has ended, and -1 for one that a signal has ended.
func (p *process) code() int { return p.cmd.ProcessState.ExitCode() }

// kill ends the process, and what stands before it, at once: kill -9.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signalGroup(syscall.SIGKILL)
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		t.Fatal("postern is still there 30 s after kill -9")
	}
}

// stop ends the program as an operator does, and expects it to exit with 0 within 30 s.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signalGroup(syscall.SIGTERM)
	p.wait(t, 30*time.Second)
	if code := p.code(); code != 0 {
		t.Errorf("exit code after SIGTERM: got %d, want 0; it printed:\n%s", code, p.log)
	}
}

// wait returns when the process has ended, and fails the test if that takes longer than within.
func (p *process) wait(t *testing.T, within time.Duration) {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(within):
		t.Fatalf("postern has not ended within %s; it printed:\n%s", within, p.log)
	}
}

// signalGroup sends a signal to the process and what stands before it. One that has ended gets none.
func (p *process) signalGroup(signal syscall.Signal) {
	if !p.ended() {
		_ = syscall.Kill(-p.cmd.Process.Pid, signal) // it may end meanwhile
	}
}

// keptLog is how many of the last bytes that a process has printed are kept.
const keptLog = 256 << 10

// neverPrinted are what no process may print, whatever befalls it.
var neverPrinted = []string{"WARNING: DATA RACE", "panic: ", "fatal error: "}

// logBuffer keeps the end of what a process prints, and whether any of neverPrinted was in it.
type logBuffer struct {
	mu    sync.Mutex // guards the fields below
	text  []byte
	never string
	may   bool // see allowFatal
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, text := range neverPrinted {
		if bytes.Contains(p, []byte(text)) {
			b.never = text
		}
	}
	if b.text = append(b.text, p...); len(b.text) > 2*keptLog {
		b.text = append([]byte(nil), b.text[len(b.text)-keptLog:]...)
	}
	return len(p), nil
}

// String returns the end of what was printed.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}

// allowFatal lets the process end by a fatal error of Go's runtime, as SIGBUS is on a full disk. A data race is still
// none that passes.
func (b *logBuffer) allowFatal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.may = true
}

func (b *logBuffer) found() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.may && b.never != neverPrinted[0] {
		return ""
	}
	return b.never
}
