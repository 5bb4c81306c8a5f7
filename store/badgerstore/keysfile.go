package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// The file keys stands in the folder of an encrypted store, and says which keys its values need: a first line that
// names the format, and the id of a key in each line behind it. So a start knows before it touches anything whether it
// has all it needs, and whether a rotation has come to its end (rotate.go). Nothing in it is secret.
//
// A file that cannot be read, or is empty, says that the store is encrypted and no more: then a start reads which key
// each value has, and all of those have to be given. So one that is lost can be replaced by an empty file.
const (
	keysHeader  = "postern store keys 1"
	maxKeysFile = 4096
)

// KeyError says that a store was not opened, since the keys given for it are not those it needs. Nothing in it has been
// changed.
type KeyError struct {
	Path   string   // the store's folder; empty for a backup
	Reason string   // what is wrong, and what to do
	Needed []string // fingerprints of the keys that the store needs; empty if it is not encrypted, or not known
}

// Error says what is wrong and what to do.
func (e *KeyError) Error() string {
	if e.Path == "" {
		return "backup: " + e.Reason
	}
	return fmt.Sprintf("store %q: %s", e.Path, e.Reason)
}

func (g *gate) keysPath() string { return filepath.Join(g.path, "keys") }

// checkKeys holds the keys that are given against those that the store needs, and returns these; ok is false if the file
// does not say which. It changes nothing.
func (g *gate) checkKeys() (needed []keyID, ok bool, err error) {
	needed, exists, ok, err := readKeys(g.keysPath())
	if err != nil {
		return nil, false, err
	}
	refuse := func(format string, args ...any) error {
		e := &KeyError{Path: g.path, Reason: fmt.Sprintf(format, args...)}
		for _, id := range needed {
			e.Needed = append(e.Needed, id.String())
		}
		return e
	}
	switch {
	case !exists && !g.keys.encrypts():
		return nil, true, nil
	case !exists:
		if holds, err := g.holdsData(); err != nil || !holds {
			return nil, true, err
		}
		return nil, true, refuse("it is not encrypted, and store.encryption_key is set; to encrypt it, remove the key, make a "+
			"backup (postern backup), move the folder away, set the key again and restore the backup (postern restore). "+
			"If it has been encrypted, put its file %q back: an empty file will do", "keys")
	case !g.keys.encrypts() && ok:
		return nil, ok, refuse("it is encrypted with the key %s, and store.encryption_key is not set; set it. To do without, "+
			"make a backup, and restore it into another folder by postern restore --key-file", joinIDs(needed))
	case !g.keys.encrypts():
		return nil, ok, refuse("it is encrypted, and store.encryption_key is not set; set it")
	}
	missing := slices.DeleteFunc(slices.Clone(needed), g.keys.has)
	switch {
	case len(missing) == 0:
		return needed, ok, nil
	case len(missing) == len(needed):
		return nil, ok, refuse("store.encryption_key is not the key it is encrypted with: it needs %s, and has been given %s",
			joinIDs(missing), joinIDs(g.keys.ids))
	}
	return nil, ok, refuse(stillEncrypted, joinIDs(missing))
}

const stillEncrypted = "some of it is still encrypted with the key %s; add that to the list store.encryption_key, behind the " +
	"first, until the log says that it is not needed any more"

// holdsData reports whether there is anything in the folder that a store has written.
func (g *gate) holdsData() (bool, error) {
	if _, err := os.Lstat(g.sidePath()); err == nil {
		return true, nil
	}
	files, err := os.ReadDir(g.badgerPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read folder: %w", err)
	}
	return hasData(files), nil
}

// noteKeys writes the keys that the store needs from now on, before any value is encrypted with a new one, and returns
// them, its own first. A file that does not say which is left for opened.
func (g *gate) noteKeys(needed []keyID, ok bool) ([]keyID, error) {
	if !g.keys.encrypts() {
		return nil, nil
	}
	if !ok {
		g.log.Warn("file with the ids of the encryption keys cannot be read, all values are looked at", zap.String("path", g.keysPath()))
		return g.keys.ids, g.setAside(g.keysPath(), false)
	}
	noted := slices.Contains(needed, g.keys.ids[0])
	needed = g.ownFirst(needed)
	if noted {
		return needed, nil
	}
	return needed, writeKeys(g.keysPath(), needed)
}

func (g *gate) ownFirst(ids []keyID) []keyID {
	own := g.keys.ids[0]
	return append([]keyID{own}, slices.DeleteFunc(slices.Clone(ids), func(id keyID) bool { return id == own })...)
}

// opened holds what the opened database has, or why its first record cannot be read, against what was believed of its
// keys, and returns those that it needs.
func (g *gate) opened(db *database, needed []keyID, ok bool, err error) ([]keyID, error) {
	noKey := errors.Is(err, errNoKey)
	switch {
	case errors.Is(err, errPlain):
		return nil, &KeyError{Path: g.path, Reason: "it is not encrypted although there is a file \"keys\", or its first record " +
			"has been replaced; if it never was encrypted, remove the file and store.encryption_key"}
	case noKey && (ok || !g.keys.encrypts()):
		return nil, &KeyError{Path: g.path, Reason: "it is encrypted, and store.encryption_key is not the key: " + err.Error()}
	case err != nil && !noKey || ok:
		return needed, err
	}
	counts, err := keysOfValues(db)
	if err != nil {
		return nil, err
	}
	needed = slices.SortedFunc(maps.Keys(counts), func(a, b keyID) int { return bytes.Compare(a[:], b[:]) })
	if missing := slices.DeleteFunc(slices.Clone(needed), g.keys.has); len(missing) > 0 && (noKey || !g.acceptLoss) {
		wrong := &KeyError{Path: g.path, Reason: fmt.Sprintf(stillEncrypted, joinIDs(missing))}
		values := 0
		for _, id := range missing {
			wrong.Needed, values = append(wrong.Needed, id.String()), values+counts[id]
		}
		if !noKey {
			wrong.Reason += fmt.Sprintf(". Or go on without the values that need it, %d of them: postern run --accept-loss", values)
		}
		return nil, wrong
	}
	needed = g.ownFirst(slices.DeleteFunc(needed, func(id keyID) bool { return !g.keys.has(id) }))
	return needed, writeKeys(g.keysPath(), needed)
}

// keysOfValues counts the values of a store by the key that has encrypted them. It reads all of them.
func keysOfValues(db *database) (map[keyID]int, error) {
	counts := make(map[keyID]int)
	err := db.View(func(txn *view) error {
		return txn.each(context.Background(), func(key, value []byte) error {
			if id := lockedBy(value); id != (keyID{}) && !isOpen(key, value) {
				counts[id]++
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("look for the keys of values: %w: %w", errDatabase, err)
	}
	return counts, nil
}

// readKeys returns the ids in the file; exists says whether there is one, ok whether it says anything.
func readKeys(path string) (ids []keyID, exists, ok bool, err error) {
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, true, nil
	case err != nil:
		return nil, true, false, fmt.Errorf("read ids of encryption keys: %w", err)
	}
	ids, err = parseKeys(raw)
	return ids, true, err == nil, nil
}

func parseKeys(raw []byte) (ids []keyID, err error) {
	lines := strings.Split(string(raw), "\n")
	if len(raw) > maxKeysFile || len(lines) < 3 || lines[0] != keysHeader || lines[len(lines)-1] != "" {
		return nil, errors.New("not a file with the ids of keys")
	}
	for _, line := range lines[1 : len(lines)-1] {
		id, err := parseKeyID(line)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// writeKeys replaces the file, so that it is there whole or as it was.
func writeKeys(path string, ids []keyID) error {
	text := keysHeader + "\n"
	for _, id := range ids {
		text += id.String() + "\n"
	}
	if err := replaceFile(path, []byte(text)); err != nil {
		return fmt.Errorf("write ids of encryption keys: %w", err)
	}
	return nil
}

func joinIDs(ids []keyID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return strings.Join(texts, ", ")
}
