package badgerstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

func TestStamp(t *testing.T) {
	for name, c := range map[string]struct{ in, want time.Time }{
		"zero":          {time.Time{}, time.Time{}},
		"epoch":         {time.Unix(0, 0), time.Unix(0, 0).UTC()},
		"before it":     {time.Unix(-1, 1_999_999), time.Unix(-1, 1_000_000).UTC()},
		"milliseconds":  {time.Unix(1, 1_999_999), time.Unix(1, 1_000_000).UTC()},
		"before year 1": {time.Time{}.Add(-time.Hour), time.Time{}},
	} {
		if got := toMillis(c.in); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestKeysSort(t *testing.T) {
	id := newMessage(t).ID
	at := func(ms int64, n int) store.Cursor {
		return store.Cursor{DueAt: time.UnixMilli(ms), ID: id.Delivery(n)}
	}
	ordered := [][]byte{
		queueKey("a", store.Cursor{}), queueKey("a", at(-1, 5)), queueKey("a", at(0, 4)), queueKey("a", at(0, 5)),
		queueKey("a", at(math.MaxInt32, 0)), queueKey("a\x01", store.Cursor{}), queueKey("a.b", store.Cursor{}), queueKey("b", at(1, 1)),
	}
	if !slices.IsSortedFunc(ordered, bytes.Compare) {
		t.Errorf("got %x, want them in order", ordered)
	}
}

func TestUnseal(t *testing.T) {
	key := messageKey(store.MessageID{1})
	value := seal(key, []byte("some "), []byte("content"))
	t.Run("what was sealed comes back", func(t *testing.T) {
		if got, err := unseal(key, value); err != nil || string(got) != "some content" {
			t.Errorf("got %q, error %v", got, err)
		}
	})
	t.Run("any flipped bit is noticed", func(t *testing.T) {
		for bit := range len(value) * 8 {
			bad := bytes.Clone(value)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, err := unseal(key, bad); !errors.Is(err, errChecksum) {
				t.Fatalf("bit %d: got error %v, want errChecksum", bit, err)
			}
		}
	})
	t.Run("a value belongs to its key, and has its length", func(t *testing.T) {
		if _, err := unseal(messageKey(store.MessageID{2}), value); !errors.Is(err, errChecksum) {
			t.Errorf("under another key: got error %v, want errChecksum", err)
		}
		for n := range len(value) {
			if _, err := unseal(key, value[:n]); !errors.Is(err, errChecksum) {
				t.Errorf("cut to %d: got error %v, want errChecksum", n, err)
			}
		}
	})
	t.Run("another format is refused", func(t *testing.T) {
		other := append([]byte{2}, "content"...)
		sum := seal(key, []byte("content"))
		if _, err := unseal(key, append(other, sum[len(sum)-4:]...)); err == nil {
			t.Error("got no error")
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	id := store.MessageID{1}
	f.Add(queueKey("alerts", store.Cursor{DueAt: time.Unix(1, 0), ID: id.Delivery(0)}))
	f.Add(endedKey(time.Unix(1, 0), id.Delivery(0)))
	f.Add(lineKey(kindLine, "alerts", "a"))
	f.Add([]byte("q"))
	f.Add(destinationIndexKey("alerts", id.Delivery(0)))
	f.Add(eventIndexKey("a.b", id))
	f.Add(stateIndexKey(store.Delivery{ID: id.Delivery(0), State: store.Failed}))
	f.Fuzz(func(t *testing.T, key []byte) {
		describe(key)
		if name, at, err := parseQueueKey(key); err == nil && binary.BigEndian.Uint64(key[len(key)-24:]) < 1<<62 {
			if back := queueKey(name, at); !bytes.Equal(back, key) {
				t.Errorf("parseQueueKey(%x): back as %x", key, back)
			}
		}
		if name, err := parseLineKey(key); err == nil && !bytes.HasPrefix(key, destinationPrefix(key[0], name)) {
			t.Errorf("parseLineKey(%x): %q", key, name)
		}
		if at, id, err := parseEndedKey(key); err == nil && binary.BigEndian.Uint64(key[1:]) < 1<<62 {
			if back := endedKey(at, id); !bytes.Equal(back, key) {
				t.Errorf("parseEndedKey(%x): back as %x", key, back)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	m := store.Message{Event: "a.b", AcceptedAt: time.Unix(1, 0).UTC(), Size: 1, Idempotency: &store.Idempotency{}, Key: "k",
		Recipients: []store.Recipient{{Destination: "x", Order: "kk"}}, Path: "/a?b", Header: []store.Field{{Name: "A", Value: "b"}}}
	head := encodeMessage(storedMessage{Message: m, batch: store.MessageID{7}})
	reduced := m
	reduced.Reduced, reduced.Size = true, 7
	other := encodeMessage(storedMessage{Message: reduced, kept: 1})
	after := m.Delivery(0)
	after.State, after.Blocking, after.Reason = store.Failed, true, "used up"
	after.Attempts, after.Made, after.BegunAt, after.EndedAt = 1, 1, time.Unix(2, 0), time.Unix(3, 0)
	after.Last = store.Outcome{At: time.Unix(2, 0), Class: store.ClassTimeout, Status: 504, Error: "late"}
	d := encodeDelivery(m.Delivery(0))
	a := encodeAttempt(store.Attempt{Class: store.ClassOK, Probe: true, Header: map[string][]string{"A": {"b"}, "Date": {"c", "d"}},
		Request: store.Sent{Method: "POST", URL: "https://a", Header: []store.Field{{Name: "Host", Value: "b"}}, Body: []byte("x"), Rendered: true}})
	f.Add(append(head, 'x'))
	f.Add(append(other, 'y'))
	f.Add(d)
	f.Add(encodeDelivery(after))
	f.Add(a)
	f.Add(encodeCommit(commitRecord{seq: 1, pending: 2}))
	f.Add(encodeLine(line{head: 3, tail: 9, first: store.DeliveryID{5}}))
	f.Add(encodeLine(line{head: 10, tail: 9, passed: true}))
	f.Add(append(make([]byte, 16), d...))
	f.Add(encodeBatch(batchRecord{decided: true, post: 2, delivery: 3}))
	f.Add(encodePart([]ahead{{id: store.MessageID{1}, chunks: 2}, {id: store.MessageID{2}}}))
	f.Add(encodePause(store.Pause{At: time.Unix(1, 0), Reason: "gone"}))
	f.Add(encodeOutage(store.Outage{Since: time.Unix(1, 0), HeldUntil: time.Unix(2, 0)}))
	f.Add(encodeSide(7))
	f.Add(append(encodeSide(7), encodeSide(8)...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if m, err := decodeMessage(store.MessageID{1}, raw); err == nil {
			again := encodeMessage(m)
			back, err := decodeMessage(m.ID, append(again, m.body...))
			if err != nil || !reflect.DeepEqual(back, m) {
				t.Errorf("message: got %+v, error %v; want %+v", back, err, m)
			}
		}
		if d, err := decodeDelivery(store.DeliveryID{1}, raw); err == nil {
			again := encodeDelivery(d)
			if back, err := decodeDelivery(d.ID, again); err != nil || back != d {
				t.Errorf("delivery: got %+v, error %v; want %+v", back, err, d)
			}
		}
		if a, err := decodeAttempt(attemptKey(store.DeliveryID{1}, 1, 1), raw); err == nil {
			again := encodeAttempt(a)
			if back, err := decodeAttempt(attemptKey(a.Delivery, 1, 1), again); err != nil || !reflect.DeepEqual(back, a) {
				t.Errorf("attempt: got %+v, error %v; want %+v", back, err, a)
			}
		}
		if c, err := decodeCommit(raw); err == nil && !bytes.Equal(encodeCommit(c), raw) {
			t.Errorf("commit: %+v does not read back", c)
		}
		if l, err := decodeLine(raw); err == nil && !bytes.Equal(encodeLine(l), raw) {
			t.Errorf("line: %+v does not read back", l)
		}
		if b, err := decodeBatch(raw); err == nil && !bytes.Equal(encodeBatch(b), raw) {
			t.Errorf("batch: %+v does not read back", b)
		}
		if list, err := decodePart(raw); err == nil && !bytes.Equal(encodePart(list), raw) {
			t.Errorf("part: %+v does not read back", list)
		}
		if d, again, err := decodeWaiting(raw); err == nil {
			if back, err := decodeDelivery(d.ID, again); err != nil || back != d {
				t.Errorf("place in a line: got %+v, error %v; want %+v", back, err, d)
			}
		}
		if p, err := decodePause(raw); err == nil {
			if back, err := decodePause(encodePause(p)); err != nil || back != p {
				t.Errorf("pause: got %+v, error %v; want %+v", back, err, p)
			}
		}
		if o, err := decodeOutage(raw); err == nil {
			if back, err := decodeOutage(encodeOutage(o)); err != nil || back != o {
				t.Errorf("outage: got %+v, error %v; want %+v", back, err, o)
			}
		}
		if seq, slot, ok := decodeSide(raw); ok && !bytes.Equal(raw[slot*sideSlot:][:sideSlot], encodeSide(seq)) {
			t.Errorf("side file: %d in slot %d does not read back", seq, slot)
		}
		_, _ = unseal([]byte("k"), raw)
	})
}

func TestNamesOfHeaders(t *testing.T) {
	if !slices.IsSorted(names[:]) {
		t.Error("names are not in order, and are found by a binary search")
	}
	for _, name := range names {
		if http.CanonicalHeaderKey(name) != name {
			t.Errorf("%s: net/http writes %s", name, http.CanonicalHeaderKey(name))
		}
	}
	for _, name := range append(names[:], "X-Own", "", "date") {
		var f fields
		f.name(name)
		r := reading{rest: f}
		if got := r.name(); got != name || r.end() != nil {
			t.Errorf("%q: got %q, %v", name, got, r.end())
		}
	}
}

func TestHeads(t *testing.T) {
	prefix := queuePrefix("alerts")
	key := func(n int64) []byte { return queueKey("alerts", store.Cursor{DueAt: time.UnixMilli(n)}) }
	begin := append(key(math.MinInt32), 0)
	setup := func(first int64) *heads {
		h := newHeads(func(key []byte) int { return len(key) - 24 })
		_, w := h.begin(prefix, begin, true)
		h.end(prefix, w, key(first), true)
		return h
	}
	seeks := func(t *testing.T, h *heads, want []byte) {
		t.Helper()
		got, w := h.begin(prefix, begin, true)
		if w != nil {
			h.end(prefix, w, nil, false)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("seek: got %x, want %x", got, want)
		}
	}
	t.Run("a queue begins where the last walk found its first", func(t *testing.T) { seeks(t, setup(50), key(50)) })
	t.Run("a key before the head becomes the head", func(t *testing.T) {
		h := setup(50)
		h.inserted([][]byte{key(40), key(60)})
		seeks(t, h, key(40))
	})
	t.Run("a key that comes in during a walk is not passed over", func(t *testing.T) {
		h := setup(50)
		_, w := h.begin(prefix, begin, true)
		h.inserted([][]byte{key(55), key(70)})
		h.end(prefix, w, key(60), true)
		seeks(t, h, key(55))
	})
	t.Run("a key that comes in while an empty queue is walked is not passed over", func(t *testing.T) {
		h := setup(50)
		_, w := h.begin(prefix, begin, true)
		h.inserted([][]byte{key(70)})
		h.end(prefix, w, nil, true)
		seeks(t, h, key(70))
	})
	t.Run("of two walks the one that got further counts", func(t *testing.T) {
		h := setup(50)
		_, w1 := h.begin(prefix, begin, true)
		_, w2 := h.begin(prefix, begin, true)
		h.end(prefix, w2, key(80), true)
		h.end(prefix, w1, key(60), true)
		seeks(t, h, key(80))
	})
	t.Run("a walk that broke off says nothing", func(t *testing.T) {
		h := setup(50)
		_, w := h.begin(prefix, begin, true)
		h.end(prefix, w, key(90), false)
		seeks(t, h, key(50))
	})
	t.Run("a reading from behind the head is left as it is", func(t *testing.T) {
		h := setup(50)
		got, w := h.begin(prefix, key(60), false)
		if w != nil || !bytes.Equal(got, key(60)) {
			t.Errorf("got %x, a walk %t; want the key itself and none", got, w != nil)
		}
	})
	t.Run("a reading from the middle of an unknown queue is left as it is", func(t *testing.T) {
		h := newHeads(func(key []byte) int { return len(key) - 24 })
		if got, w := h.begin(prefix, key(60), false); w != nil || !bytes.Equal(got, key(60)) {
			t.Errorf("got %x, a walk %t; want the key itself and none", got, w != nil)
		}
	})
}
