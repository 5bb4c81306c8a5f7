package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// MaxDeliveries is the largest number of deliveries that one message can have.
// The number of a delivery lives in the last 12 bits of its id.
const MaxDeliveries = 1<<12 - 1

const (
	messagePrefix  = "msg_"
	deliveryPrefix = "dlv_"
)

// ErrBadID says that a text is not the id it was taken for.
var ErrBadID = errors.New("malformed id")

// MessageID identifies a message: a UUIDv7 (RFC 9562, section 5.7) whose last 12 bits are zero, so that the ids
// of its deliveries can be derived from it and an engine finds everything about a message in one place.
// Ids made by one process ascend.
type MessageID [16]byte

// DeliveryID identifies a delivery: the UUIDv7 of its message with the delivery's number, from 1, in the last 12 bits.
type DeliveryID [16]byte

// NewMessageID makes an id from the current time and random bits.
// It returns an error only when the system has no randomness to give.
func NewMessageID() (MessageID, error) {
	u, err := uuid.NewV7()
	if err != nil {
		return MessageID{}, fmt.Errorf("make message id: %w", err)
	}
	u[14] &= 0xf0
	u[15] = 0
	return MessageID(u), nil
}

// Delivery returns the id of the n-th delivery of the message, n from 0 to MaxDeliveries-1.
func (id MessageID) Delivery(n int) DeliveryID {
	if n < 0 || n >= MaxDeliveries {
		panic(fmt.Sprintf("store: delivery number %d is out of range", n))
	}
	d := DeliveryID(id)
	d[14] |= byte((n + 1) >> 8)
	d[15] = byte(n + 1)
	return d
}

// String returns the id as the world sees it: msg_ and 32 hexadecimal digits. It holds no dot, since it is part
// of what Standard Webhooks signs (spec/standard-webhooks.md, "Signature scheme").
func (id MessageID) String() string { return messagePrefix + hex.EncodeToString(id[:]) }

// Message returns the id of the delivery's message.
func (id DeliveryID) Message() MessageID {
	m := MessageID(id)
	m[14] &= 0xf0
	m[15] = 0
	return m
}

// Index returns the delivery's place among the deliveries of its message, from 0.
func (id DeliveryID) Index() int { return (int(id[14]&0x0f)<<8 | int(id[15])) - 1 }

// String returns the id as the world sees it: dlv_ and 32 hexadecimal digits.
func (id DeliveryID) String() string { return deliveryPrefix + hex.EncodeToString(id[:]) }

// ParseMessageID reads what MessageID.String wrote. Errors wrap ErrBadID.
func ParseMessageID(s string) (MessageID, error) {
	raw, err := parseID(messagePrefix, s)
	if err != nil {
		return MessageID{}, err
	}
	id := MessageID(raw)
	if DeliveryID(id).Message() != id {
		return MessageID{}, fmt.Errorf("%w: %q is not the id of a message", ErrBadID, s)
	}
	return id, nil
}

// ParseDeliveryID reads what DeliveryID.String wrote. Errors wrap ErrBadID.
func ParseDeliveryID(s string) (DeliveryID, error) {
	raw, err := parseID(deliveryPrefix, s)
	if err != nil {
		return DeliveryID{}, err
	}
	id := DeliveryID(raw)
	if id.Index() < 0 {
		return DeliveryID{}, fmt.Errorf("%w: %q is not the id of a delivery", ErrBadID, s)
	}
	return id, nil
}

func parseID(prefix, s string) ([16]byte, error) {
	var id [16]byte
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok || len(digits) != hex.EncodedLen(len(id)) {
		return id, fmt.Errorf("%w: %q; want %s and 32 hexadecimal digits", ErrBadID, s, prefix)
	}
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return id, fmt.Errorf("%w: %q; want %s and 32 hexadecimal digits", ErrBadID, s, prefix)
	}
	return id, nil
}
