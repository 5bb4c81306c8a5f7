package badgerstore

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/store"
)

// FuzzRestore restores a backup whose sums are right and whose records are anything. It is refused and leaves nothing, or it
// makes a store that is refused, or that opens, answers whatever is asked of it, and says the same when it is opened again.
func FuzzRestore(f *testing.F) {
	id, err := store.NewMessageID()
	mustDo(f, err)
	m := store.Message{ID: id, Event: "a.b", AcceptedAt: time.Unix(1, 0).UTC(), Size: 1, Recipients: []store.Recipient{
		{Destination: "x"}, {Destination: "x", Order: "k"},
	}}
	head := encodeMessage(storedMessage{Message: m, kept: 1})
	ended := m.Delivery(0)
	ended.State, ended.EndedAt, ended.DueAt = store.Delivered, time.Unix(2, 0), time.Time{}
	first, second := m.Delivery(0), m.Delivery(1)
	keys := [][]byte{
		messageKey(id), chunkKey(id, 0), deliveryKey(first.ID), deliveryKey(second.ID), queueKey("x", first.Cursor()), lineKey(kindLine, "x", "k"),
		endedKey(time.Unix(2, 0), first.ID), destinationIndexKey("x", first.ID), eventIndexKey("a.b", id), stateIndexKey(store.Delivery{ID: first.ID, State: store.Failed}),
		attemptKey(first.ID, 1, 1), idempotencyKey([32]byte{1}), batchKey(id), pauseKey("x"), outageKey("x"), {kindSkew},
	}
	f.Add(uint8(0), append(head, 'x'), uint8(2), encodeDelivery(first))
	f.Add(uint8(0), append(head, 'x'), uint8(2), encodeDelivery(ended))
	f.Add(uint8(0), append(head, 'x'), uint8(4), encodeDelivery(first))
	f.Add(uint8(0), append(head, 'x'), uint8(5), encodeLine(line{head: 3, tail: 9, first: second.ID}))
	f.Add(uint8(0), append(head, 'x'), uint8(6), []byte{})
	f.Add(uint8(2), encodeDelivery(ended), uint8(7), []byte{})
	f.Add(uint8(4), []byte{1}, uint8(7), []byte{1})
	f.Add(uint8(0), append(head, 'x'), uint8(12), encodeBatch(batchRecord{decided: true, post: 2, delivery: 3}))
	f.Add(uint8(13), encodePause(store.Pause{At: time.Unix(1, 0), Reason: "gone"}), uint8(15), []byte{1})
	f.Add(uint8(14), encodeOutage(store.Outage{Since: time.Unix(1, 0)}), uint8(15), []byte("12345678"))
	f.Add(uint8(10), encodeAttempt(store.Attempt{Class: store.ClassOK}), uint8(11), id[:])
	f.Fuzz(func(t *testing.T, n1 uint8, value1 []byte, n2 uint8, value2 []byte) {
		key1, key2 := keys[int(n1)%len(keys)], keys[int(n2)%len(keys)]
		switch bytes.Compare(key1, key2) {
		case 0:
			return
		case 1:
			key1, value1, key2, value2 = key2, value2, key1, value1
		}
		var out bytes.Buffer
		w, err := newBackupWriter(&out, mustKeyring(t), backupHeader{CreatedAt: time.Unix(3, 0), Format: formatVersion})
		mustDo(t, err)
		if w.put(key1, value1) != nil || w.put(key2, value2) != nil || w.end() != nil {
			return // more than there can be
		}
		path := filepath.Join(t.TempDir(), "new")
		if _, err := Restore(t.Context(), RestoreOptions{From: &out, Path: path}); err != nil {
			left(t, path)
			return
		}
		said, err := ask(t, path)
		again, againErr := ask(t, path)
		if again != said || (err == nil) != (againErr == nil) {
			t.Errorf("opened again, the store says %+v, %v; and before %+v, %v", again, againErr, said, err)
		}
	})
}

// answers are what a store says of itself.
type answers struct {
	pending  int64
	waiting  int
	listed   int
	exported int
}

// ask opens a store and asks it everything that a relay asks at a start and for a list. Its error is that of Open.
func ask(t *testing.T, path string) (a answers, err error) {
	t.Helper()
	s, err := Open(Options{Path: path, Log: zap.NewNop()})
	if err != nil {
		return a, err
	}
	defer func() { mustDo(t, s.Close()) }()
	a.pending = s.Pending()
	names, err := s.PendingDestinations(t.Context())
	mustDo(t, err)
	for _, name := range append(names, "x") {
		all, err := s.Due(t.Context(), name, store.Cursor{}, 100)
		mustDo(t, err)
		a.waiting += len(all)
		for _, d := range all {
			if d.State != store.Pending || d.Destination != name {
				t.Errorf("Due(%q): got %+v", name, d)
			}
		}
	}
	for _, f := range []store.Filter{{}, {Destination: "x"}, {State: store.Failed}, {State: store.Pending}, {Event: "a.b"}, {Text: "a"}} {
		found, _, err := s.Deliveries(t.Context(), f, store.Place{}, 100)
		mustDo(t, err)
		a.listed += len(found)
	}
	_, err = s.Backlog(t.Context())
	mustDo(t, err)
	_, err = s.Paused(t.Context())
	mustDo(t, err)
	_, err = s.Outages(t.Context())
	mustDo(t, err)
	for x, err := range s.Export(t.Context(), store.Filter{}, func(error) {}) {
		mustDo(t, err)
		if err := store.CheckExported(x); err != nil && !errors.Is(err, store.ErrInvalid) && !errors.Is(err, store.ErrBadID) {
			t.Errorf("Export: %v", err)
		}
		a.exported++
	}
	return a, nil
}

// FuzzImported reads an export and encodes its messages for the store: what is taken is decoded as it was.
func FuzzImported(f *testing.F) {
	s := mustOpen(f, Options{Path: f.TempDir(), Log: zap.NewNop()})
	id, err := store.NewMessageID()
	mustDo(f, err)
	m, _, err := s.Accept(f.Context(), store.Message{
		ID: id, Event: "a.b", ContentType: "text/plain", Key: "k", Path: "/a?b", Header: []store.Field{{Name: "X-A", Value: "b"}},
		Recipients: []store.Recipient{{Destination: "x", Order: "k"}, {Destination: "y"}}, Idempotency: &store.Idempotency{Key: [32]byte{1}},
	}, []byte("{}"))
	mustDo(f, err)
	after, a := m.Delivery(0), store.Attempt{Delivery: m.Delivery(0).ID, Round: 1, Number: 1, StartedAt: m.AcceptedAt, Class: store.ClassTimeout}
	after.Made, after.Attempts, after.BegunAt = 1, 1, m.AcceptedAt
	_, err = s.Record(f.Context(), m.Delivery(0), after, a)
	mustDo(f, err)
	var out bytes.Buffer
	_, err = store.WriteExport(f.Context(), &out, s, store.ExportOptions{At: time.Unix(3, 0)})
	mustDo(f, err)
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := store.ReadExport(bytes.NewReader(raw))
		if err != nil {
			return
		}
		for x, err := range r.Messages() {
			if err != nil {
				return
			}
			in, err := newIncoming(x)
			if err != nil {
				continue
			}
			last := in.message[len(in.message)-1]
			content, err := unseal(last.key, last.value)
			if err != nil {
				t.Fatalf("unseal: %v", err)
			}
			got, err := decodeMessage(x.Message.ID, content)
			if err != nil || got.ID != x.Message.ID || got.Event != x.Message.Event || got.Size != x.Message.Size || len(got.Recipients) != len(x.Message.Recipients) {
				t.Errorf("got %+v, error %v; want %+v", got, err, x.Message)
			}
			for n, one := range in.states {
				d, err := decodeDelivery(x.Deliveries[n].ID, one.raw)
				if err != nil || d.State != x.Deliveries[n].State || d.Made != x.Deliveries[n].Made || !d.DueAt.Equal(x.Deliveries[n].DueAt) {
					t.Errorf("delivery %d: got %+v, error %v; want %+v", n, d, err, x.Deliveries[n].Delivery)
				}
				if len(one.attempts) != len(x.Deliveries[n].History) {
					t.Errorf("delivery %d: got %d attempts, want %d", n, len(one.attempts), len(x.Deliveries[n].History))
				}
			}
		}
	})
}
