package badgerstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// DamageError says that a store lacks something that it had acknowledged, so nothing is served. Nothing has been
// deleted: what Badger might have changed was copied first.
type DamageError struct {
	Path     string // the store's folder
	Reason   string // what is wrong, for a person
	From, To uint64 // numbers of the first and the last missing commit group; 0 if all or an unknown part is missing
	Copies   string // folder with the files as they were found; empty if they still are
	CanLose  bool   // Options.AcceptLoss opens the store all the same
}

// Error says what is wrong and what to do.
func (e *DamageError) Error() string {
	text := fmt.Sprintf("store %q is damaged: %s; nothing is served", e.Path, e.Reason)
	if e.From > 0 {
		text = fmt.Sprintf("store %q is damaged: %s (commits %d to %d); nothing is served", e.Path, e.Reason, e.From, e.To)
	}
	if e.Copies != "" {
		text += fmt.Sprintf("; the files as they were found are in %q", e.Copies)
	}
	if e.CanLose {
		return text + "; restore a copy of the folder, or go on without what is lost: postern run --accept-loss"
	}
	return text + "; restore a copy of the folder, or move it away to begin with an empty store"
}

// gate stands before and behind the opening of Badger, which by itself deletes and cuts what it cannot read and says
// nothing (docs/badger.md, "Damage").
type gate struct {
	path       string
	log        *zap.Logger
	now        func() time.Time
	acceptLoss bool
	free       func(path string) (int64, error)

	aside string // the set-aside folder of this start, empty if there is none
}

// sideState is what the side file said.
type sideState struct {
	seq          uint64
	exists, read bool
}

func (g *gate) badgerPath() string { return filepath.Join(g.path, "badger") }
func (g *gate) sidePath() string   { return filepath.Join(g.path, "hwm") }
func (g *gate) damagePath() string { return filepath.Join(g.path, "damage") }
func (g *gate) failedPath() string { return filepath.Join(g.path, "set-aside", "open-failed") }

// before looks at the files as they are, and takes copies of what Badger may change.
func (g *gate) before() (side sideState, err error) {
	if err := g.refuseKnownDamage(); err != nil {
		return side, err
	}
	if side.seq, side.exists, side.read, err = readSide(g.sidePath()); err != nil {
		return side, err
	}
	if err := makeFolder(g.badgerPath()); err != nil {
		return side, err
	}
	files, err := os.ReadDir(g.badgerPath())
	if err != nil {
		return side, fmt.Errorf("read folder: %w", err)
	}
	if err := g.checkSpace(files); err != nil {
		return side, err
	}
	listed, reason, err := readManifest(filepath.Join(g.badgerPath(), badger.ManifestFilename))
	if err != nil {
		return side, err
	}
	if reason != "" && (side.exists || hasData(files)) {
		return side, g.refuseAll(reason, &side)
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
		return fmt.Errorf("%q has %d MiB of free disk, and to open a store safely takes %d; make room, nothing is lost: %w",
			g.path, free>>20, need>>20+1, store.ErrNoSpace)
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
	switch ext := filepath.Ext(name); {
	case info.Size() == 0 && (ext == ".mem" || ext == ".vlog"):
		// A kill between making and sizing a log leaves it empty, and Badger then fails once (docs/badger.md, "Damage").
		return g.setAside(name, os.Rename)
	case ext == ".sst":
		if id, ok := table.ParseFileID(name); ok {
			if _, ok := listed[id]; ok {
				return nil
			}
		}
		// Badger deletes it. A kill in a flush leaves one, and so does a manifest that has lost its end.
		return g.setAside(name, os.Rename)
	case name == badger.ManifestFilename, ext == ".mem":
		return g.setAside(name, copySparse)
	}
	return nil
}

// setAside moves or copies a file of Badger's folder into the set-aside folder of this start.
func (g *gate) setAside(name string, how func(from, to string) error) error {
	if g.aside == "" {
		base := filepath.Join(g.path, "set-aside")
		if err := os.MkdirAll(base, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		aside, err := os.MkdirTemp(base, g.now().UTC().Format("20060102T150405Z-"))
		if err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		g.aside = aside
	}
	if err := how(filepath.Join(g.badgerPath(), name), filepath.Join(g.aside, name)); err != nil {
		return fmt.Errorf("set aside: %w", err)
	}
	return nil
}

// refuseAll is for a folder that Badger would empty. With AcceptLoss all of it is moved away, and a new store begun.
func (g *gate) refuseAll(reason string, side *sideState) error {
	if !g.acceptLoss {
		return &DamageError{Path: g.path, Reason: reason + ", so all of it would be lost", CanLose: true}
	}
	files, err := os.ReadDir(g.badgerPath())
	if err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	for _, file := range files {
		if err := g.setAside(file.Name(), os.Rename); err != nil {
			return err
		}
	}
	for _, path := range []string{g.sidePath(), g.damagePath()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("begin a new store: %w", err)
		}
	}
	g.log.Error("loss accepted: all", zap.String("path", g.path), zap.String("reason", reason), zap.String("set_aside", g.aside))
	*side = sideState{}
	g.aside = "" // stays
	return nil
}

// after compares what Badger has with what the side file says, closes db if they differ, and writes the format into
// a new store.
func (g *gate) after(db *badger.DB, side sideState) (state commitRecord, err error) {
	found, err := readRing(db)
	if err != nil {
		return commitRecord{}, fmt.Errorf("check store: %w", err)
	}
	state = found.last
	damage := found.compare(side)
	base := found.base
	switch {
	case damage != nil && !g.acceptLoss:
		damage.Path, damage.Copies, damage.CanLose = g.path, g.aside, true
		return commitRecord{}, errors.Join(g.keepDamage(damage), damage)
	case damage != nil:
		g.log.Error("loss accepted", zap.String("path", g.path), zap.String("reason", damage.Reason),
			zap.Uint64("from", damage.From), zap.Uint64("to", damage.To), zap.String("set_aside", g.aside))
		g.aside = "" // stays
		if state.pending, err = countPending(db); err != nil {
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

// clean removes the copies of a start that has found everything in place, and the report of one that had not.
func (g *gate) clean() error {
	err := os.Remove(g.damagePath())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if g.aside != "" {
		err = errors.Join(err, os.RemoveAll(g.aside))
	}
	return errors.Join(err, os.RemoveAll(g.failedPath()))
}

// failed keeps what was set aside for a start at which Badger did not open, and returns why it did not.
// A supervisor's restarts repeat such a start: the first copies are the ones to keep, and of the later ones only
// what is new.
func (g *gate) failed(cause error) error {
	if g.aside == "" {
		return cause
	}
	if err := g.keepFirst(); err != nil {
		return errors.Join(cause, fmt.Errorf("keep copies: %w", err))
	}
	var damage *DamageError
	if errors.As(cause, &damage) {
		damage.Copies = g.failedPath()
	}
	return cause
}

func (g *gate) keepFirst() error {
	if err := os.MkdirAll(g.failedPath(), 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(g.aside)
	if err != nil {
		return err
	}
	for _, file := range files {
		kept := filepath.Join(g.failedPath(), file.Name())
		if _, err := os.Stat(kept); err == nil {
			continue
		}
		if err := os.Rename(filepath.Join(g.aside, file.Name()), kept); err != nil {
			return err
		}
	}
	return os.RemoveAll(g.aside)
}

// keepDamage notes what was found, so that a supervisor's restarts neither copy the files again each time nor find
// something else in what the first one left.
func (g *gate) keepDamage(damage *DamageError) error {
	raw, err := json.Marshal(damage)
	if err == nil {
		err = os.WriteFile(g.damagePath(), raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note damage: %w", err)
	}
	return nil
}

// refuseKnownDamage returns what an earlier start has noted.
func (g *gate) refuseKnownDamage() error {
	if g.acceptLoss {
		return nil
	}
	raw, err := os.ReadFile(g.damagePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read note of damage: %w", err)
	}
	damage := &DamageError{}
	if err := json.Unmarshal(raw, damage); err != nil || strings.TrimSpace(damage.Reason) == "" {
		damage = &DamageError{Reason: "an earlier start has found damage, and its report cannot be read", CanLose: true}
	}
	damage.Path = g.path
	return damage
}
