package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-relay/postern/store"
)

const (
	inlineBody = 64 << 10  // longer bodies are cut into chunks, so that reading a record does not read them
	chunkSize  = 512 << 10 // bytes of a chunk: with key and checksum well below valueThreshold
	maxChunks  = 128       // a body has at most 64 MiB

	maxDelivery = 64 << 10 // bytes of the record of a delivery
)

// entry is a key with its sealed value.
type entry struct{ key, value []byte }

func sealed(key []byte, content ...[]byte) entry { return entry{key, seal(key, content...)} }

// cost returns what entries count for in a request.
func cost(entries ...entry) (size, count int64) {
	for _, e := range entries {
		size += int64(len(e.key)+len(e.value)) + entryOverhead
	}
	return size, int64(len(entries))
}

// Accept implements store.Acceptor. A body may have up to 64 MiB, and a message without it about 512 KiB.
func (s *Store) Accept(ctx context.Context, m store.Message, body []byte) (store.Message, bool, error) {
	if err := s.begin(ctx); err != nil {
		return store.Message{}, false, err
	}
	defer s.use.RUnlock()
	m, err := s.normal(m, body)
	if err != nil {
		return store.Message{}, false, err
	}
	earlier, err := s.acceptOne(ctx, m, body)
	if err != nil {
		return store.Message{}, false, fmt.Errorf("accept message %s: %w", m.ID, err)
	}
	if earlier != nil {
		return *earlier, true, nil
	}
	return m, false, nil
}

// acceptOne writes a message, or returns the earlier one.
func (s *Store) acceptOne(ctx context.Context, m store.Message, body []byte) (*store.Message, error) {
	r, earlier, err := s.acceptRequest(m, body)
	if err != nil {
		return nil, err
	}
	if !s.fits(r.size, r.entries) {
		return s.acceptLong(ctx, m, body)
	}
	if err := s.submit(ctx, r); err != nil {
		return nil, err
	}
	return *earlier, nil
}

// fits reports whether one group takes so much.
func (s *Store) fits(size, entries int64) bool {
	return size <= s.maxGroupSize && entries <= s.maxGroupEntries
}

// acceptRequest returns what Accept asks of the committer, and where that puts the earlier message of the same key, or
// nil. It may be too much for one group.
func (s *Store) acceptRequest(m store.Message, body []byte) (r *request, earlier **store.Message, err error) {
	var entries []entry
	err = encodeAccept(storedMessage{Message: m}, body, func(e entry) error {
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	raws, err := encodeDeliveries(m)
	if err != nil {
		return nil, nil, err
	}
	size, count := cost(entries...)
	for n := range raws {
		size += queueCost(m.Recipients[n], raws[n])
	}
	size, count = size+identifyCost, count+queueCount*int64(len(raws))+identifyCount
	earlier = new(*store.Message) // what it points to is the committer's until it has answered
	return &request{size: size, entries: count, stage: func(g *group) error {
		found, err := findEarlier(g, m)
		*earlier = found
		if err != nil || found != nil {
			return err
		}
		// Only now, since a post that is made again takes no room.
		if g.low {
			return s.noSpace(s.reserve)
		}
		if err := s.checkBacklog(g, int64(len(raws))); err != nil {
			return err
		}
		if err := g.checkLines(m); err != nil {
			return err
		}
		for _, e := range entries {
			g.put(e.key, e.value)
		}
		g.identify(m)
		for n, raw := range raws {
			g.enqueue(m.Delivery(n), raw)
		}
		return nil
	}}, earlier, nil
}

// checkBacklog refuses n more deliveries if they are too many.
func (s *Store) checkBacklog(g *group, n int64) error {
	if n > 0 && g.base+g.pending+n > s.maxPending {
		return store.ErrBacklog
	}
	return nil
}

// checkLines reads the lines of a message, so that what cannot be read refuses it alone.
func (g *group) checkLines(m store.Message) error {
	for _, to := range m.Recipients {
		if to.Order == "" {
			continue
		}
		if _, _, err := g.readLine(lineKey(kindLine, to.Destination, to.Order)); err != nil {
			return err
		}
	}
	return nil
}

// What identify writes, at most.
const (
	identifyCost  = 1 + 32 + 16 + 32 + valueOverhead + 2 + 16 + 16 + 1 + 8 + valueOverhead + 3*entryOverhead
	identifyCount = 3
)

// identify writes what a message stands under besides its queues: its idempotency key, its event, and if nobody gets
// it, the entry for the sweep instead.
func (g *group) identify(m store.Message) {
	if m.Idempotency != nil {
		g.set(idempotencyKey(m.Idempotency.Key), m.ID[:], m.Idempotency.Content[:])
	}
	if len(m.Recipients) == 0 {
		g.set(endedKey(m.AcceptedAt, store.DeliveryID(m.ID)))
		return
	}
	if m.Event != "" {
		g.put(eventIndexKey(m.Event, m.ID), nil)
	}
	g.noteSkew(m)
}

// normal checks a message and brings it into the form in which it will be read.
func (s *Store) normal(m store.Message, body []byte) (store.Message, error) {
	switch {
	case m.ID == (store.MessageID{}) || store.DeliveryID(m.ID).Message() != m.ID:
		return store.Message{}, fmt.Errorf("accept message: %w: %x", store.ErrBadID, m.ID[:])
	case len(m.Recipients) > store.MaxDeliveries:
		return store.Message{}, fmt.Errorf("accept message %s: %d recipients: %w", m.ID, len(m.Recipients), store.ErrTooLarge)
	case len(m.Key) > store.MaxKey:
		return store.Message{}, fmt.Errorf("accept message %s: ordering key of %d bytes", m.ID, len(m.Key))
	case len(body) > maxChunks*chunkSize:
		return store.Message{}, fmt.Errorf("accept message %s: body of %d bytes: %w", m.ID, len(body), store.ErrTooLarge)
	}
	if m.AcceptedAt.IsZero() {
		m.AcceptedAt = s.now()
	}
	m.AcceptedAt, m.Size, m.Reduced = toMillis(m.AcceptedAt), len(body), false
	m.Recipients, m.Header = slices.Clone(m.Recipients), append([]store.Field(nil), m.Header...)
	for i, r := range m.Recipients {
		if err := checkName(r.Destination); err != nil {
			return store.Message{}, fmt.Errorf("accept message %s: recipient %d: %w", m.ID, i, err)
		}
		if n := len(r.Order); n > store.MaxKey+1 {
			return store.Message{}, fmt.Errorf("accept message %s: recipient %d: bad order of %d bytes", m.ID, i, n)
		}
		m.Recipients[i].Delay = r.Delay.Truncate(time.Millisecond)
	}
	if m.Idempotency != nil {
		pair := *m.Idempotency
		m.Idempotency = &pair
	}
	return m, nil
}

// checkName refuses what cannot be part of a key.
func checkName(destination string) error {
	if n := len(destination); n == 0 || n > 100 || strings.IndexByte(destination, 0) >= 0 {
		return fmt.Errorf("bad destination name of %d bytes", n)
	}
	return nil
}

// encodeAccept makes the record of a message and the chunks of its body, and hands each to put, the record last.
func encodeAccept(m storedMessage, body []byte, put func(entry) error) error {
	m.chunks = chunksOf(body)
	inline := body
	if m.chunks > 0 {
		inline = nil
	}
	head := encodeMessage(m)
	if len(head)+len(inline) >= valueThreshold-valueOverhead-lockedOverhead {
		return store.ErrTooLarge
	}
	for n := range m.chunks {
		if err := put(sealed(chunkKey(m.ID, n), body[n*chunkSize:min(len(body), (n+1)*chunkSize)])); err != nil {
			return err
		}
	}
	return put(sealed(messageKey(m.ID), head, inline))
}

// chunksOf returns how many chunks a body is cut into, 0 if it is short.
func chunksOf(body []byte) int {
	if len(body) <= inlineBody {
		return 0
	}
	return (len(body) + chunkSize - 1) / chunkSize
}

// encodeDeliveries returns the deliveries of a message as they are queued.
func encodeDeliveries(m store.Message) ([][]byte, error) {
	raws := make([][]byte, len(m.Recipients))
	for n := range raws {
		raw, err := encodePending(m.Delivery(n))
		if err != nil {
			return nil, err
		}
		raws[n] = raw
	}
	return raws, nil
}

// queueCount is how many keys enqueue writes for a delivery, at most.
const queueCount = 3

// queueCost is what enqueue writes for a delivery, at most.
func queueCost(to store.Recipient, raw []byte) int64 {
	size := int64(1+len(to.Destination)+1+8+16+valueOverhead+len(raw)) + entryOverhead
	size += int64(2+len(to.Destination)+1+16) + entryOverhead
	if to.Order != "" {
		size += valueOverhead + 8 + int64(16) + int64(1+len(to.Destination)+1+lineHash+valueOverhead+lineSize) + entryOverhead
	}
	return size
}

// encodePending encodes a delivery that goes into the queue or comes out of it, within the bound that a group counts on.
func encodePending(d store.Delivery) ([]byte, error) {
	raw := encodeDelivery(d)
	if len(raw) > maxDelivery {
		return nil, fmt.Errorf("delivery of %d bytes: %w", len(raw), store.ErrTooLarge)
	}
	return raw, nil
}

// findEarlier returns the message that was accepted under m's idempotency key, or nil.
func findEarlier(g *group, m store.Message) (*store.Message, error) {
	id, err := earlierID(g.txn, m)
	if err != nil || id == (store.MessageID{}) {
		return nil, err
	}
	earlier, err := readMessage(g.txn, id)
	if err != nil {
		return nil, fmt.Errorf("read message %s of the same key: %w", id, err)
	}
	return &earlier.Message, nil
}

// earlierID returns the id of the message that was accepted under m's idempotency key, or the zero id.
func earlierID(txn *view, m store.Message) (store.MessageID, error) {
	if m.Idempotency == nil {
		return store.MessageID{}, nil
	}
	raw, err := get(txn, idempotencyKey(m.Idempotency.Key))
	if err != nil || raw == nil {
		return store.MessageID{}, err
	}
	if len(raw) != 16+32 {
		return store.MessageID{}, errors.New("read idempotency key: wrong size")
	}
	if !bytes.Equal(raw[16:], m.Idempotency.Content[:]) {
		return store.MessageID{}, store.ErrKeyConflict
	}
	return store.MessageID(raw[:16]), nil
}

// removeKeys deletes keys in one group, if check allows it.
func (s *Store) removeKeys(submit func(*request) error, keys [][]byte, check func(*group) (bool, error)) error {
	var size int64
	for _, key := range keys {
		size += int64(len(key)) + entryOverhead
	}
	return submit(&request{size: size, entries: int64(len(keys)), stage: func(g *group) error {
		if ok, err := check(g); !ok {
			return err
		}
		g.removeAll(keys)
		return nil
	}})
}
