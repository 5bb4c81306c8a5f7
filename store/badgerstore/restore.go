package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// RestoreOptions say what a store is made from, and where.
type RestoreOptions struct {
	From io.Reader // the backup; required
	Path string    // the new store's folder, which is empty or not there; required, but for CheckBackup

	Keys     []store.Key // to encrypt the new store with, as in Options; empty for one without encryption
	ReadKeys []store.Key // to open the backup with, if it is encrypted; empty means Keys

	Log *zap.Logger // nil means none

	free func(path string) (int64, error) // tests: free space in bytes; nil means freeSpace
}

// Restored says what was in a backup.
type Restored struct {
	CreatedAt time.Time // the moment of which the backup is
	Key       string    // fingerprint of the key that it is encrypted with, or empty
	WithKeys  bool      // it was asked to hold what is secret by itself
	Counts    store.BackupCounts
}

// A restore makes the store in a folder of its own, inside of the one it is for, since that may be a volume that nothing
// can be renamed onto. When the backup has been read to its end and all of it has been read again from the new store,
// the parts move out, the database last: what is without a database cannot be taken for a store. As long as the folder is
// there no start begins a new store beside it.
const restoringFolder = "restoring"

// ErrRestoring says that a restore into a folder was cut off.
var ErrRestoring = errors.New("a restore into it was cut off; run postern restore again, which begins anew")

// ErrNotEmpty says that there is something in a folder that a store is to be restored into.
var ErrNotEmpty = errors.New("the folder is not empty")

// finishRestore takes away what a restore has left that was cut off behind its last step, and refuses a folder in which
// it was cut off before.
func finishRestore(path string) error {
	left := filepath.Join(path, restoringFolder)
	if _, err := os.Lstat(left); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, err := os.Lstat(filepath.Join(path, "badger"))
	if err == nil {
		err = os.Remove(left) // only if it is empty
	}
	if err != nil {
		return fmt.Errorf("store %q: %w", path, ErrRestoring)
	}
	return nil
}

// restoreCutOff returns the error that finishRestore would, and changes nothing.
func restoreCutOff(path string) error {
	left, err := os.ReadDir(filepath.Join(path, restoringFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, moved := os.Lstat(filepath.Join(path, "badger")); err == nil && moved == nil && len(left) == 0 {
		return nil // cut off behind its last step
	}
	return fmt.Errorf("store %q: %w", path, ErrRestoring)
}

// CheckBackup reads a backup to its end, and returns what is in it. Errors are those of Restore.
func CheckBackup(ctx context.Context, o RestoreOptions) (Restored, error) {
	b, err := o.open()
	if err != nil {
		return Restored{}, fmt.Errorf("check backup: %w", err)
	}
	if err := b.each(func(_, _ []byte) error { return ctx.Err() }); err != nil {
		return Restored{}, fmt.Errorf("check backup: %w", err)
	}
	return b.restored(), nil
}

// Restore makes a store from a backup. With an error, the folder is as it was before but for a lock, or not there if it
// was not. What a kill has left is refused by Open, and the next Restore clears it away.
//
// Errors: ErrNotEmpty, ErrBackup for what is not a whole backup, a *KeyError without its key, ErrLocked,
// store.ErrNoSpace, an end of ctx.
func Restore(ctx context.Context, o RestoreOptions) (done Restored, err error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.free == nil {
		o.free = freeSpace
	}
	b, err := o.open()
	if err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	_, err = os.Stat(o.Path)
	made := errors.Is(err, fs.ErrNotExist)
	if err := makeFolder(o.Path); err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	held, err := lock(filepath.Join(o.Path, "lock"))
	if err != nil {
		return Restored{}, fmt.Errorf("restore into %q: %w", o.Path, err)
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	cut, err := clearRestore(o.Path)
	if err != nil {
		return Restored{}, fmt.Errorf("restore into %q: %w", o.Path, err)
	}
	r := &restoring{options: o, from: b, path: filepath.Join(o.Path, restoringFolder)}
	if err := r.run(ctx); err != nil {
		return Restored{}, errors.Join(fmt.Errorf("restore into %q: %w", o.Path, err), r.undo(made, cut))
	}
	if err := r.moveOut(); err != nil {
		return Restored{}, fmt.Errorf("restore into %q: %w", o.Path, err)
	}
	return b.restored(), nil
}

func (o RestoreOptions) open() (*backupReader, error) {
	keys := o.ReadKeys
	if len(keys) == 0 {
		keys = o.Keys
	}
	return openBackup(o.From, keys)
}

func (b *backupReader) restored() Restored {
	return Restored{CreatedAt: b.header.CreatedAt, Key: b.header.Key, WithKeys: b.header.IncludeKeys, Counts: b.counts}
}

// clearRestore makes a folder empty again in which a restore was cut off, and reports whether one was. Any other that is
// not empty is refused.
func clearRestore(path string) (cut bool, err error) {
	restoring := filepath.Join(path, restoringFolder)
	_, err = os.Lstat(restoring)
	cut = err == nil
	entries, err := os.ReadDir(path)
	if err != nil {
		return cut, fmt.Errorf("read folder: %w", err)
	}
	for _, entry := range entries {
		switch name := entry.Name(); {
		case name == "lock", name == "lost+found", name == restoringFolder:
		case cut && (name == "keys" || name == "hwm"):
		default:
			return cut, fmt.Errorf("%w, there is %q in it; name an empty one, or move away what is there", ErrNotEmpty, name)
		}
	}
	if !cut {
		return false, nil
	}
	// What moved out first; the folder that says so last.
	for _, name := range []string{"keys", "hwm", restoringFolder} {
		if err := os.RemoveAll(filepath.Join(path, name)); err != nil {
			return cut, fmt.Errorf("clear away a restore that was cut off: %w", err)
		}
	}
	return cut, syncDir(path)
}

// restoring is one restore at work.
type restoring struct {
	options RestoreOptions
	from    *backupReader
	path    string // of its folder
	keys    *keyring
	db      *database

	txn     *view
	seq     uint64 // of the last commit group
	size    int64  // of txn
	entries int64
	since   int64 // bytes since the last look at the free space
}

const restoreLook = 16 << 20

// undo clears away what a restore has made that has failed: the folder too if it made that. One in which another was cut
// off still says so, since no start must begin a new store there.
func (r *restoring) undo(made, cut bool) error {
	if _, err := clearRestore(r.options.Path); err != nil {
		return err
	}
	switch {
	case made:
		if err := os.Remove(filepath.Join(r.options.Path, "lock")); err != nil {
			return err
		}
		return os.Remove(r.options.Path)
	case cut:
		return makeFolder(r.path)
	}
	return nil
}

func (r *restoring) badgerPath() string { return filepath.Join(r.path, "badger") }

func (r *restoring) run(ctx context.Context) (err error) {
	if r.keys, err = newKeyring(r.options.Keys, forValues); err != nil {
		return err
	}
	if err := r.checkSpace(); err != nil {
		return err
	}
	if err := makeFolder(r.badgerPath()); err != nil {
		return err
	}
	if r.keys.encrypts() {
		if err := writeKeys(filepath.Join(r.path, "keys"), r.keys.ids[:1]); err != nil {
			return err
		}
	}
	if err := r.fill(ctx); err != nil {
		return err
	}
	if err := r.verify(ctx); err != nil {
		return fmt.Errorf("read again what was restored: %w", err)
	}
	if err := createSide(filepath.Join(r.path, "hwm"), r.seq); err != nil {
		return err
	}
	if _, err := closeModes(r.path); err != nil {
		return err
	}
	return errors.Join(syncDir(r.badgerPath()), syncDir(r.path))
}

// checkSpace ends the restore before the disk is full, which would end the process.
func (r *restoring) checkSpace() error {
	free, err := r.options.free(r.options.Path)
	if err != nil {
		return err
	}
	if free < floor {
		return fmt.Errorf("%w: %d MiB free, %d MiB wanted", store.ErrNoSpace, free>>20, int64(floor)>>20)
	}
	return nil
}

// fill writes all records.
func (r *restoring) fill(ctx context.Context) (err error) {
	if r.db, err = openBadger(r.badgerPath(), r.keys, r.options.Log); err != nil {
		return err
	}
	defer func() {
		if r.txn != nil {
			r.txn.Discard()
		}
		if closeErr := r.db.Close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("close database: %w", closeErr))
		}
	}()
	r.txn = r.db.begin()
	err = r.from.each(func(key, content []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return r.put(append([]byte(nil), key...), content)
	})
	if err != nil {
		return err
	}
	if err := r.commit(); err != nil {
		return err
	}
	r.seq++
	return writeFormat(r.db, 1, commitRecord{seq: r.seq, pending: r.from.counts.Pending})
}

// put writes one record. The database keeps key.
func (r *restoring) put(key, content []byte) error {
	var value []byte // index entries without content have none
	if key[0] != kindIndex || len(content) > 0 {
		value = seal(key, content)
	}
	if len(value)+lockedOverhead >= valueThreshold {
		return fmt.Errorf("%w: %s is too large", ErrBackup, describe(key))
	}
	size := int64(len(key)+len(value)) + entryOverhead
	if r.size+size > min(groupSize, r.db.MaxBatchSize()*9/10) || r.entries+1 > r.db.MaxBatchCount()*9/10 {
		if err := r.commit(); err != nil {
			return err
		}
	}
	r.size, r.entries = r.size+size, r.entries+1
	return r.txn.put(key, value)
}

func (r *restoring) commit() error {
	if r.since += r.size; r.since >= restoreLook {
		r.since = 0
		if err := r.checkSpace(); err != nil {
			return err
		}
	}
	// Each is a commit group of its own: so a table that is lost later is missed, whichever it is.
	r.seq++
	note := commitKey(r.seq)
	err := r.txn.put(note, seal(note, encodeCommit(commitRecord{seq: r.seq})))
	if err == nil {
		err = r.txn.Commit()
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	r.txn, r.size, r.entries = r.db.begin(), 0, 0
	return nil
}

// verify reads the new store from its files, and counts.
func (r *restoring) verify(ctx context.Context) (err error) {
	listed, reason, err := readManifest(filepath.Join(r.badgerPath(), badger.ManifestFilename))
	if err != nil {
		return err
	}
	if reason != "" {
		return errors.New(reason)
	}
	if err := verifyTables(r.badgerPath(), listed); err != nil {
		return err
	}
	db, err := openBadger(r.badgerPath(), r.keys, r.options.Log)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := db.Close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("close database: %w", closeErr))
		}
	}()
	var counts store.BackupCounts
	err = db.View(func(txn *view) error {
		return txn.each(ctx, func(key, value []byte) error {
			if inBackup(key[0], true) {
				countRecord(&counts, key)
			}
			if len(value) == 0 {
				return nil
			}
			if _, err := txn.open(key, value); err != nil {
				return fmt.Errorf("%s: %w", describe(key), err)
			}
			return nil
		})
	})
	want := r.from.counts
	want.Damaged = 0
	if err == nil && counts != want {
		err = fmt.Errorf("it has %+v, and the backup %+v", counts, want)
	}
	return err
}

// moveOut makes the folder a store.
func (r *restoring) moveOut() error {
	for _, name := range []string{"keys", "hwm", "badger"} {
		err := os.Rename(filepath.Join(r.path, name), filepath.Join(r.options.Path, name))
		if err != nil && !(name == "keys" && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("move into place: %w", err)
		}
		if err := syncDir(r.options.Path); err != nil {
			return err
		}
	}
	if err := os.Remove(r.path); err != nil {
		return fmt.Errorf("move into place: %w", err)
	}
	return syncDir(r.options.Path)
}

// CheckSums reads a backup to its end without its key, and returns whether it is whole: nothing has been cut or damaged
// on its way. What only the key tells is left to CheckBackup.
func CheckSums(from io.Reader) error {
	b, err := openSums(from)
	for err == nil {
		var kind byte
		if kind, _, err = b.frame(); err == nil && kind == frameEnd {
			return b.atEnd()
		}
	}
	return fmt.Errorf("check backup: %w", err)
}
