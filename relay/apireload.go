package relay

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/relay/problem"
)

// reloader is what the admin API may ask of a running relay about its config.
type reloader struct{ relay *Relay }

var _ admin.Reloader = reloader{}

// Reload implements admin.Reloader.
func (r reloader) Reload(ctx context.Context) (admin.Reload, error) {
	err := r.relay.Reload(ctx)
	var faults config.ErrorList
	switch {
	case err == nil:
		return shownReload(r.relay.LastReload()), nil
	case errors.Is(err, errStopping):
		return admin.Reload{}, problem.New(http.StatusServiceUnavailable, "Postern is stopping; try again after the next start")
	case errors.As(err, &faults) && len(faults) > 0:
		refused := &admin.ReloadError{}
		for _, f := range faults {
			refused.Faults = append(refused.Faults, admin.ConfigFault{
				File: f.File, Line: f.Line, Column: f.Col, Path: f.Path, Message: f.Msg,
			})
		}
		return admin.Reload{}, refused
	}
	// The file cannot be read, or one that it names.
	file := ""
	if plan := r.relay.plan.Load(); plan != nil {
		file = plan.origin.path
	}
	return admin.Reload{}, &admin.ReloadError{Faults: []admin.ConfigFault{{File: file, Message: err.Error()}}}
}

// LastReload implements admin.Reloader.
func (r reloader) LastReload() *admin.Reload {
	last := r.relay.LastReload()
	if last.At.IsZero() {
		return nil
	}
	shown := shownReload(last)
	return &shown
}

// shownReload returns what came of a reload as the API shows it.
func shownReload(r Reloaded) admin.Reload {
	out := admin.Reload{At: r.At, OK: r.Err == nil, RestartNeeded: r.NeedRestart}
	if r.Err != nil {
		out.Error = r.Err.Error()
	}
	for _, name := range slices.Concat(r.Added, r.Removed, r.Changed) {
		out.Changed = append(out.Changed, "destinations."+name)
	}
	slices.Sort(out.Changed)
	out.Changed = append(out.Changed, r.Settings...)
	return out
}
