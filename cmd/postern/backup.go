package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

// backupOptions are the flags of the command backup.
type backupOptions struct {
	includeKeys bool
	path        string // of a stopped store; empty means that of the running relay
	force       bool
}

func (p *program) backupCommand() *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup FILE | -",
		Short: "Copy all that is stored at this moment into one file, of a running Postern or of a stopped one",
		Long: `Copy all that is stored at this moment into one file: messages, deliveries, attempts and everything else that
a restore needs to go on as it was. - is the standard output.

The running Postern is asked through its admin listener, and goes on meanwhile: what was accepted before the backup
began is in it. It needs as much free disk as there is data until the copy has been sent. Of a stopped one, --store names
the folder.

A backup of an encrypted store is encrypted with the same key. Private keys of certificates are left out without
--include-keys. The file is for postern restore; see docs/backup.md.`,
		Example: `  postern backup /backup/postern-$(date +%F).backup
  postern backup - | ssh vault 'cat > postern.backup'
  postern backup --store ./data postern.backup`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.backup(cmd.Context(), args[0], o) },
	}
	p.adminFlags(cmd)
	cmd.Flags().BoolVar(&o.includeKeys, "include-keys", false, "take in the accounts and private keys of certificates")
	cmd.Flags().StringVar(&o.path, "store", "", "folder of a store that no Postern is running on")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace FILE if it is there")
	return cmd
}

// madeBackup is what --json prints.
type madeBackup struct {
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
	store.BackupCounts
}

func (p *program) backup(ctx context.Context, file string, o backupOptions) (err error) {
	copyTo := p.backupRunning
	if o.path != "" {
		copyTo = p.backupStopped
	}
	out := io.Writer(p.stdout)
	var made *newFile
	switch {
	case file != "-":
		if made, err = createNew(file, o.force); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, made.discard()) }()
		out = made
	case isTerminal(p.stdout):
		return usageError{errors.New("a backup is nothing for a terminal; name a file, or redirect the output")}
	}
	counts, err := copyTo(ctx, out, o)
	if errors.Is(err, admin.ErrCut) && made != nil {
		err = fmt.Errorf("%w; no file has been written", err)
	}
	if err == nil && made != nil {
		err = made.finish(badgerstore.CheckSums)
	}
	if err != nil {
		return err
	}
	if counts.Damaged > 0 {
		fmt.Fprintf(p.stderr, "postern: %d damaged records were left out; the log names them\n", counts.Damaged)
	}
	if made == nil {
		return nil // the output is the backup
	}
	if p.json {
		return p.printJSON(madeBackup{File: file, Bytes: made.size, BackupCounts: counts})
	}
	fmt.Fprintf(p.stdout, "%s: %s, %d bytes\n", clean(file), describeCounts(counts), made.size)
	return nil
}

func describeCounts(c store.BackupCounts) string {
	text := fmt.Sprintf("%d messages, %d pending deliveries, %d attempts, %d records in all", c.Messages, c.Pending, c.Attempts, c.Records)
	if c.Keys > 0 {
		text += fmt.Sprintf(", of them %d with keys of certificates", c.Keys)
	}
	return text
}

// backupRunning asks the running relay for a backup. A fault of the config in what says which one that is ends it: a backup
// of another must not get this one's name.
func (p *program) backupRunning(ctx context.Context, w io.Writer, o backupOptions) (counts store.BackupCounts, err error) {
	if p.admin == "" {
		_, faults, err := p.namedConfig()
		if err = errors.Join(err, faultsAt(faults, ofListeners).Err()); err != nil {
			return counts, err
		}
	}
	client, err := p.adminClient()
	if err != nil {
		return counts, err
	}
	counts, _, err = client.Backup(ctx, o.includeKeys, w)
	return counts, advised(err)
}

// backupStopped backs up a store that nobody else uses.
func (p *program) backupStopped(ctx context.Context, w io.Writer, o backupOptions) (counts store.BackupCounts, err error) {
	conf, err := p.storeConfig()
	if err != nil {
		return counts, err
	}
	st, err := p.openStopped(badgerstore.Options{Path: o.path, Keys: conf.keys})
	if errors.Is(err, badgerstore.ErrLocked) {
		err = fmt.Errorf("%w; leave out --store to ask the running Postern, or stop it first", err)
	}
	if err != nil {
		return counts, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return st.WriteBackup(ctx, w, store.BackupOptions{IncludeKeys: o.includeKeys})
}
