package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

// exportOptions are the flags of the command store export.
type exportOptions struct {
	path   string
	output string
	force  bool
	filter admin.DeliveryFilter
}

func (p *program) storeExportCommand() *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the messages of a stopped store as JSON lines, to move them or to hand them to other tools",
		Long: `Write all messages of a stopped store as NDJSON: a line for each, with its body, its deliveries in whatever state, and
their attempts. postern store import takes it into another store, where what was pending is delivered under the same
ids; jq or a warehouse can read it as well. Private keys of certificates, pauses and secrets of the config are not in
it. The file holds what the app has posted, readable, also if the store is encrypted.

Postern must not be running on the store. To export one that is in use, export a copy of it:

  postern backup copy.backup
  postern restore copy.backup --store ./copy
  postern store export --store ./copy -o messages.ndjson

With a filter, those messages are written of which a delivery passes it. Their other deliveries are written too; what
is pending of them is marked left_out, and an import does not deliver it.

To keep a store safe there is postern backup, which is complete. See docs/export.md.`,
		Example: `  postern store export -o messages.ndjson
  postern store export --state failed --since 2d | jq -r 'select(.id) | .deliveries[].last.error'
  postern store export | gzip > messages.ndjson.gz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.storeExport(cmd.Context(), o) },
	}
	p.configFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.path, "store", "", "folder of the store; else store.path of the config file")
	flags.StringVarP(&o.output, "output", "o", "-", "file to write to; - is the standard output")
	flags.BoolVar(&o.force, "force", false, "replace the file if it is there")
	flags.StringVar(&o.filter.Destination, "destination", "", "only messages with a delivery to this destination")
	flags.StringVar(&o.filter.State, "state", "", "only messages with a delivery in this state: "+alternatives(states()))
	flags.StringVar(&o.filter.Since, "since", "", "only those accepted since: a time such as 2026-03-14T15:09:26Z, or so long ago: 90m, 36h, 2d")
	flags.StringVar(&o.filter.Until, "until", "", "only those accepted before: likewise")
	p.completeFlag(cmd, "state", fixed(states()))
	return cmd
}

// exportedStore is what --json prints.
type exportedStore struct {
	File       string    `json:"file"`
	Bytes      int64     `json:"bytes"`
	ExportedAt time.Time `json:"exported_at"`
	store.ExportCounts
}

func (p *program) storeExport(ctx context.Context, o exportOptions) (err error) {
	now := time.Now()
	filter, err := admin.ReadFilter(o.filter, now)
	if err != nil {
		return usageError{err}
	}
	conf, err := p.storeConfig()
	if err != nil {
		return err
	}
	out := io.Writer(p.stdout)
	var file *newFile
	switch {
	case o.output != "-":
		if file, err = createNew(o.output, o.force); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.discard()) }()
		out = file
	case isTerminal(p.stdout):
		out = &harmlessLines{out: p.stdout}
	}
	st, err := p.openStopped(badgerstore.Options{Path: cmp.Or(o.path, conf.path), Keys: conf.keys})
	if errors.Is(err, badgerstore.ErrLocked) {
		err = fmt.Errorf("%w; stop Postern first, or export a copy: postern backup FILE, postern restore FILE --store COPY, "+
			"postern store export --store COPY", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	shown := p.meter("exporting", file != nil || !isTerminal(p.stdout))
	counts, err := store.WriteExport(ctx, out, st, store.ExportOptions{
		Filter: filter, At: now, Progress: func(n int64) { shown.show(fmt.Sprintf("%d messages", n)) },
	})
	shown.end()
	if err == nil && file != nil {
		err = file.finish(nil)
	}
	if err != nil {
		return err
	}
	if counts.Damaged > 0 {
		fmt.Fprintf(p.stderr, "postern: %d damaged records were left out; the log names them\n", counts.Damaged)
	}
	if counts.Messages == 0 && o.filter != (admin.DeliveryFilter{}) {
		fmt.Fprintln(p.stderr, "postern: nothing in the store passes the filter")
	}
	switch {
	case file == nil: // the output is the export
		return nil
	case p.json:
		return p.printJSON(exportedStore{File: o.output, Bytes: file.size, ExportedAt: now.UTC().Truncate(time.Millisecond), ExportCounts: counts})
	}
	fmt.Fprintf(p.stdout, "%s: %s, %d bytes\n", clean(o.output), describeExport(counts), file.size)
	return nil
}

func describeExport(c store.ExportCounts) string {
	text := fmt.Sprintf("%d messages, %d deliveries, of them %d pending, %d attempts", c.Messages, c.Deliveries, c.Pending, c.Attempts)
	if c.LeftOut > 0 {
		text += fmt.Sprintf("; %d pending deliveries that the filter does not choose are left out", c.LeftOut)
	}
	if c.Omitted > 0 {
		text += fmt.Sprintf("; %d old attempts of messages with very many are left out", c.Omitted)
	}
	return text
}
