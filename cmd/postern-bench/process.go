package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is something that runs beside this program: Postern, a bound, or the receiver.
type process struct {
	cmd     *exec.Cmd
	address string // of posts, host:port
	path    string // of posts
	admin   string // Postern's

	ended chan struct{} // closed when it has ended
	err   error         // of its end; written before ended is closed
}

const stopTimeout = 60 * time.Second

// spawn starts a process that ends with this one. Its standard error is this one's unless cmd says otherwise.
func spawn(ctx context.Context, cmd *exec.Cmd) (*process, error) {
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, path: "/", ended: make(chan struct{})}
	go func() { // ends with the process, which stop and kill wait for
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// startChild runs this program as one of its children, which says where it listens in its first line.
func (b *bench) startChild(ctx context.Context, args ...string) (*process, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, b.self, args...)
	cmd.Stdout = in
	p, err := spawn(ctx, cmd)
	_ = in.Close()
	if err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.kill()
		if errors.Is(err, io.EOF) {
			err = errors.New("it ended at once")
		}
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	p.address = strings.TrimSpace(line)
	return p, nil
}

// stop asks the process to end, and returns an error if it does not end well.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		<-p.ended
		return errors.Join(err, p.err)
	}
	timer := time.AfterFunc(stopTimeout, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	<-p.ended
	return p.err
}

// kill ends the process at once, as a crash does. It may have ended before.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// whileAlive returns a context that ends with the process too.
func (p *process) whileAlive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-p.ended:
			cancel(fmt.Errorf("the process has ended: %v", p.err))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// waitFor asks until ok says yes, at most d long.
func waitFor(ctx context.Context, d, every time.Duration, ok func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("not within %s", d))
	defer cancel()
	for !ok() {
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
	return nil
}

// pause waits for d, or for the end of ctx, whose cause it returns.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
