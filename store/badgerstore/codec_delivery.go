package badgerstore

import (
	"encoding/binary"
	"errors"
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
// Each delivery is written and compared several times in its life, which is why this is no CBOR: that takes six times as
// long. Equal deliveries have equal encodings.
func encodeDelivery(d store.Delivery) []byte {
	texts := [...]string{d.Destination, d.Event, d.Order, d.Reason, d.Last.Error}
	size := 64
	for _, text := range texts {
		size += len(text)
	}
	raw := append(make([]byte, 0, size), byte(d.State), byte(d.Last.Class), 0)
	if d.Blocking {
		raw[2] = 1
	}
	for _, n := range [...]int{d.Round, d.Attempts, d.Made, d.Last.Status} {
		raw = binary.AppendVarint(raw, int64(n))
	}
	for _, t := range [...]time.Time{d.AcceptedAt, d.BegunAt, d.DueAt, d.EndedAt, d.Last.At} {
		raw = binary.AppendUvarint(raw, stampOf(t))
	}
	for _, text := range texts {
		raw = append(binary.AppendUvarint(raw, uint64(len(text))), text...)
	}
	return raw
}

var errDelivery = errors.New("decode delivery: field out of range")

func decodeDelivery(id store.DeliveryID, content []byte) (store.Delivery, error) {
	if len(content) < 3 || content[2] > 1 {
		return store.Delivery{}, errDelivery
	}
	d := store.Delivery{ID: id, State: store.State(content[0]), Blocking: content[2] == 1}
	d.Last.Class = store.Class(content[1])
	content = content[3:]
	for _, n := range [...]*int{&d.Round, &d.Attempts, &d.Made, &d.Last.Status} {
		v, size := binary.Varint(content)
		if size <= 0 {
			return store.Delivery{}, errDelivery
		}
		*n, content = int(v), content[size:]
	}
	for _, t := range [...]*time.Time{&d.AcceptedAt, &d.BegunAt, &d.DueAt, &d.EndedAt, &d.Last.At} {
		v, size := binary.Uvarint(content)
		if size <= 0 {
			return store.Delivery{}, errDelivery
		}
		*t, content = timeOf(v), content[size:]
	}
	for _, text := range [...]*string{&d.Destination, &d.Event, &d.Order, &d.Reason, &d.Last.Error} {
		length, size := binary.Uvarint(content)
		if size <= 0 || length > uint64(len(content)-size) {
			return store.Delivery{}, errDelivery
		}
		content = content[size:]
		*text, content = string(content[:length]), content[length:]
	}
	if len(content) > 0 {
		return store.Delivery{}, fmt.Errorf("decode delivery: %d bytes too many", len(content))
	}
	return d, nil
}
