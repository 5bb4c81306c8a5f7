package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	maxEventBytes = 1 << 20
	reconnectWait = 2 * time.Second
	silence       = 4 * keepAlive // without a byte for so long, a stream is taken for dead
)

// Event is one event of a stream. Name says which field is set.
type Event struct {
	Name        string // EventDelivery, EventDestination, EventReload, EventConnected or EventDisconnected
	Delivery    *Delivery
	Destination *Destination
	Reload      *Reload
	Reason      string // of EventDisconnected: why the stream has ended, for a person
}

// Names of the events that Events makes itself. What changes while there is no stream is not told.
const (
	EventConnected    = "connected"    // a stream begins, for the first time or again
	EventDisconnected = "disconnected" // it has ended, and will be opened again
)

var (
	errSilent  = errors.New("the stream is silent")
	errEnded   = errors.New("the relay has ended the stream")
	errLagging = errors.New("the relay has ended the stream, which was not read fast enough")
)

// Events returns what changes at a destination, or at all if it is empty, until ctx ends or the caller breaks off. A
// stream that ends is opened again after 2 s. An error is yielded where the first stream does not open, and where the
// relay refuses one; it is the last event then.
func (c Client) Events(ctx context.Context, destination string) iter.Seq2[Event, error] {
	path := eventsPath
	if destination != "" {
		path += "?destination=" + url.QueryEscape(destination)
	}
	return func(yield func(Event, error) bool) {
		for ever, connected := false, false; ; {
			err := c.follow(ctx, path, func(e Event) bool {
				ever, connected = true, true
				return yield(e, nil)
			})
			_, refusedIt := errors.AsType[*Refusal](err)
			switch {
			case errors.Is(err, errBroken), ctx.Err() != nil:
				return
			case !ever || refusedIt:
				yield(Event{}, fmt.Errorf("follow events of %s: %w", c.Address, err))
				return
			case connected && !yield(Event{Name: EventDisconnected, Reason: err.Error()}, nil):
				return
			}
			connected = false
			wait := time.NewTimer(reconnectWait)
			select {
			case <-ctx.Done():
				wait.Stop()
				return
			case <-wait.C:
			}
		}
	}
}

// errBroken says that the caller wants no more events.
var errBroken = errors.New("broken off")

// follow reads one stream to its end.
func (c Client) follow(ctx context.Context, path string, yield func(Event) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watch.Stop()
	resp, err := c.open(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), eventsType) {
		answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes))
		if err != nil {
			return failure(ctx, err)
		}
		return refusal(resp.StatusCode, answer)
	}
	if !yield(Event{Name: EventConnected}) {
		return errBroken
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEventBytes)
	var name, data string
	for lines.Scan() {
		watch.Reset(silence)
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "data":
			data = value // the relay writes one line for an event
		case "":
			if lines.Text() != "" {
				continue // a comment
			}
			if name == EventLagging {
				return errLagging
			}
			if e, ok := newEvent(name, data); ok && !yield(e) {
				return errBroken
			}
			name, data = "", ""
		}
	}
	if err := lines.Err(); err != nil {
		return failure(ctx, err)
	}
	return errEnded
}

// newEvent decodes an event. One that is not known, or is not what it says, is left out: a newer relay may tell more.
func newEvent(name, data string) (Event, bool) {
	e := Event{Name: name}
	var into any
	switch name {
	case EventDelivery:
		e.Delivery = new(Delivery)
		into = e.Delivery
	case EventDestination:
		e.Destination = new(Destination)
		into = e.Destination
	case EventReload:
		e.Reload = new(Reload)
		into = e.Reload
	default:
		return e, false
	}
	return e, json.Unmarshal([]byte(data), into) == nil
}
