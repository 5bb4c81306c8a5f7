package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/postern-relay/postern/store"
)

// records is an Exporter of what it holds.
type records []store.Exported

func (r records) Export(context.Context, store.Filter, func(error)) iter.Seq2[store.Exported, error] {
	return func(yield func(store.Exported, error) bool) {
		for _, x := range r {
			if !yield(x, nil) {
				return
			}
		}
	}
}

var exportedAt = time.Date(2026, 3, 14, 15, 9, 26, 535_000_000, time.UTC)

func writeExport(tb testing.TB, r records) []byte {
	tb.Helper()
	var out bytes.Buffer
	if _, err := store.WriteExport(context.Background(), &out, r, store.ExportOptions{At: exportedAt}); err != nil {
		tb.Fatalf("WriteExport: %v", err)
	}
	return out.Bytes()
}

func readExport(r io.Reader) (all records, err error) {
	e, err := store.ReadExport(r)
	if err != nil {
		return nil, err
	}
	for x, err := range e.Messages() {
		if err != nil {
			return all, err
		}
		all = append(all, x)
	}
	return all, nil
}

// sampleRecords are two messages with something in every field.
func sampleRecords(tb testing.TB) records {
	tb.Helper()
	id, err := store.ParseMessageID("msg_0199e3a1b2c37def8123456789abc000")
	if err != nil {
		tb.Fatal(err)
	}
	m := store.Message{
		ID: id, Event: "alert.fired", ContentType: "application/json", AcceptedAt: exportedAt, Size: 12, Hops: 2, Key: "k",
		Path: "/a?b=c", Header: []store.Field{{Name: "Traceparent", Value: "00-1-2-01"}, {Name: "X-A", Value: "\xff"}},
		Recipients:  []store.Recipient{{Destination: "alerts", Delay: 1500 * time.Millisecond, Order: "=k"}, {Destination: "audit", Order: "=k"}},
		Idempotency: &store.Idempotency{Key: [32]byte{1}, Content: [32]byte{2}},
	}
	first, second := m.Delivery(0), m.Delivery(1)
	first.Attempts, first.Made, first.BegunAt = 1, 2, exportedAt
	first.Last = store.Outcome{At: exportedAt, Class: store.ClassStatus, Status: 500, Error: "caf\xe9"}
	second.State, second.Blocking, second.Reason, second.DueAt, second.EndedAt = store.Failed, true, "used up", time.Time{}, exportedAt
	a := store.Attempt{
		Delivery: first.ID, Round: 1, Number: 2, StartedAt: exportedAt, Took: 123456789, Class: store.ClassStatus, Probe: true, Status: 500,
		Error: "caf\xe9", Request: store.Sent{
			Method: "POST", URL: "https://a.test/x?y=***", Header: []store.Field{{Name: "A", Value: "b"}}, Body: []byte("sent"), Rendered: true, Truncated: true,
		},
		Header: http.Header{"X-B": {"2", "1"}, "X-A": {"\xfe"}}, Body: []byte{0xff}, Truncated: true, RetryHint: time.Minute,
		Timing: store.Timing{DNS: 1, Connect: 2, TLS: 3, FirstByte: 4}, Peer: "127.0.0.1:443", Reused: true, CertExpires: exportedAt,
	}
	other := store.Message{ID: id, AcceptedAt: exportedAt, Size: 70, Reduced: true}
	other.ID[0]++
	return records{
		{Message: m, Body: []byte("{\"a\": \"<&\"}\n"), Deliveries: []store.ExportedDelivery{
			{Delivery: first, History: []store.Attempt{a}, Omitted: 1}, {Delivery: second},
		}},
		{Message: other, Body: []byte{0, 1, 2}},
	}
}

func TestExportForm(t *testing.T) {
	t.Run("every field of a record comes back", func(t *testing.T) {
		want := sampleRecords(t)
		got, err := readExport(bytes.NewReader(writeExport(t, want)))
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		want[0].Deliveries[0].Omitted = 0 // they are not on record any more
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		// What this test would overlook: a new field of a record that nobody has thought of here.
		for _, v := range []any{want[0].Message, want[0].Deliveries[0].Delivery, want[0].Deliveries[0].History[0], want[0].Deliveries[0].History[0].Request, want[0].Deliveries[0].History[0].Timing} {
			for n := range reflect.TypeOf(v).NumField() {
				name := reflect.TypeOf(v).Field(n).Name
				elsewhere := name == "Reduced" || name == "EndedAt" || name == "Reason" || name == "Blocking" // of the others in the sample
				if reflect.ValueOf(v).Field(n).IsZero() && !elsewhere {
					t.Errorf("%T.%s is not set in the sample", v, name)
				}
			}
		}
	})
	t.Run("its lines are those that the documentation describes", func(t *testing.T) {
		lines := bytes.Split(writeExport(t, sampleRecords(t)), []byte("\n"))
		if got, want := string(lines[0]), `{"format":"postern-export","version":1,"exported_at":"2026-03-14T15:09:26.535Z"}`; got != want {
			t.Errorf("first line:\n got %s\nwant %s", got, want)
		}
		if got, want := string(lines[2]), `{"id":"msg_0299e3a1b2c37def8123456789abc000","event":"","content_type":"","accepted_at":"2026-03-14T15:09:26.535Z",`+
			`"size_bytes":70,"headers":[],"body_base64":"AAEC","body_reduced":true,"deliveries":[]}`; got != want {
			t.Errorf("a message:\n got %s\nwant %s", got, want)
		}
		sum := sha256.Sum256(append(bytes.Join(lines[:3], []byte("\n")), '\n'))
		if got, want := string(lines[3]), `{"messages":2,"deliveries":2,"pending":1,"left_out":0,"attempts":1,"omitted":1,"damaged":0,"sha256":"`+
			hex.EncodeToString(sum[:])+`"}`; got != want {
			t.Errorf("last line:\n got %s\nwant %s", got, want)
		}
	})
	t.Run("durations keep their nanoseconds", func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		r := sampleRecords(t)[:1]
		for range 2000 {
			want := time.Duration(random.Int64N(int64(24*time.Hour) >> random.IntN(40)))
			r[0].Deliveries[0].History[0].Took = want
			got, err := readExport(bytes.NewReader(writeExport(t, r)))
			if err != nil || got[0].Deliveries[0].History[0].Took != want {
				t.Fatalf("%d ns: got %d, error %v", want, got[0].Deliveries[0].History[0].Took, err)
			}
		}
	})
	t.Run("it is the same through a reader that gives little at a time", func(t *testing.T) {
		raw := writeExport(t, sampleRecords(t))
		if got, err := readExport(iotest.OneByteReader(bytes.NewReader(raw))); err != nil || len(got) != 2 {
			t.Errorf("got %d messages, error %v; want 2", len(got), err)
		}
	})
	t.Run("the error of a reader is returned as it is", func(t *testing.T) {
		raw := writeExport(t, sampleRecords(t))
		broken := errors.New("the disk is gone")
		for n := range len(raw) {
			_, err := readExport(io.MultiReader(bytes.NewReader(raw[:n]), iotest.ErrReader(broken)))
			if !errors.Is(err, broken) || errors.Is(err, store.ErrExport) {
				t.Fatalf("behind %d bytes: got error %v, want that of the reader", n, err)
			}
		}
	})
	t.Run("attempts beyond the bound are left out, the oldest first", func(t *testing.T) {
		body := make([]byte, store.MaxHistory/10)
		history, omitted, err := store.NewHistoryRoom().Take(func(yield func(store.Attempt, error) bool) {
			for n := range 30 {
				if !yield(store.Attempt{Number: n + 1, Body: body}, nil) {
					return
				}
			}
		})
		if err != nil || omitted+len(history) != 30 || len(history) < 8 || len(history) > 10 || history[len(history)-1].Number != 30 || history[0].Number != omitted+1 {
			t.Errorf("got %d from %d on, %d omitted, error %v; want the latest 8 to 10 of 30", len(history), history[0].Number, omitted, err)
		}
	})
}

// sealed gives lines the last line that they would have.
func sealed(lines ...string) []byte {
	raw := []byte(strings.Join(lines, "\n") + "\n")
	sum := sha256.Sum256(raw)
	counts := map[string]any{"messages": len(lines) - 1, "deliveries": 0, "pending": 0, "left_out": 0, "attempts": 0, "omitted": 0, "damaged": 0}
	counts["sha256"] = hex.EncodeToString(sum[:])
	last, _ := json.Marshal(counts)
	return append(append(raw, last...), '\n')
}

func TestReadExport(t *testing.T) {
	raw := writeExport(t, sampleRecords(t))
	lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
	t.Run("one that was cut off anywhere is refused", func(t *testing.T) {
		for n := range len(raw) {
			if _, err := readExport(bytes.NewReader(raw[:n])); !errors.Is(err, store.ErrExport) {
				t.Fatalf("%d of %d bytes: got error %v, want ErrExport", n, len(raw), err)
			}
		}
	})
	t.Run("one with a bit changed anywhere is refused", func(t *testing.T) {
		told := bytes.Index(raw, []byte(`"damaged":`)) + len(`"damaged":`) // what was left out, nothing else can tell
		for n := range len(raw) {
			if n == told {
				continue
			}
			bad := bytes.Clone(raw)
			bad[n] ^= 1
			if _, err := readExport(bytes.NewReader(bad)); !errors.Is(err, store.ErrExport) {
				t.Fatalf("byte %d of %d: got error %v, want ErrExport", n, len(raw), err)
			}
		}
	})
	t.Run("one with a line more or less, or in another order, is refused", func(t *testing.T) {
		for _, order := range [][]int{{0, 1, 3}, {0, 2, 3}, {0, 2, 1, 3}, {0, 1, 1, 2, 3}, {1, 2, 3}, {0, 1, 2}, {3}, {0, 3}, {0, 1, 2, 3, 3}, {0, 0, 1, 2, 3}, {}} {
			var some []string
			for _, n := range order {
				some = append(some, lines[n])
			}
			if _, err := readExport(strings.NewReader(strings.Join(some, "\n") + "\n")); !errors.Is(err, store.ErrExport) {
				t.Errorf("lines %v: got error %v, want ErrExport", order, err)
			}
		}
	})
	for name, c := range map[string]struct {
		line     int // from 1
		old, new string
		want     string
	}{
		"no JSON":                         {2, `{"id"`, `"id"`, "line 2: "},
		"two objects":                     {2, `{"id"`, `{} {"id"`, "line 2: something follows the object"},
		"no object":                       {3, lines[2], `null`, `line 3: id: malformed id`},
		"an unknown field":                {3, `"event"`, `"evnt"`, `line 3: unknown field "evnt"`},
		"another type":                    {2, `"size_bytes":12`, `"size_bytes":"12"`, "line 2: cannot unmarshal string"},
		"bytes that are no UTF-8":         {2, "alert.fired", "alert\xff", "line 2: it is not UTF-8"},
		"an id in capitals":               {2, `"msg_0199e3a1b2c37def8123456789abc000"`, `"msg_0199E3A1B2C37DEF8123456789ABC000"`, "line 2: id: malformed id"},
		"another kind of id":              {2, `"msg_0199e3a1b2c37def8123456789abc000"`, `"dlv_0199e3a1b2c37def8123456789abc001"`, "line 2: id: malformed id"},
		"a delivery of another message":   {2, `"dlv_0199e3a1b2c37def8123456789abc002"`, `"dlv_0199e3a1b2c37def8123456789abd002"`, "line 2: deliveries[1].id: "},
		"an unknown state":                {2, `"state":"failed"`, `"state":"lost"`, `line 2: deliveries[1].state: there is no state "lost"`},
		"an unknown class":                {2, `"class":"status","status":500,"error_base64":"Y2Fm6Q==","probe"`, `"class":"stat","probe"`, `line 2: deliveries[0].history[0].class: there is no class "stat"`},
		"another size":                    {2, `"size_bytes":12`, `"size_bytes":13`, "line 2: body: it has 12 bytes, and size_bytes says 13"},
		"a body twice":                    {3, `"body_base64"`, `"body":"x","body_base64"`, "line 3: body: there is a body_base64 beside it"},
		"a text twice":                    {3, `"event":""`, `"event":"x","event_base64":"/w=="`, "line 3: event: there is a event_base64 beside it"},
		"no time":                         {3, `"accepted_at":"2026-03-14T15:09:26.535Z",`, ``, "line 3: accepted_at: it is missing"},
		"a time before the year 1":        {3, `2026-03-14T`, `0000-03-14T`, "line 3: accepted_at: it lies before the year 1"},
		"a time behind the year 9999":     {3, `2026-03-14T15:09:26.535Z`, `9999-12-31T23:59:59-23:59`, "line 3: accepted_at: it lies before the year 1 or behind the year 9999"},
		"another export behind it":        {3, lines[2], lines[3] + "\n" + strings.Join(lines, "\n"), "line 3: the export ends here, and something follows"},
		"objects without number":          {3, `"deliveries":[]`, `"deliveries":[` + strings.Repeat("{},", 2<<20) + `{}]`, "line 3: it has more than 2097152 JSON objects"},
		"another form of a time":          {3, `2026-03-14T15`, `2026-03-14 15`, "line 3: parsing time"},
		"a pending one without a time":    {2, `"due_at":"2026-03-14T15:09:28.035Z",`, ``, "line 2: deliveries[0].due_at: it is missing"},
		"a digest that is none":           {2, `"key_sha256":"01`, `"key_sha256":"0`, "line 2: idempotency.key_sha256: "},
		"a duration below 0":              {2, `"took_seconds":0`, `"took_seconds":-0`, "line 2: deliveries[0].history[0].took_seconds: it is -0.12"},
		"a duration beyond all":           {2, `"retry_hint_seconds":60`, `"retry_hint_seconds":6e300`, "line 2: deliveries[0].history[0].retry_hint_seconds: "},
		"a header that cannot be sent":    {2, `"name":"Traceparent"`, `"name":"Trace parent"`, "line 2: headers[0].name: "},
		"a header in another form":        {2, `"name":"Traceparent"`, `"name":"traceparent"`, "line 2: headers[0].name: "},
		"a line end in a header":          {2, `00-1-2-01`, `00\r\nX: y`, "line 2: headers[0].value: it holds a line end"},
		"a path that is none":             {2, `"path":"/a`, `"path":"a`, "line 2: path: "},
		"left out and not pending":        {2, `"state":"failed"`, `"state":"failed","left_out":true`, "line 2: deliveries[1].left_out: it is not pending"},
		"out of a line that it is not in": {3, `"deliveries":[]`, `"deliveries":[{"id":"dlv_0299e3a1b2c37def8123456789abc001","destination":"a","state":"pending","round":1,"due_at":"2026-03-14T15:09:26Z","left_line":true}]`, "line 3: deliveries[0].left_line: "},
		"another format":                  {1, `postern-export`, `postern-import`, "line 1: it is not the first line of an export"},
		"another version":                 {1, `"version":1`, `"version":2`, "line 1: the export is of version 2, and this program reads version 1"},
		"another version, more in it":     {1, `"version":1`, `"version":2,"more":1`, "line 1: the export is of version 2"},
		"no time of the export":           {1, `,"exported_at":"2026-03-14T15:09:26.535Z"`, ``, "line 1: exported_at: it is missing"},
		"other counts":                    {2, "", "", "line 4: it says {Messages:2 "},
	} {
		t.Run("refused with its line: "+name, func(t *testing.T) {
			bad := append([]string(nil), lines[:3]...)
			if !strings.Contains(bad[c.line-1], c.old) {
				t.Fatalf("%q is not in line %d", c.old, c.line)
			}
			bad[c.line-1] = strings.Replace(bad[c.line-1], c.old, c.new, 1)
			_, err := readExport(bytes.NewReader(sealed(bad...)))
			var fault *store.ExportError
			if !errors.As(err, &fault) || !errors.Is(err, store.ErrExport) || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got error %v, want %s…", err, c.want)
			}
		})
	}
	t.Run("a line without an end is not read for ever", func(t *testing.T) {
		endless := io.MultiReader(strings.NewReader(lines[0]+"\n"), endless{})
		if _, err := readExport(endless); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("got error %v, want ErrTooLarge", err)
		}
	})
	t.Run("what a check says is told with its line", func(t *testing.T) {
		n, refused := 0, errors.New("too large for this engine")
		_, _, err := store.CheckExport(t.Context(), bytes.NewReader(raw), func(store.Exported) error {
			if n++; n == 2 {
				return refused
			}
			return nil
		}, nil)
		if !errors.Is(err, refused) || !strings.HasPrefix(fmt.Sprint(err), "line 3: ") {
			t.Errorf("got error %v, want that of the check, in line 3", err)
		}
	})
}

// endless is a line without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	return copy(p, bytes.Repeat([]byte(" "), len(p))), nil
}

func FuzzReadExport(f *testing.F) {
	raw := writeExport(f, sampleRecords(f))
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add([]byte(`{"format":"postern-export","version":1,"exported_at":"2026-03-14T15:09:26.535Z"}` + "\n" +
		`{"id":"msg_0299e3a1b2c37def8123456789abc000","accepted_at":"2026-03-14T15:09:26+01:00","deliveries":[{"id":"dlv_0299e3a1b2c37def8123456789abc001",` +
		`"destination":"a","state":"pending","left_out":true,"round":1,"order":"=k","left_line":true,"due_at":"2026-03-14T15:09:26.1234Z"}]}` + "\n"))
	f.Add([]byte("{}\n{}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := readExport(bytes.NewReader(raw))
		if err != nil && !errors.Is(err, store.ErrExport) {
			t.Fatalf("got error %v, want an ErrExport", err)
		}
		for _, x := range all {
			if err := store.CheckExported(x); err != nil {
				t.Fatalf("a message that is none was read: %v", err)
			}
		}
		again := writeExport(t, all)
		got, err := readExport(bytes.NewReader(again))
		if err != nil || !reflect.DeepEqual(got, all) {
			t.Fatalf("what was read, written and read again is not the same, error %v:\n got %+v\nwant %+v", err, got, all)
		}
		if twice := writeExport(t, got); !bytes.Equal(twice, again) {
			t.Fatalf("written twice:\n got %s\nwant %s", twice, again)
		}
	})
}
