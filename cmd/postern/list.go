package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/admin"
)

// mostPerPage is the largest page that the API gives.
const mostPerPage = 500

// filterFlags adds the flags that choose deliveries.
func (p *program) filterFlags(cmd *cobra.Command, f *admin.DeliveryFilter, states []string) {
	flags := cmd.Flags()
	flags.StringVar(&f.Destination, "destination", "", "only those to this destination")
	flags.StringVar(&f.State, "state", "", "only those in this state: "+alternatives(states))
	flags.StringVar(&f.Event, "event", "", "only those of this event type, written in full")
	flags.StringVar(&f.Class, "class", "", "only those whose latest attempt came to this: "+alternatives(classes()))
	flags.StringVar(&f.Since, "since", "", "only those accepted since: a time such as 2026-03-14T15:09:26Z, or so long ago: 90m, 36h, 2d")
	flags.StringVar(&f.Until, "until", "", "only those accepted before: likewise")
	flags.StringVar(&f.Q, "search", "", "only those with this text in an id, the event, the ordering key, the reason or the latest error")
	p.completeFlag(cmd, "destination", p.completeDestinations)
	p.completeFlag(cmd, "state", fixed(states))
	p.completeFlag(cmd, "class", fixed(classes()))
}

func (p *program) listCommand() *cobra.Command {
	var (
		filter admin.DeliveryFilter
		limit  int
		all    bool
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List deliveries, the latest first",
		Long: `List the deliveries that pass all of the filters, the latest accepted first. A running Postern is asked, through
its admin listener.

--json prints one delivery a line (NDJSON).`,
		Example: `  postern list --state failed --since 2d
  postern list --destination alerts --search timeout
  postern list --state failed --json | jq -r .id`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usageError{errors.New("--limit: give a number above 0, or --all")}
			}
			if all {
				limit = 0
			}
			return p.list(cmd.Context(), filter, limit)
		},
	}
	p.adminFlags(cmd)
	p.filterFlags(cmd, &filter, states())
	cmd.Flags().IntVarP(&limit, "limit", "n", 50, "list at most so many")
	cmd.Flags().BoolVar(&all, "all", false, "list all of them")
	return cmd
}

// list prints the first deliveries that pass a filter, or all of them if limit is 0.
func (p *program) list(ctx context.Context, filter admin.DeliveryFilter, limit int) error {
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	s := p.screen()
	t := &table{columns: deliveryColumns(), width: s.width}
	page := mostPerPage
	if limit > 0 {
		page = min(limit+1, mostPerPage) // one more tells whether there is more
	}
	printed, begun := 0, false
	flush := func() {
		if len(t.rows) > 0 {
			t.write(s, !begun)
			begun = true
		}
	}
	for d, err := range client.AllDeliveries(ctx, admin.DeliveryQuery{DeliveryFilter: filter, Limit: page}) {
		switch {
		case err != nil:
			flush()
			return advised(err)
		case limit > 0 && printed == limit:
			flush()
			p.hint("there are more; --limit shows so many, --all shows all")
			return nil
		case p.json:
			if err := p.printJSONLine(d); err != nil {
				return err
			}
		default:
			if t.add(s.deliveryRow(d)...); len(t.rows) == page {
				flush()
			}
		}
		printed++
	}
	flush()
	if printed == 0 && !p.json {
		p.hint("no delivery passes the filters")
	}
	return nil
}

// hint tells a person at the terminal what to do next.
func (p *program) hint(text string) {
	if isTerminal(p.stderr) && !p.json {
		fmt.Fprintln(p.stderr, p.palette(p.stderr).faint.Render(text))
	}
}

func deliveryColumns() []column {
	return []column{
		{title: "DELIVERY"},
		{title: "STATE", least: 9},
		{title: "DESTINATION"},
		{title: "EVENT", least: 8, rank: 1},
		{title: "ACCEPTED", rank: 4},
		{title: "AGE", right: true},
		{title: "TRIES", right: true, rank: 3},
		{title: "LATEST OUTCOME", least: 4, rank: 2},
	}
}

func (s *screen) deliveryRow(d admin.Delivery) []cell {
	last := cell{text: clean(outcomeOf(d.Last)), style: s.faint}
	if d.Last != nil && d.Last.Class != "ok" {
		last.style = s.bad
	}
	tries := strconv.Itoa(d.Made)
	if d.Round > 1 {
		tries = fmt.Sprintf("%d/r%d", d.Made, d.Round)
	}
	return []cell{
		plainCell(clean(d.ID)),
		{clean(stateOf(d)), s.state(d.State)},
		plainCell(clean(d.Destination)),
		plainCell(clean(d.Event)),
		plainCell(d.AcceptedAt.Local().Format(clockFormat)),
		{span(max(s.now.Sub(d.AcceptedAt), 0)), s.faint},
		plainCell(tries),
		last,
	}
}
