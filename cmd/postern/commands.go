package main

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay"
	"github.com/postern-relay/postern/relay/admin"
)

// buildVersion is set by the linker for a release (-X main.buildVersion=1.2.3).
var buildVersion string

func (p *program) validateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate [FILE]",
		Short: "Check a config file and report every fault with its line",
		Long: `Check a config file by the same code that run uses: keys, types, secrets, URLs, patterns, filters,
templates (rendered for a sample message), certificate files and contradictions. Every fault is
reported as file:line:column, all of them at once. Nothing is connected to or written.`,
		Example: "  postern validate\n  postern validate --json deploy/postern.yaml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				p.configPath = args[0]
			}
			return p.validate()
		},
	}
	p.configFlag(cmd)
	return cmd
}

func (p *program) validate() error {
	_, plan, err := relay.Load(p.configPath, p.environ)
	faults := config.ErrorList{}
	if err != nil && !errors.As(err, &faults) {
		faults = config.ErrorList{{File: p.configPath, Msg: err.Error()}}
	}
	if p.json {
		if jsonErr := p.printJSON(map[string]any{"file": p.configPath, "valid": err == nil, "errors": faults}); jsonErr != nil {
			return jsonErr
		}
		if err != nil {
			return usageError{errReported}
		}
		return nil
	}
	if err != nil {
		return usageError{err}
	}
	names := plan.Destinations()
	noun := "destinations"
	if len(names) == 1 {
		noun = "destination"
	}
	fmt.Fprintf(p.stdout, "%s is valid: %d %s\n", p.configPath, len(names), noun)
	return nil
}

func (p *program) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective config: defaults and overrides applied, secrets as fingerprints",
		Long: `Print the effective config: defaults and overrides applied, each destination complete. A secret is *** and
the first eight digits of its SHA-256, to compare with printf %s "$SECRET" | sha256sum; one that is short, or a
password, is *** alone. Above each file of certificates stand their SHA-256, end and subject.

It is what the files say now. A running Postern has taken it over unless its log says otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return p.printConfig() },
	}
	p.configFlag(cmd)
	return cmd
}

func (p *program) printConfig() error {
	cfg, plan, err := relay.Load(p.configPath, p.environ)
	if err != nil {
		return usageError{err}
	}
	form := config.Form{Fingerprints: true}
	if form.Certificates, err = plan.Certificates(); err != nil {
		return fmt.Errorf("print config: %w", err)
	}
	masked := cfg.Masked
	if p.json {
		masked = cfg.MaskedJSON
	}
	text, err := masked(form)
	if err != nil {
		return fmt.Errorf("print config: %w", err)
	}
	_, err = p.stdout.Write(text)
	return err
}

func (p *program) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the config file, for editors",
		Example: `  postern schema > postern.schema.json
  # then, as the first line of postern.yaml:
  # yaml-language-server: $schema=postern.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := p.stdout.Write(config.Schema())
			return err
		},
	}
}

func (p *program) healthcheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running Postern whether it is ready, for container health checks",
		Long: `Ask the admin listener of a running Postern whether it is ready. Exit code 0: ready; 1: not ready or not
there, with the reasons. The address is that of --admin, else listen.admin of the config file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := p.adminClient()
			if err != nil {
				return err
			}
			err = client.Health(cmd.Context())
			if errors.Is(err, admin.ErrAddress) {
				return usageError{err}
			}
			if p.json {
				result := map[string]any{"ready": err == nil, "address": client.Address}
				if err != nil {
					result["error"] = err.Error()
				}
				if jsonErr := p.printJSON(result); jsonErr != nil {
					return jsonErr
				}
				if err != nil {
					return errReported
				}
				return nil
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(p.stdout, "ready")
			return nil
		},
	}
	p.adminFlags(cmd)
	return cmd
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of Postern, and of the Go that built it",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			version, commit := versionOf(debug.ReadBuildInfo())
			if p.json {
				return p.printJSON(map[string]string{
					"version": version, "commit": commit, "go": runtime.Version(),
					"platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			if commit != "" {
				version += " (" + commit + ")"
			}
			fmt.Fprintf(p.stdout, "postern %s, %s, %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}

// versionOf takes the release's number from the linker, else from the module, and the commit from the build.
func versionOf(info *debug.BuildInfo, ok bool) (version, commit string) {
	version = buildVersion
	if !ok {
		return version, ""
	}
	if version == "" {
		version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value[:min(12, len(s.Value))]
		}
	}
	return version, commit
}
