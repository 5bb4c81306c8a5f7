package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"

	"github.com/postern-relay/postern/store"
)

// vaultStorage is where certmagic keeps accounts and certificates: the vault of the store. What it has written is on
// disk. Its locks are in memory and end with the process, which is the only one that has the store open: a lock that
// survives a kill is one that nobody ends.
type vaultStorage struct {
	vault store.Vault
	locks namedLocks
}

var (
	_ certmagic.Storage   = (*vaultStorage)(nil)
	_ certmagic.TryLocker = (*vaultStorage)(nil)
)

// Store implements certmagic.Storage.
func (s *vaultStorage) Store(ctx context.Context, key string, value []byte) error {
	return s.vault.Keep(ctx, key, value)
}

// Load implements certmagic.Storage. Its error is fs.ErrNotExist for what is not there.
func (s *vaultStorage) Load(ctx context.Context, key string) ([]byte, error) {
	item, err := s.vault.Kept(ctx, key)
	return item.Value, notExist(key, err)
}

// Delete implements certmagic.Storage: key and all below it.
func (s *vaultStorage) Delete(ctx context.Context, key string) error {
	return s.vault.Discard(ctx, key)
}

// Exists implements certmagic.Storage.
func (s *vaultStorage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage. Like certmagic's own storage in files it names folders too.
func (s *vaultStorage) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	items, err := s.vault.KeptBelow(ctx, folder)
	if err == nil && len(items) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, notExist(folder, err)
	}
	var keys []string
	seen := map[string]bool{}
	for _, item := range items {
		at, rest := folder, strings.TrimPrefix(strings.TrimPrefix(item.Name, folder), "/")
		for more := true; more; more = more && recursive {
			var name string
			name, rest, more = strings.Cut(rest, "/")
			at = path.Join(at, name)
			if !seen[at] {
				seen[at] = true
				keys = append(keys, at)
			}
		}
	}
	return keys, nil
}

// Stat implements certmagic.Storage.
func (s *vaultStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	item, err := s.vault.Kept(ctx, key)
	if err == nil {
		return certmagic.KeyInfo{Key: key, Modified: item.ModifiedAt, Size: int64(item.Size), IsTerminal: true}, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return certmagic.KeyInfo{}, err
	}
	below, err := s.vault.KeptBelow(ctx, key)
	if err == nil && len(below) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return certmagic.KeyInfo{}, notExist(key, err)
	}
	folder := certmagic.KeyInfo{Key: key}
	for _, item := range below {
		if item.ModifiedAt.After(folder.Modified) {
			folder.Modified = item.ModifiedAt
		}
	}
	return folder, nil
}

// notExist turns the store's word for what is not there into that of certmagic.
func notExist(key string, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%q: %w", key, fs.ErrNotExist)
	}
	return err
}

// Lock implements certmagic.Locker. It waits until the lock is free or ctx ends.
func (s *vaultStorage) Lock(ctx context.Context, name string) error { return s.locks.lock(ctx, name) }

// TryLock implements certmagic.TryLocker.
func (s *vaultStorage) TryLock(ctx context.Context, name string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return s.locks.take(name) == nil, nil
}

// Unlock implements certmagic.Locker.
func (s *vaultStorage) Unlock(_ context.Context, name string) error { return s.locks.unlock(name) }

// namedLocks are locks by name. The zero value is ready.
type namedLocks struct {
	mu   sync.Mutex               // guards the field below
	held map[string]chan struct{} // closed when the lock is free
}

// take takes a lock that is free, and returns nil. Of one that is held it returns what is closed when that ends.
func (l *namedLocks) take(name string) (free <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held, ok := l.held[name]; ok {
		return held
	}
	if l.held == nil {
		l.held = make(map[string]chan struct{})
	}
	l.held[name] = make(chan struct{})
	return nil
}

func (l *namedLocks) lock(ctx context.Context, name string) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		free := l.take(name)
		if free == nil {
			return nil
		}
		select {
		case <-free:
		case <-ctx.Done():
		}
	}
}

func (l *namedLocks) unlock(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, ok := l.held[name]
	if !ok {
		return fmt.Errorf("unlock %q: it is not locked", name)
	}
	delete(l.held, name)
	close(held)
	return nil
}
