package relay

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
)

// steering is what the admin listener may ask of a running relay.
type steering struct{ *Relay }

var _ admin.Steering = steering{}

// Destinations implements admin.Steering.
func (s steering) Destinations(ctx context.Context) ([]admin.Destination, error) {
	paused, err := s.Store.Paused(ctx)
	if err != nil {
		return nil, fmt.Errorf("read pauses: %w", err)
	}
	plan := s.plan.Load()
	list := make([]admin.Destination, 0, len(plan.names))
	for _, name := range plan.names {
		d := plan.destinations[name]
		state := admin.Destination{Name: name, Enabled: d.enabled}
		if p, ok := paused[name]; ok {
			state.Pause = &admin.Pause{At: p.At, Reason: p.Reason}
		}
		if l := s.lane(name); l != nil {
			stats := l.Stats()
			state.InFlight, state.Due = stats.InFlight, stats.Due
			if d.breaker.Failures > 0 {
				state.Breaker = stats.Breaker.String()
			}
			if p := stats.Paused; p != nil { // the lane knows first
				state.Pause = &admin.Pause{At: p.At, Reason: p.Reason}
			}
		}
		list = append(list, state)
	}
	return list, nil
}

// Pause implements admin.Steering.
func (s steering) Pause(ctx context.Context, name, reason string) error {
	if err := s.known(name); err != nil {
		return err
	}
	p := store.Pause{At: s.Now().UTC().Truncate(time.Millisecond), Reason: reason}
	if err := s.pauses.Pause(ctx, name, p); err != nil {
		return fmt.Errorf("keep pause of %q: %w", name, err)
	}
	s.Log.Info("destination paused", zap.String("destination", name), zap.String("reason", reason))
	return nil
}

// Resume implements admin.Steering.
func (s steering) Resume(ctx context.Context, name string) error {
	if err := s.known(name); err != nil {
		return err
	}
	if err := s.pauses.Resume(ctx, name); err != nil {
		return fmt.Errorf("end pause of %q: %w", name, err)
	}
	s.Log.Info("destination resumed", zap.String("destination", name))
	return nil
}

func (s steering) known(name string) error {
	plan := s.plan.Load()
	if _, ok := plan.destinations[name]; !ok {
		return &admin.UnknownError{Name: name, Nearest: config.Nearest(name, plan.names)}
	}
	return nil
}
