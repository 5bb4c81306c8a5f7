package relay

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

const (
	sweepEvery = time.Minute // how often the sweep looks for something to delete
	sweepBatch = 500         // messages a transaction: a sweep must not hold up the accepts for long
)

// sweeper deletes what has outlived the retention. A step of the wall clock moves what it may delete, so after a jump forwards of
// more than its own interval it waits for a further interval: a clock that was wrong for a moment deletes nothing.
type sweeper struct {
	Store     store.Sweeper
	Retention time.Duration
	Now       func() time.Time
	Log       *zap.Logger
}

// Run sweeps until ctx ends. A sweep that fails is logged and tried again at the next interval.
func (s *sweeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	last := s.Now()
	for {
		now := s.Now()
		if now.Sub(last) <= 2*sweepEvery {
			s.sweep(ctx, now.Add(-s.Retention))
		} else {
			s.Log.Warn("sweep put off", zap.String("reason", "the clock has jumped"), zap.Duration("by_seconds", now.Sub(last)))
		}
		last = now
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (s *sweeper) sweep(ctx context.Context, before time.Time) {
	start, total := s.Now(), 0
	for ctx.Err() == nil {
		deleted, more, err := s.Store.Sweep(ctx, before, sweepBatch)
		total += deleted
		if err != nil {
			if ctx.Err() == nil {
				s.Log.Warn("sweep ended early", zap.Error(err))
			}
			return
		}
		if !more {
			break
		}
	}
	if total > 0 {
		s.Log.Info("swept", zap.Int("messages", total), zap.Duration("took_seconds", s.Now().Sub(start)))
	}
}
