package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/postern-relay/postern/store"
)

// Every value is
//
//	<format 1> <content> <CRC32C of key and all before, 4>
//
// The checksum is checked on each read: Badger does not notice every kind of damage in its tables by itself
// (it may return a changed value), and a record that is not what was written is never handed out.
const (
	valueFormat   = 1
	valueOverhead = 1 + crc32.Size
)

var errChecksum = errors.New("checksum does not match: the record is damaged")

// The table is immutable once made, and crc32 itself makes it only once.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// seal makes a value of content, to be stored under key.
func seal(key []byte, content ...[]byte) []byte {
	n := valueOverhead
	for _, part := range content {
		n += len(part)
	}
	value := append(make([]byte, 0, n), valueFormat)
	for _, part := range content {
		value = append(value, part...)
	}
	sum := crc32.Update(crc32.Checksum(key, castagnoli()), castagnoli(), value)
	return binary.BigEndian.AppendUint32(value, sum)
}

// unseal returns the content of a value that was read from key. The content is part of the value.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < valueOverhead {
		return nil, errChecksum
	}
	body, sum := value[:len(value)-crc32.Size], binary.BigEndian.Uint32(value[len(value)-crc32.Size:])
	if crc32.Update(crc32.Checksum(key, castagnoli()), castagnoli(), body) != sum {
		return nil, errChecksum
	}
	if body[0] != valueFormat {
		return nil, fmt.Errorf("value has format %d; this program reads %d", body[0], valueFormat)
	}
	return body[1:], nil
}

// decoder takes strings as they are: what a receiver puts into a header or an error need not be UTF-8, and what has
// been written must be readable.
var decoder = func() cbor.DecMode {
	mode, err := cbor.DecOptions{UTF8: cbor.UTF8DecodeInvalid}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// stamp is a time in a record: milliseconds since the year 1, so that the zero time is the zero value.
type stamp uint64

func (s stamp) time() time.Time { return timeOf(uint64(s)) }

// messageRecord is the stored form of a message. The numbers of fields are never used for another meaning.
type messageRecord struct {
	Event       string            `cbor:"1,keyasint,omitempty"`
	ContentType string            `cbor:"2,keyasint,omitempty"`
	AcceptedAt  stamp             `cbor:"3,keyasint,omitempty"`
	Size        int               `cbor:"4,keyasint,omitempty"`
	Recipients  []recipientRecord `cbor:"5,keyasint,omitempty"`
	Key         []byte            `cbor:"6,keyasint,omitempty"`
	Content     []byte            `cbor:"7,keyasint,omitempty"`
	Chunks      int               `cbor:"8,keyasint,omitempty"` // 0: the body stands behind the record
	Hops        int               `cbor:"9,keyasint,omitempty"`
	OrderingKey string            `cbor:"10,keyasint,omitempty"`
	Path        string            `cbor:"11,keyasint,omitempty"`
	Header      []fieldRecord     `cbor:"12,keyasint,omitempty"`
	Batch       []byte            `cbor:"13,keyasint,omitempty"`
	Reduced     bool              `cbor:"14,keyasint,omitempty"`
	Kept        int               `cbor:"15,keyasint,omitempty"` // of a reduced one: bytes of what stands for the body
}

type recipientRecord struct {
	_           struct{} `cbor:",toarray"`
	Destination string
	Delay       int64 // milliseconds
	Order       string
}

type fieldRecord struct {
	_           struct{} `cbor:",toarray"`
	Name, Value string
}

// storedMessage is a message as it stands in the database.
type storedMessage struct {
	store.Message
	chunks int             // of its body, 0 if that stands in the record
	batch  store.MessageID // that it was written ahead for; zero for none
	kept   int             // bytes of what stands for the body, if that is reduced
	body   []byte          // if it is not in chunks; part of what was read
}

// length is the number of bytes that Load returns.
func (m storedMessage) length() int {
	if m.Reduced {
		return m.kept
	}
	return m.Size
}

// encodeMessage returns the content of an m value without the body.
func encodeMessage(m storedMessage) ([]byte, error) {
	r := messageRecord{
		Event: m.Event, ContentType: m.ContentType, AcceptedAt: stamp(stampOf(m.AcceptedAt)), Size: m.Size, Chunks: m.chunks,
		Hops: m.Hops, OrderingKey: m.Key, Path: m.Path, Reduced: m.Reduced, Kept: m.kept,
	}
	for _, to := range m.Recipients {
		r.Recipients = append(r.Recipients, recipientRecord{Destination: to.Destination, Delay: to.Delay.Milliseconds(), Order: to.Order})
	}
	for _, f := range m.Header {
		r.Header = append(r.Header, fieldRecord{Name: f.Name, Value: f.Value})
	}
	if m.Idempotency != nil {
		r.Key, r.Content = m.Idempotency.Key[:], m.Idempotency.Content[:]
	}
	if m.batch != (store.MessageID{}) {
		r.Batch = m.batch[:]
	}
	raw, err := cbor.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return append(binary.AppendUvarint(nil, uint64(len(raw))), raw...), nil
}

// decodeMessage reads the content of an m value.
func decodeMessage(id store.MessageID, content []byte) (m storedMessage, err error) {
	size, n := binary.Uvarint(content)
	if n <= 0 || size > uint64(len(content)-n) {
		return storedMessage{}, errors.New("decode message: length is out of range")
	}
	var r messageRecord
	if err := decoder.Unmarshal(content[n:n+int(size)], &r); err != nil {
		return storedMessage{}, fmt.Errorf("decode message: %w", err)
	}
	body := content[n+int(size):]
	length := r.Size
	if r.Reduced {
		length = r.Kept
	}
	switch {
	case r.Size < 0 || r.Kept < 0 || !r.Reduced && r.Kept != 0 || r.Chunks < 0 || r.Chunks > maxChunks || len(r.Recipients) > store.MaxDeliveries:
		return storedMessage{}, errors.New("decode message: field out of range")
	case r.Chunks == 0 && length != len(body), r.Chunks > 0 && len(body) > 0:
		return storedMessage{}, errors.New("decode message: body has another size")
	case len(r.Key) != len(r.Content) || len(r.Key) != 0 && len(r.Key) != 32:
		return storedMessage{}, errors.New("decode message: bad idempotency digests")
	case len(r.Batch) != 0 && len(r.Batch) != len(m.batch):
		return storedMessage{}, errors.New("decode message: bad batch")
	}
	m = storedMessage{chunks: r.Chunks, kept: r.Kept, body: body, Message: store.Message{
		ID: id, Event: r.Event, ContentType: r.ContentType, AcceptedAt: r.AcceptedAt.time(), Size: r.Size,
		Reduced: r.Reduced, Hops: r.Hops, Key: r.OrderingKey, Path: r.Path,
	}}
	copy(m.batch[:], r.Batch)
	for _, to := range r.Recipients {
		m.Recipients = append(m.Recipients, store.Recipient{
			Destination: to.Destination, Delay: time.Duration(to.Delay) * time.Millisecond, Order: to.Order,
		})
	}
	for _, f := range r.Header {
		m.Header = append(m.Header, store.Field{Name: f.Name, Value: f.Value})
	}
	if len(r.Key) == 32 {
		m.Idempotency = &store.Idempotency{Key: [32]byte(r.Key), Content: [32]byte(r.Content)}
	}
	return m, nil
}

// line says where a line begins and ends. Its places are numbered from 1, in the order of acceptance.
type line struct {
	head   uint64           // place of the delivery that is in the queue, or holds the line up; tail+1 for none
	tail   uint64           // place of the last behind it, or head
	first  store.DeliveryID // the delivery at head; zero if that is not known
	passed bool             // damaged places have been passed over and are still there
}

// empty reports whether nobody is in the line. It is kept for the places that it has passed over, which nobody else
// may get.
func (l line) empty() bool { return l.head > l.tail }

// lineSize is the length of what encodeLine returns.
const lineSize = 8 + 8 + 16 + 1

func encodeLine(l line) []byte {
	raw := append(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, l.head), l.tail), l.first[:]...)
	if l.passed {
		return append(raw, 1)
	}
	return append(raw, 0)
}

func decodeLine(content []byte) (line, error) {
	if len(content) != lineSize || content[lineSize-1] > 1 {
		return line{}, errors.New("decode line: wrong size or state")
	}
	l := line{
		head: binary.BigEndian.Uint64(content), tail: binary.BigEndian.Uint64(content[8:]),
		first: store.DeliveryID(content[16:]), passed: content[lineSize-1] == 1,
	}
	if l.head == 0 || l.head-1 > l.tail || l.tail == math.MaxUint64 {
		return line{}, errors.New("decode line: field out of range")
	}
	return l, nil
}

// decodeWaiting reads the content of an l value, which is the delivery's id and its encoding, and returns both.
func decodeWaiting(content []byte) (d store.Delivery, raw []byte, err error) {
	if len(content) < len(d.ID) {
		return store.Delivery{}, nil, errors.New("decode delivery: wrong size")
	}
	raw = content[len(d.ID):]
	d, err = decodeDelivery(store.DeliveryID(content[:len(d.ID)]), raw)
	return d, raw, err
}

// batchRecord is the head of a batch.
type batchRecord struct {
	decided        bool // all of it is accepted; else none is
	post, delivery int  // decided: the first that is not in the queue yet
}

func encodeBatch(b batchRecord) []byte {
	raw := []byte{0}
	if b.decided {
		raw[0] = 1
	}
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(raw, uint32(b.post)), uint32(b.delivery))
}

func decodeBatch(content []byte) (batchRecord, error) {
	if len(content) != 9 || content[0] > 1 {
		return batchRecord{}, errors.New("decode batch: wrong size or state")
	}
	return batchRecord{
		decided: content[0] == 1,
		post:    int(binary.BigEndian.Uint32(content[1:])), delivery: int(binary.BigEndian.Uint32(content[5:])),
	}, nil
}

// ahead is a message that has been written ahead, as a part of a batch lists it.
type ahead struct {
	id     store.MessageID
	chunks int
}

func encodePart(list []ahead) []byte {
	raw := make([]byte, 0, len(list)*18)
	for _, a := range list {
		raw = binary.BigEndian.AppendUint16(append(raw, a.id[:]...), uint16(a.chunks))
	}
	return raw
}

func decodePart(content []byte) (list []ahead, err error) {
	for ; len(content) >= 18; content = content[18:] {
		list = append(list, ahead{id: store.MessageID(content[:16]), chunks: int(binary.BigEndian.Uint16(content[16:]))})
		if list[len(list)-1].chunks > maxChunks {
			return nil, errors.New("decode part of a batch: field out of range")
		}
	}
	if len(content) != 0 {
		return nil, errors.New("decode part of a batch: wrong size")
	}
	return list, nil
}

func encodePause(p store.Pause) []byte {
	return append(binary.BigEndian.AppendUint64(nil, stampOf(p.At)), p.Reason...)
}

func decodePause(content []byte) (store.Pause, error) {
	if len(content) < 8 || len(content) > 8+store.MaxReason {
		return store.Pause{}, errors.New("decode pause: wrong size")
	}
	return store.Pause{At: timeOf(binary.BigEndian.Uint64(content)), Reason: string(content[8:])}, nil
}

func encodeOutage(o store.Outage) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, stampOf(o.Since)), stampOf(o.HeldUntil))
}

func decodeOutage(content []byte) (store.Outage, error) {
	if len(content) != 16 {
		return store.Outage{}, errors.New("decode outage: wrong size")
	}
	return store.Outage{
		Since: timeOf(binary.BigEndian.Uint64(content)), HeldUntil: timeOf(binary.BigEndian.Uint64(content[8:])),
	}, nil
}

// commitRecord is what a slot of the commit ring says.
type commitRecord struct {
	seq     uint64 // of the commit group, from 1
	pending int64  // deliveries pending after it
}

func encodeCommit(c commitRecord) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, c.seq), uint64(c.pending))
}

func decodeCommit(content []byte) (commitRecord, error) {
	if len(content) != 16 {
		return commitRecord{}, errors.New("decode commit: wrong size")
	}
	c := commitRecord{seq: binary.BigEndian.Uint64(content), pending: int64(binary.BigEndian.Uint64(content[8:]))}
	if c.seq == 0 || c.pending < 0 {
		return commitRecord{}, errors.New("decode commit: field out of range")
	}
	return c, nil
}
