package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

// Exit codes of the program. They are part of its interface: docs/operations.md lists them.
const (
	exitOK      = 0
	exitFailed  = 1 // the command ran and what it was asked for did not succeed
	exitUsage   = 2 // the command line or the config file is wrong
	exitLocked  = 3 // another process uses the data folder
	exitDamaged = 4 // the store is damaged, or a restore into it was cut off; nothing was served
	exitBroken  = 5 // the store failed while running; restart after a look at the disk
	exitKey     = 6 // the store needs another encryption key; nothing was touched
)

// program is what the commands share: the world outside the process.
type program struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer

	configPath     string
	admin          string // address of the admin listener; empty means that of the config
	adminTokenFile string // file with its token; empty means none
	json           bool

	configurable []*cobra.Command // those with --config
}

// usageError marks an error as the caller's: exit code 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// errReported ends a command whose output has already said what is wrong.
var errReported = errors.New("reported")

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "postern",
		Short: "Deliver webhooks durably, signed and retried, from one plain HTTP POST to localhost",
		Long: `Postern runs next to your app. The app posts to http://127.0.0.1:8025/to/DESTINATION;
Postern writes the message to disk, answers 202, and delivers it over HTTPS:
signed, authenticated, retried and on record.

See it work, with nothing to configure:   postern demo
Check a config file:                      postern validate postern.yaml
Run it:                                   postern run --config postern.yaml
See how it does:                          postern stats`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%s; see %s --help", flagError(err), cmd.CommandPath())}
	})
	root.PersistentFlags().BoolVar(&p.json, "json", false, "print JSON for scripts")
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"run", "Run:", []*cobra.Command{p.runCommand(), p.demoCommand(), p.validateCommand(), p.configCommand(), p.schemaCommand(), p.reloadCommand()}},
		{"try", "Post and try:", []*cobra.Command{p.sendCommand(), p.testCommand(), p.renderCommand()}},
		{"see", "See:", []*cobra.Command{p.statsCommand(), p.listCommand(), p.showCommand(), p.tailCommand()}},
		{"steer", "Steer:", []*cobra.Command{p.replayCommand(), p.retryCommand(), p.cancelCommand(), p.pauseCommand(), p.resumeCommand()}},
		{"keep", "Keep:", []*cobra.Command{p.backupCommand(), p.restoreCommand(), p.storeCommand()}},
		{"tools", "Tools:", []*cobra.Command{p.doctorCommand(), p.secretCommand(), p.verifyCommand(), p.healthcheckCommand(), p.versionCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, cmd := range g.commands {
			cmd.GroupID = g.id
		}
		root.AddCommand(g.commands...)
	}
	root.AddCommand(p.demoRelayCommand())
	inOurWords(root)
	root.SetHelpCommandGroupID("tools")
	root.SetCompletionCommandGroupID("tools")
	return root
}

// flagError is what is wrong with a flag, without an argument that is none: that may be a secret, as all keys in PEM begin
// with a hyphen.
func flagError(err error) string {
	text := err.Error()
	if strings.HasPrefix(text, "bad flag syntax: ") {
		return "bad flag syntax"
	}
	if before, word, ok := strings.Cut(text, " in -"); ok && len(word) > 2 && strings.HasPrefix(text, "unknown shorthand flag: ") {
		return before
	}
	return text
}

// inOurWords has a command and those below it say how they are used where there are too many arguments or too few.
// The arguments are not repeated: one may be a secret.
func inOurWords(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err == nil || isUnknownCommand(err) {
				return err
			}
			number := fmt.Sprintf("there are %d arguments", len(args))
			switch len(args) {
			case 0:
				number = "an argument is missing"
			case 1:
				number = "there is 1 argument"
			}
			return usageError{fmt.Errorf("%s; write %s; see %s --help", number, strings.TrimSuffix(cmd.UseLine(), " [flags]"), cmd.CommandPath())}
		}
	}
	for _, below := range cmd.Commands() {
		inOurWords(below)
	}
}

// configFlag adds --config to a command; the environment's POSTERN_CONFIG is its default.
func (p *program) configFlag(cmd *cobra.Command) {
	path := p.getenv("POSTERN_CONFIG")
	if path == "" {
		path = "postern.yaml"
	}
	cmd.Flags().StringVarP(&p.configPath, "config", "c", path, "config file; POSTERN_CONFIG sets the default")
	p.configurable = append(p.configurable, cmd)
}

// configNamed reports whether somebody has said which the config file is.
func (p *program) configNamed() bool {
	return p.getenv("POSTERN_CONFIG") != "" || slices.ContainsFunc(p.configurable, func(cmd *cobra.Command) bool { return cmd.Flags().Changed("config") })
}

// getenv returns the last value of a variable, as the operating system would.
func (p *program) getenv(name string) string {
	value := ""
	for _, entry := range p.environ {
		if k, v, ok := strings.Cut(entry, "="); ok && k == name {
			value = v
		}
	}
	return value
}

// exitCode writes an error for the person at the terminal and turns it into the program's exit code.
func (p *program) exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	code := exitFailed
	var (
		usage   usageError
		faults  config.ErrorList
		damaged *badgerstore.DamageError
		wrong   *badgerstore.KeyError
	)
	hasFaults := errors.As(err, &faults)
	switch {
	case hasFaults, errors.As(err, &usage), isUnknownCommand(err):
		code = exitUsage
	case errors.Is(err, badgerstore.ErrLocked):
		code = exitLocked
	case errors.As(err, &damaged), errors.Is(err, badgerstore.ErrRestoring):
		code = exitDamaged
	case errors.As(err, &wrong):
		code = exitKey
	case errors.Is(err, store.ErrBroken):
		code = exitBroken
	}
	switch {
	case errors.Is(err, errReported):
	case hasFaults:
		// One fault a line, each beginning with its place, so that editors can jump to it.
		fmt.Fprintln(p.stderr, cleanBlock(faults.Error()))
	default:
		fmt.Fprintln(p.stderr, "postern:", cleanBlock(err.Error()))
	}
	return code
}

// isUnknownCommand recognises cobra's own complaints about the command line, for which it has no type.
func isUnknownCommand(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "unknown command") || strings.HasPrefix(text, "required flag")
}

// printJSON writes v as one indented JSON document.
func (p *program) printJSON(v any) error { return p.encode(v, "  ") }

// printJSONLine writes v as one line of JSON.
func (p *program) printJSONLine(v any) error { return p.encode(v, "") }

func (p *program) encode(v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", indent)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := p.stdout.Write(escapeJSON(b.Bytes()))
	return err
}
