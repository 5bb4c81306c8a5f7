package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
)

// dumpOn returns a func that waits until ctx ends, or for a signal that asks for a dump of all goroutines, as a watchdog
// sends it: SIGQUIT or SIGABRT. Then it writes where they stand, and ends the process like SIGKILL, since whatever else
// could end it may be what hangs.
//
// The runtime would do so by itself, but it shows the arguments of functions as well, and what is left in registers: pieces
// of secrets have been seen there.
func (p *program) dumpOn(ctx context.Context) func() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGQUIT, syscall.SIGABRT)
	return func() {
		defer signal.Stop(asked)
		select {
		case <-ctx.Done():
		case <-asked:
			const withoutArguments = 1
			_ = pprof.Lookup("goroutine").WriteTo(p.stderr, withoutArguments) // there is nothing better to be done
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
}
