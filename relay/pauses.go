package relay

import (
	"context"
	"fmt"
	"sync"

	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/store"
)

// pauses changes the pause of a destination in the store and in its lane as one, so that they agree whenever nobody is
// at it: what people ask for and what a 410 causes take turns. Its methods may be called from several goroutines, and
// wait for one another only if they are about the same destination.
type pauses struct {
	Store   store.Pauser                        // required
	Lane    func(destination string) *lane.Lane // the one that runs for it now, or nil; required
	Notices *notices                            // nil tells nobody of pauses and their ends

	mu    sync.Mutex               // guards the field below
	turns map[string]chan struct{} // of capacity 1: full while somebody changes the pause of the destination
}

// turn waits for the turn to change the pause of a destination. The returned func ends it.
func (p *pauses) turn(ctx context.Context, destination string) (end func(), err error) {
	p.mu.Lock()
	if p.turns == nil {
		p.turns = map[string]chan struct{}{}
	}
	turn := p.turns[destination]
	if turn == nil {
		turn = make(chan struct{}, 1)
		p.turns[destination] = turn
	}
	p.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another change of the pause: %w", context.Cause(ctx))
	}
}

// Pause pauses a destination. One that is paused already keeps its note; a lane with a pause that is not kept yet has
// that kept instead. If the store returns an error, the lane goes on, unless it was paused before.
func (p *pauses) Pause(ctx context.Context, destination string, note store.Pause) error {
	end, err := p.turn(ctx, destination)
	if err != nil {
		return err
	}
	defer end()
	l := p.Lane(destination)
	if l == nil {
		return p.keep(ctx, destination, note)
	}
	before := l.Stats().Paused
	// The lane first: a 410 that comes while the store is written would put another note into it.
	l.Pause(note)
	if now := l.Stats().Paused; now != nil {
		note = *now
	}
	err = p.keep(ctx, destination, note)
	if err != nil && before == nil {
		l.Resume()
	}
	return err
}

// keep writes a pause to the store, and tells of it if there was none. The caller has the turn.
func (p *pauses) keep(ctx context.Context, destination string, note store.Pause) error {
	_, paused, err := p.kept(ctx, destination)
	if err == nil {
		err = p.Store.Pause(ctx, destination, note)
	}
	if err == nil && !paused && p.Notices != nil {
		p.Notices.paused(ctx, destination, note)
	}
	return err
}

// kept returns the pause of a destination that the store has, if it has one.
func (p *pauses) kept(ctx context.Context, destination string) (store.Pause, bool, error) {
	all, err := p.Store.Paused(ctx)
	if err != nil {
		return store.Pause{}, false, fmt.Errorf("read pauses: %w", err)
	}
	note, ok := all[destination]
	return note, ok, nil
}

// Resume ends the pause of a destination, if there is one. The lane stays paused if the store returns an error.
func (p *pauses) Resume(ctx context.Context, destination string) error {
	end, err := p.turn(ctx, destination)
	if err != nil {
		return err
	}
	defer end()
	note, paused, err := p.kept(ctx, destination)
	if err != nil {
		return err
	}
	if err := p.Store.Resume(ctx, destination); err != nil {
		return err
	}
	if l := p.Lane(destination); l != nil {
		l.Resume()
	}
	if paused && p.Notices != nil {
		p.Notices.resumed(ctx, destination, note)
	}
	return nil
}

// keeper returns what keeps the pauses that l itself begins.
func (p *pauses) keeper(l *lane.Lane) lane.Pauses { return keeper{pauses: p, lane: l} }

// keeper keeps the pauses of one lane.
type keeper struct {
	pauses *pauses
	lane   *lane.Lane
}

// Pause implements lane.Pauses. A pause that somebody has ended meanwhile is not written any more. If the lane is not
// the one that runs for the destination any more, and only ends what it has in flight, that one is paused too.
func (k keeper) Pause(ctx context.Context, destination string, _ store.Pause) error {
	end, err := k.pauses.turn(ctx, destination)
	if err != nil {
		return err
	}
	defer end()
	note := k.lane.Stats().Paused // the lane's own, which may be an earlier one
	if note == nil {
		return nil
	}
	if err := k.pauses.keep(ctx, destination, *note); err != nil {
		return err
	}
	if now := k.pauses.Lane(destination); now != nil && now != k.lane {
		now.Pause(*note)
	}
	return nil
}
