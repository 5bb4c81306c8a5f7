package admin

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// DeliveryQuery asks for a page of deliveries.
type DeliveryQuery struct {
	DeliveryFilter
	Limit  int    // 1 to 500; 0 means 50
	Cursor string // NextCursor of the page before; empty means the first
}

// Overview returns the state of the relay at a glance.
func (c Client) Overview(ctx context.Context) (Overview, error) {
	return ask[Overview](ctx, c, clientTimeout, "ask for the overview", http.MethodGet, overviewPath, nil)
}

// Destinations returns the state of all destinations, by name.
func (c Client) Destinations(ctx context.Context) ([]Destination, error) {
	list, err := ask[DestinationList](ctx, c, clientTimeout, "list destinations", http.MethodGet, destinationsPath, nil)
	return list.Destinations, err
}

// Destination returns the state of a destination and its config.
func (c Client) Destination(ctx context.Context, name string) (DestinationDetail, error) {
	return ask[DestinationDetail](ctx, c, clientTimeout, "ask for "+quote(name), http.MethodGet, destinationPath(name, ""), nil)
}

// Pause holds a destination; an empty reason leaves it to the relay to give one.
func (c Client) Pause(ctx context.Context, name, reason string) (Destination, error) {
	return ask[Destination](ctx, c, clientTimeout, "pause "+quote(name), http.MethodPost, destinationPath(name, "/pause"), pauseRequest{reason})
}

// Resume lets a destination go on.
func (c Client) Resume(ctx context.Context, name string) (Destination, error) {
	return ask[Destination](ctx, c, clientTimeout, "resume "+quote(name), http.MethodPost, destinationPath(name, "/resume"), nil)
}

// Test has one request sent to a destination.
func (c Client) Test(ctx context.Context, name string, s Sample) (Exchange, error) {
	return ask[Exchange](ctx, c, testTimeout, "test "+quote(name), http.MethodPost, destinationPath(name, "/test"), s)
}

// Render returns the request that a sample would make.
func (c Client) Render(ctx context.Context, name string, s Sample) (Render, error) {
	return c.render(ctx, name, renderRequest{
		Event: s.Event, ContentType: s.ContentType, Body: s.Body, BodyBase64: s.BodyBase64, Headers: s.Headers,
	})
}

// RenderDelivery returns the request that a stored delivery would make now; name is that of its destination.
func (c Client) RenderDelivery(ctx context.Context, name, id string) (Render, error) {
	return c.render(ctx, name, renderRequest{DeliveryID: id})
}

func (c Client) render(ctx context.Context, name string, r renderRequest) (Render, error) {
	return ask[Render](ctx, c, clientTimeout, "render "+quote(name), http.MethodPost, destinationPath(name, "/render"), r)
}

// Deliveries returns a page of deliveries, the latest accepted first.
func (c Client) Deliveries(ctx context.Context, q DeliveryQuery) (DeliveryPage, error) {
	values := url.Values{}
	for key, text := range map[string]string{
		"destination": q.Destination, "state": q.State, "event": q.Event, "class": q.Class, "since": q.Since, "until": q.Until,
		"q": q.Q, "cursor": q.Cursor,
	} {
		if text != "" {
			values.Set(key, text)
		}
	}
	if q.Limit != 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	path := deliveriesPath
	if len(values) > 0 {
		path += "?" + values.Encode()
	}
	return ask[DeliveryPage](ctx, c, clientTimeout, "list deliveries", http.MethodGet, path, nil)
}

// AllDeliveries walks all pages from the one asked for, Limit deliveries at a time. An error ends it.
func (c Client) AllDeliveries(ctx context.Context, q DeliveryQuery) iter.Seq2[Delivery, error] {
	return func(yield func(Delivery, error) bool) {
		for {
			page, err := c.Deliveries(ctx, q)
			if err != nil {
				yield(Delivery{}, err)
				return
			}
			for _, d := range page.Deliveries {
				if !yield(d, nil) {
					return
				}
			}
			switch {
			case page.NextCursor == nil:
				return
			case *page.NextCursor == q.Cursor: // it would go on for ever
				yield(Delivery{}, fmt.Errorf("list deliveries through %s: %w", c.Address, foreign(http.StatusOK)))
				return
			}
			q.Cursor = *page.NextCursor
		}
	}
}

// Delivery returns a delivery with its message and its attempts.
func (c Client) Delivery(ctx context.Context, id string) (DeliveryDetail, error) {
	return ask[DeliveryDetail](ctx, c, clientTimeout, "ask for "+quote(id), http.MethodGet, deliveryPath(id, ""), nil)
}

// Replay begins a new round of attempts of a delivery.
func (c Client) Replay(ctx context.Context, id string) (Delivery, error) {
	return ask[Delivery](ctx, c, clientTimeout, "replay "+quote(id), http.MethodPost, deliveryPath(id, "/replay"), nil)
}

// Cancel ends a pending delivery; an empty reason leaves it to the relay to give one.
func (c Client) Cancel(ctx context.Context, id, reason string) (Delivery, error) {
	return ask[Delivery](ctx, c, clientTimeout, "cancel "+quote(id), http.MethodPost, deliveryPath(id, "/cancel"), cancelRequest{reason})
}

// Retry makes the next attempt of a pending delivery due now.
func (c Client) Retry(ctx context.Context, id string) (Delivery, error) {
	return ask[Delivery](ctx, c, clientTimeout, "retry "+quote(id), http.MethodPost, deliveryPath(id, "/retry"), nil)
}

// Message returns a message with its deliveries.
func (c Client) Message(ctx context.Context, id string) (Message, error) {
	return ask[Message](ctx, c, clientTimeout, "ask for "+quote(id), http.MethodGet, messagePath(id, ""), nil)
}

// MessageBody returns the body of a message.
func (c Client) MessageBody(ctx context.Context, id string) ([]byte, error) {
	return c.raw(ctx, clientTimeout, "ask for the body of "+quote(id), http.MethodGet, messagePath(id, "/body"), nil)
}

// ReplayAll replays what a filter chooses, or counts it.
func (c Client) ReplayAll(ctx context.Context, r BulkReplay) (BulkReplayed, error) {
	return ask[BulkReplayed](ctx, c, replayTimeout, "replay", http.MethodPost, replayPath, r)
}

// Reload has the relay read its config again. A *Refusal with Errors says what is wrong with it.
func (c Client) Reload(ctx context.Context) (Reload, error) {
	return ask[Reload](ctx, c, clientTimeout, "reload", http.MethodPost, reloadPath, nil)
}

func destinationPath(name, action string) string {
	return destinationsPath + "/" + url.PathEscape(name) + action
}

func deliveryPath(id, action string) string {
	return deliveriesPath + "/" + url.PathEscape(id) + action
}

func messagePath(id, part string) string { return messagesPath + "/" + url.PathEscape(id) + part }

func quote(s string) string { return strconv.Quote(s) }
