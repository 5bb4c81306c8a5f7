package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

// restoreOptions are the flags of the command restore.
type restoreOptions struct {
	path    string
	keyFile string
	check   bool
}

func (p *program) restoreCommand() *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore FILE | -",
		Short: "Make a store from a backup, in an empty folder",
		Long: `Make a store from what postern backup has written, in a folder that is empty or not there yet. All of it is checked:
the backup to its end, and then the new store. A restore that is cut off leaves nothing that postern run would take for
a store.

The new store is encrypted if the config file sets store.encryption_key, whatever the backup was. The backup itself is
opened with the keys of the config file, or with those of --key-file, one a line: so a restore also turns encryption on
or off, or takes a store to another key at once.

Deliveries that were pending at the time of the backup are pending again, also those that were delivered since: they
are sent again with the same webhook-id. See docs/backup.md.`,
		Example: `  postern restore postern.backup --store ./data
  postern restore postern.backup --check`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (o.path == "") != o.check {
				return usageError{errors.New("say where the store is to be by --store, or --check to look at the backup alone")}
			}
			return p.restore(cmd.Context(), args[0], o)
		},
	}
	p.configFlag(cmd)
	cmd.Flags().StringVar(&o.path, "store", "", "folder of the new store")
	cmd.Flags().StringVar(&o.keyFile, "key-file", "", "file with the keys of the backup, one a line; else store.encryption_key of the config file")
	cmd.Flags().BoolVar(&o.check, "check", false, "read the backup to its end, and write nothing")
	return cmd
}

// restored is what --json prints.
type restored struct {
	Store     string    `json:"store,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	Encrypted bool      `json:"encrypted"` // the store, or with --check the backup
	Key       string    `json:"backup_key,omitempty"`
	store.BackupCounts
}

func (p *program) restore(ctx context.Context, file string, o restoreOptions) error {
	conf, err := p.storeConfig()
	if err != nil {
		return err
	}
	log := newLogger(p.stderr, "auto", zap.NewAtomicLevelAt(zap.WarnLevel))
	from := badgerstore.RestoreOptions{Path: o.path, Keys: conf.keys, Log: log}
	if o.keyFile != "" {
		if from.ReadKeys, err = p.keysOf(o.keyFile); err != nil {
			return err
		}
	}
	from.From = p.stdin
	if file != "-" {
		in, err := os.Open(file)
		if err != nil {
			return usageError{err}
		}
		defer in.Close()
		from.From = in
	}
	do := badgerstore.Restore
	if o.check {
		do = badgerstore.CheckBackup
	} else {
		syscall.Umask(0o077)
		p.limitMemory(0)
	}
	got, err := do(ctx, from)
	if errors.Is(err, badgerstore.ErrNotEmpty) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	encrypted := len(conf.keys) > 0
	if o.check {
		encrypted = got.Key != ""
	}
	if p.json {
		return p.printJSON(restored{Store: o.path, CreatedAt: got.CreatedAt, Encrypted: encrypted, Key: got.Key, BackupCounts: got.Counts})
	}
	p.tellRestored(p.stdout, file, o, got, encrypted)
	return nil
}

func (p *program) tellRestored(w io.Writer, file string, o restoreOptions, got badgerstore.Restored, encrypted bool) {
	how := "not encrypted"
	if encrypted {
		how = "encrypted"
	}
	if o.check {
		fmt.Fprintf(w, "%s is whole, %s, of %s: %s\n", clean(file), how, clock(got.CreatedAt), describeCounts(got.Counts))
	} else {
		fmt.Fprintf(w, "%s holds the store as it was at %s, %s: %s\n", clean(o.path), clock(got.CreatedAt), how, describeCounts(got.Counts))
		if encrypted && got.Key == "" {
			fmt.Fprintln(w, "The backup itself is not encrypted: anybody who had it could read it, and change it.")
		}
		if got.Counts.Pending > 0 {
			fmt.Fprintf(w, "What has been delivered since then is sent again, under the same webhook-id, when postern run starts on it.\n")
		}
	}
	if got.Counts.Damaged > 0 {
		fmt.Fprintf(w, "%d damaged records were left out when the backup was made.\n", got.Counts.Damaged)
	}
}

// keysOf reads a file of keys, one a line.
func (p *program) keysOf(file string) ([]store.Key, error) {
	raw, err := p.readInput(file, maxKeyFile)
	if err != nil {
		return nil, usageError{fmt.Errorf("read keys: %w", err)}
	}
	var keys []store.Key
	for n, line := range strings.Split(string(raw), "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		k, err := store.ParseKey(line)
		if err != nil {
			return nil, usageError{fmt.Errorf("read keys: line %d is %w", n+1, err)}
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, usageError{errors.New("read keys: there is none in the file")}
	}
	return keys, nil
}
