package badgerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// gate stands before and behind the opening of Badger, which by itself deletes and cuts what it cannot read and says
// nothing (docs/badger.md, "Damage").
type gate struct {
	path       string
	log        *zap.Logger
	now        func() time.Time
	acceptLoss bool
	free       func(path string) (int64, error)
	keys       *keyring

	copied bool         // something is in startPath
	found  *DamageError // by after, to be noted
}

// sideState is what the side file said.
type sideState struct {
	seq          uint64
	exists, read bool
}

func (g *gate) badgerPath() string { return filepath.Join(g.path, "badger") }
func (g *gate) sidePath() string   { return filepath.Join(g.path, "hwm") }
func (g *gate) damagePath() string { return filepath.Join(g.path, "damage") }

// startPath is the folder for what a start sets aside. One that fails or is killed leaves it to the next, which adds
// only what is new: a supervisor's restarts pile up nothing, and what was there first is kept. A start that finds all
// in place deletes it.
func (g *gate) startPath() string { return filepath.Join(g.path, "set-aside", "start") }

// before looks at the files as they are, and takes copies of what Badger may change.
func (g *gate) before() (side sideState, err error) {
	known, err := g.refuseKnownDamage()
	if err != nil {
		return side, err
	}
	if side.seq, side.exists, side.read, err = readSide(g.sidePath()); err != nil {
		return side, err
	}
	if err := makeFolder(g.badgerPath()); err != nil {
		return side, err
	}
	if side.exists {
		if err := g.setAside(g.sidePath(), false); err != nil {
			return side, err
		}
	}
	// A side file that is older than what was found missing, or gone, says nothing against it.
	side.seq, side.exists = max(side.seq, known), side.exists || known > 0
	files, err := os.ReadDir(g.badgerPath())
	if err != nil {
		return side, fmt.Errorf("read folder: %w", err)
	}
	if err := g.checkSpace(files); err != nil {
		return side, err
	}
	if err := g.mendManifest(); err != nil {
		return side, err
	}
	listed, reason, err := readManifest(filepath.Join(g.badgerPath(), badger.ManifestFilename))
	if err != nil {
		return side, err
	}
	if reason != "" && (side.exists || hasData(files)) {
		if err := g.refuseAll(reason); err != nil {
			return side, err
		}
		return sideState{}, nil
	}
	switch err := verifyTables(g.badgerPath(), listed); {
	case errors.Is(err, errDamagedTable):
		return side, &DamageError{Path: g.path, Reason: err.Error()}
	case err != nil:
		return side, err
	}
	for _, file := range files {
		if err := g.protect(file, listed); err != nil {
			return side, err
		}
	}
	return side, nil
}

// checkSpace refuses to open where Badger might run into the end of the disk at once, which is a SIGBUS.
func (g *gate) checkSpace(files []fs.DirEntry) error {
	need := int64(floor / 2)
	for _, file := range files {
		if filepath.Ext(file.Name()) != ".mem" {
			continue
		}
		if _, err := os.Lstat(filepath.Join(g.startPath(), file.Name())); err == nil {
			continue // copied by a start that has failed
		}
		info, err := file.Info()
		if err != nil {
			return fmt.Errorf("read folder: %w", err)
		}
		need += dataSize(info)
	}
	free, err := g.free(g.path)
	if err != nil {
		return err
	}
	if free < need {
		return fmt.Errorf("%q has %d MiB of free disk (a free inode counts as %d), and to open a store safely takes %d; "+
			"make room, nothing is lost: %w", g.path, free>>20, inodeWorth>>20, need>>20+1, store.ErrNoSpace)
	}
	return nil
}

// readManifest returns the tables that a manifest lists, or the reason why it does not say.
func readManifest(path string) (listed map[uint64]badger.TableManifest, reason string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "the manifest of the database is missing", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("read manifest: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, "", fmt.Errorf("read manifest: %w", err)
	}
	// Badger begins one with a header of 8 bytes and a first entry, and renames it into place when both are synced.
	if info.Size() <= 8 {
		return nil, "the manifest of the database has been cut", nil
	}
	manifest, _, err := badger.ReplayManifestFile(f, 0, badgerOptions(filepath.Dir(path)))
	if err != nil {
		return nil, "the manifest of the database cannot be read: " + err.Error(), nil
	}
	return manifest.Tables, "", nil
}

// hasData reports whether there is anything that a missing manifest would make Badger delete.
func hasData(files []fs.DirEntry) bool {
	for _, file := range files {
		switch filepath.Ext(file.Name()) {
		case ".sst", ".mem", ".vlog":
			return true
		}
	}
	return false
}

// protect copies or moves one file of Badger's folder, if Badger would change it or stumble over it.
func (g *gate) protect(file fs.DirEntry, listed map[uint64]badger.TableManifest) error {
	info, err := file.Info()
	if err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	name := file.Name()
	path := filepath.Join(g.badgerPath(), name)
	switch ext := filepath.Ext(name); {
	case info.Size() == 0 && (ext == ".mem" || ext == ".vlog"):
		// A kill between making and sizing a log leaves it empty, and Badger then fails once (docs/badger.md, "Damage").
		return g.setAside(path, true)
	case ext == ".sst":
		if id, ok := table.ParseFileID(name); ok {
			if _, ok := listed[id]; ok {
				return nil
			}
		}
		// Badger deletes it. A kill in a flush leaves one, and so does a manifest that has lost its end.
		return g.setAside(path, true)
	case name == badger.ManifestFilename:
		return g.setAside(path, false)
	case ext == ".mem":
		if err := g.setAside(path, false); err != nil {
			return err
		}
		return g.readyLog(name)
	case name == badger.KeyRegistryFileName, name == discardName, ext == ".vlog":
		asItIs, err := idle(path)
		if err != nil {
			return fmt.Errorf("check %q: %w", name, err)
		}
		if !asItIs {
			g.log.Warn("file of the database is damaged and made anew, nothing of the store is in it", zap.String("file", name))
			return g.setAside(path, true)
		}
	}
	return nil
}

// setAside copies or moves a file of the store into startPath. A copy from an earlier start is left as it is.
func (g *gate) setAside(from string, move bool) error {
	if err := os.MkdirAll(g.startPath(), 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	g.copied = true
	kept := filepath.Join(g.startPath(), filepath.Base(from))
	if move {
		if err := os.Rename(from, beside(kept)); err != nil {
			return fmt.Errorf("set aside: %w", err)
		}
		return nil
	}
	if beside(kept) != kept {
		return nil
	}
	// Under another name first: a copy that a kill has cut is none.
	part := kept + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set aside: %w", err)
	}
	err := copySparse(from, part)
	if err == nil {
		err = os.Rename(part, kept)
	}
	if err != nil {
		return fmt.Errorf("set aside: %w", err)
	}
	return nil
}

// beside returns path, or if something is there already, the name beside it for what came later.
func beside(path string) string {
	if _, err := os.Lstat(path); err == nil {
		return path + ".later"
	}
	return path
}

// keep gives startPath a name of its own, under which it stays, and returns it; empty if there is none.
func (g *gate) keep() (string, error) {
	if !g.copied {
		return "", nil
	}
	base := filepath.Dir(g.startPath())
	to, err := os.MkdirTemp(base, g.now().UTC().Format("20060102T150405Z-"))
	if err == nil {
		err = errors.Join(os.Remove(to), os.Rename(g.startPath(), to)) // the name is what is wanted, and nobody else is here
	}
	if err != nil {
		return "", fmt.Errorf("keep what was set aside: %w", err)
	}
	g.copied = false
	return to, nil
}

// refuseAll is for a folder that Badger would empty. With AcceptLoss all of it is moved away, and a new store begun.
func (g *gate) refuseAll(reason string) error {
	if !g.acceptLoss {
		return &DamageError{Path: g.path, Reason: reason + ", so all of it would be lost", CanLose: true}
	}
	files, err := os.ReadDir(g.badgerPath())
	if err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	if err := os.MkdirAll(g.startPath(), 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	g.copied = true
	aside, err := g.keep()
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.Rename(filepath.Join(g.badgerPath(), file.Name()), beside(filepath.Join(aside, file.Name()))); err != nil {
			return fmt.Errorf("set aside: %w", err)
		}
	}
	// A new store may need other keys, and writes this file anew.
	if err := copySparse(g.keysPath(), beside(filepath.Join(aside, filepath.Base(g.keysPath())))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set aside: %w", err)
	}
	for _, err := range []error{os.Remove(g.sidePath()), os.Remove(g.damagePath())} { // a copy of the first is set aside
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("begin a new store: %w", err)
		}
	}
	g.log.Error("loss accepted: all", zap.String("path", g.path), zap.String("reason", reason), zap.String("set_aside", aside))
	return nil
}

// after compares what Badger has with what the side file says, closes db if they differ, and writes the format into
// a new store.
func (g *gate) after(db *database, side sideState) (state commitRecord, err error) {
	found, err := readRing(db)
	if err != nil {
		return commitRecord{}, fmt.Errorf("check store: %w", err)
	}
	state = found.last
	damage := found.compare(side)
	base := found.base
	switch {
	case damage != nil && !g.acceptLoss:
		damage.Path, damage.CanLose, damage.Note = g.path, true, g.damagePath()
		if damage.Copies, err = g.keep(); err != nil {
			return commitRecord{}, errors.Join(damage, err)
		}
		g.found = damage
		return commitRecord{}, errors.Join(g.note(""), damage)
	case damage != nil:
		aside, err := g.keep()
		if err != nil {
			return commitRecord{}, err
		}
		g.log.Error("loss accepted", zap.String("path", g.path), zap.String("reason", damage.Reason),
			zap.Uint64("from", damage.From), zap.Uint64("to", damage.To), zap.String("set_aside", aside))
		if _, state.pending, err = countPending(db); err != nil {
			return commitRecord{}, fmt.Errorf("count pending deliveries: %w", err)
		}
		state.seq = max(state.seq, side.seq) + 1
		base = state.seq
	case !found.formatted:
		state.seq, base = 1, 1
	}
	if base != found.base {
		if err := writeFormat(db, base, state); err != nil {
			return commitRecord{}, fmt.Errorf("write format: %w", err)
		}
		if err := syncDir(g.badgerPath()); err != nil {
			return commitRecord{}, err
		}
	}
	if !side.read || base != found.base {
		if err := createSide(g.sidePath(), state.seq); err != nil {
			return commitRecord{}, err
		}
	}
	if err := g.clean(); err != nil {
		g.log.Warn("copies of the last start not removed", zap.Error(err))
	}
	return state, nil
}

// clean removes the copies of a start that has found everything in place, and the note of one that had not. The copies
// go under another name first, so that a kill leaves none that the next start would take for its own.
func (g *gate) clean() error {
	done := filepath.Join(filepath.Dir(g.startPath()), "done")
	errs := []error{os.Remove(g.damagePath()), os.RemoveAll(done), os.Rename(g.startPath(), done), os.RemoveAll(done)}
	for i, err := range errs {
		if errors.Is(err, fs.ErrNotExist) {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

// failed returns why a start has failed, with the place of what it has set aside.
func (g *gate) failed(cause error) error {
	var damage *DamageError
	if g.copied && errors.As(cause, &damage) && damage.Copies == "" {
		damage.Copies = g.startPath()
	}
	return cause
}
