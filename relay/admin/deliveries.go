package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/postern-relay/postern/relay/problem"
	"github.com/postern-relay/postern/store"
)

// DeliverySteering is what the API asks of a running relay about deliveries: it changes them in the store, and lets
// the lanes know. Its methods are called from several goroutines; their errors are those of store.Steerer.
type DeliverySteering interface {
	// Replay begins a new round of attempts, due now.
	Replay(ctx context.Context, id store.DeliveryID) (store.Delivery, error)

	// Cancel ends a pending delivery, or lets go the line of a blocking one. The reason is for people.
	Cancel(ctx context.Context, id store.DeliveryID, reason string) (store.Delivery, error)

	// Retry makes a pending delivery due now.
	Retry(ctx context.Context, id store.DeliveryID) (store.Delivery, error)

	// Held returns why a pending delivery is not attempted, and nothing for one that has ended or that nothing holds. It
	// costs no more than a look at the store.
	Held(ctx context.Context, d store.Delivery) Held
}

const (
	defaultPage = 50
	maxPage     = 500
	maxHistory  = 200 // attempts of a delivery in one answer

	// A filter that few deliveries pass is searched for so long, then the page is handed out as it is.
	searchTime = 500 * time.Millisecond
)

// listQuery is the query of a list of deliveries.
type listQuery struct {
	DeliveryFilter

	// Limit of deliveries in the answer.
	Limit *int `json:"limit,omitempty" jsonschema:"minimum=1,maximum=500,default=50"`
	// Cursor of a page, as next_cursor of the one before it; the filter must be the same.
	Cursor string `json:"cursor,omitempty"`
}

// DeliveryFilter says which deliveries are meant; what is empty lets all pass.
type DeliveryFilter struct {
	// Destination by its name.
	Destination string `json:"destination,omitempty"`
	// State of the deliveries.
	State string `json:"state,omitempty" jsonschema:"enum=pending,enum=delivered,enum=failed,enum=canceled"`
	// Event type, whole.
	Event string `json:"event,omitempty"`
	// Class of the latest attempt.
	Class string `json:"class,omitempty" jsonschema:"enum=ok,enum=status,enum=expect,enum=timeout,enum=dns,enum=connect,enum=tls,enum=protocol,enum=blocked,enum=render,enum=auth,enum=interrupted"`
	// Since is the earliest time of acceptance: RFC 3339, or a duration before now such as 90m.
	Since string `json:"since,omitempty"`
	// Until is the time before which they were accepted: RFC 3339, or a duration before now.
	Until string `json:"until,omitempty"`
	// Q is a text in the ids, the event, the ordering key, the reason or the latest error, in any case of letters.
	Q string `json:"q,omitempty" jsonschema:"maxLength=200"`
}

func (h *Handler) listDeliveries(ctx context.Context, in input[listQuery, none]) (DeliveryPage, error) {
	limit := defaultPage
	if in.Query.Limit != nil {
		limit = *in.Query.Limit
	}
	if limit < 1 || limit > maxPage {
		return DeliveryPage{}, problem.New(http.StatusBadRequest, "limit is %d; 1 to %d are allowed", limit, maxPage)
	}
	asked := in.Query.DeliveryFilter
	filter, err := h.filter(asked)
	if err != nil {
		return DeliveryPage{}, err
	}
	place, err := asked.place(in.Query.Cursor)
	if err != nil {
		return DeliveryPage{}, err
	}
	page := DeliveryPage{Deliveries: []Delivery{}}
	for begin := time.Now(); ; {
		found, next, err := h.Records.Deliveries(ctx, filter, place, limit-len(page.Deliveries))
		if err != nil {
			return DeliveryPage{}, refused(fmt.Errorf("list deliveries: %w", err))
		}
		for _, d := range found {
			page.Deliveries = append(page.Deliveries, h.show(ctx, d))
		}
		if next == (store.Place{}) {
			return page, nil
		}
		if len(page.Deliveries) == limit || time.Since(begin) > searchTime {
			cursor := asked.cursor(next)
			page.NextCursor = &cursor
			return page, nil
		}
		place = next
	}
}

// show returns a delivery as the API shows it.
func (h *Handler) show(ctx context.Context, d store.Delivery) Delivery {
	var held Held
	if !d.State.Ended() {
		held = h.Deliveries.Held(ctx, d)
	}
	return newDelivery(d, held)
}

func (h *Handler) getDelivery(ctx context.Context, in input[none, none]) (DeliveryDetail, error) {
	id, err := deliveryID(in.Segment)
	if err != nil {
		return DeliveryDetail{}, err
	}
	d, err := h.Records.Delivery(ctx, id)
	if err != nil {
		return DeliveryDetail{}, refused(err)
	}
	m, body, err := h.Records.Load(ctx, id.Message())
	if err != nil {
		return DeliveryDetail{}, refused(err)
	}
	attempts, err := h.Records.Attempts(ctx, id, maxHistory)
	if err != nil {
		return DeliveryDetail{}, refused(err)
	}
	detail := DeliveryDetail{
		Delivery: h.show(ctx, d), Message: newMessage(m, h.redact(m, body)), History: make([]Attempt, len(attempts)),
	}
	for i, a := range attempts {
		detail.History[i] = newAttempt(a)
	}
	return detail, nil
}

func (h *Handler) redact(m store.Message, body []byte) []byte {
	if h.Redact == nil {
		return body
	}
	return h.Redact(m, body)
}

func (h *Handler) replay(ctx context.Context, in input[none, none]) (Delivery, error) {
	return h.steer(ctx, in.Segment, h.replayWhole)
}

// replayWhole replays a delivery whose message is whole still.
func (h *Handler) replayWhole(ctx context.Context, id store.DeliveryID) (store.Delivery, error) {
	m, _, err := h.Records.Load(ctx, id.Message())
	if err == nil {
		err = sendable(m)
	}
	if err != nil {
		return store.Delivery{}, err
	}
	return h.Deliveries.Replay(ctx, id)
}

var errReduced = errors.New("the body was removed")

// sendable refuses a message whose body is not there any more as it was posted: a new round of attempts would only turn
// what was delivered into a failure.
func sendable(m store.Message) error {
	if m.Reduced {
		return &problem.Error{
			Status: http.StatusGone, Cause: errReduced, Detail: "the body of this message is no longer kept as it was posted (keep)",
		}
	}
	return nil
}

func (h *Handler) retry(ctx context.Context, in input[none, none]) (Delivery, error) {
	return h.steer(ctx, in.Segment, h.Deliveries.Retry)
}

// cancelRequest is the body of a request to cancel.
type cancelRequest struct {
	// Reason for whoever finds it canceled.
	Reason string `json:"reason,omitempty" jsonschema:"maxLength=500"`
}

func (h *Handler) cancel(ctx context.Context, in input[none, cancelRequest]) (Delivery, error) {
	reason := in.Body.Reason
	if err := checkReason(reason); err != nil {
		return Delivery{}, err
	}
	if reason == "" {
		reason = "canceled by hand"
	}
	return h.steer(ctx, in.Segment, func(ctx context.Context, id store.DeliveryID) (store.Delivery, error) {
		return h.Deliveries.Cancel(ctx, id, reason)
	})
}

func (h *Handler) steer(ctx context.Context, segment string, f func(context.Context, store.DeliveryID) (store.Delivery, error)) (Delivery, error) {
	id, err := deliveryID(segment)
	if err != nil {
		return Delivery{}, err
	}
	d, err := f(ctx, id)
	if err != nil {
		return Delivery{}, refused(err)
	}
	h.Changes.Delivery(d)
	return h.show(ctx, d), nil
}

func deliveryID(segment string) (store.DeliveryID, error) {
	id, err := store.ParseDeliveryID(segment)
	if errors.Is(err, store.ErrBadID) {
		return id, problem.New(http.StatusBadRequest, "%.100q is not the id of a delivery; write dlv_ and 32 hexadecimal digits", segment)
	}
	return id, err
}
