package relay

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/postern-relay/postern/relay/listen"
)

// Sockets are listeners that whoever started this process has opened, so that they stay open while Postern is restarted.
// Each takes the place of an address of the plan; nil ones are opened by that. The rules for addresses hold for them as
// well: one that other hosts can reach needs tokens. HTTPS is for a plan with listen.https only. Run closes them.
type Sockets struct {
	Ingest, Admin, HTTPS net.Listener
}

// ConfigError is an error of Run that another start would have as well, since the config does not suit the sockets or the
// machine: an address that other hosts can reach without tokens, a socket for a listener that is not in the config, a
// group that is not there.
type ConfigError = listen.ConfigError

// Phase is where a running relay is, for the one who supervises it.
type Phase uint8

// The phases, in the order in which they come. Serving and Reloading take turns.
const (
	Serving   Phase = iota + 1 // the listeners are open, and a plan is in force
	Reloading                  // the config is being read again; all goes on meanwhile
	Stopping                   // nothing new is accepted
)

var phaseNames = [...]string{Serving: "serving", Reloading: "reloading", Stopping: "stopping"}

func (p Phase) String() string {
	if p > 0 && int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("Phase(%d)", uint8(p))
}

// phases tells of the phases one after the other, and of none after Stopping.
type phases struct {
	mu   sync.Mutex // held while somebody is told; guards the field below
	over bool
}

// enter tells whoever wants to know of a phase.
func (r *Relay) enter(p Phase) {
	r.phases.mu.Lock()
	defer r.phases.mu.Unlock()
	if r.OnPhase == nil || r.phases.over {
		return
	}
	r.phases.over = p == Stopping
	r.OnPhase(p)
}

// Alive reports whether the relay still gets on: it asks the store and the lanes for something that takes their locks, so
// it does not return before they are free. It is for watchdogs; that a disk is full, or a receiver away, is no reason
// for an error. It may be called while Run does, from several goroutines.
func (r *Relay) Alive(ctx context.Context) error {
	if err := r.Store.Err(); err != nil {
		return err
	}
	if _, err := r.Store.PendingDestinations(ctx); err != nil {
		return fmt.Errorf("ask the store: %w", err)
	}
	r.lane("")
	return ctx.Err()
}
