package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/admin"
)

func (p *program) statsCommand() *cobra.Command {
	var (
		watch bool
		every time.Duration
	)
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show how each destination does: state, backlog, success, latency",
		Long: `Show each destination in a line: its state, the pending deliveries and since when the oldest is due, the attempts
in flight, and of the last hour (since the start of the relay) the deliveries delivered and failed and the share of
attempts that succeeded. P50 and P99 are the times from acceptance to delivery in the latest minute with any.

The state is the first of these that holds: not in config, disabled, paused, outage (its breaker is open), probing,
slowed (the receiver asked for a break), failing (less than 90 % of the attempts of the last hour succeeded), idle (no
attempt in the last hour), healthy.

--json prints what the API says of the relay (overview); with --watch one object a line (NDJSON).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case every < 100*time.Millisecond:
				return usageError{errors.New("--every: give a time of at least 100ms")}
			case watch:
				return p.watchStats(cmd.Context(), every)
			}
			return p.stats(cmd.Context())
		},
	}
	p.adminFlags(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again and again, until Ctrl-C")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "with --watch: how often")
	return cmd
}

func (p *program) stats(ctx context.Context) error {
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	o, err := client.Overview(ctx)
	switch {
	case err != nil:
		return advised(err)
	case p.json:
		return p.printJSON(o)
	}
	p.screen().overview(o)
	return nil
}

// watchStats shows the overview until ctx ends. Once it was there, a relay that does not answer is waited for.
func (p *program) watchStats(ctx context.Context, every time.Duration) error {
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	o, err := client.Overview(ctx)
	if err != nil {
		return advised(err)
	}
	if p.json {
		return p.overviews(ctx, client, every, func(o admin.Overview, err error) error {
			if err != nil {
				return nil // the next one may answer
			}
			return p.printJSONLine(o)
		})
	}
	if p.drawn() {
		const enter, leave = "\x1b[?1049h", "\x1b[?1049l" // the alternate screen
		fmt.Fprint(p.stdout, enter)
		defer func() {
			fmt.Fprint(p.stdout, leave)
			p.screen().overview(o) // what was seen last stays
		}()
	}
	return p.overviews(ctx, client, every, func(now admin.Overview, err error) error {
		if err == nil {
			o = now
		}
		p.redraw(func(s *screen) {
			if s.overview(o); err != nil {
				s.line("\n" + s.bad.Render(clean(advised(err).Error())))
			}
		})
		return nil
	})
}

// overviews asks for the overview again and again until ctx ends.
func (p *program) overviews(ctx context.Context, client admin.Client, every time.Duration, show func(admin.Overview, error) error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		o, err := client.Overview(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := show(o, err); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// drawn reports whether standard output is a terminal that can be drawn on.
func (p *program) drawn() bool { return isTerminal(p.stdout) && p.getenv("TERM") != "dumb" }

// redraw shows something in place of what was shown before, at once, so that it does not flicker. What is no terminal
// gets one after the other.
func (p *program) redraw(show func(*screen)) {
	s, b := p.screen(), &bytes.Buffer{}
	s.out = b
	show(s)
	if !p.drawn() {
		fmt.Fprintf(p.stdout, "%s\n", b)
		return
	}
	const home, clearLine, clearBelow = "\x1b[H", "\x1b[K", "\x1b[J"
	lines := strings.SplitAfter(b.String(), "\n")
	if most := p.rows() - 2; most > 0 && len(lines) > most {
		lines = append(lines[:most], s.faint.Render("… "+count(len(lines)-most-1, "more line"))+"\n")
	}
	fmt.Fprint(p.stdout, home+strings.ReplaceAll(strings.Join(lines, ""), "\n", clearLine+"\n")+clearBelow)
}

// overview shows the relay and each of its destinations.
func (s *screen) overview(o admin.Overview) {
	s.now = o.Now
	s.line(s.strong.Render("postern "+clean(o.Version)) + fmt.Sprintf("  up %s, %d pending  ", span(o.Now.Sub(o.StartedAt)), o.Pending) + s.faint.Render(clock(o.Now)))
	if o.Store.Full != "" {
		s.line(s.bad.Render("takes no messages: " + clean(o.Store.Full)))
	}
	if o.HTTPS.Trouble != "" {
		s.line(s.bad.Render("listen.https: " + clean(o.HTTPS.Trouble)))
	}
	if o.Reload != nil && !o.Reload.OK {
		s.line(s.bad.Render("config not reloaded " + s.age(o.Reload.At) + ": " + clean(o.Reload.Error)))
	}
	s.line("")
	if len(o.Destinations) == 0 {
		s.line("no destination is configured")
		return
	}
	t := &table{width: s.width, columns: []column{
		{title: "DESTINATION"}, {title: "STATE"}, {title: "PENDING", right: true}, {title: "OLDEST DUE", right: true, rank: 1},
		{title: "IN FLIGHT", right: true, rank: 6}, {title: "SUCCESS", right: true}, {title: "DELIVERED", right: true, rank: 4},
		{title: "FAILED", right: true, rank: 3}, {title: "P50", right: true, rank: 2}, {title: "P99", right: true, rank: 2},
		{title: "NEXT", least: 14, rank: 5},
	}}
	for _, d := range o.Destinations {
		t.add(s.destinationRow(d)...)
	}
	t.write(s, true)
}

func (s *screen) destinationRow(d admin.Destination) []cell {
	state, style := s.condition(d)
	oldest := ""
	if !d.OldestDueAt.IsZero() {
		oldest = span(max(s.now.Sub(d.OldestDueAt), 0))
	}
	success := cell{text: "-"}
	if rate := d.LastHour.SuccessRate; rate != nil {
		success = cell{percent(*rate), s.good}
		if *rate < failingRate {
			success.style = s.bad
		}
	}
	p50, p99 := latency(d.LastHour.Series)
	pending := plainCell(strconv.FormatInt(d.Pending, 10))
	if d.Pending > 0 && (state == "outage" || state == "failing") {
		pending.style = s.bad
	}
	return []cell{
		plainCell(clean(d.Name)), {state, style}, pending, plainCell(oldest),
		plainCell(fmt.Sprintf("%d/%d", d.InFlight, d.ConcurrencyLimit)), success,
		plainCell(strconv.FormatInt(d.LastHour.Delivered, 10)), plainCell(strconv.FormatInt(d.LastHour.Failed, 10)),
		plainCell(p50), plainCell(p99), {s.next(d), s.faint},
	}
}
