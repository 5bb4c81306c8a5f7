package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay"
)

const (
	demoDomain = ".demo.invalid" // a name that can never be somebody's (RFC 6761, section 6.4)
	demoLog    = "relay.log"
	demoCycle  = 20 * time.Second
	demoSettle = 15 * time.Second // most time that the end waits for the last deliveries
)

// demoNames are the destinations of the demo.
var demoNames = [...]string{"orders", "alerts"}

func (p *program) demoCommand() *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch it work: a relay, two receivers, traffic, an outage and a kill -9",
		Long: `Run everything on this machine, with nothing to configure and nothing to clean up: a relay with a store in
a temporary folder, two HTTPS receivers that verify each signature, and an app that posts to localhost. Then
one receiver fails for a while, and the relay is ended by kill -9 and started again. At the end every message
that the relay has accepted is looked for at its receiver; one that is missing makes the exit code 1.

The receivers are reached through sockets in the temporary folder: nothing leaves this machine, and no port
but the relay's own two is opened. TLS, certificates, signatures and retries are the real ones.`,
		Example: "  postern demo\n  postern demo --for 10s",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if length < 0 || length > 0 && length < 5*time.Second {
				return usageError{errors.New("--for: the story needs at least 5s")}
			}
			// A terminal or a pipe that goes away ends the story as Ctrl-C does, so that it is cleaned up. SIGPIPE itself
			// cannot tell: asked for, it comes for every socket too whose other end is gone.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			defer stop()
			signal.Ignore(syscall.SIGPIPE)
			return p.demo(ctx, length)
		},
	}
	cmd.Flags().DurationVar(&length, "for", 0, "end after this time with a summary; 0 goes on until Ctrl-C")
	return cmd
}

// demoRelayCommand is the relay's half of the demo, in a process of its own so that it can be killed.
func (p *program) demoRelayCommand() *cobra.Command {
	return &cobra.Command{
		Use: "demo-relay DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := args[0]
			p.configPath = filepath.Join(dir, "postern.yaml")
			// The demo holds the other end of stdin: however it ends, its relay ends too.
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			go func() {
				defer stop()
				_, _ = io.Copy(io.Discard, p.stdin)
			}()
			return p.serve(ctx, runOptions{drain: 5 * time.Second, relay: relay.LoadOptions{Inject: demoConnect(dir)}})
		},
	}
}

// demoConnect reaches the demo's receivers, and nothing else, through their sockets. The rules on URLs, ports and
// certificates hold as everywhere.
func demoConnect(dir string) map[string]func(context.Context) (net.Conn, error) {
	inject := map[string]func(context.Context) (net.Conn, error){}
	for _, name := range demoNames {
		inject[name+demoDomain] = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, name+".sock"))
		}
	}
	return inject
}

// demo plays the story until ctx ends or length is over, then checks that nothing was lost.
func (p *program) demo(ctx context.Context, length time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "postern-demo-")
	if err != nil {
		return fmt.Errorf("make demo folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	stage, err := newDemoStage(dir, p.environ)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.close()) }()
	screen := &demoScreen{palette: p.palette(p.stdout), out: p.stdout, json: p.json}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	screen.out = &endingWriter{out: screen.out, end: stop}
	screen.intro(stage)

	story, end := ctx, func() {}
	if length > 0 {
		// The last fifth belongs to the check, unless the check needs longer.
		story, end = context.WithTimeout(ctx, length*4/5)
	}
	defer end()
	cycle := demoCycle
	if length > 0 {
		cycle = length * 4 / 5
	}
	if err := stage.play(story, cycle, screen); err != nil {
		return err
	}
	summary, err := stage.settle(context.WithoutCancel(ctx), screen)
	if err != nil {
		return err
	}
	screen.summary(summary)
	if summary.Lost > 0 || summary.Altered > 0 || summary.Unverified > 0 {
		return errReported
	}
	return nil
}

// endingWriter calls end when nobody reads what it writes.
type endingWriter struct {
	out io.Writer
	end func()
}

func (w *endingWriter) Write(b []byte) (int, error) {
	n, err := w.out.Write(b)
	if err != nil {
		w.end()
	}
	return n, err
}

// demoChild is the relay as a process of its own.
type demoChild struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

func startDemoRelay(dir string, environ []string) (*demoChild, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.Command(self, "demo-relay", dir)
	log, err := os.OpenFile(filepath.Join(dir, demoLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open relay log: %w", err)
	}
	defer log.Close() // the child has its own copy
	cmd.Stdout, cmd.Stderr = log, log
	// The demo has a config and a store of its own: what the environment says is meant for the user's.
	cmd.Env = slices.DeleteFunc(slices.Clone(environ), func(entry string) bool { return strings.HasPrefix(entry, "POSTERN_") })
	if _, err := cmd.StdinPipe(); err != nil { // open until the child or this process ends
		return nil, fmt.Errorf("start relay: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start relay: %w", err)
	}
	c := &demoChild{cmd: cmd, exited: make(chan struct{})}
	go func() {
		defer close(c.exited)
		_ = cmd.Wait() // how it ended is seen by what it delivered
	}()
	return c, nil
}

// kill is kill -9.
func (c *demoChild) kill() error {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill relay: %w", err)
	}
	<-c.exited
	return nil
}
