package storetest

import (
	"context"
	"fmt"
	"maps"

	"github.com/postern-relay/postern/store"
)

// NoteOutage implements store.OutageKeeper.
func (m *Memory) NoteOutage(ctx context.Context, destination string, o store.Outage) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkName(destination); err != nil {
		return fmt.Errorf("note outage: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return err
	}
	o.Since, o.HeldUntil = toMillis(o.Since), toMillis(o.HeldUntil)
	if o == (store.Outage{}) {
		delete(m.outages, destination)
		return nil
	}
	m.outages[destination] = o
	return nil
}

// Outages implements store.OutageKeeper.
func (m *Memory) Outages(ctx context.Context) (map[string]store.Outage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(); err != nil {
		return nil, err
	}
	return maps.Clone(m.outages), nil
}
