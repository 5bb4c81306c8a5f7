package storetest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-relay/postern/store"
)

// Keep implements store.Vault.
func (m *Memory) Keep(ctx context.Context, name string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := store.CheckItem(name, len(value)); err != nil {
		return fmt.Errorf("keep: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return err
	}
	m.items[name] = store.Item{
		Name: name, Value: append([]byte{}, value...), Size: len(value), ModifiedAt: toMillis(m.now()),
	}
	return nil
}

// Kept implements store.Vault.
func (m *Memory) Kept(ctx context.Context, name string) (store.Item, error) {
	if err := ctx.Err(); err != nil {
		return store.Item{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return store.Item{}, err
	}
	item, ok := m.items[name]
	if !ok {
		return store.Item{}, fmt.Errorf("item %q: %w", name, store.ErrNotFound)
	}
	item.Value = bytes.Clone(item.Value)
	return item, nil
}

// KeptBelow implements store.Vault.
func (m *Memory) KeptBelow(ctx context.Context, name string) ([]store.Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return nil, err
	}
	var below []store.Item
	for _, other := range slices.Sorted(maps.Keys(m.items)) {
		if name == "" || strings.HasPrefix(other, name+"/") {
			item := m.items[other]
			item.Value = nil
			below = append(below, item)
		}
	}
	return below, nil
}

// Discard implements store.Vault.
func (m *Memory) Discard(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return err
	}
	maps.DeleteFunc(m.items, func(other string, _ store.Item) bool {
		return name == "" || other == name || strings.HasPrefix(other, name+"/")
	})
	return nil
}
