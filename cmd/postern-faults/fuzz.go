package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"sync"
)

// executions finds how often a fuzz target has been run, and how many inputs of interest that has added, in a line that
// says it.
var executions = regexp.MustCompile(`execs: (\d+) .*new interesting: (\d+)`)

// fuzzTarget is one target, and what came of it.
type fuzzTarget struct {
	path, name string
	line       line
	output     bytes.Buffer
	err        error // it could not be run
}

// runFuzzing fuzzes each target of each package, several at a time, each with one worker. One that fails ends no other.
// The race detector is off, which makes ten times as many executions: the seeds and all that was ever found are run with
// it by make test.
func runFuzzing(ctx context.Context, o options, packages []testPackage, all *summary, progress io.Writer) error {
	var targets []*fuzzTarget
	for _, p := range packages {
		for _, name := range p.fuzz {
			targets = append(targets, &fuzzTarget{path: p.path, name: name})
		}
	}
	waiting, done := make(chan *fuzzTarget), make(chan *fuzzTarget)
	var running sync.WaitGroup
	for range max(1, o.jobs) {
		running.Go(func() {
			for t := range waiting {
				t.run(ctx, o)
				done <- t
			}
		})
	}
	running.Go(func() {
		defer close(waiting)
		for _, t := range targets {
			select {
			case waiting <- t:
			case <-ctx.Done():
				return
			}
		}
	})
	go func() { // ends with the last of running, for which the loop below waits
		running.Wait()
		close(done)
	}()
	ended := 0
	var first error
	for t := range done {
		ended++
		if first == nil {
			first = t.err
		}
		fmt.Fprintf(progress, "   %d of %d: %s: %s\n", ended, len(targets), t.line.where, t.line.text)
		if t.line.failed {
			fmt.Fprintf(progress, "%s", t.output.Bytes())
			all.faults = append(all.faults, t.line.where+" has failed")
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, t := range targets {
		all.lines = append(all.lines, t.line)
	}
	return first
}

// run fuzzes one target.
func (t *fuzzTarget) run(ctx context.Context, o options) {
	t.line = line{category: "fuzz", where: short(t.path) + " " + t.name}
	t.line.failed, t.err = goTest(ctx, os.Environ(), []string{"test", "-json", "-run", "^$", "-fuzz", "^" + t.name + "$", "-parallel", "1",
		"-fuzztime", o.fuzzTime.String(), "-timeout", "0", t.path}, func(e event) {
		t.output.WriteString(e.Output)
		if over := t.output.Len() - maxOutput; over > 0 {
			t.output.Next(over)
		}
	})
	count, added := "0", "0"
	if found := executions.FindAllStringSubmatch(t.output.String(), -1); len(found) > 0 {
		last := slices.Clone(found[len(found)-1])
		count, added = last[1], last[2]
	}
	result := "nothing found"
	switch {
	case t.line.failed:
		result = "an input was found that fails"
	case count == "0": // the time has gone into building it and running its seeds
		result, t.line.failed = "nothing but the seeds was run: give it more time", true
	}
	t.line.text = fmt.Sprintf("%s executions in %s, %s new inputs of interest, %s", count, o.fuzzTime, added, result)
}
