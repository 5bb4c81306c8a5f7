package admin

import (
	"context"
	"strings"
	"time"
)

// Overview is the state of the relay at a glance.
type Overview struct {
	// Now is the relay's time.
	Now time.Time `json:"now"`
	// Version of Postern.
	Version string `json:"version"`
	// StartedAt is when the relay started.
	StartedAt time.Time `json:"started_at"`
	// Pending deliveries of all destinations.
	Pending int64 `json:"pending"`
	// Reload is what came of the latest, null before the first.
	Reload *Reload `json:"reload" jsonschema:"nullable"`
	// Store tells whether messages are taken.
	Store StoreState `json:"store"`
	// HTTPS tells whether apps on other hosts get through to listen.https.
	HTTPS HTTPSState `json:"https"`
	// Destinations by name.
	Destinations []Destination `json:"destinations"`
}

// StoreState tells whether messages are taken.
type StoreState struct {
	// Full is why no message is taken, for a person; empty if they are.
	Full string `json:"full"`
}

// HTTPSState tells whether apps on other hosts get through to listen.https.
type HTTPSState struct {
	// Trouble is why some of them do not, for a person, such as a certificate that has expired; empty if nothing is known.
	Trouble string `json:"trouble"`
}

func (h *Handler) overview(ctx context.Context, _ input[none, none]) (Overview, error) {
	list, err := h.destinations(ctx)
	if err != nil {
		return Overview{}, err
	}
	out := Overview{
		Now: instant(h.now()), Version: h.Version, StartedAt: instant(h.StartedAt), Pending: h.Records.Pending(),
		Store: StoreState{Full: strings.Join(texts(h.Full), "; ")}, HTTPS: HTTPSState{Trouble: strings.Join(texts(h.HTTPS), "; ")},
		Destinations: append([]Destination{}, list...),
	}
	if last := h.Reloads.LastReload(); last != nil {
		shown := last.normal()
		out.Reload = &shown
	}
	return out, nil
}
