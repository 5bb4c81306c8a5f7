package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/admin/dashboard"
	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// api is what the admin API may ask of a running relay. Its destinations are those of steering, with what the lanes and
// the config know beyond that.
type api struct{ steering }

// shown is what may be shown of a destination's config.
type shown struct {
	url    string
	config json.RawMessage
}

var (
	_ admin.Steering         = api{}
	_ admin.DeliverySteering = api{}
	_ admin.Trials           = api{}
)

// handler returns what answers on the admin listener.
func (a api) handler() *admin.Handler {
	return &admin.Handler{
		Full: a.full, HTTPS: a.httpsTrouble, Records: a.Store, Steering: a, Deliveries: a, Trials: a, Reloads: reloader{a.Relay},
		Backups:  a.Backups,
		Activity: a.activity, Changes: a.changes, Config: a.config, Redact: a.redact, Nearest: config.Nearest,
		Dashboard: dashboard.Handler(), Metrics: a.metrics.handler(), Stopping: a.stopping, Version: a.Version, StartedAt: a.Now(), Now: a.Now,
		Log: a.Log.Named("admin"),
	}
}

// showDestinations returns what may be shown of each destination of a config. A text that a reference stands for is
// masked in it, also where it is a URL, since there are receivers whose URL is the secret. There are no fingerprints in it: more
// people see the history than may read the config file.
func showDestinations(cfg *config.Config) (map[string]shown, error) {
	masked, err := cfg.MaskedJSON(config.Form{})
	if err != nil {
		return nil, err
	}
	var whole struct {
		Destinations map[string]json.RawMessage `json:"destinations"`
	}
	if err := json.Unmarshal(masked, &whole); err != nil {
		return nil, fmt.Errorf("read masked config: %w", err)
	}
	out := make(map[string]shown, len(whole.Destinations))
	for name, raw := range whole.Destinations {
		var d struct {
			URL string `json:"url"`
		}
		if err := json.Unmarshal(raw, &d); err != nil {
			return nil, fmt.Errorf("read masked config of %q: %w", name, err)
		}
		out[name] = shown{url: d.URL, config: raw}
	}
	return out, nil
}

// Destinations implements admin.Steering.
func (a api) Destinations(ctx context.Context) ([]admin.Destination, error) {
	list, err := a.steering.Destinations(ctx)
	if err != nil {
		return nil, err
	}
	plan := a.plan.Load()
	for i := range list {
		d := &list[i]
		d.URL = plan.shown[d.Name].url
		if l := a.lane(d.Name); l != nil {
			stats := l.Stats()
			d.ConcurrencyLimit = stats.Limit
			d.BreakerOpenSince, d.NextProbeAt, d.HeldUntil = stats.OpenSince, stats.NextProbe, stats.HeldUntil
		}
	}
	return list, nil
}

// config is for admin.Handler.Config.
func (a api) config(name string) (json.RawMessage, error) {
	if s, ok := a.plan.Load().shown[name]; ok {
		return s.config, nil
	}
	return json.RawMessage("null"), nil
}

// redact is for admin.Handler.Redact: what one destination's config masks in the history is masked in the message.
func (a api) redact(m store.Message, body []byte) []byte { return a.plan.Load().redacted(m, body) }

// Replay implements admin.DeliverySteering.
func (a api) Replay(ctx context.Context, id store.DeliveryID) (store.Delivery, error) {
	before, err := a.Store.Delivery(ctx, id)
	if err != nil {
		return store.Delivery{}, err
	}
	d, err := a.Store.Replay(ctx, id, a.instant())
	if err != nil {
		return store.Delivery{}, err
	}
	a.moved(before, d)
	return d, nil
}

// Cancel implements admin.DeliverySteering.
func (a api) Cancel(ctx context.Context, id store.DeliveryID, reason string) (store.Delivery, error) {
	before, err := a.Store.Delivery(ctx, id)
	if err != nil {
		return store.Delivery{}, err
	}
	d, released, err := a.Store.Cancel(ctx, id, a.instant(), reason)
	if err != nil {
		return store.Delivery{}, err
	}
	a.moved(before, d)
	if released.ID != (store.DeliveryID{}) {
		a.wake(released.Destination, released.Cursor())
	}
	a.metrics.canceled(before, d)
	a.watches.observe(before, d, store.Attempt{})
	a.reduce(ctx, d)
	return d, nil
}

// Retry implements admin.DeliverySteering.
func (a api) Retry(ctx context.Context, id store.DeliveryID) (store.Delivery, error) {
	before, err := a.Store.Delivery(ctx, id)
	if err != nil {
		return store.Delivery{}, err
	}
	d, err := a.Store.Expedite(ctx, id, a.instant())
	if err != nil {
		return store.Delivery{}, err
	}
	a.moved(before, d)
	return d, nil
}

// moved tells the lane of a delivery that it is no longer where it was in the queue, and where it is now.
func (a api) moved(before, after store.Delivery) {
	if !before.State.Ended() {
		a.wake(before.Destination, before.Cursor())
		if before.Order != "" {
			if l := a.lane(before.Destination); l != nil {
				l.WakeAll() // the head of the line may be another one
			}
		}
	}
	if !after.State.Ended() {
		a.wake(after.Destination, after.Cursor())
	}
}

// instant is the time of a change that a person asks for.
func (a api) instant() time.Time { return a.Now().UTC().Truncate(time.Millisecond) }

// Held implements admin.DeliverySteering.
func (a api) Held(ctx context.Context, d store.Delivery) admin.Held {
	if d.State.Ended() {
		return ""
	}
	to, ok := a.plan.Load().destinations[d.Destination]
	switch {
	case !ok:
		return admin.HeldNotInConfig
	case !to.enabled:
		return admin.HeldDisabled
	}
	if l := a.lane(d.Destination); l != nil {
		switch stats := l.Stats(); {
		case stats.Paused != nil:
			return admin.HeldPaused
		case stats.Breaker != lane.BreakerClosed:
			return admin.HeldBreaker
		}
	}
	if d.Order != "" && !a.first(ctx, d) {
		return admin.HeldOrder
	}
	return ""
}

// first reports whether a pending delivery is the head of its line: only that one is in the queue.
func (a api) first(ctx context.Context, d store.Delivery) bool {
	before := d.Cursor()
	for i := len(before.ID) - 1; i >= 0; i-- { // the place just before it
		before.ID[i]--
		if before.ID[i] != 0xff {
			break
		}
	}
	found, err := a.Store.Due(ctx, d.Destination, before, 1)
	return err != nil || len(found) == 1 && found[0].ID == d.ID
}

// sender returns what makes the requests of a destination, and the func to call when it is not used any more.
func (a api) sender(name string) (s *egress.Sender, done func(), err error) {
	if err := a.known(name); err != nil {
		return nil, nil, err
	}
	out := a.outlet(name)
	if out == nil {
		return nil, nil, problem.New(http.StatusConflict, "the destination %q is not enabled; set enabled: true in its config first", name)
	}
	s, ok := out.sender.(*egress.Sender)
	if !ok {
		panic(fmt.Sprintf("relay: the sender of %q is a %T", name, out.sender))
	}
	out.begin()
	return s, out.sent, nil
}

// Test implements admin.Trials.
func (a api) Test(ctx context.Context, m store.Message, body []byte) (store.Attempt, store.State, error) {
	name := m.Recipients[0].Destination
	s, done, err := a.sender(name)
	if err != nil {
		return store.Attempt{}, 0, err
	}
	defer done()
	var retry lane.Schedule
	if d := a.plan.Load().destinations[name]; d != nil { // else it is gone meanwhile
		retry = d.retry
	}
	at := s.Test(ctx, m, body)
	return at, afterFirst(at, retry), nil
}

// afterFirst returns the state of a delivery after its first attempt; see the table in package lane.
func afterFirst(at store.Attempt, retry lane.Schedule) store.State {
	switch {
	case at.Class == store.ClassOK:
		return store.Delivered
	case at.Class == store.ClassInterrupted:
		return store.Pending
	case at.Class == store.ClassBlocked, at.Class == store.ClassRender, at.Class == store.ClassStatus && at.Status == http.StatusGone,
		retry.Attempts() <= 1:
		return store.Failed
	}
	return store.Pending
}

// Render implements admin.Trials.
func (a api) Render(ctx context.Context, m store.Message, body []byte) (admin.Rendering, error) {
	s, done, err := a.sender(m.Recipients[0].Destination)
	if err != nil {
		return admin.Rendering{}, err
	}
	defer done()
	r, err := s.Render(ctx, m, body)
	return rendering(r, err)
}

// RenderDelivery implements admin.Trials.
func (a api) RenderDelivery(ctx context.Context, d store.Delivery) (admin.Rendering, error) {
	s, done, err := a.sender(d.Destination)
	if err != nil {
		return admin.Rendering{}, err
	}
	defer done()
	r, err := s.RenderDelivery(ctx, d)
	return rendering(r, err)
}

func rendering(r egress.Rendered, err error) (admin.Rendering, error) {
	if option, ok := errors.AsType[*egress.OptionError](err); ok {
		return admin.Rendering{}, &admin.RenderError{Err: option}
	}
	if err != nil {
		return admin.Rendering{}, err
	}
	out := admin.Rendering{Request: r.Request, Curl: r.Curl, BodyFile: r.BodyFile}
	for _, b := range r.Bases {
		out.Bases = append(out.Bases, admin.SignedBase{Signer: b.Signer, Base: b.Base})
	}
	return out, nil
}
