// Command postern-faults runs the fault tests of all packages in their long form, and prints a table of what was run and
// what came of it. make test-faults calls it, from the root of the repository.
//
// A fault test is a test named TestFault…. It says what it has run by an attribute, testing.T.Attr, whose key is fault
// and whose value begins with a category and a colon: "kill: 500 rounds, …". The harness that starts, kills and checks
// the real program is in the test files beside this one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// categories are the kinds of faults, in the order of the table.
func categories() []string {
	return []string{"kill", "power", "damage", "disk", "resources", "receivers", "time", "herd", "soak", "fuzz"}
}

// options is what the command line says.
type options struct {
	only     []string      // categories; all of them by default
	quick    bool          // run the quick form, as make test does
	fuzzTime time.Duration // for each fuzz target; 0 runs none
	jobs     int           // fuzz targets at a time
	timeout  time.Duration // of all tests of one package
	run      string        // a pattern for the names of tests; empty takes all
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command is the program. It returns the exit code: 0 if all that was asked for was run and passed, 1 if not, 2 for a
// wrong command line.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "postern-faults:", err)
		return 2
	}
	if err := runAll(ctx, o, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "postern-faults:", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var only string
	flags := flag.NewFlagSet("postern-faults", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&only, "only", "", "categories to run, with commas between: "+strings.Join(categories(), ","))
	flags.BoolVar(&o.quick, "quick", false, "run the quick form, as make test does")
	flags.DurationVar(&o.fuzzTime, "fuzztime", 0, "fuzz each target for so long, such as 10m; 0 runs none")
	flags.IntVar(&o.jobs, "jobs", 1, "fuzz so many targets at a time, each with one worker")
	flags.DurationVar(&o.timeout, "timeout", 6*time.Hour, "most time for the tests of one package")
	flags.StringVar(&o.run, "run", "", "run only tests whose name this pattern finds")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected %q", flags.Args())
	}
	o.only = categories()
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, c := range o.only {
		if !slices.Contains(categories(), c) {
			return o, fmt.Errorf("there is no category %q; there are %s", c, strings.Join(categories(), ", "))
		}
	}
	return o, nil
}

// runAll runs the tests of one package after the other, since they share the machine, and prints the table.
func runAll(ctx context.Context, o options, stdout, stderr io.Writer) error {
	packages, err := findTests(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	var all summary
	for _, p := range packages {
		names, err := p.chosen(o)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			continue
		}
		if err := runPackage(ctx, o, p.path, names, &all, stderr); err != nil {
			return err
		}
	}
	if o.fuzzTime > 0 && slices.Contains(o.only, "fuzz") {
		if err := runFuzzing(ctx, o, packages, &all, stderr); err != nil {
			return err
		}
	}
	fmt.Fprint(stdout, all.table(o.only))
	fmt.Fprintf(stdout, "\n%d lines in %s\n", len(all.lines), time.Since(begun).Round(time.Second))
	return all.verdict(o)
}
