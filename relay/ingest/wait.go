package ingest

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/postern-relay/postern/store"
)

const (
	maxWait           = 60 * time.Second // longer wishes are cut to it, as the answer says
	defaultMaxWaiting = 1000

	// answerTime is what remains for the answer after the longest wait: the server's own time for a whole request may
	// end before.
	answerTime = 30 * time.Second
)

// parseWait reads the wait preference (RFC 7240, section 4.3) from the values of Prefer: how long the client would
// wait, 1 s to maxWait. Whatever is no preference of that form is ignored, as section 2 says, and means 0.
func parseWait(values []string) time.Duration {
	for _, value := range values {
		for value != "" {
			var preference string
			preference, value = cutQuoted(value, ',')
			preference, _ = cutQuoted(preference, ';')
			name, text, _ := strings.Cut(preference, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			text = strings.Trim(strings.TrimSpace(text), `"`)
			if text == "" || !onlyDigits(text) {
				return 0 // the first one counts (section 2)
			}
			seconds, err := strconv.Atoi(text)
			if err != nil || seconds > int(maxWait/time.Second) {
				return maxWait
			}
			return time.Duration(seconds) * time.Second
		}
	}
	return 0
}

// cutQuoted cuts s at the first sep outside of double quotes.
func cutQuoted(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == sep && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// watch is one request that waits for the deliveries of its message.
type watch struct {
	h     *Handler
	wait  time.Duration
	ended <-chan store.Delivery
	stop  func()
}

// watch begins to watch a message that is to be accepted, if the client wishes to wait, there is something to wait
// for, and not too many do. It returns nil otherwise. The caller calls end.
func (h *Handler) watch(m store.Message, wait time.Duration) *watch {
	if wait <= 0 || h.Watch == nil || len(m.Recipients) == 0 {
		return nil
	}
	most := h.MaxWaiting
	if most <= 0 {
		most = defaultMaxWaiting
	}
	if h.load().waiting.Add(1) > int64(most) {
		h.load().waiting.Add(-1)
		return nil
	}
	w := &watch{h: h, wait: wait}
	w.ended, w.stop = h.Watch(m.ID)
	return w
}

// end ends the watching.
func (w *watch) end() {
	w.stop()
	w.h.load().waiting.Add(-1)
}

// outcome waits until all deliveries of a stored message have ended, the time is over, the client has gone or Postern
// stops. It returns how they stand, and whether all have ended.
func (w *watch) outcome(ctx context.Context, m store.Message, existing bool) (deliveries []store.Delivery, over bool) {
	deliveries = make([]store.Delivery, len(m.Recipients))
	for n := range deliveries {
		deliveries[n] = m.Delivery(n)
	}
	open := len(deliveries)
	note := func(d store.Delivery) {
		n := d.ID.Index()
		if d.ID.Message() == m.ID && n < len(deliveries) && d.State.Ended() && !deliveries[n].State.Ended() {
			deliveries[n] = d
			open--
		}
	}
	look := func() {
		for _, d := range deliveries {
			if !d.State.Ended() {
				if now, err := w.h.Deliveries.Delivery(ctx, d.ID); err == nil {
					note(now)
				}
			}
		}
	}
	if existing {
		// It is another message than the one that was watched, and may have ended long ago.
		w.stop()
		w.ended, w.stop = w.h.Watch(m.ID)
		look()
	}
	timer := time.NewTimer(w.wait)
	defer timer.Stop()
	for open > 0 {
		select {
		case d, ok := <-w.ended:
			if !ok {
				w.ended = nil
			}
			note(d)
			continue
		case <-timer.C:
		case <-ctx.Done():
		case <-w.h.Stopping:
		}
		break
	}
	if open > 0 {
		look() // for what the channel could not hold
	}
	return deliveries, open == 0
}

// extendDeadline gives the answer the time to wait. The server sets a new deadline for the next request.
func extendDeadline(w http.ResponseWriter, wait time.Duration) {
	// The error says that the connection has no deadlines, so there is none to extend.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + answerTime))
}

const preferenceAppliedHeader = "Preference-Applied"

// preferenceApplied tells the client which wish was honoured (RFC 7240, section 3).
func preferenceApplied(h http.Header, wait time.Duration) {
	h.Set(preferenceAppliedHeader, "wait="+strconv.Itoa(int(wait/time.Second)))
}
