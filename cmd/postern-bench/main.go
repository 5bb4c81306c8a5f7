// Command postern-bench measures the real postern binary beside bounds that run on the same machine in the same
// run, and prints the figures with their ratios: an absolute number says something about a machine, a ratio says
// something about Postern.
//
// The bounds:
//   - accepts: the same net/http server, which answers after the same group commit to a plain file, with no
//     database and no checks;
//   - deliveries: a bare Go HTTPS client that posts the same bodies to the same receiver.
//
// Each side runs in a process of its own, and the load generator and the receiver in this one. It needs to bind
// port 443 of a loopback address, since Postern sends nowhere else.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"
)

// options is what the command line says.
type options struct {
	binary   string        // path of postern; empty builds it
	duration time.Duration // of each accept measurement
	backlog  int           // messages of the delivery and memory measurements
	bodySize int           // bytes of each message
}

func main() {
	// Children of this process: the bounds.
	if len(os.Args) == 4 && os.Args[1] == "file-server" {
		fatal(serveFile(os.Args[2], os.Args[3]))
		return
	}
	var o options
	flag.StringVar(&o.binary, "postern", "", "postern binary to measure; empty builds ./cmd/postern")
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "time of each accept measurement")
	flag.IntVar(&o.backlog, "backlog", 100_000, "messages for the delivery and memory figures")
	flag.IntVar(&o.bodySize, "body", 1024, "bytes of each message")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fatal(run(ctx, o))
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "postern-bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		o.binary = filepath.Join(dir, "postern")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", o.binary, "./cmd/postern")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build postern: %w", err)
		}
	}
	b := &bench{options: o, dir: dir, body: jsonBody(o.bodySize)}
	for _, measure := range []func(context.Context) error{b.accepts, b.lonePost, b.deliveries} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return nil
}
