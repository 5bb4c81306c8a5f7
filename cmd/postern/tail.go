package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/admin"
)

func (p *program) tailCommand() *cobra.Command {
	var destination string
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Follow deliveries live, until Ctrl-C",
		Long: `Print a line for each change as it happens: a delivery that is accepted, attempted, delivered, failed, replayed or
canceled; a destination that is paused, held by an outage, or goes on; a reload. A connection that is lost is told and
made again; what has happened meanwhile is not: see postern list.

--json prints one object a line (NDJSON), {"event": "delivery", "data": {…}}, where the event is delivery, destination
or reload, and the data is that of the API.`,
		Example: `  postern tail --destination alerts
  postern tail --json | jq 'select(.event == "delivery" and .data.state == "failed")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.tail(cmd.Context(), destination) },
	}
	p.adminFlags(cmd)
	cmd.Flags().StringVar(&destination, "destination", "", "only what happens there")
	p.completeFlag(cmd, "destination", p.completeDestinations)
	return cmd
}

// tailLine is one line of tail in JSON.
type tailLine struct {
	Event string `json:"event"`
	Data  any    `json:"data"`
}

// tail follows what happens until ctx ends.
func (p *program) tail(ctx context.Context, destination string) error {
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	if destination != "" {
		if _, err := client.Destination(ctx, destination); err != nil { // the stream of an unknown name stays empty
			return advised(err)
		}
	}
	f := follower{program: p, screen: p.screen(), standing: map[string]string{}}
	for e, err := range client.Events(ctx, destination) {
		if err != nil {
			return advised(err)
		}
		if err := f.event(ctx, client, e); err != nil {
			return err
		}
	}
	return nil
}

// follower prints what happens.
type follower struct {
	*program
	screen   *screen
	standing map[string]string // how each destination stands, as far as it was told
	begun    bool              // to follow
	lost     bool              // the connection
}

func (f *follower) event(ctx context.Context, client admin.Client, e admin.Event) error {
	f.screen.now = time.Now()
	switch e.Name {
	case admin.EventConnected:
		switch {
		case f.lost:
			f.note("connected again; what has happened meanwhile is in postern list")
		case !f.begun:
			f.hint("following; Ctrl-C ends it")
		}
		f.begun, f.lost = true, false
		f.learn(ctx, client)
	case admin.EventDisconnected:
		f.lost = true
		f.note("the connection is lost (" + clean(e.Reason) + "); trying again")
	case admin.EventDelivery:
		if f.json {
			return f.printJSONLine(tailLine{e.Name, e.Delivery})
		}
		f.screen.tailDelivery(*e.Delivery)
	case admin.EventDestination:
		if f.json {
			return f.printJSONLine(tailLine{e.Name, e.Destination})
		}
		f.destination(*e.Destination)
	case admin.EventReload:
		if f.json {
			return f.printJSONLine(tailLine{e.Name, e.Reload})
		}
		f.screen.tailReload(*e.Reload)
	}
	return nil
}

// note tells the person who follows about the connection itself.
func (f *follower) note(text string) {
	fmt.Fprintln(f.stderr, f.palette(f.stderr).warn.Render("postern: "+text))
}

// learn asks how the destinations stand, so that only what changes is told.
func (f *follower) learn(ctx context.Context, client admin.Client) {
	if f.json {
		return // every event is told
	}
	list, err := client.Destinations(ctx)
	if err != nil {
		return // the first event of each will tell
	}
	for _, d := range list {
		if _, known := f.standing[d.Name]; !known {
			f.standing[d.Name] = standing(d)
		} else {
			f.destination(d)
		}
	}
}

// destination tells how a destination stands, if that has changed.
func (f *follower) destination(d admin.Destination) {
	now := standing(d)
	before, known := f.standing[d.Name]
	f.standing[d.Name] = now
	if now == before || !known && now == "goes on" {
		return
	}
	style := f.screen.warn
	if now == "goes on" {
		style = f.screen.good
	}
	f.screen.line(f.screen.tailTime(f.screen.now) + style.Render(clean(d.Name)+" "+clean(now)))
}

// standing says what holds a destination.
func standing(d admin.Destination) string {
	switch {
	case !d.InConfig:
		return "is not in the config; its deliveries are held"
	case !d.Enabled:
		return "is disabled; its deliveries are held"
	case d.Pause != nil:
		return "is paused: " + d.Pause.Reason
	case d.Breaker == "open", d.Breaker == "probing":
		return "is held by an outage"
	}
	return "goes on"
}

func (s *screen) tailTime(t time.Time) string {
	return s.faint.Render(t.Local().Format("15:04:05")) + "  "
}

// tailDelivery prints one line for a delivery as it is now.
func (s *screen) tailDelivery(d admin.Delivery) {
	state := fmt.Sprintf("%-9s", clean(d.State))
	line := s.tailTime(changedAt(d, s.now)) + s.state(d.State).Render(state) + "  " + clean(d.Destination) + "  "
	if d.Event != "" {
		line += clean(d.Event) + "  "
	}
	line += s.faint.Render(clean(d.ID))
	var notes []string
	switch {
	case d.Made == 0 && d.Round > 1 && d.State == "pending":
		notes = append(notes, "replayed")
	case d.Made == 0 && d.State == "pending":
		notes = append(notes, "accepted")
	case d.Made > 0:
		notes = append(notes, fmt.Sprintf("attempt %d", d.Made))
	}
	if d.Last != nil && d.Made > 0 {
		notes = append(notes, outcomeOf(d.Last))
	}
	switch {
	case d.Held != "":
		notes = append(notes, "held: "+string(d.Held))
	case d.State == "pending" && d.Made > 0:
		notes = append(notes, "next "+s.age(d.DueAt))
	case d.State == "canceled", d.State == "failed" && d.Last == nil:
		notes = append(notes, d.Reason)
	}
	notes = slices.DeleteFunc(notes, func(n string) bool { return n == "" })
	s.line(line + "  " + clean(strings.Join(notes, ", ")))
}

// changedAt is when what an event tells has happened.
func changedAt(d admin.Delivery, now time.Time) time.Time {
	switch {
	case !d.EndedAt.IsZero():
		return d.EndedAt
	case d.Made == 0 && d.Round == 1:
		return d.AcceptedAt
	}
	return now
}

func (s *screen) tailReload(r admin.Reload) {
	text := s.good.Render("config reloaded") + ", changed: " + clean(orNothing(r.Changed))
	if !r.OK {
		text = s.bad.Render("config not reloaded: " + clean(r.Error))
	}
	s.line(s.tailTime(r.At) + text)
}
