package badgerstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// The content of an item is
//
//	<kept 8> <value>
//
// with the time in milliseconds as in keys.

// discardAtOnce is how many items one commit group removes.
const discardAtOnce = 100

var errBadItem = errors.New("item of the vault is malformed")

// decodeItem reads the content under a c key. Value is part of the content.
func decodeItem(key, content []byte) (store.Item, error) {
	if len(key) < 2 || key[0] != kindVault || len(content) < 8 {
		return store.Item{}, errBadItem
	}
	return store.Item{
		Name: string(key[1:]), Value: content[8:], Size: len(content) - 8, ModifiedAt: timeOf(binary.BigEndian.Uint64(content)),
	}, nil
}

// Keep implements store.Vault.
func (s *Store) Keep(ctx context.Context, name string, value []byte) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.use.RUnlock()
	if err := store.CheckItem(name, len(value)); err != nil {
		return fmt.Errorf("keep: %w", err)
	}
	key := vaultKey(name)
	item := entry{key: key, value: seal(key, binary.BigEndian.AppendUint64(nil, stampOf(s.now())), value)}
	size, count := cost(item)
	err := s.submit(ctx, &request{size: size, entries: count, stage: func(g *group) error {
		if g.short {
			return s.noSpace(s.reserve / 2)
		}
		g.put(item.key, item.value)
		return nil
	}})
	if err != nil {
		return fmt.Errorf("keep %q: %w", name, err)
	}
	return nil
}

// Kept implements store.Vault.
func (s *Store) Kept(ctx context.Context, name string) (item store.Item, err error) {
	if err := s.begin(ctx); err != nil {
		return store.Item{}, err
	}
	defer s.use.RUnlock()
	err = s.db.View(func(txn *view) error {
		key := vaultKey(name)
		content, err := get(txn, key)
		switch {
		case err != nil:
			return err
		case content == nil:
			return store.ErrNotFound
		}
		item, err = decodeItem(key, content)
		return err
	})
	if err != nil {
		return store.Item{}, fmt.Errorf("item %q: %w", name, err)
	}
	return item, nil
}

// KeptBelow implements store.Vault. An item that cannot be read is left out.
func (s *Store) KeptBelow(ctx context.Context, name string) (below []store.Item, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	err = s.db.View(func(txn *view) error {
		for _, key := range keysBelow(txn, name) {
			if err := ctx.Err(); err != nil {
				return err
			}
			content, err := get(txn, key)
			if errors.Is(err, errDatabase) {
				return err
			}
			var item store.Item
			if err == nil {
				item, err = decodeItem(key, content)
			}
			if err != nil {
				s.log.Warn("item of the vault cannot be read", zap.String("name", string(key[1:])), zap.Error(err))
				continue
			}
			item.Value = nil
			below = append(below, item)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("items below %q: %w", name, err)
	}
	return below, nil
}

// keysBelow returns the keys of the items below a name, in their order.
func keysBelow(txn *view, name string) (keys [][]byte) {
	prefix := vaultKey(name)
	if name != "" {
		prefix = append(prefix, '/')
	}
	scanKeys(txn, prefix, nil, func(key []byte) bool {
		keys = append(keys, bytes.Clone(key))
		return true
	})
	return keys
}

// Discard implements store.Vault. Of many items a kill may leave some.
func (s *Store) Discard(ctx context.Context, name string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.use.RUnlock()
	var keys [][]byte
	err := s.db.View(func(txn *view) error {
		keys = keysBelow(txn, name)
		if kept, err := get(txn, vaultKey(name)); name != "" && (kept != nil || err != nil) {
			keys = append(keys, vaultKey(name)) // also one that cannot be read
		}
		return nil
	})
	for err == nil && len(keys) > 0 {
		some := keys[:min(len(keys), discardAtOnce)]
		keys = keys[len(some):]
		entries := make([]entry, len(some))
		for i, key := range some {
			entries[i].key = key
		}
		size, count := cost(entries...)
		err = s.submit(ctx, &request{size: size, entries: count, stage: func(g *group) error {
			g.removeAll(some)
			return nil
		}})
	}
	if err != nil {
		return fmt.Errorf("discard %q: %w", name, err)
	}
	return nil
}
