package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

const (
	eventsType   = "text/event-stream"
	keepAlive    = 15 * time.Second // a comment, if nothing else was written for so long
	writeTimeout = 10 * time.Second // how long a client may take no bytes
)

// Names of the events of a stream.
const (
	EventDelivery    = "delivery"    // data is a Delivery
	EventDestination = "destination" // data is a Destination
	EventReload      = "reload"      // data is a Reload
	EventLagging     = "lagging"     // the client was too slow, and the stream ends; data is an empty object
)

// eventsQuery is the query of a stream.
type eventsQuery struct {
	// Destination whose changes are wanted; absent means all.
	Destination string `json:"destination,omitempty"`
}

// events answers with a stream of changes (HTML Living Standard, section 9.2, "Server-sent events"). Each event is read
// from the store when it is written, by itself: a client that is slow, or never reads, holds no transaction.
func (h *Handler) events(w http.ResponseWriter, r *http.Request, in input[eventsQuery, none]) error {
	if r.Method == http.MethodHead {
		setHeaders(w.Header(), eventsType)
		return nil
	}
	changes := h.Changes
	if changes == nil {
		changes = new(Changes)
	}
	s := changes.listen(in.Query.Destination)
	if s == nil {
		return problem.New(http.StatusServiceUnavailable, "there are %d streams already; close one", maxStreams).RetryAfter(5)
	}
	defer changes.end(s)
	setHeaders(w.Header(), eventsType)
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in between must not collect them
	out := &eventWriter{w: w, control: http.NewResponseController(w)}
	// The server's bound on reading a request would otherwise end the stream.
	if err := out.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("lift the read deadline: %w", err)
	}
	out.text("retry: 2000\n\n")
	if out.send() != nil {
		return nil // the client is gone
	}
	h.stream(r.Context(), s, out)
	return nil
}

// stream writes what changes until the client is gone or slow, or the relay stops.
func (h *Handler) stream(ctx context.Context, s *stream, out *eventWriter) {
	idle := time.NewTicker(keepAlive)
	defer idle.Stop()
	dirty := map[string]bool{} // destinations that are to be told
	flush := time.NewTimer(0)  // when they are
	<-flush.C
	defer flush.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.Stopping:
			return
		case <-s.signal:
			list, lagging := s.take()
			if lagging {
				out.event(EventLagging, none{})
				_ = out.send() // the stream ends either way
				return
			}
			waiting := len(dirty) > 0
			h.writeChanges(ctx, list, dirty, out)
			if !waiting && len(dirty) > 0 {
				flush.Reset(stateAge)
			}
		case <-flush.C:
			h.writeDestinations(ctx, dirty, out)
			clear(dirty)
		case <-idle.C:
			out.text(": keep-alive\n\n")
		}
		if out.buffer.Len() == 0 {
			continue
		}
		if out.send() != nil {
			return
		}
		idle.Reset(keepAlive)
	}
}

// writeChanges writes what can be told at once, and notes the destinations that are told once a second.
func (h *Handler) writeChanges(ctx context.Context, list []change, dirty map[string]bool, out *eventWriter) {
	for _, c := range list {
		switch {
		case c.key.destination != "":
			dirty[c.key.destination] = true
		case c.key.delivery != (store.DeliveryID{}):
			d := c.delivery
			if d == nil {
				found, err := h.Records.Delivery(ctx, c.key.delivery)
				if err != nil {
					continue // gone meanwhile, or the store is closing: there is nothing to tell
				}
				d = &found
			}
			out.event(EventDelivery, h.show(ctx, *d))
		default:
			if last := h.Reloads.LastReload(); last != nil {
				out.event(EventReload, last.normal())
			}
		}
	}
}

func (h *Handler) writeDestinations(ctx context.Context, dirty map[string]bool, out *eventWriter) {
	list, err := h.recent(ctx)
	if err != nil {
		return // as above; a client asks for the state when it needs it
	}
	for _, d := range list {
		if dirty[d.Name] {
			out.event(EventDestination, d)
		}
	}
}

// eventWriter collects events and sends them together.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	buffer  bytes.Buffer
}

func (o *eventWriter) text(s string) { o.buffer.WriteString(s) }

func (o *eventWriter) event(name string, data any) {
	encoded, err := json.Marshal(data) // one line: JSON escapes what would end it
	if err != nil {
		panic(err) // our own records always encode
	}
	fmt.Fprintf(&o.buffer, "event: %s\ndata: %s\n\n", name, encoded)
}

// send writes what is collected. It returns an error if the client does not take it in time.
func (o *eventWriter) send() error {
	defer o.buffer.Reset()
	if err := o.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := o.w.Write(o.buffer.Bytes()); err != nil {
		return err
	}
	return o.control.Flush()
}
