package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/admin"
)

func (p *program) pauseCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "pause DESTINATION",
		Short: "Hold the deliveries of a destination until it is resumed",
		Long: `Make no more attempts to a destination until postern resume, also after a restart. Attempts in flight go on to
their end. Messages are accepted as ever, and wait.`,
		Args: cobra.ExactArgs(1),
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
		Args: cobra.ExactArgs(1),
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
	d, err := ask(ctx, p.adminClient(), name)
	switch {
	case errors.Is(err, admin.ErrAddress):
		return usageError{err}
	case err != nil:
		return err
	case p.json:
		return p.printJSON(d)
	case d.Pause != nil:
		fmt.Fprintf(p.stdout, "%s is paused since %s: %s\n", d.Name, d.Pause.At.Format("2006-01-02 15:04:05 MST"), d.Pause.Reason)
	default:
		fmt.Fprintf(p.stdout, "%s goes on\n", d.Name)
	}
	return nil
}

// adminFlags adds what a command needs to find the admin listener.
func (p *program) adminFlags(cmd *cobra.Command) {
	p.configFlag(cmd)
	cmd.Flags().StringVar(&p.admin, "admin", "", "address of the admin listener, such as 127.0.0.1:8026; else listen.admin of the config file")
}

func (p *program) adminClient() admin.Client {
	if p.admin != "" {
		return admin.Client{Address: p.admin}
	}
	return admin.Client{Address: p.adminAddress()}
}

// adminAddress returns listen.admin of the config file. Other faults of the file do not matter here: a health
// check must not fail because a secret is not visible to it.
func (p *program) adminAddress() string {
	cfg, _ := config.Load(p.configPath, p.environ)
	if cfg == nil {
		// Without a file there is still the environment, and a line for whoever named the wrong file.
		fmt.Fprintf(p.stderr, "postern: there is no config file %s; going by the environment and the defaults\n", p.configPath)
		cfg, _ = config.Parse(p.configPath, []byte("{}"), p.environ)
	}
	if cfg.Faulty("listen.admin") {
		return config.DefaultAdmin
	}
	return cfg.Listen.Admin
}
