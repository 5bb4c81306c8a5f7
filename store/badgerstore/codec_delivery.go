package badgerstore

import (
	"fmt"
	"time"

	"github.com/postern-relay/postern/store"
)

// A delivery is encoded without its id:
//
//	<state 1> <class of the latest attempt 1> <blocking 1>
//	varints: round, attempts, made, status of the latest attempt
//	uvarints: accepted, begun, due and ended at, latest attempt at, in milliseconds since the year 1
//	texts, each behind its length as a uvarint: destination, event, order, reason, error of the latest attempt
//
// Equal deliveries have equal encodings.
func encodeDelivery(d store.Delivery) []byte {
	texts := [...]string{d.Destination, d.Event, d.Order, d.Reason, d.Last.Error}
	size := 64
	for _, text := range texts {
		size += len(text)
	}
	f := append(make(fields, 0, size), byte(d.State), byte(d.Last.Class))
	f.flag(d.Blocking)
	for _, n := range [...]int{d.Round, d.Attempts, d.Made, d.Last.Status} {
		f.int(n)
	}
	for _, t := range [...]time.Time{d.AcceptedAt, d.BegunAt, d.DueAt, d.EndedAt, d.Last.At} {
		f.time(t)
	}
	for _, text := range texts {
		f.text(text)
	}
	return f
}

func decodeDelivery(id store.DeliveryID, content []byte) (store.Delivery, error) {
	r := reading{rest: content}
	d := store.Delivery{ID: id, State: store.State(r.byte())}
	d.Last.Class, d.Blocking = store.Class(r.byte()), r.flag()
	for _, n := range [...]*int{&d.Round, &d.Attempts, &d.Made, &d.Last.Status} {
		*n = r.int()
	}
	for _, t := range [...]*time.Time{&d.AcceptedAt, &d.BegunAt, &d.DueAt, &d.EndedAt, &d.Last.At} {
		*t = r.time()
	}
	for _, text := range [...]*string{&d.Destination, &d.Event, &d.Order, &d.Reason, &d.Last.Error} {
		*text = r.text()
	}
	if err := r.end(); err != nil {
		return store.Delivery{}, fmt.Errorf("decode delivery: %w", err)
	}
	return d, nil
}
