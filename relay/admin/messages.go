package admin

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

func (h *Handler) getMessage(ctx context.Context, in input[none, none]) (Message, error) {
	id, err := messageID(in.Segment)
	if err != nil {
		return Message{}, err
	}
	m, body, err := h.Records.Load(ctx, id)
	if err != nil {
		return Message{}, refused(err)
	}
	out := newMessage(m, h.redact(m, body))
	for n := range m.Recipients {
		d, err := h.Records.Delivery(ctx, id.Delivery(n))
		if err != nil {
			return Message{}, refused(err)
		}
		out.Deliveries = append(out.Deliveries, h.show(ctx, d))
	}
	return out, nil
}

// getBody answers with the body as it is. No browser shows it as a page of ours: it is a download of a type that is
// never sniffed (T28).
func (h *Handler) getBody(w http.ResponseWriter, r *http.Request, in input[none, none]) error {
	id, err := messageID(in.Segment)
	if err != nil {
		return err
	}
	m, body, err := h.Records.Load(r.Context(), id)
	if err != nil {
		return refused(err)
	}
	if m.Size > 0 && len(body) == 0 {
		return problem.New(http.StatusGone, "the body of this message is no longer kept (keep.body)")
	}
	body = h.redact(m, body)
	header := w.Header()
	setHeaders(header, rawType)
	header.Set("Content-Disposition", `attachment; filename="`+id.String()+`.bin"`)
	header.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a client that is gone needs no answer
	return nil
}

func messageID(segment string) (store.MessageID, error) {
	id, err := store.ParseMessageID(segment)
	if errors.Is(err, store.ErrBadID) {
		return id, problem.New(http.StatusBadRequest, "%.100q is not the id of a message; write msg_ and 32 hexadecimal digits", segment)
	}
	return id, err
}
