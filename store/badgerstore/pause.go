package badgerstore

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// Pause implements store.Pauser.
func (s *Store) Pause(ctx context.Context, destination string, p store.Pause) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.use.RUnlock()
	if err := checkName(destination); err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	p.Reason = store.CutReason(p.Reason)
	note := sealed(pauseKey(destination), encodePause(p))
	size, count := cost(note)
	err := s.submit(ctx, &request{size: size, entries: count, stage: func(g *group) error {
		if g.short {
			return s.noSpace(s.reserve / 2)
		}
		// One that cannot be read is a pause too, see Paused.
		if kept, err := g.get(note.key); kept != nil || err != nil {
			return nil
		}
		g.put(note.key, note.value)
		return nil
	}})
	if err != nil {
		return fmt.Errorf("pause %q: %w", destination, err)
	}
	return nil
}

// Resume implements store.Pauser.
func (s *Store) Resume(ctx context.Context, destination string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.use.RUnlock()
	key := pauseKey(destination)
	size, count := cost(entry{key: key})
	err := s.submit(ctx, &request{size: size, entries: count, stage: func(g *group) error {
		if kept, err := g.get(key); kept != nil || err != nil {
			if g.none {
				return s.noSpace(bottom)
			}
			g.remove(key)
		}
		return nil
	}})
	if err != nil {
		return fmt.Errorf("resume %q: %w", destination, err)
	}
	return nil
}

// Paused implements store.Pauser. A destination whose note is damaged is paused.
func (s *Store) Paused(ctx context.Context) (map[string]store.Pause, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.use.RUnlock()
	paused := make(map[string]store.Pause)
	err := s.db.View(func(txn *view) error {
		var keys [][]byte
		scanKeys(txn, []byte{kindPause}, nil, func(key []byte) bool {
			keys = append(keys, append([]byte(nil), key...))
			return true
		})
		for _, key := range keys {
			content, err := get(txn, key)
			var p store.Pause
			if err == nil {
				p, err = decodePause(content)
			}
			if err != nil {
				s.log.Error("note of a pause cannot be read", zap.String("destination", string(key[1:])), zap.Error(err))
				p = store.Pause{Reason: "the note of why it is paused cannot be read"}
			}
			paused[string(key[1:])] = p
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list paused destinations: %w", err)
	}
	return paused, nil
}
