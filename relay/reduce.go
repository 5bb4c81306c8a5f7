package relay

import (
	"bytes"
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

// reduceTimeout bounds the reduction of one message, also beyond a stop.
const reduceTimeout = 10 * time.Second

// reduces reports whether the history keeps messages to this destination other than as they were posted.
func (d *destination) reduces() bool { return d.egress.OmitBody || len(d.egress.Redact) > 0 }

// reduce takes from a message what is not to be kept of it, once all its deliveries have ended; one of them just has.
// Of several destinations each has its say: what one does not want kept is gone.
//
// It is done when a delivery ends and at no other time. Should the store fail then, the log says so, and the body stays
// until the next round of the message has ended, or it is swept.
func (r *Relay) reduce(ctx context.Context, d store.Delivery) {
	plan := r.plan.Load()
	if !plan.reduces || !d.State.Ended() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reduceTimeout)
	defer cancel()
	m, body, err := r.Store.Load(ctx, d.ID.Message())
	if err == nil && !m.Reduced {
		if rest, less := plan.reduced(m, body); less {
			err = r.Store.Reduce(ctx, m.ID, rest)
		}
	}
	// ErrStale: another delivery is pending, and will come here when it has ended.
	if err != nil && !errors.Is(err, store.ErrStale) && !errors.Is(err, store.ErrNotFound) {
		r.Log.Warn("message not reduced", zap.Stringer("message_id", d.ID.Message()), zap.String("destination", d.Destination),
			zap.Error(err), zap.String("reason", "its body is kept longer than keep says"))
	}
}

// reduced returns what the history keeps of a body, and whether that is less than all.
func (p *Plan) reduced(m store.Message, body []byte) (rest []byte, less bool) {
	for _, to := range m.Recipients {
		if d := p.destinations[to.Destination]; d != nil && d.egress.OmitBody {
			return nil, len(body) > 0
		}
	}
	rest = p.redacted(m, body)
	switch {
	case bytes.Equal(rest, body):
		return nil, false
	case len(rest) > store.MaxReduced:
		return nil, true // rather none of it than what was not to be kept
	}
	return rest, true
}

// redacted returns a body with *** for what one of its message's destinations does not want kept. It may return body
// itself, and never changes it.
func (p *Plan) redacted(m store.Message, body []byte) []byte {
	for _, to := range m.Recipients {
		if d := p.destinations[to.Destination]; d != nil && len(d.egress.Redact) > 0 {
			body, _ = match.RedactJSON(body, d.egress.Redact)
		}
	}
	return body
}
