package ingest

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/postern-relay/postern/store"
)

// answer writes what became of a message. The first answer and its repetitions are the same but for a header.
func (h *Handler) answer(w http.ResponseWriter, m store.Message, existing bool) {
	body := appendMessage(make([]byte, 0, 64+160*len(m.Recipients)), m)
	h.write(w, h.acceptedStatus(), append(body, '\n'), existing)
}

// answerOutcome writes how the deliveries of a message stand, after a wait for them. over says that all have ended.
func (h *Handler) answerOutcome(w http.ResponseWriter, m store.Message, existing bool, deliveries []store.Delivery, over bool) {
	status := h.acceptedStatus()
	if over {
		status = http.StatusOK
	}
	body := appendHead(make([]byte, 0, 64+200*len(deliveries)), m.ID)
	for n, d := range deliveries {
		body = appendDelivery(body, n, d.ID, d.Destination, d.State)
		if d.Reason != "" {
			body = appendString(append(body, `,"reason":`...), d.Reason)
		}
		body = append(body, '}')
	}
	h.write(w, status, append(body, "]}\n"...), existing)
}

// answerAll writes what became of several messages, in their order, piece by piece.
func (h *Handler) answerAll(w http.ResponseWriter, all []store.Accepted) {
	const piece = 32 << 10
	replayed := len(all) > 0
	for _, a := range all {
		replayed = replayed && a.Existing
	}
	h.writeHead(w, h.acceptedStatus(), replayed)
	b := append(make([]byte, 0, piece), `{"messages":[`...)
	for n, a := range all {
		if n > 0 {
			b = append(b, ',')
		}
		if b = appendMessage(b, a.Message); len(b) > piece/2 {
			if _, err := w.Write(b); err != nil {
				return // a client that is gone does not make the messages less accepted
			}
			b = b[:0]
		}
	}
	_, _ = w.Write(append(b, "]}\n"...))
}

func (h *Handler) acceptedStatus() int {
	if h.AcceptedStatus == 0 {
		return http.StatusAccepted
	}
	return h.AcceptedStatus
}

func (h *Handler) write(w http.ResponseWriter, status int, body []byte, existing bool) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	h.writeHead(w, status, existing)
	_, _ = w.Write(body) // a client that is gone does not make the message less accepted
}

func (h *Handler) writeHead(w http.ResponseWriter, status int, existing bool) {
	w.Header().Set("Content-Type", "application/json")
	if existing {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	w.WriteHeader(status)
}

// appendMessage appends the JSON of a stored message to b, each of its deliveries as it was in the beginning. It is
// written by hand, since each accepted message pays for it; a test compares it with encoding/json.
func appendMessage(b []byte, m store.Message) []byte {
	b = appendHead(b, m.ID)
	for n, to := range m.Recipients {
		b = appendDelivery(b, n, m.ID.Delivery(n), to.Destination, store.Pending)
		b = append(b, '}')
	}
	return append(b, "]}"...)
}

func appendHead(b []byte, id store.MessageID) []byte {
	b = append(b, `{"id":"msg_`...)
	b = hex.AppendEncode(b, id[:])
	return append(b, `","deliveries":[`...)
}

// appendDelivery appends the n-th delivery of a message, but for the closing brace.
func appendDelivery(b []byte, n int, id store.DeliveryID, destination string, state store.State) []byte {
	if n > 0 {
		b = append(b, ',')
	}
	b = append(b, `{"id":"dlv_`...)
	b = hex.AppendEncode(b, id[:])
	b = append(b, `","destination":`...)
	b = appendString(b, destination)
	b = append(b, `,"state":"`...)
	b = append(b, state.String()...)
	return append(b, '"')
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string always encodes
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
