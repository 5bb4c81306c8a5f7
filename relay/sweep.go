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

// sweeper deletes what has outlived the retention. It goes by the wall clock, so a clock that is set forward by
// mistake would delete what is not old: after such a step it waits for a further interval, in which the mistake can
// be mended.
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
	var steps stepWatch
	for {
		now := s.Now()
		if by := steps.since(now, time.Now()); by > sweepEvery {
			s.Log.Warn("sweep put off", zap.String("reason", "the clock has been set forward"), zap.Duration("by_seconds", by))
		} else {
			s.sweep(ctx, now.Add(-s.Retention()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// stepWatch notices steps of the wall clock: what it has gone forward beyond the time that has really passed.
type stepWatch struct {
	wall, real time.Time
}

// since returns the size of the step since the last call, and 0 for the first. real has a monotonic reading, as
// time.Now returns it; that of wall is not looked at, for with it a step does not show.
func (w *stepWatch) since(wall, real time.Time) time.Duration {
	wall = wall.Round(0)
	var step time.Duration
	if !w.wall.IsZero() {
		step = wall.Sub(w.wall) - real.Sub(w.real)
	}
	w.wall, w.real = wall, real
	return step
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
