package relay

import (
	"context"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// releaseAtOnce is how many lines are let go in one transaction.
const releaseAtOnce = 500

// release lets go what waits behind failed deliveries of a destination, unless it blocks on failure or is not in the
// plan. What cannot be released now is at the next start.
func (r *Relay) release(ctx context.Context, name string) {
	for n := 1; n > 0; {
		if d := r.plan.Load().destinations[name]; d == nil || d.blockOnFailure {
			return
		}
		var err error
		if n, err = r.Store.Release(ctx, name, releaseAtOnce); err != nil {
			if ctx.Err() == nil {
				r.Log.Warn("blocked lines not released", zap.String("destination", name), zap.Error(err))
			}
			return
		}
		if n > 0 {
			r.Log.Info("blocked lines released", zap.String("destination", name), zap.Int("lines", n))
			if l := r.lane(name); l != nil {
				l.WakeAll()
			}
		}
	}
}

// releaseLater releases, beside what goes on, the lines of the destinations that do not block any more by another plan,
// which is in force already.
func (r *Relay) releaseLater(before, after *Plan) {
	var names []string
	for _, name := range after.names {
		if earlier := before.destinations[name]; !after.destinations[name].blockOnFailure && (earlier == nil || earlier.blockOnFailure) {
			names = append(names, name)
		}
	}
	r.lanes.mu.RLock()
	defer r.lanes.mu.RUnlock()
	part := r.lanes.part
	if len(names) == 0 || part == nil {
		return
	}
	part.group.Go(func() error {
		for _, name := range names {
			r.release(part.ctx, name)
		}
		return nil
	})
}

// observe is told of each attempt that is on record; ctx is that of the lanes. One that was begun while its destination
// blocked on failure may end when it does so no more, and nobody else would let go what stands behind it.
func (r *Relay) observe(ctx context.Context, before, after store.Delivery, a store.Attempt) {
	r.watches.observe(before, after, a)
	r.activity.Observe(before, after, a)
	r.changes.Observe(before, after, a)
	r.reduce(ctx, after)
	if after.Blocking {
		r.release(ctx, after.Destination)
	}
}
