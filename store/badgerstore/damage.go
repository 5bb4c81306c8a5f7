package badgerstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"strings"

	"go.uber.org/zap"
)

// DamageError says that a store lacks something that it had acknowledged, so nothing is served. Nothing has been
// deleted: what Badger might have changed was copied first.
type DamageError struct {
	Path     string // the store's folder
	Reason   string // what is wrong, for a person
	From, To uint64 // numbers of the first and the last missing commit group; 0 if all or an unknown part is missing
	Copies   string // folder with the files as they were found; empty if they still are
	Note     string // file that holds this for the next starts; empty if they look anew
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
	if e.Note != "" {
		text += fmt.Sprintf("; this is noted in %q until the files change", e.Note)
	}
	if e.CanLose {
		return text + "; restore a backup into an empty folder (postern restore) or a copy of this one, or go on without what is lost: postern run --accept-loss"
	}
	return text + "; restore a backup into an empty folder (postern restore) or a copy of this one, or move it away to begin with an empty store"
}

// damageNote is what a start that has found damage leaves to the next ones, so that a supervisor's restarts neither copy
// the files again each time nor find something else in what the first one left.
type damageNote struct {
	Damage *DamageError
	Files  string // fingerprint of the files behind it; empty if the start was cut off
}

// note writes the note of what this start has found.
func (g *gate) note(files string) error {
	raw, err := json.Marshal(damageNote{Damage: g.found, Files: files})
	if err == nil {
		err = os.WriteFile(g.damagePath(), raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note damage: %w", err)
	}
	return nil
}

// closed completes the note when Badger has closed its files.
func (g *gate) closed() error {
	if g.found == nil {
		return nil
	}
	files, err := g.fingerprint()
	if err != nil {
		return err
	}
	return g.note(files)
}

// refuseKnownDamage returns what an earlier start has noted, unless the loss is accepted, or the files are no longer those
// it has seen, for somebody has put back a copy. known is the last commit group that has to be there, if a note says so.
func (g *gate) refuseKnownDamage() (known uint64, err error) {
	raw, err := os.ReadFile(g.damagePath())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read note of damage: %w", err)
	}
	var n damageNote
	if err := json.Unmarshal(raw, &n); err != nil || n.Damage == nil || strings.TrimSpace(n.Damage.Reason) == "" {
		n = damageNote{Damage: &DamageError{Reason: "an earlier start has found damage, and its report cannot be read", CanLose: true}}
	}
	if g.acceptLoss {
		return n.Damage.To, nil
	}
	files, err := g.fingerprint()
	if err != nil {
		return 0, err
	}
	if n.Files != "" && n.Files != files {
		g.log.Warn("store was found damaged, and its files have changed since: looking again", zap.String("path", g.path))
		return n.Damage.To, nil
	}
	n.Damage.Path, n.Damage.Note = g.path, g.damagePath()
	return 0, n.Damage
}

// fingerprint tells one state of the store's files from another.
func (g *gate) fingerprint() (string, error) {
	sum := crc32.New(castagnoli())
	add := func(info fs.FileInfo) {
		fmt.Fprintf(sum, "%q %d %d\n", info.Name(), info.Size(), info.ModTime().UnixNano())
	}
	files, err := os.ReadDir(g.badgerPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read folder: %w", err)
	}
	for _, file := range files {
		info, err := file.Info()
		if err != nil {
			return "", fmt.Errorf("read folder: %w", err)
		}
		add(info)
	}
	if info, err := os.Stat(g.sidePath()); err == nil {
		add(info)
	}
	return fmt.Sprintf("%d files, %08x", len(files), sum.Sum32()), nil
}
