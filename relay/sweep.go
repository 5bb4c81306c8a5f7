package relay

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/store"
)

const (
	sweepEvery = time.Minute // how often the sweep looks for something to delete
	sweepBatch = 500         // messages a transaction: a sweep must not hold up the accepts for long
)

// sweeper deletes what has outlived the retention. It goes by the wall clock, and a clock that is set forward while it
// runs, by mistake or because it was wrong before, makes nothing older: what ended before such a step is deleted when the
// retention has really passed. One that is set back keeps everything for so much longer.
type sweeper struct {
	Store     store.Sweeper
	Retention func() time.Duration // asked for each sweep
	Now       func() time.Time
	Log       *zap.Logger
}

// Run sweeps at once and then every minute, until ctx ends. A sweep that fails is logged and tried again at the next
// interval.
func (s *sweeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	var steps lane.Steps
	for {
		now := s.Now()
		if by := steps.Look(now, time.Now()); by != 0 {
			s.Log.Warn("clock set", zap.Duration("by_seconds", by))
		}
		before := now.Add(-s.Retention())
		s.sweep(ctx, before.Add(-steps.Since(before)))
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
