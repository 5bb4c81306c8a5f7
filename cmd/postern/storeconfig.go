package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/badgerstore"
)

// storeConfig is what the config says about a store that a command works on without a relay.
type storeConfig struct {
	path    string
	keys    []store.Key
	minFree int64 // bytes
}

// storeConfig reads the part of the config that is about the store. A fault in it must not be taken for a key that is not
// set: the new store would not be encrypted. Faults of other parts do not matter, such as a secret of a destination that
// this machine does not have, but are told, since a section may stand in the wrong place.
func (p *program) storeConfig() (storeConfig, error) {
	cfg, faults, err := p.namedConfig()
	if err != nil {
		return storeConfig{}, err
	}
	if cfg == nil {
		p.tellNoConfig()
		cfg, faults = p.environment()
	}
	inStore := faultsAt(faults, func(path string) bool { return section(path) == "store" })
	if err := inStore.Err(); err != nil {
		return storeConfig{}, err
	}
	if others := faultsAt(faults, func(path string) bool { return path != "destinations" }); len(others) > 0 {
		fmt.Fprintf(p.stderr, "postern: %s has faults that do not matter here; postern validate shows them\n", clean(p.configPath))
	}
	conf := storeConfig{path: cfg.Store.Path, minFree: int64(cfg.Store.MinFree)}
	for i, text := range cfg.Store.EncryptionKey {
		k, err := store.ParseKey(text.Reveal())
		if err != nil {
			return storeConfig{}, usageError{fmt.Errorf("store.encryption_key: entry %d is %w", i+1, err)}
		}
		conf.keys = append(conf.keys, k)
	}
	return conf, nil
}

// namedConfig returns what can be read of the config file, and its faults. There is neither if nobody has named a file and
// the one of the default name is not there.
func (p *program) namedConfig() (*config.Config, config.ErrorList, error) {
	cfg, err := config.Load(p.configPath, p.environ)
	faults, isFaults := errors.AsType[config.ErrorList](err)
	switch {
	case err == nil, isFaults:
		return cfg, faults, nil
	case errors.Is(err, fs.ErrNotExist) && !p.configNamed():
		return nil, nil, nil
	}
	return nil, nil, usageError{err}
}

// environment returns the config of the environment and the defaults, and its faults.
func (p *program) environment() (*config.Config, config.ErrorList) {
	cfg, err := config.Parse(p.configPath, []byte("{}"), p.environ)
	faults, _ := errors.AsType[config.ErrorList](err)
	return cfg, faults
}

// section returns the first key of a path.
func section(path string) string {
	if i := strings.IndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return path
}

// faultsAt returns the faults at the paths that matter, and those of the file as a whole: one that is not YAML, a section
// that is not known, a variable that no key has. That there is no destination, or none of the name in a variable, is none
// of those.
func faultsAt(faults config.ErrorList, matters func(path string) bool) (found config.ErrorList) {
	for _, f := range faults {
		whole := f.Path == section(f.Path) && f.Path != "destinations" && !strings.HasPrefix(f.File, "POSTERN_DESTINATIONS_")
		if whole || matters(f.Path) {
			found = append(found, f)
		}
	}
	return found
}

// openStopped opens the store of a folder, which has to be one already. Of one that a restore was to make, opening it
// says so.
func (p *program) openStopped(o badgerstore.Options) (*badgerstore.Store, error) {
	_, err := os.Lstat(filepath.Join(o.Path, "badger"))
	if err != nil {
		_, err = os.Lstat(filepath.Join(o.Path, "restoring"))
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("there is no store in %q; name the folder that store.path says", o.Path)}
	}
	return p.openAlone(o)
}

// openAlone opens a store that no relay works on, or makes one. Its pending deliveries have been accepted, however many
// they are.
func (p *program) openAlone(o badgerstore.Options) (*badgerstore.Store, error) {
	syscall.Umask(0o077)
	p.limitMemory(0)
	log := newLogger(p.stderr, "auto", zap.NewAtomicLevelAt(zap.WarnLevel))
	o.MaxPending, o.Log = 1<<40, log.Named("store")
	return badgerstore.Open(o)
}
