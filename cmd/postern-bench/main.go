// Command postern-bench measures the real postern binary beside bounds that run on the same machine in the same
// run, and prints the figures with their ratios: an absolute number says something about a machine, a ratio says
// something about Postern. docs/benchmarks.md says how each figure is measured and what each bound is.
//
// Postern, each bound and the receiver run in processes of their own, and the load generator in this one. It needs
// Linux, for /proc, and to bind port 443 of loopback addresses, since Postern sends nowhere else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are what the command line says.
type settings struct {
	binary   string        // path of postern; empty builds it
	only     []string      // names of measurements; empty means all
	quick    bool          // a tenth of everything, for work
	rounds   int           // of each comparison; its figure is the median
	duration time.Duration // of each load that is bounded by time
	backlog  int           // messages of one drain, and of one run of accepting and delivering at once
	pending  int           // messages of the large backlog and of the long history
	most     int           // messages of the largest backlog of the growth
	bodySize int           // bytes of each message
	dir      string        // where the stores go; empty means the folder for temporary files
}

func main() {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		fatal(child(os.Args[1], os.Args[2:]))
		return
	}
	var o settings
	var only, from, chart string
	var asMarkdown, asJSON, list bool
	flags := flag.NewFlagSet("postern-bench", flag.ExitOnError)
	flags.StringVar(&o.binary, "postern", "", "postern binary to measure; empty builds ./cmd/postern")
	flags.StringVar(&only, "only", "", "measurements to make, with commas between (see -list); empty means all")
	flags.BoolVar(&list, "list", false, "list the measurements and end")
	flags.BoolVar(&o.quick, "quick", false, "one round and a tenth of each amount: for work, not for figures to quote")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds of each comparison, of which the median counts")
	flags.DurationVar(&o.duration, "duration", 5*time.Second, "time of each load that is bounded by time")
	flags.IntVar(&o.backlog, "backlog", 100_000, "messages of one drain and of one run of accepting and delivering")
	flags.IntVar(&o.pending, "pending", 1_000_000, "messages of the large backlog and of the long history")
	flags.IntVar(&o.most, "most", 10_000_000, "messages of the largest backlog of the growth, about 1.5 KiB of disk each; 0 leaves it out")
	flags.IntVar(&o.bodySize, "body", 1024, "bytes of each message")
	flags.StringVar(&o.dir, "dir", "", "folder for the stores, on the disk to be measured; empty means that for temporary files")
	flags.BoolVar(&asMarkdown, "markdown", false, "print the table in Markdown")
	flags.BoolVar(&asJSON, "json", false, "print the figures as JSON")
	flags.StringVar(&from, "from", "", "print the figures of earlier runs instead of measuring: files that -json has printed, with commas between")
	flags.StringVar(&chart, "chart", "", "write the chart of the growth (SVG) to this file; needs the measurements growth and destinations")
	_ = flags.Parse(os.Args[1:])
	if list {
		for _, m := range measurements() {
			fmt.Printf("%-14s %s\n", m.name, m.about)
		}
		return
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	if o.quick {
		o.rounds, o.duration = 1, min(o.duration, 2*time.Second)
		o.backlog, o.pending, o.most = o.backlog/5, o.pending/10, o.most/20
	}
	print := printPlain
	switch {
	case asJSON:
		print = printJSON
	case asMarkdown:
		print = printMarkdown
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var figures []figure
	var err error
	if from != "" {
		figures, err = readFigures(strings.Split(from, ","))
	} else {
		figures, err = run(ctx, o)
	}
	if len(figures) > 0 {
		print(os.Stdout, figures)
	}
	if err == nil && chart != "" {
		err = writeChart(chart, figures)
	}
	stop()
	fatal(err)
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "postern-bench:", err)
		os.Exit(1)
	}
}

// bench holds what the measurements share.
type bench struct {
	settings
	self string // path of this program
	work string // folder of this run
	sink *sink
	next int // number of the next folder
}

// run makes the measurements that o asks for. After an error it returns the figures that there are.
func run(ctx context.Context, o settings) (figures []figure, err error) {
	chosen, err := choose(o.only)
	if err != nil {
		return nil, err
	}
	b := &bench{settings: o}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.work, err = os.MkdirTemp(o.dir, "postern-bench-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.work)
	if b.binary == "" {
		if b.binary, err = buildPostern(ctx, b.work); err != nil {
			return nil, err
		}
	}
	if b.sink, err = b.startSink(ctx); err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	defer b.sink.kill()
	for _, m := range chosen {
		begun := time.Now()
		fmt.Fprintf(os.Stderr, "%s …\n", m.name)
		got, err := m.run(ctx, b)
		for _, f := range got {
			f.Measurement = m.name
			figures = append(figures, f)
		}
		if err != nil {
			return figures, errors.Join(fmt.Errorf("%s: %w", m.name, err), context.Cause(ctx))
		}
		fmt.Fprintf(os.Stderr, "%s took %s\n", m.name, time.Since(begun).Round(time.Second))
	}
	return figures, nil
}

func buildPostern(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "postern")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./cmd/postern")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build postern: %w", err)
	}
	return binary, nil
}

// folder returns the path of a folder that nobody has used.
func (b *bench) folder(name string) string {
	b.next++
	return filepath.Join(b.work, fmt.Sprintf("%03d-%s", b.next, name))
}

// choose returns the measurements of those names, in their own order.
func choose(names []string) ([]measurement, error) {
	all := measurements()
	if len(names) == 0 {
		return all, nil
	}
	var chosen []measurement
	for _, m := range all {
		if slices.Contains(names, m.name) {
			chosen = append(chosen, m)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(m measurement) bool { return m.name == name }) {
			return nil, fmt.Errorf("no measurement is called %q; -list lists them", name)
		}
	}
	return chosen, nil
}
