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

// releaseAtOnce is how many lines are let go in one transaction.
const releaseAtOnce = 500

// steering is what the admin listener may ask of a running relay.
type steering struct{ *Relay }

var _ admin.Steering = steering{}

// Destinations implements admin.Steering.
func (s steering) Destinations(ctx context.Context) ([]admin.Destination, error) {
	paused, err := s.Store.Paused(ctx)
	if err != nil {
		return nil, fmt.Errorf("read pauses: %w", err)
	}
	list := make([]admin.Destination, 0, len(s.Plan.names))
	for _, name := range s.Plan.names {
		d := s.Plan.destinations[name]
		state := admin.Destination{Name: name, Enabled: d.enabled}
		if p, ok := paused[name]; ok {
			state.Pause = &admin.Pause{At: p.At, Reason: p.Reason}
		}
		if l := s.lanes[name]; l != nil {
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
	if _, ok := s.Plan.destinations[name]; !ok {
		return &admin.UnknownError{Name: name, Nearest: config.Nearest(name, s.Plan.names)}
	}
	return nil
}

// release lets go what waits behind failed deliveries of destinations that do not block on failure, or no longer do.
// What cannot be released now is at the next start.
func (r *Relay) release(ctx context.Context) {
	for _, name := range r.Plan.names {
		if r.Plan.destinations[name].blockOnFailure {
			continue
		}
		for n := 1; n > 0; {
			var err error
			if n, err = r.Store.Release(ctx, name, releaseAtOnce); err != nil {
				r.Log.Warn("blocked lines not released", zap.String("destination", name), zap.Error(err))
				break
			}
			if n > 0 {
				r.Log.Info("blocked lines released", zap.String("destination", name), zap.Int("lines", n))
			}
		}
	}
}
