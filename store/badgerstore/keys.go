package badgerstore

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/postern-relay/postern/store"
)

// The keys. Numbers are big endian, so that keys sort as what they hold; times are milliseconds since the year 1,
// which keeps them positive and the zero time first.
//
//	m <message 16>                            the message, with its body if that is short
//	b <message 16> <number 2>                 a chunk of a longer body
//	o <batch 16>                              a batch: messages written ahead, or on their way into the queue (batch.go)
//	o <batch 16> <number 4>                   some of its messages
//	q <destination> 0 <due 8> <delivery 16>   a pending delivery: the queue
//	t <line>                                  a line: the places of its head and of its last (line.go)
//	l <line> <place 8>                        a pending delivery behind the head of its line
//	k <line>                                  the Blocking delivery that holds a line up
//	d <delivery 16>                           a delivery that is no longer as it was accepted
//	a <delivery 16> <round 2> <number 2>      an attempt
//	e <ended 8> <delivery 16>                 an ended delivery, for the sweep; of a message without deliveries: itself
//	x d <destination> 0 <delivery 16>         index: the deliveries of a destination; behind the head of a line, its place
//	x e <event> <message 16>                  index: the messages of an event that somebody gets
//	x s <state 1> <class 1> <delivery 16>     index: those with trouble, by state and latest attempt (index.go)
//	i <idempotency key 32>                    the message that was accepted under the key, and the content's digest
//	p <destination>                           since when and why a destination is paused
//	u <destination>                           since when a destination is out, and until when it asked to be left alone
//	c <name>                                  an item of the vault: an account or a certificate, with its private key
//	s <slot 4>                                a commit group: its number and the count of pending deliveries after it
//	w                                         how far the times of acceptance and of ids are apart (index.go)
//	v                                         the format, and the first commit group that must be on record
//
// A <line> is <destination> 0 <the first 16 bytes of the SHA-256 of its Order>, and an <event> those of its name. An
// index entry has no value, but for the place in a line: what it points to is read and checked.
//
// A delivery stands under q or l exactly while it is pending, and under d from its first attempt on: so accepting a
// message writes one record a delivery, and its state is found by id all the same.
const (
	kindMessage     = 'm'
	kindChunk       = 'b'
	kindBatch       = 'o'
	kindQueue       = 'q'
	kindLine        = 't'
	kindWaiting     = 'l'
	kindBlocked     = 'k'
	kindDelivery    = 'd'
	kindAttempt     = 'a'
	kindEnded       = 'e'
	kindIdempotency = 'i'
	kindPause       = 'p'
	kindOutage      = 'u'
	kindVault       = 'c'
	kindIndex       = 'x'
	kindSkew        = 'w'
	kindCommit      = 's'
	kindFormat      = 'v'
)

// ringSize is the number of slots that commit groups are noted in. It must exceed the number of groups that can
// stand in write-ahead logs at once, since those are what a flipped byte cuts short: four memtables of 8 MiB, and the
// smallest group was measured at 175 bytes of one, so 192,000.
const ringSize = 1 << 19

var errBadKey = errors.New("malformed key")

func messageKey(id store.MessageID) []byte { return append([]byte{kindMessage}, id[:]...) }

func chunkKey(id store.MessageID, n int) []byte {
	return binary.BigEndian.AppendUint16(append([]byte{kindChunk}, id[:]...), uint16(n))
}

func batchKey(id store.MessageID) []byte { return append([]byte{kindBatch}, id[:]...) }

// parsePart returns the number of a part.
func parsePart(key []byte) int { return int(binary.BigEndian.Uint32(key[17:])) }

func partKey(id store.MessageID, n int) []byte {
	return binary.BigEndian.AppendUint32(batchKey(id), uint32(n))
}

func queuePrefix(destination string) []byte { return destinationPrefix(kindQueue, destination) }

func queueKey(destination string, at store.Cursor) []byte {
	key := binary.BigEndian.AppendUint64(queuePrefix(destination), stampOf(at.DueAt))
	return append(key, at.ID[:]...)
}

// parseQueueKey takes a q key apart.
func parseQueueKey(key []byte) (destination string, at store.Cursor, err error) {
	const tail = 1 + 8 + 16
	if len(key) < 1+1+tail || key[0] != kindQueue || key[len(key)-tail] != 0 {
		return "", store.Cursor{}, errBadKey
	}
	destination = string(key[1 : len(key)-tail])
	at.DueAt = timeOf(binary.BigEndian.Uint64(key[len(key)-24:]))
	copy(at.ID[:], key[len(key)-16:])
	return destination, at, nil
}

// destinationPrefix is what the keys of a kind begin with that are of one destination.
func destinationPrefix(kind byte, destination string) []byte {
	key := make([]byte, 0, 1+len(destination)+1+lineHash+8)
	key = append(key, kind)
	key = append(key, destination...)
	return append(key, 0)
}

// lineHash is the number of bytes that stand for an Order.
const lineHash = 16

// lineKey is the key of a line as a kind that has one for each.
func lineKey(kind byte, destination, order string) []byte {
	sum := sha256.Sum256([]byte(order))
	return append(destinationPrefix(kind, destination), sum[:lineHash]...)
}

// waitingKey is the key of a place in the line that has the given key.
func waitingKey(line []byte, place uint64) []byte {
	key := append(make([]byte, 0, len(line)+8), line...)
	key[0] = kindWaiting
	return binary.BigEndian.AppendUint64(key, place)
}

// parseLineKey returns whose line it is that has the key.
func parseLineKey(key []byte) (destination string, err error) {
	const tail = 1 + lineHash
	if len(key) < 1+1+tail || key[len(key)-tail] != 0 {
		return "", errBadKey
	}
	return string(key[1 : len(key)-tail]), nil
}

func pauseKey(destination string) []byte { return append([]byte{kindPause}, destination...) }

func outageKey(destination string) []byte { return append([]byte{kindOutage}, destination...) }

func vaultKey(name string) []byte { return append([]byte{kindVault}, name...) }

func deliveryKey(id store.DeliveryID) []byte { return append([]byte{kindDelivery}, id[:]...) }

func attemptPrefix(id store.DeliveryID) []byte { return append([]byte{kindAttempt}, id[:]...) }

func attemptKey(id store.DeliveryID, round, number int) []byte {
	key := binary.BigEndian.AppendUint16(attemptPrefix(id), uint16(round))
	return binary.BigEndian.AppendUint16(key, uint16(number))
}

func endedKey(ended time.Time, id store.DeliveryID) []byte {
	key := binary.BigEndian.AppendUint64([]byte{kindEnded}, stampOf(ended))
	return append(key, id[:]...)
}

// parseEndedKey takes an e key apart.
func parseEndedKey(key []byte) (ended time.Time, id store.DeliveryID, err error) {
	if len(key) != 1+8+16 || key[0] != kindEnded {
		return time.Time{}, id, errBadKey
	}
	copy(id[:], key[9:])
	return timeOf(binary.BigEndian.Uint64(key[1:])), id, nil
}

func idempotencyKey(digest [32]byte) []byte { return append([]byte{kindIdempotency}, digest[:]...) }

// The kinds of index, the second byte of their keys.
const (
	indexDestination = 'd'
	indexEvent       = 'e'
	indexState       = 's'
)

// Each index has a prefix, behind which its keys hold nothing but an id.
func destinationIndex(destination string) []byte {
	key := append(make([]byte, 0, 2+len(destination)+1+16), kindIndex, indexDestination)
	return append(append(key, destination...), 0)
}

func eventIndex(event string) []byte {
	sum := sha256.Sum256([]byte(event))
	return append(append(make([]byte, 0, 2+lineHash+16), kindIndex, indexEvent), sum[:lineHash]...)
}

func stateIndex(state store.State, class store.Class) []byte {
	return append(make([]byte, 0, 4+16), kindIndex, indexState, byte(state), byte(class))
}

func destinationIndexKey(destination string, id store.DeliveryID) []byte {
	return append(destinationIndex(destination), id[:]...)
}

func eventIndexKey(event string, id store.MessageID) []byte {
	return append(eventIndex(event), id[:]...)
}

// stateIndexKey returns nil for what stands in no index by state: deliveries that are pending and were never attempted,
// and those that were delivered with an ok.
func stateIndexKey(d store.Delivery) []byte {
	if d.State == store.Pending && d.Last.Class == 0 || d.State == store.Delivered && d.Last.Class == store.ClassOK {
		return nil
	}
	return append(stateIndex(d.State, d.Last.Class), d.ID[:]...)
}

func commitKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindCommit}, uint32(seq%ringSize))
}

// describe names what a key is of, for errors.
func describe(key []byte) string {
	switch {
	case len(key) >= 17 && (key[0] == kindMessage || key[0] == kindChunk || key[0] == kindBatch):
		return fmt.Sprintf("%s of message %s", kindNames[key[0]], store.MessageID(key[1:17]))
	case len(key) >= 17 && (key[0] == kindDelivery || key[0] == kindAttempt):
		return fmt.Sprintf("%s of delivery %s", kindNames[key[0]], store.DeliveryID(key[1:17]))
	case len(key) > 25 && key[0] == kindQueue, len(key) > 17 && key[0] == kindIndex && key[1] != indexEvent:
		return fmt.Sprintf("%s of delivery %s", kindNames[key[0]], store.DeliveryID(key[len(key)-16:]))
	case len(key) > 0 && kindNames[key[0]] != "":
		return kindNames[key[0]]
	}
	return "unknown record"
}

var kindNames = map[byte]string{
	kindMessage: "record", kindChunk: "body", kindBatch: "batch", kindQueue: "queue entry",
	kindLine: "line", kindWaiting: "place in a line", kindBlocked: "note of a blocked line",
	kindDelivery: "state", kindAttempt: "attempt", kindEnded: "sweep entry", kindIdempotency: "idempotency key",
	kindPause: "pause", kindOutage: "outage", kindVault: "item of the vault",
	kindIndex: "index entry", kindSkew: "note of the clock", kindCommit: "commit note", kindFormat: "format",
}

// yearOne is the zero time in Unix milliseconds.
const yearOne = -62135596800000

// stampOf returns t as milliseconds since the year 1; earlier times count as that.
func stampOf(t time.Time) uint64 { return uint64(max(t.UnixMilli()-yearOne, 0)) }

// timeOf is the inverse of stampOf, in UTC.
func timeOf(stamp uint64) time.Time {
	const last = 1 << 62 // far beyond what any clock says, and within what time.Time can hold
	return time.UnixMilli(int64(min(stamp, last)) + yearOne).UTC()
}

// toMillis is t as it is kept: to the millisecond, in UTC.
func toMillis(t time.Time) time.Time { return timeOf(stampOf(t)) }
