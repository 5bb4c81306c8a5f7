package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

func (p *program) storeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Look at the store of a stopped Postern, and move its messages",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.storeCheckCommand(), p.storeExportCommand(), p.storeImportCommand())
	return cmd
}

func (p *program) storeCheckCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read every record of a stopped store, and say what is in it and what is damaged",
		Long: `Open the store as postern run does, with all its checks, read every record, and say what is in it, which keys it is
encrypted with, and what is damaged. Postern must not be running on it.

Exit codes: 0 all is in order; 1 something is damaged; 3 the store is in use; 4 records are missing; 6 it needs another
key.`,
		Example: "  postern store check\n  postern store check --store ./data --json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.storeCheck(cmd.Context(), path) },
	}
	p.configFlag(cmd)
	cmd.Flags().StringVar(&path, "store", "", "folder of the store; else store.path of the config file")
	return cmd
}

// checkedStore is what --json prints.
type checkedStore struct {
	Store string `json:"store"`
	// Keys are the fingerprints of the keys that it needs, its own first.
	Keys   []string `json:"keys"`
	Faults []string `json:"faults"`
	store.BackupCounts
}

func (p *program) storeCheck(ctx context.Context, path string) (err error) {
	conf, err := p.storeConfig()
	if err != nil {
		return err
	}
	path = cmp.Or(path, conf.path)
	st, err := p.openStopped(badgerstore.Options{Path: path, Keys: conf.keys})
	if errors.Is(err, badgerstore.ErrLocked) {
		err = fmt.Errorf("%w; stop it first, or look at a backup of it: postern backup, and postern restore --check", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	found, err := st.Check(ctx)
	if err != nil {
		return err
	}
	keys := append([]string{}, st.Keys()...)
	if p.json {
		err = p.printJSON(checkedStore{Store: path, Keys: keys, Faults: append([]string{}, found.Faults...), BackupCounts: found.Counts})
	} else {
		fmt.Fprintf(p.stdout, "%s: %s\n", clean(path), describeCounts(found.Counts))
		switch len(keys) {
		case 0:
			fmt.Fprintln(p.stdout, "not encrypted")
		default:
			fmt.Fprintf(p.stdout, "encrypted with the key %s\n", keys[0])
			for _, id := range keys[1:] {
				fmt.Fprintf(p.stdout, "still needs the earlier key %s\n", id)
			}
		}
		for _, fault := range found.Faults {
			fmt.Fprintf(p.stdout, "damaged: %s\n", clean(fault))
		}
		if found.More > 0 {
			fmt.Fprintf(p.stdout, "and %d more\n", found.More)
		}
	}
	if err == nil && len(found.Faults) > 0 {
		err = errReported
	}
	return err
}
