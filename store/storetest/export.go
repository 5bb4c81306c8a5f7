package storetest

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
)

// portable is an engine that can be exported and imported into.
type portable interface {
	store.Store
	store.Exporter
	store.Importer
}

// export returns an export as it is written.
func export(tb testing.TB, s store.Store, f store.Filter) ([]byte, store.ExportCounts) {
	tb.Helper()
	var out bytes.Buffer
	counts, err := store.WriteExport(context.Background(), &out, s.(portable), store.ExportOptions{
		Filter: f, At: start.Add(time.Hour),
		Damaged: func(err error) { tb.Errorf("export: damaged: %v", err) },
	})
	if err != nil {
		tb.Fatalf("export: %v", err)
	}
	return out.Bytes(), counts
}

// tryImport checks an export, and imports it.
func tryImport(s store.Store, raw []byte) (store.Imported, error) {
	engine := s.(portable)
	if _, _, err := store.CheckExport(context.Background(), bytes.NewReader(raw), engine.CheckImport, nil); err != nil {
		return store.Imported{}, err
	}
	r, err := store.ReadExport(bytes.NewReader(raw))
	if err != nil {
		return store.Imported{}, err
	}
	return engine.Import(context.Background(), r.Messages())
}

func mustImport(tb testing.TB, s store.Store, raw []byte) store.Imported {
	tb.Helper()
	done, err := tryImport(s, raw)
	if err != nil {
		tb.Fatalf("import: %v", err)
	}
	return done
}

// fillOdd makes messages of every kind that there can be.
func fillOdd(tb testing.TB, s store.Store) {
	tb.Helper()
	m := message(tb, "alerts", "audit", "alerts")
	m.Recipients[1].Delay = 90 * time.Second
	m.Recipients[2].Order = "=kk\xff"
	m.Idempotency = &store.Idempotency{Key: [32]byte{1}, Content: [32]byte{2}}
	m.ContentType, m.Key, m.Path = "text/plain; x=\xff\x00", "k\xff", "/a%2fb/\xff?c=d"
	m.Header = []store.Field{{Name: "Traceparent", Value: "00-1-2-01"}, {Name: "X-A", Value: "1\xfe"}, {Name: "X-A"}}
	accept(tb, s, m, "hello \U0001F600 \u2028 <&>\x00")
	d := m.Delivery(0)
	after, a := retry(d, start, start.Add(time.Hour))
	a.Error, a.RetryHint = "caf\xe9", 17*time.Second
	a.Request = store.Sent{
		Method: "POST", URL: "https://a.test/x?y=***", Body: []byte{0xff, 0}, Rendered: true,
		Header: []store.Field{{Name: "A", Value: "b"}, {Name: "A", Value: "c\xff"}},
	}
	a.Header = http.Header{"X-B": {"2", "1"}, "X-A": {"\xfe"}}
	a.Body, a.Truncated, a.Peer, a.CertExpires = []byte("<answer>"), true, "127.0.0.1:443", start.Add(24*time.Hour)
	a.Timing = store.Timing{DNS: 1, Connect: 12_345_678, TLS: time.Second + 1, FirstByte: 3 * time.Hour}
	record(tb, s, d, after, a)
	first := after
	after, a = end(first, store.Failed, start.Add(2*time.Hour))
	a.Class, a.Error, a.Probe = store.ClassDNS, "no such host", true
	after.Reason = "used\xffup"
	record(tb, s, first, after, a)
	if _, err := s.Replay(tb.Context(), d.ID, start.Add(3*time.Hour)); err != nil {
		tb.Fatalf("Replay: %v", err)
	}

	for n := range 5 { // a line that is held up, and one whose second has left it
		m := message(tb, "audit", "alerts")
		m.Recipients[0].Order, m.Recipients[1].Order = "=a", "=b"
		accept(tb, s, m, strings.Repeat("\x00", n))
		switch n {
		case 0:
			after, a := end(m.Delivery(0), store.Failed, start.Add(time.Minute))
			a.Class, after.Blocking = store.ClassStatus, true
			record(tb, s, m.Delivery(0), after, a)
			after, a = end(m.Delivery(1), store.Delivered, start.Add(time.Minute))
			record(tb, s, m.Delivery(1), after, a)
		case 2:
			if _, err := s.Replay(tb.Context(), m.ID.Delivery(1), start.Add(time.Minute)); err != nil {
				tb.Fatalf("Replay: %v", err)
			}
		case 3:
			if _, _, err := s.Cancel(tb.Context(), m.ID.Delivery(1), start.Add(time.Minute), "by hand"); err != nil {
				tb.Fatalf("Cancel: %v", err)
			}
		}
	}
	accept(tb, s, message(tb), "for nobody")
	large := message(tb, "alerts")
	accept(tb, s, large, strings.Repeat("ab\"\xff", 300_000))
	after, a = end(large.Delivery(0), store.Delivered, start.Add(time.Minute))
	record(tb, s, large.Delivery(0), after, a)
	if err := s.Reduce(tb.Context(), large.ID, []byte("what is left")); err != nil {
		tb.Fatalf("Reduce: %v", err)
	}
	accept(tb, s, message(tb, "\xff\x01"), strings.Repeat("x", 1500<<10))
}

func testExport(t *testing.T, open Open) {
	t.Run("what comes of an import is exported byte by byte as it was", func(t *testing.T) {
		s := open(t, Options{})
		fillOdd(t, s)
		raw, counts := export(t, s, store.Filter{})
		again := open(t, Options{})
		done := mustImport(t, again, raw)
		got, _ := export(t, again, store.Filter{})
		sameExport(t, got, raw)
		equal(t, "imported", done, store.Imported{
			Messages: counts.Messages, Deliveries: counts.Deliveries, Pending: counts.Pending, Attempts: counts.Attempts,
		})
		equal(t, "pending", again.Pending(), s.Pending())
		equal(t, "backlog", backlogOf(t, again), backlogOf(t, s))
	})
	t.Run("nothing is an export too", func(t *testing.T) {
		raw, counts := export(t, open(t, Options{}), store.Filter{})
		equal(t, "counts", counts, store.ExportCounts{})
		equal(t, "imported", mustImport(t, open(t, Options{}), raw), store.Imported{})
	})
	t.Run("what is secret by itself is not in it", func(t *testing.T) {
		s := open(t, Options{})
		fillOdd(t, s)
		const secret = "canary-of-the-vault-91c3"
		for _, name := range []string{"acme/" + secret, "certificates/a/a.key"} {
			if err := s.Keep(t.Context(), name, []byte(secret)); err != nil {
				t.Fatalf("Keep: %v", err)
			}
		}
		raw, _ := export(t, s, store.Filter{})
		if bytes.Contains(raw, []byte("canary")) || bytes.Contains(raw, []byte("certificates")) || bytes.Contains(raw, []byte("acme")) {
			t.Error("it holds what the vault keeps")
		}
		again := open(t, Options{})
		mustImport(t, again, raw)
		items, err := again.KeptBelow(t.Context(), "")
		if err != nil || len(items) > 0 {
			t.Errorf("in the vault after the import: %d items, error %v; want none", len(items), err)
		}
	})
	t.Run("an import goes on as what was exported", func(t *testing.T) {
		Model(t, 1, 120, open(t, Options{MaxPending: MaxModelPending}), func(s store.Store) store.Store {
			return moved(t, open, s, MaxModelPending)
		})
	})
	t.Run("a second import of the same changes nothing", func(t *testing.T) {
		s := open(t, Options{})
		fillOdd(t, s)
		raw, counts := export(t, s, store.Filter{})
		again := open(t, Options{})
		mustImport(t, again, raw)
		equal(t, "again", mustImport(t, again, raw), store.Imported{Existing: counts.Messages})
		equal(t, "into what it came from", mustImport(t, s, raw), store.Imported{Existing: counts.Messages})
		got, _ := export(t, again, store.Filter{})
		sameExport(t, got, raw)
	})
	t.Run("one that was broken off goes on", func(t *testing.T) {
		s := open(t, Options{})
		fillOdd(t, s)
		raw, counts := export(t, s, store.Filter{})
		again := open(t, Options{})
		r, err := store.ReadExport(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("ReadExport: %v", err)
		}
		broken := errors.New("the power is gone")
		done, err := again.(portable).Import(t.Context(), func(yield func(store.Exported, error) bool) {
			n := 0
			for x, err := range r.Messages() {
				if n++; n > 4 {
					yield(store.Exported{}, broken)
					return
				}
				if !yield(x, err) {
					return
				}
			}
		})
		if !errors.Is(err, broken) || done.Messages != 4 {
			t.Fatalf("Import: %d messages, error %v; want 4 and the error that was yielded", done.Messages, err)
		}
		done = mustImport(t, again, raw)
		equal(t, "existing", done.Existing, int64(4))
		equal(t, "messages", done.Messages, counts.Messages-4)
		got, _ := export(t, again, store.Filter{})
		sameExport(t, got, raw)
	})
	t.Run("the bound of pending deliveries does not hold", func(t *testing.T) {
		s := open(t, Options{})
		fillOdd(t, s)
		raw, _ := export(t, s, store.Filter{})
		full := open(t, Options{MaxPending: 1})
		mustImport(t, full, raw)
		equal(t, "pending", full.Pending(), s.Pending())
		if err := full.Full(); !errors.Is(err, store.ErrBacklog) {
			t.Errorf("Full: got %v, want ErrBacklog", err)
		}
	})
	testExportKeys(t, open)
	testExportLines(t, open)
	testExportFilter(t, open)
	testImportRefuses(t, open)
}

// moved returns a new engine with all that s had stored, and closes s. What an export leaves is set anew.
func moved(tb testing.TB, open Open, s store.Store, maxPending int64) store.Store {
	tb.Helper()
	raw, _ := export(tb, s, store.Filter{})
	again := open(tb, Options{MaxPending: maxPending})
	mustImport(tb, again, raw)
	got, _ := export(tb, again, store.Filter{})
	sameExport(tb, got, raw)
	pauses, err := s.Paused(tb.Context())
	for name, p := range pauses {
		err = errors.Join(err, again.Pause(tb.Context(), name, p))
	}
	outages, outErr := s.Outages(tb.Context())
	for name, o := range outages {
		err = errors.Join(err, again.NoteOutage(tb.Context(), name, o))
	}
	if err = errors.Join(err, outErr, s.Close()); err != nil {
		tb.Fatalf("move: %v", err)
	}
	return again
}

// sameExport compares two exports and shows the first line that differs.
func sameExport(tb testing.TB, got, want []byte) {
	tb.Helper()
	if bytes.Equal(got, want) {
		return
	}
	gotLines, wantLines := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for n := range min(len(gotLines), len(wantLines)) {
		if !bytes.Equal(gotLines[n], wantLines[n]) {
			tb.Fatalf("line %d of the export:\n got %.2000s\nwant %.2000s", n+1, gotLines[n], wantLines[n])
		}
	}
	tb.Fatalf("the export has %d lines, want %d", len(gotLines), len(wantLines))
}

func backlogOf(tb testing.TB, s store.Store) map[string]store.Backlog {
	tb.Helper()
	all, err := s.Backlog(tb.Context())
	if err != nil {
		tb.Fatalf("Backlog: %v", err)
	}
	return all
}

func testExportKeys(t *testing.T, open Open) {
	post := func(body byte) store.Message {
		m := message(t, "alerts")
		m.Idempotency = &store.Idempotency{Key: [32]byte{7}, Content: [32]byte{body}}
		return m
	}
	t.Run("an idempotency key comes along", func(t *testing.T) {
		s := open(t, Options{})
		first := accept(t, s, post(1), "x")
		raw, _ := export(t, s, store.Filter{})
		again := open(t, Options{})
		mustImport(t, again, raw)
		got, existing, err := again.Accept(t.Context(), post(1), []byte("x"))
		if err != nil || !existing {
			t.Fatalf("the same post again: existing %t, error %v; want the message that was imported", existing, err)
		}
		equal(t, "message", got, first)
		if _, _, err := again.Accept(t.Context(), post(2), nil); !errors.Is(err, store.ErrKeyConflict) {
			t.Errorf("another under the key: got error %v, want ErrKeyConflict", err)
		}
	})
	for name, size := range map[string]int{"a short message": 1, "a long message": 2 << 20} {
		t.Run("one that is taken stays with who has it, and does not come with "+name, func(t *testing.T) {
			s := open(t, Options{})
			theirs := accept(t, s, post(1), strings.Repeat("x", size))
			raw, _ := export(t, s, store.Filter{})
			again := open(t, Options{})
			ours := accept(t, again, post(1), "x")
			done := mustImport(t, again, raw)
			equal(t, "imported", done, store.Imported{Messages: 1, Deliveries: 1, Pending: 1, KeysTaken: 1})
			got, _, err := again.Accept(t.Context(), post(1), []byte("x"))
			if err != nil || got.ID != ours.ID {
				t.Errorf("the same post again: got %s, error %v; want %s", got.ID, err, ours.ID)
			}
			got, _, err = again.Load(t.Context(), theirs.ID)
			if err != nil || got.Idempotency != nil {
				t.Errorf("Load: got key %v, error %v; want the message without a key", got.Idempotency, err)
			}
			d := theirs.Delivery(0)
			after, a := end(d, store.Delivered, start)
			record(t, again, d, after, a)
			equal(t, "swept", sweepAll(t, again, start.Add(time.Hour), 10), 1)
			if got, _, err = again.Accept(t.Context(), post(1), []byte("x")); err != nil || got.ID != ours.ID {
				t.Errorf("after the sweep: got %s, error %v; want %s", got.ID, err, ours.ID)
			}
		})
	}
}
