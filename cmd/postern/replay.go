package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/admin"
)

const (
	anyState     = "any" // of those that have ended
	countToReply = 100   // above so many, the number has to be typed, as on the dashboard (T37)
	mostCounts   = 5     // that are tried where nobody was asked
	replayRound  = 200 * time.Millisecond
)

// replayOptions are the flags of the command replay that do not choose deliveries.
type replayOptions struct {
	filter admin.DeliveryFilter
	yes    bool
	dryRun bool
}

func (p *program) replayCommand() *cobra.Command {
	var o replayOptions
	endedStates := append(states()[1:], anyState)
	cmd := &cobra.Command{
		Use:   "replay ID... | --destination NAME …",
		Short: "Deliver again what has ended: by id, or all that pass a filter",
		Long: `Begin a new round of attempts, now. The webhook-id stays the same, so that a receiver can tell; the timestamp and
the signatures are new.

Deliveries are named by their ids, or chosen by filters, of which at least one is needed. Filters choose failed
deliveries, unless --state says otherwise: delivered, canceled, or any of those that have ended. Their number is counted
first and asked about: --dry-run ends there, and --yes goes on without being asked, for scripts.

With ids, --json prints one delivery a line (NDJSON); with filters, one document. Exit code 1: not all could be
replayed.`,
		Example: `  postern replay dlv_019aa4c2c0de7000800000000000000100000000
  postern replay --destination alerts --since 6h --dry-run
  postern replay --destination alerts --since 6h --yes`,
		ValidArgsFunction: p.completeEnded,
		RunE: func(cmd *cobra.Command, args []string) error {
			f := &o.filter
			chosen := cmd.Flags().Changed("state") || *f != admin.DeliveryFilter{State: f.State}
			switch {
			case len(args) > 0 && (chosen || o.dryRun):
				return usageError{errors.New("there are both ids and filters; give one of them")}
			case len(args) > 0:
				return p.each(cmd.Context(), args, "replayed", func(ctx context.Context, c admin.Client, id string) (admin.Delivery, error) {
					return c.Replay(ctx, id)
				})
			case !chosen:
				return usageError{errors.New("say what to replay: ids, or filters such as --destination or --since")}
			case f.State == anyState:
				f.State = ""
			}
			return p.replayAll(cmd.Context(), o)
		},
	}
	p.adminFlags(cmd)
	p.filterFlags(cmd, &o.filter, endedStates)
	state := cmd.Flags().Lookup("state")
	state.DefValue, o.filter.State = "failed", "failed"
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "count what would be replayed, and do nothing")
	return cmd
}

// completeEnded completes ids of deliveries that have failed.
func (p *program) completeEnded(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return p.completeDeliveries("failed")(cmd, args, begun)
}

// replayAll counts what a filter chooses, asks, and replays it.
func (p *program) replayAll(ctx context.Context, o replayOptions) error {
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	counted, err := client.ReplayAll(ctx, admin.BulkReplay{Filter: o.filter, DryRun: true})
	if err != nil {
		return advised(err)
	}
	what := count(counted.Matched, "delivery")
	if o.filter.State != "" {
		what = count(counted.Matched, clean(o.filter.State)+" delivery")
	}
	if counted.Capped {
		what = "the latest " + what
	}
	if o.dryRun || counted.Matched == 0 {
		if p.json {
			return p.printJSON(counted)
		}
		fmt.Fprintf(p.stdout, "%s would be replayed\n", what)
		return nil
	}
	if !o.yes {
		if err := p.confirm(ctx, what, counted.Matched); err != nil {
			return err
		}
	}
	end := p.progress("replaying " + what)
	done, err := replayCounted(ctx, client, o, counted.Matched)
	end()
	if err != nil {
		return err
	}
	if p.json {
		if err := p.printJSON(done); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(p.stdout, "%s replayed\n", count(done.Replayed, "delivery"))
	}
	// What was delivered passes the filter again when its replay has been delivered, so the same command would repeat it.
	again := "run the command again for them"
	if o.filter.State == "" || o.filter.State == "delivered" {
		again = "the same command would begin with those that were replayed now, so choose them by --since and --until"
	}
	switch {
	case done.Replayed < done.Matched:
		return fmt.Errorf("%d of %d were not replayed: they are gone, replayed by somebody else, or time ran out; if some are left, %s",
			done.Matched-done.Replayed, done.Matched, again)
	case done.Capped:
		p.hint("there are more, older ones; " + again)
	}
	return nil
}

// replayCounted replays what a filter chooses if it is as many as were counted. Who does not want to be asked means
// whatever there is: new failures must not stop a script.
func replayCounted(ctx context.Context, client admin.Client, o replayOptions, number int) (admin.BulkReplayed, error) {
	for tries := 0; ; tries++ {
		done, err := client.ReplayAll(ctx, admin.BulkReplay{Filter: o.filter, ExpectCount: &number})
		refusal, isRefusal := errors.AsType[*admin.Refusal](err)
		switch {
		case ctx.Err() != nil && err != nil:
			return done, fmt.Errorf("%w; what was replayed until then goes on", err)
		case !isRefusal || refusal.Status != http.StatusConflict:
			return done, advised(err)
		}
		now, countErr := client.ReplayAll(ctx, admin.BulkReplay{Filter: o.filter, DryRun: true})
		switch {
		case countErr != nil:
			return done, advised(countErr)
		case now.Matched == number:
			return done, advised(err) // another conflict than the count's
		case !o.yes || tries == mostCounts:
			return done, fmt.Errorf("nothing was replayed: %d were counted first, and now there are %d; run the command again", number, now.Matched)
		}
		number = now.Matched
	}
}

// confirm asks whether to go on: by a yes, or by the number if it is large.
func (p *program) confirm(ctx context.Context, what string, number int) error {
	if !isTerminalInput(p.stdin) || !isTerminal(p.stderr) {
		return usageError{fmt.Errorf("%s would be replayed; add --yes, since there is no terminal to ask at", what)}
	}
	want := "y"
	fmt.Fprintf(p.stderr, "Replay %s? ", what)
	if number > countToReply {
		want = strconv.Itoa(number)
		fmt.Fprintf(p.stderr, "Type %s to go on: ", want)
	} else {
		fmt.Fprint(p.stderr, "[y/N] ")
	}
	reply, err := readLine(ctx, p.stdin)
	if err != nil {
		fmt.Fprintln(p.stderr)
		return fmt.Errorf("nothing was replayed: %w", err)
	}
	if reply = strings.ToLower(strings.TrimSpace(reply)); reply != want && (reply != "yes" || number > countToReply) {
		return errors.New("nothing was replayed")
	}
	return nil
}

// readLine reads a line, or gives up when ctx ends: a read of a terminal cannot be ended, but the process is about to.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		read <- answer{line, err}
	}()
	select {
	case a := <-read:
		if errors.Is(a.err, io.EOF) {
			a.err = nil // what was typed before it counts
		}
		return a.line, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// progress tells a person at the terminal that something goes on, and for how long, until the func it returns is called.
func (p *program) progress(text string) (end func()) {
	if !isTerminal(p.stderr) || p.json || p.getenv("TERM") == "dumb" {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(stopped)
		tick := time.NewTicker(replayRound)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				fmt.Fprint(p.stderr, "\r\x1b[K")
				return
			case <-tick.C:
				fmt.Fprintf(p.stderr, "\r\x1b[K%c %s, %s", `|/-\`[n%4], text, span(time.Since(begun)))
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}
