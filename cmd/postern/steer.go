package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/admin"
)

func (p *program) pauseCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "pause DESTINATION",
		Short: "Hold the deliveries of a destination until it is resumed",
		Long: `Make no more attempts to a destination until postern resume, also after a restart. Attempts in flight go on to
their end. Messages are accepted as ever, and wait.`,
		Example:           `  postern pause alerts --reason "they are moving house"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeDestination,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.steer(cmd.Context(), args[0], func(ctx context.Context, c admin.Client, name string) (admin.Destination, error) {
				return c.Pause(ctx, name, reason)
			})
		},
	}
	p.adminFlags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever finds it paused")
	return cmd
}

func (p *program) resumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume DESTINATION",
		Short: "Let a paused destination go on",
		Long: `End the pause of a destination, whether postern pause began it or an answer 410 Gone of the receiver. What has
waited is delivered from now on.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeDestination,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.steer(cmd.Context(), args[0], func(ctx context.Context, c admin.Client, name string) (admin.Destination, error) {
				return c.Resume(ctx, name)
			})
		},
	}
	p.adminFlags(cmd)
	return cmd
}

// steer asks the running relay to do something with a destination, and prints how it is after that.
func (p *program) steer(ctx context.Context, name string, ask func(context.Context, admin.Client, string) (admin.Destination, error)) error {
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	d, err := ask(ctx, client, name)
	switch {
	case err != nil:
		return advised(err)
	case p.json:
		return p.printJSON(d)
	case d.Pause != nil:
		fmt.Fprintf(p.stdout, "%s is paused since %s: %s\n", clean(d.Name), clock(d.Pause.At), clean(d.Pause.Reason))
	default:
		fmt.Fprintf(p.stdout, "%s goes on\n", clean(d.Name))
	}
	return nil
}

func (p *program) cancelCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "cancel ID...",
		Short: "End pending deliveries without delivering them",
		Long: `End pending deliveries; they stay on record and can be replayed. Canceling a failed delivery that blocks its line
(order) lets those behind it go on.

--json prints one delivery a line (NDJSON). Exit code 1: one of them could not be canceled; the others are.`,
		Example:           "  postern cancel dlv_019aa4c2c0de7000800000000000000100000000 --reason \"sent by hand\"",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: p.completeDeliveries("pending"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.each(cmd.Context(), args, "canceled", func(ctx context.Context, c admin.Client, id string) (admin.Delivery, error) {
				return c.Cancel(ctx, id, reason)
			})
		},
	}
	p.adminFlags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

func (p *program) retryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retry ID...",
		Short: "Make the next attempt of pending deliveries now",
		Long: `Make pending deliveries due now instead of at their time. A pause, a breaker, a rate or the order of a line still
holds them. For one that has ended there is postern replay.

--json prints one delivery a line (NDJSON). Exit code 1: one of them could not be made due; the others are.`,
		Example:           "  postern list --state pending --destination alerts --json | jq -r .id | xargs postern retry",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: p.completeDeliveries("pending"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.each(cmd.Context(), args, "due now", func(ctx context.Context, c admin.Client, id string) (admin.Delivery, error) {
				return c.Retry(ctx, id)
			})
		},
	}
	p.adminFlags(cmd)
	return cmd
}

// each does something with each of several deliveries, also if it cannot be done with one, and prints how they are
// after that.
func (p *program) each(ctx context.Context, ids []string, done string, ask func(context.Context, admin.Client, string) (admin.Delivery, error)) error {
	for _, id := range ids {
		if !strings.HasPrefix(id, deliveryPrefix) {
			return usageError{fmt.Errorf("%q is not the id of a delivery (dlv_…); postern list and postern show print them", id)}
		}
	}
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	s := p.screen()
	failures := 0
	for _, id := range ids {
		d, err := ask(ctx, client, id)
		switch err = advised(err); {
		case err != nil && (len(ids) == 1 || ctx.Err() != nil || !isRefusal(err)):
			return err
		case err != nil:
			failures++
			fmt.Fprintln(p.stderr, "postern:", clean(err.Error()))
		case p.json:
			if err := p.printJSONLine(d); err != nil {
				return err
			}
		default:
			held := ""
			if d.Held != "" {
				held = s.warn.Render("  held: " + clean(string(d.Held)))
			}
			s.line(clean(d.ID) + "  " + clean(d.Destination) + "  " + s.state(d.State).Render(done) + held)
		}
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d could not be done", failures, len(ids))
	}
	return nil
}

// isRefusal tells an answer that says no from a relay that does not answer.
func isRefusal(err error) bool {
	_, ok := errors.AsType[*admin.Refusal](err)
	return ok
}

func (p *program) reloadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have a running Postern read its config again",
		Long: `Have a running Postern read its config file again, as it does by itself when the file changes and on SIGHUP. It
takes effect as a whole or not at all. Exit code 2: the file has faults, which are printed; the config before it
stays in effect.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.reload(cmd.Context()) },
	}
	p.adminFlags(cmd)
	return cmd
}

func (p *program) reload(ctx context.Context) error {
	client, err := p.adminClient()
	if err != nil {
		return err
	}
	r, err := client.Reload(ctx)
	if refusal, ok := errors.AsType[*admin.Refusal](err); ok && len(refusal.Errors) > 0 {
		if p.json {
			if err := p.printJSON(map[string]any{"ok": false, "errors": refusal.Errors}); err != nil {
				return err
			}
			return usageError{errReported}
		}
		for _, f := range refusal.Errors {
			fmt.Fprintln(p.stderr, clean(faultLine(f)))
		}
		fmt.Fprintln(p.stderr, "postern: nothing has changed; the config before it stays in effect")
		return usageError{errReported}
	}
	switch {
	case err != nil:
		return advised(err)
	case p.json:
		return p.printJSON(r)
	}
	s := p.screen()
	s.line(s.good.Render("reloaded"))
	s.field("changed", clean(orNothing(r.Changed)))
	if len(r.RestartNeeded) > 0 {
		s.field("not yet", s.warn.Render(clean(strings.Join(r.RestartNeeded, ", "))+"; restart for it"))
	}
	return nil
}

// faultLine writes a fault with its place in front, as editors know it.
func faultLine(f admin.ConfigFault) string {
	text := f.File
	if f.Line > 0 {
		text += fmt.Sprintf(":%d:%d", f.Line, f.Column)
	}
	if f.Path != "" {
		text += ": " + f.Path
	}
	return text + ": " + f.Message
}

func orNothing(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}
