package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/store"
)

var exportTime = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

func exportOf(tb testing.TB, s *Store) ([]byte, store.ExportCounts) {
	tb.Helper()
	var out bytes.Buffer
	counts, err := store.WriteExport(context.Background(), &out, s, store.ExportOptions{At: exportTime})
	mustDo(tb, err)
	return out.Bytes(), counts
}

func importFrom(s *Store, raw []byte) (store.Imported, error) {
	r, err := store.ReadExport(bytes.NewReader(raw))
	if err != nil {
		return store.Imported{}, err
	}
	return s.Import(context.Background(), r.Messages())
}

// fillMoved makes messages of all kinds, in lines and not, whose sum is more than a commit group.
func fillMoved(tb testing.TB, s *Store) {
	tb.Helper()
	for n := range 40 {
		m := newMessage(tb, "alerts", "audit", "alerts")
		m.Recipients[1].Order = fmt.Sprintf("=%d", n%7)
		m.Recipients[2].Delay = time.Hour
		if n%3 == 0 {
			m.Idempotency = &store.Idempotency{Key: [32]byte{byte(n)}, Content: [32]byte{1}}
		}
		m, _, err := s.Accept(tb.Context(), m, bytes.Repeat([]byte{byte(n)}, n*1000))
		mustDo(tb, err)
		d := m.Delivery(0)
		after := d
		after.Attempts, after.Made, after.BegunAt, after.DueAt = 1, 1, exportTime, exportTime.Add(time.Hour)
		a := store.Attempt{
			Delivery: d.ID, Round: 1, Number: 1, StartedAt: exportTime, Class: store.ClassStatus, Status: 500, Error: "answered 500", Body: []byte("no"),
		}
		switch n % 5 {
		case 1:
			after.State, after.DueAt, after.EndedAt = store.Delivered, time.Time{}, exportTime
			a.Class, a.Status, a.Error = store.ClassOK, 200, ""
		case 2:
			after.State, after.DueAt, after.EndedAt, after.Reason = store.Failed, time.Time{}, exportTime, "used up"
		case 3:
			continue
		}
		mustRecord(tb, s, d, after, a)
	}
	head := mustDueOf(tb, s, "audit")[0]
	after := head
	after.State, after.EndedAt, after.Blocking = store.Failed, exportTime, true
	mustRecord(tb, s, head, after, store.Attempt{})
	_, _, err := s.Cancel(tb.Context(), head.ID.Message().Delivery(2), exportTime, "by hand")
	mustDo(tb, err)
	_, _, err = s.Accept(tb.Context(), newMessage(tb), nil)
	mustDo(tb, err)
	_, err = s.AcceptAll(tb.Context(), batchOf("e.1."+strings.Repeat("x", 20), 30, make([]byte, 50_000)))
	mustDo(tb, err)
}

func mustDueOf(tb testing.TB, s *Store, destination string) []store.Delivery {
	tb.Helper()
	due, err := s.Due(tb.Context(), destination, store.Cursor{}, 100)
	mustDo(tb, err)
	return due
}

// contents returns what stands under each key, but for what is of one store alone: notes of its commits and its clock.
// Of a line only the first and the order of the others counts, not the numbers of their places.
func contents(tb testing.TB, s *Store) map[string]string {
	tb.Helper()
	all := make(map[string]string)
	places := make(map[string]int)
	mustDo(tb, s.db.View(func(txn *view) error {
		var keys [][]byte
		scanKeys(txn, nil, nil, func(key []byte) bool {
			keys = append(keys, slices.Clone(key))
			return true
		})
		for _, key := range keys {
			if key[0] == kindCommit || key[0] == kindFormat || key[0] == kindSkew {
				continue
			}
			var content []byte
			item, err := txn.Get(key)
			mustDo(tb, err)
			if item.ValueSize() > 0 {
				content, err = get(txn, key)
				mustDo(tb, err)
			}
			switch {
			case key[0] == kindLine:
				l, err := decodeLine(content)
				mustDo(tb, err)
				content = l.first[:]
			case key[0] == kindWaiting:
				line := string(key[:len(key)-8])
				places[line]++
				key = append(key[:len(key)-8], byte(places[line]))
			case key[0] == kindIndex && len(content) == 8:
				content = []byte("a place")
			case key[0] == kindMessage:
				m, err := decodeMessage(store.MessageID(key[1:]), content)
				mustDo(tb, err)
				m.batch = store.MessageID{}
				content = fmt.Appendf(nil, "%+v", m)
				if m.Idempotency != nil {
					content = fmt.Appendf(content, "%x", *m.Idempotency)
				}
				m.Idempotency = nil
			}
			all[string(key)] = string(content)
		}
		return nil
	}))
	return all
}

func sameContents(tb testing.TB, got, want map[string]string) {
	tb.Helper()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[key]; !ok {
			tb.Errorf("%s (%q) is missing", describe([]byte(key)), key)
		} else if g != want[key] && key[0] != kindMessage {
			tb.Errorf("%s (%q):\n got %q\nwant %q", describe([]byte(key)), key, g, want[key])
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			tb.Errorf("%s (%q) is there", describe([]byte(key)), key)
		}
	}
}

func TestExportedStore(t *testing.T) {
	t.Run("every record and index entry of an import is as in the store it came from", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		fillMoved(t, s)
		raw, counts := exportOf(t, s)
		again := mustOpen(t, Options{Path: t.TempDir()})
		done, err := importFrom(again, raw)
		if err != nil || done.Messages != counts.Messages || done.Pending != s.Pending() {
			t.Fatalf("Import: %+v, error %v; want %d messages, %d pending", done, err, counts.Messages, s.Pending())
		}
		sameContents(t, contents(t, again), contents(t, s))
		checkWhole(t, again)
	})
	t.Run("also with another key, and none of it is readable on the disk", func(t *testing.T) {
		from, to := store.NewKey(), store.NewKey()
		s := mustOpen(t, Options{Path: t.TempDir(), Keys: []store.Key{from}})
		places := fillCanaries(t, s)
		raw, _ := exportOf(t, s)
		path := t.TempDir()
		again := mustOpen(t, Options{Path: path, Keys: []store.Key{to}})
		if _, err := importFrom(again, raw); err != nil {
			t.Fatalf("Import: %v", err)
		}
		// The long message has come in pieces, in which each delivery has a record of its own.
		others := []byte{kindVault, kindPause, kindDelivery}
		sameContents(t, withoutKinds(contents(t, again), others...), withoutKinds(contents(t, s), others...))
		mustDo(t, again.Close())
		eachFile(t, path, func(name string, content []byte) {
			for _, text := range places {
				if bytes.Contains(content, []byte(text)) {
					t.Errorf("%s shows %q", name, text)
				}
			}
		})
	})
	t.Run("of what is stored an export shows all but the vault and the pauses", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		places := fillCanaries(t, s)
		raw, _ := exportOf(t, s)
		for _, text := range places {
			hidden := text == canary("certificate key") || text == canary("pause")
			if shown := bytes.Contains(raw, []byte(text)); shown == hidden {
				t.Errorf("%s: shown %t", text, shown)
			}
		}
	})
	t.Run("a damaged record costs its message, a damaged attempt only itself", func(t *testing.T) {
		core, logs := observer.New(zap.ErrorLevel)
		s := mustOpen(t, Options{Path: t.TempDir(), Log: zap.New(core)})
		ids := fill(t, s, 4, 100)
		for _, id := range ids[:3] {
			d, err := s.Delivery(t.Context(), id.Delivery(0))
			mustDo(t, err)
			after := d
			after.State, after.EndedAt, after.Made = store.Delivered, exportTime, 1
			mustRecord(t, s, d, after, store.Attempt{Delivery: d.ID, Round: 1, Number: 1, StartedAt: exportTime, Class: store.ClassOK})
		}
		spoil(t, s, attemptKey(ids[0].Delivery(0), 1, 1))
		spoil(t, s, deliveryKey(ids[1].Delivery(0)))
		spoil(t, s, messageKey(ids[3]))
		raw, counts := exportOf(t, s)
		if want := (store.ExportCounts{Messages: 2, Deliveries: 2, Attempts: 1, Damaged: 3}); counts != want || logs.Len() != 3 {
			t.Errorf("got %+v and %d log lines, want %+v and 3", counts, logs.Len(), want)
		}
		done, err := importFrom(mustOpen(t, Options{Path: t.TempDir()}), raw)
		if err != nil || done.Messages != 2 {
			t.Errorf("Import: %+v, error %v; want 2 messages", done, err)
		}
	})
	t.Run("a store that is closed or an end of the context ends it", func(t *testing.T) {
		s := mustOpen(t, Options{Path: t.TempDir()})
		fill(t, s, 3, 100)
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := store.WriteExport(ctx, new(bytes.Buffer), s, store.ExportOptions{At: exportTime, Progress: func(int64) { n++; cancel() }})
		if !errors.Is(err, context.Canceled) || n != 1 {
			t.Errorf("canceled after the first: %d messages, error %v", n, err)
		}
		mustDo(t, s.Close())
		if _, err := store.WriteExport(t.Context(), new(bytes.Buffer), s, store.ExportOptions{At: exportTime}); !errors.Is(err, store.ErrClosed) {
			t.Errorf("closed: got error %v, want ErrClosed", err)
		}
		if _, err := s.Import(t.Context(), func(yield func(store.Exported, error) bool) { yield(moved(t, 10), nil) }); !errors.Is(err, store.ErrClosed) {
			t.Errorf("import into a closed one: got error %v, want ErrClosed", err)
		}
	})
}

func withoutKinds(all map[string]string, kinds ...byte) map[string]string {
	maps.DeleteFunc(all, func(key, _ string) bool { return slices.Contains(kinds, key[0]) })
	return all
}

// checkWhole wants nothing wrong with a store, also after the next start, and its counts to be those of its queues.
func checkWhole(tb testing.TB, s *Store) {
	tb.Helper()
	found, err := s.Check(tb.Context())
	if err != nil || len(found.Faults) > 0 {
		tb.Errorf("Check: faults %q, error %v", found.Faults, err)
	}
	kept, err := s.pendingByName(tb.Context())
	mustDo(tb, err)
	counts, n, err := countPending(s.db)
	if err != nil || n != s.Pending() || !maps.Equal(counts, kept) {
		tb.Errorf("in the queues: %d, %v, error %v; want %d, %v", n, counts, err, s.Pending(), kept)
	}
	err = s.db.View(func(txn *view) error {
		suspects, err := suspectLines(txn)
		if len(suspects) > 0 {
			tb.Errorf("lines %q have no head", suspects)
		}
		return err
	})
	mustDo(tb, err)
}
