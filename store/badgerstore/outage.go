package badgerstore

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// NoteOutage implements store.OutageKeeper.
func (s *Store) NoteOutage(ctx context.Context, destination string, o store.Outage) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.use.RUnlock()
	if err := checkName(destination); err != nil {
		return fmt.Errorf("note outage: %w", err)
	}
	note := sealed(outageKey(destination), encodeOutage(o))
	size, count := cost(note)
	over := stampOf(o.Since) == 0 && stampOf(o.HeldUntil) == 0
	err := s.submit(ctx, &request{size: size, entries: count, stage: func(g *group) error {
		switch {
		case over:
			if kept, err := g.get(note.key); kept != nil || err != nil {
				if g.none {
					return s.noSpace(bottom)
				}
				g.remove(note.key)
			}
		case g.short:
			return s.noSpace(s.reserve / 2)
		default:
			g.put(note.key, note.value)
		}
		return nil
	}})
	if err != nil {
		return fmt.Errorf("note outage of %q: %w", destination, err)
	}
	return nil
}

// Outages implements store.OutageKeeper.
func (s *Store) Outages(ctx context.Context) (map[string]store.Outage, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	out := make(map[string]store.Outage)
	err := s.db.View(func(txn *view) error {
		var keys [][]byte
		scanKeys(txn, []byte{kindOutage}, nil, func(key []byte) bool {
			keys = append(keys, append([]byte(nil), key...))
			return true
		})
		for _, key := range keys {
			content, err := get(txn, key)
			var o store.Outage
			if err == nil {
				o, err = decodeOutage(content)
			}
			if err != nil {
				s.log.Warn("note of an outage cannot be read", zap.String("destination", string(key[1:])), zap.Error(err))
				continue
			}
			out[string(key[1:])] = o
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list outages: %w", err)
	}
	return out, nil
}
