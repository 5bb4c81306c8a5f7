package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

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

// encodeMessage returns the content of an m value without the body, which follows it:
//
//	<reduced 1> <has an idempotency key 1> <is part of a batch 1>
//	event, content type, ordering key, path, accepted at, size, chunks, hops, bytes kept of a reduced body
//	number of recipients, then of each: destination, delay in milliseconds, order
//	number of header fields, then of each: name, value
//	<digest of the idempotency key 32> <of its content 32>, if it has one
//	<id of the batch 16>, if it is part of one
func encodeMessage(m storedMessage) []byte {
	f := make(fields, 0, 256)
	f.flag(m.Reduced)
	f.flag(m.Idempotency != nil)
	f.flag(m.batch != store.MessageID{})
	f.text(m.Event)
	f.text(m.ContentType)
	f.text(m.Key)
	f.text(m.Path)
	f.time(m.AcceptedAt)
	for _, n := range [...]int{m.Size, m.chunks, m.Hops, m.kept} {
		f.int(n)
	}
	f.uint(uint64(len(m.Recipients)))
	for _, to := range m.Recipients {
		f.text(to.Destination)
		f.millis(to.Delay)
		f.text(to.Order)
	}
	f.header(m.Header)
	if m.Idempotency != nil {
		f = append(append(f, m.Idempotency.Key[:]...), m.Idempotency.Content[:]...)
	}
	if m.batch != (store.MessageID{}) {
		f = append(f, m.batch[:]...)
	}
	return f
}

// decodeMessage reads the content of an m value.
func decodeMessage(id store.MessageID, content []byte) (storedMessage, error) {
	r := reading{rest: content}
	m := storedMessage{Message: store.Message{ID: id, Reduced: r.flag()}}
	identified, batched := r.flag(), r.flag()
	for _, text := range [...]*string{&m.Event, &m.ContentType, &m.Key, &m.Path} {
		*text = r.text()
	}
	m.AcceptedAt = r.time()
	for _, n := range [...]*int{&m.Size, &m.chunks, &m.Hops, &m.kept} {
		*n = r.int()
	}
	n := r.count()
	if n > store.MaxDeliveries {
		return storedMessage{}, errors.New("decode message: too many recipients")
	}
	for range n {
		m.Recipients = append(m.Recipients, store.Recipient{Destination: r.text(), Delay: r.millis(), Order: r.text()})
	}
	m.Header = r.header()
	if identified {
		m.Idempotency = &store.Idempotency{}
		r.fill(m.Idempotency.Key[:])
		r.fill(m.Idempotency.Content[:])
	}
	if batched {
		r.fill(m.batch[:])
	}
	m.body = r.rest
	switch {
	case r.bad, m.Size < 0, m.kept < 0, !m.Reduced && m.kept != 0, m.chunks < 0, m.chunks > maxChunks:
		return storedMessage{}, fmt.Errorf("decode message: %w", errFields)
	case m.chunks == 0 && m.length() != len(m.body), m.chunks > 0 && len(m.body) > 0:
		return storedMessage{}, errors.New("decode message: body has another size")
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
