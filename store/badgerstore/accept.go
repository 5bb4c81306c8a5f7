package badgerstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/postern-relay/postern/store"
)

const (
	inlineBody = 64 << 10  // longer bodies are cut into chunks, so that reading a record does not read them
	chunkSize  = 512 << 10 // bytes of a chunk: with key and checksum well below valueThreshold
	maxChunks  = 128       // a body has at most 64 MiB
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
	entries, chunks, err := encodeAccept(m, body)
	if err != nil {
		return store.Message{}, false, fmt.Errorf("accept message %s: %w", m.ID, err)
	}
	// An earlier message may be swept between being found and being read: then its key is free.
	for range 3 {
		existing, err := s.acceptOnce(ctx, m, entries, chunks)
		if err != nil {
			return store.Message{}, false, fmt.Errorf("accept message %s: %w", m.ID, err)
		}
		if existing == (store.MessageID{}) {
			return m, false, nil
		}
		first, _, err := s.loadMessage(existing)
		if err == nil {
			return first, true, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return store.Message{}, false, fmt.Errorf("accept message %s: %w", m.ID, err)
		}
	}
	return store.Message{}, false, fmt.Errorf("accept message %s: the message of its idempotency key comes and goes", m.ID)
}

// normal checks a message and brings it into the form in which it will be read.
func (s *Store) normal(m store.Message, body []byte) (store.Message, error) {
	switch {
	case m.ID == (store.MessageID{}) || store.DeliveryID(m.ID).Message() != m.ID:
		return store.Message{}, fmt.Errorf("accept message: %w: %x", store.ErrBadID, m.ID[:])
	case len(m.Recipients) > store.MaxDeliveries:
		return store.Message{}, fmt.Errorf("accept message %s: %d recipients: %w", m.ID, len(m.Recipients), store.ErrTooLarge)
	case len(body) > maxChunks*chunkSize:
		return store.Message{}, fmt.Errorf("accept message %s: body of %d bytes: %w", m.ID, len(body), store.ErrTooLarge)
	}
	if m.AcceptedAt.IsZero() {
		m.AcceptedAt = s.now()
	}
	m.AcceptedAt, m.Size = toMillis(m.AcceptedAt), len(body)
	m.Recipients = slices.Clone(m.Recipients)
	for i, r := range m.Recipients {
		if n := len(r.Destination); n == 0 || n > 100 || strings.IndexByte(r.Destination, 0) >= 0 {
			return store.Message{}, fmt.Errorf("accept message %s: recipient %d: bad destination name of %d bytes", m.ID, i, n)
		}
		m.Recipients[i].Delay = r.Delay.Truncate(time.Millisecond)
	}
	if m.Idempotency != nil {
		pair := *m.Idempotency
		m.Idempotency = &pair
	}
	return m, nil
}

// encodeAccept returns all that is written for a message, and apart from it the chunks of its body.
func encodeAccept(m store.Message, body []byte) (entries, chunks []entry, err error) {
	if len(body) > inlineBody {
		for n, piece := range slices.Collect(slices.Chunk(body, chunkSize)) {
			chunks = append(chunks, sealed(chunkKey(m.ID, n), piece))
		}
		body = nil
	}
	head, err := encodeMessage(m, len(chunks))
	if err != nil {
		return nil, nil, err
	}
	if len(head)+len(body) >= valueThreshold-valueOverhead {
		return nil, nil, store.ErrTooLarge
	}
	entries = append(entries, sealed(messageKey(m.ID), head, body))
	for n := range m.Recipients {
		d := m.Delivery(n)
		raw, err := encodeDelivery(d)
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, sealed(queueKey(d.Destination, d.Cursor()), raw))
	}
	if len(m.Recipients) == 0 {
		entries = append(entries, sealed(endedKey(m.AcceptedAt, store.DeliveryID(m.ID))))
	}
	if m.Idempotency != nil {
		entries = append(entries, sealed(idempotencyKey(m.Idempotency.Key), m.ID[:], m.Idempotency.Content[:]))
	}
	return entries, chunks, nil
}

// acceptOnce writes a message, or returns the id of the earlier one.
func (s *Store) acceptOnce(ctx context.Context, m store.Message, entries, chunks []entry) (existing store.MessageID, err error) {
	var found store.MessageID // the committer's until it has answered
	check := func(g *group) (bool, error) {
		earlier, err := findEarlier(g, m)
		if err != nil || earlier != (store.MessageID{}) {
			found = earlier
			return false, err
		}
		// Only now, since a post that is made again takes no room.
		if g.low {
			return false, store.ErrNoSpace
		}
		n := int64(len(m.Recipients))
		if n > 0 && g.base+g.pending+n > s.maxPending {
			return false, store.ErrBacklog
		}
		return true, nil
	}
	size, count := cost(slices.Concat(entries, chunks)...)
	ahead := size > s.maxGroupSize && len(chunks) > 0
	if ahead {
		begun := false
		defer func() {
			if begun && (err != nil || existing != (store.MessageID{})) {
				// What was written ahead is not wanted. If this fails too, the next start does it.
				_ = s.removeChunks(context.WithoutCancel(ctx), m.ID, len(chunks))
			}
		}()
		if begun, err = s.writeAhead(ctx, m.ID, chunks, check); err != nil {
			return store.MessageID{}, err
		}
		if !begun {
			return found, nil
		}
		size, count = cost(entries...)
	} else {
		entries = slices.Concat(entries, chunks)
	}
	err = s.submit(ctx, &request{size: size, entries: count + 1, accepts: true, stage: func(g *group) error {
		if ok, err := check(g); !ok {
			return err
		}
		for _, e := range entries {
			g.put(e.key, e.value)
		}
		if ahead {
			g.remove(orphanKey(m.ID))
		}
		g.pending += int64(len(m.Recipients))
		return nil
	}})
	if err != nil {
		return store.MessageID{}, err
	}
	return found, nil
}

// findEarlier returns the id of the message that was accepted under m's idempotency key, or the zero id.
func findEarlier(g *group, m store.Message) (store.MessageID, error) {
	if m.Idempotency == nil {
		return store.MessageID{}, nil
	}
	raw, err := g.get(idempotencyKey(m.Idempotency.Key))
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

// writeAhead writes the chunks of a body that is too long for one transaction, under a mark that names them as long
// as their message is not there. If check refuses the first of them, nothing is written, and begun is false.
func (s *Store) writeAhead(ctx context.Context, id store.MessageID, chunks []entry, check func(*group) (bool, error)) (begun bool, err error) {
	perGroup := int(max(1, s.maxGroupSize/(chunkSize+1024)))
	mark := sealed(orphanKey(id), binary.BigEndian.AppendUint16(nil, uint16(len(chunks))))
	wanted := false // the committer's until it has answered
	for part := range slices.Chunk(chunks, perGroup) {
		part, first := slices.Clone(part), !begun
		if first {
			part = append(part, mark)
		}
		size, count := cost(part...)
		err := s.submit(ctx, &request{size: size, entries: count, accepts: true, stage: func(g *group) error {
			if first {
				if ok, err := check(g); !ok {
					return err
				}
				wanted = true
			} else if g.low {
				return store.ErrNoSpace
			}
			for _, e := range part {
				g.put(e.key, e.value)
			}
			return nil
		}})
		if ctxErr := ctx.Err(); ctxErr != nil {
			return true, ctxErr // what was asked for may be written all the same
		}
		if s.Err() == nil && !wanted {
			return false, err
		}
		begun = true
		if err != nil {
			return true, err
		}
	}
	return true, nil
}

// removeChunks deletes what writeAhead wrote, unless the message has come after all: the one who asks may not know.
func (s *Store) removeChunks(ctx context.Context, id store.MessageID, chunks int) error {
	keys := [][]byte{orphanKey(id)}
	for n := range chunks {
		keys = append(keys, chunkKey(id, n))
	}
	return s.removeKeys(ctx, keys, func(g *group) (bool, error) {
		m, err := g.get(messageKey(id))
		return m == nil && err == nil, err
	})
}

// removeKeys deletes keys in one group, if check allows it.
func (s *Store) removeKeys(ctx context.Context, keys [][]byte, check func(*group) (bool, error)) error {
	var size int64
	for _, key := range keys {
		size += int64(len(key)) + entryOverhead
	}
	// As much again is for what check may write.
	return s.submit(ctx, &request{size: 2 * size, entries: 2 * int64(len(keys)), stage: func(g *group) error {
		if ok, err := check(g); !ok {
			return err
		}
		for _, key := range keys {
			g.remove(key)
		}
		return nil
	}})
}

// deleteOrphans deletes the chunks whose message never came: their writer ended between two transactions.
func (s *Store) deleteOrphans() error {
	found := make(map[store.MessageID]int)
	err := s.db.View(func(txn *badger.Txn) error {
		return scan(txn, []byte{kindOrphan}, nil, func(key, content []byte) (bool, error) {
			if len(key) != 1+16 || len(content) != 2 {
				return false, fmt.Errorf("read %s: %w", describe(key), errBadKey)
			}
			found[store.MessageID(key[1:])] = int(binary.BigEndian.Uint16(content))
			return true, nil
		})
	})
	if err != nil {
		return fmt.Errorf("delete unfinished bodies: %w", err)
	}
	for id, chunks := range found {
		if err := s.removeChunks(context.Background(), id, chunks); err != nil {
			return fmt.Errorf("delete unfinished bodies: %w", err)
		}
	}
	return nil
}
