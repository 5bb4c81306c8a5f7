// Command postern is a sidecar that takes an app's plain HTTP posts, keeps them on disk and delivers them over
// HTTPS: signed, authenticated and retried. This package holds the commands, what the terminal shows, the logger
// and the exit codes; the work is done by package relay.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	// A fault in a mapped file, as a full disk causes, ends the process outside of every recover. It must not look
	// like exit code 2, and leave no core, which would hold secrets.
	debug.SetTraceback("crash")
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) // without it the limit in force stays
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal has its default effect
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program without the process around it; it returns the exit code.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	root := p.root()
	root.SetArgs(args)
	return p.exitCode(root.ExecuteContext(ctx))
}
