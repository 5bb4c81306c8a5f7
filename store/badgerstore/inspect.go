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
	"golang.org/x/sys/unix"
)

// Inspection is what Inspect has found in a folder.
type Inspection struct {
	Exists    bool      // there is a store; nothing else is set without
	Tables    int       // that the manifest lists; the checksum of each has been found right
	Bytes     int64     // of all files of the database
	Strays    int       // tables that the manifest does not list, which the next start sets aside
	Log       int64     // bytes that the last process has left in its write-ahead logs, for it was killed; the next start reads them
	Commits   uint64    // number of the last commit group, as the side file has it; 0 if it does not say
	Encrypted bool      // values are encrypted, and, if KeysKnown, the keys that were given are those they need
	KeysKnown bool      // the store says which keys it needs: its file "keys" is neither empty nor damaged, or it needs none
	LastWrite time.Time // of the newest file
}

// Reserve returns how much free space, in bytes, a store with Options.MinFree keeps for itself: below it nothing is
// accepted.
func Reserve(minFree int64) int64 {
	if minFree == 0 {
		minFree = defaultMinFree
	}
	return max(minFree, floor)
}

// Inspect looks at a store that no process has open, as far as that changes nothing: at the note of an earlier start, the
// keys, the manifest, the checksums of all tables and the side file, in the way of the gate in front of Open. What only
// the database itself can tell, whether each commit group is there, is left to Open. It reads all tables, so it takes as
// long as a start does.
//
// Of the options Path and Keys count. Errors are those of Open: ErrLocked if a process has the store open, or opened it
// meanwhile, ErrRestoring if a restore into it was cut off, a *KeyError, a *DamageError; and whatever keeps files from
// being read. It may run at any time: the
// process that owns the store does not notice.
func Inspect(o Options) (Inspection, error) {
	keys, err := newKeyring(o.Keys, forValues)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect store: %w", err)
	}
	if err := restoreCutOff(o.Path); err != nil {
		if held := unlocked(o.Path); held != nil { // by a restore that is under way
			return Inspection{}, held
		}
		return Inspection{}, err
	}
	if _, err := os.Stat(filepath.Join(o.Path, "badger")); errors.Is(err, fs.ErrNotExist) {
		return Inspection{}, nil
	}
	if err := unlocked(o.Path); err != nil {
		return Inspection{}, err
	}
	g := &gate{path: o.Path, log: zap.NewNop(), now: time.Now, keys: keys}
	found, err := g.inspect()
	// What was seen while another process began to change it says nothing.
	if now := unlocked(o.Path); errors.Is(now, ErrLocked) {
		return Inspection{}, now
	}
	return found, err
}

// unlocked returns ErrLocked if a process has the store open. It holds the lock for no longer than it takes to see that,
// and makes no file.
func unlocked(path string) error {
	f, err := os.Open(filepath.Join(path, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open lock file: %w", err)
	}
	defer f.Close() // and with it the lock is gone
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return lockedBySomeone(f, err)
	}
	return nil
}

// inspect is before without its copies.
func (g *gate) inspect() (found Inspection, err error) {
	found.Exists = true
	if _, err := g.refuseKnownDamage(); err != nil {
		return found, err
	}
	if _, found.KeysKnown, err = g.checkKeys(); err != nil {
		return found, err
	}
	found.Encrypted = g.keys.encrypts()
	seq, exists, _, err := readSide(g.sidePath())
	if err != nil {
		return found, err
	}
	found.Commits = seq
	files, err := os.ReadDir(g.badgerPath())
	if err != nil {
		return found, fmt.Errorf("read folder: %w", err)
	}
	listed, reason, err := readManifest(filepath.Join(g.badgerPath(), badger.ManifestFilename))
	if err != nil {
		return found, err
	}
	if reason != "" {
		if !exists && !hasData(files) {
			return found, nil // a start that was cut off before it had begun
		}
		return found, &DamageError{Path: g.path, Reason: reason + ", so all of it would be lost", CanLose: true}
	}
	found.Tables = len(listed)
	for _, file := range files {
		if err := found.count(file, listed); err != nil {
			return found, err
		}
	}
	if info, err := os.Stat(g.sidePath()); err == nil && info.ModTime().After(found.LastWrite) {
		found.LastWrite = info.ModTime()
	}
	if err := verifyTables(g.badgerPath(), listed); errors.Is(err, errDamagedTable) {
		return found, &DamageError{Path: g.path, Reason: err.Error()}
	} else if err != nil {
		return found, err
	}
	return found, nil
}

// count adds one file of Badger's folder.
func (found *Inspection) count(file fs.DirEntry, listed map[uint64]badger.TableManifest) error {
	info, err := file.Info()
	if err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	if info.ModTime().After(found.LastWrite) {
		found.LastWrite = info.ModTime()
	}
	size := dataSize(info)
	found.Bytes += size
	switch filepath.Ext(file.Name()) {
	case ".mem":
		found.Log += size
	case ".sst":
		id, ok := table.ParseFileID(file.Name())
		if _, known := listed[id]; !ok || !known {
			found.Strays++
		}
	}
	return nil
}
