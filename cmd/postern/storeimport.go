package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

// importOptions are the flags of the command store import.
type importOptions struct {
	path  string
	check bool
}

func (p *program) storeImportCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import FILE | -",
		Short: "Take what postern store export has written into a stopped or a new store",
		Long: `Take the messages of an export into a store that no Postern is running on, or into a new one. All of the file is
checked before anything is written: one that is cut off or has been changed changes nothing, and the line is named.

A message whose id is there already stays as it is. So an import that was broken off, also by a kill or a full disk, is
run again. What was pending is delivered when postern run starts on the store, under the same ids: end the store that
it came from, or both deliver it. Deliveries to destinations that the config does not have are held.

- is the standard input, a copy of which is kept in the folder for temporary files meanwhile. See docs/export.md.`,
		Example: `  postern store import messages.ndjson
  postern store import messages.ndjson --store ./new
  postern store import messages.ndjson --check`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.storeImport(cmd.Context(), args[0], o)
		},
	}
	p.configFlag(cmd)
	cmd.Flags().StringVar(&o.path, "store", "", "folder of the store; else store.path of the config file")
	cmd.Flags().BoolVar(&o.check, "check", false, "read the export to its end, and write nothing")
	return cmd
}

// checkedExport is what --check --json prints.
type checkedExport struct {
	File       string             `json:"file"`
	ExportedAt time.Time          `json:"exported_at"`
	Filter     store.ExportFilter `json:"filter,omitzero"`
	store.ExportCounts
}

// importedStore is what --json prints.
type importedStore struct {
	Store      string    `json:"store"`
	ExportedAt time.Time `json:"exported_at"`
	store.Imported
	// Held are destinations with pending deliveries that the config does not have; absent without a config file.
	Held []string `json:"held,omitempty"`
}

func (p *program) storeImport(ctx context.Context, name string, o importOptions) (err error) {
	in, err := p.openExport(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	var into badgerstore.Options
	var st *badgerstore.Store
	defer func() {
		if st != nil {
			err = errors.Join(err, st.Close())
		}
	}()
	if !o.check {
		conf, err := p.storeConfig()
		if err != nil {
			return err
		}
		into = badgerstore.Options{Path: cmp.Or(o.path, conf.path), Keys: conf.keys, MinFree: conf.minFree}
		there, err := isStore(into.Path)
		if err != nil {
			return err
		}
		if there { // one that is in use is told at once, and a new one is not begun for a file that is none
			if st, err = p.openImported(into); err != nil {
				return err
			}
		}
	}
	shown := p.meter("checking", true)
	header, counts, err := store.CheckExport(ctx, in, badgerstore.CheckImport, func(n int64) { shown.show(fmt.Sprintf("%d messages", n)) })
	shown.end()
	if err != nil {
		return fmt.Errorf("check %s: %w; nothing has been imported", name, err)
	}
	if counts.Damaged > 0 {
		fmt.Fprintf(p.stderr, "postern: %d damaged records were left out when the export was made\n", counts.Damaged)
	}
	if o.check {
		return p.tellChecked(name, header, counts)
	}
	if st == nil {
		if st, err = p.openImported(into); err != nil {
			return err
		}
	}
	done, err := p.importInto(ctx, st, in, counts.Messages)
	if err != nil {
		return fmt.Errorf("import %s: %w; %d messages are in the store, run it again to go on", name, err, done.Messages+done.Existing)
	}
	return p.tellImported(ctx, st, importedStore{Store: into.Path, ExportedAt: header.ExportedAt, Imported: done})
}

// openImported opens the store of a folder, or makes one.
func (p *program) openImported(o badgerstore.Options) (*badgerstore.Store, error) {
	st, err := p.openAlone(o)
	if errors.Is(err, badgerstore.ErrLocked) {
		err = fmt.Errorf("%w; stop Postern first", err)
	}
	return st, err
}

// isStore reports whether there is a store in a folder, and refuses one in which is something else.
func isStore(path string) (bool, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, usageError{err}
	}
	if _, err := os.Lstat(filepath.Join(path, "badger")); err == nil {
		return true, nil
	}
	for _, entry := range entries {
		switch entry.Name() {
		case "lock", "lost+found", "restoring", "keys", "hwm", "set-aside":
		default:
			return false, usageError{fmt.Errorf("there is no store in %q, but %q; name the folder of a store, or an empty one", path, entry.Name())}
		}
	}
	return false, nil
}

func (p *program) importInto(ctx context.Context, st store.Importer, in io.ReadSeeker, total int64) (done store.Imported, err error) {
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return done, err
	}
	r, err := store.ReadExport(in)
	if err != nil {
		return done, err
	}
	shown := p.meter("importing", true)
	defer shown.end()
	return st.Import(ctx, func(yield func(store.Exported, error) bool) {
		for x, err := range r.Messages() {
			if !yield(x, err) {
				return
			}
			n := r.Counts().Messages
			shown.show(fmt.Sprintf("%d of %d messages, %d %%", n, total, n*100/total))
		}
	})
}

// openExport opens a file that can be read twice.
func (p *program) openExport(name string) (*os.File, error) {
	in := p.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, usageError{err}
		}
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			return file, nil
		}
		defer file.Close()
		in = file
	}
	temp, err := os.CreateTemp("", "postern-import-") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("keep a copy of %s: %w; name a folder that has room for it in TMPDIR, or import a file", name, err)
	}
	// Without a name, so that it is gone with this process.
	if err = os.Remove(temp.Name()); err == nil {
		_, err = io.Copy(temp, in)
	}
	if err == nil {
		_, err = temp.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), temp.Close())
	}
	return temp, nil
}

func (p *program) tellChecked(name string, header store.ExportHeader, counts store.ExportCounts) error {
	if p.json {
		return p.printJSON(checkedExport{File: name, ExportedAt: header.ExportedAt, Filter: header.Filter, ExportCounts: counts})
	}
	_, err := fmt.Fprintf(p.stdout, "%s is whole, of %s: %s\n", clean(name), clock(header.ExportedAt), describeExport(counts))
	return err
}

func (p *program) tellImported(ctx context.Context, st store.History, done importedStore) error {
	backlog, err := st.Backlog(ctx)
	if err != nil {
		return err
	}
	names, err := st.PendingDestinations(ctx)
	if err != nil {
		return err
	}
	var lines strings.Builder
	if cfg, _ := config.Load(p.configPath, p.environ); cfg != nil {
		for _, name := range names {
			if cfg.Destinations[name] == nil {
				done.Held = append(done.Held, name)
				fmt.Fprintf(&lines, "held: %d deliveries to %s, which is not in the config\n", backlog[name].Pending, clean(name))
			}
		}
	}
	if p.json {
		return p.printJSON(done)
	}
	fmt.Fprintf(p.stdout, "%s: %d messages imported, %d were there already; %d deliveries, of them %d pending, %d attempts\n",
		clean(done.Store), done.Messages, done.Existing, done.Deliveries, done.Pending, done.Attempts)
	if done.KeysTaken > 0 {
		fmt.Fprintf(p.stdout, "%d messages came without their idempotency key, which another message in the store has\n", done.KeysTaken)
	}
	if done.Unblocked > 0 {
		fmt.Fprintf(p.stdout, "%d failed deliveries hold up their line no more, since others stood in it before them\n", done.Unblocked)
	}
	_, err = fmt.Fprint(p.stdout, lines.String())
	return err
}
