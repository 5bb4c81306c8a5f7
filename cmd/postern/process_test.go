package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// loadUntilDead posts from eight goroutines until the relay no longer answers, and notes what it accepted. They end by
// themselves before the relay has more than can be worked through in seconds. The returned func waits for them.
func loadUntilDead(t *testing.T, client *http.Client, url string, round int, accepted map[string]string) func() {
	t.Helper()
	const workers, most = 8, 400
	var (
		mu   sync.Mutex // guards accepted
		load sync.WaitGroup
	)
	pad := randomText(t, 300)
	for worker := range workers {
		load.Go(func() {
			for i := range most {
				body := fmt.Sprintf(`{"round":%d,"worker":%d,"i":%d,"pad":%q}`, round, worker, i, pad)
				id, err := post(t.Context(), client, url, body)
				if err != nil {
					return // the relay has been killed: this post was never acknowledged
				}
				mu.Lock()
				accepted[id] = body
				mu.Unlock()
			}
		})
	}
	return load.Wait
}

// post returns the id of an accepted message, and an error for anything but a 202.
func post(ctx context.Context, client *http.Client, url, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusAccepted {
		return "", fmt.Errorf("status %d: %s", answer.StatusCode, text)
	}
	return messageID(text)
}

// process is the program, running for a test.
type process struct {
	cmd    *exec.Cmd
	log    *syncBuffer
	exited chan struct{}
}

// startPostern runs the program as a process of its own and returns when it is ready.
func startPostern(t *testing.T, admin string, args ...string) *process {
	t.Helper()
	p := launchPostern(t, args...)
	waitUntil(t, 30*time.Second, "postern is ready", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("postern %v ended with code %d:\n%s", args, p.cmd.ProcessState.ExitCode(), p.log)
		default:
		}
		answer, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	return p
}

// launchPostern runs the program as a process of its own. What is left of it is killed at the end of the test.
func launchPostern(t *testing.T, args ...string) *process {
	t.Helper()
	// The test binary itself, under another name.
	return launch(t, exec.Command("postern", args...))
}

// launch is launchPostern for a command that becomes the program.
func launch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, log: &syncBuffer{}, exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start postern: %v", err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the state says how it ended
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has usually ended already
		<-p.exited
		if t.Failed() {
			t.Logf("%v printed:\n%s", cmd.Args, p.log)
		}
	})
	return p
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill postern: %v", err)
	}
	<-p.exited
}

// stop ends the program as an operator does, and expects it to say that all is well.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("stop postern: %v", err)
	}
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		t.Fatal("postern did not stop within 30 s of SIGTERM")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("exit code after SIGTERM: got %d, want %d", code, exitOK)
	}
}

func randomInt(t *testing.T, below int64) int64 {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(below))
	if err != nil {
		t.Fatalf("random number: %v", err)
	}
	return n.Int64()
}

func randomText(t *testing.T, n int) string {
	t.Helper()
	raw := make([]byte, n/2)
	if _, err := rand.Read(raw); err != nil {
		t.Fatalf("random text: %v", err)
	}
	return fmt.Sprintf("%x", raw)
}
