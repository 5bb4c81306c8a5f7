package relay

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-relay/postern/config"
)

// Reloaded is what came of one reload. What it names is sorted, and not to be changed.
type Reloaded struct {
	At  time.Time // zero if there was none yet
	Err error     // why it was refused, a config.ErrorList for a wrong config; nil if it is in force. Holds no secret

	Added, Removed, Changed []string // names of destinations
	Settings                []string // keys outside of destinations whose new values are in force
	NeedRestart             []string // keys whose values in force are not those of the config

	same bool // the config says what it said before
}

// trigger is what a reload is caused by.
type trigger string

const (
	byRequest trigger = "request"
	bySignal  trigger = "signal"
	byFile    trigger = "file"
)

// Reload reads the config that Plan was loaded from again, with its secret files, and puts it in force: all of it, or
// nothing if there is a fault, which is a config.ErrorList then. What came of it is logged, and kept for LastReload.
//
// Messages are routed by one plan each. A destination whose config stays the same goes on untouched. Of one that has
// changed, or is gone or not enabled any more, attempts in flight end by the earlier config in their own time, and
// Reload does not wait for them. It returns an error also when Run has not begun or a stop has. It may be called from
// several goroutines; they take turns.
func (r *Relay) Reload(ctx context.Context) error { return r.reload(ctx, byRequest) }

// LastReload returns what came of the latest reload that changed something, was asked for or was refused.
func (r *Relay) LastReload() Reloaded {
	r.reloads.mu.Lock()
	defer r.reloads.mu.Unlock()
	return r.reloads.last
}

// Destinations returns how many there are by the plan in force, 0 before Run.
func (r *Relay) Destinations() int {
	p := r.plan.Load()
	if p == nil {
		return 0
	}
	return len(p.destinations)
}

func (r *Relay) reload(ctx context.Context, by trigger) error {
	r.reloads.turn.Lock()
	defer r.reloads.turn.Unlock()
	before := r.plan.Load()
	switch {
	case before == nil:
		return errors.New("reload: not running yet")
	case before.origin.path == "":
		return errors.New("reload: the config does not come from a file")
	case r.draining.Load():
		return errStopping
	}
	r.enter(Reloading)
	defer r.enter(Serving)
	start := time.Now()
	outcome, after, err := r.replace(ctx, before)
	if errors.Is(err, errStopping) || r.draining.Load() {
		return errStopping
	}
	outcome.At, outcome.Err = r.Now(), err
	last := r.LastReload()
	if by == byFile && sameOutcome(last, outcome) {
		r.Log.Debug("config is as before", zap.Bool("ok", err == nil))
		return err
	}
	r.reloads.mu.Lock()
	r.reloads.last = outcome
	r.reloads.mu.Unlock()
	r.metrics.reloaded(outcome)
	r.changes.Reload()
	if err == nil {
		r.activity.Keep(func(name string) bool { return after.destinations[name] != nil })
	}
	r.logReload(ctx, by, before, after, outcome, time.Since(start))
	return err
}

// sameOutcome reports whether there is nothing to say about a reload after another one.
func sameOutcome(last, now Reloaded) bool {
	if last.Err != nil && now.Err != nil {
		return last.Err.Error() == now.Err.Error()
	}
	return last.Err == nil && now.Err == nil && now.same && slices.Equal(last.NeedRestart, now.NeedRestart)
}

// replace puts what the config says now in force.
func (r *Relay) replace(ctx context.Context, before *Plan) (Reloaded, *Plan, error) {
	after, files, err := before.origin.load()
	r.reloads.mu.Lock()
	r.reloads.files = files
	r.reloads.mu.Unlock()
	if err != nil {
		return Reloaded{}, nil, err
	}
	h, err := r.prepare(ctx, after)
	if err != nil {
		return Reloaded{}, nil, err
	}
	if err := r.handOver(h); err != nil {
		return Reloaded{}, nil, err
	}
	outcome := compare(before.config, after.config)
	outcome.same = len(outcome.Added)+len(outcome.Removed)+len(outcome.Changed)+len(outcome.Settings) == 0
	refused := r.adopt(after)
	outcome.NeedRestart = append(r.needRestart(after.config), refused...)
	slices.Sort(outcome.NeedRestart)
	outcome.Settings = slices.DeleteFunc(outcome.Settings, func(key string) bool { return slices.Contains(outcome.NeedRestart, key) })
	r.releaseLater(before, after)
	return outcome, after, nil
}

// adopt puts the settings in force that are no part of a handover. It returns the keys that cannot be.
func (r *Relay) adopt(p *Plan) (refused []string) {
	refused = r.adoptTokens(p)
	r.traces.use(p.tracing)
	if r.Level != nil {
		if level, err := zapcore.ParseLevel(p.config.Log.Level); err == nil { // the config knows no other
			r.Level.SetLevel(level)
		}
	}
	return refused
}

// setting is one key outside of destinations with its value.
type setting struct {
	key   string
	value any
	fixed bool // from start to stop
}

// settings returns all of them. What egress says is a matter of every destination's lane.
func settings(c *config.Config) []setting {
	return []setting{
		{"listen.ingest", c.Listen.Ingest, true},
		{"listen.accepted_status", c.Listen.AcceptedStatus, false},
		{"listen.admin", c.Listen.Admin, true},
		{"listen.max_body", c.Listen.MaxBody, false},
		{"listen.tokens", c.Listen.Tokens, false},
		{"listen.admin_tokens", c.Listen.AdminTokens, false},
		{"listen.socket_mode", c.Listen.SocketMode, true},
		{"listen.socket_group", c.Listen.SocketGroup, true},
		{"listen.https", c.Listen.HTTPS, true},
		{"store.path", c.Store.Path, true},
		{"store.retention", c.Store.Retention, false},
		{"store.min_free", c.Store.MinFree, true},
		{"store.max_pending", c.Store.MaxPending, true},
		{"store.encryption_key", c.Store.EncryptionKey, true},
		{"log.format", c.Log.Format, true},
		{"log.level", c.Log.Level, false},
		{"tracing.otlp_endpoint", c.Tracing.OTLPEndpoint, false},
		{"tracing.headers", c.Tracing.Headers, false},
		{"tracing.sample_ratio", c.Tracing.SampleRatio, false},
		{"egress.user_agent", c.Egress.UserAgent, false},
		{"egress.proxy", c.Egress.Proxy, false},
		{"egress.deny_networks", c.Egress.DenyNetworks, false},
		{"egress.resolve", c.Egress.Resolve, false},
	}
}

// differing returns the keys of two lists of settings whose values are not the same, sorted.
func differing(a, b []setting) []string {
	var keys []string
	for i := range a {
		if !reflect.DeepEqual(a[i].value, b[i].value) {
			keys = append(keys, a[i].key)
		}
	}
	slices.Sort(keys)
	return keys
}

// compare says what is new in a config.
func compare(before, after *config.Config) Reloaded {
	out := Reloaded{Settings: differing(settings(before), settings(after))}
	for _, name := range slices.Sorted(maps.Keys(after.Destinations)) {
		switch earlier, ok := before.Destinations[name]; {
		case !ok:
			out.Added = append(out.Added, name)
		case !reflect.DeepEqual(earlier, after.Destinations[name]):
			out.Changed = append(out.Changed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before.Destinations)) {
		if _, ok := after.Destinations[name]; !ok {
			out.Removed = append(out.Removed, name)
		}
	}
	return out
}

// needRestart returns the fixed keys whose values are not those that the relay was started with.
func (r *Relay) needRestart(c *config.Config) []string {
	fixed := func(c *config.Config) []setting {
		return slices.DeleteFunc(settings(c), func(s setting) bool {
			return !s.fixed && (s.key != "log.level" || r.Level != nil)
		})
	}
	return differing(fixed(r.Plan.config), fixed(c))
}

// logReload writes the line of a reload, and what an operator should look at.
func (r *Relay) logReload(ctx context.Context, by trigger, before, after *Plan, l Reloaded, took time.Duration) {
	if l.Err != nil {
		faults := []string{l.Err.Error()}
		var list config.ErrorList
		if errors.As(l.Err, &list) {
			faults = faults[:0]
			for _, fault := range list {
				faults = append(faults, fault.Error())
			}
		}
		r.Log.Warn("config not reloaded, the earlier one stays in force", zap.String("trigger", string(by)), zap.Strings("faults", faults))
		return
	}
	r.Log.Info("config reloaded", zap.String("trigger", string(by)), zap.Strings("added", l.Added), zap.Strings("removed", l.Removed),
		zap.Strings("changed", l.Changed), zap.Strings("settings", l.Settings), zap.Duration("took_seconds", took))
	if len(l.NeedRestart) > 0 {
		r.Log.Warn("restart needed", zap.Strings("keys", l.NeedRestart),
			zap.String("reason", "these keys of the config cannot change in a running relay"))
	}
	known := map[string]bool{}
	for _, w := range before.config.Warnings() {
		known[w.Error()] = true
	}
	for _, w := range after.config.Warnings() {
		if !known[w.Error()] {
			r.Log.Warn("config", zap.String("place", w.File), zap.Int("line", w.Line), zap.String("reason", w.Msg))
		}
	}
	if after.connections.Wanted != before.connections.Wanted {
		r.logCut(after)
	}
	r.logHeld(ctx, after, func(name string) bool {
		d := before.destinations[name]
		return d != nil && d.enabled
	})
}

// files returns what the latest outcome depends on.
func (r *Relay) files() []string {
	r.reloads.mu.Lock()
	defer r.reloads.mu.Unlock()
	if r.reloads.files == nil {
		return append(filesOf(r.Plan.config), r.Plan.origin.path)
	}
	return r.reloads.files
}

// obey reloads at each hangup until ctx ends.
func (r *Relay) obey(ctx context.Context) error {
	hangups := r.Hangups
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-hangups:
			if !ok {
				hangups = nil // no more will come, and all else goes on
				continue
			}
			_ = r.reload(ctx, bySignal) // the log says what came of it
		}
	}
}
